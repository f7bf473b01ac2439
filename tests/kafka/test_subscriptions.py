"""Matrices read from a real broker at a time, the newest alone, to the end, and without await."""

import asyncio
import contextlib
import dataclasses
import functools
import os
import signal
import uuid
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from aiokafka import AIOKafkaProducer

import stream_calib as sc
from deploy.kafka.broker import LocalBroker
from stream_calib.adapters.kafka import TopicSpec, ensure_topics
from stream_calib.config import KafkaConfig
from stream_calib.errors import InputError, MissingTopicError
from stream_calib.values import Matrix, PublishedFit
from stream_calib.wire.fits import encode_fit
from stream_calib.wire.matrices import encode
from tests.cli.command import run_process
from tests.client.test_fits import SYMBOLS, calibration, garched
from tests.kafka.test_kills_in_fits import world
from tests.kafka.test_subscriber import DEADLINE_S, Log, send, wide
from tests.real_parts import TopicMaker
from tests.web.observations import AS_OF_NS, matrix


@pytest.fixture
async def log(kafka_bootstrap: str, new_topic: TopicMaker) -> Log:
    return Log(kafka_bootstrap, await new_topic("matrices"))


def at(seconds: float, m: Matrix) -> Matrix:
    return dataclasses.replace(m, as_of_ns=AS_OF_NS + round(seconds * 1e9))


