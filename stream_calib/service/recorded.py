"""Recorded files as one stream in event time, to be written into Kafka."""

import heapq
import zlib
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path

from stream_calib.adapters.files import FileSource
from stream_calib.service.speed import Timed
from stream_calib.values import SECOND_NS, Output, RecordBatch, Source
from stream_calib.wire.ticks.labels import Labels

HORIZON_NS = 60 * SECOND_NS
BLOCK = 1000  # records of one source, fewer where there are very many
BLOCKS = 200_000  # records of all sources together


def recorded(
    files: Sequence[str | Path],
    topic: str | None = None,
    partitions: int = 1,
    format_name: str = "auto",
) -> Iterator[Timed]:
    """Yield the records of many files, merged by their event time.

    Of one source, a topic of a file, the order stays as it is. Its time is the newest of its
    records; a record without a time has that of the one before. A jump of more than HORIZON_NS,
    either way, counts only if the next record does not jump back: one absurd time delays nothing.
    Sources of the same time take turns in the order of their names.

    Parameters
    ----------
    files
        As ``replay`` takes them.
    topic
        The topic of all records; None: each source has its own.
    partitions
        The key of a record is its symbol, where it has one, and decides its partition.
    format_name
        How to read symbols and times; the records are written as they are.

    Yields
    ------
    time_ns, output

    Raises
    ------
    InputError
        A file cannot be read.
    """
    source = FileSource(files)
    sources = source.open()
    size = max(1, min(BLOCK, BLOCKS // max(1, len(sources))))
    labels = Labels(format_name)
    try:
        streams = [_of(source, one, size, labels, topic, partitions) for one in sources]
        yield from streams[0] if len(streams) == 1 else heapq.merge(*streams, key=itemgetter(0))
    finally:
        source.release()


def _of(
    files: FileSource, source: Source, size: int, labels: Labels, topic: str | None, partitions: int
) -> Iterator[Timed]:
    clock_ns = 0
    name = topic or source.topic
    batch, times_ns, symbols = _next(files, source, size, labels)
    while batch.values:
        following, following_ns, following_symbols = _next(files, source, size, labels)
        after_ns = next(filter(None, following_ns), 0)
        placed = places_ns(times_ns, clock_ns, after_ns)
        clock_ns = placed[-1]
        for time_ns, symbol, value in zip(placed, symbols, batch.values, strict=True):
            key = symbol.encode("utf-8", "surrogatepass")
            partition = zlib.crc32(key) % partitions if key else 0
            yield time_ns, Output(name, partition, key, value or b"", ())
        batch, times_ns, symbols = following, following_ns, following_symbols


def _next(
    files: FileSource, source: Source, size: int, labels: Labels
) -> tuple[RecordBatch, list[int], list[str]]:
    batch = files.take_of(source, size)
    times_ns, symbols = labels.read(batch)
    return batch, times_ns.tolist(), symbols


def places_ns(times_ns: Sequence[int], clock_ns: int = 0, after_ns: int = 0) -> list[int]:
    """Return where records of one source stand in time, as ``recorded`` says.

    Parameters
    ----------
    times_ns : (m,)
        Times of the records, 0 for none.
    clock_ns
        Where the source stands, 0 before its first time.
    after_ns
        The first time after these, 0 where there is none.

    Returns
    -------
    list of int, (m,)
    """
    known = [time_ns for time_ns in (*times_ns, after_ns) if time_ns]
    following, out = iter([*known[1:], 0]), []
    for time_ns in times_ns:
        if time_ns and _counts(time_ns, clock_ns, next(following)):
            fell = time_ns < clock_ns - HORIZON_NS
            clock_ns = time_ns if fell else max(clock_ns, time_ns)
        out.append(clock_ns)
    return out


def _counts(time_ns: int, clock_ns: int, after_ns: int) -> bool:
    if not after_ns or (clock_ns and abs(time_ns - clock_ns) <= HORIZON_NS):
        return True
    if time_ns > clock_ns:  # as the first of all times is
        return after_ns >= time_ns - HORIZON_NS
    return after_ns <= time_ns + HORIZON_NS
