"""An in-process log with the behaviour of Kafka's: for the demo, for tests, for notebooks."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from stream_calib.errors import MissingTopicError, TransportError
from stream_calib.values import Output, RecordBatch, Source

NS_PER_MS = 1_000_000


class EmbeddedRecord(NamedTuple):
    """A record as it lies in the log."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


class EmbeddedLog:
    """Topics with partitions, in memory; for one event loop.

    Parameters
    ----------
    retention
        Records that each partition keeps at least, twice as many at most; None keeps all.
    """

    def __init__(self, retention: int | None = None) -> None:
        self._retention = retention
        self._topics: dict[str, list[_Partition]] = {}
        self._appended = asyncio.Event()

    def create_topic(self, name: str, partitions: int = 1) -> None:
        """Create a topic, or add what it lacks in partitions."""
        existing = self._topics.setdefault(name, [])
        existing += [_Partition() for _ in range(partitions - len(existing))]

    def partitions(self, topic: str) -> int:
        """Return the number of partitions of ``topic``.

        Raises
        ------
        MissingTopicError
            There is no such topic.
        """
        if topic not in self._topics:
            message = f"Topic {topic!r} does not exist; `stream-calib topics create` makes it"
            raise MissingTopicError(message)
        return len(self._topics[topic])

    def append(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        timestamp_ms: int | None = None,
    ) -> int:
        """Write a record and return its offset; the time is now unless it is given.

        Raises
        ------
        TransportError
            There is no such topic or partition.
        """
        part = self._partition(topic, partition)
        offset = part.first + len(part.records)
        if timestamp_ms is None:
            timestamp_ms = time.time_ns() // NS_PER_MS
        part.records.append(EmbeddedRecord(offset, timestamp_ms, key, value, tuple(headers)))
        if self._retention is not None and len(part.records) > 2 * self._retention:
            # a whole length at once, so that a record costs the same however long the log is
            part.first += len(part.records) - self._retention
            del part.records[: -self._retention]
        self._appended.set()
        return offset

    def read(
        self, topic: str, partition: int, start: int, max_records: int | None = None
    ) -> list[EmbeddedRecord]:
        """Return the records from offset ``start`` on, at most ``max_records``.

        Raises
        ------
        TransportError
            There is no such topic or partition, or ``start`` is not in the log any more.
        """
        part = self._partition(topic, partition)
        row = start - part.first
        if not 0 <= row <= len(part.records):
            raise TransportError(
                f"Position {start} of topic {topic!r} partition {partition} is no longer in the "
                "log: its records were deleted before they were read"
            )
        return part.records[row : None if max_records is None else row + max_records]

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """Return the offset of the first record kept and the offset after the last one."""
        part = self._partition(topic, partition)
        return part.first, part.first + len(part.records)

    async def wait(self) -> None:
        """Wait for the next record appended anywhere."""
        self._appended.clear()
        await self._appended.wait()

    def _partition(self, topic: str, partition: int) -> "_Partition":
        partitions = self.partitions(topic)
        if not 0 <= partition < partitions:
            message = f"Topic {topic!r} has no partition {partition}, only {partitions}"
            raise TransportError(message)
        return self._topics[topic][partition]


class EmbeddedSource:
    """Reads an EmbeddedLog as KafkaSource reads Kafka.

    Parameters
    ----------
    log
        Where records are.
    topics
        What to read, all partitions of it.
    finished
        Tells whether the last record was appended; None for a log without end.

    Attributes
    ----------
    marked
        Positions told to ``mark``.
    """

    def __init__(
        self,
        log: EmbeddedLog,
        topics: Sequence[str],
        finished: Callable[[], bool] | None = None,
    ) -> None:
        self.marked: dict[Source, int] = {}
        self._log = log
        self._topics = tuple(topics)
        self._finished = finished
        self._positions: dict[Source, int] = {}
        self._paused: frozenset[Source] = frozenset()

    async def start(self) -> None:
        """Check that the topics exist."""
        for topic in self._topics:
            self._log.partitions(topic)

    async def discover(self) -> tuple[Source, ...]:
        """Return the partitions that are new."""
        new = tuple(source for source in self._sources() if source not in self._positions)
        self._positions |= {source: self._log.bounds(*source)[0] for source in new}
        self._positions = dict(sorted(self._positions.items()))
        return new

    async def poll(self, max_records: int, timeout_s: float) -> list[RecordBatch]:
        """Return what is there; wait for an append when nothing is."""
        await asyncio.sleep(0)  # a full log answers at once: let the writers run
        batches = self._read(max_records)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not batches:
                    await self._log.wait()
                    batches = self._read(max_records)
        return batches

    def pause(self, sources: frozenset[Source]) -> None:
        """Read from all sources but these from now on."""
        self._paused = sources

    def ends(self) -> Mapping[Source, int]:
        """Return the position after the last record of each source."""
        return {source: self._log.bounds(*source)[1] for source in self._positions}

    def exhausted(self) -> bool:
        """Tell whether the writers are finished and all of it was read."""
        return (
            self._finished is not None
            and self._finished()
            and all(
                self._positions.get(source, first) == end
                for source in self._sources()
                for first, end in [self._log.bounds(*source)]
            )
        )

    async def mark(self, positions: Mapping[Source, int]) -> None:
        """Note processed positions."""
        self.marked |= positions

    async def close(self) -> None:
        """Let go; nothing is held."""

    def _sources(self) -> list[Source]:
        return sorted(
            Source(topic, partition)
            for topic in set(self._topics)
            for partition in range(self._log.partitions(topic))
        )

    def _read(self, max_records: int) -> list[RecordBatch]:
        batches = []
        for source, position in self._positions.items():
            if source in self._paused or max_records <= 0:
                continue
            records = self._log.read(*source, position, max_records)
            if records:
                max_records -= len(records)
                batches.append(_batch(source, position, records))
        self._positions |= {batch.source: batch.position_after for batch in batches}
        return batches


class EmbeddedSink:
    """Writes to an EmbeddedLog."""

    def __init__(self, log: EmbeddedLog) -> None:
        self._log = log

    async def start(self) -> None:
        """Be ready at once."""

    async def publish(self, outputs: Sequence[Output]) -> None:
        """Write the records in order, all or none."""
        for output in outputs:
            self._log.bounds(output.topic, output.partition)
        for o in outputs:
            self._log.append(o.topic, o.partition, o.key, o.value, o.headers)

    async def close(self) -> None:
        """Let go; nothing is held."""


class _Partition:
    def __init__(self) -> None:
        self.first = 0  # offset of the first record kept
        self.records: list[EmbeddedRecord] = []


def _batch(source: Source, before: int, records: Sequence[EmbeddedRecord]) -> RecordBatch:
    return RecordBatch(
        source=source,
        position_before=before,
        position_after=records[-1].offset + 1,
        offsets=[record.offset for record in records],
        timestamps_ms=[record.timestamp_ms for record in records],
        values=[record.value for record in records],
    )
