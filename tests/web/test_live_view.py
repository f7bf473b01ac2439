"""The live view without a browser: routes, downloads, tokens, frames to fast and slow clients."""

import asyncio
import contextlib
import csv
import io
import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import numpy as np
import orjson
import pytest
import structlog
from pydantic import SecretStr

import stream_calib as sc
from stream_calib.adapters.http import HttpServer, LiveView, pages
from stream_calib.adapters.http.pages import VIEWERS_MAX
from stream_calib.adapters.http.past import FRAMES_BYTES, SPARSE_EVERY
from stream_calib.adapters.http.server import CONNECTIONS_MAX
from stream_calib.adapters.http.socket import MESSAGE_BYTES_MAX, ON_THEIR_WAY
from stream_calib.config import HttpConfig
from stream_calib.errors import InputError
from stream_calib.service.runner import unobserved
from stream_calib.values import F64, SECOND_NS, DccParams, Event, Quality
from stream_calib.wire.live import decode_live, difference, encode_live
from stream_calib.wire.matrices import decode
from tests.web.observations import progress
from tests.web.showing import T0_NS, blocks, effects_of, matrix_of, serving

SECRET = "a-token-that-is-long"
WATCH = {"watch": ["fx", "ewma"]}
VIEWED = ("/", "/app.js", "/api/universes", "/api/matrix/fx/ewma", "/api/events/fx", "/ws")


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    jar = aiohttp.CookieJar(unsafe=True)  # "unsafe": of an address, not a name
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(timeout=timeout, cookie_jar=jar) as session:
        yield session


async def shown(view: LiveView, sequence: int, estimator: str = "ewma") -> None:
    """Wait until a matrix is a frame."""
    listener = view.listen()
    async with asyncio.timeout(60):
        while (newest := view.frame(("fx", estimator))) is None or newest[1].sequence < sequence:
            await listener.wait()
            listener.clear()
    view.leave(listener)


def random_corr(n: int, seed: int) -> F64:
    corr: F64 = np.asarray(np.corrcoef(np.random.default_rng(seed).normal(size=(n, 3 * n + 5))))
    corr = (corr + corr.T) / 2.0  # symmetric to the last bit, as what is published
    np.fill_diagonal(corr, 1.0)
    return corr


# the frame


@pytest.mark.parametrize("n", [2, 3, 12, 101])
def test_a_frame_holds_the_matrix(n: int) -> None:
    matrix = matrix_of(random_corr(n, seed=n))
    frame = encode_live(matrix)
    head, corr, band = decode_live(frame.value)
    upper = np.triu_indices(n, 1)
    assert head["symbols"] == list(matrix.symbols)
    assert head["as_of_ns"] == str(matrix.as_of_ns)
    np.testing.assert_array_equal(corr, matrix.corr[upper].astype(np.float32))
    # half a unit of 1/65534, and the rounding of the division
    np.testing.assert_allclose(band, matrix.band[upper], atol=0.5001 / 65534)
    assert frame.data_at % 4 == 0  # or a browser could not lay an array over it
    i, j = n - 1, 0
    own, error = frame.pair(i, j)
    assert own == np.float32(matrix.corr[i, j])
    assert error == pytest.approx(matrix.band[i, j], abs=0.5001 / 65534)


def test_what_has_no_band_says_so() -> None:
    matrix = replace(matrix_of(blocks(4, 2)), band=np.full((4, 4), np.nan))
    frame = encode_live(matrix)
    assert np.isnan(decode_live(frame.value)[2]).all()
    assert frame.pair(0, 3)[1] is None


@pytest.mark.parametrize("cut", [0, 3, 7, 9, 100, -1])
def test_what_is_no_frame_is_one_sentence(cut: int) -> None:
    whole = encode_live(matrix_of(blocks(4, 2))).value
    with pytest.raises(InputError, match="not a frame of the live view"):
        decode_live(whole[:cut])


