"""Ticks that wait for their bar, with the records they came from."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from stream_calib.engine.rejects import Original
from stream_calib.values import F64, I8, I64, TICK, Source

Value = bytes | Original | None


class Buffered(NamedTuple):
    """Ticks of one source in record order, columns of length m.

    ``quote`` (m, 4) is bid, ask and their sizes, or (m, 0) where prices do not come from
    quotes. ``kind`` is that of a TickBatch. ``row`` points into ``offsets`` and ``values``.
    """

    time_ns: I64
    asset: I64
    price: F64
    ident: I64
    kind: I8
    quote: F64
    row: I64
    offsets: Sequence[int]
    values: Sequence[Value]

    def chosen(self, which: npt.NDArray[Any]) -> Self:
        """Pick ticks by a mask; the records stay."""
        columns: Any = [*(column[which] for column in self[:7]), self.offsets, self.values]
        return type(self)(*columns)

    def originals(self) -> tuple[list[int], list[Original]]:
        """Return offset and value of every tick's record."""
        rows = self.row.tolist()
        of = {i: Original.of(self.values[i]) for i in set(rows)}
        return [self.offsets[i] for i in rows], [of[i] for i in rows]


class Taken(NamedTuple):
    """Ticks of all sources in the order (time, topic, partition, offset), columns of length m.

    ``chunk`` points into ``origins``, and ``row`` into the offsets and values there.
    """

    time_ns: I64
    asset: I64
    price: F64
    ident: I64
    kind: I8
    quote: F64
    row: I64
    chunk: I64
    origins: Sequence[tuple[Source, Sequence[int], Sequence[Value]]]

    def rows(self, start: int, stop: int) -> Self:
        """Cut the ticks [start, stop) out."""
        columns: Any = [*(column[start:stop] for column in self[:8]), self.origins]
        return type(self)(*columns)

    def chosen(self, which: I64) -> Self:
        """Pick ticks by their indices."""
        columns: Any = [*(column[which] for column in self[:8]), self.origins]
        return type(self)(*columns)

    def origin(self, i: int) -> tuple[Source, int, Value]:
        """Return source, offset and value of a tick's record."""
        source, offsets, values = self.origins[self.chunk[i]]
        return source, offsets[self.row[i]], values[self.row[i]]


def in_order(parts: Sequence[tuple[Source, Buffered]], quote_columns: int) -> Taken:
    """Put ticks of sources in order, each in record order, into the order of time."""
    if not parts:
        none, no_price = np.empty(0, np.int64), np.empty(0)
        quote = np.empty((0, quote_columns))
        return Taken(none, none, no_price, none, np.empty(0, np.int8), quote, none, none, ())
    each = zip(*(ticks[:7] for _, ticks in parts), strict=True)
    columns: Any = [np.concatenate(column) for column in each]
    lengths = [len(ticks.time_ns) for _, ticks in parts]
    # sources are in order and records in order within them: a stable sort does the rest
    order = np.argsort(columns[0], kind="stable")
    origins = [(source, ticks.offsets, ticks.values) for source, ticks in parts]
    chunk = np.repeat(np.arange(len(parts)), lengths)[order]
    ordered: Any = [*(column[order] for column in columns), chunk, origins]
    return Taken(*ordered)


def without_repeats(ticks: Taken) -> Taken:
    """Leave out trades that repeat an earlier one: the same symbol, id, price and time.

    A feed that sends its last trades again after it has connected anew, or two partitions with
    the same trades: the second set stands in the same bar, as its times are the same.
    """
    together = ticks.time_ns[1:] == ticks.time_ns[:-1]
    near = np.zeros(len(ticks.time_ns), dtype=np.bool_)
    near[1:] |= together
    near[:-1] |= together
    near &= (ticks.ident != 0) & (ticks.kind == TICK) & (ticks.price == ticks.price)
    near &= np.isnan(ticks.quote).all(axis=1)
    rows = np.flatnonzero(near)
    if len(rows) < 2:
        return ticks
    keys = [ticks.price[rows], ticks.ident[rows], ticks.asset[rows], ticks.time_ns[rows]]
    order = np.lexsort(keys)  # stable: of those alike the first one stays
    alike = np.logical_and.reduce([key[order[1:]] == key[order[:-1]] for key in keys])
    if not alike.any():
        return ticks
    kept = np.ones(len(ticks.time_ns), dtype=np.bool_)
    kept[rows[order[1:][alike]]] = False
    return ticks.chosen(np.flatnonzero(kept))
