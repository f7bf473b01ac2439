"""Steps as the choices that made them, and back."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from stream_calib.values import (
    Fit,
    FitFailure,
    Move,
    Range,
    RecordBatch,
    Source,
    Step,
    TickBatch,
    Watermark,
)


class RecordDigest(Protocol):
    """Digest of consecutive records; how they are cut into batches does not show in it."""

    def update(self, records: RecordBatch) -> None:
        """Take in the next records."""

    def value(self) -> int:
        """Return the digest of all records so far."""


class Recorder:
    """Collects the choices of the steps since the last commit.

    Batches of several steps become one range per source: what the engine brings about does not
    depend on how its input is cut or interleaved. What does matter keeps its place: a decision
    ends a move, and a new source, a fit or the want of one begins one.

    Parameters
    ----------
    new_digest
        Makes an empty digest.
    """

    def __init__(self, new_digest: Callable[[], RecordDigest]) -> None:
        self._new_digest = new_digest
        self._moves: list[Move] = []
        self._open = _OpenMove()

    def note(self, step: Step, installs: tuple[str, ...] = ()) -> None:
        """Take down a step that was taken; ``installs`` are the hashes of its fits."""
        if step.discovered or installs or step.failures or step.refit:
            self._seal()
            self._open.installs, self._open.discovered = installs, step.discovered
            self._open.failures, self._open.refit = step.failures, step.refit
        for batch in step.batches:
            if not self._open.follows(batch.records):
                self._seal()
            self._open.add(batch.records, self._new_digest)
        if step.watermarks:
            self._open.watermarks = step.watermarks
            self._seal()

    @property
    def has_moves(self) -> bool:
        """Whether anything was noted since the last cut."""
        return bool(self._moves) or self._open.begun

    def cut(self) -> tuple[Move, ...]:
        """Return the moves since the last cut."""
        self._seal()
        moves, self._moves = tuple(self._moves), []
        return moves

    def _seal(self) -> None:
        if self._open.begun:
            self._moves.append(self._open.closed())
            self._open = _OpenMove()


class _OpenMove:
    def __init__(self) -> None:
        self.installs: tuple[str, ...] = ()
        self.failures: tuple[FitFailure, ...] = ()
        self.refit = False
        self.discovered: tuple[Source, ...] = ()
        self.watermarks: tuple[Watermark, ...] = ()
        self._ranges: dict[Source, _OpenRange] = {}

    @property
    def begun(self) -> bool:
        answers = self.installs or self.failures or self.refit
        return bool(answers or self.discovered or self.watermarks or self._ranges)

    def follows(self, records: RecordBatch) -> bool:
        known = self._ranges.get(records.source)
        return known is None or known.after == records.position_before

    def add(self, records: RecordBatch, new_digest: Callable[[], RecordDigest]) -> None:
        known = self._ranges.get(records.source)
        if known is None:
            known = _OpenRange(records.position_before, new_digest())
            self._ranges[records.source] = known
        known.after = records.position_after
        known.n_records += len(records.values)
        known.digest.update(records)

    def closed(self) -> Move:
        ranges = tuple(
            Range(source, r.before, r.after, r.n_records, r.digest.value())
            for source, r in sorted(self._ranges.items())
        )
        return Move(
            self.installs, self.discovered, ranges, self.watermarks, self.failures, self.refit
        )


class _OpenRange:
    def __init__(self, before: int, digest: RecordDigest) -> None:
        self.before = self.after = before
        self.n_records = 0
        self.digest = digest


def repeat(
    move: Move, read: Callable[[Range], Iterable[TickBatch]], fits: Mapping[str, Fit]
) -> Iterator[Step]:
    """Yield the steps that a move stands for, its ticks read again from the input log."""
    if move.installs or move.failures or move.discovered or move.refit:
        yield Step(
            discovered=move.discovered,
            installs=tuple(fits[name] for name in move.installs),
            failures=move.failures,
            refit=move.refit,
        )
    for wanted in move.ranges:
        for batch in read(wanted):
            yield Step(batches=(batch,))
    if move.watermarks:
        yield Step(watermarks=move.watermarks)
