"""The input log: topics read by position, without a consumer group."""

import asyncio
import operator
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import KafkaError, OffsetOutOfRangeError, for_code
from aiokafka.protocol.commit import OffsetCommitRequest
from aiokafka.record.default_records import DefaultRecordBatch

from stream_calib.adapters.kafka.connection import (
    client_options,
    completes,
    connect_s,
    within,
)
from stream_calib.adapters.kafka.topics import check_topics
from stream_calib.config import KafkaConfig
from stream_calib.errors import TransportError
from stream_calib.values import RecordBatch, Source

METADATA_S = 3.0  # between two looks for new partitions
MARK_S = 5.0
LAST_MARK_S = 1.0  # for lag tools alone: a stop does not wait long for it
RETRY_S = 0.1
POLL_GRACE_S = 5.0  # what a poll may take beyond its own timeout
FETCH_WAIT_MS = 100  # a partition that is resumed waits for the fetch under way


class KafkaSource:
    """Reads topics from their first record, committed records only.

    A batch without records says that nothing but markers of transactions or aborted records
    lies between two positions: they have to be passed to reach the end of the log.

    Parameters
    ----------
    config
        How to reach the broker.
    topics
        What to read, all partitions of it.
    group
        Where ``mark`` writes positions; a group that never has members.
    """

    def __init__(self, config: KafkaConfig, topics: Sequence[str], group: str) -> None:
        self._config = config
        self._topics = tuple(topics)
        self._marker = _Marker(config, group)
        self._consumer: Any = None
        self._counts: dict[str, int] = {}
        self._partitions: dict[Source, TopicPartition] = {}
        # What was returned so far. The client's own position also moves over records that are
        # lost on the way to us, when a poll fails or is cancelled.
        self._positions: dict[Source, int] = {}
        self._ends: dict[Source, int] = {}
        self._paused: frozenset[Source] = frozenset()
        self._discover_at_s = 0.0

    @property
    def mark_failures(self) -> int:
        """How many times positions could not be committed."""
        return self._marker.failures

    async def start(self) -> None:
        """Connect, and check that the topics exist."""
        if not DefaultRecordBatch.__module__.startswith("aiokafka.record._crecords"):
            message = "aiokafka lacks its compiled part and reads several times slower without it"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        config = self._config
        self._counts = await check_topics(config, self._topics)
        try:
            async with within(connect_s(config), config, "connecting"):
                self._consumer = AIOKafkaConsumer(
                    **client_options(config),
                    enable_auto_commit=False,
                    auto_offset_reset="none",
                    isolation_level="read_committed",
                    metadata_max_age_ms=int(METADATA_S * 1000),
                    fetch_max_wait_ms=FETCH_WAIT_MS,
                )
                await self._consumer.start()
        except BaseException:
            await self.close()
            raise

    async def discover(self) -> tuple[Source, ...]:
        """Return the partitions that are new, some seconds after they were made."""
        now_s = asyncio.get_running_loop().time()
        if now_s < self._discover_at_s:
            return ()
        self._discover_at_s = now_s + METADATA_S
        consumer = self._consumer
        found = {
            Source(topic, partition)
            for topic in self._topics
            for partition in consumer.partitions_for_topic(topic) or range(self._counts[topic])
        }
        fresh = {
            source: TopicPartition(*source) for source in sorted(found - self._positions.keys())
        }
        if not fresh:
            return ()
        async with within(connect_s(self._config), self._config, "looking for the first records"):
            begins = await consumer.beginning_offsets(list(fresh.values()))
            ends = await consumer.end_offsets(list(fresh.values()))
        self._partitions = dict(sorted({**self._partitions, **fresh}.items()))
        self._positions |= {source: begins[partition] for source, partition in fresh.items()}
        self._ends |= {source: ends[partition] for source, partition in fresh.items()}
        # An assignment replaces the one before, with its positions and pauses.
        consumer.assign(list(self._partitions.values()))
        for source, partition in self._partitions.items():
            consumer.seek(partition, self._positions[source])
        self.pause(self._paused)
        return tuple(fresh)

    async def poll(self, max_records: int, timeout_s: float) -> list[RecordBatch]:
        """Return what was fetched; while the broker is away nothing comes, without an error."""
        await asyncio.sleep(0)  # full buffers answer at once, and the next fetch has to start
        active = [p for source, p in self._partitions.items() if source not in self._paused]
        if not active:
            await asyncio.sleep(timeout_s)
            return []
        consumer, positions = self._consumer, self._positions
        async with within(timeout_s + POLL_GRACE_S, self._config, "reading"):
            for source, partition in self._partitions.items():
                if await consumer.position(partition) != positions[source]:
                    consumer.seek(partition, positions[source])
            try:
                # By name, for the client throws away what it has fetched of a paused partition
                # when it comes across it.
                fetched = await consumer.getmany(
                    *active, timeout_ms=int(timeout_s * 1000), max_records=max_records
                )
            except OffsetOutOfRangeError as error:
                raise _out_of_range(error) from error
            reached = {s: await consumer.position(p) for s, p in self._partitions.items()}
        batches = [
            _batch(source, positions[source], after, fetched.get(source, []))
            for source, after in reached.items()
            if after != positions[source]
        ]
        positions |= {batch.source: batch.position_after for batch in batches}
        return batches

    def pause(self, sources: frozenset[Source]) -> None:
        """Read from all sources but these from now on."""
        self._paused = sources
        for source, partition in self._partitions.items():
            (self._consumer.pause if source in sources else self._consumer.resume)(partition)

    def ends(self) -> Mapping[Source, int]:
        """Return the last stable offsets, as far as a reader of committed records can come."""
        for source, partition in self._partitions.items():
            end = self._consumer.last_stable_offset(partition)
            if end is not None and end >= 0:
                self._ends[source] = max(end, self._positions[source])
        return dict(self._ends)

    def exhausted(self) -> bool:
        """Return False: a topic has no last record."""
        return False

    async def mark(self, positions: Mapping[Source, int]) -> None:
        """Commit positions to the group, in the background; a failure is counted, no more."""
        self._marker.mark(positions)

    async def close(self) -> None:
        """Let go within a few seconds."""
        await self._marker.close()
        consumer, self._consumer = self._consumer, None
        if consumer is not None and not await completes(consumer.stop()):
            # stop() breaks off when a fetch fails at that moment, and leaves connections open
            await completes(consumer._client.close())  # noqa: SLF001


