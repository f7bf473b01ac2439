"""Producers: how one starts, how it learns where it may write, and how it is thrown away."""

import asyncio
from collections.abc import Iterable
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    BrokerResponseError,
    InvalidProducerEpoch,
    ProducerFenced,
    kafka_errors,
)
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from stream_calib.adapters.kafka.connection import (
    completes,
    connect_s,
    reachable,
    within,
)
from stream_calib.config import KafkaConfig
from stream_calib.values import Output

BATCH_BYTES = 512 * 1024  # a broker takes 1 MiB at once unless told otherwise
RECORD_BYTES = 2 * 1024 * 1024
SENDER_S = 0.5


class _FencedError(BrokerResponseError):  # type: ignore[misc]  # the library has no types
    # The library does not know this code and would take it for an unknown error.
    errno = 90
    message = "PRODUCER_FENCED"
    description = "There is a newer producer with the same transactional id."


kafka_errors.setdefault(_FencedError.errno, _FencedError)
FENCED = (ProducerFenced, InvalidProducerEpoch, _FencedError)


async def start_producer(config: KafkaConfig, **options: object) -> Any:  # noqa: ANN401
    """Connect a producer whose records are acknowledged by all in-sync replicas.

    Parameters
    ----------
    config
        How to reach the broker.
    options
        Further arguments of the library's producer.

    Raises
    ------
    TransportError
        The broker cannot be reached in time.
    """
    settings = {"max_batch_size": BATCH_BYTES, "max_request_size": RECORD_BYTES} | options
    async with within(connect_s(config), config, "connecting"):
        near = await reachable(config)
        # No linger: all that is written at once is in the buffers before the sender gets to run.
        producer = AIOKafkaProducer(**near, enable_idempotence=True, acks="all", **settings)
        try:
            await producer.start()
        except BaseException:
            await abandon(producer)
            raise
    return producer


async def learn(producer: Any, wanted: Iterable[tuple[str, int]]) -> None:  # noqa: ANN401
    """Wait until the producer knows these partitions, which exist."""
    for topic, partition in wanted:
        while partition not in await producer.partitions_for(topic):
            await producer.client.force_metadata_update()


async def send(producer: Any, output: Output) -> Any:  # noqa: ANN401
    """Hand one record to the producer; return the future of its acknowledgement."""
    o = output
    return await producer.send(o.topic, o.value, o.key, o.partition, headers=list(o.headers))


def record_bytes(output: Output) -> int:
    """Return the most that a record can take in a log, alone in its batch."""
    estimate: int = DefaultRecordBatchBuilder.estimate_size_in_bytes(
        output.key, output.value, list(output.headers)
    )
    return estimate


def is_fenced(error: BaseException | None, producer: Any) -> bool:  # noqa: ANN401
    """Tell whether ``error``, or the end of the producer's sender, is due to a newer producer."""
    sender = producer._sender.sender_task  # noqa: SLF001
    ended = sender is not None and sender.done() and not sender.cancelled()
    # What the sender died of reaches those who wait as a copy without its cause.
    waiting = [error, sender.exception() if ended else None]
    while waiting:
        found = waiting.pop()
        if isinstance(found, FENCED):
            return True
        if found is not None:
            waiting.append(found.__cause__)
    return False


async def abandon(producer: Any) -> None:  # noqa: ANN401
    """Throw a producer away within a few seconds; nothing is written behind our back later."""
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
    waiters = [batch._drain_waiter for part in buffers._batches.values() for batch in part]  # noqa: SLF001
    buffers._batches.clear()  # noqa: SLF001
    buffers._pending_batches.clear()  # noqa: SLF001
    await completes(producer.stop())
    for waiter in (*waiters, producer._txn_manager.wait_for_transaction_end()):  # noqa: SLF001
        if waiter is not None and waiter.done() and not waiter.cancelled():
            waiter.exception()  # seen, so that nobody complains about it
