"""Ticks on their way into bars: event time per source, the open bar's buffer, rejects."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from stream_calib.config import Config, UniverseConfig
from stream_calib.estimation.sampling import Ticks
from stream_calib.kernels.ticks import AHEAD, APPLY, HELD, JUMP, LATE, admit_ticks
from stream_calib.values import (
    F64,
    I64,
    NO_TIME,
    SECOND_NS,
    Reject,
    Source,
    TickBatch,
    Watermark,
)

REJECTS_HELD_MAX = 100_000  # a flood without event time must not fill the memory
REJECT_BYTES_HELD_MAX = 64 * 2**20


class _Columns(NamedTuple):
    """Ticks of one source in record order; ``row`` points into ``offsets`` and ``values``."""

    time_ns: I64
    stamp_ns: I64
    asset: I64
    price: F64
    bid: F64
    ask: F64
    ident: I64
    row: I64
    offsets: Sequence[int]
    values: Sequence[bytes | None]

    def chosen(self, which: I64) -> "_Columns":
        """Copy ticks out, with only the records they came from."""
        rows = self.row[which]
        return _Columns(
            self.time_ns[which],
            self.stamp_ns[which],
            self.asset[which],
            self.price[which],
            self.bid[which],
            self.ask[which],
            self.ident[which],
            np.arange(len(rows)),
            [self.offsets[row] for row in rows],
            [self.values[row] for row in rows],
        )

    def followed_by(self, later: "_Columns") -> "_Columns":
        """Put two runs of ticks together."""
        return _Columns(
            np.concatenate([self.time_ns, later.time_ns]),
            np.concatenate([self.stamp_ns, later.stamp_ns]),
            np.concatenate([self.asset, later.asset]),
            np.concatenate([self.price, later.price]),
            np.concatenate([self.bid, later.bid]),
            np.concatenate([self.ask, later.ask]),
            np.concatenate([self.ident, later.ident]),
            np.concatenate([self.row, later.row + len(self.offsets)]),
            [*self.offsets, *later.offsets],
            [*self.values, *later.values],
        )


class _Pending(NamedTuple):
    """A reject waiting for its place in the total order; sorts by it."""

    time_ns: int
    source: Source
    offset: int
    serial: int
    reason: str
    value: bytes | None


@dataclass(slots=True)
class _SourceState:
    newest_ns: int = NO_TIME
    decided_ns: int = NO_TIME
    position: int = 0
    held: _Columns | None = None
    chunks: list[Ticks] = field(default_factory=list)

    def watermark_ns(self, lateness_ns: int) -> int:
        """Time before which no tick of this source is awaited."""
        if self.newest_ns == NO_TIME:
            return self.decided_ns
        return max(self.newest_ns - lateness_ns, self.decided_ns)


class Intake:
    """Event time of every source, and the ticks and rejects that wait for their bar.

    Late is judged within a source alone, and whatever leaves is in the order (time, topic,
    partition, offset): how sources interleave cannot be seen in it.
    """

    def __init__(self, config: Config, universe: UniverseConfig) -> None:
        self._universe = universe
        self._lateness_ns = config.time.lateness
        self._max_ahead_ns = config.time.max_ahead
        self._max_jump_ns = config.max_jump_ns(universe)
        self._rejects_per_second = config.input.rejects_per_second
        self._sources: dict[Source, _SourceState] = {}
        self._rejects: list[_Pending] = []
        self._rejected_in: Counter[tuple[Source, int]] = Counter()
        self._serial = 0
        self._reject_bytes = 0
        self.counts: Counter[tuple[str, str]] = Counter()

    @property
    def sources(self) -> tuple[Source, ...]:
        """All sources known, in order."""
        return tuple(sorted(self._sources))

    def discover(self, source: Source, closed_ns: int = NO_TIME) -> None:
        """Await ``source`` from now on; what it has from before ``closed_ns`` is late."""
        self._sources.setdefault(source, _SourceState(decided_ns=closed_ns))

    def position(self, source: Source) -> int:
        """Position after the last record taken from ``source``."""
        return self._sources[source].position

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
        return min(
            (s.watermark_ns(self._lateness_ns) for s in self._sources.values()), default=NO_TIME
        )

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
                self._reject(source, newest, offset, reason, value)

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
                self._reject(mark.source, state.newest_ns, offset, "time_jump", value)
        state.decided_ns = max(state.decided_ns, mark.time_ns)

    def take(self, end_ns: int) -> Ticks:
        """Remove and return the buffered ticks before ``end_ns``, in total order."""
        taken: list[Ticks] = []
        for source in sorted(self._sources):
            state = self._sources[source]
            kept: list[Ticks] = []
            for chunk in state.chunks:
                early = chunk.time_ns < end_ns
                if early.all():
                    taken.append(chunk)
                    continue
                taken.append(chunk.chosen(early))
                kept.append(chunk.chosen(~early))
            state.chunks = kept
        # sources are in order and records in order within them: a stable sort does the rest
        ticks = Ticks.join(taken)
        return ticks.chosen(np.argsort(ticks.time_ns, kind="stable"))

    def bars_before(self, end_ns: int, bar_ns: int) -> I64:
        """Return the numbers of the bars before ``end_ns`` that hold a buffered tick."""
        times = [c.time_ns for s in self._sources.values() for c in s.chunks]
        if not times:
            return np.empty(0, dtype=np.int64)
        time_ns = np.concatenate(times)
        return np.unique(time_ns[time_ns < end_ns] // bar_ns)

    def take_rejects(self, before_ns: int) -> list[Reject]:
        """Remove and return the rejects due before ``before_ns``, capped per source and second."""
        due = sorted(r for r in self._rejects if r.time_ns < before_ns)
        if not due:
            return []
        self._rejects = [r for r in self._rejects if r.time_ns >= before_ns]
        self._reject_bytes -= sum(len(r.value or b"") for r in due)
        out: list[Reject] = []
        for reject in due:
            second = (reject.source, reject.time_ns // SECOND_NS)
            self._rejected_in[second] += 1
            if self._rejected_in[second] <= self._rejects_per_second:
                name = self._universe.name
                out.append(Reject(name, reject.source, reject.offset, reject.reason, reject.value))
        last = due[-1].time_ns // SECOND_NS
        self._rejected_in = Counter(
            {key: n for key, n in self._rejected_in.items() if key[1] >= last}
        )
        return out

    def _judge(
        self, state: _SourceState, source: Source, columns: _Columns
    ) -> tuple[_Columns, I64]:
        bad_price = np.zeros(len(columns.time_ns), dtype=bool)
        if self._universe.return_type != "diff":
            for column in (columns.price, columns.bid, columns.ask):
                bad_price |= column <= 0.0
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
        if self._universe.price == "mid":
            price = (columns.bid + columns.ask) * 0.5
        else:
            price = columns.price
        applied = code == APPLY
        known = columns.asset >= 0
        priced = price == price  # noqa: PLR0124  NaN: the tick is no price under the policy
        used = applied & known & priced
        if used.any():
            ticks = Ticks(columns.time_ns, columns.asset, price, columns.ident)
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
                self._reject(source, int(newest_at[t]), offset, reason, value)
        return columns, newest_at

    def _reject(
        self, source: Source, newest_ns: int, offset: int, reason: str, value: bytes | None
    ) -> None:
        self._count(source.topic, reason, 1)
        size = len(value or b"")
        roomy = self._reject_bytes + size <= REJECT_BYTES_HELD_MAX
        if roomy and len(self._rejects) < REJECTS_HELD_MAX:
            self._serial += 1
            self._reject_bytes += size
            time_ns = max(0, newest_ns)
            self._rejects.append(_Pending(time_ns, source, offset, self._serial, reason, value))

    def _count(self, topic: str, outcome: str, n: int) -> None:
        if n:
            self.counts[(topic, outcome)] += n


def _columns(batch: TickBatch, held: _Columns | None) -> _Columns:
    stamps = np.array(batch.records.timestamps_ms, dtype=np.int64)
    stamp_ns = np.where(stamps < 0, -1, stamps * 1_000_000)[batch.row]
    fresh = _Columns(
        batch.time_ns,
        stamp_ns,
        batch.asset,
        batch.price,
        batch.bid,
        batch.ask,
        batch.ident,
        batch.row,
        batch.records.offsets,
        batch.records.values,
    )
    return fresh if held is None else held.followed_by(fresh)
