"""Broken and absurd data with kills in between, callbacks that fail: still the same bytes."""

import asyncio
import contextlib
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import numpy as np
import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from stream_calib.config import load_config
from stream_calib.service.wiring import kafka_service
from stream_calib.simulation import simulate
from stream_calib.values import Effects
from tests.kafka.killing import DEADLINE_S, Published, Victim
from tests.kafka.test_faults_log import administrator, cut_before
from tests.kafka.test_faults_process import (
    completes,
    crashed,
    end_all,
    ended,
    head,
    matrices,
    names,
    published,
    reaches,
    reference,
    run_until,
    scene,
    settings,
    start,
    tick_rows,
)

SECOND_NS = 1_000_000_000
SYMBOLS = names(6)
Value = bytes | None
Fault = Callable[[list[Value], Random], list[Value]]


@pytest.fixture(autouse=True)
def nothing_stays_at_work() -> Iterator[None]:
    yield
    end_all()


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("randomly_seed", 0))


def strewn(*junk: Value) -> Fault:
    """Put records anywhere between the others, the first few left alone."""

    def fault(values: list[Value], random: Random) -> list[Value]:
        for value in junk:
            for _ in range(3 if len(value or b"") < 10_000 else 1):
                values.insert(random.randint(100, len(values)), value)
        return values

    return fault


def changed(
    change: Callable[[int, dict[str, object]], dict[str, object] | None], every: int = 1
) -> Fault:
    """Change each tick, or drop it; ``change`` is given the tick's number and the tick."""

    def fault(values: list[Value], _random: Random) -> list[Value]:
        out: list[Value] = []
        for k, value in enumerate(values):
            try:
                tick = orjson.loads(value or b"")
                kinds = {name: type(part) for name, part in tick.items()}
                is_tick = kinds == {"symbol": str, "time": int, "price": float}
            except (AttributeError, ValueError):
                is_tick = False
            if not is_tick or k % every:
                out.append(value)
            elif (other := change(k, tick)) is not None:
                out.append(orjson.dumps(other))
        return out

    return fault


def repeated(values: list[Value], random: Random) -> list[Value]:
    out: list[Value] = []
    for value in values:
        out += [value] * random.choice([1, 1, 2, 5])
        if value and random.random() < 0.1 and value.startswith(b'{"symbol"'):
            out.append(value.replace(b"{", b'{"id":7,', 1))  # nearly the same
    return out


def disordered(values: list[Value], random: Random) -> list[Value]:
    """Late by a few records, which is within the lateness, or by hundreds, which is not."""
    order = [
        k + random.random() * (400 if random.random() < 0.02 else 8) for k in range(len(values))
    ]
    return [values[k] for k in np.argsort(order)]


def priced(text: bytes) -> bytes:
    return b'{"symbol":"SIM:1","time":1741098620000000000,"price":' + text + b"}"


def timed(text: bytes) -> bytes:
    return b'{"symbol":"SIM:1","time":' + text + b',"price":101.5}'


def halted(k: int, tick: dict[str, object]) -> dict[str, object] | None:
    return None if tick["symbol"] == "SIM:2" and 400 < k < 1000 else tick


def jumped(k: int, tick: dict[str, object]) -> dict[str, object]:
    assert isinstance(tick["time"], int)
    return tick | {"time": tick["time"] + (2 * 3600 * SECOND_NS if k > 900 else 0)}


def spiked(k: int, tick: dict[str, object]) -> dict[str, object]:
    assert isinstance(tick["price"], float)
    return tick | {"price": tick["price"] * (100.0 if k % 500 == 0 or k > 1000 else 1.0)}


FAULTS: dict[str, Fault] = {
    "f47_poison_bytes": strewn(b"\xff\xfe\x00\x80", b"\x00" * 64, b"[" * 100_000),
    "f47_bad_json": strewn(b'{"symbol": "bro', b"{}", b"[]", b"42", b'"text"', b"null", b"nan"),
    "f47_wrong_types": strewn(
        b'{"symbol":7,"time":true,"price":[]}',
        b'{"symbol":null,"time":{},"price":"many"}',
        b'{"symbol":"","time":1741098620000000000,"price":1}',
        b'{"symbol":"\xf0\x9f\x92\xb9","time":1741098620000000000,"price":1}',
    ),
    "f47_a_megabyte_of_junk": strewn(os.urandom(1_000_000), b"x" * 1_000_000),
    "f47_nothing": strewn(b"", None),
    "f48_no_prices": strewn(
        *(priced(text) for text in (b"NaN", b"Infinity", b"1e999", b"0", b"-0.0", b"-1.5")),
        *(priced(text) for text in (b'"nan"', b'"-inf"', b"1e-320", b"9" * 400)),
    ),
    "f50_repeated": repeated,
    "f51_out_of_order": disordered,
    "f52_absurd_times": strewn(
        *(timed(text) for text in (b"0", b"86400", b"-1", b"1e300", b"9" * 30)),
        *(timed(text) for text in (b"4102444799000000000", b"1741270000000000000")),
        *(timed(text) for text in (b'"1970-01-01T00:00:00Z"', b'"yesterday"')),
    ),
    "f52_clock_jumps_by_two_hours": changed(jumped),
    "f53_a_hundred_times_the_price": changed(spiked),
    "f54_halted_and_back": changed(halted),
}


def good(seed: int) -> list[Value]:
    return [value for _, _, value in tick_rows("", SYMBOLS, seed)]


