"""A service, a feed, a viewer and a Prometheus at work on a real Kafka, once through a break.

The ticks are the demo's, whose correlations break in the middle, with some bad ones among them.
The service is ended in good order before the break, and started again.
"""

import asyncio
import contextlib
import json
import signal
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from deploy.kafka.broker import free_port
from stream_calib.adapters.kafka import KafkaSink, ensure_topics
from stream_calib.cli.demo import UNIVERSE
from stream_calib.config import Config, load_config
from stream_calib.service.topics import input_topics, output_topics
from stream_calib.simulation import simulate
from stream_calib.values import Output
from tests.cli.command import COMMAND, environment
from tests.contract.exchanges import TEAR, Frame, as_toml, running_exchange, toml, trade
from tests.deploy.running import answers, prometheus
from tests.deploy.scraping import TOKEN_FILE, Watched, fast_config

SEED, RATE_HZ = 20250304, 2.0  # those of the demo
FEED_S, TURN_S = 20.0, 0.1
RESTART_AT = 0.3  # of the ticks; the break is at .5
DEADLINE_S = 240.0  # ten times what it takes
GARBAGE = [b"not json", b'{"symbol": "SIM:BANK1"}', b'{"symbol": "UNKNOWN", "time": 1, "price": 1}']


class Run(NamedTuple):
    """What was at work, and when (wall time in seconds)."""

    watched: Watched
    began_s: float
    ended_s: float


def settings(bootstrap: str, topic: str, port: int, symbols: tuple[str, ...]) -> str:
    """Return the configuration file."""
    universe = UNIVERSE | {"symbols": list(symbols)}
    lines = [f"{key} = {_as_toml(value)}" for key, value in universe.items()]
    return f"""
        app = "{topic}"
        [kafka]
        bootstrap_servers = "{bootstrap}"
        [input]
        topics = ["{topic}"]
        rejects_per_second = 1
        [output]
        prefix = "{topic}"
        [snapshots]
        folder = "states"
        replay_cost = "200ms"
        [refit]
        late = "wait"
        timeout = "5m"
        [http]
        port = {port}
        [metrics]
        pairs = [{json.dumps(symbols[:2])}]
        [[universe]]
        """ + "\n".join(lines)


def _as_toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {_as_toml(v)}" for k, v in value.items()) + "}"
    return json.dumps(value) if isinstance(value, list) else as_toml(value)


@contextlib.asynccontextmanager
async def process(folder: Path, *words: object) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a command until the context ends, and end it as systemd would."""
    with (folder / f"{words[0]}.log").open("ab") as log:
        child = await asyncio.create_subprocess_exec(
            *COMMAND, *map(str, words), cwd=folder, env=environment(), stdout=log, stderr=log
        )
        try:
            yield child
        finally:
            if child.returncode is None:
                child.send_signal(signal.SIGTERM)
            await asyncio.wait_for(child.wait(), 60.0)


async def is_reading(client: aiohttp.ClientSession, url: str) -> None:
    """Wait until the service lacks nothing but ticks."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            with contextlib.suppress(aiohttp.ClientConnectorError):
                async with client.get(f"{url}/readyz") as answer:
                    reasons = (await answer.json())["reasons"]
                if all(reason.endswith("no matrix yet") for reason in reasons):
                    return
            await asyncio.sleep(0.1)


async def view(client: aiohttp.ClientSession, url: str) -> None:
    """Look at the live view, for ever."""
    while True:
        with contextlib.suppress(aiohttp.ClientError):
            async with client.ws_connect(f"{url}/ws") as socket:
                await socket.send_json({"watch": [UNIVERSE["name"], "ewma"]})
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.BINARY:
                        await socket.send_json({"drawn": 1})
        await asyncio.sleep(0.2)


def values(symbols: tuple[str, ...]) -> Iterator[tuple[int, list[bytes]]]:
    """Yield (partition, values of a tick): the tick, and now and then what is wrong with it."""
    for i, tick in enumerate(simulate(seed=SEED, rate_hz=RATE_HZ).records()):
        sent = [json.dumps(tick).encode()]
        if i % 500 == 250:
            price, time_ns = float(tick["price"]), int(tick["time"])
            odd = [tick, tick | {"price": 3 * price}, tick | {"time": time_ns - 600 * 10**9}]
            sent += [*(json.dumps(one).encode() for one in odd), *GARBAGE]
        yield symbols.index(str(tick["symbol"])) % 2, sent