async def test_reading_begins_at_a_time_of_events(log: Log) -> None:
    many = [at(i, matrix(sequence=i)) for i in range(1, 501)]
    many += [at(500 + i, wide(500 + i, 600)) for i in range(1, 6)]
    await log.write(*many)
    begin = datetime.fromtimestamp(AS_OF_NS // 10**9 + 400, tz=UTC)
    assert await log.sequences(105, start=begin) == [*range(400, 506)][:105]
    later = pd.Timestamp(AS_OF_NS + 502 * 10**9 + 1, tz="UTC")
    assert await log.sequences(3, start=later) == [503, 504, 505]
    assert await log.sequences(2, start=datetime(2000, 1, 1, tzinfo=UTC)) == [1, 2]
    assert log.problems == []
    waiting = asyncio.ensure_future(log.sequences(1, start=datetime(2100, 1, 1, tzinfo=UTC)))
    await asyncio.sleep(1.0)
    assert not waiting.done()
    await log.write(at(506, matrix(sequence=506)))
    await log.write(at(3e9, matrix(sequence=507)))
    assert await waiting == [507]


async def test_each_partition_begins_at_the_time(
    kafka_bootstrap: str, new_topic: TopicMaker
) -> None:
    log = Log(kafka_bootstrap, await new_topic("matrices", partitions=2))
    for partition, (universe, step) in enumerate((("fx", 1), ("rates", 10))):
        many = [at(step * i, matrix(universe, i)) for i in range(1, 101)]
        await log.write(*many, partition=partition)
    moment = datetime.fromtimestamp(AS_OF_NS // 10**9 + 98, tz=UTC)
    found = await log.read(3 + 91, start=moment)
    assert [m.sequence for m in found if m.universe == "fx"] == [98, 99, 100]
    assert [m.sequence for m in found if m.universe == "rates"] == [*range(10, 101)]
    assert log.problems == []


async def test_an_estimator_that_publishes_rarely_is_found_between_the_others(log: Log) -> None:
    many = [at(i, matrix(sequence=i)) for i in range(1, 1401)]
    rare = [at(350 * k, matrix(sequence=k, estimator="dcc")) for k in (1, 2, 3)]
    for k, m in enumerate(rare, start=1):
        many.insert(350 * k, m)
    await log.write(*many)
    begin = datetime.fromtimestamp(AS_OF_NS // 10**9 + 400, tz=UTC)
    for start in (begin, 2):
        which = {"universe": "fx", "estimator": "dcc", "start": start}
        assert await log.sequences(2, **which) == [2, 3]
    assert log.problems == []


async def test_reader_that_does_not_follow_ends_where_the_log_did(log: Log) -> None:
    async def all_of(**options: object) -> list[int]:
        options = {"start": "earliest", "follow": False, **options}
        matrices = sc.subscribe(log.bootstrap, topic=log.topic, **options)  # type: ignore[arg-type]
        async with contextlib.aclosing(matrices), asyncio.timeout(DEADLINE_S):
            return [m.sequence async for m in matrices]

    assert await all_of() == []
    await log.write(*(wide(i, 600) for i in range(1, 4)))
    async with log.producer(transactional_id=log.topic) as producer:  # ends with its marker
        await producer.begin_transaction()
        await (await send(producer, *encode(matrix(sequence=4), log.topic, 0)))
        await producer.commit_transaction()
    assert await all_of() == [1, 2, 3, 4]
    assert await all_of(only="latest") == [4]
    assert await all_of(start="latest") == []
    assert await all_of(start=3, universe="fx") == [3, 4]
    assert await all_of(start=9, universe="fx") == []
    matrices = sc.subscribe(log.bootstrap, topic=log.topic, start="earliest", follow=False)
    first = await anext(matrices)
    await log.write(matrix(sequence=5))
    assert [first.sequence, *[m.sequence async for m in matrices]] == [1, 2, 3, 4]


async def test_slow_reader_gets_the_newest_alone_and_is_told_of_gaps(log: Log) -> None:
    problems: list[tuple[str, int, int]] = []
    matrices = sc.subscribe(
        log.bootstrap,
        topic=log.topic,
        start="earliest",
        only="latest",
        on_problem=lambda p: problems.append((p.kind, p.expected, p.sequence)),
    )
    async with contextlib.aclosing(matrices), asyncio.timeout(DEADLINE_S):
        await log.write(matrix(sequence=1))
        assert (await anext(matrices)).sequence == 1
        await log.write(*(wide(i, 600) for i in range(2, 30)))  # 75 MB: many fetches
        assert (await anext(matrices)).sequence == 29
        await log.write(matrix(sequence=30), matrix("oil", 1), matrix(sequence=34))
        await log.write(matrix("oil", 2), matrix(sequence=34), matrix(sequence=35))
        found = [await anext(matrices), await anext(matrices)]
        assert [(m.universe, m.sequence) for m in found] == [("fx", 35), ("oil", 2)]
        assert problems == [("gap", 31, 34), ("duplicate", 35, 34)]
        waiting = asyncio.ensure_future(anext(matrices))
        await asyncio.sleep(1.0)
        assert not waiting.done()
        await log.write(matrix(sequence=36))
        assert (await waiting).sequence == 36


async def test_notebook_reads_without_await_beside_its_own_loop(log: Log) -> None:
    await log.write(*(matrix(sequence=i) for i in (1, 2, 4)))
    problems: list[sc.Problem] = []
    options = {"topic": log.topic, "start": "earliest", "on_problem": problems.append}
    with sc.subscribe_sync(log.bootstrap, **options) as matrices:  # type: ignore[arg-type]
        assert [next(matrices).sequence for _ in range(3)] == [1, 2, 4]
    assert [problem.kind for problem in problems] == ["gap"]
    whole = sc.subscribe_sync(log.bootstrap, topic=log.topic, start="earliest", follow=False)
    assert [m.sequence for m in whole] == [1, 2, 4]
    with (
        sc.subscribe_sync(log.bootstrap, topic=f"{log.topic}-none") as nothing,
        pytest.raises(MissingTopicError, match="does not exist"),
    ):
        next(nothing)


async def test_fit_behind_a_matrix_is_found(kafka_bootstrap: str) -> None:
    prefix = f"model-{uuid.uuid4().hex[:12]}"
    topic = f"{prefix}.calibrations"
    config = KafkaConfig(bootstrap_servers=kafka_bootstrap)
    await ensure_topics(config, [TopicSpec(topic, 1), TopicSpec(f"{prefix}.fits", 1)])
    async with AIOKafkaProducer(bootstrap_servers=kafka_bootstrap) as producer:
        for number in (1, 2, 3):
            fit = garched(number)
            for universe in ("other", "fx"):
                for output in encode_fit(fit, f"{prefix}.fits", 0, universe)[1]:
                    await (await send(producer, output))
            output = dataclasses.replace(calibration(fit, number + 1), topic=topic)
            await (await send(producer, output))

    def read(version: int) -> PublishedFit:
        return sc.read_fit(kafka_bootstrap, "fx", version, prefix=prefix)

    for version in (2, 3, 4):
        found = await asyncio.to_thread(read, version)
        assert (found.model_version, found.symbols) == (version, SYMBOLS)
        np.testing.assert_array_equal(found.garch.omega, garched(version - 1).arrays["garch"][1])
    with pytest.raises(InputError, match=r": model version 5 of universe 'fx' is not there$"):
        read(5)  # in the thread of a running loop


async def test_export_ends_where_the_log_did(log: Log, tmp_path: Path) -> None:
    await log.write(matrix(sequence=1), wide(2, 600), matrix(sequence=4))
    out = tmp_path / "m.csv"
    words = ["export", "--bootstrap", log.bootstrap, "--topic", log.topic, "--out", out]
    done = await asyncio.to_thread(run_process, *words)
    assert (done.code, done.out) == (0, f"{out}: 3 matrices, {3 + 600 * 599 // 2 + 3:,} pairs\n")
    assert "matrix 3 is missing" in done.err
    lines = out.read_text().splitlines()
    assert lines[1].split(",")[1:7] == ["fx", "ewma", "1", "A", "B", "0.5"]
    assert len(lines) == 1 + 6 + 600 * 599 // 2
    done = await asyncio.to_thread(run_process, *words[:4], f"{log.topic}-none", *words[5:])
    assert done.code == 6


async def test_watch_begins_at_a_time_and_shows_pairs(log: Log) -> None:
    await log.write(*(at(i, matrix(sequence=i)) for i in range(1, 100)))
    when = pd.Timestamp(AS_OF_NS + 50 * 10**9, tz="UTC").isoformat()
    words = ["watch", "--bootstrap", log.bootstrap, "--topic", log.topic, "--start", when]
    done = await asyncio.to_thread(run_process, *words, "--pairs", "A~B", "--count", 2)
    assert (done.code, done.err) == (0, "")
    assert [line.split()[1:5] for line in done.out.splitlines()] == [
        ["fx|ewma", f"#{i}", "A~B", "+0.500"] for i in (50, 51)
    ]
    done = await asyncio.to_thread(run_process, *words, "--latest", "--count", 1)
    assert done.out.split()[2] == "#99"


@pytest.mark.full
async def test_models_of_a_real_service_are_found_and_forecast(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    victim = await world(kafka_bootstrap, tmp_path, 5, "wait", 200.0)
    await victim.finish()
    options = {"topic": f"{victim.prefix}.correlations", "start": "earliest", "follow": False}
    every = sc.subscribe(kafka_bootstrap, estimator="dcc", **options)  # type: ignore[arg-type]
    newest = {m.model_version: m async for m in every}
    assert len(newest) > 1
    for version, m in newest.items():
        # of so little history no volatility is fitted by which symbols could be told apart
        names = {"prefix": victim.prefix, "symbols": victim.symbols}
        read = functools.partial(sc.read_fit, kafka_bootstrap, "u", version, **names)  # type: ignore[arg-type]
        fit = await asyncio.to_thread(read)
        assert fit.symbols == tuple(victim.symbols)
        near, far = m.forecast(1, fit), m.forecast(1000, fit)
        places = [fit.symbols.index(symbol) for symbol in m.symbols]
        mean = fit.long_run[np.ix_(places, places)]
        assert np.abs(far - mean).max() <= np.abs(near - mean).max()


@pytest.mark.chaos
async def test_broker_that_does_not_answer_for_a_while_is_waited_for(
    own_broker: LocalBroker, tmp_path: Path
) -> None:
    prefix = f"frozen-{uuid.uuid4().hex[:12]}"
    address = own_broker.bootstrap
    await ensure_topics(KafkaConfig(bootstrap_servers=address), [TopicSpec(prefix, 1)])
    log = Log(address, prefix)
    await log.write(matrix(sequence=1), matrix(sequence=2))
    matrices = sc.subscribe(address, topic=prefix, start="earliest", only="latest")
    async with contextlib.aclosing(matrices), asyncio.timeout(60.0):
        assert (await anext(matrices)).sequence == 2
        assert own_broker.pid is not None
        os.kill(own_broker.pid, signal.SIGSTOP)
        waiting = asyncio.ensure_future(anext(matrices))
        await asyncio.sleep(8.0)
        assert not waiting.done()
        os.kill(own_broker.pid, signal.SIGCONT)
        await log.write(matrix(sequence=3))
        assert (await waiting).sequence == 3
