"""Volatility bar by bar: what standardises never contains the shock, and one bad tick is a cap."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from stream_calib.estimation.calibration.garch import fit_garch
from stream_calib.estimation.garch import GarchVolatility
from stream_calib.values import F64, GarchParams, ReturnBlock


def block(returns: F64, exposure: F64 | None = None) -> ReturnBlock:
    k = len(returns)
    spans = np.where(np.isnan(returns), 0.0, 1.0) if exposure is None else exposure
    return ReturnBlock(np.arange(k, dtype=np.int64), returns, spans, np.ones(k))


def params(n: int, **settings: float) -> GarchParams:
    chosen = {"mu": 0.0, "omega": 0.05, "alpha": 0.06, "beta": 0.89, "gamma": 0.0} | settings
    columns = {name: np.full(n, value) for name, value in chosen.items()}
    return GarchParams(**columns, nu=np.full(n, np.nan))


def garch(k: int, n: int, seed: int, nu: float = math.inf) -> tuple[F64, F64]:
    """Returns (k, n) of ``params`` and their true variances."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((k, n))
    if math.isfinite(nu):
        noise = rng.standard_t(nu, (k, n)) * math.sqrt((nu - 2.0) / nu)
    h, out = np.ones(n), np.empty((2, k, n))
    for t in range(k):
        e = np.sqrt(h) * noise[t]
        out[0, t], out[1, t] = e, h
        h = 0.05 + 0.06 * e**2 + 0.89 * h
    return out[0], out[1]


def bits(volatility: GarchVolatility) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in volatility.state().items()}


@pytest.mark.parametrize("model", ["garch", "gjr"])
def test_the_stream_is_the_filter_of_the_fit(model: Any) -> None:
    returns, _ = garch(1200, 3, seed=1)
    returns[np.random.default_rng(2).random(returns.shape) < 0.1] = np.nan
    fit = fit_garch(returns, model=model)
    volatility = GarchVolatility(3, half_life_obs=50.0)
    volatility.install(fit.params, fit.variance[0])
    pieces = [volatility.standardise(block(returns[t : t + 7])).returns for t in range(0, 1200, 7)]
    z = np.concatenate(pieces)
    # the same operations in another order
    np.testing.assert_allclose(z, fit.residuals / np.sqrt(fit.variance[:-1]), rtol=1e-12)
    np.testing.assert_allclose(volatility.variance(), fit.variance[-1], rtol=1e-12)
    assert volatility.ready.all()


def test_without_a_fit_it_is_a_weighted_mean_of_earlier_squares() -> None:
    returns = np.random.default_rng(3).standard_normal((300, 2))
    volatility = GarchVolatility(2, half_life_obs=30.0)
    z = volatility.standardise(block(returns)).returns
    weight = 2.0 ** (-np.arange(299)[::-1] / 30.0)
    wanted = weight @ returns[:299] ** 2 / weight.sum()
    # sums of 300 terms
    np.testing.assert_allclose(z[299], returns[299] / np.sqrt(wanted), rtol=1e-12)


def test_nothing_is_standardised_before_twenty_returns_are_known() -> None:
    returns = np.random.default_rng(3).standard_normal((60, 2))
    returns[:30, 1] = np.nan
    volatility = GarchVolatility(2, half_life_obs=1e6, cap=3.0)
    out = volatility.standardise(block(returns))
    assert np.isnan(out.returns[:20, 0]).all()
    assert np.isnan(out.returns[:50, 1]).all()
    # weights fade a little, so that twenty returns count for just less than twenty
    assert np.isfinite(out.returns[21:, 0]).all()
    assert np.isfinite(out.returns[51:, 1]).all()
    assert ((out.exposure > 0.0) == np.isfinite(out.returns)).all()


def test_a_price_that_never_moves_is_never_ready() -> None:
    volatility = GarchVolatility(2, half_life_obs=20.0, cap=3.0)
    returns = np.random.default_rng(1).standard_normal((100, 2))
    returns[:, 0] = 0.0
    out = volatility.standardise(block(returns))
    assert volatility.ready.tolist() == [False, True]
    assert math.isnan(volatility.variance()[0])
    assert np.isnan(out.returns[:, 0]).all()
    assert not out.exposure[:, 0].any()


@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize("cap", [0.0, 3.0])
def test_a_return_is_not_in_the_variance_it_is_divided_by(fitted: bool, cap: float) -> None:
    returns, _ = garch(200, 1, seed=4)
    other = returns.copy()
    other[150] *= 0.5
    results = []
    for rows in (returns, other):
        volatility = GarchVolatility(1, half_life_obs=30.0, cap=cap)
        if fitted:
            volatility.install(params(1), np.ones(1))
        results.append(volatility.standardise(block(rows)).returns)
    one, two = results
    assert abs(one[150, 0]) < 3.0
    assert one[150, 0] == pytest.approx(2.0 * two[150, 0], rel=1e-14)
    assert (one[:150] == two[:150])[~np.isnan(one[:150])].all()
    assert one[151, 0] != two[151, 0]


