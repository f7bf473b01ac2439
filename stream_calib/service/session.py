"""One universe between two commits: what it has taken in since the last one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from stream_calib.config import Config, UniverseConfig
from stream_calib.service.numerics import Build
from stream_calib.service.runner import Runner
from stream_calib.values import (
    Change,
    Effects,
    Fit,
    FitFailure,
    JournalEntry,
    Output,
    Range,
    RecordBatch,
    Snapshot,
    Source,
    Step,
)
from stream_calib.wire.journal import OutputDigest, encode_entry, link
from stream_calib.wire.snapshots import digest_state

BACKLOG_RECORDS = 500_000  # taken in while a commit is under way
BACKLOG_BYTES = 16 * 2**20


class Cut(NamedTuple):
    """What is to become durable in one commit."""

    number: int
    entry: Output
    outputs: list[Output]
    effects: list[Effects]
    positions: dict[Source, int]
    closed_at_s: float
    snapshot: Snapshot | None


@dataclass
class _Pending:
    changes: list[Change] = field(default_factory=list)
    fits: list[Output] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    digest: OutputDigest = field(default_factory=OutputDigest)
    effects: list[Effects] = field(default_factory=list)
    n_records: int = 0
    n_bytes: int = 0
    since_s: float = math.nan
    closed_at_s: float = math.nan

    @property
    def empty(self) -> bool:
        return math.isnan(self.since_s) and not self.changes


class Session:
    """A runner with its place in the journal.

    Parameters
    ----------
    config, universe
        Settings, as they are now.
    runner
        In the state after entry ``number``.
    number, chain
        The last journal entry; -1 and "" before the first.
    changes
        What has to be written down with the next entry.
    build
        What computes.
    write_ahead
        The journal is durable before its outputs are.
    """

    def __init__(
        self,
        config: Config,
        universe: UniverseConfig,
        runner: Runner,
        number: int,
        chain: str,
        changes: Sequence[Change],
        build: Build,
        *,
        write_ahead: bool,
    ) -> None:
        self.universe = universe
        self.runner = runner
        self.number = number
        self.chain = chain
        self.positions: dict[Source, int] = runner.engine.intake.positions()
        self._settings = config.settings(universe)
        self._partition = config.universe.index(universe)
        self._prefix = config.output.prefix
        self._commit_every_s = config.delivery.commit_interval / 1e9
        self._build = build
        self._write_ahead = write_ahead
        self._known = set(runner.engine.intake.sources)
        self._cut_at_s = -math.inf
        self._pending = _Pending(changes=list(changes))
        self._absorb(runner.apply([Step()]), math.nan)  # what the changes let the engine say

    def take(
        self,
        batches: Sequence[RecordBatch],
        discovered: Sequence[Source],
        ends: Mapping[Source, int],
        now_s: float,
        *,
        exhausted: bool = False,
        answers: Sequence[Fit | FitFailure] = (),
        refit: bool = False,
        told_s: Mapping[Source, float] | None = None,
    ) -> None:
        """Take in what was polled; ``now_s`` is a clock that never goes back, also ``told_s``'s."""
        pending = self._pending
        taken = self.runner.answer(answers) if answers else []
        fresh = tuple(source for source in discovered if source not in self._known)
        self._known.update(fresh)
        taken += self.runner.turn(
            batches, fresh, ends, now_s, exhausted=exhausted, refit=refit, told_s=told_s
        )
        for batch in batches:
            self.positions[batch.source] = batch.position_after
            pending.n_records += len(batch.values)
        fits, self.runner.fits = self.runner.fits, []
        pending.fits += fits
        self._absorb(taken, now_s)
        if math.isnan(pending.since_s) and self.runner.recorder.has_moves:
            pending.since_s = now_s

    def pass_over(self, unread: Sequence[Range]) -> None:
        """Go on behind records that will never be read."""
        for source, before, after, _, _ in unread:
            self.take([RecordBatch(source, before, after, (), (), ())], (), {}, 0.0)

    def _absorb(self, taken: Sequence[Effects], now_s: float) -> None:
        pending = self._pending
        for effects in taken:
            if any(
                (
                    effects.matrices,
                    effects.events,
                    effects.rejects,
                    effects.counts,
                    effects.calibrations,
                )
            ):
                pending.effects.append(effects)
                outputs = self.runner.outputs(effects)
                pending.digest.update(outputs)
                pending.outputs += outputs
                pending.n_bytes += sum(len(o.value) for o in outputs)
            if effects.matrices and math.isnan(pending.closed_at_s):
                pending.closed_at_s = now_s

    def due(self, now_s: float) -> bool:
        """Tell whether it is time to commit: something was published, or some time has passed."""
        pending = self._pending
        if pending.outputs or pending.fits or pending.changes:
            return True
        return not pending.empty and now_s - self._cut_at_s >= self._commit_every_s

    @property
    def pending(self) -> bool:
        """Whether anything happened since the last cut."""
        return not self._pending.empty

    @property
    def pending_bytes(self) -> int:
        """Size of what waits to be published."""
        return self._pending.n_bytes

    @property
    def full(self) -> bool:
        """Whether nothing more should be taken in before the next cut."""
        pending = self._pending
        return pending.n_records >= BACKLOG_RECORDS or pending.n_bytes >= BACKLOG_BYTES

    def cut(self, now_s: float, *, snapshot: bool = False) -> Cut:
        """Close the entry; what is taken in from now on belongs to the next one."""
        pending, self._pending = self._pending, _Pending()
        self._cut_at_s = now_s
        arrays = self.runner.engine.state() if snapshot else None
        number = self.number + 1
        entry = link(
            JournalEntry(
                universe=self.universe.name,
                number=number,
                changes=tuple(pending.changes),
                moves=self.runner.recorder.cut(),
                sequences=_sequences(pending.effects),
                n_outputs=pending.digest.n_outputs,
                outputs_digest=pending.digest.value(),
                state_digest="" if arrays is None else digest_state(arrays),
                emitted=number - 1 if self._write_ahead else number,
                config_fingerprint=self.runner.engine.fingerprint,
                previous=self.chain,
            )
        )
        self.number, self.chain = number, entry.chain
        record = encode_entry(entry, f"{self._prefix}.journal", self._partition)
        outputs = pending.fits + pending.outputs
        return Cut(
            number,
            record,
            outputs,
            pending.effects,
            dict(self.positions),
            pending.closed_at_s,
            None if arrays is None else self._snapshot(arrays),
        )

    def snapshot(self) -> Snapshot:
        """Return the state; only right after a cut is it that of an entry."""
        assert not self.pending
        return self._snapshot(self.runner.engine.state())

    def _snapshot(self, arrays: Mapping[str, object]) -> Snapshot:
        return Snapshot(
            universe=self.universe.name,
            number=self.number,
            chain=self.chain,
            settings=self._settings,
            numerics=self._build.numerics,
            software_version=self._build.software_version,
            arrays=arrays,  # type: ignore[arg-type]
        )


def _sequences(taken: Sequence[Effects]) -> dict[str, tuple[int, int]]:
    published: dict[str, tuple[int, int]] = {}
    numbered = [(m.estimator, m.sequence) for effects in taken for m in effects.matrices]
    numbered += [("events", e.sequence) for effects in taken for e in effects.events]
    for name, sequence in numbered:
        published[name] = (published.get(name, (sequence, 0))[0], sequence)
    return published
