"""What one poll brought, in slices that fit into the memory with all that comes of them."""

from collections.abc import Iterator
from typing import NamedTuple

from stream_calib.values import RecordBatch, Source


class Polled(NamedTuple):
    """Batches, sources that are new, and whether a finite input is used up."""

    batches: list[RecordBatch]
    discovered: tuple[Source, ...] = ()
    exhausted: bool = False


def slices(polled: Polled, size: int) -> Iterator[Polled]:
    """Cut a poll so that no slice has more than ``size`` records of a source.

    Every record may bring a matrix, and of large ones not many fit into the memory.
    """
    head, tail = Polled([], polled.discovered), Polled([], (), polled.exhausted)
    pieces = [piece for batch in polled.batches for piece in _pieces(batch, size)]
    if len(pieces) <= len(polled.batches):
        yield polled
        return
    if polled.discovered:
        yield head
    yield from (Polled([piece]) for piece in pieces)
    if polled.exhausted:
        yield tail


def _pieces(batch: RecordBatch, size: int) -> Iterator[RecordBatch]:
    n = len(batch.values)
    if n <= size:
        yield batch
        return
    for start in range(0, n, size):
        stop = min(n, start + size)
        yield RecordBatch(
            batch.source,
            batch.offsets[start] if start else batch.position_before,
            batch.offsets[stop] if stop < n else batch.position_after,
            batch.offsets[start:stop],
            batch.timestamps_ms[start:stop],
            batch.values[start:stop],
            batch.schemas,
        )
