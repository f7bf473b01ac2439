"""``deploy/metrics.md`` says what is exported, and a service at work exports just that."""

import asyncio
import json
import re
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from deploy.prometheus import reference
from stream_calib.adapters.embedded import EmbeddedCommitLog, EmbeddedLog, EmbeddedSource
from stream_calib.adapters.prometheus import (
    FEED_METRICS,
    LABEL_VALUES,
    METRICS,
    PREFIX,
    FeedMetrics,
    Metric,
)
from stream_calib.adapters.snapshots import SnapshotFolder
from stream_calib.config import parse_config
from stream_calib.errors import TransportError
from stream_calib.service.topics import output_topics, topics_by_role
from stream_calib.service.wiring import Adapters, Service
from stream_calib.simulation import simulate
from stream_calib.values import FeedCounts, Output, Source

EXPORTED_S = 300.0  # for a machine ten times as slow
SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
ROWS = {row.name: row for row in (*METRICS, *FEED_METRICS)}
LAST = (  # to happen of what is awaited
    'recoveries_total{universe="coins"} 2.0',
    'rejects_total{reason="outlier",universe="coins"} 1.0',
)
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count")}


class FailingOnce(EmbeddedCommitLog):
    """A commit log whose tenth commit gets no answer."""

    commits = 0

    async def commit(
        self, outputs: Sequence[Output], entry: Output, positions: Mapping[Source, int]
    ) -> int:
        FailingOnce.commits += 1
        if FailingOnce.commits == 10:
            message = "nobody answered"
            raise TransportError(message)
        return await super().commit(outputs, entry, positions)


class Scraped(NamedTuple):
    """What a service said: its metrics as text, and the samples with our prefix."""

    text: str
    samples: Mapping[str, Sequence[Mapping[str, str]]]


