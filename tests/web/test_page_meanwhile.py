"""A page that stays open, while symbols join, the service stands still, or begins anew."""

import asyncio
import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stream_calib.adapters.http import HttpServer, LiveView
from stream_calib.config import HttpConfig
from stream_calib.values import SECOND_NS, Event
from tests.web.browser import Page, chromium
from tests.web.showing import T0_NS, blocks, effects_of, matrix_of, serving
from tests.web.target import target
from tests.web.test_page import HEAT, drawn, look, select, text

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAID = "document.getElementById('badges').innerText"
LATER = "((now) => {{ performance.now = () => now() + {ms}; }})(performance.now.bind(performance))"
EVENTS = "[...document.querySelectorAll('#events li')].length"


async def pair_is(page: Page, a: str, b: str) -> bool:
    shown = [await page.run(f"document.getElementById('{i}').value") for i in ("row", "column")]
    return shown == [a, b] and (await text(page, "selected")).startswith(f"{a} ~ {b}: ")


async def test_the_chosen_pair_stays_named_when_a_symbol_joins(
    page: Page, served: tuple[HttpServer, LiveView]
) -> None:
    await look(page, served, matrix_of(blocks(6, 2), symbols="BCDEFG"))
    await select(page, "column", "G")
    await select(page, "row", "D")
    assert await pair_is(page, "D", "G")
    served[1].show("fx", effects_of(matrix_of(blocks(7, 2), 2, symbols="ABCDEFG")))
    await drawn(page, 2)
    assert await pair_is(page, "D", "G")
    await select(page, "column", "E")
    assert await pair_is(page, "D", "E")


async def test_a_symbol_with_itself_is_no_pair_and_the_lists_say_so(
    page: Page, served: tuple[HttpServer, LiveView]
) -> None:
    await look(page, served, matrix_of(blocks(6, 2), symbols="ABCDEF"))
    await select(page, "row", "B")
    await select(page, "column", "F")
    await select(page, "column", "B")
    assert await pair_is(page, "B", "F")


async def test_a_service_that_stands_still_is_told_of(page: Page) -> None:
    with target() as stopped:
        await page.open(stopped.url)
        await page.until(f"{HEAT}.dataset.drawn > 5 && {SAID}.startsWith('live')")
        os.kill(stopped.pid, signal.SIGSTOP)
        try:
            asked = "import('/connection.js').then(({ get }) => get('state'))"
            given_up = asyncio.create_task(page.run(f"{asked}.catch((error) => error.name)"))
            await page.until(f"{SAID}.startsWith('no connection')")
            assert await given_up == "TimeoutError"
        finally:
            os.kill(stopped.pid, signal.SIGCONT)
        await page.until(f"{SAID}.startsWith('live')")
        await page.leave()


async def test_silence_is_told_of_without_waiting_for_an_answer(page: Page) -> None:
    with target() as stopped:
        await page.open(stopped.url)
        await page.until(f"{HEAT}.dataset.drawn > 5 && {SAID}.startsWith('live')")
        os.kill(stopped.pid, signal.SIGSTOP)
        try:
            await page.run("fetch('/api/state').catch(() => {}) && 0")  # of all that wait
            await page.run(LATER.format(ms=120_000))
            await page.until(f"{SAID}.startsWith('nothing new for 2 min')", seconds=8)
        finally:
            os.kill(stopped.pid, signal.SIGCONT)
        await page.leave()


async def test_an_estimator_that_is_slower_is_not_silent_between_its_matrices(page: Page) -> None:
    periods_s = {("fx", "ewma"): 1.0, ("fx", "dcc"): 60.0}
    async with serving(periods_s=periods_s) as (server, view, _):
        view.show("fx", effects_of(*(matrix_of(blocks(4, 2), k) for k in (1, 2))))
        view.show("fx", effects_of(matrix_of(blocks(4, 2), 1, "dcc")))
        await page.open(server.url)
        await drawn(page, 2)
        view.show("fx", effects_of(matrix_of(blocks(4, 2), 3)))  # a second after the one before
        await drawn(page, 3)
        await page.run("document.querySelector('#estimators input[value=dcc]').click()")
        await drawn(page, 1, "dcc")
        await page.run(LATER.format(ms=250_000))
        await page.run("new Promise((done) => setTimeout(done, 3000))")  # until it is judged again
        assert (await text(page, "badges")).startswith("live")
        await page.run(LATER.format(ms=60_000))
        await page.until(f"{SAID}.startsWith('nothing new for 5 min')")
        await page.leave()


@pytest.mark.parametrize("later_s", [-890, 10], ids=["of an older time", "of a later time"])
async def test_events_of_an_input_that_is_begun_anew_are_shown(page: Page, later_s: int) -> None:
    def event(number: int, kind: str) -> Event:
        return Event("fx", number, kind, T0_NS, {"reason": f"{kind} {number}"})

    async with serving() as (server, view, _):
        port, alarms = server.port, [event(k, "refit_failed") for k in range(1, 8)]
        view.show("fx", effects_of(matrix_of(blocks(4, 2), 900), events=alarms))
        await page.open(server.url)
        await page.until(f"{EVENTS} == 7")
    async with serving(HttpConfig(port=port)) as (_, view, _):
        fresh = [event(k, "refit_rolled_back") for k in range(1, 4)]
        as_of_ns = T0_NS + (900 + later_s) * SECOND_NS
        again = replace(matrix_of(blocks(4, 2), 1), as_of_ns=as_of_ns)
        view.show("fx", effects_of(again, events=fresh))
        await page.until(f"{EVENTS} == 3")
        assert "refit_failed" not in await text(page, "events")
        await page.leave()
    page.complaints.clear()  # that nobody was there