@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_tick_of_fifty_sigma_is_one_at_the_cap(fitted: bool, sign: float) -> None:
    returns, _ = garch(600, 4, seed=5)
    returns[295:300] *= 0.1  # no other cap nearby
    volatility = GarchVolatility(4, half_life_obs=40.0, cap=3.0)
    if fitted:
        volatility.install(params(4, gamma=0.05), np.ones(4))
    volatility.standardise(block(returns[:300]))
    sigma = math.sqrt(volatility.variance()[1])
    states, runs = [], []
    for size in (50.0, 3.0 * (1.0 + 1e-15)):
        rest = returns[300:].copy()
        rest[0, 1] = sign * size * sigma
        own = GarchVolatility.from_state(volatility.state())
        runs.append(own.standardise(block(rest)).returns)
        states.append(own.state())
    assert abs(runs[0][0, 1]) == pytest.approx(3.0, abs=0.3)
    np.testing.assert_allclose(runs[0], runs[1], rtol=1e-12)
    for name, array in states[0].items():
        np.testing.assert_allclose(array, states[1][name], rtol=1e-12)


@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize("nu", [math.inf, 8.0, 5.0])
def test_capped_returns_have_variance_one_and_the_level_is_kept(fitted: bool, nu: float) -> None:
    returns, truth = garch(4000, 25, seed=6, nu=nu)
    volatility = GarchVolatility(25, half_life_obs=60.0, cap=2.5)
    if fitted:
        volatility.install(params(25), np.ones(25))
    z, h = np.empty((4000, 25)), np.empty((4000, 25))
    for t in range(4000):
        h[t] = volatility.variance()
        z[t] = volatility.standardise(block(returns[t : t + 1])).returns[0]
    # 75 000 squares have a standard error of .005 to .01; a mean of 170 squares, and a law that
    # is not among those that tails are compared with, leave a few percent
    assert np.mean(z[1000:] ** 2) == pytest.approx(1.0, abs=0.04)
    ratio = h[1000:] / truth[1000:]
    assert np.exp(np.mean(np.log(ratio))) == pytest.approx(1.0, abs=0.06)
    assert np.abs(z[1000:]).max() < 2.5 * 1.15


def test_uncapped_heavy_tails_are_too_small_without_the_factor() -> None:
    # what the factor is for: the same returns, capped as they are
    returns, truth = garch(4000, 25, seed=6, nu=5.0)
    plain = np.clip(returns / np.sqrt(truth), -2.5, 2.5)
    assert np.mean(plain**2) < 0.88


@pytest.mark.parametrize("factor", [10.0, 0.1])
@pytest.mark.parametrize("fitted", [False, True])
def test_a_real_change_of_volatility_is_followed(factor: float, fitted: bool) -> None:
    rng = np.random.default_rng(7)
    returns = rng.standard_normal((1500, 10))
    returns[1000:] *= factor
    volatility = GarchVolatility(10, half_life_obs=50.0, cap=3.0)
    if fitted:  # nearly integrated, as fits over such a change are
        volatility.install(params(10, omega=1e-6, alpha=0.05, beta=0.9499), np.ones(10))
    volatility.standardise(block(returns[:1200]))
    # 200 bars, four half-lives: 15/16 of the way
    sigma = np.sqrt(np.mean(volatility.variance()))
    assert sigma == pytest.approx(factor, rel=0.25 if factor > 1.0 else 2.0)
    volatility.standardise(block(returns[1200:]))
    assert np.sqrt(np.mean(volatility.variance())) == pytest.approx(factor, rel=0.1)


def test_a_return_over_bars_counts_per_bar() -> None:
    returns = np.random.default_rng(8).standard_normal((400, 1))
    single = GarchVolatility(1, half_life_obs=40.0)
    z = single.standardise(block(returns)).returns
    spanning = GarchVolatility(1, half_life_obs=40.0)
    four = np.full((400, 1), 4.0)
    out = spanning.standardise(block(2.0 * returns, four))
    assert out.returns.tobytes() == z.tobytes()  # a factor of two rounds nothing
    assert spanning.variance().tobytes() == single.variance().tobytes()
    assert (out.exposure[25:] == 4.0).all()


def test_the_mean_is_taken_off_for_each_bar_spanned() -> None:
    volatility = GarchVolatility(1, half_life_obs=40.0)
    volatility.install(params(1, mu=0.5), np.ones(1))
    out = volatility.standardise(block(np.array([[4.0]]), np.array([[4.0]])))
    assert out.returns[0, 0] == (4.0 - 4 * 0.5) / 2.0
    assert volatility.variance()[0] == pytest.approx(0.05 + 0.06 * 1.0 + 0.89, rel=1e-15)