def parsed(text: str) -> Scraped:
    samples: dict[str, list[Mapping[str, str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith(PREFIX):
                samples.setdefault(sample.name.removeprefix(PREFIX), []).append(sample.labels)
    return Scraped(text, samples)


def names_of(rows: Sequence[Metric]) -> set[str]:
    return {row.name + suffix for row in rows for suffix in SUFFIXES.get(row.kind, ("",))}


def records() -> list[bytes]:
    """Return half an hour of ticks, among them a print far off, and what nobody can read."""
    ticks = list(simulate(3, 1800.0, seed=8, symbols=SYMBOLS, rate_hz=2.0).records())
    later = len(ticks) // 2
    ticks[later] = {**ticks[later], "price": 1.2 * float(str(ticks[later]["price"]))}
    lines = [json.dumps(tick).encode() for tick in ticks]
    lines[later:later] = [b"garbage", b""]
    return lines


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scraped(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scraped]:
    dcc = {"bar": "4s", "first_fit_bars": 100, "refit_bars": 100, "window_bars": 300}
    ewma = {"half_life": "5m", "window": "4s"}
    config = parse_config(
        {
            "universe": [
                {"name": "coins", "symbols": SYMBOLS, "bar": "2s", "ewma": ewma, "dcc": dcc}
            ],
            "http": {"port": 0},
            "refit": {"late": "wait"},
            "metrics": {"pairs": [["ETH/USDT", "BTC/USDT"]]},
        }
    )
    log = EmbeddedLog()
    for name in ("ticks", *(spec.name for spec in output_topics(config))):
        log.create_topic(name)
    topics, folder = topics_by_role(config), tmp_path_factory.mktemp("snapshots")
    FailingOnce.commits = 0
    adapters = Adapters(
        lambda _: EmbeddedSource(log, ("ticks",)),
        lambda _: FailingOnce(log, topics),
        lambda _: SnapshotFolder(folder),
    )
    service, stop = Service(config, adapters, compile_s=0.5), asyncio.Event()
    running = asyncio.create_task(service.run(stop))
    async with aiohttp.ClientSession() as client:
        for line in records():
            log.append("ticks", 0, None, line)
        text, deadline = "", time.monotonic() + EXPORTED_S
        while not service.http.url:  # noqa: ASYNC110 (it has no event for it)
            await asyncio.sleep(0.01)
        async with client.ws_connect(f"{service.http.url}/ws") as socket:
            await socket.send_json({"watch": ["coins", "ewma"]})
            await socket.receive_bytes(timeout=EXPORTED_S)
            while time.monotonic() < deadline and not running.done():
                async with client.get(f"{service.http.url}/metrics") as response:
                    text = await response.text()
                whole = names_of(METRICS) <= parsed(text).samples.keys()
                if whole and all(f"{PREFIX}{line}\n" in text for line in LAST):
                    break
                await asyncio.sleep(0.2)
    stop.set()
    await running
    yield parsed(text)


def test_the_page_is_what_its_command_writes() -> None:
    command = "python deploy/prometheus/reference.py"
    assert reference.PATH.read_text() == reference.render(), f"run {command}"


def test_every_name_is_listed_once() -> None:
    assert len(ROWS) == len(METRICS) + len(FEED_METRICS)
    page = reference.PATH.read_text()
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(ROWS)


def test_values_are_told_of_labels_that_there_are() -> None:
    labels = {f"{row.name}.{label}" for row in ROWS.values() for label in row.labels}
    labels |= {label for row in ROWS.values() for label in row.labels}
    assert LABEL_VALUES.keys() <= labels


@pytest.mark.asyncio(loop_scope="module")
async def test_a_service_at_work_exports_every_metric_and_no_other(scraped: Scraped) -> None:
    assert names_of(METRICS) - scraped.samples.keys() == set()
    assert scraped.samples.keys() - names_of(METRICS) == set()


@pytest.mark.asyncio(loop_scope="module")
async def test_it_exports_the_labels_that_the_page_tells_of(scraped: Scraped) -> None:
    for row in METRICS:
        (*_, name) = SUFFIXES.get(row.kind, (row.name,))
        for labels in scraped.samples[row.name + name if row.kind == "histogram" else row.name]:
            assert set(labels) == set(row.labels), row.name
            for label, shown in labels.items():
                told = LABEL_VALUES.get(f"{row.name}.{label}", LABEL_VALUES.get(label, ""))
                assert isinstance(told, str) or shown in told, (row.name, label)


@pytest.mark.asyncio(loop_scope="module")
async def test_what_happened_in_the_run_is_counted(scraped: Scraped) -> None:
    def number(name: str, **labels: str) -> float:
        text = ",".join(f'{label}="{shown}"' for label, shown in sorted(labels.items()))
        found = re.search(rf"^{PREFIX}{name}\{{{text}\}} (\S+)$", scraped.text, re.MULTILINE)
        assert found is not None, name
        return float(found[1])

    fx = {"universe": "coins"}
    assert number("commits_total", outcome="failed", **fx) == 1
    assert number("restarts_total", reason="TransportError", **fx) == 1
    assert number("recoveries_total", **fx) == 2
    assert number("snapshots_total", outcome="saved", **fx) >= 1
    assert number("rejects_total", reason="outlier", **fx) == 1
    assert number("refits_total", outcome="fitted", **fx) >= 1
    assert number("model_version", **fx) >= 2
    assert 0 < number("model_age_seconds", **fx) < 1800
    assert number("snapshot_distance_seconds", **fx) >= 0
    assert number("watermark_age_seconds", **fx) == 86_400  # these ticks are of 2025
    pair = {"pair": "ETH/USDT ~ BTC/USDT", "estimator": "dcc", **fx}
    assert -1 < number("pair_correlation", **pair) < 1
    assert 0 < number("pair_standard_error", **pair) < 1


def feed_metrics() -> FeedMetrics:
    counts = FeedCounts(messages=9, written=7, lag_s=0.2)
    return FeedMetrics({"binance": counts, "kraken": FeedCounts()}, lambda: 3)


def test_a_feed_exports_every_metric_of_its_own_and_no_other() -> None:
    found = parsed(feed_metrics().render()[0].decode())
    assert found.samples.keys() == names_of(FEED_METRICS)
    for row in FEED_METRICS:
        for labels in found.samples[row.name]:
            assert set(labels) == set(row.labels)
            told = LABEL_VALUES.get(f"{row.name}.outcome", LABEL_VALUES.get(f"{row.name}.reason"))
            assert told is None or {*labels.values()} & {*told}


def objections(promtool: Path, text: str) -> str:
    command = [str(promtool), "check", "metrics"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode or done.stderr else ""


@pytest.mark.asyncio(loop_scope="module")
async def test_promtool_has_no_objection_to_what_a_service_exports(
    scraped: Scraped, require_binary: Callable[[str], Path]
) -> None:
    promtool = require_binary("promtool")
    assert await asyncio.to_thread(objections, promtool, scraped.text) == ""
    # of a feed at work: tests/kafka/test_feed_live.py
    assert await asyncio.to_thread(objections, promtool, feed_metrics().render()[0].decode()) == ""
