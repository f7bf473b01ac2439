"""The subscriber's library: matrices off the output topic."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Literal

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from stream_calib.errors import MissingTopicError, TransportError
from stream_calib.values import Matrix
from stream_calib.wire.matrices import join

POLL_MS = 500
CONNECT_S = 10.0
CLOSE_S = 3.0
FETCH_BYTES = 8_000_000


async def subscribe(
    bootstrap_servers: str = "127.0.0.1:9092",
    *,
    topic: str = "calib.correlations",
    universe: str | None = None,
    estimator: str | None = None,
    start: Literal["latest", "earliest"] = "latest",
    **kafka: object,
) -> AsyncGenerator[Matrix, None]:
    """Yield matrices as they are published, for ever.

    Parameters
    ----------
    bootstrap_servers
        Kafka address.
    topic
        The correlations topic.
    universe, estimator
        Only these; None is all.
    start
        ``latest``: from now on; ``earliest``: from the first matrix still kept.
    **kafka
        More options of the client library, such as TLS and SASL.

    Yields
    ------
    Matrix
        In the order of its partition; chunks put together.

    Raises
    ------
    TransportError, MissingTopicError
        The broker or the topic cannot be reached.
    InputError
        A record is not a matrix, or its chunks are torn.

    Examples
    --------
    >>> import stream_calib as sc
    >>> async def watch() -> None:
    ...     async for matrix in sc.subscribe("127.0.0.1:9092"):
    ...         print(matrix.symbols, matrix.corr)
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset=start,  # a seek would race with the library's own first look-up
        max_partition_fetch_bytes=FETCH_BYTES,
        **kafka,
    )
    try:
        await _start(consumer, bootstrap_servers, topic)
        chunks: dict[tuple[int, str], list[Any]] = {}
        while True:
            batches = await consumer.getmany(timeout_ms=POLL_MS)
            for partition, records in batches.items():
                for record in records:
                    headers = dict(record.headers)
                    name, of = (record.key or b"").decode().split("|")[:2]
                    if universe not in {None, name} or estimator not in {None, of}:
                        continue
                    place = (partition.partition, f"{name}|{of}")
                    at, _, last = headers.get("chunk", b"1/1").partition(b"/")
                    if at == b"1":
                        chunks[place] = []
                    elif place not in chunks:
                        continue  # started in the middle of a matrix
                    chunks[place].append((record.value, headers))
                    if at == last:
                        yield join(chunks.pop(place))
    finally:
        try:
            async with asyncio.timeout(CLOSE_S):
                await consumer.stop()
        except (TimeoutError, KafkaError):
            pass  # nothing is owed to the broker


async def _start(consumer: AIOKafkaConsumer, address: str, topic: str) -> None:
    try:
        async with asyncio.timeout(CONNECT_S):
            await consumer.start()
            numbers = consumer.partitions_for_topic(topic)
            if numbers is None:
                message = f"topic {topic} does not exist at {address}"
                raise MissingTopicError(message)
            partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
            consumer.assign(partitions)
            for partition in partitions:
                await consumer.position(partition)  # "latest" is now, not at the first read
    except (TimeoutError, KafkaError, OSError) as error:
        reason = f"no answer within {CONNECT_S:g} s" if isinstance(error, TimeoutError) else error
        message = f"cannot reach Kafka at {address}: {reason}"
        raise TransportError(message) from None
