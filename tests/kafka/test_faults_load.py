"""More than can be read, more than can be written: memory stays bounded, and nothing is lost."""

import asyncio
import contextlib
import itertools
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest

from stream_calib.simulation import simulate
from tests.kafka import proxy as faults
from tests.kafka.bounds import Watched, mib, tell, watched, written
from tests.kafka.killing import WHOLE, Published, Victim
from tests.kafka.living import Live, ended, start
from tests.kafka.proxy import PRODUCE, KafkaProxy
from tests.kafka.test_faults_process import names, published, reaches, reference, scene, settings

APPLIED = 'outcome="applied"'
SECOND_NS = 1_000_000_000
START_NS = 1_741_098_600 * SECOND_NS
# What one turn and one commit hold, and what the allocator keeps of it: 12 to 40 MiB were measured.
MEMORY_MIB = 90.0
# And what the client holds of records that were fetched, where there are that many: some 50 MB.
FETCHED_MIB = 60.0
READ_S = 1200.0  # for what takes a minute or two on a machine that is not busy


def walk(n: int, seed: int, n_symbols: int = 6, rate_hz: float = 10_000.0) -> Iterator[bytes]:
    """Ticks at a steady rate of event time, small and quick to write."""
    rng = np.random.default_rng(seed)
    price = np.full(n_symbols, 100.0)
    step_ns = int(SECOND_NS / rate_hz)
    for first in range(0, n, 10_000):
        count = min(10_000, n - first)
        which = rng.integers(n_symbols, size=count)
        moves = np.round(rng.normal(0.0, 0.01, size=count), 4)
        for k, (symbol, move) in enumerate(zip(which.tolist(), moves.tolist(), strict=True)):
            price[symbol] = max(1.0, price[symbol] + move)
            yield b'{"symbol":"SIM:%d","time":%d,"price":%.4f}' % (
                symbol,
                START_NS + (first + k) * step_ns,
                price[symbol],
            )


async def plain(bootstrap: str, folder: Path, n_symbols: int = 6) -> Victim:
    """Return a service at its usual pace, whose topic is empty but for a record of no tick."""
    symbols = names(n_symbols)
    victim = await scene(bootstrap, folder, lambda t: [(t, 0, b"{}")], symbols=symbols, keep=WHOLE)
    settings(victim, "max_records = 3", "max_records = 5000")
    settings(victim, 'replay_cost = "100ms"', 'replay_cost = "2s"')  # a minute is no hundred
    settings(victim, 'flush_after = "1500ms"', 'flush_after = "1h"')
    return victim


@contextlib.asynccontextmanager
async def lags_of(service: Watched) -> AsyncIterator[list[float]]:
    """Give the lags that a service shows meanwhile."""
    shown = [0.0]

    async def look() -> None:
        while True:
            shown.append(await asyncio.to_thread(service.number, "consumer_lag_records"))
            await asyncio.sleep(0.1)

    looking = asyncio.create_task(look())
    try:
        yield shown
    finally:
        looking.cancel()
        await asyncio.wait({looking})
    if not looking.cancelled():
        looking.result()


async def caught_up(
    live: Live, service: Watched, victim: Victim, expected: Published, n: int
) -> tuple[float, float]:
    """Wait until all is there that is expected of n records, and nothing is left of the work.

    Returns the most lag shown, and the growth.
    """
    async with lags_of(service) as lags:
        await service.until(lambda: service.number("records_total") >= n, READ_S)
        found = await published(live, victim, reaches(expected))
    assert found == expected
    await service.until(lambda: service.number("consumer_lag_records") == 0)
    await service.has_let_go()
    return max(lags), service.growth_mib


async def idle_memory(victim: Victim) -> float:
    """Return what a service takes that has nothing to read, in MiB."""
    idle = await start(victim)
    await asyncio.to_thread(idle.until_said, "running")
    most = mib(idle.process.pid, "VmHWM")
    assert (await ended(idle, signal.SIGTERM)).code == 0
    return most


async def lagging(bootstrap: str, folder: Path, seed: int, values: Iterator[bytes]) -> None:
    began_s = time.monotonic()
    victim = await plain(bootstrap, folder)
    idle_mib = await idle_memory(victim)
    n = await written(bootstrap, victim.topics[0], values)
    expected = await reference(victim, flush=False)
    started_s = time.monotonic()
    live, service = await watched(victim)
    service.idle_mib = idle_mib
    lag, growth_mib = await caught_up(live, service, victim, expected, n)
    seconds = time.monotonic() - started_s
    read, applied = service.number("records_total"), service.number("ticks_total", APPLIED)
    done = await ended(live, signal.SIGTERM)
    assert (done.code, done.sentence) == (0, "")
    assert read in {n, n + 1}  # the record of no tick was read here or by the idle one
    assert applied == n
    assert lag > n / 20, f"seed {seed}"
    assert growth_mib < MEMORY_MIB + FETCHED_MIB
    if n < 1_000_000:  # of more it takes a minute
        assert await victim.repeated() == expected, f"seed {seed}"
    what = f"lag of {n:,} records at start, {n / seconds:,.0f}/s, most shown {lag:,.0f}"
    tell("F58", what, growth_mib, 0, time.monotonic() - began_s)


