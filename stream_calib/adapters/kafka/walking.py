"""Partitions read from end to end, however long they are, and where transactions hang open."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition

from stream_calib.adapters.kafka.connection import connect_s, within
from stream_calib.adapters.kafka.reading import (
    AT_ONCE,
    READ_S,
    advance,
    start_consumer,
    stop_consumer,
)
from stream_calib.config import KafkaConfig
from stream_calib.values import Source

SETTLE_S = 3.0  # a transaction under way is done by then, one that hangs is not
SETTLE_STEP_S = 0.05
FETCH_BYTES = 8 * 2**20  # of a partition at once: all of them are asked for together


@dataclass(frozen=True, slots=True)
class Extent:
    """What a partition holds for readers of committed records, at one moment.

    ``first`` is where it begins, ``start`` where reading begins, ``stop`` the last stable offset,
    ``end`` the one after its last record, committed or not. Where they differ a transaction is
    open, and ``open_since_ms`` is the time of its first record, by its producer's clock.
    """

    first: int
    start: int
    stop: int
    end: int
    open_since_ms: int | None = None


class Walk:
    """The committed records of one partition, a few at a time.

    Parameters
    ----------
    consumer
        Assigned the partition, at its start.
    config
        How to reach the broker.
    source
        The partition.
    extent
        Where it begins and ends.
    """

    def __init__(
        self,
        consumer: Any,  # noqa: ANN401
        config: KafkaConfig,
        source: Source,
        extent: Extent,
    ) -> None:
        self.source, self.extent = source, extent
        self._consumer, self._config = consumer, config

    def rewind(self) -> None:
        """Let the next reading begin at the start."""
        self._consumer.seek(TopicPartition(*self.source), self.extent.start)

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Yield the records up to where the partition ended when it was looked at.

        Raises
        ------
        TransportError
            The broker does not answer in time.
        LostInputError
            Records were deleted while they were read.
        """
        partition, stop = TopicPartition(*self.source), self.extent.stop
        after = self.extent.start
        while after < stop:
            async with within(READ_S, self._config, f"reading {self.source.topic}"):
                found, after = await advance(self._consumer, partition, AT_ONCE)
            for record in found:
                if record.offset >= stop:
                    return
                yield record


@contextlib.asynccontextmanager
async def open_walks(
    config: KafkaConfig, sources: Sequence[Source], since_ms: int | None = None
) -> AsyncIterator[Mapping[Source, Walk]]:
    """Get ready to read partitions that exist up to where they end now.

    The ends are taken in the order of ``sources``, and of each only once what was written before
    that moment is committed or aborted, so that what a transaction has written to several
    partitions is in those that come later if it is in one that comes earlier. A transaction that
    stays open is not waited for.

    Parameters
    ----------
    config
        How to reach the broker.
    sources
        The partitions.
    since_ms
        Begin at the first record with this time or a later one.

    Raises
    ------
    TransportError
        The broker does not answer in time.
    """
    consumer = await start_consumer(config, max_partition_fetch_bytes=FETCH_BYTES)
    try:
        extents = await _extents(config, consumer, sources, since_ms)
        consumer.assign([TopicPartition(*source) for source in sources])
        for source, extent in extents.items():
            consumer.seek(TopicPartition(*source), extent.start)
        yield {source: Walk(consumer, config, source, extent) for source, extent in extents.items()}
    finally:
        await stop_consumer(consumer)


async def _extents(
    config: KafkaConfig,
    consumer: Any,  # noqa: ANN401
    sources: Sequence[Source],
    since_ms: int | None,
) -> dict[Source, Extent]:
    found: dict[Source, Extent] = {}
    uncommitted = await start_consumer(config, "read_uncommitted")
    try:
        async with within(connect_s(config), config, "looking for the first records"):
            partitions = [TopicPartition(*source) for source in sources]
            firsts = await consumer.beginning_offsets(partitions)
            starts = firsts | await _since(consumer, partitions, since_ms)
        patience_s = SETTLE_S
        for partition, source in zip(partitions, sources, strict=True):
            async with within(connect_s(config) + SETTLE_S, config, "looking for the last records"):
                end = (await uncommitted.end_offsets([partition]))[partition]
                stop = (await consumer.end_offsets([partition]))[partition]
                while stop < end and patience_s > 0:
                    await asyncio.sleep(SETTLE_STEP_S)
                    patience_s -= SETTLE_STEP_S
                    stop = (await consumer.end_offsets([partition]))[partition]
            since = None
            if stop < end:
                since = await _time_of(config, uncommitted, partition, stop)
            first, start = firsts[partition], starts[partition]
            stop = max(stop, first)
            found[source] = Extent(first, min(start, stop), stop, max(end, stop), since)
    finally:
        await stop_consumer(uncommitted)
    return found


async def _since(
    consumer: Any,  # noqa: ANN401
    partitions: Sequence[TopicPartition],
    since_ms: int | None,
) -> dict[TopicPartition, int]:
    if since_ms is None:
        return {}
    found = await consumer.offsets_for_times(dict.fromkeys(partitions, since_ms))
    ends = await consumer.end_offsets(partitions)
    return {p: ends[p] if found[p] is None else found[p].offset for p in partitions}


async def _time_of(
    config: KafkaConfig,
    consumer: Any,  # noqa: ANN401
    partition: TopicPartition,
    offset: int,
) -> int | None:
    consumer.assign([partition])
    consumer.seek(partition, offset)
    async with within(READ_S, config, "looking at an open transaction"):
        found, _ = await advance(consumer, partition, 1)
    return found[0].timestamp if found else None