def test_a_difference_is_over_the_symbols_of_both() -> None:
    later = matrix_of(random_corr(4, 1), 5, "dcc", symbols="ABCD")
    plain = matrix_of(random_corr(4, 2), 9, symbols="DXBA")
    found = difference(later, plain)
    assert found is not None
    assert found.symbols == ("A", "B", "D")
    expected = later.corr[np.ix_([0, 1, 3], [0, 1, 3])] - plain.corr[np.ix_([3, 2, 0], [3, 2, 0])]
    np.testing.assert_array_equal(found.corr, expected)
    errors = later.band[0, 3] ** 2 + plain.band[3, 0] ** 2  # of A and D in both
    assert found.band[0, 2] == pytest.approx(np.sqrt(errors), rel=1e-12)  # rounding alone
    assert found.quality.degraded == ()
    assert difference(later, matrix_of(blocks(2, 1), symbols="AX")) is None


def test_the_band_of_a_difference_is_no_less_than_its_scatter() -> None:
    """Both follow the same returns, so that their errors go the same way and partly cancel."""
    n, truth = 40, 0.5
    rng = np.random.default_rng(20250711)
    corr = blocks(n, 1, truth)
    returns = rng.multivariate_normal(np.zeros(n), corr, size=3000)
    ewma = sc.Ewma(n, half_life_obs=30.0)
    model = sc.Dcc(DccParams(0.02, 0.96, corr, "dcc"), n)
    upper, rows = np.triu_indices(n, 1), []
    for block in returns.reshape(-1, 150, n):  # far enough apart to be news
        ewma.update(block)
        model.update(block)
        rows.append([one.correlation().corr[upper] for one in (model, ewma)])
    of_model, of_ewma = np.array(rows)[2:].transpose(1, 0, 2)
    scatter = np.sqrt(np.mean((of_model - of_ewma) ** 2))
    independent = np.hypot(*(np.sqrt(np.mean((x - truth) ** 2)) for x in (of_model, of_ewma)))
    # .33 to .36 of it at this and five other seeds: an upper bound, and a wide one
    assert 0.25 * independent < scatter < 0.5 * independent


async def test_what_was_published_before_is_shown_until_there_is_something_newer() -> None:
    async with serving() as (_, view, _):
        old = [matrix_of(blocks(3, 1), k, e) for k in range(1, 6) for e in ("ewma", "dcc")]
        alarm = Event("fx", 3, "drift_alarm", T0_NS, {"alternative": "fusing"})
        ready = Event("fx", 4, "symbol_ready", T0_NS, {"symbol": "A"})
        view.recall("fx", old, [alarm, ready])
        for estimator in ("ewma", "dcc", "difference"):
            await shown(view, 5, estimator)
        assert [e["sequence"] for e in map(orjson.loads, view.events("fx", -1) or ())] == [3]
        view.show("fx", effects_of(matrix_of(blocks(3, 1, 0.7), 6, "dcc")))
        await shown(view, 6, "dcc")
        lines = view.summaries(("fx", "dcc"))
        assert lines is not None
        assert len(lines["time_ns"]) == 6


async def test_what_comes_late_from_before_goes_before_what_is_shown() -> None:
    async with serving() as (_, view, _):
        view.show("fx", effects_of(matrix_of(blocks(3, 1), 4), matrix_of(blocks(3, 1), 5)))
        view.show("fx", effects_of(events=[Event("fx", 9, "gap", T0_NS, {})]))
        await shown(view, 5)
        old = [matrix_of(blocks(3, 1, 0.3), k) for k in range(1, 6)]
        view.recall("fx", old, [Event("fx", k, "gap", T0_NS, {}) for k in (8, 9)])
        async with asyncio.timeout(10):
            while len((lines := view.summaries(("fx", "ewma")) or {})["time_ns"]) < 5:  # noqa: ASYNC110 (it has no event for it)
                await asyncio.sleep(0.005)
        assert [int(t) for t in lines["time_ns"]] == [T0_NS + k * SECOND_NS for k in range(1, 6)]
        past = view.history(("fx", "ewma"), "X:S000", "X:S001")
        assert past is not None
        assert past["corr"] == pytest.approx([0.3] * 3 + [0.8] * 2, abs=1e-7)  # float32
        newest = view.frame(("fx", "ewma"))
        assert newest is not None
        assert newest[1].pair(0, 1)[0] == pytest.approx(0.8, abs=1e-7)
        assert [orjson.loads(e)["sequence"] for e in view.events("fx", -1) or ()] == [8, 9]


