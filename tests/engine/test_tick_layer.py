"""Splits, bad prints, sessions and quotes on their way through the engine."""

from collections.abc import Sequence
from random import Random

import numpy as np
import orjson
import pytest

from stream_calib.config import Config
from stream_calib.engine.notable import near_split
from stream_calib.simulation import simulate
from stream_calib.values import Output, Source
from tests.engine.driver import SECOND, START, Driver, Value, settings, tick
from tests.engine.schedule import control

T = Source("t", 0)
SYMBOLS = ("A", "B", "C")
DEFAULTS = {
    "filter": {"enabled": True},
    "ewma": {"half_life": "60s", "window": "5s", "winsor": 3.0},
}


def config(**changes: object) -> Config:
    layer = {f"universe__{key}": value for key, value in (DEFAULTS | changes).items()}
    return settings(SYMBOLS, time__lateness="0s", **layer)


def prices(seed: int = 5, seconds: float = 240.0) -> list[tuple[float, str, float]]:
    """(seconds, symbol, price) of three correlated symbols, two ticks a second each."""
    found = simulate(3, seconds, seed=seed, rate_hz=2.0)
    since_s = (found.time_ns - found.time_ns[0]) / SECOND
    rows = zip(since_s.tolist(), found.asset.tolist(), found.price.tolist(), strict=True)
    return [(round(s, 6), SYMBOLS[i], price) for s, i, price in rows]


def log_of(rows: Sequence[tuple[float, str, float]]) -> list[Value]:
    return [tick(symbol, seconds, price) for seconds, symbol, price in rows]


def run(config: Config, values: Sequence[Value], seed: int = 1) -> Driver:
    return Driver(config).run({T: list(values)}, Random(seed))


def matrices(driver: Driver) -> list[Output]:
    return driver.published()


def events(driver: Driver, type_: str) -> list[dict[str, object]]:
    found = [orjson.loads(output.value) for output in driver.published("events")]
    return [event["details"] for event in found if event["type"] == type_]


def split_rows(at_s: float = 120.0) -> list[tuple[float, str, float]]:
    return [(s, i, p / 2 if i == "B" and s > at_s else p) for s, i, p in prices()]


def test_a_split_with_its_control_record_leaves_the_output_as_if_there_had_been_none() -> None:
    before = [row for row in split_rows() if row[0] <= 120.0]
    after = [row for row in split_rows() if row[0] > 120.0]
    whole = run(config(), log_of(prices()))
    split = run(config(), [*log_of(before), control("B", 120.0, factor=0.5), *log_of(after)])
    # halves are exact, so the ratios of prices and every number after them are the same bits
    assert matrices(split) == matrices(whole)
    assert len(matrices(whole)) > 200
    assert events(split, "adjusted") == [{"symbol": "B", "factor": 0.5}]
    assert events(split, "price_jump") == events(whole, "price_jump") == []


def test_without_the_record_an_event_says_what_was_seen() -> None:
    driver = run(config(), log_of(split_rows()))
    (jump,) = events(driver, "price_jump")
    assert (jump["symbol"], jump["split"]) == ("B", "2:1")
    assert jump["ratio"] == pytest.approx(0.5, rel=0.02)  # the market moved besides
    # capped, it moves the last matrix by less than its band
    last, whole = driver.matrices[-1], run(config(), log_of(prices())).matrices[-1]
    assert np.abs(last.corr - whole.corr).max() < 1.96 * whole.band.max()


@pytest.mark.parametrize("how", [{"offset": -3.0}, {"offset": -1e6}, {"reset": True}])
def test_a_roll_or_a_reset_costs_one_return_at_most(how: dict[str, object]) -> None:
    shift = float(how.get("offset", -3.0))  # type: ignore[arg-type]
    shift = shift if shift > -100.0 else -3.0
    rows = [(s, i, p + shift if i == "B" and s > 120.0 else p) for s, i, p in prices()]
    middle = sum(s <= 120.0 for s, _, _ in rows)
    values = [*log_of(rows[:middle]), control("B", 120.0, **how), *log_of(rows[middle:])]
    driver, whole = run(config(), values), run(config(), log_of(prices()))
    assert events(driver, "price_jump") == []
    assert len(driver.matrices) == len(whole.matrices)
    # one of hundreds of returns, and prices of which all but B's are the same
    assert np.abs(driver.matrices[-1].corr - whole.matrices[-1].corr).max() < 0.03


@pytest.mark.parametrize("ratio", [0.5, 2.0, 1 / 3, 1.5, 10.0, 0.51])
def test_a_ratio_near_a_split_is_named(ratio: float) -> None:
    name = near_split(ratio)
    assert name is not None
    new, old = map(int, name.split(":"))
    assert old / new == pytest.approx(ratio, rel=0.021)


def test_a_ratio_of_no_split_has_no_name() -> None:
    assert near_split(0.77) is None
    assert near_split(1.27) is None


