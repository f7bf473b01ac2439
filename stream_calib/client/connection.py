"""A consumer of the output topic, its failures in one sentence each."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from stream_calib.errors import MissingTopicError, TransportError

POLL_MS = 500
STEP_MS = 50
CONNECT_S = 10.0
CLOSE_S = 2.0
FETCH_BYTES = 8_000_000

# The library logs every retry; what the caller must know is raised. Whoever wants to see more
# sets the level of this logger.
if (_client_log := logging.getLogger("aiokafka")).level == logging.NOTSET:
    _client_log.setLevel(logging.CRITICAL)

Ends = Mapping[TopicPartition, int]


class Log:
    """The committed records of a topic, read forward.

    While the broker is away there are none; it goes on where it was once the broker is back.

    Parameters
    ----------
    address
        Of the broker.
    topic
        Its name.
    reset
        Where to begin unless ``seek`` says otherwise: ``latest`` or ``earliest``.
    options
        For the client library.
    """

    def __init__(self, address: str, topic: str, reset: str, options: Mapping[str, Any]) -> None:
        self.address, self.topic = address, topic
        self.options = {
            **options,
            "bootstrap_servers": address,
            "isolation_level": "read_committed",
            "enable_auto_commit": False,
            "auto_offset_reset": reset,
        }
        self.partitions: list[TopicPartition] = []
        self._consumer = AIOKafkaConsumer(
            **{"max_partition_fetch_bytes": FETCH_BYTES, **self.options}
        )

    async def start(self) -> None:
        """Connect, and take a place in every partition.

        Raises
        ------
        TransportError, MissingTopicError
            The broker or the topic cannot be reached.
        """
        consumer = self._consumer
        with _sentences(self.address, CONNECT_S):
            async with asyncio.timeout(CONNECT_S):
                await consumer.start()
                # all topics: asked for one by name, a broker with default settings creates it
                cluster = await consumer._client.fetch_all_metadata()  # noqa: SLF001
                numbers = cluster.partitions_for_topic(self.topic)
                if not numbers:
                    secured = self.options.get("security_protocol", "PLAINTEXT") != "PLAINTEXT"
                    unseen = ", or this user may not see it" if secured else ""
                    message = f"Topic {self.topic!r} does not exist at {self.address}{unseen}"
                    raise MissingTopicError(message)
                self.partitions = [TopicPartition(self.topic, n) for n in sorted(numbers)]
                consumer.assign(self.partitions)
                for partition in self.partitions:
                    await consumer.position(partition)  # "latest" is now, not at the first read

    def seek(self, places: Ends) -> None:
        """Go on from these offsets."""
        for partition, offset in places.items():
            self._consumer.seek(partition, offset)

    async def poll(self, timeout_ms: int = POLL_MS) -> list[Any]:
        """Return the next records, in the order of each partition; wait for the first."""
        try:
            batches = await self._consumer.getmany(timeout_ms=timeout_ms)
        except KafkaError as error:
            where = f"Kafka at {self.address} failed while reading {self.topic!r}"
            raise TransportError(f"{where}: {error}") from error
        return [record for records in batches.values() for record in records]

    async def ends(self, seconds: float = CONNECT_S) -> Ends:
        """Return where each partition ends by now.

        Raises
        ------
        TransportError
            The broker does not say within so many seconds.
        """
        with _sentences(self.address, seconds):
            async with asyncio.timeout(seconds):
                return await self._consumer.end_offsets(self.partitions)  # type: ignore[no-any-return]

    async def is_behind(self, ends: Ends) -> bool:
        """Tell whether there are records before these ends that were not read."""
        for partition, end in ends.items():
            if await self._consumer.position(partition) < end:
                return True
        return False

    async def stop(self) -> None:
        """Let go; nothing is owed to the broker."""
        await settle(self._consumer.stop())


def before(ends: Ends | None, records: Iterable[Any]) -> Iterable[Any]:
    """Keep the records before these ends."""
    if ends is None:
        return records
    at = {partition: end for (_, partition), end in ends.items()}
    return [record for record in records if record.offset < at[record.partition]]


async def kept_records(
    address: str, topic: str, options: Mapping[str, Any]
) -> AsyncGenerator[Any, None]:
    """Yield the committed records that a topic holds by now.

    Raises
    ------
    TransportError, MissingTopicError
        The broker or the topic cannot be reached.
    """
    log = Log(address, topic, "earliest", options)
    try:
        await log.start()
        ends = await log.ends()
        while await log.is_behind(ends):
            for record in before(ends, await log.poll(STEP_MS)):
                yield record
    finally:
        await log.stop()


@contextlib.contextmanager
def _sentences(address: str, seconds: float) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        message = f"Kafka at {address} did not answer within {seconds:g} s"
        raise TransportError(message) from error
    except TopicAuthorizationFailedError as error:
        message = f"Kafka at {address} does not let this user read the topic"
        raise TransportError(message) from error
    except (KafkaError, OSError) as error:
        message = f"Kafka at {address} cannot be reached or refuses the connection"
        raise TransportError(message) from error


async def settle(work: Coroutine[Any, Any, object]) -> None:
    """Let work come to an end within a few seconds, whatever comes of it.

    As a task of its own: what the library raises, and a cancellation of its own making, must
    not hide why it is stopped.
    """
    task = asyncio.ensure_future(work)
    await asyncio.wait({task}, timeout=CLOSE_S)
    task.cancel()
    await asyncio.wait({task}, timeout=CLOSE_S)
    if task.done() and not task.cancelled():
        task.exception()  # seen, so that nobody complains about it