async def test_input_that_is_begun_anew_begins_the_lines_anew() -> None:
    async with serving() as (_, view, _):
        view.show("fx", effects_of(*(matrix_of(blocks(3, 1), k) for k in (8, 9))))
        await shown(view, 9)
        again = replace(matrix_of(blocks(3, 1), 10), as_of_ns=T0_NS)
        view.show("fx", effects_of(again))
        await shown(view, 10)
        lines = view.summaries(("fx", "ewma"))
        assert lines is not None
        assert lines["time_ns"] == [str(T0_NS)]


def test_a_difference_of_other_horizons_says_so() -> None:
    later = replace(matrix_of(blocks(3, 1), 5, "dcc"), horizon_ns=20 * SECOND_NS)
    found = difference(later, matrix_of(blocks(3, 1), 5))
    assert found is not None
    assert found.quality.degraded == ("horizons of 20 s and 60 s",)


# what is kept


async def test_a_difference_is_shown_where_times_are_equal_in_either_order() -> None:
    async with serving() as (_, view, _):
        view.show("fx", effects_of(matrix_of(blocks(3, 1), 1), matrix_of(blocks(3, 1), 2)))
        view.show("fx", effects_of(matrix_of(blocks(3, 1, 0.7), 2, "dcc")))
        await shown(view, 2, "difference")
        view.show("fx", effects_of(matrix_of(blocks(3, 1, 0.7), 3, "dcc")))
        view.show("fx", effects_of(matrix_of(blocks(3, 1), 3)))
        await shown(view, 3, "difference")
        view.show("fx", effects_of(matrix_of(blocks(3, 1), 4), matrix_of(blocks(3, 1), 5, "dcc")))
        await shown(view, 5, "dcc")
        frame = view.frame(("fx", "difference"))
        assert frame is not None
        assert frame[1].sequence == 3
        assert frame[1].pair(0, 1)[0] == pytest.approx(-0.1, abs=1e-7)  # float32


async def test_memory_is_bounded_and_the_older_part_is_sparse() -> None:
    n = 300  # 270 kB a frame: some 60 in each part
    async with serving() as (_, view, _):
        for k in range(1, 200):
            view.show("fx", effects_of(matrix_of(blocks(n, 3), k)))
            await shown(view, k)
        assert view.history_bytes <= 2 * FRAMES_BYTES
        lines = view.history(("fx", "ewma"), "X:S000", "X:S001")
        assert lines is not None
        steps = np.diff([int(text) for text in lines["time_ns"]]) // SECOND_NS
        assert set(steps[:5]) == {SPARSE_EVERY}
        assert set(steps[-20:]) == {1}
        assert steps.sum() > 150  # the sparse part reaches back further than the dense one


async def test_symbols_that_come_and_go_do_not_push_alarms_out() -> None:
    view = LiveView(["fx"], unobserved())
    alarm = Event("fx", 1, "drift_alarm", T0_NS, {"alternative": "fusing"})
    view.show("fx", effects_of(events=[alarm]))
    for k in range(2, 1000):
        view.show("fx", effects_of(events=[Event("fx", k, "symbol_ready", T0_NS, {"symbol": "A"})]))
    events = view.events("fx", -1)
    assert events is not None
    assert len(events) == 1


# the routes


async def test_the_api_says_what_there_is(client: aiohttp.ClientSession) -> None:
    periods_s = {("fx", "ewma"): 1.0, ("fx", "dcc"): 60.0}
    async with serving(universes=("fx", "later"), periods_s=periods_s) as (server, view, _):
        view.show("fx", effects_of(*(matrix_of(blocks(3, 1), 7, e) for e in ("ewma", "dcc"))))
        view.progressed("fx", progress())
        for estimator in ("ewma", "dcc", "difference"):
            await shown(view, 7, estimator)
        async with client.get(f"{server.url}/api/universes") as answer:
            first, second = await answer.json()
        assert first["name"] == "fx"
        assert 0 <= first["estimators"]["ewma"].pop("shown_for_s") < 60
        assert first["estimators"]["ewma"] == {
            "sequence": 7,
            "as_of_ns": str(T0_NS + 7 * SECOND_NS),
            "symbols": 3,
            "period_s": 1.0,
        }
        for estimator in ("dcc", "difference"):  # which comes with the slower of both
            assert first["estimators"][estimator]["period_s"] == 60.0
        assert first["progress"]["lag_records"] == 6
        assert second == {"name": "later", "estimators": {}, "progress": None}


