"""The output log: records written by an idempotent producer."""

import asyncio
from collections.abc import Sequence
from typing import Any

from stream_calib.adapters.kafka.connection import within
from stream_calib.adapters.kafka.producing import abandon, learn, send, start_producer
from stream_calib.adapters.kafka.topics import check_topics
from stream_calib.config import KafkaConfig
from stream_calib.errors import TransportError
from stream_calib.values import Output

PUBLISH_S = 30.0  # outlives the restart of a broker


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
        self._producer = await start_producer(self._config)

    async def publish(self, outputs: Sequence[Output]) -> None:
        """Write the records in order; return when all of them are acknowledged."""
        if self._producer is None:
            await self.start()
        acks: list[Any] = []
        try:
            async with within(PUBLISH_S, self._config, "writing"):
                await self._learn({(output.topic, output.partition) for output in outputs})
                for output in outputs:
                    acks.append(await send(self._producer, output))  # noqa: PERF401
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
            await abandon(producer)

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
        await learn(self._producer, unknown)
        self._known |= wanted
