"""Broken and absurd data with kills in between, callbacks that fail: still the same bytes."""

import asyncio
import contextlib
import itertools
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from random import Random

import numpy as np
import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

from stream_calib.adapters.kafka import GroupOwnership
from stream_calib.config import load_config
from stream_calib.service.wiring import Service, kafka_service
from stream_calib.simulation import simulate
from stream_calib.values import Effects
from tests.kafka.bounds import mib, written
from tests.kafka.data_faults import CASES, REASONS, SECOND_NS, START_NS, SYMBOLS, Value, affected
from tests.kafka.killing import DEADLINE_S, ROLES, WHOLE, Published, Victim
from tests.kafka.living import Live, ended, start
from tests.kafka.test_faults_log import COMPACTING, configure, cut_before, taken_in
from tests.kafka.test_faults_process import (
    completes,
    crashed,
    head,
    matrices,
    names,
    published,
    reaches,
    reference,
    run_until,
    scene,
    settings,
    tick_rows,
)
from tests.kafka.test_kills_in_fits import world
from tests.kafka.truth import FITTED_ROLES, Truth, of_the_input, through_an_engine


def good(seed: int) -> list[Value]:
    return [value for _, _, value in tick_rows("", SYMBOLS, seed)]


async def send_all(
    bootstrap: str, topic: str, values: Sequence[Value], partitions: int, first: int = 0
) -> None:
    """Write values by turns to each partition; ``first`` is the number of the first one."""
    async with AIOKafkaProducer(
        bootstrap_servers=bootstrap, max_request_size=2**21, max_batch_size=2**20
    ) as producer:
        acks = [
            await producer.send(topic, value, key=b"any", partition=k % partitions)
            for k, value in enumerate(values, first)
        ]
        await asyncio.gather(*acks)


async def empty(bootstrap: str, folder: Path, symbols: Sequence[str] = SYMBOLS) -> Victim:
    """Return a service whose topic of two partitions has one record, which is no tick.

    Its journal is kept as a whole.
    """
    return await scene(bootstrap, folder, lambda t: [(t, 1, b"{}")], symbols=symbols, keep=WHOLE)


def assert_positive_definite(found: Published, seed: int) -> None:
    for matrix in matrices(found):
        assert np.array_equal(matrix.corr, matrix.corr.T)
        assert np.linalg.eigvalsh(matrix.corr)[0] > 0.0, f"seed {seed}, matrix {matrix.sequence}"
        np.linalg.cholesky(matrix.corr)


async def killed_and_identical(victim: Victim, seed: int, points: Sequence[str]) -> Published:
    expected = await reference(victim)
    assert len(expected["correlations"]) > 15
    for point in points:
        await crashed(victim, point)
    found, _ = await run_until(victim, reaches(expected))
    assert found == expected, f"seed {seed}"
    assert await victim.repeated() == found, f"seed {seed}"
    assert_positive_definite(found, seed)
    return found


async def has_read(live: Live, victim: Victim, n_records: int) -> None:
    """Wait until the journal of a service at work says that it has taken in so many records."""
    deadline_s = time.monotonic() + DEADLINE_S
    while (n := sum(position for position, _ in (await taken_in(victim)).values())) < n_records:
        assert live.process.poll() is None, live.lines[-5:]
        assert time.monotonic() < deadline_s, (n, n_records)
        await asyncio.sleep(0.1)
    assert n == n_records