async def test_f58_a_lag_at_start_is_shown_and_caught_up(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    await lagging(kafka_bootstrap, tmp_path, seed, walk(100_000, seed))


@pytest.mark.chaos
async def test_f58_a_lag_of_ten_million_at_start(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    await lagging(kafka_bootstrap, tmp_path, seed, walk(10_000_000, seed, rate_hz=40_000.0))


async def slowed(
    proxy: KafkaProxy, folder: Path, seed: int, *, n_symbols: int, seconds: float, late_s: float
) -> float:
    """Let each write be late while a matrix a second is due of all that is there already.

    Returns how much more memory that takes, in MiB.
    """
    began_s = time.monotonic()
    victim = await plain(proxy.bootstrap, folder, n_symbols)
    ticks = simulate(n_symbols, seconds, seed=seed, rate_hz=1.0, symbols=names(n_symbols))
    values = [orjson.dumps(record) for record in ticks.records()]
    idle_mib = await idle_memory(victim)
    n = await written(proxy.bootstrap, victim.topics[0], values)
    expected = await reference(victim, flush=False)
    size = sum(len(value or b"") for _, value, _ in expected["correlations"])
    late = faults.delay(late_s)
    proxy.chance = lambda exchange: late if exchange.api == PRODUCE else None
    live, service = await watched(victim)
    service.idle_mib = idle_mib
    # it stands still with input to read, which is shown, until its output is taken
    await service.until(lambda: service.number("consumer_lag_records") > 0)
    held = await asyncio.to_thread(still, service)
    assert held > 0, f"seed {seed}"
    lag, growth_mib = await caught_up(live, service, victim, expected, n)
    assert (await ended(live, signal.SIGTERM)).code == 0
    assert await victim.repeated() == expected, f"seed {seed}"
    what = f"each write {late_s:g} s late, {size / 1e6:.0f} MB of output, most lag shown {lag:,.0f}"
    tell("F57", what, growth_mib, 0, time.monotonic() - began_s)
    return growth_mib


@pytest.mark.chaos
async def test_f57_slow_output_stops_the_reading_and_loses_nothing(
    proxy: KafkaProxy, tmp_path: Path, seed: int
) -> None:
    # a matrix of 60 symbols is some 40 kB
    growth_mib = await slowed(proxy, tmp_path, seed, n_symbols=60, seconds=250.0, late_s=0.3)
    assert growth_mib < MEMORY_MIB


@pytest.mark.chaos
async def test_f57_slow_output_that_is_more_than_its_memory(
    proxy: KafkaProxy, tmp_path: Path, seed: int
) -> None:
    # and one of 200 is .6 MB: 180 MB in all, of which 76 MiB were held
    growth_mib = await slowed(proxy, tmp_path, seed, n_symbols=200, seconds=300.0, late_s=0.1)
    assert growth_mib < 130.0


def still(service: Watched) -> float:
    """Return the lag at which the service was seen twice, a second and a half apart."""
    for _ in range(60):
        before = service.number("consumer_position")
        time.sleep(1.5)  # it is shown once a second
        lag = service.number("consumer_lag_records")
        if lag > 0 and service.number("consumer_position") == before:
            return lag
        if lag == 0:
            break
    return 0.0


HOSTILE = (
    "x" * 900_000,
    "\N{CHART WITH UPWARDS TREND}\N{RIGHT-TO-LEFT OVERRIDE}BTC",
    "BTC\nUSDT\r\n# HELP stream_calib_up 1\n",
    '<script>alert("1")</script>',
    'a"} 1\nstream_calib_ticks_total{outcome="applied',
    "\0\x1b[31m",
    "${jndi:ldap://x}%s%n",
)
REFUSED = (b"{", b'{"symbol":"SIM:1","time":"never","price":1}', b"\xff")


async def flooded(bootstrap: str, folder: Path, seed: int, n_names: int, n_refused: int) -> None:
    """Put names nobody knows and records nobody can read into half a minute of good ticks."""
    began_s = time.monotonic()
    victim = await plain(bootstrap, folder)
    good = list(walk(3_000, seed, rate_hz=100.0))
    half_ns = START_NS + 15 * SECOND_NS
    unknown = (
        b'{"symbol":"%032x","time":%d,"price":1.5}' % (2**120 + k, half_ns) for k in range(n_names)
    )
    hostile = [orjson.dumps({"symbol": name, "time": half_ns, "price": 1.5}) for name in HOSTILE]
    refused = (REFUSED[k % len(REFUSED)] for k in range(n_refused))
    values = itertools.chain(good[:1500], unknown, hostile, refused, good[1500:])
    live, service = await watched(victim)
    n = await written(bootstrap, victim.topics[0], values)
    expected = await reference(victim, flush=False)
    await service.until(lambda: service.number("ticks_total", APPLIED) > 0)
    series = len(service.get("/metrics").splitlines())
    _, growth_mib = await caught_up(live, service, victim, expected, n)
    assert service.number("ticks_total", APPLIED) == 3_000
    assert service.number("ticks_total", 'outcome="unknown_symbol"') == n_names + len(HOSTILE)
    rejected = service.number("ticks_total", 'outcome="rejected"')
    suppressed = service.number("rejects_suppressed_total")
    assert rejected == n_refused + 1  # and the record of no tick
    # all of them lie in one second of event time but the first
    assert len(expected["rejects"]) == 100 + 1
    assert suppressed == rejected - len(expected["rejects"])
    metrics = service.get("/metrics")
    # what had not happened yet, such as histograms of a first commit, but no series for a name
    assert len(metrics.splitlines()) < series + 300
    assert not any(name in metrics for name in (*HOSTILE, "<script", "jndi"))
    assert growth_mib < MEMORY_MIB  # a million names in a dict would be 150 MiB
    done = await ended(live, signal.SIGTERM)
    assert (done.code, done.sentence) == (0, "")
    assert await victim.repeated() == expected, f"seed {seed}"
    what = f"{n_names:,} unknown names, {n_refused:,} rejects, {suppressed:,.0f} counted only"
    tell("F49", what, growth_mib, 0, time.monotonic() - began_s)


async def test_f49_a_flood_of_names_and_rejects_is_counted_and_kept_short(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    await flooded(kafka_bootstrap, tmp_path, seed, 50_000, 3_000)


@pytest.mark.chaos
async def test_f49_a_flood_of_a_million_names(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    await flooded(kafka_bootstrap, tmp_path, seed, 1_000_000, 300_000)


async def bursting(
    bootstrap: str, folder: Path, seed: int, seconds: float, at_least: float
) -> None:
    """Write 2,000 ticks a second, twenty times as many for a while, and 2,000 again."""
    began_s = time.monotonic()
    victim = await plain(bootstrap, folder)
    live, service = await watched(victim)
    usual, burst = 2_000, 40_000
    n = round(usual * 4 + burst * seconds)
    made = walk(n, seed, rate_hz=10_000.0)
    # ahead, as far as memory goes, or the writer is busy with what is to be written
    ticks, n = iter(list(made)) if n < 200_000 else made, 0
    clock, rates = asyncio.get_running_loop().time, list[float]()
    async with lags_of(service) as lags:
        for rate, duration_s in ((usual, 1.0), (burst, seconds), (usual, 1.0)):
            start_s, n_before = clock(), n
            for k in range(round(duration_s * 4)):
                part = itertools.islice(ticks, rate // 4)
                n += await written(bootstrap, victim.topics[0], part)
                await asyncio.sleep(max(0.0, start_s + (k + 1) / 4 - clock()))
            rates.append((n - n_before) / (clock() - start_s))
        wrote_s = clock()
        await service.until(lambda: service.number("records_total") == n + 1)
        behind_s = clock() - wrote_s
    times = rates[1] / rates[0]
    # twenty, unless others are at work
    assert times > at_least, "the writer was too slow for a burst"
    expected = await reference(victim, flush=False)
    _, growth_mib = await caught_up(live, service, victim, expected, n)
    assert service.number("ticks_total", APPLIED) == n
    assert service.number("restarts_total") == 0
    assert growth_mib < MEMORY_MIB
    assert (await ended(live, signal.SIGTERM)).code == 0
    assert await victim.repeated() == expected, f"seed {seed}"
    what = f"{times:.0f} times the rate for {seconds:g} s, most lag shown {max(lags):,.0f}"
    what += f", all read {behind_s:.1f} s later"
    tell("F56", what, growth_mib, 0, time.monotonic() - began_s)


@pytest.mark.chaos
async def test_f56_a_burst_of_a_minute(kafka_bootstrap: str, tmp_path: Path, seed: int) -> None:
    await bursting(kafka_bootstrap, tmp_path, seed, 60.0, 8.0)


async def test_f56_a_burst(kafka_bootstrap: str, tmp_path: Path, seed: int) -> None:
    await bursting(kafka_bootstrap, tmp_path, seed, 2.0, 2.0)