async def test_a_matrix_can_be_had_in_three_forms(client: aiohttp.ClientSession) -> None:
    matrix = matrix_of(random_corr(5, 3), 7, symbols=["A", "B,C", 'D"', "<i>", "é"])
    async with serving() as (server, view, _):
        view.show("fx", effects_of(matrix))
        await shown(view, 7)
        async with client.get(f"{server.url}/api/matrix/fx/ewma") as answer:
            again = decode(await answer.read())
        np.testing.assert_array_equal(again.corr, matrix.corr)
        async with client.get(f"{server.url}/api/matrix/fx/ewma.npy") as answer:
            assert "fx-ewma-7.npy" in answer.headers["Content-Disposition"]
            np.testing.assert_array_equal(np.load(io.BytesIO(await answer.read())), matrix.corr)
        async with client.get(f"{server.url}/api/matrix/fx/ewma.csv") as answer:
            rows = list(csv.reader(io.StringIO(await answer.text(), newline="")))
        assert rows[0] == ["symbol", *matrix.symbols]
        assert [row[0] for row in rows[1:]] == list(matrix.symbols)
        numbers = [[float(text) for text in row[1:]] for row in rows[1:]]
        np.testing.assert_array_equal(numbers, matrix.corr)


async def test_the_past_of_a_pair_is_what_was_shown(client: aiohttp.ClientSession) -> None:
    names = ["A", "A,B", "B"]
    matrices = [matrix_of(random_corr(3, k), k, symbols=names) for k in range(1, 6)]
    async with serving() as (server, view, _):
        view.show("fx", effects_of(*matrices))
        await shown(view, 5)
        for pair, (i, j) in {"A,A,B": (0, 1), "A,B,B": (1, 2), "B,A": (2, 0)}.items():
            async with client.get(
                f"{server.url}/api/history/fx/ewma", params={"pair": pair}
            ) as answer:
                lines = await answer.json()
            assert lines["time_ns"] == [str(m.as_of_ns) for m in matrices]
            assert lines["corr"] == [float(np.float32(m.corr[i, j])) for m in matrices]
            # bands are told in units of 1/65534
            np.testing.assert_allclose(
                lines["band"], [m.band[i, j] for m in matrices], atol=0.5001 / 65534
            )
        async with client.get(f"{server.url}/api/summary/fx/ewma") as answer:
            lines = await answer.json()
        assert lines["average_correlation"] == [m.regime.average_correlation for m in matrices]
        assert lines["drift_level"] == [0.2] * 5


async def test_a_pair_of_nothing_but_commas_costs_no_more_than_its_length(
    client: aiohttp.ClientSession,
) -> None:
    names, n = ["A", ",,,", "B"], 8000
    async with serving() as (server, view, _):
        view.show("fx", effects_of(matrix_of(blocks(3, 1), symbols=names)))
        await shown(view, 1)
        url = f"{server.url}/api/history/fx/ewma"
        for pair, both in {"A,,,,": ["A", ",,,"], ",,,,B": [",,,", "B"]}.items():
            async with client.get(url, params={"pair": pair}) as answer:
                assert (await answer.json())["pair"] == both
        tracemalloc.start()
        async with client.get(f"{url}?pair={',' * n}") as answer:
            assert answer.status == 400
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < n**2 / 10  # all ways to cut it in two are n**2 bytes


