"""Ticks on their way into bars: event time per source, the open bar's buffer, rejects."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stream_calib.config import Config, UniverseConfig
from stream_calib.engine.arrays import Arrays
from stream_calib.engine.rejects import Original, RejectQueue, Waiting
from stream_calib.engine.sources import (
    NO_POSITION,
    RETIRED,
    Columns,
    SourceState,
    read_sources,
    source_arrays,
)
from stream_calib.estimation.sampling import Ticks
from stream_calib.kernels.ticks import AHEAD, APPLY, HELD, JUMP, LATE, admit_ticks
from stream_calib.values import I64, NO_TIME, Reject, Source, TickBatch, Watermark

_SUPPRESSED = ("", "rejects_suppressed")


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
        return source_arrays(self._sources)

    @classmethod
    def from_state(
        cls, config: Config, universe: UniverseConfig, state: Mapping[str, npt.NDArray[Any]]
    ) -> Self:
        """Continue from what ``state`` returned."""
        intake = cls(config, universe)
        intake._sources = read_sources(state, intake._rejects_per_second)
        return intake

    def _judge(self, state: SourceState, source: Source, columns: Columns) -> tuple[Columns, I64]:
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
                self._reject(state, source, int(newest_at[t]), (offset, reason, value))
        return columns, newest_at

    def _reject(
        self,
        state: SourceState,
        source: Source,
        newest_ns: int,
        what: tuple[int, str, bytes | Original | None],
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
    fresh = Columns(
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


def _place(due: tuple[Source, Waiting]) -> tuple[int, Source, int, str]:
    source, reject = due
    return reject.time_ns, source, reject.offset, reject.reason
