"""A walk over the page of a running service: what a user does with it, and what was shown."""

import asyncio
import csv
import io
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from stream_calib.values import F64
from tests.web.browser import Page

HEAT = "document.getElementById('heat')"
LIGHT, DARK = "rgb(251, 251, 250)", "rgb(20, 21, 23)"
CHOSEN = """(() => {
  const row = document.getElementById('row');
  row.dispatchEvent(new Event('change', { bubbles: true }));  // tables are a second old at most
  const rows = [...document.querySelectorAll('#whole-row tbody tr')];
  const heat = document.getElementById('heat').dataset;
  return {
    estimator: heat.estimator, sequence: Number(heat.sequence), symbol: row.value,
    row: Object.fromEntries(rows.map(({ cells }) => [cells[0].textContent, cells[1].textContent])),
    pair: document.getElementById('announced').textContent,
  };
})()"""
LONG_S = 300  # a busy machine; what is waited for takes seconds


class Shown(NamedTuple):
    """The numbers of a matrix as they were shown: a row of it, and one pair in words."""

    estimator: str
    sequence: int
    symbol: str
    row: dict[str, float]
    pair: str


class Downloaded(NamedTuple):
    """A CSV: which matrix, its symbols, its numbers (n, n)."""

    estimator: str
    sequence: int
    symbols: list[str]
    corr: F64


async def shown(page: Page) -> Shown:
    """Return what is shown now."""
    found: dict[str, Any] = await page.run(CHOSEN)
    found["row"] = {name: number(text) for name, text in found["row"].items()}
    return Shown(**found)


def number(text: str) -> float:
    """Read a number as the page writes it."""
    return float(text.replace("\u2212", "-"))


async def choose_estimator(page: Page, name: str) -> None:
    """Switch to an estimator, once there is one of that name."""
    button = f"document.querySelector('#estimators input[value={name}]')"
    # the buttons are made anew where a service is, so it is found and pressed in one step
    await page.until(f"({button}?.click(), {HEAT}.dataset.estimator == '{name}')", LONG_S)


async def pause_while_it_goes_on(page: Page, universe: str, estimator: str) -> None:
    """Pause, see that the service publishes and the page stands still, and go on."""
    await page.run("document.getElementById('pause').click()")
    held = int(await page.run(f"{HEAT}.dataset.sequence"))
    newest = (
        "fetch('/api/universes').then((x) => x.json()).then((all) => "
        f"all.find((one) => one.name == '{universe}').estimators.{estimator}.sequence)"
    )
    await page.until(f"{newest}.then((k) => k > {held + 3})", LONG_S)
    assert int(await page.run(f"{HEAT}.dataset.sequence")) == held
    assert "paused" in await page.run("document.getElementById('badges').textContent")
    await page.run("document.getElementById('pause').click()")
    await page.until(f"{HEAT}.dataset.sequence > {held}", LONG_S)


async def choose_pairs(page: Page) -> list[Shown]:
    """Choose one pair by keys, one by name, and one by the pointer; return what was shown."""
    order = f"JSON.parse({HEAT}.dataset.order)"
    seen = []
    await page.run(f"{HEAT}.focus()")
    await page.press("End")
    await page.press("ArrowDown")
    seen.append(await shown(page))
    last = await page.run(f"{order}.at(-1)")
    await page.run(f"document.getElementById('find').value = {order}.at(-1).toLowerCase()")
    await page.run("document.getElementById('find').dispatchEvent(new Event('change'))")
    seen.append(await shown(page))
    assert seen[-1].symbol == last
    box = await page.run(
        f"(({{ right, bottom }}) => [right, bottom])({HEAT}.getBoundingClientRect())"
    )
    first = await page.run("document.getElementById('row').value")
    await page.click(box[0] - 3, box[1] - box[1] / 3)
    await page.until(f"document.getElementById('row').value != '{first}'")
    seen.append(await shown(page))
    assert await page.run("document.getElementById('column').value") == last
    return seen


async def download(page: Page, folder: Path) -> Downloaded:
    """Download what is shown as CSV and PNG."""
    await page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    await page.run("document.getElementById('pause').click()")  # of one and the same matrix
    for suffix in ("csv", "png"):
        await page.run(f"document.getElementById('{suffix}').click()")
    async with asyncio.timeout(LONG_S):
        while len(files := _whole(folder)) < 2:  # noqa: ASYNC110 (the browser's files)
            await asyncio.sleep(0.05)
    await page.run("document.getElementById('pause').click()")
    table, picture = sorted(files)
    assert picture.read_bytes().startswith(b"\x89PNG")
    rows = list(csv.reader(io.StringIO(table.read_text(), newline="")))
    _, estimator, sequence = table.stem.rsplit("-", 2)
    numbers = [[float(text) for text in row[1:]] for row in rows[1:]]
    assert [row[0] for row in rows[1:]] == rows[0][1:]
    return Downloaded(estimator, int(sequence), rows[0][1:], np.array(numbers))


def _whole(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if p.suffix in {".csv", ".png"} and p.stat().st_size]


async def pictures(page: Page) -> dict[str, bytes]:
    """Return what the README shows: EWMA in light colours and DCC in dark ones."""
    taken = {}
    for name, ground, estimator in (("light", LIGHT, "ewma"), ("dark", DARK, "dcc")):
        await page.prefer(prefers_color_scheme=name)
        await choose_estimator(page, estimator)
        await page.until("document.querySelectorAll('#events li').length > 3", LONG_S)
        await page.until(f"getComputedStyle(document.body).backgroundColor == '{ground}'")
        await page.until("document.querySelectorAll('#moved tbody tr').length > 0", LONG_S)
        await page.run("document.activeElement.blur()")
        await asyncio.sleep(1.0)  # the past has been asked for and is drawn
        taken[name] = await page.picture()
    return taken


def assert_well(page: Page) -> None:
    """Nothing was complained of, and nothing asked of anybody but the service."""
    assert page.complaints == []
    hosts = {urlsplit(u).hostname for u in page.requests if not u.startswith(("blob:", "about:"))}
    assert hosts == {"127.0.0.1"}
