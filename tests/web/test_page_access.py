"""Who can read the page: colours, keyboard, screen readers, long names, and finding one's way."""

import asyncio
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream_calib.adapters.http import HttpServer, LiveView
from stream_calib.values import F64, SECOND_NS, Event
from tests.web.browser import Page
from tests.web.showing import T0_NS, blocks, effects_of, matrix_of, serving
from tests.web.test_page import HEAT, drawn, look, number, select, table, text

pytestmark = pytest.mark.asyncio(loop_scope="module")

STYLE = Path(__file__).parents[2] / "stream_calib" / "web" / "style.css"
TEXT_PAIRS = [
    *itertools.product(("text", "quiet", "accent", "mark"), ("ground", "panel")),
    ("warn", "warn-ground"),
    ("good", "good-ground"),
    ("panel", "accent"),  # of what is pressed
    ("panel", "text"),  # of the tip
]
LINE_PAIRS = [("accent", "panel"), ("second", "panel"), ("mark", "panel")]
# Vienot, Brettel and Mollon (1999), linear RGB: who has no red cones, and who has no green ones
SIGHT = {
    "all cones": np.eye(3),
    "no red": np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]),
    "no green": np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]),
}
NOTICED = 2.3  # in CIE Lab (Mahy and others 1994)
TO_XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
)  # sRGB, D65


def linear(rgb: F64) -> F64:
    """Return linear light in [0, 1] of sRGB bytes."""
    x = np.asarray(rgb, float) / 255.0
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def luminance(colour: str) -> float:
    rgb = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    return float(linear(np.array(rgb)) @ [0.2126, 0.7152, 0.0722])


