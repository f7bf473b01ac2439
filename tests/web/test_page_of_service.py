"""The page of a running service shows what is in its topic, a break and what it does about it."""

import asyncio
import contextlib
import json
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stream_calib as sc
from stream_calib.adapters.embedded import EmbeddedLog
from stream_calib.adapters.kafka import KafkaSink, ensure_topics
from stream_calib.cli.demo import UNIVERSE
from stream_calib.config import Config, parse_config
from stream_calib.service.topics import input_topics, output_topics
from stream_calib.service.wiring import Service, embedded_service, kafka_service
from stream_calib.simulation import SimulatedTicks, simulate
from stream_calib.values import Matrix, Output
from stream_calib.wire.matrices import decode
from tests.web.browser import Page, chromium
from tests.web.walking import (
    HEAT,
    LONG_S,
    Downloaded,
    Shown,
    assert_well,
    choose_estimator,
    choose_pairs,
    download,
    number,
    pause_while_it_goes_on,
    pictures,
    shown,
)


@pytest.fixture
async def page(require_binary: Callable[[str], Path], tmp_path: Path) -> AsyncIterator[Page]:
    async with (
        chromium(require_binary("chromium"), tmp_path / "chromium") as browser,
        browser.tab() as tab,
    ):
        await tab.resize(1280, 1000)
        yield tab
        assert_well(tab)


def settings(truth: SimulatedTicks, bootstrap: str | None = None) -> dict[str, Any]:
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
    return given | ({"kafka": {"bootstrap_servers": bootstrap}} if bootstrap else {})


def on_port(given: dict[str, Any], port: int) -> Config:
    return parse_config(given | {"http": {"port": port}})


@pytest.fixture(scope="module")
def truth() -> SimulatedTicks:
    return simulate(seed=20250304, rate_hz=2.0)  # those of the demo: a break in the middle


async def test_the_page_shows_what_is_in_the_topic_and_does_what_it_is_told(
    page: Page, truth: SimulatedTicks, tmp_path: Path
) -> None:
    given = settings(truth)
    config = on_port(given, 0)
    (ticks,) = config.topics_of(config.universe[0])
    log = EmbeddedLog()
    for name in (ticks, *(spec.name for spec in output_topics(config))):
        log.create_topic(name)
    for record in truth.records():
        log.append(ticks, 0, None, json.dumps(record).encode())

    async def matrices() -> list[Matrix]:
        topic = f"{config.output.prefix}.correlations"
        records = log.newest(topic, 0, log.bounds(topic, 0)[1])
        return [decode(record.value) for record in records if record.value]

    def new_service(port: int) -> Service:
        return embedded_service(on_port(given, port), log, lambda: False)

    await walk(page, new_service, truth, matrices, tmp_path)


async def test_the_same_through_a_real_kafka(
    page: Page, truth: SimulatedTicks, kafka_bootstrap: str, tmp_path: Path
) -> None:
    given = settings(truth, kafka_bootstrap)
    config = on_port(given, 0)
    (ticks,) = config.topics_of(config.universe[0])
    await ensure_topics(config.kafka, [*input_topics(config, 1), *output_topics(config)])
    sink = KafkaSink(config.kafka)
    await sink.start()
    values = [json.dumps(record).encode() for record in truth.records()]
    for at in range(0, len(values), 5000):
        await sink.publish([Output(ticks, 0, b"", v, ()) for v in values[at : at + 5000]])
    await sink.close()

    async def matrices() -> list[Matrix]:
        topic = f"{config.output.prefix}.correlations"
        stream = sc.subscribe(kafka_bootstrap, topic=topic, start="earliest", follow=False)
        return [matrix async for matrix in stream]

    def new_service(port: int) -> Service:
        return kafka_service(on_port(given, port))

    await walk(page, new_service, truth, matrices, tmp_path)


async def walk(
    page: Page,
    new_service: Callable[[int], Service],
    truth: SimulatedTicks,
    matrices: Callable[[], Awaitable[list[Matrix]]],
    folder: Path,
) -> None:
    """Do all that a user does with a service and with the one that is started after it."""
    downloads = folder / "downloads"
    downloads.mkdir()
    async with running(new_service(0)) as (service, url):
        await page.open(url)
        await page.until(f"{HEAT}.dataset.drawn > 0", LONG_S)
        await pause_while_it_goes_on(page, "demo", "ewma")
        seen = []
        for estimator in ("ewma", "dcc"):
            await choose_estimator(page, estimator)
            seen.append(await shown(page))
        await see_the_break(page, truth)
        seen += [await shown(page), *await choose_pairs(page)]
        saved = await download(page, downloads)
        taken = await pictures(page)
        port = service.http.port
    await page.until("document.getElementById('badges').textContent.includes('no connection')")
    published = await matrices()
    check(seen, published, saved)
    for picture in taken.values():
        assert picture.startswith(b"\x89PNG")
    assert taken["light"] != taken["dark"]
    async with running(new_service(port)) as (_, url):
        await see_what_there_was(page, url, published)
        assert_only_refused(page)
        await page.leave()


