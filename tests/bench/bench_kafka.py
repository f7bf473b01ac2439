"""The Kafka path: one JSON tick per record in, and a matrix out, beside the client's own limits.

Every figure is taken in one run on one broker; the ratios are what counts.
"""

import asyncio
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from stream_calib.adapters.kafka import KafkaSource
from stream_calib.client import subscribe
from stream_calib.config import KafkaConfig
from stream_calib.simulation import simulate
from tests.kafka.service import running, settings, write
from tests.real_parts import TopicMaker

N_SYMBOLS = 50
N_TICKS = 400_000
RATE_HZ = 100.0  # per symbol: 80 bars of a second
ROUNDS = 5
MAX_RECORDS = 5000


async def bench_ticks_in(kafka_bootstrap: str, new_topic: TopicMaker) -> None:
    ticks = simulate(N_SYMBOLS, N_TICKS / N_SYMBOLS / RATE_HZ, seed=1, rate_hz=RATE_HZ)
    values = [orjson.dumps(record) for record in ticks.records()]
    topic = await new_topic("ticks")
    for at in range(0, len(values), 20_000):
        await write(kafka_bootstrap, [(topic, 0, value) for value in values[at : at + 20_000]])
    n = len(values)

    async def drop(records: list) -> None:  # type: ignore[type-arg]
        pass

    async def read_fields(records: list) -> None:  # type: ignore[type-arg]
        for record in records:
            document = orjson.loads(record.value)
            document["symbol"], document["time"], document["price"]

    async def service() -> float:
        universe = {"name": "u", "symbols": list(ticks.symbols), "ewma": {"half_life": "10m"}}
        config = settings(kafka_bootstrap, [topic], universe)
        # the ticks of the open bar become durable by this, which is no part of the throughput
        often = config.delivery.model_copy(update={"commit_interval": 50_000_000})
        async with running(config.model_copy(update={"delivery": often})) as state:
            started_s = time.perf_counter()
            await state.until_seen(n)
            return time.perf_counter() - started_s

    async def source() -> float:
        reader = KafkaSource(KafkaConfig(bootstrap_servers=kafka_bootstrap), [topic])
        await reader.start()
        await reader.discover()
        started_s = time.perf_counter()
        left = n
        while left:
            left -= sum(len(batch.values) for batch in await reader.poll(MAX_RECORDS, 1.0))
        seconds = time.perf_counter() - started_s
        await reader.close()
        return seconds

    ways: dict[str, Callable[[], Awaitable[float]]] = {
        "getmany, values dropped": lambda: _getmany(kafka_bootstrap, topic, n, drop),
        "getmany + orjson + fields": lambda: _getmany(kafka_bootstrap, topic, n, read_fields),
        "our source alone": source,
        "our service, ticks to matrices": service,
    }
    seconds = {name: [await way() for _ in range(1)] for name, way in ways.items()}  # warm up
    seconds = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            seconds[name].append(await way())
    print(f"\nKafka in, one JSON tick per record, {N_SYMBOLS} symbols, {n:,} records")
    base = seconds["getmany + orjson + fields"]
    raw = seconds["getmany, values dropped"]
    for name, taken in seconds.items():
        rate = n / statistics.median(taken)
        to_base = statistics.median(b / t for b, t in zip(base, taken, strict=True))
        to_raw = statistics.median(b / t for b, t in zip(raw, taken, strict=True))
        print(f"  {name:<32}{rate:>12,.0f}/s  x{to_base:.2f} of fields  x{to_raw:.2f} of raw")
    ours = seconds["our service, ticks to matrices"]
    assert statistics.median(b / t for b, t in zip(base, ours, strict=True)) >= 0.9


async def _getmany(
    bootstrap: str,
    topic: str,
    n: int,
    use: Callable[[list], Awaitable[None]],  # type: ignore[type-arg]
) -> float:
    async with _consumer(bootstrap, topic) as consumer:
        started_s = time.perf_counter()
        left = n
        while left:
            batches = await consumer.getmany(timeout_ms=1000, max_records=MAX_RECORDS)
            for records in batches.values():
                left -= len(records)
                await use(records)
        return time.perf_counter() - started_s


