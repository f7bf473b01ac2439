"""A subscriber on a real broker: what is missing, repeated or torn, and where it goes on."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

import stream_calib as sc
from stream_calib.client import connection, finding
from stream_calib.errors import InputError
from stream_calib.values import Matrix, Output
from stream_calib.wire.matrices import encode
from tests.cli.command import run_process
from tests.real_parts import TopicMaker
from tests.web.observations import matrix

DEADLINE_S = 120.0


def wide(sequence: int, n: int = 300) -> Matrix:
    """Return a packed matrix; of 300 symbols it is one record, of 600 three."""
    return dataclasses.replace(
        matrix(sequence=sequence),
        symbols=tuple(f"S{i}" for i in range(n)),
        corr=np.eye(n),
        n_eff=np.full((n, n), 50.0),
        band=np.zeros((n, n)),
        vol=np.full(n, float(sequence)),
        staleness_ns=np.zeros(n, np.int64),
    )


class Log:
    """A topic of matrices: writes anything to it, and subscribes."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.bootstrap, self.topic = bootstrap, topic
        self.problems: list[tuple[str, int, int]] = []

    async def write(self, *matrices: Matrix, partition: int = 0) -> None:
        await self.send([o for m in matrices for o in encode(m, self.topic, partition)])

    async def send(self, outputs: Iterable[Output]) -> None:
        async with self.producer() as producer:
            for sent in [await send(producer, output) for output in outputs]:
                await sent

    @contextlib.asynccontextmanager
    async def producer(self, **options: Any) -> AsyncIterator[AIOKafkaProducer]:
        options = {"bootstrap_servers": self.bootstrap, "max_request_size": 2_000_000} | options
        producer = AIOKafkaProducer(**options)
        await producer.start()
        try:
            yield producer
        finally:
            await producer.stop()

    async def read(self, n: int, **options: Any) -> list[Matrix]:
        """Subscribe until ``n`` matrices have come; problems are noted."""

        def note(problem: sc.Problem) -> None:
            assert (problem.topic, problem.estimator) == (self.topic, "ewma")
            self.problems.append((problem.kind, problem.expected, problem.sequence))

        options = {"start": "earliest", "on_problem": note, **options}
        matrices = sc.subscribe(self.bootstrap, topic=self.topic, **options)
        found: list[Matrix] = []
        async with contextlib.aclosing(matrices), asyncio.timeout(DEADLINE_S):
            while len(found) < n:
                found.append(await anext(matrices))
        return found

    async def sequences(self, n: int, **options: Any) -> list[int]:
        return [m.sequence for m in await self.read(n, **options)]


async def send(producer: AIOKafkaProducer, output: Output) -> "asyncio.Future[Any]":
    future: asyncio.Future[Any] = await producer.send(
        output.topic,
        output.value,
        output.key,
        partition=output.partition,
        headers=list(output.headers),
    )
    return future


@pytest.fixture
async def log(kafka_bootstrap: str, new_topic: TopicMaker) -> Log:
    return Log(kafka_bootstrap, await new_topic("matrices"))


@pytest.mark.parametrize("lost", [0, 1, 2])
async def test_packed_matrix_without_one_of_its_chunks_is_told_as_torn(log: Log, lost: int) -> None:
    assert len(encode(wide(2, 600), log.topic, 0)) == 3
    torn = [chunk for i, chunk in enumerate(encode(wide(2, 600), log.topic, 0)) if i != lost]
    await log.write(wide(1, 600))
    await log.send(torn)
    await log.write(wide(3, 600), wide(4))
    matrices = await log.read(3)
    assert [m.sequence for m in matrices] == [1, 3, 4]
    assert [m.vol[0] for m in matrices] == [1.0, 3.0, 4.0]
    assert log.problems == [("torn", 2, 2)]


async def test_what_is_sent_again_is_told_and_not_yielded_again(log: Log) -> None:
    every = [wide(sequence, 600) for sequence in (1, 2, 3)]
    await log.write(*every[:2])
    await log.write(*every, wide(4))
    assert await log.sequences(4) == [1, 2, 3, 4]
    assert log.problems == [("duplicate", 3, 1), ("duplicate", 3, 2)]