def test_bars_without_a_return_lead_to_the_long_run_variance() -> None:
    volatility = GarchVolatility(2, half_life_obs=40.0, cap=3.0)
    volatility.install(params(2, gamma=0.02), np.array([9.0, 0.1]))
    out = volatility.standardise(block(np.full((1, 2), np.nan)))
    share = 0.06 + 0.01 + 0.89
    wanted = 0.05 + share * np.array([9.0, 0.1])
    np.testing.assert_allclose(volatility.variance(), wanted, rtol=1e-15)
    assert np.isnan(out.returns).all()
    volatility.standardise(block(np.full((2000, 2), np.nan)))
    np.testing.assert_allclose(volatility.variance(), 0.05 / (1.0 - share), rtol=1e-12)


def test_parameters_come_and_go() -> None:
    returns = np.random.default_rng(9).standard_normal((100, 3))
    volatility = GarchVolatility(3, half_life_obs=30.0)
    plain = GarchVolatility(3, half_life_obs=30.0)
    for own in (volatility, plain):
        own.standardise(block(returns))
    before = volatility.variance()
    some = params(3)
    some.omega[1] = np.nan
    volatility.install(some, np.array([np.nan, 5.0, 2.0]))
    # what is not given goes on from what was known; without a fit what is given counts for nothing
    assert volatility.variance().tolist() == [before[0], before[1], 2.0]
    nothing = replace(some, omega=np.full(3, np.nan))
    volatility.install(nothing)
    assert volatility.variance().tobytes() == before.tobytes()
    fresh = GarchVolatility(3, half_life_obs=30.0)
    fresh.install(some)
    level = 0.05 / (1.0 - 0.95)
    np.testing.assert_allclose(fresh.variance(), [level, np.nan, level], rtol=1e-12)
    assert fresh.ready.tolist() == [True, False, True]


def test_the_mean_of_squares_goes_on_under_a_fit() -> None:
    returns = np.random.default_rng(9).standard_normal((100, 1))
    volatility, plain = (GarchVolatility(1, half_life_obs=30.0) for _ in range(2))
    volatility.install(params(1))
    for own in (volatility, plain):
        own.standardise(block(returns))
    volatility.install(params(1, omega=math.nan))
    assert volatility.variance().tobytes() == plain.variance().tobytes()


@given(st.integers(1, 4), st.integers(0, 80), st.integers(0, 2**32 - 1), st.data())
@hypothesis_settings(max_examples=30)
def test_any_cut_with_saving_between_gives_the_same_bits(
    n: int, k: int, seed: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    returns = rng.standard_t(3, (k, n))
    returns[rng.random((k, n)) < 0.2] = np.nan
    cut = data.draw(st.integers(0, k))
    whole, parts = (GarchVolatility(n, 15.0, cap=2.0) for _ in range(2))
    some = params(n)
    some.mu[::2] = np.nan
    for own in (whole, parts):
        own.install(some)
    z = whole.standardise(block(returns)).returns
    first = parts.standardise(block(returns[:cut])).returns
    restored = GarchVolatility.from_state(parts.state())
    second = restored.standardise(block(returns[cut:])).returns
    assert np.concatenate([first, second]).tobytes() == z.tobytes()
    assert bits(restored) == bits(whole)


def test_what_a_new_asset_has_is_what_the_layout_says() -> None:
    state = GarchVolatility(2, 20.0).state()
    for name, fill in GarchVolatility.LAYOUT.by_symbol.items():
        np.testing.assert_array_equal(state[name], np.full(state[name].shape, fill))


def test_input_and_class_of_a_block_are_left_as_they_were() -> None:
    returns = np.random.default_rng(1).standard_normal((50, 2))
    before = returns.tobytes()
    rows = block(returns)
    out = GarchVolatility(2, 20.0, cap=3.0).standardise(rows)
    assert returns.tobytes() == before
    assert rows.exposure.all()
    assert out.time_ns is rows.time_ns


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 20.0), "n must"),
        ((1, 5.0), "half_life"),
        ((1, 20.0, 1.0), "cap"),
        ((1, 20.0, 11.0), "cap"),
    ],
)
def test_settings_out_of_range_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GarchVolatility(*arguments)


def test_blocks_and_parameters_of_another_width_are_refused() -> None:
    volatility = GarchVolatility(3, 20.0)
    with pytest.raises(ValueError, match="block is"):
        volatility.standardise(block(np.zeros((5, 2))))
    with pytest.raises(ValueError, match="3 assets"):
        volatility.install(params(2))
    with pytest.raises(ValueError, match="3 assets"):
        volatility.install(params(3), np.ones(2))
