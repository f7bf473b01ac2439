"""The subscriber's library: matrices off the output topic."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, Literal

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from stream_calib.errors import InputError, MissingTopicError, TransportError
from stream_calib.values import Matrix
from stream_calib.wire.matrices import join

POLL_MS = 500
CONNECT_S = 10.0
CLOSE_S = 2.0
FETCH_BYTES = 8_000_000

# The library logs every retry; what the caller must know is raised. Whoever wants to see more
# sets the level of this logger.
if (_client_log := logging.getLogger("aiokafka")).level == logging.NOTSET:
    _client_log.setLevel(logging.CRITICAL)


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

    While the broker is away nothing comes; it goes on where it was once the broker is back.

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
        In the order of its partition; chunks put together. A matrix of which the log has lost
        a part is passed over.

    Raises
    ------
    TransportError, MissingTopicError
        The broker or the topic cannot be reached.
    InputError
        A record is not a matrix, or is damaged.

    Examples
    --------
    >>> import stream_calib as sc
    >>> async def watch() -> None:
    ...     async for matrix in sc.subscribe("127.0.0.1:9092"):
    ...         print(matrix.symbols, matrix.corr)
    """
    options: dict[str, Any] = {"max_partition_fetch_bytes": FETCH_BYTES, **kafka}
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset=start,  # a seek would race with the library's own first look-up
        **options,
    )
    assembly = _Assembly(universe, estimator)
    try:
        await _start(consumer, bootstrap_servers, topic)
        while True:
            try:
                batches = await consumer.getmany(timeout_ms=POLL_MS)
            except KafkaError as error:
                message = f"Kafka at {bootstrap_servers} failed while reading {topic!r}: {error}"
                raise TransportError(message) from error
            for records in batches.values():
                for record in records:
                    matrix = assembly.add(record)
                    if matrix is not None:
                        yield matrix
    finally:
        await _settle(consumer.stop())  # nothing is owed to the broker


class _Assembly:
    # Puts matrices together from their chunks. Compaction keeps the newest record of each key,
    # so that of an old matrix some chunks may be left.
    def __init__(self, universe: str | None, estimator: str | None) -> None:
        self._wanted = (universe or "").encode(), (estimator or "").encode()
        self._chunks: dict[tuple[int, bytes], list[tuple[bytes, dict[str, bytes]]]] = {}

    def add(self, record: Any) -> Matrix | None:  # noqa: ANN401
        """Return the matrix that this record completes."""
        if record.value is None:
            return None  # a deleted key
        headers = dict(record.headers)
        universe, _, rest = (record.key or b"").partition(b"|")
        estimator = rest.partition(b"|")[0]
        number, _, count = headers.get("chunk", b"").partition(b"/")
        if not (universe and estimator and number.isdigit() and count.isdigit()):
            message = (
                f"record {record.offset} of topic {record.topic!r} partition {record.partition} "
                "is not a correlation matrix"
            )
            raise InputError(message)
        for wanted, name in zip(self._wanted, (universe, estimator), strict=True):
            if wanted not in {b"", name}:
                return None
        place = record.partition, universe + b"|" + estimator
        before = self._chunks.pop(place, [])
        if int(number) == 1:
            before = []
        elif len(before) != int(number) - 1 or before[0][1].get("ce_id") != headers.get("ce_id"):
            return None
        chunks = [*before, (record.value, headers)]
        if number == count:
            return join(chunks)
        self._chunks[place] = chunks
        return None


async def _start(consumer: AIOKafkaConsumer, address: str, topic: str) -> None:
    try:
        async with asyncio.timeout(CONNECT_S):
            await consumer.start()
            # of all topics: asked for one by name, a broker with default settings would create it
            cluster = await consumer._client.fetch_all_metadata()  # noqa: SLF001
            numbers = cluster.partitions_for_topic(topic)
            if not numbers:
                message = f"Topic {topic!r} does not exist at {address}"
                raise MissingTopicError(message)
            partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
            consumer.assign(partitions)
            for partition in partitions:
                await consumer.position(partition)  # "latest" is now, not at the first read
    except TimeoutError as error:
        message = f"Kafka at {address} did not answer within {CONNECT_S:g} s"
        raise TransportError(message) from error
    except (KafkaError, OSError) as error:
        message = f"Kafka at {address} cannot be reached or refuses the connection"
        raise TransportError(message) from error


async def _settle(work: Coroutine[Any, Any, object]) -> None:
    # As a task of its own: what the library raises, and a cancellation of its own making,
    # must not hide why it is stopped.
    task = asyncio.ensure_future(work)
    await asyncio.wait({task}, timeout=CLOSE_S)
    task.cancel()
    await asyncio.wait({task}, timeout=CLOSE_S)
    if task.done() and not task.cancelled():
        task.exception()  # seen, so that nobody complains about it
