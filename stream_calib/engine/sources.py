"""One source of ticks: where it stands, and what of it waits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stream_calib.engine.arrays import (
    Arrays,
    counts_of,
    original_arrays,
    pieces,
    read_originals,
    read_text,
    text_array,
    under,
    within,
)
from stream_calib.engine.buffer import Buffered
from stream_calib.engine.rejects import Original, RejectQueue, Waiting
from stream_calib.values import F64, I8, I64, NO_TIME, Source

NO_POSITION = -1
RETIRED = -2
_TICKS = ("time_ns", "asset", "price", "ident", "kind", "quote")


class Columns(NamedTuple):
    """Ticks of one source in record order; ``row`` points into ``offsets`` and ``values``."""

    time_ns: I64
    stamp_ns: I64
    asset: I64
    price: F64
    bid: F64
    ask: F64
    ident: I64
    kind: I8
    bid_size: F64
    ask_size: F64
    row: I64
    offsets: Sequence[int]
    values: Sequence[bytes | Original | None]

    def chosen(self, which: I64) -> "Columns":
        """Copy ticks out, with what is kept of the records they came from."""
        rows = self.row[which]
        columns: Any = [
            *(getattr(self, name)[which] for name in _HELD),
            np.arange(len(rows)),
            [self.offsets[row] for row in rows],
            [Original.of(self.values[row]) for row in rows],
        ]
        return Columns(*columns)

    def followed_by(self, later: "Columns") -> "Columns":
        """Put two runs of ticks together."""
        columns: Any = [
            *(np.concatenate([getattr(self, name), getattr(later, name)]) for name in _HELD),
            np.concatenate([self.row, later.row + len(self.offsets)]),
            [*self.offsets, *later.offsets],
            [*self.values, *later.values],
        ]
        return Columns(*columns)


_HELD = Columns._fields[:10]


@dataclass(slots=True)
class SourceState:
    """What is known of one source: its event time, and what of it waits.

    ``held`` ticks wait to be believed, ``chunks`` for their bar, in record order.
    """

    rejects: RejectQueue
    newest_ns: int = NO_TIME
    decided_ns: int = NO_TIME
    position: int = NO_POSITION
    held: Columns | None = None
    chunks: list[Buffered] = field(default_factory=list)

    def watermark_ns(self, lateness_ns: int) -> int:
        """Time before which no tick of this source is awaited."""
        if self.newest_ns == NO_TIME:
            return self.decided_ns
        return max(self.newest_ns - lateness_ns, self.decided_ns)

    def reject_ns(self, newest_ns: int) -> int:
        """Place in event time of a reject that came up when ``newest_ns`` was the newest.

        Never before the watermark, or rejects would leave in the order of polling.
        """
        return max(0, newest_ns, self.decided_ns)

    def marks(self) -> tuple[int, int, int, int, int]:
        """Return position, newest, decided, and what the cap on rejects has to remember."""
        rejects = self.rejects
        taken = (rejects.taken_second, rejects.taken)
        return self.position, self.newest_ns, self.decided_ns, *taken


def source_arrays(sources: Mapping[Source, SourceState], quote_columns: int) -> Arrays:
    """Lay sources out, one after the other.

    ``marks`` (s, 5) are those of each source; ``*.count`` (s,) say how many entries of the
    arrays beside them it has.
    """
    order = sorted(sources)
    states = [sources[source] for source in order]
    chunks = [chunk for state in states for chunk in state.chunks]
    originals = [chunk.originals() for chunk in chunks]
    nothing = _no_ticks(quote_columns)
    held = [_nothing() if state.held is None else state.held for state in states]
    waiting = [state.rejects.waiting() for state in states]
    all_held = reduce(Columns.followed_by, held, _nothing())
    rejects = [reject for some in waiting for reject in some]
    return {
        "sources": text_array(order),
        "marks": np.array([s.marks() for s in states], np.int64).reshape(-1, 5),
        "ticks.count": np.array([sum(len(c.row) for c in s.chunks) for s in states], np.int64),
        **{
            f"ticks.{name}": np.concatenate([getattr(c, name) for c in (nothing, *chunks)])
            for name in _TICKS
        },
        "ticks.offset": np.array([o for offsets, _ in originals for o in offsets], np.int64),
        **under("ticks.original", original_arrays([o for _, each in originals for o in each])),
        "held.count": counts_of([h.time_ns for h in held]),
        **under("held", {name: getattr(all_held, name).copy() for name in _HELD}),
        "held.offset": np.array(all_held.offsets, np.int64),
        **under("held.original", original_arrays([Original.of(v) for v in all_held.values])),
        "rejects.count": counts_of(waiting),
        "rejects.time_ns": np.array([r.time_ns for r in rejects], np.int64),
        "rejects.offset": np.array([r.offset for r in rejects], np.int64),
        "rejects.reason": text_array([r.reason for r in rejects]),
        **under("rejects.original", original_arrays([r.original for r in rejects])),
    }


def read_sources(
    arrays: Mapping[str, npt.NDArray[Any]], rejects_per_second: int
) -> dict[Source, SourceState]:
    """Return the sources that ``source_arrays`` laid out."""
    rejects = [
        Waiting(int(time_ns), int(offset), reason, original)
        for time_ns, offset, reason, original in zip(
            arrays["rejects.time_ns"],
            arrays["rejects.offset"],
            read_text(arrays["rejects.reason"]),
            read_originals(within("rejects.original", arrays)),
            strict=True,
        )
    ]
    originals = read_originals(within("held.original", arrays))
    of_ticks = read_originals(within("ticks.original", arrays))
    out: dict[Source, SourceState] = {}
    for source, marks, ticks, held, waiting in zip(
        read_text(arrays["sources"]),
        arrays["marks"].tolist(),
        pieces(arrays["ticks.count"]),
        pieces(arrays["held.count"]),
        pieces(arrays["rejects.count"]),
        strict=True,
    ):
        state = SourceState(RejectQueue(rejects_per_second))
        queue = state.rejects
        state.position, state.newest_ns, state.decided_ns, queue.taken_second, queue.taken = marks
        queue.fill(rejects[waiting])
        if ticks.start < ticks.stop:
            columns: Any = [
                *(arrays[f"ticks.{name}"][ticks].copy() for name in _TICKS),
                np.arange(ticks.stop - ticks.start),
                arrays["ticks.offset"][ticks].tolist(),
                of_ticks[ticks],
            ]
            state.chunks = [Buffered(*columns)]
        if held.start < held.stop:
            own = {name: arrays[f"held.{name}"][held].copy() for name in _HELD}
            rows, offsets = np.arange(held.stop - held.start), arrays["held.offset"][held]
            state.held = Columns(**own, row=rows, offsets=offsets.tolist(), values=originals[held])
        out[Source(*source)] = state
    return out


def _nothing() -> Columns:
    none, no_price, no_kind = np.empty(0, np.int64), np.empty(0), np.empty(0, np.int8)
    prices = (no_price, no_price, no_price)
    return Columns(none, none, none, *prices, none, no_kind, no_price, no_price, none, [], [])


def _no_ticks(quote_columns: int) -> Buffered:
    none, quote = np.empty(0, np.int64), np.empty((0, quote_columns))
    return Buffered(none, none, np.empty(0), none, np.empty(0, np.int8), quote, none, [], [])