async def test_events_are_told_from_a_number_on(client: aiohttp.ClientSession) -> None:
    events = [Event("fx", k, "refit_failed", T0_NS, {"reason": "<b>"}) for k in range(5)]
    async with serving() as (server, view, _):
        view.show("fx", effects_of(events=events))
        async with client.get(f"{server.url}/api/events/fx?after=2") as answer:
            assert [event["sequence"] for event in await answer.json()] == [3, 4]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api", 404),
        ("/api/", 404),
        ("/api/nothing", 404),
        ("/api/matrix/fx/dcc", 404),
        ("/api/matrix/other/ewma", 404),
        ("/api/matrix/fx/ewma.exe", 404),
        ("/api/summary/other/ewma", 404),
        ("/api/moved/other/ewma", 404),
        ("/api/moved/fx/ewma?since=x", 400),
        ("/api/moved/fx/ewma?since=\u0663", 400),
        ("/api/events/other", 404),
        ("/api/events/fx?after=x", 400),
        ("/api/events/fx?after=1e3", 400),
        ("/api/history/other/dcc?pair=A,B", 404),
        ("/api/history/fx/ewma", 400),
        ("/api/history/fx/ewma?pair=X:S000,X:S000", 400),
        ("/api/history/fx/ewma?pair=X:S000,nobody", 400),
        ("/ws", 426),
        ("/../pyproject.toml", 404),
        ("/%2e%2e/pyproject.toml", 404),
        ("/uplot/../../config/sections.py", 404),
        ("/app.py", 404),
    ],
)
async def test_what_is_not_there_is_said_in_one_line(
    client: aiohttp.ClientSession, path: str, status: int
) -> None:
    async with serving() as (server, view, _):
        view.show("fx", effects_of(matrix_of(blocks(3, 1))))
        await shown(view, 1)
        async with client.get(server.url + path) as answer:
            assert answer.status == status
            assert (await answer.text()).count("\n") == 1


@pytest.mark.parametrize("what", ["summary/fx/dcc", "moved/fx/dcc", "history/fx/dcc?pair=A,B"])
async def test_what_is_not_there_yet_is_no_error(client: aiohttp.ClientSession, what: str) -> None:
    async with serving() as (server, _, _), client.get(f"{server.url}/api/{what}") as answer:
        assert (answer.status, await answer.read()) == (204, b"")


async def test_the_pairs_that_moved_most_since_a_time(client: aiohttp.ClientSession) -> None:
    names = ["A", "B", "C", "D"]
    matrices = [matrix_of(random_corr(4, k), k, symbols=names) for k in range(1, 5)]
    fewer = matrix_of(random_corr(3, 9), 5, symbols=["D", "B", "X"])
    async with serving() as (server, view, _):
        url = f"{server.url}/api/moved/fx/ewma"
        view.show("fx", effects_of(*matrices))
        await shown(view, 4)
        for since, then in ((0, 1), (T0_NS + 2 * SECOND_NS, 2), (T0_NS + 2 * SECOND_NS + 1, 3)):
            async with client.get(url, params={"since": str(since)}) as answer:
                told = await answer.json()
            assert told["then_ns"] == str(T0_NS + then * SECOND_NS)
            old, new = matrices[then - 1], matrices[3]
            upper = zip(*np.triu_indices(4, 1), strict=True)
            sizes = sorted((abs(new.corr[at] - old.corr[at]) for at in upper), reverse=True)
            found = told["moved"]
            # float32
            assert [abs(m["now"] - m["then"]) for m in found] == pytest.approx(sizes, abs=2e-7)
            i, j = (new.index(name) for name in found[0]["pair"])
            assert found[0]["now"] == pytest.approx(new.corr[i, j], abs=1e-7)
            assert found[0]["then"] == pytest.approx(old.corr[i, j], abs=1e-7)
        view.show("fx", effects_of(fewer))
        await shown(view, 5)
        async with client.get(url) as answer:
            (one,) = (await answer.json())["moved"]
        assert sorted(one["pair"]) == ["B", "D"]
        assert one["now"] == pytest.approx(fewer.corr[0, 1], abs=1e-7)
        assert one["then"] == pytest.approx(matrices[0].corr[1, 3], abs=1e-7)


async def test_a_view_that_is_switched_off_is_not_there(client: aiohttp.ClientSession) -> None:
    server = HttpServer(
        HttpConfig(port=0, view=False),
        lambda _: (b"", "text/plain"),
        lambda: None,  # type: ignore[arg-type,return-value]
        "1",
        lambda _: None,
    )
    await server.start()
    for path in VIEWED:
        async with client.get(server.url + path) as answer:
            assert answer.status == 404
    await server.close()


