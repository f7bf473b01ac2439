"""The last records of topics, for a look at what ticks there."""

import asyncio
import contextlib
from collections.abc import Sequence

from aiokafka import TopicPartition

from stream_calib.adapters.kafka.connection import connect_s, within
from stream_calib.adapters.kafka.reading import start_consumer, stop_consumer
from stream_calib.adapters.kafka.topics import list_partitions
from stream_calib.config import KafkaConfig
from stream_calib.values import RecordBatch, Source

TAIL_S = 3.0  # what is there by then has to do
STEP_MS = 200


async def read_tails(config: KafkaConfig, topics: Sequence[str], n: int) -> list[RecordBatch]:
    """Return about the last ``n`` records of topics, spread evenly over their partitions.

    A topic that does not exist has none. What takes longer than a few seconds is left out.

    Raises
    ------
    TransportError
        The broker does not answer in time.
    """
    partitions = await list_partitions(config)
    wanted = [TopicPartition(t, p) for t in sorted(set(topics)) for p in partitions.get(t, ())]
    if not wanted:
        return []
    consumer = await start_consumer(config)
    out: list[RecordBatch] = []
    try:
        async with within(connect_s(config), config, "looking for the last records"):
            begins = await consumer.beginning_offsets(wanted)
            ends = await consumer.end_offsets(wanted)
        consumer.assign(wanted)
        at = {p: max(begins[p], ends[p] - n // len(wanted)) for p in wanted}
        for partition, position in at.items():
            consumer.seek(partition, position)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TAIL_S):
                while waiting := [p for p in wanted if at[p] < ends[p]]:
                    for p, records in (
                        await consumer.getmany(*waiting, timeout_ms=STEP_MS)
                    ).items():
                        after = records[-1].offset + 1
                        offsets = [record.offset for record in records]
                        stamps = [record.timestamp for record in records]
                        values = [record.value for record in records]
                        source = Source(p.topic, p.partition)
                        out.append(RecordBatch(source, at[p], after, offsets, stamps, values))
                    at |= {p: await consumer.position(p) for p in waiting}
    finally:
        await stop_consumer(consumer)
    return out
