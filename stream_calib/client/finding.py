"""Where in a topic a sequence or a time begins, by bisection."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from stream_calib.client.assembly import Assembly, Chunk
from stream_calib.client.connection import POLL_MS, settle
from stream_calib.errors import TransportError

FIND_S = 60.0
# looks at the log while searching it; a larger record comes all the same
PROBE = {"max_partition_fetch_bytes": 65_536, "fetch_max_wait_ms": 50}
PROBE_RECORDS = 200


async def find(
    options: Mapping[str, Any], partitions: Sequence[TopicPartition], wanted: Assembly
) -> dict[TopicPartition, int]:
    """Return where each partition reaches the start that is wanted.

    A universe has a partition to itself; where the first and last records are of others, it is
    not in there, and its end is returned.

    Parameters
    ----------
    options
        For the client library.
    partitions
        Those of the topic.
    wanted
        What is followed, and from where.

    Raises
    ------
    TransportError
        The broker does not answer in time.
    """
    address = options["bootstrap_servers"]
    consumer = AIOKafkaConsumer(**{**options, **PROBE})
    try:
        async with asyncio.timeout(FIND_S):
            await consumer.start()
            return {
                partition: await _bisect(consumer, partition, wanted) for partition in partitions
            }
    except TimeoutError as error:
        message = f"Kafka at {address} did not show {wanted.start} within {FIND_S:g} s"
        raise TransportError(message) from error
    except (KafkaError, OSError) as error:
        message = f"Kafka at {address} failed while looking for {wanted.start}: {error}"
        raise TransportError(message) from error
    finally:
        await settle(consumer.stop())


async def _bisect(consumer: AIOKafkaConsumer, partition: TopicPartition, wanted: Assembly) -> int:
    # Holes of compaction and a writer that repeats itself do no harm: what is found too early
    # is passed over while reading on, and a writer repeats up to where it was and beyond.
    async def probe(start: int, stop: int, most: float = math.inf) -> Chunk | None:
        consumer.seek(partition, start)
        n = 0
        while n < most and await consumer.position(partition) < stop:
            fetched = await consumer.getmany(partition, timeout_ms=POLL_MS)
            for record in fetched.get(partition, ()):
                n += 1
                chunk = wanted.read(record) if record.offset < stop else None
                if chunk is not None:
                    return chunk
                is_there[0] |= wanted.is_of_universe(record)
        return None

    is_there = [False]
    consumer.assign([partition])
    await consumer.position(partition)
    low: int = (await consumer.beginning_offsets([partition]))[partition]
    high: int = (await consumer.end_offsets([partition]))[partition]
    at_ends = [
        await probe(start, high, PROBE_RECORDS) for start in (low, max(low, high - PROBE_RECORDS))
    ]
    # an estimator that publishes rarely may have nothing at either end
    if at_ends == [None, None] and not is_there[0]:
        return high
    while low < high:
        middle = (low + high) // 2
        chunk = await probe(middle, high)
        if chunk is not None and wanted.start.is_after(chunk):
            low = chunk.offset + 1
        else:
            high = middle
    return low