def contrast(a: str, b: str) -> float:
    """Return the contrast of two colours (WCAG 2.2), 1 to 21."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def lab(rgb: F64) -> F64:
    """Return CIE L*, a*, b* of linear light (..., 3)."""
    xyz = rgb @ TO_XYZ.T / (TO_XYZ @ np.ones(3))
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack(
        (116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])), -1
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_text_can_be_read_by_weak_eyes(theme: str) -> None:
    blocks_of = re.findall(r":root(\[data-theme=\"dark\"\])? \{(.*?)\}", STYLE.read_text(), re.S)
    (_, rules), (_, dark_rules) = blocks_of
    found = dict(
        re.findall(r"--([\w-]+): (#[0-9a-f]{6})\b", dark_rules if theme == "dark" else rules)
    )
    for limit, pairs in ((4.5, TEXT_PAIRS), (3.0, LINE_PAIRS)):  # WCAG 2.2, 1.4.3 and 1.4.11
        for a, b in pairs:
            assert contrast(found[a], found[b]) >= limit, (a, b)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("sight", SIGHT)
async def test_the_scale_is_symmetric_and_told_apart_without_red_or_green(
    page: Page, served: tuple[HttpServer, LiveView], theme: str, sight: str
) -> None:
    await look(page, served, matrix_of(blocks(3, 1)))
    bytes_: list[int] = await page.run(
        "import('/colours.js').then(({ scale }) => "
        f"[...new Uint8Array(scale({json.dumps(theme == 'dark')}).buffer)])"
    )
    rgb = linear(np.array(bytes_, float).reshape(-1, 4)[:, :3])
    seen = lab(np.clip(rgb @ SIGHT[sight].T, 0, 1))
    half = len(seen) // 2
    middle, low, high = seen[half], seen[half::-1], seen[half:]
    at = (np.array([0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0]) * half).astype(int)
    # a correlation of .1 is thrice as far from its opposite, and twice as far from none, as an
    # eye just notices
    assert (np.linalg.norm(low[at] - high[at], axis=1) > 3 * NOTICED).all()
    assert (np.linalg.norm(low[at] - middle, axis=1) > 2 * NOTICED).all()
    assert (np.linalg.norm(high[at] - middle, axis=1) > 2 * NOTICED).all()
    # both sides go away from the middle in lightness, equally far to a fifth of the whole range
    way = -1 if theme == "light" else 1
    for side in (low, high):
        assert (way * np.diff(side[:: half // 16, 0]) > -0.5).all()
    assert (np.abs(low[at, 0] - high[at, 0]) < 20).all()


async def test_the_keyboard_reaches_everything_in_the_order_in_which_it_is_read(
    page: Page, served: tuple[HttpServer, LiveView]
) -> None:
    await look(page, served, matrix_of(blocks(30, 1)), matrix_of(blocks(30, 1), 1, "dcc"))
    await page.until("document.querySelectorAll('#estimators input').length > 1")
    await page.run("document.activeElement.blur()")
    seen = []
    for _ in range(16):
        await page.press("Tab", windowsVirtualKeyCode=9)
        seen.append(
            await page.run(
                "(({ id, value, tagName }) => id || (tagName == 'SUMMARY' ? 'downloads' : value)"
                ")(document.activeElement)"
            )
        )
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        ring = "getComputedStyle(document.activeElement.nextElementSibling ?? document.body)"
        assert await page.run(f"{outline} != 'none' || {ring}.outlineStyle != 'none'"), seen[-1]
        if seen[-1] == "row-box":
            break
    buttons = ["pause", "order", "reorder", "downloads", "theme"]
    assert seen == [
        *("universe", "ewma", *buttons, "heat", "find", "row", "column", "events", "row-box")
    ]


async def test_nothing_moves_by_itself_for_those_who_asked_for_that(
    page: Page, served: tuple[HttpServer, LiveView]
) -> None:
    await page.prefer(prefers_reduced_motion="reduce")
    await look(page, served, matrix_of(blocks(4, 1)))
    assert await page.run("document.getAnimations().length") == 0
    moving = "[...document.querySelectorAll('*')].map((x) => getComputedStyle(x))"
    assert await page.run(f"{moving}.every((x) => parseFloat(x.transitionDuration) == 0)")


@pytest.mark.parametrize("n", [2, 10, 100, 500])
async def test_any_number_of_symbols_can_be_shown_and_read(
    page: Page, served: tuple[HttpServer, LiveView], n: int
) -> None:
    corr = blocks(n, max(1, n // 5))
    corr[0, 1] = corr[1, 0] = 0.9
    matrix = matrix_of(corr)
    await look(page, served, matrix)
    pair, corr_shown, _ = (await table(page, "strongest"))[0]
    assert pair == "X:S000 ~ X:S001"
    assert number(corr_shown) == 0.9
    assert len(await table(page, "whole-row")) == n - 1
    assert len(await table(page, "weakest")) == min(8, n * (n - 1) // 2)


async def test_a_symbol_is_found_by_a_part_of_its_name(
    page: Page, served: tuple[HttpServer, LiveView]
) -> None:
    names = ["B:BTC-USD", "B:ETH-USD", "K:XBTC", "B:<b>", "B:BTC"]
    corr = blocks(5, 1, 0.2)
    corr[1, 3] = corr[3, 1] = -0.9
    await look(page, served, matrix_of(corr, symbols=names))

    async def find(wanted: str) -> list[str]:
        await page.run(f"document.getElementById('find').value = {json.dumps(wanted)}")
        await page.run("document.getElementById('find').dispatchEvent(new Event('change'))")
        return [await page.run(f"document.getElementById('{i}').value") for i in ("row", "column")]

    assert await find("eth") == ["B:ETH-USD", "B:<b>"]  # with the strongest, whatever its sign
    assert (await find("btc"))[0] == "B:BTC"  # all of a name before a part of one
    assert (await find("b:btc-"))[0] == "B:BTC-USD"
    assert (await find("xb"))[0] == "K:XBTC"
    before = await find("<B>")
    assert before[0] == "B:<b>"
    assert await find("nobody") == before
    assert await text(page, "announced") == "No symbol like nobody"
    assert await page.run("document.getElementById('find').getAttribute('aria-invalid')") == "true"


async def test_rows_can_be_ordered_by_name(page: Page, served: tuple[HttpServer, LiveView]) -> None:
    await look(page, served, matrix_of(blocks(12, 3)))
    clustered = json.loads(await page.run(f"{HEAT}.dataset.order"))
    assert clustered != sorted(clustered)
    await select(page, "order", "names")
    assert json.loads(await page.run(f"{HEAT}.dataset.order")) == sorted(clustered)
    assert await page.run("document.getElementById('reorder').disabled")
    served[1].show("fx", effects_of(matrix_of(blocks(12, 4), 2)))
    await drawn(page, 2)
    assert json.loads(await page.run(f"{HEAT}.dataset.order")) == sorted(clustered)
    await select(page, "order", "clusters")
    groups = [int(n[-3:]) % 4 for n in json.loads(await page.run(f"{HEAT}.dataset.order"))]
    assert sum(a != b for a, b in itertools.pairwise(groups)) == 3


async def test_what_moved_most_is_told_since_the_last_model(
    page: Page, served: tuple[HttpServer, LiveView]
) -> None:
    matrices = []
    for k in range(1, 7):
        corr = blocks(4, 1, 0.3)
        corr[1, 2] = corr[2, 1] = 0.3 + 0.1 * k
        matrices.append(matrix_of(corr, k, symbols="ABCD"))
    model = Event("fx", 1, "refit_installed", T0_NS + 3 * SECOND_NS, {"reason": "drift"})
    await look(page, served, *matrices)
    caption = "document.getElementById('moved').caption.textContent"
    await page.until(f"{caption} == 'Moved most since 22:13:21'")
    assert (await table(page, "moved"))[0] == ["B ~ C", "+0.400", "+0.900", "+0.500"]
    served[1].show("fx", effects_of(events=[model]))
    await page.until(f"{caption} == 'Moved most since the last model, 22:13:23'")
    assert (await table(page, "moved"))[0] == ["B ~ C", "+0.600", "+0.900", "+0.300"]


async def test_a_chart_tells_what_is_under_the_pointer(
    page: Page, served: tuple[HttpServer, LiveView]
) -> None:
    await look(page, served, *(matrix_of(blocks(4, 1), k) for k in range(1, 30)))
    await page.until("document.querySelector('#pair-chart .u-over') != null")
    said = ""
    async with asyncio.timeout(60):
        while not said.startswith("22:13:49 \u00b7 "):  # until the past is drawn, where it stays
            box: Any = await page.run(
                "(({ x, y, width, height }) => [x, y, width, height])"
                "(document.querySelector('#pair-chart .u-over').getBoundingClientRect())"
            )
            await page.hover(box[0] + box[2] - 2, box[1] + box[3] / 2)
            readout = "document.querySelector('#pair-chart .readout')"
            said = await page.run(f"{readout}?.textContent ?? ''")
            await asyncio.sleep(0.05)
    assert "correlation +0.800" in said
    await page.hover(2, 2)
    await page.until("document.querySelector('#pair-chart .readout').hidden")


async def test_who_waits_is_told_for_what(page: Page) -> None:
    async with serving(ready=False) as (server, view, _):
        await page.open(server.url)
        await page.until(
            "document.getElementById('waiting').innerText.includes('universe fx: no matrix yet')"
        )
        assert await text(page, "badges") == "waiting"
        view.show("fx", effects_of(matrix_of(blocks(3, 1))))
        await drawn(page, 1)
        await page.until("document.getElementById('badges').innerText.includes('no matrix yet')")
        await page.leave()


async def test_lines_begin_anew_where_the_input_does(
    page: Page, served: tuple[HttpServer, LiveView]
) -> None:
    await look(page, served, *(matrix_of(blocks(3, 1), k) for k in range(50, 60)))
    again = replace(matrix_of(blocks(3, 1), 60), as_of_ns=T0_NS)
    served[1].show("fx", effects_of(again))
    await drawn(page, 60)
    assert "22:13:20" in await text(page, "badges")


async def test_long_names_are_cut_in_the_middle_and_not_squeezed(
    page: Page, served: tuple[HttpServer, LiveView]
) -> None:
    await look(page, served, matrix_of(blocks(3, 1), symbols=[f"{'LONG-' * 30}{k}" for k in "ABC"]))
    fitted = await page.run(
        "import('/heatmap.js').then(({ fitted }) => { const context = "
        "document.createElement('canvas').getContext('2d');"
        "return [fitted(context, 'LONG-'.repeat(30) + 'A', 80), fitted(context, 'AB', 80)]; })"
    )
    assert re.fullmatch(r"LONG-.*\u2026.*-A", fitted[0])
    assert fitted[1] == "AB"


async def test_a_universe_that_stops_says_so(
    page: Page, served: tuple[HttpServer, LiveView]
) -> None:
    await look(page, served, matrix_of(blocks(3, 1)), matrix_of(blocks(3, 1), 2))
    assert "live" in await text(page, "badges")
    later = "((now) => { performance.now = () => now() + 120000; })"
    await page.run(f"{later}(performance.now.bind(performance))")
    said = "document.getElementById('badges').innerText"
    await page.until(f"{said}.includes('nothing new for 2 min')")
    served[1].show("fx", effects_of(matrix_of(blocks(3, 1), 3)))
    await page.until(f"{said}.startsWith('live')")


async def test_many_universes_fit_on_a_narrow_screen(page: Page) -> None:
    names = ("fx", *(f"universe_{k}_of_a_rather_long_name_that_does_not_end" for k in range(60)))
    await page.resize(360, 740)
    async with serving(universes=names) as (server, view, _):
        view.show("fx", effects_of(matrix_of(blocks(3, 1))))
        await page.open(server.url)
        await drawn(page, 1)
        assert await page.run("document.getElementById('universe').options.length") == 61
        assert await page.run("document.documentElement.scrollWidth") == 360
        await select(page, "universe", names[7])
        # of which there is no matrix, and that of another is not shown in its name
        await page.until("document.getElementById('badges').innerText == 'waiting'")
        assert await page.run("document.getElementById('shown').hidden")
        assert not await page.run("document.getElementById('waiting').hidden")
        await select(page, "universe", "fx")
        await page.until("!document.getElementById('shown').hidden")
        await page.leave()
