"""The subscriber's library: matrices off the output topic, and what is wrong with them."""

import asyncio
import logging
import zlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from stream_calib.errors import InputError, MissingTopicError, TransportError
from stream_calib.values import Matrix
from stream_calib.wire.matrices import join

POLL_MS = 500
CONNECT_S = 10.0
CLOSE_S = 2.0
FIND_S = 60.0
FETCH_BYTES = 8_000_000
# looks at the log while searching it; a larger record comes all the same
PROBE = {"max_partition_fetch_bytes": 65_536, "fetch_max_wait_ms": 50}
PROBE_RECORDS = 200

# The library logs every retry; what the caller must know is raised. Whoever wants to see more
# sets the level of this logger.
if (_client_log := logging.getLogger("aiokafka")).level == logging.NOTSET:
    _client_log.setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with the matrices of one universe and estimator, as the log holds them.

    ``gap``: those from ``expected`` to before ``sequence`` are missing. ``duplicate``:
    ``sequence`` came once more, where ``expected`` was due. ``torn``: of ``sequence`` a part is
    missing or damaged. ``offset`` is of the first record concerned.
    """

    kind: Literal["gap", "duplicate", "torn"]
    universe: str
    estimator: str
    expected: int
    sequence: int
    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        match self.kind:
            case "gap" if self.expected + 1 == self.sequence:
                what = f"matrix {self.expected} is missing"
            case "gap":
                what = f"matrices {self.expected} to {self.sequence - 1} are missing"
            case "duplicate":
                what = f"matrix {self.sequence} came once more"
            case "torn":
                what = f"matrix {self.sequence} has lost a part, or is damaged"
        return (
            f"{self.universe}|{self.estimator}: {what} (topic {self.topic!r} "
            f"partition {self.partition} offset {self.offset})"
        )


def _warn(problem: Problem) -> None:
    logging.getLogger(__name__).warning("%s", problem)


async def subscribe(
    bootstrap_servers: str = "127.0.0.1:9092",
    *,
    topic: str = "calib.correlations",
    universe: str | None = None,
    estimator: str | None = None,
    start: Literal["latest", "earliest"] | int = "latest",
    on_problem: Callable[[Problem], None] | None = None,
    **kafka: object,
) -> AsyncGenerator[Matrix, None]:
    """Yield matrices as they are published, for ever; each once, in the order of its sequence.

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
        ``latest``: from now on; ``earliest``: from the first matrix still kept; a number: from
        the first matrix with this sequence or a later one, for which ``universe`` has to be
        given, and ``estimator`` where it has several. ``matrix.sequence + 1`` of the last one
        seen goes on after it.
    on_problem
        Called when matrices are missing, repeated or torn, before the next one is yielded;
        by default the problem is logged as a warning. Compaction leaves holes in what is older
        than a day, which are told too.
    **kafka
        More options of the client library, such as TLS and SASL.

    Yields
    ------
    Matrix
        In the order of its partition; chunks put together. A matrix of which the log has lost
        a part is passed over, and so is one that comes once more.

    Raises
    ------
    TransportError, MissingTopicError
        The broker or the topic cannot be reached.
    InputError
        A record is not a matrix, or ``start`` is a number and it is not clear of what.

    Examples
    --------
    >>> import stream_calib as sc
    >>> async def watch() -> None:
    ...     async for matrix in sc.subscribe("127.0.0.1:9092"):
    ...         print(matrix.symbols, matrix.corr)
    """
    first = max(start, 1) if isinstance(start, int) else None  # the first matrix ever is 1
    if first is not None and universe is None:
        message = f"universe has to be given to start from sequence {start}"
        raise InputError(message)
    common: dict[str, Any] = {
        "bootstrap_servers": bootstrap_servers,
        "isolation_level": "read_committed",
        "enable_auto_commit": False,
        # a seek would race with the library's own first look-up
        "auto_offset_reset": start if first is None else "earliest",
    }
    consumer = AIOKafkaConsumer(**{"max_partition_fetch_bytes": FETCH_BYTES, **kafka, **common})
    assembly = _Assembly(universe, estimator, first, on_problem or _warn)
    try:
        partitions = await _start(consumer, bootstrap_servers, topic)
        if first is not None:
            probe = {**kafka, **common, **PROBE}
            for partition, offset in (await _find(probe, partitions, assembly)).items():
                consumer.seek(partition, offset)
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


@dataclass(frozen=True, slots=True)
class _Chunk:
    # One record, or a part of one: the ``number``-th of ``count``, counted from 1.
    universe: str
    estimator: str
    sequence: int
    number: int
    count: int
    offset: int
    value: bytes
    headers: Mapping[str, bytes]

    def is_intact(self) -> bool:
        return self.headers.get("crc32") == f"{zlib.crc32(self.value):08x}".encode()

    def continues(self, before: "_Chunk") -> bool:
        own = {"chunk", "crc32"}
        mine, others = (
            {k: v for k, v in c.headers.items() if k not in own} for c in (self, before)
        )
        return (self.number, self.count, mine) == (before.number + 1, before.count, others)


class _Fault(NamedTuple):
    kind: Literal["gap", "duplicate", "torn"]
    expected: int
    sequence: int
    offset: int


class _Continuity:
    # Follows the sequence of one universe and estimator in one partition.
    #
    # A writer that starts again after a crash may send matrices again from some point on; what
    # was torn can so become whole, and is then taken as long as it is newer than what was
    # yielded. Compaction keeps the newest record of each key, so that of an old matrix the last
    # chunks may be left: before the first matrix that is no problem.
    def __init__(self, first: int | None = None) -> None:
        self._first = first
        self._yielded = None if first is None else first - 1
        self._told = self._yielded  # up to here all was yielded or told to be lost
        self._open: list[_Chunk] = []
        self._repeated = (-1, 0)

    def add(self, chunk: _Chunk) -> tuple[list[_Fault], Sequence[_Chunk]]:
        # Returns what is wrong up to this record, and the matrix that it completes.
        sequence = chunk.sequence
        if self._first is not None and sequence < self._first:
            return [], ()
        if self._yielded is not None and sequence <= self._yielded:
            return self._again(chunk), ()
        faults: list[_Fault] = []
        if self._open and sequence > self._open[0].sequence:
            faults += self._torn(self._open[0])
        if chunk.number == 1:
            self._open = []  # from the start, also when it was there in part
        elif not self._open or sequence < self._open[0].sequence:
            is_rest = self._told is None  # of a matrix that began before the first one read
            return faults + ([] if is_rest else self._lost("torn", chunk)), ()
        elif self._open[-1].headers == chunk.headers:
            return faults, ()  # the same chunk twice
        elif not chunk.continues(self._open[-1]):
            return faults + self._torn(self._open[0]), ()
        self._open.append(chunk)
        if not chunk.is_intact():
            return faults + self._torn(self._open[0]), ()
        if chunk.number < chunk.count:
            return faults, ()
        whole, self._open = self._open, []
        faults += self._lost("gap", whole[0])
        self._yielded, self._repeated = sequence, (-1, 0)
        return faults, whole

    def _again(self, chunk: _Chunk) -> list[_Fault]:
        before, self._repeated = self._repeated, (chunk.sequence, chunk.number)
        if before[0] == chunk.sequence and before[1] < chunk.number:
            return []  # the rest of it
        assert self._yielded is not None
        return [_Fault("duplicate", self._yielded + 1, chunk.sequence, chunk.offset)]

    def _torn(self, chunk: _Chunk) -> list[_Fault]:
        self._open = []
        return self._lost("torn", chunk)

    def _lost(self, kind: Literal["gap", "torn"], chunk: _Chunk) -> list[_Fault]:
        # What is missing before this matrix, and this one when it is torn; each is told once.
        told, sequence = self._told, chunk.sequence
        if told is not None and sequence <= told:
            return []
        self._told = sequence
        faults = []
        if told is None:
            self._first = sequence
        elif sequence > told + 1:
            faults.append(_Fault("gap", told + 1, sequence, chunk.offset))
        if kind == "torn":
            faults.append(_Fault("torn", sequence, sequence, chunk.offset))
        return faults


class _Assembly:
    # Puts matrices together from the records of all partitions, in the order of each.
    def __init__(
        self,
        universe: str | None = None,
        estimator: str | None = None,
        first: int | None = None,
        on_problem: Callable[[Problem], None] = _warn,
    ) -> None:
        self.universe, self.estimator, self.first = universe, estimator, first
        self._on_problem = on_problem
        self._names: set[str] = set()
        self._places: dict[tuple[int, str, str], _Continuity] = {}

    def add(self, record: Any) -> Matrix | None:  # noqa: ANN401
        """Return the matrix that this record completes."""
        chunk = self.read(record)
        if chunk is None:
            return None
        place = record.partition, chunk.universe, chunk.estimator
        if place not in self._places:
            self._places[place] = _Continuity(self.first)
        faults, whole = self._places[place].add(chunk)
        for fault in faults:
            name = fault.kind, chunk.universe, chunk.estimator
            where = record.topic, record.partition, fault.offset
            self._on_problem(Problem(*name, fault.expected, fault.sequence, *where))
        return join([(part.value, part.headers) for part in whole]) if whole else None

    def read(self, record: Any) -> _Chunk | None:  # noqa: ANN401
        """Return what the record says, None when it was not asked for."""
        if record.value is None:
            return None  # a deleted key
        headers = dict(record.headers)
        universe, estimator = [*(record.key or b"").decode(errors="replace").split("|"), ""][:2]
        number, _, count = headers.get("chunk", b"").partition(b"/")
        numbers = (headers.get("sequence", b""), number, count)
        if not (universe and estimator and all(map(bytes.isdigit, numbers))):
            message = (
                f"record {record.offset} of topic {record.topic!r} partition {record.partition} "
                "is not a correlation matrix"
            )
            raise InputError(message)
        if universe != (self.universe or universe) or estimator != (self.estimator or estimator):
            return None
        if self.first is not None and not self.estimator:
            self._names.add(estimator)
            if len(self._names) > 1:
                both = " and ".join(sorted(self._names))
                message = f"universe {universe!r} has the estimators {both}: name the one to follow"
                raise InputError(message)
        sequence, i, n = map(int, numbers)
        return _Chunk(universe, estimator, sequence, i, n, record.offset, record.value, headers)


async def _start(consumer: AIOKafkaConsumer, address: str, topic: str) -> list[TopicPartition]:
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
            return partitions
    except TimeoutError as error:
        message = f"Kafka at {address} did not answer within {CONNECT_S:g} s"
        raise TransportError(message) from error
    except (KafkaError, OSError) as error:
        message = f"Kafka at {address} cannot be reached or refuses the connection"
        raise TransportError(message) from error


async def _find(
    options: Mapping[str, Any], partitions: Sequence[TopicPartition], assembly: _Assembly
) -> dict[TopicPartition, int]:
    # Where each partition reaches the sequence to start from. A universe has a partition to
    # itself; where the first and last records are of others, it is not in there.
    address = options["bootstrap_servers"]
    consumer = AIOKafkaConsumer(**options)
    try:
        async with asyncio.timeout(FIND_S):
            await consumer.start()
            return {
                partition: await _bisect(consumer, partition, assembly) for partition in partitions
            }
    except TimeoutError as error:
        message = f"Kafka at {address} did not show sequence {assembly.first} within {FIND_S:g} s"
        raise TransportError(message) from error
    except (KafkaError, OSError) as error:
        message = f"Kafka at {address} failed while looking for {assembly.first}: {error}"
        raise TransportError(message) from error
    finally:
        await _settle(consumer.stop())


async def _bisect(consumer: AIOKafkaConsumer, partition: TopicPartition, wanted: _Assembly) -> int:
    # Holes of compaction and a writer that repeats itself do no harm: what is found too early
    # is passed over while reading on, and a writer repeats up to where it was and beyond.
    async def probe(start: int, stop: int) -> _Chunk | None:
        consumer.seek(partition, start)
        n = 0
        while n < PROBE_RECORDS and await consumer.position(partition) < stop:
            fetched = await consumer.getmany(partition, timeout_ms=POLL_MS)
            for record in fetched.get(partition, ()):
                n += 1
                chunk = wanted.read(record) if record.offset < stop else None
                if chunk is not None:
                    return chunk
        return None

    assert wanted.first is not None
    consumer.assign([partition])
    await consumer.position(partition)
    low: int = (await consumer.beginning_offsets([partition]))[partition]
    high: int = (await consumer.end_offsets([partition]))[partition]
    if await probe(low, high) is None and await probe(max(low, high - PROBE_RECORDS), high) is None:
        return high
    while low < high:
        middle = (low + high) // 2
        chunk = await probe(middle, high)
        if chunk is not None and chunk.sequence < wanted.first:
            low = chunk.offset + 1
        else:
            high = middle
    return low


async def _settle(work: Coroutine[Any, Any, object]) -> None:
    # As a task of its own: what the library raises, and a cancellation of its own making,
    # must not hide why it is stopped.
    task = asyncio.ensure_future(work)
    await asyncio.wait({task}, timeout=CLOSE_S)
    task.cancel()
    await asyncio.wait({task}, timeout=CLOSE_S)
    if task.done() and not task.cancelled():
        task.exception()  # seen, so that nobody complains about it
