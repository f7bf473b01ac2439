"""Ticks of complete bars on their way into the sampler: quotes, filter, control records."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from stream_calib.config import UniverseConfig
from stream_calib.engine.arrays import (
    Arrays,
    original_arrays,
    read_originals,
    read_text,
    text_array,
    under,
    within,
)
from stream_calib.engine.buffer import Taken, Value
from stream_calib.engine.rejects import Original
from stream_calib.estimation.filtering import TickFilter
from stream_calib.estimation.quotes import QuoteTable
from stream_calib.kernels.filtering import (
    CONFIRMED,
    CONFIRMED_LATE,
    HELD,
    KEEP,
    NONE,
    OUTLIER,
    REFUTED,
)
from stream_calib.kernels.quotes import CROSSED, PRICED, SPREAD, UNUSED
from stream_calib.values import F64, FACTOR, I64, OFFSET, RESET, TICK, Source

Mask = npt.NDArray[np.bool_]


class Refused(NamedTuple):
    """A tick that was buffered and is refused: its record, why, and the end of the bar."""

    source: Source
    record_offset: int
    reason: str
    value: Value
    time_ns: int


class HeldTick(NamedTuple):
    """A tick that waits for the next one of its symbol, its own bar being closed."""

    asset: int
    time_ns: int
    price: float
    source: Source
    record_offset: int
    original: Original


class Screened(NamedTuple):
    """The ticks that are sampled, control records among them; ``counts`` is of the others."""

    ticks: Taken
    refused: list[Refused]
    counts: Counter[str]


class _Part(NamedTuple):
    # symbols of one kind of price, and what is known of them
    members: Mask
    filter: TickFilter | None
    table: QuoteTable | None


def _part(universe: UniverseConfig, members: Mask, return_type: str) -> _Part:
    n, settings, quoted = len(members), universe.filter, universe.price != "last"
    positive = return_type != "diff"
    return _Part(
        members,
        TickFilter(n, universe.bar, return_type, sigmas=settings.sigmas)
        if settings.enabled
        else None,
        QuoteTable(n, universe.price, settings.spread_max, positive=positive) if quoted else None,
    )


class Screen:
    """Makes prices of ticks, and says which of them are believed.

    Parameters
    ----------
    universe
        Settings.
    """

    def __init__(self, universe: UniverseConfig) -> None:
        types = np.array([universe.return_of(symbol) for symbol in universe.symbols])
        self._bar_ns = universe.bar
        self._held: list[HeldTick] = []
        # prices that are above zero, and those that need not be
        relative = types != "diff"
        kinds = {"relative": (relative, "log"), "absolute": (~relative, "diff")}
        self._parts = {
            name: _part(universe, members, return_type)
            for name, (members, return_type) in kinds.items()
            if members.any()
        }

    def take(self, ticks: Taken) -> Screened:
        """Judge ticks in total order, whole bars of them."""
        refused: list[Refused] = []
        counts: Counter[str] = Counter()
        kept: list[I64] = []
        price = ticks.price.copy()
        start = 0
        for stop in [*np.flatnonzero(ticks.kind != TICK).tolist(), len(price)]:
            for part in self._parts.values():
                rows = start + np.flatnonzero(part.members[ticks.asset[start:stop]])
                if len(rows) and part.table is not None:
                    rows = self._price(ticks, rows, part.table, price, refused, counts)
                if len(rows) and part.filter is not None:
                    rows = self._judge(ticks, rows, part, price, refused, counts)
                kept.append(rows)
            if stop < len(price):
                self._adjust(int(ticks.asset[stop]), int(ticks.kind[stop]), price[stop], counts)
                kept.append(np.array([stop]))
            start = stop + 1
        rows = np.sort(np.concatenate(kept)) if kept else np.empty(0, np.int64)
        return Screened(ticks._replace(price=price).chosen(rows), refused, counts)

    def state(self) -> Arrays:
        """Return copies of all arrays that make up the state; held ticks in total order."""
        held = sorted(self._held, key=lambda tick: (tick.time_ns, tick.source, tick.record_offset))
        return {
            **{
                f"{key}.{name}.{array_name}": array
                for name, part in self._parts.items()
                for key, own in (("filter", part.filter), ("quotes", part.table))
                if own is not None
                for array_name, array in own.state().items()
            },
            "held.asset": np.array([tick.asset for tick in held], np.int64),
            "held.time_ns": np.array([tick.time_ns for tick in held], np.int64),
            "held.price": np.array([tick.price for tick in held], np.float64),
            "held.source": text_array([tick.source for tick in held]),
            "held.offset": np.array([tick.record_offset for tick in held], np.int64),
            **under("held.original", original_arrays([tick.original for tick in held])),
        }

    @classmethod
    def from_state(cls, universe: UniverseConfig, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Continue from what ``state`` returned."""
        screen = cls(universe)
        screen._parts = {
            name: part._replace(
                filter=part.filter and TickFilter.from_state(within(f"filter.{name}", state)),
                table=part.table and QuoteTable.from_state(within(f"quotes.{name}", state)),
            )
            for name, part in screen._parts.items()
        }
        screen._held = [
            HeldTick(asset, time_ns, price, Source(*source), offset, original)
            for asset, time_ns, price, source, offset, original in zip(
                state["held.asset"].tolist(),
                state["held.time_ns"].tolist(),
                state["held.price"].tolist(),
                read_text(state["held.source"]),
                state["held.offset"].tolist(),
                read_originals(within("held.original", state)),
                strict=True,
            )
        ]
        return screen

    def _price(
        self,
        ticks: Taken,
        rows: I64,
        table: QuoteTable,
        price: F64,
        refused: list[Refused],
        counts: Counter[str],
    ) -> I64:
        """Put the price of the policy to every row; return those that have one."""
        quote = ticks.quote[rows]
        columns = (np.ascontiguousarray(quote[:, i]) for i in range(4))
        found, code = table.price(ticks.asset[rows], price[rows], *columns)
        price[rows] = found
        refused += [
            self._refused(ticks, row, "spread", int(ticks.time_ns[row]))
            for row in rows[code == SPREAD].tolist()
        ]
        counts["crossed_quote"] += int((code == CROSSED).sum())
        counts["no_price"] += int((code == UNUSED).sum())
        priced: I64 = rows[code == PRICED]
        return priced

    def _judge(
        self,
        ticks: Taken,
        rows: I64,
        part: _Part,
        price: F64,
        refused: list[Refused],
        counts: Counter[str],
    ) -> I64:
        """Return the rows that are believed in their own bar."""
        time_ns, asset = ticks.time_ns[rows], ticks.asset[rows]
        assert part.filter is not None
        code, resolved = part.filter.judge(time_ns, asset, price[rows])
        waiting = []
        for held in self._held:
            verdict = resolved[held.asset] if part.members[held.asset] else NONE
            if verdict == REFUTED:
                after = (asset == held.asset) & _other(
                    time_ns, price[rows], held.time_ns, held.price
                )
                at_ns = int(time_ns[after][0])
                refused.append(
                    Refused(
                        held.source, held.record_offset, "outlier", held.original, self._end(at_ns)
                    )
                )
            elif verdict == CONFIRMED:
                counts["confirmed_late"] += 1
            else:
                waiting.append(held)
        self._held = waiting
        for i in np.flatnonzero(code == OUTLIER).tolist():
            # placed where it was found out, by the next tick of its symbol
            after = asset[i:] == asset[i]
            after &= _other(time_ns[i:], price[rows[i:]], time_ns[i], price[rows[i]])
            at_ns = int(time_ns[i:][after][0]) if after.any() else int(time_ns[i])
            refused.append(self._refused(ticks, int(rows[i]), "outlier", at_ns))
        for i in np.flatnonzero(code == HELD).tolist():
            source, offset, value = ticks.origin(int(rows[i]))
            what = (int(asset[i]), int(time_ns[i]), float(price[rows[i]]))
            self._held.append(HeldTick(*what, source, offset, Original.of(value)))
        counts["confirmed_late"] += int((code == CONFIRMED_LATE).sum())
        believed: I64 = rows[code == KEEP]
        return believed

    def _adjust(self, asset: int, kind: int, value: float, counts: Counter[str]) -> None:
        (part,) = (part for part in self._parts.values() if part.members[asset])
        factor = value if kind == FACTOR else 1.0
        offset = value if kind == OFFSET else 0.0
        own = [held for held in self._held if held.asset == asset]
        others = [held for held in self._held if held.asset != asset]
        forgotten = False
        for of in (part.table, part.filter):
            if of is not None and (kind == RESET or not _adjusted(of, asset, factor, offset)):
                of.reset(asset)
                forgotten = of is part.filter
        if forgotten:
            counts["confirmed_late"] += len(own)  # nothing will refute them any more
            own = []
        moved = [held._replace(price=factor * held.price + offset + 0.0) for held in own]
        self._held = [*others, *moved]

    def _refused(self, ticks: Taken, row: int, reason: str, at_ns: int) -> Refused:
        source, offset, value = ticks.origin(row)
        return Refused(source, offset, reason, value, self._end(at_ns))

    def _end(self, time_ns: int) -> int:
        return (time_ns // self._bar_ns + 1) * self._bar_ns


def _adjusted(of: TickFilter | QuoteTable, asset: int, factor: float, offset: float) -> bool:
    try:
        of.adjust(asset, factor, offset)
    except ValueError:  # no price is left of what it was
        return False
    return True


def _other(time_ns: I64, price: F64, held_ns: int, held_price: float) -> Mask:
    # what has the time and the price of a held tick is the same tick once more
    other: Mask = (time_ns != held_ns) | (price != held_price)
    return other
