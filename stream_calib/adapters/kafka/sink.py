"""The output log: records written by an idempotent producer."""

import asyncio
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer

from stream_calib.adapters.kafka.connection import (
    client_options,
    completes,
    connect_s,
    reach,
    within,
)
from stream_calib.adapters.kafka.topics import check_topics
from stream_calib.config import KafkaConfig
from stream_calib.errors import TransportError
from stream_calib.values import Output

PUBLISH_S = 30.0  # outlives the restart of a broker
BATCH_BYTES = 512 * 1024  # a broker takes 1 MiB at once unless told otherwise
RECORD_BYTES = 2 * 1024 * 1024
SENDER_S = 0.5


class KafkaSink:
    """Writes records, each acknowledged by all in-sync replicas.

    After a failure the producer is thrown away and the next ``publish`` starts another: what
    the old one still held is not written behind our back later.

    Parameters
    ----------
    config
        How to reach the broker.
    """

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._producer: Any = None
        self._known: set[tuple[str, int]] = set()

    async def start(self) -> None:
        """Connect."""
        config = self._config
        async with within(connect_s(config), config, "connecting"):
            await reach(config)
            # No linger: all of one publish is in the buffers before the sender gets to run.
            producer = AIOKafkaProducer(
                **client_options(config),
                enable_idempotence=True,
                acks="all",
                max_batch_size=BATCH_BYTES,
                max_request_size=RECORD_BYTES,
            )
            try:
                await producer.start()
            except BaseException:
                await _abandon(producer)
                raise
        self._producer = producer

    async def publish(self, outputs: Sequence[Output]) -> None:
        """Write the records in order; return when all of them are acknowledged."""
        if self._producer is None:
            await self.start()
        acks: list[Any] = []
        try:
            async with within(PUBLISH_S, self._config, "writing"):
                await self._learn({(output.topic, output.partition) for output in outputs})
                for o in outputs:
                    ack = await self._producer.send(
                        o.topic, o.value, o.key, o.partition, headers=list(o.headers)
                    )
                    acks.append(ack)
                await asyncio.gather(*acks)
        except BaseException:
            for ack in acks:
                ack.cancel()  # nobody asks for it any more
            await self.close()
            raise

    async def close(self) -> None:
        """Let go within a few seconds."""
        producer, self._producer = self._producer, None
        self._known.clear()
        if producer is not None:
            await _abandon(producer)

    async def _learn(self, wanted: set[tuple[str, int]]) -> None:
        # Before the producer hears of a topic: in asking for one it might create it.
        unknown = sorted(wanted - self._known)
        if not unknown:
            return
        counts = await check_topics(self._config, {topic for topic, _ in unknown})
        for topic, partition in unknown:
            if partition >= counts[topic]:
                message = f"Topic {topic!r} has no partition {partition}, only {counts[topic]}"
                raise TransportError(message)
            while partition not in await self._producer.partitions_for(topic):
                await self._producer.client.force_metadata_update()
        self._known |= wanted


async def _abandon(producer: Any) -> None:  # noqa: ANN401
    # stop() waits until everything is delivered, perhaps for ever. So the task that delivers ends
    # first, what hangs in it with the connections, and stop() finds nothing left to wait for.
    sender = producer._sender.sender_task  # noqa: SLF001
    if sender is not None:
        sender.cancel()
        await completes(producer.client.close())
        for _ in range(2):  # while it ends it may hang once more
            await asyncio.wait({sender}, timeout=SENDER_S)
            sender.cancel()
    buffers = producer._message_accumulator  # noqa: SLF001
    buffers._batches.clear()  # noqa: SLF001
    buffers._pending_batches.clear()  # noqa: SLF001
    await completes(producer.stop())
