"""What the page and its API show of a universe that moves between workers."""

import asyncio
from collections.abc import Callable

import aiohttp
import orjson
import pytest

from stream_calib.adapters.http import LiveView
from stream_calib.adapters.prometheus import PrometheusObserver
from stream_calib.values import SECOND_NS, Event
from tests.web.browser import Page
from tests.web.showing import T0_NS, blocks, effects_of, matrix_of, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")
BADGES = "document.getElementById('badges').innerText"
DEADLINE_S = 60


def sequences(view: LiveView) -> list[int]:
    return [orjson.loads(event)["sequence"] for event in view.events("fx", -1) or ()]


def gap(k: int) -> Event:
    return Event("fx", k, "gap", T0_NS + k * SECOND_NS, {})


def seconds(view: LiveView) -> list[int]:
    lines = view.summaries(("fx", "ewma")) or {"time_ns": []}
    return [(int(t) - T0_NS) // SECOND_NS for t in lines["time_ns"]]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():  # noqa: ASYNC110 (it has no event for it)
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("late", [False, True], ids=["at once", "after the first of its own"])
async def test_after_a_takeover_the_past_has_no_hole(late: bool) -> None:
    every = [matrix_of(blocks(3, 1), k) for k in range(1, 11)]
    async with serving() as (_, view, _):
        view.show("fx", effects_of(*every[:3], events=[gap(1)]))  # as the owner
        await until(lambda: seconds(view) == [1, 2, 3])
        view.gained("fx")  # after another one has published 4 to 7
        if late:
            view.show("fx", effects_of(*every[7:9], events=[gap(3)]))
            await until(lambda: seconds(view)[-1] == 9)
        view.recall("fx", every[:7], [gap(1), gap(2)])
        if not late:
            await until(lambda: seconds(view) == [*range(1, 8)])
            newest = view.frame(("fx", "ewma"))
            assert newest is not None
            assert newest[1].sequence == 7
            view.show("fx", effects_of(*every[7:9], events=[gap(3)]))
        await until(lambda: seconds(view) == [*range(1, 10)])
        assert sequences(view) == [1, 2, 3]
        view.recall("fx", every[:9], [gap(1), gap(2), gap(3)])  # once more changes nothing
        view.show("fx", effects_of(every[9]))
        await until(lambda: seconds(view)[-1] == 10)
        assert seconds(view) == [*range(1, 11)]
        assert sequences(view) == [1, 2, 3]


async def test_how_long_there_was_nothing_new_is_counted_by_the_service() -> None:
    now = [1000.0]
    view = LiveView(("fx",), PrometheusObserver(version="1"), clock=lambda: now[0])
    view.at_home()
    work = asyncio.create_task(view.run())
    view.show("fx", effects_of(matrix_of(blocks(3, 1))))
    await until(lambda: seconds(view) == [1])
    now[0] += 56.0
    assert view.universes()[0]["estimators"]["ewma"]["shown_for_s"] == 56.0
    view.show("fx", effects_of(matrix_of(blocks(3, 1), 2)))
    await until(lambda: seconds(view) == [1, 2])
    assert view.universes()[0]["estimators"]["ewma"]["shown_for_s"] == 0.0
    work.cancel()


async def test_a_page_that_is_opened_late_says_how_old_that_is(page: Page) -> None:
    now = [1000.0]
    async with serving(clock=lambda: now[0]) as (server, view, _):
        view.show("fx", effects_of(matrix_of(blocks(3, 1)), matrix_of(blocks(3, 1), 2)))
        await until(lambda: seconds(view) == [1, 2])
        now[0] += 120.0
        await page.open(server.url)
        await page.until(f"{BADGES}.includes('nothing new for 2 min')")
        assert "live" not in str(await page.run(BADGES))
        view.show("fx", effects_of(matrix_of(blocks(3, 1), 3)))
        await page.until(f"{BADGES}.startsWith('live')")
        await page.leave()


async def test_a_standby_says_so_until_it_takes_over(page: Page) -> None:
    standing_by = ["fx"]
    async with serving(standing_by=standing_by) as (server, view, _):
        await page.open(server.url)
        await page.until("document.getElementById('waiting').innerText.includes('stands by')")
        await page.until(f"{BADGES} == 'stands by'")
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"{server.url}/api/state") as state,
            client.get(f"{server.url}/readyz") as ready,
        ):
            told = {"ready": True, "reasons": []}
            assert await state.json() == told | {"standing_by": ["fx"]}
            assert (ready.status, await ready.json()) == (200, told)
        view.show("fx", effects_of(matrix_of(blocks(3, 1))))  # as recalled, or as a former owner
        await page.until("!document.getElementById('shown').hidden")
        assert str(await page.run(BADGES)).startswith("stands by")
        standing_by.clear()
        await page.until(f"{BADGES}.startsWith('live')")
        await page.leave()