@pytest.mark.parametrize("has_matrix", [True, False], ids=["with a matrix", "without one yet"])
async def test_a_universe_that_was_renamed_is_left(page: Page, *, has_matrix: bool) -> None:
    async with serving() as (server, view, _):
        port = server.port
        alarm = Event("fx", 1, "refit_failed", T0_NS, {"reason": "x"})
        view.show("fx", effects_of(matrix_of(blocks(4, 2)), events=[alarm]))
        await page.open(server.url)
        await page.until(f"{EVENTS} == 1")
    async with serving(HttpConfig(port=port), universes=("other", "more")) as (_, view, _):
        if has_matrix:
            matrix = replace(matrix_of(blocks(3, 1), 5, symbols="PQR"), universe="other")
            view.show("other", effects_of(matrix))
            await drawn(page, 5)
            assert set(json.loads(await page.run(f"{HEAT}.dataset.order"))) == set("PQR")
        await page.until("document.getElementById('universe').value == 'other'")
        assert await page.run("document.getElementById('shown').hidden") != has_matrix
        assert await page.run(EVENTS) == 0
        await page.leave()
    page.complaints.clear()


async def test_the_list_of_universes_names_the_one_that_is_shown(page: Page) -> None:
    async with serving(universes=("fx",)) as (server, view, _):
        port = server.port
        view.show("fx", effects_of(matrix_of(blocks(3, 1))))
        await page.open(server.url)
        await drawn(page, 1)
    async with serving(HttpConfig(port=port), universes=("first", "fx")) as (_, view, _):
        view.show("fx", effects_of(matrix_of(blocks(3, 1), 2)))
        await drawn(page, 2)
        await page.until("document.getElementById('universe').options.length == 2")
        assert await page.run("document.getElementById('universe').value") == "fx"
        await page.leave()
    page.complaints.clear()


async def test_what_is_under_the_pointer_is_of_the_newest_matrix(
    page: Page, served: tuple[HttpServer, LiveView]
) -> None:
    await look(page, served, matrix_of(blocks(4, 1, 0.8)))
    await select(page, "order", "names")  # or others may come under it
    box = await page.run(f"(({{ x, y, width }}) => [x, y, width])({HEAT}.getBoundingClientRect())")
    await page.hover(box[0] + 0.9 * box[2], box[1] + 0.3 * box[2])
    before = await text(page, "tip")
    assert before.endswith(" +0.800")
    served[1].show("fx", effects_of(matrix_of(blocks(4, 1, 0.5), 2)))
    await drawn(page, 2)
    assert await text(page, "tip") == before.replace("0.800", "0.500")
    await page.hover(2, 2)
    served[1].show("fx", effects_of(matrix_of(blocks(4, 1, 0.4), 3)))
    await drawn(page, 3)
    assert await page.run("document.getElementById('tip').hidden")


async def test_choosing_while_the_service_is_away_is_no_defect_and_is_made_good(page: Page) -> None:
    async with serving() as (server, view, _):
        port = server.port
        matrices = [matrix_of(blocks(4, 2), k, symbols="ABCD") for k in range(1, 20)]
        view.show("fx", effects_of(*matrices))
        await page.open(server.url)
        await drawn(page, 19)
    await page.until(f"{SAID}.includes('no connection')")
    await select(page, "row", "B")
    await select(page, "column", "C")
    await asyncio.sleep(0.5)
    assert [said for said in page.complaints if "Uncaught" in said] == []
    page.requests.clear()
    async with serving(HttpConfig(port=port)) as (_, view, _):
        view.show("fx", effects_of(*matrices))
        await page.until(f"{SAID}.startsWith('live')")
        async with asyncio.timeout(20):
            while not any("pair=B%2CC" in url for url in page.requests):  # noqa: ASYNC110 (a list)
                await asyncio.sleep(0.05)
        await page.leave()
    page.complaints.clear()


async def test_a_browser_that_keeps_nothing_shows_the_page(
    require_binary: Callable[[str], Path], tmp_path: Path
) -> None:
    settings = tmp_path / "chromium" / "Default" / "Preferences"
    settings.parent.mkdir(parents=True)
    blocked = {"profile": {"default_content_setting_values": {"cookies": 2}}}
    settings.write_text(json.dumps(blocked))
    async with (
        serving() as (server, view, _),
        chromium(require_binary("chromium"), tmp_path / "chromium") as browser,
        browser.tab() as page,
    ):
        view.show("fx", effects_of(matrix_of(blocks(3, 1))))
        await page.open(server.url)
        assert await page.run("(() => { try { localStorage } catch (e) { return e.name } })()") == (
            "SecurityError"
        )
        await drawn(page, 1)
        ground = "getComputedStyle(document.body).backgroundColor"
        before = await page.run(ground)
        await page.run("document.getElementById('theme').click()")
        assert await page.run(ground) != before
        assert page.complaints == []
        await page.leave()