async def send(config: Config, topic: str, ticks: list[tuple[int, list[bytes]]]) -> None:
    """Write ticks evenly over their part of the time."""
    sink = KafkaSink(config.kafka)
    await sink.start()
    size = max(1, round(simulate(seed=SEED, rate_hz=RATE_HZ).time_ns.size * TURN_S / FEED_S))
    try:
        for at in range(0, len(ticks), size):
            due_s = time.monotonic() + TURN_S
            rows = ticks[at : at + size]
            await sink.publish([Output(topic, p, b"", v, ()) for p, sent in rows for v in sent])
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
    finally:
        await sink.close()


def frames() -> tuple[list[Frame], list[Frame]]:
    """Return what an exchange sends: a gap, a late one, garbage, a torn connection, and more."""
    now_ms = time.time_ns() // 1_000_000

    def one(ident: int) -> str:
        return trade("BTCUSDT", ident, f"{65_000 + ident / 8}", now_ms + ident * 100)

    first: list[Frame] = [4.0, one(1), one(2), one(9), one(5), '{"e": "trade"', 2.0, TEAR]
    second: list[Frame] = [part for ident in range(10, 400) for part in (0.1, one(ident))]
    return first, second


@contextlib.asynccontextmanager
async def feeding(folder: Path, bootstrap: str, topic: str, port: int) -> AsyncIterator[None]:
    """Run a live feed from an exchange of ours."""
    async with running_exchange(*frames()) as exchange:
        path = folder / "ccxt.toml"
        path.write_text(toml(exchange.settings(), "binance"), encoding="utf-8")
        words = ("--exchange", "binance", "--symbols", "BTC/USDT", "--topic", topic, "--create")
        how = ("--exchange-settings", path, "--metrics-port", port, "--bootstrap", bootstrap)
        async with process(folder, "feed", *words, *how):
            yield


async def at_end(watched: Watched, end_s: float) -> None:
    """Wait until the last matrices are scraped, and what the last alarm brought about."""
    newest = "min(stream_calib_last_matrix_event_timestamp_seconds) >= "
    done = [f"{newest}{end_s - 60}", "sum(stream_calib_drift_alarms_total) > 0"]
    async with asyncio.timeout(DEADLINE_S):
        while not all([await watched.query(query) for query in done]):  # noqa: ASYNC110 (it asks)
            await asyncio.sleep(0.5)
    await asyncio.sleep(3.0)  # three more scrapes


@contextlib.asynccontextmanager
async def run_through(folder: Path, bootstrap: str, binary: Path) -> AsyncIterator[Run]:
    """Let all of them work until all ticks are through, and keep Prometheus until the end."""
    topic, began_s = f"boards-{uuid.uuid4().hex[:12]}", time.time()
    port, feed_port = free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    truth = simulate(seed=SEED, rate_hz=RATE_HZ)
    file = folder / "config.toml"
    file.write_text(settings(bootstrap, topic, port, truth.symbols))
    config = load_config(file)
    await ensure_topics(config.kafka, [*input_topics(config, 2), *output_topics(config)])
    (folder / TOKEN_FILE).write_text("nobody asks for it")
    scraped = folder / "prometheus.yml"
    scraped.write_text(fast_config(f"127.0.0.1:{port}", f"127.0.0.1:{feed_port}"))
    ticks = list(values(truth.symbols))
    cut = int(RESTART_AT * len(ticks))
    async with (
        aiohttp.ClientSession() as client,
        prometheus(binary, scraped, folder) as address,
        feeding(folder, bootstrap, f"{topic}-live", feed_port),
    ):
        watched = Watched(address, client)
        assert await answers(client, address), (folder / "prometheus.log").read_text()
        looking = asyncio.create_task(view(client, url))
        try:
            async with process(folder, "run", "--config", file):
                await is_reading(client, url)
                await send(config, topic, ticks[:cut])
            async with process(folder, "run", "--config", file):
                await is_reading(client, url)
                await send(config, topic, ticks[cut:])
                await at_end(watched, float(truth.time_ns[-1]) / 1e9)
                yield Run(watched, began_s, time.time())
        finally:
            looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await looking