async def test_gap_is_logged_where_nobody_asks_to_be_told(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    await log.write(matrix(sequence=1), matrix(sequence=4))
    assert await log.sequences(2, on_problem=None) == [1, 4]
    assert [record for record in caplog.record_tuples if record[0] == "stream_calib.client"] == [
        (
            "stream_calib.client",
            30,
            f"fx|ewma: matrices 2 to 3 are missing (topic {log.topic!r} partition 0 offset 1)",
        )
    ]


class Counting(AIOKafkaConsumer):  # type: ignore[misc]
    """A client that counts what passes through it."""

    records: list[int]

    async def getmany(self, *partitions: TopicPartition, **options: Any) -> Any:
        fetched = await super().getmany(*partitions, **options)
        self.records += [r.offset for batch in fetched.values() for r in batch]
        return fetched


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Offsets of all records that subscribers read."""
    monkeypatch.setattr(Counting, "records", [], raising=False)
    for module in (connection, finding):
        monkeypatch.setattr(module, "AIOKafkaConsumer", Counting)
    return Counting.records


@pytest.mark.parametrize("start", [1, 2, 777, 1000, 1999, 2000])
async def test_reading_goes_on_from_any_sequence(log: Log, reads: list[int], start: int) -> None:
    await log.write(*(matrix(sequence=sequence) for sequence in range(1, 2001)))
    wanted = [*range(start, min(start + 3, 2001))]
    assert await log.sequences(len(wanted), universe="fx", start=start) == wanted
    assert log.problems == []
    # a search of 11 steps, each one fetch of 64 kB or one batch of the writer; what lies after
    # the start is read anyway
    before = [offset for offset in reads if offset < start - 1]
    assert len(before) < 500, len(before)


async def test_start_is_found_between_chunks_holes_and_other_universes(
    kafka_bootstrap: str, new_topic: TopicMaker
) -> None:
    log = Log(kafka_bootstrap, await new_topic("matrices", partitions=3))
    for partition, universe in enumerate(("metals", "fx", "rates")):
        for sequence in range(1, 21):
            rename = dataclasses.replace(wide(sequence, 600), universe=universe)
            await log.write(rename, partition=partition)
    await log.write(matrix("oil", 1), partition=1)
    await log.write(*(wide(sequence) for sequence in range(31, 41)), partition=1)
    assert await log.sequences(12, universe="fx", start=19) == [19, 20, *range(31, 41)]
    assert log.problems == [("gap", 21, 31)]
    log.problems.clear()
    assert await log.sequences(10, universe="fx", start=25) == [*range(31, 41)]
    assert log.problems == [("gap", 25, 31)]


async def test_start_before_the_history_is_a_gap(log: Log) -> None:
    await log.write(*(matrix(sequence=sequence) for sequence in range(1, 11)))
    admin = AIOKafkaAdminClient(bootstrap_servers=log.bootstrap)
    await admin.start()
    await admin.delete_records({TopicPartition(log.topic, 0): RecordsToDelete(before_offset=6)})
    await admin.close()
    assert await log.sequences(4, universe="fx", start=3) == [7, 8, 9, 10]
    assert log.problems == [("gap", 3, 7)]


@pytest.mark.parametrize("written", [0, 5])
async def test_start_after_the_newest_matrix_is_awaited(log: Log, written: int) -> None:
    await log.write(*(matrix(sequence=sequence) for sequence in range(1, written + 1)))
    waiting = asyncio.ensure_future(log.sequences(2, universe="fx", start=8))
    await asyncio.sleep(1.0)
    assert not waiting.done()
    await log.write(*(matrix(sequence=sequence) for sequence in range(written + 1, 10)))
    assert await waiting == [8, 9]
    assert log.problems == []


async def test_start_is_found_where_a_writer_repeated_itself(log: Log) -> None:
    numbers = [*range(1, 31), *range(21, 41), *range(39, 61)]
    await log.write(*(matrix(sequence=sequence) for sequence in numbers))
    for start in (15, 25, 35, 39, 40, 41):
        log.problems.clear()
        wanted = list(range(start, 61))
        assert await log.sequences(len(wanted), universe="fx", start=start) == wanted
        assert {kind for kind, *_ in log.problems} <= {"duplicate"}


async def test_start_by_number_has_to_be_clear(log: Log) -> None:
    await log.write(matrix(sequence=1), matrix("fx", 1, "dcc"), matrix(sequence=2))
    with pytest.raises(InputError, match=r"^universe has to be given to start from sequence 2$"):
        await log.read(1, start=2)
    with pytest.raises(InputError, match="has the estimators dcc and ewma: name the one to follow"):
        await log.read(1, start=2, universe="fx")
    assert await log.sequences(1, start=2, universe="fx", estimator="ewma") == [2]


async def test_aborted_and_open_transactions_are_not_seen(log: Log) -> None:
    async def attempt(sequences: Sequence[int], ident: str, *, abort: bool) -> None:
        async with log.producer(transactional_id=f"{log.topic}-{ident}") as producer:
            await producer.begin_transaction()
            for sequence in sequences:
                for output in encode(wide(sequence, 600), log.topic, 0):
                    await (await send(producer, output))
            await (producer.abort_transaction if abort else producer.commit_transaction)()

    await attempt([1, 2], "a", abort=False)
    await attempt([3, 4], "a", abort=True)
    await attempt([3], "b", abort=False)
    async with log.producer(transactional_id=f"{log.topic}-c") as producer:
        await producer.begin_transaction()
        for output in encode(wide(4, 600), log.topic, 0):
            await (await send(producer, output))
        assert await log.sequences(3) == [1, 2, 3]
        assert await log.sequences(1, universe="fx", start=3) == [3]
        waiting = asyncio.ensure_future(log.sequences(2, universe="fx", start=3))
        await asyncio.sleep(1.0)
        assert not waiting.done()
        await producer.commit_transaction()
    assert await waiting == [3, 4]
    await attempt([5, 6], "a", abort=True)
    await attempt([5], "a", abort=False)
    assert await log.sequences(2, universe="fx", start=4) == [4, 5]
    assert log.problems == []


async def test_watch_prints_problems_on_standard_error(log: Log) -> None:
    await log.write(matrix(sequence=1), matrix(sequence=4), matrix(sequence=4), matrix(sequence=5))
    words = ["watch", "--bootstrap", log.bootstrap, "--topic", log.topic]
    done = await asyncio.to_thread(run_process, *words, "--from-start", "--count", 3)
    assert done.code == 0
    assert [line.split()[2] for line in done.out.splitlines()] == ["#1", "#4", "#5"]
    where = f"(topic {log.topic!r} partition 0 offset"
    assert done.err.splitlines() == [
        f"stream-calib: fx|ewma: matrices 2 to 3 are missing {where} 1)",
        f"stream-calib: fx|ewma: matrix 4 came once more {where} 2)",
    ]
