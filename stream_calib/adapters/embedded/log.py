"""Topics with partitions, in memory."""

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

from stream_calib.errors import LostInputError, MissingTopicError, TransportError
from stream_calib.values import Published, Source

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

    Attributes
    ----------
    owners
        Who owns a partition, of those that are owned at all.
    """

    def __init__(self, retention: int | None = None) -> None:
        self.owners: dict[Source, object] = {}
        self._retention = retention
        self._topics: dict[str, list[_Partition]] = {}
        self._appended = asyncio.Event()

    def create_topic(self, name: str, partitions: int = 1, *, keep: bool = False) -> None:
        """Create a topic, or add what it lacks in partitions.

        With ``keep`` nothing is forgotten but by ``trim``.
        """
        existing = self._topics.setdefault(name, [])
        retention = None if keep else self._retention
        existing += [_Partition(retention) for _ in range(partitions - len(existing))]

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
        if part.retention is not None and len(part.records) > 2 * part.retention:
            # a whole length at once, so that a record costs the same however long the log is
            part.trim(offset + 1 - part.retention)
        self._appended.set()
        return offset

    def read(
        self, topic: str, partition: int, start: int, max_records: int | None = None
    ) -> list[EmbeddedRecord]:
        """Return the records from offset ``start`` on, at most ``max_records``.

        Raises
        ------
        TransportError
            There is no such topic or partition.
        LostInputError
            ``start`` is not in the log any more.
        """
        part = self._partition(topic, partition)
        row = start - part.first
        if not 0 <= row <= len(part.records):
            raise LostInputError(
                f"Position {start} of topic {topic!r} partition {partition} is no longer in the "
                "log: its records were deleted before they were read"
            )
        return part.records[row : None if max_records is None else row + max_records]

    def newest(self, topic: str, partition: int, n: int) -> list[Published]:
        """Return the last ``n`` records.

        Raises
        ------
        TransportError
            There is no such topic or partition.
        """
        first, after = self.bounds(topic, partition)
        records = self.read(topic, partition, max(first, after - n))
        return [Published(topic, partition, r.offset, r.key, r.value, r.headers) for r in records]

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """Return the offset of the first record kept and the offset after the last one."""
        part = self._partition(topic, partition)
        return part.first, part.first + len(part.records)

    def trim(self, topic: str, partition: int, position: int) -> None:
        """Forget the records before ``position``.

        Raises
        ------
        TransportError
            There is no such topic or partition.
        """
        self._partition(topic, partition).trim(position)

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


class _Partition:
    def __init__(self, retention: int | None) -> None:
        self.first = 0  # offset of the first record kept
        self.records: list[EmbeddedRecord] = []
        self.retention = retention

    def trim(self, position: int) -> None:
        gone = min(max(position - self.first, 0), len(self.records))
        self.first += gone
        del self.records[:gone]