async def send_all(bootstrap: str, topic: str, values: Sequence[Value], partitions: int) -> None:
    async with AIOKafkaProducer(
        bootstrap_servers=bootstrap, max_request_size=2**21, max_batch_size=2**20
    ) as producer:
        acks = [
            await producer.send(topic, value, key=b"any", partition=k % partitions)
            for k, value in enumerate(values)
        ]
        await asyncio.gather(*acks)


async def fed(
    bootstrap: str, folder: Path, values: Sequence[Value], symbols: Sequence[str] = SYMBOLS
) -> Victim:
    """Return a service whose input, on two partitions, is there beforehand."""
    victim = await scene(bootstrap, folder, lambda t: [(t, 1, b"{}")], symbols=symbols)
    await send_all(bootstrap, victim.topics[0], values, 2)
    return victim


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
    assert_positive_definite(found, seed)
    return found


async def test_f47_to_f54_everything_that_can_be_wrong_with_data_at_once(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    random = Random(seed)
    values = good(seed)
    for fault in FAULTS.values():
        values = fault(values, random)
    victim = await fed(kafka_bootstrap, tmp_path, values, [*SYMBOLS, "SIM:NEVER"])
    found = await killed_and_identical(victim, seed, ("commit:2", "flush:2", "restore:1"))
    reasons = {head(record, "reason") for record in found["rejects"]}
    assert {"empty", "json", "format", "field", "time_range", "price", "time_jump"} <= reasons
    assert all("SIM:NEVER" in matrix.pending for matrix in matrices(found))


@pytest.mark.chaos
@pytest.mark.parametrize("fault", FAULTS)
async def test_data_fault(kafka_bootstrap: str, tmp_path: Path, seed: int, fault: str) -> None:
    values = FAULTS[fault](good(seed), Random(seed))
    victim = await fed(kafka_bootstrap, tmp_path, values)
    points = ("commit:2", "journal:2", "begin:1")
    await killed_and_identical(victim, seed, points)


def peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


async def peak_of(victim: Victim, expected: Published) -> float:
    live = await start(victim)
    await asyncio.to_thread(live.until_said, "running")
    await published(live, victim, reaches(expected))
    peak = peak_mib(live.process.pid)
    assert (await ended(live, signal.SIGTERM)).code == 0
    assert await victim.published() == expected
    return peak


@pytest.mark.chaos
async def test_f49_flood_of_unknown_symbols_takes_no_memory(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    calm = await fed(kafka_bootstrap, tmp_path / "calm", good(seed))
    usual_mib = await peak_of(calm, await reference(calm))
    start_ns = 1_741_098_630 * SECOND_NS
    flood: list[Value] = [
        b'{"symbol":"%032x","time":%d,"price":1.5}' % (k + 2**120, start_ns + k * 10_000)
        for k in range(100_000)
    ]
    values = good(seed)
    cut = sum(orjson.loads(value or b"")["time"] < start_ns for value in values)
    values[cut:cut] = flood
    victim = await fed(kafka_bootstrap, tmp_path, values)
    settings(victim, "max_records = 3", "max_records = 5000")
    expected = await reference(victim)
    await crashed(victim, "commit:2")
    assert await peak_of(victim, expected) < usual_mib + 60.0, f"seed {seed}"
    sizes = [path.stat().st_size for path in victim.folder.rglob("*.snap")]
    assert max(sizes) < 200_000  # the names are not part of the state


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
    victim = await fed(kafka_bootstrap, tmp_path, values)
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
    victim = await scene(kafka_bootstrap, tmp_path, lambda t: [(t, 0, b"{}")] * 20)
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
    assert len(expected["correlations"]) > 20
    assert_positive_definite(expected, seed)


@pytest.mark.chaos
async def test_input_with_holes_that_compaction_left(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    victim = await scene(kafka_bootstrap, tmp_path, lambda t: [(t, 0, b"{}")])
    (topic,) = victim.topics
    compacting = {"cleanup.policy": "compact", "segment.ms": "100", "segment.bytes": "1048576"}
    compacting |= {"min.cleanable.dirty.ratio": "0.001", "max.compaction.lag.ms": "100"}

    async def configure(configs: dict[str, str]) -> None:
        async with administrator(kafka_bootstrap) as admin:
            await admin.alter_configs(
                [ConfigResource(ConfigResourceType.TOPIC, topic, configs=configs)]
            )

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

    await configure(compacting)
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
    await configure({"cleanup.policy": "delete"})
    await killed_and_identical(victim, seed, ("commit:2", "flush:2", "commit:2"))


async def test_f39_what_a_callback_raises_is_not_swallowed(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    class OurOwnError(Exception):
        pass

    def fail(*_: object) -> None:
        raise OurOwnError

    def ignore(_universe: str, _effects: Effects) -> None: ...

    victim = await scene(kafka_bootstrap, tmp_path, lambda t: tick_rows(t, names(6), seed))
    config = load_config(victim.config_file)
    for who in ("on_effects", "committed", "advanced", "recovered"):
        service = kafka_service(config, fail if who == "on_effects" else ignore)
        if who != "on_effects":
            setattr(service.observer, who, fail)
        with pytest.raises(OurOwnError):
            await asyncio.wait_for(service.run(asyncio.Event()), 20.0)
    expected = await reference(victim)
    assert len((await victim.published())["correlations"]) < len(expected["correlations"])