BAD_S = (50.3, 90.7, 130.1)


def spoiled(rows: Sequence[tuple[float, str, float]]) -> list[tuple[float, str, float]]:
    """A print ten per cent off now and then."""
    bad = [(s, "A", next(p for t, i, p in rows if i == "A" and t > s) * 1.1) for s in BAD_S]
    return sorted([*rows, *bad], key=lambda row: row[0])


def test_bad_prints_are_rejected_with_their_bytes_and_leave_no_trace() -> None:
    good, bad = run(config(), log_of(prices())), run(config(), log_of(spoiled(prices())))
    rejects = bad.published("rejects")
    assert [dict(r.headers)["reason"] for r in rejects] == [b"outlier"] * len(BAD_S)
    times = [orjson.loads(reject.value)["time"] - START for reject in rejects]
    assert times == [round(s * SECOND) for s in BAD_S]
    assert bad.counts["outlier"] == len(BAD_S)
    one, other = good.matrices[-1], bad.matrices[-1]
    # the filter's idea of a usual move has seen three larger ones: what it holds may differ
    assert np.abs(one.corr - other.corr).max() < 1e-3
    unfiltered = run(config(filter={"enabled": False}), log_of(spoiled(prices())))
    assert np.abs(unfiltered.matrices[-1].vol[0] / one.vol[0] - 1) > np.abs(
        other.vol[0] / one.vol[0] - 1
    )


def test_rejects_of_the_filter_come_in_the_order_of_event_time_however_input_is_cut() -> None:
    values = log_of(spoiled(prices()))
    values[40:40] = [b"junk"]
    one = run(config(), values, seed=1)
    assert len(one.published("rejects")) == len(BAD_S) + 1
    for seed in range(2, 8):
        other = run(config(), values, seed=seed)
        assert other.published("rejects") == one.published("rejects")
        assert matrices(other) == matrices(one)


def test_ticks_out_of_session_are_counted_and_nights_are_no_returns() -> None:
    # START is 22:13:20 UTC; closed from 22:15 to 22:16, 100 to 160 seconds later
    own = settings(
        SYMBOLS,
        time__lateness="0s",
        calendar__x={"sessions": ["00:00-22:15", "22:16-23:59"]},
        **{f"universe__{key}": value for key, value in (DEFAULTS | {"calendar": "x"}).items()},
    )
    rows = [(s, i, p * (1.15 if s > 130.0 else 1.0)) for s, i, p in prices()]
    driver = run(own, log_of(rows))
    assert driver.counts["closed"] == sum(100.0 <= s < 160.0 for s, _, _ in rows)
    assert events(driver, "price_jump") == []  # the night's fifteen per cent
    as_of_s = [(m.as_of_ns - START) / SECOND for m in driver.matrices]
    assert not any(101.0 < s <= 160.0 for s in as_of_s)
    whole = run(config(), log_of(prices())).matrices[-1]
    assert np.abs(driver.matrices[-1].corr - whole.corr).max() < 1.96 * whole.band.max()


def quote(symbol: str, seconds: float, **sides: float) -> Value:
    return orjson.dumps({"symbol": symbol, "time": START + round(seconds * SECOND), **sides})


def test_quotes_of_single_sides_make_the_mids_of_whole_quotes() -> None:
    whole, single = [], []
    for seconds, symbol, price in prices():
        # halves and sums of multiples of 1/64 are exact
        bid, ask = round(price * 64) / 64, round(price * 64) / 64 + 0.125
        whole.append(quote(symbol, seconds, bid=bid, ask=ask))
        single += [quote(symbol, seconds, bid=bid), quote(symbol, seconds, ask=ask)]
    own = config(price="mid", filter={"enabled": False})
    one, other = run(own, whole), run(own, single)
    assert one.matrices[-1].corr == pytest.approx(other.matrices[-1].corr, abs=0.0)
    assert other.counts["no_price"] == 3  # the first bid of each symbol


def test_a_microprice_leans_to_the_side_that_is_thin() -> None:
    own = config(price="microprice", filter={"enabled": False}, returns={"A": "diff"})
    values = []
    for k in range(100):
        # A's microprice goes up and down by its sizes alone, B and C by their prices
        size, up = (300.0, 100.0) if k % 2 else (100.0, 300.0), 0.001 * (k % 2)
        values.append(quote("A", k, bid=99.0, ask=101.0, bid_size=size[0], ask_size=size[1]))
        values += [quote(s, k, bid=99.0 + up, ask=101.0 + up) for s in "BC"]
    last = run(own, values).matrices[-1]
    assert last.symbols == SYMBOLS
    assert last.corr[0, 1] > 0.99


