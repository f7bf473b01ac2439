"""``feed --exchange`` as its users run it: a process, an exchange, a real Kafka, and a scraper."""

import asyncio
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

pytest.importorskip("ccxt", reason="live feeds need the extra feed")

from deploy.kafka.broker import free_port
from stream_calib.adapters.kafka import read_tails
from stream_calib.config import KafkaConfig
from stream_calib.wire.ticks import decode
from tests.cli.command import Done, ended, is_one_sentence, spawn
from tests.contract.exchanges import (
    T0_MS,
    TEAR,
    Exchange,
    as_batch,
    columns,
    running_exchange,
    toml,
    trade,
)
from tests.real_parts import TopicMaker

SYMBOLS = {"BINANCE:BTCUSDT": 0, "BINANCE:ETHUSDT": 1}


def written(folder: Path, exchange: Exchange) -> Path:
    path = folder / "ccxt.toml"
    path.write_text(toml(exchange.settings(), "binance"), encoding="utf-8")
    return path


async def said(process: "subprocess.Popen[str]", pattern: str) -> str:
    """Wait for a line on standard error."""
    assert process.stderr is not None
    async with asyncio.timeout(60.0):
        while line := await asyncio.to_thread(process.stderr.readline):
            if found := re.search(pattern, line):
                return found[1]
    pytest.fail(f"it ended without saying {pattern}")


def object_to(promtool: Path, text: str) -> None:
    """Fail if promtool does not like the metrics."""
    subprocess.run([promtool, "check", "metrics"], input=text, text=True, check=True)


async def test_live_trades_reach_kafka_and_the_scraper_and_a_signal_ends_it_with_the_counts(
    kafka_bootstrap: str,
    new_topic: TopicMaker,
    tmp_path: Path,
    require_binary: Callable[[str], Path],
) -> None:
    promtool = require_binary("promtool")
    topic = await new_topic("live", 3)
    idents = range(1, 301)
    frames = [
        trade(symbol, i, f"{price + i / 8:.4f}", T0_MS + i)
        for i in idents
        if i != 250
        for symbol, price in (("BTCUSDT", 65_000), ("ETHUSDT", 1_900))
    ]
    async with running_exchange([*frames[:200], TEAR], frames[190:]) as exchange:
        words = ("--exchange", "binance", "--symbols", "BTC/USDT,ETH/USDT", "--topic", topic)
        how = ("--exchange-settings", written(tmp_path, exchange), "--metrics-port", 0)
        process = spawn("feed", *words, *how, "--bootstrap", kafka_bootstrap)
        try:
            url = await said(process, r"metrics at (\S+)")
            done = 'feed_ticks_total{exchange="binance",outcome="written"} 598.0'
            async with aiohttp.ClientSession() as session:
                for _ in range(300):
                    text = await (await session.get(url)).text()
                    if done in text:
                        break
                    await asyncio.sleep(0.1)
                answer = await session.get(url.replace("/metrics", "/readyz"))
                ready = await answer.json()
            process.send_signal(signal.SIGTERM)
            end = await asyncio.to_thread(ended, process)
        finally:
            process.kill()
    assert ready == {"ready": True, "reasons": []}, (end.err, text)
    for line in (
        'feed_ticks_total{exchange="binance",outcome="repeated"} 10.0',
        'feed_reconnects_total{exchange="binance",reason="lost"} 1.0',
        'feed_gaps_total{exchange="binance"} 2.0',
        'feed_missed_total{exchange="binance"} 2.0',
        "feed_waiting_ticks 0.0",
    ):
        assert f"stream_calib_{line}" in text
    await asyncio.to_thread(object_to, promtool, text)
    assert end.code == 0
    assert "binance: 598 written, 10 repeated, 2 missed, 1 reconnects\n" in end.out
    assert "598 records in" in end.out
    tails = await read_tails(KafkaConfig(bootstrap_servers=kafka_bootstrap), [topic], 10_000)
    assert len(tails) > 1  # symbols are spread
    raw = decode(as_batch([frame.encode() for frame in frames]), "auto", SYMBOLS)
    batches = [decode(batch, "auto", SYMBOLS) for batch in tails]
    for asset in SYMBOLS.values():
        fed = [columns(batch, asset) for batch in batches]
        assert [rows for rows in fed if rows] == [columns(raw, asset)]  # of one partition


async def test_a_feed_ends_after_its_time_in_a_topic_that_it_made(
    kafka_bootstrap: str, new_topic: TopicMaker, tmp_path: Path
) -> None:
    name = f"{await new_topic('live')}-made"
    frames = [trade("BTCUSDT", i, "65000.5", T0_MS + i) for i in range(1, 11)]
    async with running_exchange(frames) as exchange:
        words = ("--exchange", "binance", "--symbols", "BTC/USDT", "--topic", name, "--create")
        how = ("--exchange-settings", written(tmp_path, exchange), "--duration-s", 6)
        process = spawn("feed", *words, *how, "--bootstrap", kafka_bootstrap)
        end = await asyncio.to_thread(ended, process)
    assert (end.code, end.err) == (0, "")
    assert end.out.startswith("binance: 10 written\n10 records in ")


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("--topic", "{topic}", "--symbols", "BTC/USDX"), 4, "binance has no BTC/USDX"),
        (("--topic", "{topic}-not", "--symbols", "BTC/USDT"), 6, "does not exist"),
        (("--topic", "{topic}", "--symbols", "BTC/USDT", "--nowhere"), 5, "cannot be reached"),
    ],
)
async def test_what_is_missing_at_the_start_is_one_sentence_with_its_code(
    kafka_bootstrap: str,
    new_topic: TopicMaker,
    tmp_path: Path,
    words: tuple[str, ...],
    code: int,
    sentence: str,
) -> None:
    topic = await new_topic("live")
    given = [word.format(topic=topic) for word in words if word != "--nowhere"]
    async with running_exchange() as exchange:
        if "--nowhere" in words:
            exchange.url = f"127.0.0.1:{free_port()}"
        how = ("--exchange-settings", written(tmp_path, exchange))
        process = spawn(
            "feed", "--exchange", "binance", *given, *how, "--bootstrap", kafka_bootstrap
        )
        end: Done = await asyncio.to_thread(ended, process)
    assert end.code == code, end.err
    assert is_one_sentence(end.err), end.err
    assert sentence in end.err