async def killed_at(
    victim: Victim,
    seed: int,
    values: Sequence[Value],
    places: Sequence[int],
    saved: Sequence[int],
) -> Truth:
    """Kill it where it has taken in just so many values, and in its first commit behind each.

    Where ``saved`` it is started and stopped once more, which leaves a snapshot of just there.
    What it reads is there before each of its starts, and neither partition goes on without the
    other: that the input comes in parts cannot be seen in what it publishes.
    """
    settings(victim, 'idle_slack = "1s"', 'idle_slack = "10h"')
    settings(victim, 'flush_after = "1500ms"', 'flush_after = "10h"')
    (topic,), points = victim.topics, itertools.cycle(("journal:1", "commit:1", "flush:1"))
    bounds = [0, *places, len(values)]
    assert bounds == sorted(set(bounds))
    for before, n in itertools.pairwise(bounds):
        await send_all(victim.bootstrap, topic, values[before:n], 2, before)
        if before:
            (recovered,) = (await crashed(victim, next(points))).said("recovered")
            assert before not in saved or recovered["repeated"] == 0
        if n == len(values):
            break
        expected = await reference(victim, flush=False)
        live = await start(victim)
        await has_read(live, victim, 1 + n)  # with the record that was there
        assert await published(live, victim, reaches(expected)) == expected, f"seed {seed}"
        await asyncio.to_thread(live.killed)
        if n in saved:
            await run_until(victim, reaches(expected))
    truth = await through_an_engine(victim, ROLES, flush=False)
    found, _ = await run_until(victim, reaches(truth.published))
    assert found == truth.published, f"seed {seed}"
    assert await victim.repeated() == found, f"seed {seed}"
    assert len(found["correlations"]) > 15
    assert_positive_definite(found, seed)
    return truth


def reasons(found: Published) -> set[str]:
    return {head(record, "reason") for record in found["rejects"]}


