"""What exactly once costs: commits and latency beside at least once and a bare transaction."""

import asyncio
import statistics
import time
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

import orjson
from aiokafka import AIOKafkaProducer

from stream_calib.config import Config
from tests.bench.bench_kafka import _bare_transactions, _consumer
from tests.kafka.killing import read
from tests.kafka.service import running, settings
from tests.real_parts import TopicMaker

BAR_EVERY_S = {50: 0.05, 500: 0.4}  # by symbols: what a bar takes, or bars wait for each other
N_BARS = 150
MODES = ("at_least_once", "exactly_once")


class Cost(NamedTuple):
    p50_ms: float
    p99_ms: float
    commits_per_s: float
    journal_bytes: float


async def bench_exactly_once(kafka_bootstrap: str, new_topic: TopicMaker) -> None:
    print(f"\nFrom the tick that closes a bar to a reader of committed records, {N_BARS} bars")
    print(f"  {'':<28}{'N':>5}{'p50 ms':>9}{'p99 ms':>9}{'commits/s':>11}{'journal B':>11}")
    entry_bytes = []
    for n in BAR_EVERY_S:
        size = 60_000 if n == 50 else 1_600_000
        bare = await _bare(kafka_bootstrap, await new_topic("bare"), size)
        _print("bare transaction + read", n, bare)
        for mode in MODES:
            cost = await _cost(kafka_bootstrap, await new_topic("ticks"), n, mode)
            _print(f"service, {mode}", n, cost)
            entry_bytes.append(cost.journal_bytes)
        ratio = cost.p99_ms / bare.p99_ms
        print(f"  {'ratio of p99, exactly once / bare':<42}{ratio:.2f}")
    assert max(entry_bytes) < 1.3 * min(entry_bytes)  # flat in N


def _print(name: str, n: int, cost: Cost) -> None:
    print(
        f"  {name:<28}{n:>5}{cost.p50_ms:>9.1f}{cost.p99_ms:>9.1f}"
        f"{cost.commits_per_s:>11.0f}{cost.journal_bytes:>11.0f}"
    )


async def _bare(bootstrap: str, topic: str, size: int) -> Cost:
    taken_ms = await _bare_transactions(bootstrap, topic, N_BARS, size)
    started_s = time.perf_counter()
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        transactional_id=uuid.uuid4().hex,
        max_request_size=2 * 2**20,
    )
    await producer.start()
    started_s = time.perf_counter()
    for _ in range(N_BARS):
        async with producer.transaction():
            for at in range(0, size, 900_000):
                await producer.send(topic, b"x" * min(900_000, size - at), partition=0)
    rate = N_BARS / (time.perf_counter() - started_s)
    await producer.stop()
    cuts = statistics.quantiles(taken_ms, n=100)
    return Cost(cuts[49], cuts[98], rate, 0.0)


async def _cost(bootstrap: str, topic: str, n: int, mode: str) -> Cost:
    symbols = [f"SIM:{i:03}" for i in range(n)]
    universe = {"name": "u", "symbols": symbols, "ewma": {"half_life": "10m"}, "ready_n_eff": 2}
    config = settings(bootstrap, [topic], universe, lateness="0ns")
    delivery = config.delivery.model_copy(update={"mode": mode})
    config = config.model_copy(update={"delivery": delivery})
    taken_ms = await _latencies(bootstrap, topic, config, symbols)
    cuts = statistics.quantiles(taken_ms, n=100)
    entries = await read(bootstrap, f"{config.output.prefix}.journal")
    sizes = [len(value or b"") for _, value, _ in entries[5:-1]]
    fast = config.model_copy(update={"app": uuid.uuid4().hex})
    prefix = config.output.model_copy(update={"prefix": uuid.uuid4().hex})
    fast = fast.model_copy(update={"output": prefix})
    last_ns = await _last_as_of(config, bootstrap)
    async with running(fast) as state:  # all bars again, as fast as they go
        started_s = time.perf_counter()
        await state.until_as_of(last_ns)
        seconds = time.perf_counter() - started_s
    again = await read(bootstrap, f"{prefix.prefix}.journal")
    return Cost(cuts[49], cuts[98], len(again) / seconds, statistics.median(sizes))


async def _last_as_of(config: Config, bootstrap: str) -> int:
    matrices = await read(bootstrap, f"{config.output.prefix}.correlations")
    head = dict(matrices[-1][2])
    return _parse_ns(head["ce_time"].decode())


def _parse_ns(text: str) -> int:
    whole, _, rest = text.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole + "+00:00").timestamp())
    return seconds * 10**9 + int(rest)


async def _latencies(bootstrap: str, topic: str, config: Config, symbols: list[str]) -> list[float]:
    start_ns = time.time_ns() // 10**9 * 10**9 - 3600 * 10**9
    sent_s: dict[int, float] = {}
    taken_ms: list[float] = []
    done = asyncio.Event()
    async with running(config):
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
        await producer.start()

        async def follow(wanted: Callable[[int], float | None]) -> None:
            async with _consumer(bootstrap, f"{config.output.prefix}.correlations") as consumer:
                while not done.is_set():
                    for records in (await consumer.getmany(timeout_ms=200)).values():
                        now_s = time.perf_counter()
                        for record in records:
                            head = dict(record.headers)
                            chunk, _, count = head["chunk"].partition(b"/")
                            since_s = wanted(_parse_ns(head["ce_time"].decode()))
                            if chunk == count and since_s is not None:
                                taken_ms.append((now_s - since_s) * 1e3)

        follower = asyncio.create_task(follow(sent_s.get))
        for k in range(N_BARS):
            bar_ns = start_ns + k * 10**9
            for i, symbol in enumerate(symbols):
                price = 100 + ((k * 7919 + i * 104729) % 1000) / 1000
                tick = {"symbol": symbol, "time": bar_ns + (i + 1) * 10**6, "price": price}
                # the first tick of a bar is what closes the one before it
                if i == 0:
                    sent_s[bar_ns] = time.perf_counter()
                await producer.send(topic, orjson.dumps(tick), partition=0)
            await producer.flush()
            await asyncio.sleep(BAR_EVERY_S[len(symbols)])
        await asyncio.sleep(2.0)
        done.set()
        await follower
        await producer.stop()
    return taken_ms[20:]