# who may look


async def test_the_page_is_strict(client: aiohttp.ClientSession) -> None:
    async with serving() as (server, _, _), client.get(server.url) as answer:
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'self';")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "same-origin"
        assert "Server" not in answer.headers
        text = await answer.text()
        assert "style=" not in text
        assert "http" not in text


async def test_without_the_token_nothing_of_the_view_is_shown(
    client: aiohttp.ClientSession,
) -> None:
    async with serving(HttpConfig(port=0, token=SecretStr(SECRET))) as (server, view, _):
        view.show("fx", effects_of(matrix_of(blocks(3, 1), symbols=["secret", "b", "c"])))
        await shown(view, 1)
        for path in VIEWED:
            async with client.get(server.url + path) as answer:
                assert answer.status == 401
                text = await answer.text()
                assert SECRET not in text
                assert "secret" not in text
                assert ('type="password"' in text) == (path == "/")
        bearer = {"Authorization": f"Bearer {SECRET}"}
        for path in VIEWED[:-1]:
            async with client.get(server.url + path, headers=bearer) as answer:
                assert answer.status == 200
        async with client.ws_connect(f"{server.url}/ws", headers=bearer) as socket:
            await socket.send_json(WATCH)
            await socket.receive_bytes()


async def test_a_browser_gives_the_token_once(
    client: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with serving(HttpConfig(port=0, token=SecretStr(SECRET))) as (server, _, _):
        for wrong in ("", "wrong", f"{SECRET}x"):
            async with client.post(f"{server.url}/login", data={"token": wrong}) as answer:
                assert answer.status == 401
                assert "Set-Cookie" not in answer.headers
        async with client.post(
            f"{server.url}/login", data={"token": SECRET}, allow_redirects=False
        ) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, "/")
            cookie = answer.headers["Set-Cookie"]
            assert "HttpOnly" in cookie
            assert "SameSite=Strict" in cookie
            assert SECRET not in cookie
            assert "Secure" not in cookie  # or it would not come back: there is no TLS here
        async with client.post(
            f"{server.url}/login",
            data={"token": SECRET},
            headers={"X-Forwarded-Proto": "https"},
            allow_redirects=False,
        ) as answer:
            assert "Secure" in answer.headers["Set-Cookie"]
        async with client.post(f"{server.url}/login", data={"token": SECRET}):
            pass  # the cookie of a proxy with TLS does not come back without
        for path in VIEWED[:3]:
            async with client.get(server.url + path) as answer:
                assert answer.status == 200
        # looking is all that it lets do
        async with client.get(f"{server.url}/metrics") as answer:
            assert answer.status == 401
        async with client.post(f"{server.url}/refit/fx") as answer:
            assert answer.status == 401
    assert SECRET not in caplog.text


async def test_wrong_tokens_are_answered_one_at_a_time_and_a_right_one_at_once(
    client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "LOGIN_WAIT_S", wait_s := 5.0)  # a busy machine answers in between
    async with serving(HttpConfig(port=0, token=SecretStr(SECRET))) as (server, _, _):

        async def give(token: str = "x") -> int:
            form = {"token": token}
            async with client.post(
                f"{server.url}/login", data=form, allow_redirects=False
            ) as answer:
                return answer.status

        begun_s = asyncio.get_running_loop().time()
        wrong = asyncio.gather(*(give() for _ in range(5)))
        assert await give(SECRET) == 303
        assert not wrong.done()
        assert sorted(await wrong) == [401] + [429] * 4
        assert asyncio.get_running_loop().time() - begun_s >= wait_s - 0.1
        async with client.post(f"{server.url}/login", data={"token": "x" * 5000}) as answer:
            assert answer.status == 413