async def test_f47_to_f54_everything_that_can_be_wrong_with_data_at_once(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    random = Random(seed)
    values = good(seed)
    for case in CASES.values():
        values = case.fault(values, random)
    is_jumped = [b'"time":17411' in (value or b"") for value in values]
    # in the halt of one symbol; then behind it, with another clock and other prices
    places = (600, 1200)
    assert places[0] < is_jumped.index(True) < places[1] < len(values) - 1000
    victim = await empty(kafka_bootstrap, tmp_path, [*SYMBOLS, "SIM:NEVER"])
    truth = await killed_at(victim, seed, values, places, places[1:])
    refused = {"empty", "json", "format", "field", "time_range", "price", "time_jump", "outlier"}
    assert refused <= reasons(truth.published)
    assert {"duplicate", "late"} <= set(+truth.outcomes)
    assert all("SIM:NEVER" in matrix.pending for matrix in matrices(truth.published))


@pytest.mark.chaos
@pytest.mark.parametrize("fault", CASES)
async def test_data_fault(kafka_bootstrap: str, tmp_path: Path, seed: int, fault: str) -> None:
    case = CASES[fault]
    values = case.fault(good(seed), Random(seed))
    wrong = affected(good(seed), values)
    behind = (wrong[0] + 1, (wrong[0] + wrong[-1]) // 2, wrong[-1] + 1)
    places = sorted({n for n in case.places or behind if n < len(values)})
    assert any(wrong[0] < n <= wrong[-1] for n in places), f"seed {seed}"
    victim = await empty(kafka_bootstrap, tmp_path)
    # short enough for a symbol to be forgotten in the time that it is away
    settings(victim, 'half_life = "20s"', 'half_life = "5s"')
    truth = await killed_at(victim, seed, values, places, places)
    of_its_own = Counter({"format": 1})  # the record that was there
    refused = {reason: n for reason in REASONS if (n := truth.outcomes[reason])}
    assert refused == of_its_own + Counter(case.refused), f"seed {seed}"
    assert set(refused) <= reasons(truth.published)
    for outcome, n in case.at_least.items():
        assert truth.outcomes[outcome] >= n, f"seed {seed}: {truth.outcomes}"
    assert case.shows(truth.published), f"seed {seed}"


async def peak_of(victim: Victim, expected: Published) -> float:
    live = await start(victim)
    await asyncio.to_thread(live.until_said, "running")
    await published(live, victim, reaches(expected))
    peak = mib(live.process.pid, "VmHWM")
    assert (await ended(live, signal.SIGTERM)).code == 0
    assert await victim.published() == expected == await victim.repeated()
    return peak


@pytest.mark.chaos
async def test_f49_flood_of_unknown_symbols_takes_no_memory(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    start_ns, n = START_NS + 30 * SECOND_NS, 500_000
    values = [value or b"" for value in good(seed)]
    cut = sum(orjson.loads(value)["time"] < start_ns for value in values)

    async def peak_with(n_names: int) -> float:
        flood = [
            b'{"symbol":"%032x","time":%d,"price":1.5}'
            % (k % n_names + 2**120, start_ns + k * 1000)
            for k in range(n)
        ]
        all_values = values[:cut] + flood + values[cut:]
        victim = await empty(kafka_bootstrap, tmp_path / str(n_names))
        for partition in range(2):
            part = all_values[partition::2]
            await written(kafka_bootstrap, victim.topics[0], part, partition)
        settings(victim, "max_records = 3", "max_records = 5000")
        expected = await reference(victim)
        await crashed(victim, "commit:2")
        peak = await peak_of(victim, expected)
        sizes = [path.stat().st_size for path in victim.folder.rglob("*.snap")]
        assert max(sizes) < 200_000  # the names are not part of the state
        return peak

    one_mib, all_mib = [await peak_with(n_names) for n_names in (1, n)]
    # half a million names in a dict would be 75 MiB
    assert all_mib < one_mib + 35.0, f"seed {seed}"


@pytest.mark.chaos
async def test_f55_all_symbols_are_the_same(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    ticks = simulate(2, 60.0, seed=seed, rate_hz=1.0)
    values: list[Value] = [
        orjson.dumps({"symbol": symbol, "time": time_ns, "price": price})
        for time_ns, price in zip(ticks.time_ns.tolist(), ticks.price.tolist(), strict=True)
        for symbol in SYMBOLS
    ]
    victim = await empty(kafka_bootstrap, tmp_path)
    await send_all(kafka_bootstrap, victim.topics[0], values, 2)
    found = await killed_and_identical(victim, seed, ("commit:2",))
    last = matrices(found)[-1]
    assert last.quality.capped_pairs == 15
    assert last.corr.min() > 0.999


@contextlib.asynccontextmanager
async def transactions(bootstrap: str, name: str) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=name)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def test_input_of_transactions_committed_aborted_and_open(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    random, values = Random(seed), good(seed)
    victim = await scene(kafka_bootstrap, tmp_path, lambda t: [(t, 0, b"{}")] * 20, keep=WHOLE)
    settings(victim, '"1500ms"', '"60s"')  # it waits before the open one, longer than a silence
    (topic,) = victim.topics
    async with transactions(kafka_bootstrap, topic) as producer:
        for k in range(0, 1200, 40):
            await producer.begin_transaction()
            acks = [await producer.send(topic, v, partition=0) for v in values[k : k + 40]]
            await asyncio.gather(*acks)
            if random.random() < 0.3:
                await producer.abort_transaction()
            else:
                await producer.commit_transaction()
        await producer.begin_transaction()
        for value in values[1200:1250]:
            await producer.send(topic, value, partition=0)
        await producer.flush()
        await send_all(kafka_bootstrap, topic, values[1250:], 1)  # behind the open one
        await cut_before(kafka_bootstrap, topic, 10)  # and its first records are gone already
        expected = await reference(victim, flush=False)  # up to the open one
        for point in ("commit:2", "flush:1"):
            await crashed(victim, point)
        await completes(victim, expected)
        await producer.abort_transaction()
    expected = await reference(victim, flush=False)
    await crashed(victim, "commit:1")
    await completes(victim, expected)
    assert await victim.repeated() == expected, f"seed {seed}"
    assert len(expected["correlations"]) > 20
    assert_positive_definite(expected, seed)


@pytest.mark.chaos
async def test_input_with_holes_that_compaction_left(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    victim = await scene(kafka_bootstrap, tmp_path, lambda t: [(t, 0, b"{}")], keep=WHOLE)
    (topic,) = victim.topics

    async def holes() -> int:
        place, offsets = TopicPartition(topic, 0), []
        async with AIOKafkaConsumer(bootstrap_servers=kafka_bootstrap) as consumer:
            consumer.assign([place])
            end = (await consumer.end_offsets([place]))[place]
            await consumer.seek_to_beginning(place)
            while await consumer.position(place) < end:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    offsets += [record.offset for record in records]
        return sum(b - a > 1 for a, b in itertools.pairwise(offsets))

    await configure(kafka_bootstrap, topic, COMPACTING)
    async with AIOKafkaProducer(bootstrap_servers=kafka_bootstrap) as producer:
        for k, value in enumerate(good(seed)):
            key = b"%d" % (k if k % 3 else k % 60)
            await producer.send(topic, value, key=key, partition=0)
        await producer.flush()
        deadline_s = time.monotonic() + DEADLINE_S
        while await holes() < 100:
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.5)
            await producer.send_and_wait(topic, b"{}", key=b"again", partition=0)
    await configure(kafka_bootstrap, topic, {"cleanup.policy": "delete"})
    await killed_and_identical(victim, seed, ("commit:2", "flush:2", "commit:2"))


class OurOwnError(Exception):
    pass


def fail(*_: object) -> None:
    raise OurOwnError


def ignore(_universe: str, _effects: Effects) -> None: ...


async def assert_told(service: Service) -> None:
    with pytest.raises(OurOwnError):
        await asyncio.wait_for(service.run(asyncio.Event()), DEADLINE_S)


@pytest.mark.chaos
async def test_f39_what_a_callback_raises_is_not_swallowed(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    victim = await scene(kafka_bootstrap, tmp_path, lambda t: tick_rows(t, names(6), seed))
    config = load_config(victim.config_file)
    for who in ("on_effects", "committed", "advanced", "recovered"):
        service = kafka_service(config, fail if who == "on_effects" else ignore)
        if who != "on_effects":
            setattr(service.observer, who, fail)
        await assert_told(service)
    expected, found = await reference(victim), await victim.published()
    assert len(found["correlations"]) < len(expected["correlations"])
    for role, records in found.items():
        assert records == expected[role][: len(records)], f"seed {seed}"
    await completes(victim, expected)


@pytest.mark.parametrize(
    "callback",
    ["on_partitions_revoked", pytest.param("on_partitions_assigned", marks=pytest.mark.chaos)],
)
async def test_f39_what_the_client_library_would_only_log_ends_the_service(
    kafka_bootstrap: str,
    tmp_path: Path,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
    callback: str,
) -> None:
    victim = await scene(kafka_bootstrap, tmp_path, lambda t: tick_rows(t, names(6), seed))
    with monkeypatch.context() as patch:
        if callback == "on_partitions_revoked":  # which begins with it
            patch.setattr(GroupOwnership, "_coordinator", property(fail))
        else:
            patch.setattr(StickyPartitionAssignor, "on_generation_assignment", fail)
        await assert_told(kafka_service(load_config(victim.config_file), ignore))
    expected = await reference(victim)
    assert not any((await victim.published()).values())
    await completes(victim, expected)


@pytest.mark.chaos
async def test_f39_what_is_raised_when_a_fit_is_told_of_ends_the_service(
    kafka_bootstrap: str, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = await world(kafka_bootstrap, tmp_path, seed, "wait", seconds=100.0)
    service = kafka_service(load_config(victim.config_file), ignore)
    monkeypatch.setattr(service.observer, "refitted", fail)
    await assert_told(service)  # nothing else would: the watchdog excuses who waits for a fit
    truth = await asyncio.to_thread(of_the_input, victim, FITTED_ROLES, flush=True)
    found = await victim.published(FITTED_ROLES)
    assert not found["calibrations"]
    for role, records in found.items():
        assert records == truth.published[role][: len(records)], f"seed {seed}"
    assert await victim.finish(truth.published, roles=FITTED_ROLES) == truth.published
