"""The live view in a real browser."""

import asyncio
import csv
import io
import itertools
import json
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from pydantic import SecretStr

from stream_calib.adapters.http import HttpServer, LiveView
from stream_calib.config import HttpConfig
from stream_calib.values import F64, SECOND_NS, Event, Matrix, Quality
from tests.web.browser import Page
from tests.web.observations import progress
from tests.web.showing import T0_NS, blocks, effects_of, matrix_of, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

HEAT = "document.getElementById('heat')"
SECRET = "a-token-that-is-long"
CELL = """(() => {{
  const heat = {heat}, order = JSON.parse(heat.dataset.order), n = order.length;
  const edge = {edge}, side = heat.width - edge;
  const place = (name) => Math.floor(edge + (order.indexOf(name) + 0.3) * side / n);
  const copy = Object.assign(document.createElement('canvas'), {{width: 1, height: 1}});
  const context = copy.getContext('2d', {{willReadFrequently: true}});
  context.drawImage(heat, -place({b}), -place({a}));
  const at = context.getImageData(0, 0, 1, 1).data;
  return [...at].slice(0, 3);
}})()"""


async def look(page: Page, served: tuple[HttpServer, LiveView], *matrices: Matrix) -> None:
    """Open the page and wait until the last of these is drawn."""
    server, view = served
    view.show("fx", effects_of(*matrices))
    await page.open(server.url)
    await drawn(page, matrices[-1].sequence)


async def drawn(page: Page, sequence: int, estimator: str = "ewma") -> None:
    await page.until(
        f"{HEAT}.dataset.sequence == {sequence} && {HEAT}.dataset.estimator == '{estimator}'"
    )


async def text(page: Page, id_: str) -> str:
    found: str = await page.run(f"document.getElementById('{id_}').textContent")
    return found


async def select(page: Page, id_: str, value: str) -> None:
    await page.run(
        f"((select) => {{ select.value = {json.dumps(value)};"
        "select.dispatchEvent(new Event('change', {bubbles: true})); })"
        f"(document.getElementById('{id_}'))"
    )