@pytest.mark.parametrize("path", ["/", "/api/universes", "/ws", "/login"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Host": "evil.example"},  # a name that somebody made point here
    ],
    ids=["other site", "no site", "other port", "other name"],
)
async def test_other_sites_get_nothing(
    client: aiohttp.ClientSession, path: str, headers: dict[str, str]
) -> None:
    async with serving() as (server, _, _):
        upgrade = {"Upgrade": "websocket", "Connection": "Upgrade"} if path == "/ws" else {}
        async with client.get(server.url + path, headers=headers | upgrade) as answer:
            assert answer.status == 403


async def test_the_own_page_may_connect(client: aiohttp.ClientSession) -> None:
    async with (
        serving() as (server, _, _),
        client.ws_connect(f"{server.url}/ws", headers={"Origin": server.url}) as socket,
    ):
        assert not socket.closed


# frames


async def test_a_viewer_gets_the_newest_at_once_and_then_each(
    client: aiohttp.ClientSession,
) -> None:
    async with serving() as (server, view, _), client.ws_connect(f"{server.url}/ws") as socket:
        view.show("fx", effects_of(matrix_of(blocks(3, 1), 1)))
        await shown(view, 1)
        await socket.send_json(WATCH)
        for k in range(1, 20):
            head, corr, _ = decode_live(await socket.receive_bytes(timeout=10))
            assert head["sequence"] == k
            np.testing.assert_array_equal(corr, np.full(3, 0.8, np.float32))
            await socket.send_json({"drawn": 1})
            view.show("fx", effects_of(matrix_of(blocks(3, 1), k + 1)))


async def test_a_slow_viewer_gets_the_newest_and_no_queue(client: aiohttp.ClientSession) -> None:
    async with (
        serving() as (server, view, observer),
        client.ws_connect(f"{server.url}/ws") as socket,
    ):
        await socket.send_json(WATCH)
        for k in range(1, 101):
            view.show("fx", effects_of(matrix_of(blocks(3, 1), k)))
            await shown(view, k)
        await asyncio.sleep(0.1)
        early = [decode_live(await socket.receive_bytes(timeout=10))[0]["sequence"] for _ in "12"]
        assert len(early) == ON_THEIR_WAY
        with pytest.raises(TimeoutError):
            await socket.receive_bytes(timeout=0.2)
        await socket.send_json({"drawn": 2})
        head, _, _ = decode_live(await socket.receive_bytes(timeout=10))
        assert head["sequence"] == 100
        with pytest.raises(TimeoutError):
            await socket.receive_bytes(timeout=0.2)
        metrics = observer.render("")[0].decode()
        assert 'stream_calib_view_frames_total{outcome="sent"} 3.0' in metrics
        passed_over = 100 - early[0] - 2  # from the first that it got
        line = f'stream_calib_view_frames_total{{outcome="passed_over"}} {passed_over:.1f}'
        assert line in metrics
        assert "stream_calib_view_clients 1.0" in metrics


async def test_a_viewer_that_never_reads_holds_nobody_up(client: aiohttp.ClientSession) -> None:
    n = 300
    async with (
        serving() as (server, view, _),
        client.ws_connect(f"{server.url}/ws") as stuck,
        client.ws_connect(f"{server.url}/ws", max_msg_size=0) as other,
    ):
        # says that all is drawn and reads nothing: what is sent stays in the sockets
        await stuck.send_json(WATCH)
        await stuck.send_json({"drawn": 0})
        stuck._conn.protocol.pause_reading()  # type: ignore[union-attr]
        await other.send_json(WATCH)
        for k in range(1, 40):
            await stuck.send_json({"drawn": 1})
            view.show("fx", effects_of(matrix_of(blocks(n, 3), k)))
            head, _, _ = decode_live(await other.receive_bytes(timeout=10))
            assert head["sequence"] == k
            await other.send_json({"drawn": 1})
        stuck._conn.protocol.resume_reading()  # type: ignore[union-attr]


async def test_another_estimator_can_be_watched_on_the_same_connection(
    client: aiohttp.ClientSession,
) -> None:
    async with serving() as (server, view, _), client.ws_connect(f"{server.url}/ws") as socket:
        view.show("fx", effects_of(matrix_of(blocks(3, 1), 4), matrix_of(blocks(3, 1), 4, "dcc")))
        await shown(view, 4, "difference")
        for estimator in ("ewma", "dcc", "difference"):
            await socket.send_json({"watch": ["fx", estimator]})
            head, _, _ = decode_live(await socket.receive_bytes(timeout=10))
            assert head["estimator"] == estimator
            await socket.send_json({"drawn": 1})


