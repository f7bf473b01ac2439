"""The page of a running service shows what is in its topic, a break and what it does about it."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest

from stream_calib.adapters.embedded import EmbeddedLog
from stream_calib.config import Config, parse_config
from stream_calib.service.wiring import embedded_service, output_topics
from stream_calib.simulation import simulate
from stream_calib.values import Effects, Matrix
from tests.web.browser import Page, chromium

HEAT = "document.getElementById('heat')"
"""The chosen row, by symbol, as the page shows it."""
ROW = """Object.fromEntries([...document.querySelectorAll('#whole-row tbody tr')]
  .map((row) => [row.cells[0].textContent, row.cells[1].textContent]))"""


@pytest.fixture
async def page(require_binary: Callable[[str], Path], tmp_path: Path) -> AsyncIterator[Page]:
    async with (
        chromium(require_binary("chromium"), tmp_path / "chromium") as browser,
        browser.tab() as tab,
    ):
        await tab.resize(1280, 1000)
        yield tab
        assert tab.complaints == []


def settings(symbols: tuple[str, ...]) -> Config:
    universe = {
        "name": "demo",
        "symbols": list(symbols),
        "bar": "5s",
        "every": 4,
        "ewma": {"half_life": "12m", "window": "20s"},
        "dcc": {"bar": "20s", "first_fit_bars": 100, "refit_bars": 50, "window_bars": 300},
    }
    return parse_config(
        {
            "universe": [universe],
            "input": {"topics": ["ticks"]},
            "http": {"port": 0},
            "refit": {"late": "wait"},
        }
    )


async def test_the_page_shows_the_numbers_of_the_topic_and_the_break(page: Page) -> None:
    truth = simulate(seed=20250304, rate_hz=2.0)  # the demo's
    config = settings(truth.symbols)
    log, fed, published = EmbeddedLog(), asyncio.Event(), dict[str, Matrix]()
    for name in ("ticks", *(spec.name for spec in output_topics(config))):
        log.create_topic(name)

    def note(_: str, effects: Effects) -> None:
        published.update({m.estimator: m for m in effects.matrices})

    service = embedded_service(config, log, fed.is_set, note)
    stop = asyncio.Event()
    running = asyncio.create_task(service.run(stop))
    for record in truth.records():
        log.append("ticks", 0, None, json.dumps(record).encode())
    while not service.http.url:  # noqa: ASYNC110 (it has no event for it)
        await asyncio.sleep(0.01)
    await page.open(service.http.url)
    await page.until(f"{HEAT}.dataset.drawn", 60)
    end_ns = int(truth.time_ns[-1])
    async with asyncio.timeout(120):
        while "ewma" not in published or end_ns - published["ewma"].as_of_ns > 30e9:
            await asyncio.sleep(0.05)
    for estimator in ("ewma", "dcc"):
        await page.until(f"document.querySelector('#estimators input[value={estimator}]') != null")
        await page.run(f"document.querySelector('#estimators input[value={estimator}]').click()")
        await shows(page, published, estimator)
    events = "document.getElementById('events').innerText"
    await page.until(f"/Drift alarm/.test({events}) && /A model is installed/.test({events})")
    regime = await page.run("document.getElementById('regime-text').textContent")
    found = re.search(r"Average correlation ([+\u2212][\d.]+)", regime)
    assert found is not None
    assert float(found[1]) > 0.5  # .24 before the break, .74 after it
    fed.set()
    stop.set()
    await running


async def shows(page: Page, published: dict[str, Matrix], estimator: str) -> None:
    """Hold the page's row of numbers against the newest matrix that became durable."""
    async with asyncio.timeout(20):
        while True:
            matrix = published[estimator]
            wanted = f"'{estimator}|{matrix.sequence}'"
            script = f"{HEAT}.dataset.estimator + '|' + {HEAT}.dataset.sequence == {wanted}"
            if await page.run(script):
                break
            await asyncio.sleep(0.05)
    symbol = await page.run("document.getElementById('row').value")
    await page.run("document.getElementById('row').dispatchEvent(new Event('change'))")
    row: dict[str, str] = await page.run(ROW)
    i = matrix.index(symbol)
    assert set(row) == set(matrix.symbols) - {symbol}
    shown = [float(text.replace("\u2212", "-")) for text in row.values()]
    expected = [matrix.corr[i, matrix.index(other)] for other in row]
    np.testing.assert_allclose(shown, expected, atol=0.000501)  # three digits are shown
