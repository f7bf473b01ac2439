"""The page of a running service shows what is in its topic, a break and what it does about it."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stream_calib as sc
from stream_calib.adapters.embedded import EmbeddedLog
from stream_calib.adapters.kafka import KafkaSink, ensure_topics
from stream_calib.cli.demo import UNIVERSE
from stream_calib.config import Config, parse_config
from stream_calib.service.wiring import (
    Service,
    embedded_service,
    input_topics,
    kafka_service,
    output_topics,
)
from stream_calib.simulation import SimulatedTicks, simulate
from stream_calib.values import Matrix, Output
from stream_calib.wire.matrices import decode
from tests.web.browser import Page, chromium

HEAT = "document.getElementById('heat')"
CHOSEN = """(() => {
  const row = document.getElementById('row');
  row.dispatchEvent(new Event('change', { bubbles: true }));  // tables are a second old at most
  const rows = [...document.querySelectorAll('#whole-row tbody tr')];
  const heat = document.getElementById('heat').dataset;
  return {
    estimator: heat.estimator, sequence: Number(heat.sequence), symbol: row.value,
    row: Object.fromEntries(rows.map(({ cells }) => [cells[0].textContent, cells[1].textContent])),
  };
})()"""


@pytest.fixture
async def page(require_binary: Callable[[str], Path], tmp_path: Path) -> AsyncIterator[Page]:
    async with (
        chromium(require_binary("chromium"), tmp_path / "chromium") as browser,
        browser.tab() as tab,
    ):
        await tab.resize(1280, 1000)
        yield tab
        assert tab.complaints == []


def settings(truth: SimulatedTicks, bootstrap: str | None = None) -> Config:
    run = f"page-{uuid.uuid4().hex[:8]}"
    universe = UNIVERSE | {"symbols": list(truth.symbols)}
    given: dict[str, Any] = {
        "universe": [universe],
        "input": {"topics": [f"{run}.ticks"]},
        "output": {"prefix": run},
        "http": {"port": 0},
        "refit": {"late": "wait"},
        "snapshots": {"enabled": False},
    }
    return parse_config(given | ({"kafka": {"bootstrap_servers": bootstrap}} if bootstrap else {}))


@pytest.fixture(scope="module")
def truth() -> SimulatedTicks:
    return simulate(seed=20250304, rate_hz=2.0)  # those of the demo: a break in the middle


async def test_the_page_shows_the_numbers_of_the_topic_and_the_break(
    page: Page, truth: SimulatedTicks
) -> None:
    config = settings(truth)
    (ticks,) = config.topics_of(config.universe[0])
    log = EmbeddedLog()
    for name in (ticks, *(spec.name for spec in output_topics(config))):
        log.create_topic(name)
    for record in truth.records():
        log.append(ticks, 0, None, json.dumps(record).encode())
    seen = await watch(page, embedded_service(config, log, lambda: False), truth)
    _, stop = log.bounds(f"{config.output.prefix}.correlations", 0)
    records = log.read(f"{config.output.prefix}.correlations", 0, 0, stop)
    matrices = [decode(record.value) for record in records if record.value]
    check(seen, {(m.estimator, m.sequence): m for m in matrices})


async def test_the_same_through_a_real_kafka(
    page: Page, truth: SimulatedTicks, kafka_bootstrap: str
) -> None:
    config = settings(truth, kafka_bootstrap)
    (ticks,) = config.topics_of(config.universe[0])
    await ensure_topics(config.kafka, [*input_topics(config, 1), *output_topics(config)])
    sink = KafkaSink(config.kafka)
    await sink.start()
    values = [json.dumps(record).encode() for record in truth.records()]
    for at in range(0, len(values), 5000):
        await sink.publish([Output(ticks, 0, b"", v, ()) for v in values[at : at + 5000]])
    await sink.close()
    seen = await watch(page, kafka_service(config), truth)
    topic = f"{config.output.prefix}.correlations"
    stream = sc.subscribe(kafka_bootstrap, topic=topic, start="earliest", follow=False)
    check(seen, {(m.estimator, m.sequence): m async for m in stream})


async def watch(page: Page, service: Service, truth: SimulatedTicks) -> list[dict[str, Any]]:
    """Look at both estimators until the last ticks are in, and return what was shown."""
    stop = asyncio.Event()
    running = asyncio.create_task(service.run(stop))
    try:
        while not service.http.url:  # noqa: ASYNC110 (it has no event for it)
            await asyncio.sleep(0.01)
        await page.open(service.http.url)
        seen = []
        for estimator in ("ewma", "dcc"):
            button = f"document.querySelector('#estimators input[value={estimator}]')"
            await page.until(f"{button} != null", 90)
            await page.run(f"{button}.click()")
            await page.until(f"{HEAT}.dataset.estimator == '{estimator}'")
            seen.append(await page.run(CHOSEN))
        # 30 s before the end there is the last matrix but one
        end_s = int(truth.time_ns[-1]) / 1e9 - 30
        newest = (
            "fetch('/api/summary/demo/ewma').then((x) => x.json()).then((x) => x.time_ns.at(-1))"
        )
        await page.until(f"{newest}.then((text) => text / 1e9 > {end_s})", 120)
        events = "document.getElementById('events').innerText"
        await page.until(f"/Drift alarm/.test({events}) && /A model is installed/.test({events})")
        await page.run("document.querySelector('#estimators input[value=ewma]').click()")
        regime = "document.getElementById('regime-text').textContent"
        average = f"parseFloat({regime}.match(/correlation .([\\d.]+)/)[1])"
        await page.until(f"{HEAT}.dataset.estimator == 'ewma' && {average} > 0.5")  # .24 before
        seen.append(await page.run(CHOSEN))
        await page.open("about:blank")  # or it would ask for what is not there any more
    finally:
        stop.set()
        await running
    return seen


def check(seen: list[dict[str, Any]], matrices: Mapping[tuple[str, int], Matrix]) -> None:
    """Hold what was shown against what is in the topic."""
    assert [one["estimator"] for one in seen] == ["ewma", "dcc", "ewma"]
    for one in seen:
        matrix = matrices[one["estimator"], one["sequence"]]
        i = matrix.index(one["symbol"])
        assert set(one["row"]) == set(matrix.symbols) - {one["symbol"]}
        shown = [float(text.replace("\u2212", "-")) for text in one["row"].values()]
        expected = [matrix.corr[i, matrix.index(other)] for other in one["row"]]
        np.testing.assert_allclose(shown, expected, atol=0.000501)  # three digits are shown