@pytest.mark.parametrize(
    "said",
    [
        "",
        "x",
        "[]",
        '{"watch": "fx"}',
        '{"watch": ["fx"]}',
        '{"drawn": -1}',
        '{"drawn": "1"}',
        b"x",
    ],
)
async def test_what_is_not_understood_ends_the_connection(
    client: aiohttp.ClientSession, said: str | bytes
) -> None:
    async with serving() as (server, _, _), client.ws_connect(f"{server.url}/ws") as socket:
        await (socket.send_bytes(said) if isinstance(said, bytes) else socket.send_str(said))
        message = await socket.receive(timeout=10)
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert message.data == 1003


async def test_long_messages_end_the_connection(client: aiohttp.ClientSession) -> None:
    async with serving() as (server, _, _), client.ws_connect(f"{server.url}/ws") as socket:
        await socket.send_str("x" * (MESSAGE_BYTES_MAX + 1))
        message = await socket.receive(timeout=10)
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert message.data == aiohttp.WSCloseCode.MESSAGE_TOO_BIG


async def test_viewers_are_limited_and_room_is_made_again(client: aiohttp.ClientSession) -> None:
    async with serving() as (server, _, _):
        sockets = [await client.ws_connect(f"{server.url}/ws") for _ in range(VIEWERS_MAX)]
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect(f"{server.url}/ws")
        assert refused.value.status == 503
        await asyncio.gather(*(socket.close() for socket in sockets))
        await asyncio.sleep(0.1)
        await (await client.ws_connect(f"{server.url}/ws")).close()


async def test_who_only_opens_connections_keeps_nobody_out(client: aiohttp.ClientSession) -> None:
    async with serving() as (server, view, _), client.ws_connect(f"{server.url}/ws") as viewer:
        idle = [
            await asyncio.open_connection("127.0.0.1", server.port)
            for _ in range(2 * CONNECTIONS_MAX)
        ]
        async with client.get(f"{server.url}/healthz") as answer:
            assert answer.status == 200
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(idle[0][0].read(), 10) == b""  # the oldest made room
        last = asyncio.create_task(idle[-1][0].read())
        await viewer.send_json(WATCH)
        view.show("fx", effects_of(matrix_of(blocks(3, 1))))
        await viewer.receive_bytes(timeout=10)
        assert not last.done()
        for _, writer in idle:
            writer.close()
        await last


async def test_a_matrix_that_cannot_be_shown_is_told_of_and_the_next_one_is_shown() -> None:
    async with serving() as (_, view, _):
        with structlog.testing.capture_logs() as logs:
            broken = replace(matrix_of(blocks(3, 1), 1), corr=np.zeros((2, 2)))
            view.show("fx", effects_of(broken))
            async with asyncio.timeout(10):
                while not logs:  # noqa: ASYNC110 (a list)
                    await asyncio.sleep(0.005)
            view.show("fx", effects_of(matrix_of(blocks(3, 1), 2)))
            await shown(view, 2)
        assert logs[0]["event"] == "a matrix is not shown"


async def test_closing_ends_viewers_soon(client: aiohttp.ClientSession) -> None:
    async with serving() as (server, _, _):
        socket = await client.ws_connect(f"{server.url}/ws")
        begun_s = asyncio.get_running_loop().time()
        closing = asyncio.create_task(server.close())
        message = await socket.receive(timeout=10)
        await closing
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert message.data == aiohttp.WSCloseCode.GOING_AWAY
        assert asyncio.get_running_loop().time() - begun_s < 8.0  # .5 s, or for ever


def test_degraded_matrices_keep_their_reasons_in_the_head() -> None:
    matrix = replace(matrix_of(blocks(3, 1)), quality=Quality(0.1, 0.2, 3, degraded=("old fit",)))
    head, _, _ = decode_live(encode_live(matrix).value)
    assert head["quality"]["degraded"] == ["old fit"]
