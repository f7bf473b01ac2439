"""Ticks on their way into bars: event time per source, the open bar's buffer, rejects."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stream_calib.config import Config, UniverseConfig
from stream_calib.engine.arrays import Arrays
from stream_calib.engine.buffer import Buffered, Taken, Value, in_order
from stream_calib.engine.rejects import RejectQueue, Waiting
from stream_calib.engine.sources import (
    NO_POSITION,
    RETIRED,
    Columns,
    SourceState,
    read_sources,
    source_arrays,
)
from stream_calib.kernels.ticks import AHEAD, APPLY, HELD, JUMP, LATE, admit_ticks
from stream_calib.values import I64, NO_TIME, TICK, Reject, Source, TickBatch, Watermark

_SUPPRESSED = ("", "rejects_suppressed")


class Intake:
    """Event time of every source, and the ticks and rejects that wait for their bar.

    Late is judged within a source alone, and whatever leaves is in the order (time, topic,
    partition, offset): how sources interleave cannot be seen in it.
    """

    def __init__(self, config: Config, universe: UniverseConfig) -> None:
        self._universe = universe
        self._quote_columns = 0 if universe.price == "last" else 4
        # by symbol, and last of all, for index -1, for those outside the universe
        types = [*map(universe.return_of, universe.symbols), universe.return_type]
        self._above_zero = np.array([type_ != "diff" for type_ in types])
        self._lateness_ns = config.time.lateness
        self._max_ahead_ns = config.time.max_ahead
        self._max_jump_ns = config.max_jump_ns(universe)
        self._rejects_per_second = config.input.rejects_per_second
        self._sources: dict[Source, SourceState] = {}
        self.counts: Counter[tuple[str, str]] = Counter()

    @property
    def sources(self) -> tuple[Source, ...]:
        """All sources that are read, in order."""
        return tuple(sorted(s for s, state in self._sources.items() if state.position != RETIRED))

    def discover(self, source: Source, closed_ns: int = NO_TIME) -> None:
        """Await ``source`` from now on; what it has from before ``closed_ns`` is late."""
        if source not in self._sources:
            rejects = RejectQueue(self._rejects_per_second)
            self._sources[source] = SourceState(rejects, decided_ns=closed_ns)
        state = self._sources[source]
        if state.position == RETIRED:
            state.position, state.decided_ns = NO_POSITION, max(state.decided_ns, closed_ns)

    def retire(self, source: Source) -> None:
        """Await nothing more from ``source``; what it has brought so far counts."""
        if source in self._sources:
            self._sources[source].position = RETIRED

    def position(self, source: Source) -> int:
        """Position after the last record taken from ``source``; 0 before the first."""
        return max(0, self._sources[source].position)

    def positions(self) -> dict[Source, int]:
        """Positions of the sources of which something was read, in order of the sources."""
        known = ((source, self._sources[source].position) for source in self.sources)
        return {source: position for source, position in known if position != NO_POSITION}

    def newest_ns(self, source: Source | None = None) -> int:
        """Newest event time applied, of one source or of all; NO_TIME before the first."""
        if source is not None:
            return self._sources[source].newest_ns
        return max((s.newest_ns for s in self._sources.values()), default=NO_TIME)

    def reach_ns(self) -> int:
        """Return how far event time has got: the newest applied, or a first tick near it."""
        newest_ns = self.newest_ns()
        opening = [s.held for s in self._sources.values() if s.newest_ns == NO_TIME and s.held]
        times = [int(time_ns) for held in opening for time_ns in held.time_ns]
        if newest_ns == NO_TIME:
            return min(times, default=NO_TIME)
        return max([newest_ns, *(t for t in times if t <= newest_ns + self._max_jump_ns)])

    def watermark_ns(self) -> int:
        """Time before which no tick is awaited from anywhere; NO_TIME while one source holds."""
        return min((self.source_watermark_ns(source) for source in self.sources), default=NO_TIME)

    def source_watermark_ns(self, source: Source) -> int:
        """Time before which no tick is awaited from ``source``."""
        return self._sources[source].watermark_ns(self._lateness_ns)

    def admit(self, batch: TickBatch) -> None:
        """Judge the ticks of one batch in record order and buffer those that are applied."""
        source = batch.records.source
        state = self._sources[source]
        state.position = batch.records.position_after
        newest_before = state.newest_ns
        columns, newest_at = self._judge(state, source, _columns(batch, state.held))
        if batch.malformed:
            fresh = len(columns.time_ns) - len(batch.time_ns)  # ticks held over come first
            seen = np.searchsorted(batch.row, [row for row, _ in batch.malformed])
            for (row, reason), index in zip(batch.malformed, seen + fresh, strict=True):
                newest = int(newest_at[index - 1]) if index > 0 else newest_before
                offset, value = batch.records.offsets[row], batch.records.values[row]
                self._reject(state, source, newest, (offset, reason, value))

    def decide(self, mark: Watermark) -> None:
        """Take an outside decision about a source.

        Held ticks that it reaches are believed; a flush refuses the others.
        """
        state = self._sources[mark.source]
        # event time has got there: what waited for that is believed, one after the other
        while (held := state.held) is not None and held.time_ns.min() <= mark.time_ns:
            state.newest_ns = max(state.newest_ns, int(held.time_ns.min()))
            self._judge(state, mark.source, held)
        refused = state.held if mark.cause == "flush" else None
        if refused is not None:
            state.held = None
            for offset, value in zip(refused.offsets, refused.values, strict=True):
                what = (offset, "time_jump", value)
                self._reject(state, mark.source, state.newest_ns, what)
        state.decided_ns = max(state.decided_ns, mark.time_ns)

    def take(self, end_ns: int) -> Taken:
        """Remove and return the buffered ticks before ``end_ns``, in total order."""
        taken: list[tuple[Source, Buffered]] = []
        for source in sorted(self._sources):
            state = self._sources[source]
            kept: list[Buffered] = []
            for chunk in state.chunks:
                early = chunk.time_ns < end_ns
                if early.all():
                    taken.append((source, chunk))
                    continue
                if early.any():
                    taken.append((source, chunk.chosen(early)))
                kept.append(chunk.chosen(~early))
            state.chunks = kept
        return in_order(taken, self._quote_columns)

    def count_applied(self, counts: Mapping[str, int]) -> None:
        """Count what became of applied ticks at the close of their bar."""
        for outcome, n in counts.items():
            self._count("", outcome, n)

    def refuse(self, source: Source, time_ns: int, what: tuple[int, str, Value]) -> None:
        """Reject a tick that was applied, at a time in which its bar is closed."""
        self.counts["", what[1]] += 1
        if self._sources[source].rejects.add(time_ns, *what):
            self.counts[_SUPPRESSED] += 1

    def bars_before(self, end_ns: int, bar_ns: int) -> I64:
        """Return the numbers of the bars before ``end_ns`` that hold a buffered tick."""
        times = [c.time_ns for s in self._sources.values() for c in s.chunks]
        if not times:
            return np.empty(0, dtype=np.int64)
        time_ns = np.concatenate(times)
        return np.unique(time_ns[time_ns < end_ns] // bar_ns)

    def take_rejects(self, before_ns: int) -> list[Reject]:
        """Remove and return the rejects due before ``before_ns``, capped per source and second."""
        due = [
            (source, reject)
            for source, state in self._sources.items()
            for reject in state.rejects.take(before_ns)
        ]
        due.sort(key=_place)
        return [
            Reject(
                self._universe.name,
                source,
                reject.offset,
                reject.reason,
                reject.original.value,
                reject.original.length,
                reject.original.sha256.hex(),
            )
            for source, reject in due
        ]

    def state(self) -> Arrays:
        """Return copies of all arrays that make up the state.

        How the input was cut or interleaved cannot be seen in them.
        """
        return source_arrays(self._sources, self._quote_columns)

    @classmethod
    def from_state(
        cls, config: Config, universe: UniverseConfig, state: Mapping[str, npt.NDArray[Any]]
    ) -> Self:
        """Continue from what ``state`` returned."""
        intake = cls(config, universe)
        intake._sources = read_sources(state, intake._rejects_per_second)
        return intake

    def _judge(self, state: SourceState, source: Source, columns: Columns) -> tuple[Columns, I64]:
        control = columns.kind != TICK
        columns, bad_price = self._check_prices(columns, control)
        crossed = columns.bid > columns.ask
        code = np.empty(len(columns.time_ns), dtype=np.int8)
        newest_at = np.empty(len(columns.time_ns), dtype=np.int64)
        state.newest_ns = admit_ticks(
            columns.time_ns,
            columns.stamp_ns,
            ~(bad_price | crossed),
            state.newest_ns,
            state.decided_ns,
            self._lateness_ns,
            self._max_ahead_ns,
            self._max_jump_ns,
            code,
            newest_at,
        )
        applied = code == APPLY
        known = columns.asset >= 0
        if self._quote_columns:
            quote = np.stack([columns.bid, columns.ask, columns.bid_size, columns.ask_size], axis=1)
            priced = ~np.isnan(quote[:, :2]).all(axis=1)
        else:
            quote = np.empty((len(code), 0))
            priced = columns.price == columns.price
        used = applied & known & (priced | control)
        if used.any():
            own = (columns.time_ns, columns.asset, columns.price, columns.ident, columns.kind)
            ticks = Buffered(*own, quote, columns.row, columns.offsets, columns.values)
            state.chunks.append(ticks if used.all() else ticks.chosen(used))
        topic = source.topic
        n_applied, n_used = int(applied.sum()), int(used.sum())
        n_known = int((applied & known).sum())
        self._count(topic, "applied", n_used)
        self._count(topic, "unknown_symbol", n_applied - n_known)
        self._count(topic, "unused", n_known - n_used)
        state.held = None
        if n_applied < len(code):
            self._count(topic, "late", int((code == LATE).sum()))
            held = np.flatnonzero(code == HELD)
            state.held = columns.chosen(held) if len(held) else None
            reasons = {AHEAD: "time_ahead", JUMP: "time_jump"}
            for t in np.flatnonzero((code != APPLY) & (code != LATE) & (code != HELD)):
                reason = reasons.get(int(code[t])) or ("price" if bad_price[t] else "crossed")
                row = columns.row[t]
                offset, value = columns.offsets[row], columns.values[row]
                self._reject(state, source, int(newest_at[t]), (offset, reason, value))
        return columns, newest_at

    def _check_prices(
        self, columns: Columns, control: npt.NDArray[np.bool_]
    ) -> tuple[Columns, npt.NDArray[np.bool_]]:
        above = self._above_zero[columns.asset]
        # zero for one side of a quote is how many feeds say that it has none
        bid = np.where(above & (columns.bid == 0.0), np.nan, columns.bid)
        ask = np.where(above & (columns.ask == 0.0), np.nan, columns.ask)
        nothing = np.isnan(columns.price) & np.isnan(bid) & np.isnan(ask)
        bad_price = above & ((columns.price <= 0.0) | (bid < 0.0) | (ask < 0.0)) | nothing
        return columns._replace(bid=bid, ask=ask), bad_price & ~control

    def _reject(
        self,
        state: SourceState,
        source: Source,
        newest_ns: int,
        what: tuple[int, str, Value],
    ) -> None:
        self.counts[source.topic, what[1]] += 1
        if state.rejects.add(state.reject_ns(newest_ns), *what):
            self.counts[_SUPPRESSED] += 1

    def _count(self, topic: str, outcome: str, n: int) -> None:
        if n:
            self.counts[(topic, outcome)] += n


def _columns(batch: TickBatch, held: Columns | None) -> Columns:
    stamps = np.array(batch.records.timestamps_ms, dtype=np.int64)
    stamp_ns = np.where(stamps < 0, -1, stamps * 1_000_000)[batch.row]
    n = len(batch.time_ns)
    fresh = Columns(
        batch.time_ns,
        stamp_ns,
        batch.asset,
        batch.price,
        batch.bid,
        batch.ask,
        batch.ident,
        np.full(n, TICK, np.int8) if batch.kind is None else batch.kind,
        np.full(n, np.nan) if batch.bid_size is None else batch.bid_size,
        np.full(n, np.nan) if batch.ask_size is None else batch.ask_size,
        batch.row,
        batch.records.offsets,
        batch.records.values,
    )
    return fresh if held is None else held.followed_by(fresh)


def _place(due: tuple[Source, Waiting]) -> tuple[int, Source, int, str]:
    source, reject = due
    return reject.time_ns, source, reject.offset, reject.reason