class _Marker:
    # Commits offsets as a client outside the group. It has a connection of its own: a reader
    # with a group id would fail with its group.
    def __init__(self, config: KafkaConfig, group: str) -> None:
        self.failures = 0
        self._config = config
        self._group = group
        self._wanted: dict[Source, int] = {}
        self._client: Any = None
        self._task: asyncio.Task[None] | None = None

    def mark(self, positions: Mapping[Source, int]) -> None:
        self._wanted |= positions
        if self._wanted and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._commit_all())

    async def close(self) -> None:
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=LAST_MARK_S)
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=LAST_MARK_S)
        await self._drop()

    async def _commit_all(self) -> None:
        while self._wanted:
            positions, self._wanted = self._wanted, {}
            try:
                async with within(MARK_S, self._config, "committing positions"):
                    await self._commit(positions)
            except TransportError:
                self.failures += 1
                await self._drop()

    async def _commit(self, positions: Mapping[Source, int]) -> None:
        while True:
            try:
                return await self._try_commit(positions)
            except KafkaError as error:  # the first group of a cluster waits for its coordinator
                if not error.retriable:
                    raise
            await asyncio.sleep(RETRY_S)

    async def _try_commit(self, positions: Mapping[Source, int]) -> None:
        if self._client is None:
            client = AIOKafkaClient(**client_options(self._config))
            await client.bootstrap()
            self._client = client
        node = await self._client.coordinator_lookup(CoordinationType.GROUP, self._group)
        topics: dict[str, list[tuple[int, int, str]]] = {}
        for source, position in positions.items():
            topics.setdefault(source.topic, []).append((source.partition, position, ""))
        generation, retention = (
            OffsetCommitRequest.DEFAULT_GENERATION_ID,
            OffsetCommitRequest.DEFAULT_RETENTION_TIME,
        )
        request = OffsetCommitRequest(self._group, generation, "", retention, list(topics.items()))
        answer = await self._client.send(node, request, group=ConnectionGroup.COORDINATION)
        for _topic, partitions in answer.topics:
            for _partition, code in partitions:
                if code:
                    raise for_code(code)

    async def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await completes(client.close())


def _batch(source: Source, before: int, after: int, records: Sequence[Any]) -> RecordBatch:
    offsets = [record.offset for record in records]
    bounds = [before - 1, *offsets, after]
    if not all(map(operator.lt, bounds, bounds[1:])):
        message = f"Kafka returned records of {source.topic}-{source.partition} out of order"
        raise TransportError(message)
    return RecordBatch(
        source=source,
        position_before=before,
        position_after=after,
        offsets=offsets,
        timestamps_ms=[
            -1 if (time_ms := record.timestamp) is None or time_ms < 0 else time_ms
            for record in records
        ],
        values=[record.value for record in records],
    )


def _out_of_range(error: OffsetOutOfRangeError) -> TransportError:
    ((topic, partition), position) = next(iter(error.args[0].items()))
    return TransportError(
        f"Position {position} of topic {topic!r} partition {partition} is no longer in the log: "
        "its records were deleted before they were read, or the topic was made anew"
    )