def test_spreads_and_rates_may_be_negative_beside_prices() -> None:
    own = config(returns={"C": "diff"}, ewma={"half_life": "60s", "window": "1s", "winsor": 0.0})
    rows = [(s, i, float(np.log(p / 100.0)) if i == "C" else p) for s, i, p in prices()]
    mixed, logs = (
        run(own, log_of(rows)),
        run(config(ewma={"half_life": "60s", "window": "1s", "winsor": 0.0}), log_of(prices())),
    )
    assert any(p < 0 for _, i, p in rows if i == "C")
    # differences of logs are log returns, to rounding
    np.testing.assert_allclose(mixed.matrices[-1].corr, logs.matrices[-1].corr, atol=1e-9)


def test_every_matrix_of_two_scales_says_what_it_rests_on() -> None:
    driver = run(config(), log_of(prices(seconds=900.0)))
    last = driver.matrices[-1]
    assert last.audit is not None
    assert last.audit["pairs"] == 3
    assert (last.quality.raw_variances, last.quality.floored_variances) == (0, 0)
    assert last.band_total is not None
    assert (last.band_total >= last.band).all()
    document = orjson.loads(matrices(driver)[-1].value)
    assert set(document["audit"]) >= {"estimator", "average_correlation", "rms_difference"}
    assert document["quality"]["raw_variances"] == 0


@pytest.mark.parametrize("returns", [{}, {"A": "diff", "B": "diff", "C": "diff"}])
@pytest.mark.parametrize("seed", range(6))
def test_no_price_and_no_control_record_is_too_strange(seed: int, returns: dict[str, str]) -> None:
    random = Random(seed)
    values: list[Value] = []
    strange = (0.0, -1.0, 1e-300, 1e300, 1.7e308, 5e-324, -1e150, 3.0, 1e12)
    for k, (seconds, symbol, usual) in enumerate(prices(seconds=60.0)):
        price = random.choice(strange) if random.random() < 0.1 else usual
        sides = {"bid": price, "ask": random.choice((price, *strange))} if k % 3 else {}
        if random.random() < 0.5 and sides:
            del sides[random.choice(("bid", "ask"))]
        if random.random() < 0.3:
            sides |= {"bid_size": random.choice((0.0, 1e300, 5.0)), "ask_size": 2.0}
        values.append(tick(symbol, seconds, price, **sides))
        if random.random() < 0.03:
            by = random.choice(strange[2:])
            how = random.choice(({"factor": abs(by)}, {"offset": by}, {"reset": True}))
            values.append(control(random.choice(SYMBOLS), seconds, **how))
    for policy in ("last", "mid", "microprice"):
        driver = run(config(price=policy, returns=returns), values, seed)
        for matrix in driver.matrices:
            numbers = [matrix.corr, matrix.vol, matrix.n_eff, matrix.band]
            assert all(np.isfinite(n).all() for n in numbers)
            np.linalg.cholesky(matrix.corr)
        assert driver.counts["applied"] > 0


@pytest.mark.parametrize("to", [1.4, 1e-18])
def test_jumps_of_simple_returns_are_told_too(to: float) -> None:
    rows = [(s, i, p * to if i == "B" and s > 60.0 else p) for s, i, p in prices(seconds=120.0)]
    (jump,) = events(run(config(**{"return": "simple"}), log_of(rows)), "price_jump")
    assert jump["symbol"] == "B"
    assert jump["ratio"] == pytest.approx(to, rel=0.02, abs=1e-15)


def test_one_instrument_at_two_venues_has_a_band_within_reason() -> None:
    random = Random(3)
    own = config(ewma={"half_life": "120s", "window": "4s", "winsor": 3.0})
    values, price = [], 100.0
    for k in range(1200):
        price *= np.exp(random.gauss(0.0, 1e-4))
        for i, symbol in enumerate(SYMBOLS):
            if random.random() < 0.6:
                values.append(tick(symbol, 0.25 * k + 0.01 * i, float(price)))
    driver = run(own, values)
    assert any(matrix.quality.capped_pairs for matrix in driver.matrices)
    # nothing within [-1, 1] has a larger one, however little the first windows share
    assert max(float(matrix.band.max()) for matrix in driver.matrices) <= 1.0
    assert driver.matrices[-1].band.max() < 0.1


@pytest.mark.parametrize("bin_", ["1h", "4h", "12h", "1d"])
def test_a_pattern_of_few_bins_is_a_pattern(bin_: str) -> None:
    diurnal = {"enabled": True, "bin": bin_}
    assert run(config(diurnal=diurnal), log_of(prices(seconds=120.0))).matrices


def test_a_reset_lets_the_audit_begin_anew() -> None:
    rows = log_of(prices())
    half = len(rows) // 2
    values = [*rows[:half], control("A", 110.0, offset=5e3), control("A", 110.1, reset=True)]
    last = run(config(), [*values, *rows[half:]]).matrices[-1]
    assert last.audit is not None
    assert last.audit["pairs"] == 3
