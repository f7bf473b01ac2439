"""Consumers that read committed records by position, without a group."""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from stream_calib.adapters.kafka.connection import (
    completes,
    connect_s,
    reachable,
    within,
)
from stream_calib.config import KafkaConfig
from stream_calib.errors import LostInputError
from stream_calib.ports import JournalRecord
from stream_calib.values import Source

METADATA_S = 3.0  # between two looks for new partitions
FETCH_WAIT_MS = 100  # a partition that is resumed waits for the fetch under way
READ_S = 30.0  # outlives the restart of a broker
STEP_MS = 50
AT_ONCE = 5000


class Kept(NamedTuple):
    """What a partition holds: where it begins, its committed records, where they end."""

    first: int
    records: Sequence[Any]
    after: int


async def start_consumer(
    config: KafkaConfig, isolation: str = "read_committed", **options: object
) -> Any:  # noqa: ANN401
    """Connect a consumer that is assigned nothing yet.

    Raises
    ------
    TransportError
        The broker cannot be reached in time.
    """
    async with within(connect_s(config), config, "connecting"):
        consumer = AIOKafkaConsumer(
            **await reachable(config),
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level=isolation,
            metadata_max_age_ms=int(METADATA_S * 1000),
            fetch_max_wait_ms=FETCH_WAIT_MS,
            **options,
        )
        try:
            await consumer.start()
        except BaseException:
            await stop_consumer(consumer)
            raise
    return consumer


async def stop_consumer(consumer: Any) -> None:  # noqa: ANN401
    """Let go of a consumer within a few seconds."""
    if not await completes(consumer.stop()):
        # stop() breaks off when a fetch fails at that moment, and leaves connections open
        await completes(consumer._client.close())  # noqa: SLF001


async def advance(
    consumer: Any,  # noqa: ANN401
    partition: TopicPartition,
    max_records: int,
) -> tuple[Sequence[Any], int]:
    """Wait until the position of a partition moves; return the records passed and the position.

    There may be none: markers of transactions and aborted records are passed too.

    Raises
    ------
    LostInputError
        The position is not in the log.
    """
    await asyncio.sleep(0)  # full buffers answer at once, and the next fetch has to start
    before, timeout_ms = await consumer.position(partition), 0
    while True:
        # By name, for what was fetched of the others has to stay. In small steps, for the client
        # goes on waiting when it has passed something that is no record.
        try:
            fetched = await consumer.getmany(
                partition, timeout_ms=timeout_ms, max_records=max_records
            )
        except OffsetOutOfRangeError as error:
            raise out_of_range(error) from error
        after = await consumer.position(partition)
        if after != before:
            return fetched.get(partition, ()), after
        timeout_ms = STEP_MS


async def read_kept(
    config: KafkaConfig, source: Source, start: int | None = None, limit: int | None = None
) -> Kept:
    """Read a partition up to the last stable offset of this moment.

    What is dropped from its beginning meanwhile, such as by the owner of a journal, is left out.

    Parameters
    ----------
    config
        How to reach the broker.
    source
        The partition, which exists.
    start
        Where to begin; the first record that is kept by default.
    limit
        Stop after so many records.

    Raises
    ------
    TransportError
        The broker does not answer in time.
    LostInputError
        The partition was made anew while it was read.
    """
    partition = TopicPartition(*source)
    consumer = await start_consumer(config)

    async def beginning() -> int:
        async with within(connect_s(config), config, "looking for the first records"):
            return int((await consumer.beginning_offsets([partition]))[partition])

    try:
        first = await beginning()
        async with within(connect_s(config), config, "looking for the last records"):
            stop = (await consumer.end_offsets([partition]))[partition]
        consumer.assign([partition])
        after = first if start is None else max(first, start)
        consumer.seek(partition, after)
        records: list[Any] = []
        while after < stop and (limit is None or len(records) < limit):
            try:
                async with within(READ_S, config, f"reading {source.topic}"):
                    found, after = await advance(consumer, partition, limit or AT_ONCE)
            except LostInputError:
                if (begins := await beginning()) <= first:
                    raise
                first = after = begins
                consumer.seek(partition, after)
                records = []  # no holes
                continue
            records += [record for record in found if record.offset < stop]
    finally:
        await stop_consumer(consumer)
    return Kept(first, records, after)


async def read_tail(config: KafkaConfig, source: Source, n: int) -> Kept:
    """Read at least the last ``n`` offsets of a partition, as ``read_kept`` does."""
    partition = TopicPartition(*source)
    consumer = await start_consumer(config)
    try:
        async with within(connect_s(config), config, "looking for the last records"):
            end = (await consumer.end_offsets([partition]))[partition]
    finally:
        await stop_consumer(consumer)
    return await read_kept(config, source, start=max(0, end - n))


async def read_journal(config: KafkaConfig, topic: str, partition: int) -> list[JournalRecord]:
    """Return a journal without owning it, oldest entry first."""
    kept = await read_kept(config, Source(topic, partition))
    return [JournalRecord(record.offset, record.value) for record in kept.records]


def out_of_range(error: OffsetOutOfRangeError) -> LostInputError:
    """Say in one sentence which position is not in the log."""
    ((topic, partition), position) = next(iter(error.args[0].items()))
    return LostInputError(
        f"Position {position} of topic {topic!r} partition {partition} is no longer in the log: "
        "its records were deleted before they were read, or the topic was made anew; "
        "--accept-gap goes on without them"
    )