async def bench_matrix_out(kafka_bootstrap: str, new_topic: TopicMaker) -> None:
    bare_ms = await _bare_transactions(kafka_bootstrap, await new_topic("bare"), 300)
    ours_ms = await _bar_close_to_reader(kafka_bootstrap, await new_topic("ticks"), 300)
    print("\nFrom the tick that closes a bar to a reader of committed records, 50 symbols")
    for name, taken in (("bare transaction + read", bare_ms), ("bar close to matrix", ours_ms)):
        cuts = statistics.quantiles(taken, n=100)
        print(f"  {name:<26}p50 {cuts[49]:7.1f} ms   p99 {cuts[98]:7.1f} ms")
    ratio = statistics.quantiles(ours_ms, n=100)[98] / statistics.quantiles(bare_ms, n=100)[98]
    print(f"  ratio of p99: {ratio:.2f}")
    assert ratio <= 3.0


async def _bare_transactions(bootstrap: str, topic: str, n: int, size: int = 60_000) -> list[float]:
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        transactional_id=uuid.uuid4().hex,
        max_request_size=2 * 2**20,
    )
    await producer.start()
    # a matrix of 50 symbols, or the chunks of a larger one
    chunks = [b"x" * min(900_000, size - at) for at in range(0, size, 900_000)]
    taken_ms = []
    async with _consumer(bootstrap, topic) as consumer:
        for _ in range(n):
            started_s = time.perf_counter()
            async with producer.transaction():
                for chunk in chunks:
                    await producer.send(topic, chunk, partition=0)
            left = len(chunks)
            while left:
                batches = await consumer.getmany(timeout_ms=1000)
                left -= sum(map(len, batches.values()))
            taken_ms.append((time.perf_counter() - started_s) * 1e3)
    await producer.stop()
    return taken_ms[20:]


async def _bar_close_to_reader(bootstrap: str, topic: str, n: int) -> list[float]:
    symbols = [f"SIM:{i:02}" for i in range(N_SYMBOLS)]
    universe = {
        "name": "u",
        "symbols": symbols,
        "ewma": {"half_life": "10m"},
        "ready_n_eff": 2,  # the first minutes are measured
    }
    config = settings(bootstrap, [topic], universe, lateness="0ns")
    start_ns = time.time_ns() // 10**9 * 10**9 - 3600 * 10**9
    taken_ms: list[float] = []
    async with running(config):
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
        await producer.start()
        sent_s: dict[int, float] = {}

        async def read() -> None:
            name = f"{config.output.prefix}.correlations"
            async for matrix in subscribe(bootstrap, topic=name, start="earliest"):
                since_s = sent_s.get(matrix.as_of_ns)
                if since_s is not None:
                    taken_ms.append((time.perf_counter() - since_s) * 1e3)

        reader = asyncio.create_task(read())
        for k in range(n):
            bar_ns = start_ns + k * 10**9
            for i, symbol in enumerate(symbols):
                price = 100 + ((k * 7919 + i * 104729) % 1000) / 1000
                tick = {"symbol": symbol, "time": bar_ns + (i + 1) * 10**6, "price": price}
                # the first tick of a bar is what closes the one before it
                if i == 0:
                    sent_s[bar_ns] = time.perf_counter()
                await producer.send(topic, orjson.dumps(tick), partition=0)
            await producer.flush()
            await asyncio.sleep(0.04)
        await asyncio.sleep(2.0)
        reader.cancel()
        with suppress(asyncio.CancelledError):
            await reader
        await producer.stop()
    return taken_ms[20:]


@asynccontextmanager
async def _consumer(bootstrap: str, topic: str) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        yield consumer
    finally:
        await consumer.stop()