async def table(page: Page, id_: str) -> list[list[str]]:
    rows: list[list[str]] = await page.run(
        f"[...document.querySelectorAll('#{id_} tbody tr')]"
        ".map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    return rows


async def colour(page: Page, a: str, b: str, edge: int = 0) -> list[int]:
    script = CELL.format(heat=HEAT, edge=edge, a=json.dumps(a), b=json.dumps(b))
    found: list[int] = await page.run(script)
    return found


def number(shown: str) -> float:
    return float(shown.replace("\u2212", "-"))


async def test_the_page_is_all_there_and_asks_nobody_else(
    page: Page, served: tuple[HttpServer, LiveView]
) -> None:
    await look(page, served, matrix_of(blocks(12, 3)))
    await page.until("document.querySelectorAll('.uplot').length == 3")
    paths = {urlsplit(url).path for url in page.requests}
    assert {"/app.js", "/style.css", "/uplot/uPlot.iife.min.js", "/ws"} <= paths


async def test_the_policy_stops_what_is_inline(
    page: Page, served: tuple[HttpServer, LiveView]
) -> None:
    await look(page, served, matrix_of(blocks(3, 1)))
    await page.run(
        'document.body.insertAdjacentHTML(\'beforeend\', \'<b style="color: red" id="b">b</b>'
        '<img src="http://192.0.2.1/">\')'
    )
    assert (
        await page.run("getComputedStyle(document.getElementById('b')).color") != "rgb(255, 0, 0)"
    )
    async with asyncio.timeout(10):
        while len(page.complaints) < 2:  # noqa: ASYNC110 (the browser says it when it likes)
            await asyncio.sleep(0.02)
    assert all("Content Security Policy" in one for one in page.complaints)
    page.complaints.clear()
    page.requests.clear()


async def test_pixels_show_the_matrix(page: Page, served: tuple[HttpServer, LiveView]) -> None:
    corr = blocks(60, 3, inside=0.8, between=-0.4)  # too many to be named beside their rows
    await look(page, served, matrix_of(corr))
    inside = await colour(page, "X:S010", "X:S040")
    between = await colour(page, "X:S010", "X:S041")
    own = await colour(page, "X:S010", "X:S010")
    red, blue = 0, 2
    assert inside[red] > inside[blue] + 80
    assert between[blue] > between[red] + 60
    assert own[red] > own[blue]
    assert sum(own) < sum(inside)  # the nearer to one, the darker on light ground
    for a, b in ((0, 3), (1, 58), (30, 57)):
        names = f"X:S{a:03d}", f"X:S{b:03d}"
        expected = inside if corr[a, b] > 0 else between
        assert await colour(page, *names) == expected
        assert await colour(page, *names[::-1]) == expected


async def test_clusters_stand_together_and_stay(
    page: Page, served: tuple[HttpServer, LiveView]
) -> None:
    rng = np.random.default_rng(7)
    await look(page, served, matrix_of(blocks(60, 4, 0.6)))
    order = json.loads(await page.run(f"{HEAT}.dataset.order"))
    groups = [int(name[-3:]) % 4 for name in order]
    assert sum(a != b for a, b in itertools.pairwise(groups)) == 3
    for k in range(2, 12):
        noise = rng.normal(size=(60, 60)) * 0.05
        corr = np.clip(blocks(60, 4, 0.6) + (noise + noise.T) / 2, -0.99, 0.99)
        served[1].show("fx", effects_of(matrix_of(corr, k)))
        await drawn(page, k)
    await page.run("new Promise((done) => setTimeout(done, 3100))")  # until orders are judged anew
    served[1].show("fx", effects_of(matrix_of(blocks(60, 4, 0.6), 12)))
    await drawn(page, 12)
    assert json.loads(await page.run(f"{HEAT}.dataset.order")) == order
    served[1].show("fx", effects_of(matrix_of(blocks(60, 5, 0.6), 13)))
    await drawn(page, 13)
    await page.run("document.getElementById('reorder').click()")
    groups = [int(n[-3:]) % 5 for n in json.loads(await page.run(f"{HEAT}.dataset.order"))]
    assert sum(a != b for a, b in itertools.pairwise(groups)) == 4


async def test_keys_choose_a_pair_and_it_is_read_out(
    page: Page, served: tuple[HttpServer, LiveView]
) -> None:
    corr: F64 = np.round(blocks(5, 1) - 0.01 * np.add.outer(np.arange(5.0), np.arange(5.0)), 3)
    np.fill_diagonal(corr, 1.0)
    await look(page, served, matrix_of(corr, symbols="ABCDE"))
    order = json.loads(await page.run(f"{HEAT}.dataset.order"))
    await page.run(f"{HEAT}.focus()")
    await select(page, "row", order[0])
    await select(page, "column", order[1])
    await page.press("End")
    assert (await text(page, "announced")).startswith(f"{order[0]} ~ {order[4]}: ")
    await page.press("ArrowDown")
    said = await text(page, "announced")
    assert said.startswith(f"{order[1]} ~ {order[4]}: ")
    i, j = ("ABCDE".index(order[k]) for k in (1, 4))
    assert number(said.split()[3].rstrip(",")) == corr[i, j]
    band = 0.1 * (1 - corr[i, j] ** 2)
    assert f"standard error {band:.3f}" in said
    z, width = np.arctanh(corr[i, j]), 1.959964 * band / (1 - corr[i, j] ** 2)
    low, high = np.tanh([z - width, z + width])
    assert f"95 % between {low:+.3f} and {high:+.3f}" in said
    await page.press("ArrowDown")
    await page.press("ArrowDown")
    await page.press("ArrowDown")  # over the diagonal there is nothing below
    assert (await text(page, "announced")).startswith(f"{order[3]} ~ {order[4]}: ")
    live = "document.getElementById('announced').getAttribute('aria-live')"
    assert await page.run(live) == "polite"


async def test_the_pointer_names_and_chooses(
    page: Page, served: tuple[HttpServer, LiveView]
) -> None:
    await look(page, served, matrix_of(blocks(60, 3)))
    order = json.loads(await page.run(f"{HEAT}.dataset.order"))
    box = await page.run(f"(({{ x, y, width }}) => [x, y, width])({HEAT}.getBoundingClientRect())")
    x, y = (box[axis] + (place + 0.5) * box[2] / 60 for axis, place in ((0, 41), (1, 7)))
    await page.hover(x, y)
    assert (await text(page, "tip")).startswith(f"{order[7]} ~ {order[41]} +0.")
    await page.click(x, y)
    assert (await text(page, "selected")).startswith(f"{order[7]} ~ {order[41]}: ")
    assert await page.run("document.getElementById('row').value") == order[7]


async def test_the_past_of_the_chosen_pair_is_asked_for(
    page: Page, served: tuple[HttpServer, LiveView]
) -> None:
    await look(page, served, *(matrix_of(blocks(4, 2), k) for k in range(1, 30)))
    paths = [urlsplit(url) for url in page.requests]
    assert any(at.path == "/api/history/fx/ewma" for at in paths)
    assert await page.until("document.querySelector('#pair-chart canvas')?.width > 0 || 0")


async def test_tables_have_the_numbers_of_the_matrix(
    page: Page, served: tuple[HttpServer, LiveView]
) -> None:
    corr = np.asarray(np.corrcoef(np.random.default_rng(11).normal(size=(9, 30))))
    matrix = matrix_of(corr)
    await look(page, served, matrix)
    rows, columns = np.triu_indices(9, 1)
    sizes = np.sort(np.abs(corr[rows, columns]))
    for id_, expected in (("strongest", sizes[::-1][:8]), ("weakest", sizes[:8])):
        shown = await table(page, id_)
        # three digits are shown
        np.testing.assert_allclose([abs(number(row[1])) for row in shown], expected, atol=0.000501)
    row_symbol = await page.run("document.getElementById('row').value")
    i = matrix.index(row_symbol)
    whole = await table(page, "whole-row")
    assert len(whole) == 8
    for symbol, value, error, age in whole:
        j = matrix.index(symbol)
        assert number(value) == pytest.approx(corr[i, j], abs=0.000501)
        assert float(error) == pytest.approx(matrix.band[i, j], abs=0.000520)  # 1/65534 coarser
        assert age == "1.0 s"


async def test_estimators_can_be_switched(page: Page, served: tuple[HttpServer, LiveView]) -> None:
    corr, other = blocks(60, 3, 0.8), blocks(60, 3, 0.5)
    server, view = served
    view.show("fx", effects_of(matrix_of(corr, 1), matrix_of(other, 1, "dcc")))
    await page.open(server.url)
    await drawn(page, 1)
    strong = await colour(page, "X:S010", "X:S040")
    await page.until("document.querySelectorAll('#estimators input').length == 3")
    for name, value in (("dcc", 0.5), ("difference", -0.3)):
        await page.run(f"document.querySelector('#estimators input[value={name}]').click()")
        await drawn(page, 1, name)
        assert number((await table(page, "strongest"))[0][1]) == pytest.approx(value, abs=0.0005)
        assert await colour(page, "X:S010", "X:S040") != strong
    # of both in quadrature, at .8 and .5 of the same pair
    error = 0.1 * np.hypot(1 - 0.8**2, 1 - 0.5**2)
    assert float((await table(page, "strongest"))[0][2]) == pytest.approx(error, abs=0.00052)
    said = await text(page, "selected")
    assert f"standard error at most {error:.3f}" in said
    low, high = -0.3 - 1.96 * error, -0.3 + 1.96 * error
    assert f"between \u2212{-low:.3f} and \u2212{-high:.3f}" in said
    blue = await colour(page, "X:S010", "X:S040")
    assert blue[2] > blue[0] + 80  # below EWMA
    await page.run("document.querySelector('#estimators input[value=ewma]').click()")
    await drawn(page, 1)
    assert await colour(page, "X:S010", "X:S040") == strong


async def test_universes_can_be_switched(page: Page) -> None:
    async with serving(universes=("fx", "coins")) as (server, view, _):
        view.show("fx", effects_of(matrix_of(blocks(4, 2))))
        coins = replace(matrix_of(blocks(3, 1), 5, symbols="PQR"), universe="coins")
        view.show("coins", effects_of(coins))
        await page.open(server.url)
        await drawn(page, 1)
        await select(page, "universe", "coins")
        await drawn(page, 5)
        assert set(json.loads(await page.run(f"{HEAT}.dataset.order"))) == set("PQR")
        await page.leave()


async def test_pause_holds_the_picture_and_going_on_shows_the_newest(
    page: Page, served: tuple[HttpServer, LiveView]
) -> None:
    await look(page, served, matrix_of(blocks(4, 2)))
    await page.run("document.getElementById('pause').click()")
    assert await page.run("document.getElementById('pause').getAttribute('aria-pressed')") == "true"
    assert "paused" in await text(page, "badges")
    for k in range(2, 40):
        served[1].show("fx", effects_of(matrix_of(blocks(4, 2, 0.6), k)))
        await asyncio.sleep(0.01)
    assert await page.run(f"{HEAT}.dataset.sequence") == "1"
    await page.run("document.getElementById('pause').click()")
    await drawn(page, 39)
    # no queue: the first, what was on its way, and the newest
    assert int(await page.run(f"{HEAT}.dataset.received")) <= 1 + 2 + 1


@pytest.mark.parametrize("suffix", ["csv", "png"])
async def test_what_is_shown_can_be_downloaded(
    page: Page, served: tuple[HttpServer, LiveView], tmp_path: Path, suffix: str
) -> None:
    corr = blocks(3, 1, 0.25)
    await look(page, served, matrix_of(corr, 4, symbols=["A", 'B,"x"', "C"]))
    await page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    await page.run(f"document.getElementById('{suffix}').click()")
    file = tmp_path / f"fx-ewma-4.{suffix}"
    async with asyncio.timeout(20):
        while not (file.exists() and file.stat().st_size):  # noqa: ASYNC110 (the browser's file)
            await asyncio.sleep(0.05)
    if suffix == "png":
        assert file.read_bytes().startswith(b"\x89PNG")
        return
    order = json.loads(await page.run(f"{HEAT}.dataset.order"))
    rows = list(csv.reader(io.StringIO(file.read_text(), newline="")))
    assert rows[0] == ["symbol", *order]
    assert [row[0] for row in rows[1:]] == order
    numbers = np.array([[float(x) for x in row[1:]] for row in rows[1:]])
    np.testing.assert_array_equal(numbers, corr)  # .25 is exact in float32


async def test_links_lead_to_the_newest_matrix_of_what_is_shown(
    page: Page, served: tuple[HttpServer, LiveView]
) -> None:
    await look(page, served, matrix_of(blocks(3, 1)))
    fetched = await page.run("fetch(document.getElementById('json').href).then((a) => a.json())")
    assert fetched["corr"] == [0.8] * 3
    assert urlsplit(await page.run("document.getElementById('npy').href")).path == (
        "/api/matrix/fx/ewma.npy"
    )


async def test_dark_and_light_follow_the_system_until_chosen(
    page: Page, served: tuple[HttpServer, LiveView]
) -> None:
    await page.prefer(prefers_color_scheme="dark")
    await look(page, served, matrix_of(blocks(60, 3)))
    ground = "getComputedStyle(document.body).backgroundColor"
    dark, dark_cell = await page.run(ground), await colour(page, "X:S010", "X:S041")
    assert dark == "rgb(20, 21, 23)"
    assert sum(dark_cell) < 300  # near zero is near the ground
    await page.prefer(prefers_color_scheme="light")
    assert await page.until(f"{ground} != '{dark}'")
    assert sum(await colour(page, "X:S010", "X:S041")) > 600
    await page.run("document.getElementById('theme').click()")
    assert await page.run(ground) == dark
    assert await colour(page, "X:S010", "X:S041") == dark_cell
    await page.open(served[0].url)  # and it is remembered
    await drawn(page, 1)
    assert await page.run(ground) == dark


@pytest.mark.parametrize("width", [320, 390, 699, 820, 1280, 2200])
async def test_nothing_sticks_out_at_any_width(
    page: Page, served: tuple[HttpServer, LiveView], width: int
) -> None:
    await page.resize(width, 900)
    long = ["EXCHANGE_OF_A_LONG_NAME:" + "A-VERY-LONG-SYMBOL" * 3 + str(k) for k in range(5)]
    await look(page, served, replace(matrix_of(blocks(5, 2), symbols=long), pending=("Z",)))
    assert await page.run("document.documentElement.scrollWidth") == width
    columns = await page.run(
        "getComputedStyle(document.querySelector('main')).gridTemplateColumns.split(' ').length"
    )
    assert columns == (1 if width < 700 else 2)


async def test_names_are_text_and_never_markup(
    page: Page, served: tuple[HttpServer, LiveView]
) -> None:
    evil = [
        "<img src=x onerror=alert(1)>",
        "<script>alert(2)</script>",
        "'\"><svg onload=alert(3)>",
    ]
    reason = "<img src=y onerror=alert(4)>"
    event = Event("fx", 1, "refit_failed", T0_NS, {"reason": reason})
    served[1].show("fx", effects_of(events=[event]))
    matrix = replace(
        matrix_of(blocks(3, 1), symbols=evil),
        pending=("<b>p</b>",),
        quality=Quality(0.1, 0.0, 0, degraded=("<i>d</i>",)),
    )
    await look(page, served, matrix)
    await page.until("document.getElementById('events').textContent.includes('onerror')")
    inside = "document.querySelectorAll('main img, main svg, main b, main i, main script').length"
    assert await page.run(inside) == 0
    selected = await text(page, "selected")
    assert any(name in selected for name in evil)
    assert {row[0] for row in await table(page, "whole-row")} < set(evil)
    assert "<i>d</i>" in await text(page, "badges")


async def test_badges_say_how_far_it_can_be_trusted(
    page: Page, served: tuple[HttpServer, LiveView]
) -> None:
    matrix = replace(
        matrix_of(blocks(3, 1), symbols="ABC"),
        pending=("D", "E"),
        quality=Quality(0.1, 0.034, 2, degraded=("old model",)),
        staleness_ns=np.array([0, 400 * SECOND_NS, 0]),
    )
    served[1].progressed("fx", progress(T0_NS + 301 * SECOND_NS))
    await look(page, served, matrix)
    said = await page.until(
        "((found) => found.some((x) => x.includes('newest tick')) && found)"
        "([...document.querySelectorAll('#badges li')].map((x) => x.textContent))"
    )
    for expected in (
        "live",
        "as of 2023-11-14 22:13:21 UTC",
        "5 min behind the newest tick",
        "6 records unread",
        "3 symbols",
        "2 pending",
        "oldest price 7 min",
        "repaired: shrunk by 3.4 %",
        "2 pairs capped",
        "degraded: old model",
    ):
        assert expected in said


async def test_alarms_and_refits_are_listed_newest_first(
    page: Page, served: tuple[HttpServer, LiveView]
) -> None:
    alarm = {"alternative": "fusing", "average_before": 0.2, "average_after": 0.7}
    events = [
        Event("fx", 1, "drift_alarm", T0_NS, alarm),
        Event("fx", 2, "refit_installed", T0_NS + 60 * SECOND_NS, {"reason": "drift"}),
    ]
    served[1].show("fx", effects_of(events=events))
    await look(page, served, matrix_of(blocks(3, 1)))
    await page.until("document.querySelectorAll('#events li').length == 2")
    shown = await page.run("[...document.querySelectorAll('#events li')].map((x) => x.innerText)")
    assert [" ".join(one.split()) for one in shown] == [
        "22:14:20 A model is installed (drift)",
        "22:13:20 Drift alarm, fusing: average 0.20 to 0.70",
    ]


async def test_it_says_when_the_service_is_gone_and_comes_back(page: Page) -> None:
    async with serving() as (server, view, _):
        view.show("fx", effects_of(matrix_of(blocks(3, 1))))
        await page.open(server.url)
        await drawn(page, 1)
        port = server.port
    await page.until("document.getElementById('badges').textContent.includes('no connection')")
    async with serving(HttpConfig(port=port)) as (_, view, _):
        view.show("fx", effects_of(matrix_of(blocks(3, 1), 2)))
        await drawn(page, 2)
        await page.until("document.getElementById('badges').textContent.includes('live')")
        await page.leave()
    page.complaints.clear()  # that nobody was there is what the browser complained of


async def test_a_browser_is_asked_for_the_token(page: Page) -> None:
    async with serving(HttpConfig(port=0, token=SecretStr(SECRET))) as (server, view, _):
        view.show("fx", effects_of(matrix_of(blocks(3, 1))))
        await page.open(server.url)
        await page.run("document.getElementById('token').value = 'wrong'")
        await page.run("document.querySelector('form').requestSubmit()")
        await page.until("document.body?.innerText.includes('That is not the token')")
        page.complaints.clear()  # of the 401
        await page.run(f"document.getElementById('token').value = '{SECRET}'")
        await page.run("document.querySelector('form').requestSubmit()")
        await page.until("document.getElementById('heat')?.dataset.drawn || 0")
        assert SECRET not in await page.run("document.cookie + location.href")
        await page.leave()


async def test_those_who_cannot_see_are_told_what_is_what(
    page: Page, served: tuple[HttpServer, LiveView]
) -> None:
    await look(page, served, matrix_of(blocks(3, 1)), matrix_of(blocks(3, 1), 2))
    tree = (await page.call("Accessibility.getFullAXTree"))["nodes"]
    shown = [node for node in tree if not node.get("ignored")]

    def named(role: str) -> list[str]:
        return [n["name"]["value"] for n in shown if n["role"].get("value") == role]

    for role in ("button", "combobox", "radio", "application", "table"):
        names = named(role)
        assert names, role
        assert all(names), role
    assert "Correlation matrix" in named("application")[0]
    assert {"Strongest pairs", "Weakest pairs"} <= set(named("table"))


async def test_500_symbols_at_5_frames_a_second_keep_up(
    page: Page, served: tuple[HttpServer, LiveView]
) -> None:
    server, view = served
    rng = np.random.default_rng(5)
    factors = rng.normal(size=(500, 5)) * 0.6
    cov = factors @ factors.T + np.eye(500)
    corr = cov / np.sqrt(np.outer(np.diag(cov), np.diag(cov)))
    matrices = [matrix_of(corr * (1 - 0.002 * k) + 0.002 * k * np.eye(500), k) for k in range(1, 6)]
    view.show("fx", effects_of(matrices[0]))
    await page.open(server.url)
    await drawn(page, 1)
    sent = 25
    clock = asyncio.get_running_loop().time
    begun_s, before = clock(), int(await page.run(f"{HEAT}.dataset.drawn"))
    for k in range(2, sent + 2):
        matrix = replace(
            matrices[k % 5], sequence=k, as_of_ns=T0_NS + k * SECOND_NS, corr=matrices[k % 5].corr
        )
        view.show("fx", effects_of(matrix))
        await asyncio.sleep(max(0.0, begun_s + 0.2 * (k - 1) - clock()))
    last_s = clock()
    await drawn(page, sent + 1)
    late_s = clock() - last_s
    seen = int(await page.run(f"{HEAT}.dataset.drawn")) - before
    # The service sends each (bench_view); that a machine on which others compute draws fewer is no
    # fault, and neither is a slow last one. What must not be is a queue: 25 take 5 s.
    assert seen >= 0.4 * sent
    assert late_s < 4.0