@contextlib.asynccontextmanager
async def running(service: Service) -> AsyncIterator[tuple[Service, str]]:
    stop = asyncio.Event()
    task = asyncio.create_task(service.run(stop))
    try:
        while not (service.http.url or task.done()):  # noqa: ASYNC110 (it has no event for it)
            await asyncio.sleep(0.01)
        yield service, service.http.url
    finally:
        stop.set()
        await task


async def see_the_break(page: Page, truth: SimulatedTicks) -> None:
    # 30 s before the end there is the last matrix but one
    end_s = int(truth.time_ns[-1]) / 1e9 - 30
    newest = "fetch('/api/summary/demo/ewma').then((x) => x.json()).then((x) => x.time_ns.at(-1))"
    await page.until(f"{newest}.then((text) => text / 1e9 > {end_s})", LONG_S)
    events = "document.getElementById('events').innerText"
    await page.until(
        f"/Drift alarm/.test({events}) && /A model is installed/.test({events})", LONG_S
    )
    await choose_estimator(page, "ewma")
    regime = "document.getElementById('regime-text').textContent"
    average = f"parseFloat({regime}.match(/correlation .([\\d.]+)/)[1])"
    await page.until(f"{average} > 0.5", LONG_S)  # .24 before


async def see_what_there_was(page: Page, url: str, published: Sequence[Matrix]) -> None:
    """The page that stayed open, and a new one, show the newest matrices of the topic."""
    newest = {m.estimator: m for m in published}
    await page.until("document.getElementById('badges').textContent.includes('live')", LONG_S)
    for fresh in (False, True):
        if fresh:
            assert_only_refused(page)
            await page.open(url)
        for estimator in ("ewma", "dcc"):
            await choose_estimator(page, estimator)
            await page.until(f"{HEAT}.dataset.sequence == {newest[estimator].sequence}", LONG_S)
            check_row(await shown(page), newest[estimator])
    for path in ("summary/demo/dcc", "summary/demo/ewma", "summary/demo/difference"):
        lines = await page.run(f"fetch('/api/{path}').then((x) => x.json())")
        assert len(lines["time_ns"]) > 10
    assert await page.run("document.getElementById('events').innerText.includes('Drift alarm')")


def assert_only_refused(page: Page) -> None:
    """A page that was open while there was no service has that to complain of, and no more."""
    gone = "ERR_CONNECTION_REFUSED"
    assert [one for one in page.complaints if gone not in one and "WebSocket" not in one] == []
    page.complaints.clear()


def check(seen: Sequence[Shown], published: Sequence[Matrix], saved: Downloaded) -> None:
    """Hold what was shown against what is in the topic."""
    by_number = {(m.estimator, m.sequence): m for m in published}
    assert [one.estimator for one in seen] == ["ewma", "dcc", *["ewma"] * 4]
    for one in seen:
        check_row(one, by_number[one.estimator, one.sequence])
    matrix = by_number[saved.estimator, saved.sequence]
    at = [matrix.index(name) for name in saved.symbols]
    assert len(at) == len(matrix.symbols)
    # frames are float32, of which seven digits are written
    np.testing.assert_allclose(saved.corr, matrix.corr[np.ix_(at, at)], atol=2e-7)


def check_row(one: Shown, matrix: Matrix) -> None:
    i = matrix.index(one.symbol)
    assert set(one.row) == set(matrix.symbols) - {one.symbol}
    expected = [matrix.corr[i, matrix.index(other)] for other in one.row]
    # three digits are shown
    np.testing.assert_allclose([*one.row.values()], expected, atol=0.000501)
    said = re.fullmatch(r"(.+) ~ (.+): (\S+), standard error (\S+), 95 % .+", one.pair)
    assert said is not None
    a, b, corr, error = said.groups()
    a, b = matrix.index(a), matrix.index(b)
    assert i == a
    assert number(corr) == pytest.approx(matrix.corr[a, b], abs=0.000501)
    assert float(error) == pytest.approx(matrix.band[a, b], abs=0.00052)  # in 1/65534 besides
