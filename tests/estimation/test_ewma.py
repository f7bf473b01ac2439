"""The EWMA against other programs, closed forms and its own error bands."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_calib.estimation.ewma import CORRELATION_CAP, KAPPA_MAX, Ewma
from stream_calib.values import F64, Correlation, ReturnBlock

HALF_LIFE = 23.0


def covariance(known: Correlation) -> F64:
    cov: F64 = known.corr * np.outer(known.vol, known.vol)
    return cov


def assert_close_to_scale(got: F64, wanted: F64, vol: F64) -> None:
    """Compare covariances: each sums a few hundred products rounded at the size of vol^2."""
    scale = np.outer(vol, vol)
    assert (np.isnan(got) == np.isnan(wanted)).all()
    assert np.nanmax(np.abs(got - wanted) / scale) < 1e-12


def holed(k: int, n: int, seed: int) -> F64:
    rng = np.random.default_rng(seed)
    returns = rng.normal(size=(k, 1)) + rng.normal(size=(k, n))
    returns[rng.random((k, n)) < 0.3] = np.nan
    return returns


def fed(returns: F64, clock: str = "observations", half_life_obs: float = HALF_LIFE) -> Ewma:
    ewma = Ewma(returns.shape[1], half_life_obs, clock)
    ewma.update(returns)
    return ewma


@pytest.mark.parametrize(("clock", "ignore_na"), [("observations", True), ("time", False)])
@given(st.integers(0, 2**32 - 1))
def test_it_equals_pandas_ewm_over_the_joint_rows(clock: str, ignore_na: bool, seed: int) -> None:
    returns = holed(k=200, n=4, seed=seed)

    def smooth(values: F64) -> float:
        ewm = pd.Series(values).ewm(halflife=HALF_LIFE, adjust=True, ignore_na=ignore_na)
        return float(ewm.mean().iloc[-1])

    expected = np.empty((4, 4))
    for i in range(4):
        for j in range(4):
            ri, rj = returns[:, i] + 0.0 * returns[:, j], returns[:, j] + 0.0 * returns[:, i]
            raw = smooth(ri * rj) / np.sqrt(smooth(ri**2) * smooth(rj**2))
            expected[i, j] = np.clip(raw, -CORRELATION_CAP, CORRELATION_CAP)
    known = fed(returns, clock).correlation()
    off = ~np.eye(4, dtype=bool)
    # each sum has a few hundred products, rounded at the size of the variances
    np.testing.assert_allclose(known.corr[off], expected[off], rtol=0.0, atol=1e-12)
    vol = np.sqrt([smooth(returns[:, i] ** 2) for i in range(4)])
    np.testing.assert_allclose(known.vol, vol, rtol=1e-12)


@pytest.mark.parametrize("decay", [0.94, 0.97])
def test_it_equals_the_riskmetrics_recursion(decay: float) -> None:
    returns = np.random.default_rng(4).normal(size=(300, 3)) @ np.array(
        [[1.0, 0.5, 0.2], [0.0, 1.0, 0.7], [0.0, 0.0, 1.0]]
    )
    cov = np.zeros((3, 3))
    for r in returns:
        cov = decay * cov + (1.0 - decay) * np.outer(r, r)
    known = fed(returns, half_life_obs=np.log(0.5) / np.log(decay)).correlation()
    warm_up = 1.0 - decay ** len(returns)  # the recursion starts from zero
    assert_close_to_scale(covariance(known) * warm_up, cov, known.vol)


@pytest.mark.parametrize("clock", ["observations", "time"])
@given(st.integers(0, 2**32 - 1))
def test_uneven_bars_equal_the_sums_weighted_by_age(clock: str, seed: int) -> None:
    k, n = 150, 4
    rng = np.random.default_rng(seed)
    returns = holed(k, n, seed)
    exposure = np.where(np.isnan(returns), 0.0, rng.choice([0.5, 2.0, 2.0, 2.0], (k, n)))
    elapsed = rng.choice([0.5, 1.0, 3.0, 60.0], k)
    ewma = Ewma(n, HALF_LIFE, clock)
    ewma.update(ReturnBlock(np.arange(k), returns, exposure, elapsed))
    corr, n_eff = np.eye(n), np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            alike = (exposure[:, i] == exposure[:, j]) & (exposure[:, i] > 0.0)
            overlap = np.where(alike, exposure[:, i], 0.0)
            # a pair ages by all time, or only by the rows in which it is seen
            aging = elapsed if clock == "time" else np.where(alike, elapsed, 0.0)
            weight = 0.5 ** ((aging.sum() - aging.cumsum()) / HALF_LIFE)
            ri, rj = (np.where(alike, returns[:, a], 0.0) for a in (i, j))
            if i != j:
                raw = weight @ (ri * rj) / np.sqrt((weight @ ri**2) * (weight @ rj**2))
                # after a long gap one row can outweigh all others
                corr[i, j] = np.clip(raw, -CORRELATION_CAP, CORRELATION_CAP)
            n_eff[i, j] = (weight @ overlap) ** 2 / (weight**2 @ overlap**2)
    known = ewma.correlation()
    # each sum has 150 products, rounded at the size of the variances
    np.testing.assert_allclose(known.corr, corr, rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(known.n_eff, n_eff, rtol=1e-12)  # sums of 150 positive terms


def test_a_missing_return_freezes_the_pairs_of_its_symbol() -> None:
    ewma = fed(holed(100, 4, seed=5))
    before, n_eff = ewma.state(), ewma.correlation().n_eff
    rows = np.random.default_rng(6).normal(size=(50, 4))
    rows[:, 0] = np.nan
    ewma.update(rows)
    after = ewma.state()
    own = slice(0, 4)  # the first row of the packed triangle
    for name in ("products", "squares_i", "squares_j", "exposures", "exposures2"):
        assert before[name][own].tobytes() == after[name][own].tobytes()
        assert (before[name][4:] != after[name][4:]).all()
    assert ewma.correlation().n_eff[0].tobytes() == n_eff[0].tobytes()


def test_time_without_a_return_keeps_the_estimate_and_makes_room_for_news() -> None:
    rows = np.random.default_rng(7).normal(size=(300, 2))
    silence = np.column_stack([np.full(40, np.nan), np.ones(40)])
    timed, counted = fed(rows, "time"), fed(rows)
    for ewma in (timed, counted):
        ewma.update(silence)
    np.testing.assert_allclose(  # forty decays of numerator and denominator, each rounded
        timed.correlation().corr, counted.correlation().corr, rtol=0.0, atol=1e-13
    )
    news = np.array([[3.0, 3.0]])
    before = counted.correlation().corr[0, 1]
    for ewma in (timed, counted):
        ewma.update(news)
    assert timed.correlation().corr[0, 1] > counted.correlation().corr[0, 1] > before


def test_pairs_never_observed_together_are_nan() -> None:
    rows = np.random.default_rng(8).normal(size=(100, 3))
    rows[:50, 0] = np.nan
    rows[50:, 1] = np.nan
    rows[:, 2] = np.nan
    known = fed(rows).correlation()
    assert np.isnan(known.corr[0, 1])
    assert known.n_eff[0, 1] == 0.0
    assert np.isfinite(known.vol[:2]).all()
    assert np.isnan(known.vol[2])
    assert known.n_eff[2, 2] == 0.0


def test_a_constant_price_has_no_correlation() -> None:
    rows = np.random.default_rng(9).normal(size=(100, 3))
    rows[:, 1] = 0.0
    known = fed(rows).correlation()
    assert known.vol[1] == 0.0
    assert np.isnan(known.corr[1, [0, 2]]).all()
    assert (known.n_eff[1, [0, 2]] == 0.0).all()
    assert np.isfinite(known.corr[0, 2])


def test_no_observation_is_an_answer_too() -> None:
    known = Ewma(3, HALF_LIFE).correlation()
    assert np.isnan(known.vol).all()
    assert known.kappa == 0.0
    assert (known.n_eff == 0.0).all()


def test_identical_and_opposite_symbols_are_held_inside_one() -> None:
    rows = np.random.default_rng(10).normal(size=(100, 1)) * np.array([1.0, 3.0, -2.0])
    known = fed(rows).correlation()
    assert known.corr[0, 1] == CORRELATION_CAP
    assert known.corr[0, 2] == known.corr[1, 2] == -CORRELATION_CAP
    assert known.capped == 3


def test_n_eff_is_exact_from_the_first_row() -> None:
    ewma, decay = Ewma(2, HALF_LIFE), 0.5 ** (1 / HALF_LIFE)
    for k in range(1, 60):
        ewma.update(np.ones(2))
        weight = decay ** np.arange(k)
        n_eff = ewma.correlation().n_eff
        np.testing.assert_allclose(n_eff, weight.sum() ** 2 / (weight**2).sum(), rtol=1e-13)


@pytest.mark.parametrize("half_life_obs", [2.0, 23.0, 500.0])
def test_n_eff_settles_at_one_plus_decay_over_one_minus_decay(half_life_obs: float) -> None:
    known = fed(np.ones((int(60 * half_life_obs), 2)), half_life_obs=half_life_obs).correlation()
    decay = 0.5 ** (1 / half_life_obs)
    # 60 half-lives leave 2^-60; up to 30000 roundings
    np.testing.assert_allclose(known.n_eff, (1 + decay) / (1 - decay), rtol=1e-11)


def test_weights_of_half_a_life_ago_count_half() -> None:
    rows = np.zeros((24, 2))
    rows[0] = rows[23] = 1.0  # 23 bars apart
    rows[0, 1] = -1.0
    known = fed(rows).correlation()
    np.testing.assert_allclose(known.corr[0, 1], (1.0 - 0.5) / 1.5, rtol=1e-14)


def test_read_only_input_is_taken() -> None:
    rows = np.random.default_rng(11).normal(size=(20, 3))
    frozen = np.frombuffer(rows.tobytes()).reshape(rows.shape)
    assert fed(frozen).state()["products"].tobytes() == fed(rows).state()["products"].tobytes()


def test_input_is_left_as_it_was() -> None:
    rows = holed(20, 3, seed=12)
    before = rows.tobytes()
    fed(rows)
    assert rows.tobytes() == before


def test_one_bar_may_come_without_its_row_axis() -> None:
    one, other = Ewma(3, HALF_LIFE), Ewma(3, HALF_LIFE)
    one.update(np.array([1.0, 2.0, np.nan]))
    other.update(np.array([[1.0, 2.0, np.nan]]))
    assert one.state()["products"].tobytes() == other.state()["products"].tobytes()


@pytest.mark.parametrize(
    ("n", "half_life_obs", "clock", "named"),
    [
        (1, 5.0, "time", "n must"),
        (2, 0.0, "time", "half_life_obs"),
        (2, -1.0, "time", "half_life_obs"),
        (2, np.nan, "time", "half_life_obs"),
        (2, 5.0, "ticks", "clock"),
    ],
)
def test_unusable_settings_are_refused_by_name(
    n: int, half_life_obs: float, clock: str, named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        Ewma(n, half_life_obs, clock)


# What follows draws thousands of samples; the seed is in the parameters of a failing test.


def steps_between_bars(kind: str, k: int, rng: np.random.Generator) -> F64:
    if kind == "even":
        return np.ones(k)
    if kind == "exponential":
        return rng.exponential(size=k)
    return np.where(rng.random(k) < 0.05, 20.0, 1.0)


def coverage(
    rho: float, kind: str, replications: int, seed: int, half_life: float = HALF_LIFE
) -> tuple[float, float]:
    """Share of 95 % bands that hold rho: with the kurtosis known (0), and as estimated.

    A replication is a pair; pairs are independent and share an estimator by the fifty.
    """
    n, k = 100, max(400, round(9 * half_life))
    rng = np.random.default_rng(seed)
    known_hits = estimated_hits = 0
    left, right = np.arange(0, n, 2), np.arange(1, n, 2)
    for _ in range(replications // len(left)):
        steps = steps_between_bars(kind, k, rng)
        returns = rng.normal(size=(k, n))
        returns[:, right] *= np.sqrt(1.0 - rho * rho)
        returns[:, right] += rho * returns[:, left]
        returns *= np.sqrt(steps)[:, None]
        ewma = Ewma(n, half_life, "time")
        exposure = np.repeat(steps[:, None], n, axis=1)
        ewma.update(ReturnBlock(np.arange(k), returns, exposure, steps))
        got = ewma.correlation()
        error = np.abs(np.arctanh(got.corr[left, right]) - np.arctanh(rho))
        half_width = 1.959964 / np.sqrt(got.n_eff[left, right])
        known_hits += int((error < half_width).sum())
        estimated_hits += int((error < half_width * np.sqrt(1.0 + got.kappa)).sum())
    return known_hits / replications, estimated_hits / replications


# A share of 3000 is known to 0.4 %. After gaps of twenty bars n_eff is about 12, and there
# Fisher's z with n_eff in place of n_eff - 3 is known to cover 96.7 %.
BANDS = {"even": (0.935, 0.965), "exponential": (0.935, 0.965), "gapped": (0.95, 0.985)}


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("kind", BANDS)
def test_bands_cover_what_they_say(kind: str, rho: float) -> None:
    with_known, with_estimated = coverage(rho, kind, replications=3000, seed=20)
    low, high = BANDS[kind]
    assert low <= with_known <= high
    # a kurtosis below zero is not believed, so its error is to the wide side
    assert with_known <= with_estimated <= high + 0.01


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_bands_hold_after_gaps_too_where_thirty_observations_count(rho: float) -> None:
    half_life, seed = 12.0 * HALF_LIFE, 26
    steps = steps_between_bars("gapped", 2000, np.random.default_rng(seed))
    weight = 0.5 ** ((steps.sum() - steps.cumsum()) / half_life)
    assert (weight @ steps) ** 2 / (weight**2 @ steps**2) >= 30.0
    with_known, _ = coverage(rho, "gapped", 3000, seed, half_life)
    assert 0.935 <= with_known <= 0.965  # a share of 3000 is known to 0.4 %


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("missing", [0.1, 0.3])
def test_bands_cover_what_they_say_when_bars_are_missing(missing: float, rho: float) -> None:
    n, k, replications = 100, 600, 3000
    rng = np.random.default_rng(25)
    left, right = np.arange(0, n, 2), np.arange(1, n, 2)
    hits = 0
    for _ in range(replications // len(left)):
        path = rng.normal(size=(k, n))
        path[:, right] *= np.sqrt(1.0 - rho * rho)
        path[:, right] += rho * path[:, left]
        path = path.cumsum(axis=0)
        returns, exposure = np.full((k, n), np.nan), np.zeros((k, n))
        seen = rng.random((k, n)) >= missing
        for asset in range(n):  # a return runs from the last observed bar to this one
            bars = np.flatnonzero(seen[:, asset])
            returns[bars[1:], asset] = np.diff(path[bars, asset])
            exposure[bars[1:], asset] = np.diff(bars)
        ewma = Ewma(n, HALF_LIFE * 2, "time")
        ewma.update(ReturnBlock(np.arange(k), returns, exposure, np.ones(k)))
        got = ewma.correlation()
        assert got.capped == 0
        error = np.abs(np.arctanh(got.corr[left, right]) - np.arctanh(rho))
        hits += int((error < 1.959964 / np.sqrt(got.n_eff[left, right])).sum())
    # a share of 3000 is known to 0.4 %
    assert 0.935 <= hits / replications <= 0.965


@pytest.mark.full
@pytest.mark.parametrize("rho", [0.0, 0.3, 0.5, 0.9, -0.7])
@pytest.mark.parametrize(("kind", "excess"), [("even", 0.0), ("exponential", 0.002)])
def test_bands_cover_what_they_say_to_half_a_percent(kind: str, excess: float, rho: float) -> None:
    with_known, _ = coverage(rho, kind, replications=30_000, seed=21)
    # a share of 30000 is known to 0.13 %; at an n_eff of 34 Fisher's z errs a little to the wide
    assert abs(with_known - 0.95 - excess) <= 0.005


@pytest.mark.parametrize(("degrees", "kappa"), [(6, 1.0), (10, 1.0 / 3.0), (None, 0.0)])
def test_kappa_finds_the_kurtosis(degrees: int | None, kappa: float) -> None:
    rng = np.random.default_rng(22)
    shape = (2000, 500)
    returns = rng.normal(size=shape) if degrees is None else rng.standard_t(degrees, shape)
    # z^4 of t6 has no variance: over several seeds its mean scatters by 0.1; normal ones by 0.01
    tolerance = 0.03 if degrees is None else 0.25
    assert abs(fed(returns, half_life_obs=500.0).kappa() - kappa) < tolerance


def test_kappa_needs_a_warm_variance() -> None:
    returns = np.random.default_rng(23).standard_t(3, (31, 5))  # 30 are enough for the next
    ewma = fed(returns, half_life_obs=1e9)
    assert ewma.kappa() == 0.0
    ewma.update(np.full((1, 5), 100.0))
    assert ewma.kappa() > 0.0


def test_kappa_is_held_below_its_largest() -> None:
    returns = np.random.default_rng(24).normal(size=(300, 5))
    ewma = fed(returns, half_life_obs=100.0)
    ewma.update(np.full((1, 5), 1e6))
    assert ewma.kappa() == KAPPA_MAX
