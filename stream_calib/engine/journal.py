"""A step as the choices that made it, and back."""

from collections.abc import Callable

from stream_calib.values import Effects, JournalEntry, Range, RecordBatch, Step, TickBatch


def describe(
    number: int,
    step: Step,
    effects: Effects,
    config_fingerprint: str,
    digest: Callable[[RecordBatch], int],
) -> JournalEntry:
    """Return the journal entry of a step that was taken."""
    sequences: dict[str, tuple[int, int]] = {}
    for matrix in effects.matrices:
        first = sequences.get(matrix.estimator, (matrix.sequence, 0))[0]
        sequences[matrix.estimator] = (first, matrix.sequence)
    ranges = tuple(
        Range(
            batch.records.source,
            batch.records.position_before,
            batch.records.position_after,
            len(batch.records.offsets),
            digest(batch.records),
        )
        for batch in step.batches
    )
    return JournalEntry(
        number, ranges, step.watermarks, step.discovered, sequences, config_fingerprint
    )


def repeat(entry: JournalEntry, read: Callable[[Range], TickBatch]) -> Step:
    """Return the step that ``entry`` describes, its ticks read again from the input log."""
    return Step(
        batches=tuple(read(wanted) for wanted in entry.ranges),
        watermarks=entry.watermarks,
        discovered=entry.discovered,
    )
