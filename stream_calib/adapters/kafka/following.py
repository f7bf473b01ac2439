"""A journal read on as its owner writes it."""

from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from stream_calib.adapters.kafka.connection import connect_s, within
from stream_calib.adapters.kafka.reading import AT_ONCE, start_consumer, stop_consumer
from stream_calib.config import KafkaConfig
from stream_calib.errors import LostInputError
from stream_calib.ports import JournalRecord
from stream_calib.values import Source


class JournalFollower:
    """Reads committed entries of one journal, from the oldest that is kept on.

    Parameters
    ----------
    config
        How to reach the broker.
    source
        Topic and partition of the journal, which exist.
    """

    def __init__(self, config: KafkaConfig, source: Source) -> None:
        self._config = config
        self._partition = TopicPartition(*source)
        self._consumer: Any = None

    async def read(self, wait_s: float) -> list[JournalRecord]:
        """Return what is there by now, or comes within ``wait_s``; perhaps less than all.

        Raises
        ------
        LostInputError
            The next entries were deleted before they were read.
        TransportError
            The broker does not answer.
        """
        if self._consumer is None:
            await self._start()
        consumer, partition = self._consumer, self._partition
        async with within(
            wait_s + connect_s(self._config), self._config, f"reading {partition.topic}"
        ):
            try:
                fetched = await consumer.getmany(
                    partition, timeout_ms=int(wait_s * 1000), max_records=AT_ONCE
                )
            except OffsetOutOfRangeError:
                message = (
                    f"The next entries of {partition.topic} were trimmed before they were read"
                )
                raise LostInputError(message) from None
        return [JournalRecord(record.offset, record.value) for record in fetched.get(partition, ())]

    async def close(self) -> None:
        """Let go within a few seconds."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await stop_consumer(consumer)

    async def _start(self) -> None:
        consumer, partition = await start_consumer(self._config), self._partition
        try:
            async with within(
                connect_s(self._config), self._config, "looking for the first records"
            ):
                first = (await consumer.beginning_offsets([partition]))[partition]
            consumer.assign([partition])
            consumer.seek(partition, first)
        except BaseException:
            await stop_consumer(consumer)
            raise
        self._consumer = consumer
