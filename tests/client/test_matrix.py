"""What a reader computes from a matrix, beside plain NumPy and simulated returns."""

import dataclasses
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_calib.errors import InputError
from stream_calib.estimation.cleaning import crisis_distance, repair_correlation
from stream_calib.estimation.dcc import Dcc
from stream_calib.values import (
    F64,
    SECOND_NS,
    YEAR_NS,
    DccParams,
    GarchParams,
    Matrix,
    PublishedFit,
    Quality,
)
from tests.web.observations import matrix

NAMES = tuple("ABCDEFGH")
ROUNDING = 1e-12  # of a few products and one small linear system in double precision


def random_matrix(seed: int, n: int = 5) -> Matrix:
    """Return a matrix of a factor model, with volatilities of all sizes."""
    rng = np.random.default_rng(seed)
    loadings = rng.normal(size=(n, 2))
    covariance = loadings @ loadings.T + np.diag(rng.uniform(0.2, 2.0, n))
    scale = np.sqrt(np.diagonal(covariance))
    corr = covariance / np.outer(scale, scale)
    np.fill_diagonal(corr, 1.0)
    band = (1.0 - corr**2) / 8.0
    return dataclasses.replace(
        matrix(),
        symbols=NAMES[:n],
        pending=("P",),
        corr=corr,
        vol=10.0 ** rng.uniform(-5, -2, n),
        band=band,
        band_total=1.5 * band,
        n_eff=np.full((n, n), 64.0),
        staleness_ns=np.arange(n) * SECOND_NS,
        annualisation=(YEAR_NS / SECOND_NS) ** 0.5,
    )


def covariance(m: Matrix) -> F64:
    """Return the covariance per horizon, element by element."""
    return np.array(
        [[m.corr[i, j] * s * t for j, t in enumerate(m.vol)] for i, s in enumerate(m.vol)]
    )


seeds = st.integers(0, 2**32 - 1)


@given(seeds)
def test_covariance_is_that_of_its_correlations_and_volatilities(seed: int) -> None:
    m = random_matrix(seed)
    np.testing.assert_allclose(m.cov(), covariance(m), rtol=ROUNDING)
    hour = covariance(m) * 3600.0
    for horizon in ("1h", "60m", 3600 * SECOND_NS):
        np.testing.assert_allclose(m.cov(horizon), hour, rtol=ROUNDING)
    np.testing.assert_allclose(m.cov("year"), m.cov("365d"), rtol=ROUNDING)


@pytest.mark.parametrize("horizon", ["soon", "1 fortnight", 1.5, "", True])
def test_horizon_that_is_no_duration_is_named(horizon: object) -> None:
    with pytest.raises(InputError, match=r"^horizon: .* is not a duration"):
        matrix().cov(horizon)  # type: ignore[arg-type]


@pytest.mark.parametrize("horizon", [0, -1, "0s"])
def test_horizon_has_to_be_positive(horizon: str | int) -> None:
    with pytest.raises(InputError, match=r"^horizon: it has to be positive"):
        matrix().cov(horizon)


@given(seeds)
def test_beta_is_the_slope_of_least_squares(seed: int) -> None:
    m = random_matrix(seed)
    s = covariance(m)
    assert m.beta("B", "D") == pytest.approx(s[1, 3] / s[3, 3], rel=ROUNDING)
    assert m.hedge_ratio("B", "D") == pytest.approx(-s[1, 3] / s[3, 3], rel=ROUNDING)


@given(seeds)
def test_no_small_change_of_the_hedges_lowers_the_risk(seed: int) -> None:
    m = random_matrix(seed)
    hedges = m.hedge_ratio("A", ["C", "E", "B"])
    assert list(hedges) == ["C", "E", "B"]
    least = m.portfolio_vol({"A": 1.0, **hedges})
    assert least <= m.vol[0] * (1.0 + ROUNDING)
    for symbol, position in hedges.items():
        for factor in (0.999, 1.001):
            changed = {"A": 1.0, **hedges, symbol: position * factor}
            assert m.portfolio_vol(changed) >= least * (1.0 - ROUNDING)
    exact = -np.linalg.solve(
        covariance(m)[np.ix_([2, 4, 1], [2, 4, 1])], covariance(m)[[2, 4, 1], 0]
    )
    # the covariance spans up to six decades of scale, correlations none
    np.testing.assert_allclose([*hedges.values()], exact, rtol=1e-6, atol=1e-9)


def test_no_hedge_needs_no_position() -> None:
    assert matrix().hedge_ratio("A", []) == {}


def test_hedge_of_returns_leaves_the_least_variance() -> None:
    m = random_matrix(7)
    rng = np.random.default_rng(8)
    returns = rng.normal(size=(200_000, 5)) @ np.linalg.cholesky(covariance(m)).T
    hedges = m.hedge_ratio("A", ["B", "C"])
    hedged = returns[:, 0] + returns[:, 1] * hedges["B"] + returns[:, 2] * hedges["C"]
    # a standard deviation of T normal returns is off by 1 / sqrt(2 T) = .0016; four of those
    assert hedged.std() == pytest.approx(m.portfolio_vol({"A": 1.0, **hedges}), rel=0.0064)
    slope, *_ = np.linalg.lstsq(returns[:, 1:3], returns[:, 0], rcond=None)
    residual = hedged.std() / returns[:, 1:3].std(axis=0) / 200_000**0.5
    assert (np.abs(slope + np.array(list(hedges.values()))) < 6.0 * residual).all()


@given(seeds)
def test_portfolio_volatility_takes_weights_by_name_or_in_order(seed: int) -> None:
    m = random_matrix(seed)
    w = np.random.default_rng(seed).normal(size=5)
    exact = float(w @ covariance(m) @ w) ** 0.5
    by_name = dict(reversed(list(zip(m.symbols, w.tolist(), strict=True))))
    assert m.portfolio_vol(w) == pytest.approx(exact, rel=1e-9)  # squares cancel in part
    assert m.portfolio_vol(w.tolist()) == m.portfolio_vol(w) == m.portfolio_vol(by_name)
    assert m.portfolio_vol({"B": 2.0}) == pytest.approx(2.0 * m.vol[1], rel=ROUNDING)
    assert m.portfolio_vol({"B": 2.0}, "100s") == pytest.approx(20.0 * m.vol[1], rel=ROUNDING)
    assert m.portfolio_vol({}) == 0.0


@pytest.mark.parametrize("weights", [[1.0], [1.0, 2.0, float("nan")], [[1.0, 2.0, 3.0]]])
def test_weights_that_do_not_fit_are_refused(weights: list[float]) -> None:
    with pytest.raises(InputError, match=r"^weights have to be 3 finite numbers"):
        matrix().portfolio_vol(weights)


def test_symbol_that_is_not_there_is_named() -> None:
    m = matrix()
    for use in (
        lambda: m.beta("A", "X"),
        lambda: m.pair("X", "A"),
        lambda: m.portfolio_vol({"X": 1.0}),
        lambda: m.subset(["A", "X"]),
        lambda: m.hedge_ratio("A", ["X"]),
    ):
        with pytest.raises(InputError, match=r"^symbol 'X' is not in the matrix \(fx\|ewma\)$"):
            use()
    with pytest.raises(InputError, match=r"^symbol 'D' is not ready yet \(fx\|ewma\)$"):
        m.pair("A", "D")
    with pytest.raises(InputError, match=r"^symbol 'A' is named twice$"):
        m.beta("A", "A")
    with pytest.raises(InputError, match=r"^symbol 'A' is named twice$"):
        m.hedge_ratio("A", ["B", "A"])
    still = dataclasses.replace(m, vol=np.array([1.0, 0.0, 1.0]))
    with pytest.raises(InputError, match=r"^symbol 'B' has no volatility"):
        still.beta("A", "B")
    assert still.beta("B", "A") == 0.0


def test_pair_says_how_far_it_can_be_trusted() -> None:
    m = random_matrix(3)
    found = m.pair("B", "E")
    r, band = m.corr[1, 4], m.band[1, 4]
    assert found[:4] == (r, band, 1.5 * band, 64.0)
    assert found.staleness_ns == 4 * SECOND_NS
    low, high = np.tanh(np.arctanh(r) + np.array([-1, 1]) * 1.96 * 1.5 * band / (1.0 - r * r))
    assert (found.lower, found.upper) == pytest.approx((low, high), abs=1e-5)  # 1.96 is rounded
    assert m.pair("E", "B") == found
    without = dataclasses.replace(m, band_total=None).pair("B", "E")
    assert without.band_total is None
    assert found.lower < without.lower < r < without.upper < found.upper


def test_bounds_cover_what_a_sample_of_so_many_is_off_by() -> None:
    rng, truth, n = np.random.default_rng(11), 0.6, 50
    m = dataclasses.replace(matrix(), band_total=None)
    covered = 0
    for _ in range(2000):
        x = rng.normal(size=(2, n))
        x[1] = truth * x[0] + (1.0 - truth**2) ** 0.5 * x[1]
        u, v = x - x.mean(axis=1, keepdims=True)
        r = float(u @ v / np.sqrt((u @ u) * (v @ v)))
        band = (1.0 - r * r) / n**0.5
        seen = dataclasses.replace(m, corr=np.full((3, 3), r), band=np.full((3, 3), band)).pair(
            "A", "B"
        )
        covered += seen.lower < truth < seen.upper
    # atanh(r) scatters by 1 / sqrt(n - 3), which is 3 % more than the band says: 94.2 % by the
    # normal law; four standard errors of 2000 trials are 2.1 %
    assert 0.921 < covered / 2000 < 0.963


@given(seeds, st.permutations(range(5)), st.integers(2, 5))
def test_subset_is_cut_and_judged_anew(seed: int, order: list[int], n: int) -> None:
    m, places = random_matrix(seed), order[:n]
    part = m.subset([m.symbols[i] for i in places])
    cut = np.ix_(places, places)
    assert part.symbols == tuple(m.symbols[i] for i in places)
    for name in ("corr", "n_eff", "band", "band_total"):
        np.testing.assert_array_equal(getattr(part, name), getattr(m, name)[cut])
    for name in ("vol", "staleness_ns"):
        np.testing.assert_array_equal(getattr(part, name), getattr(m, name)[places])
    # what the service itself says of such a matrix
    said = repair_correlation(part.corr, 1e-8)
    assert part.quality.min_eigenvalue == pytest.approx(said.min_eigenvalue, abs=ROUNDING)
    assert part.regime.top_eigenvalue_share * n == pytest.approx(said.max_eigenvalue, abs=ROUNDING)
    assert part.regime.effective_bets == pytest.approx(said.effective_bets, abs=1e-9)
    upper = part.corr[np.triu_indices(n, 1)]
    assert part.regime.average_correlation == pytest.approx(upper.mean(), abs=ROUNDING)
    assert part.pair(part.symbols[0], part.symbols[1]) == m.pair(part.symbols[0], part.symbols[1])


@pytest.mark.parametrize("seed", range(20))
def test_subset_is_as_far_from_a_crisis_as_the_service_says(seed: int) -> None:
    part = random_matrix(seed, 8).subset(tuple("HBDEA"))
    # eight steps of the power method find the signs of the leading vector where it leads clearly
    values = np.linalg.eigvalsh(part.corr)
    if values[-1] > 1.3 * values[-2]:
        assert part.regime.crisis_distance == pytest.approx(crisis_distance(part.corr), abs=1e-9)


def test_subset_keeps_what_holds_of_every_pair_and_drops_what_held_of_all() -> None:
    part = matrix().subset(["C", "A"])
    assert (part.quality.repair, part.quality.degraded) == (0.03, ())
    assert (part.quality.raw_variances, part.quality.floored_variances, part.audit) == (None,) * 3
    assert (part.sequence, part.model_version, part.pending) == (7, 1, ())


def test_pairs_that_were_held_inside_one_are_counted_where_they_are() -> None:
    corr = np.full((4, 4), 0.5)
    corr[0, 1] = corr[1, 0] = corr[2, 3] = corr[3, 2] = 0.99 * (1.0 - 1e-6)
    np.fill_diagonal(corr, 1.0)
    square = np.zeros((4, 4))
    m = dataclasses.replace(
        matrix(),
        symbols=tuple("ABCD"),
        corr=corr,
        vol=np.ones(4),
        staleness_ns=np.zeros(4, np.int64),
        n_eff=square,
        band=square,
        quality=Quality(0.001, 0.01, capped_pairs=2),
    )
    assert m.subset(list("AB")).quality.capped_pairs == 1
    assert m.subset(list("ABD")).quality.capped_pairs == 1
    assert m.subset(list("ABDC")).quality.capped_pairs == 2
    assert m.subset(list("AC")).quality.capped_pairs == 0


def test_subset_of_one_is_no_matrix() -> None:
    with pytest.raises(InputError, match=r"two symbols at least, not 1"):
        matrix().subset(["A"])
    with pytest.raises(InputError, match=r"'A' is named twice"):
        matrix().subset(["A", "B", "A"])


def test_pandas_shows_correlations_by_name() -> None:
    m = matrix()
    frame = m.to_pandas()
    assert frame.loc["A", "C"] == 0.2
    assert list(frame.index) == list(frame.columns) == ["A", "B", "C"]
    frame.loc["A", "C"] = 9.0
    assert m.corr[0, 2] == 0.2


def test_without_pandas_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match=r"pip install 'stream-calib\[pandas\]'$"):
        matrix().to_pandas()


def published(n: int = 3, version: int = 4, universe: str = "fx") -> PublishedFit:
    target = np.full((n, n), 0.4)
    np.fill_diagonal(target, 1.0)
    nothing = np.full(n, np.nan)
    return PublishedFit(
        universe,
        version,
        0,
        ("C", "A", "B", "D")[:n],
        DccParams(0.05, 0.9, target),
        GarchParams(*(nothing,) * 6),
        target,
    )


def test_forecast_of_dcc_is_that_of_the_model_itself() -> None:
    fit = published()
    dcc = Dcc(fit.params, 3)
    dcc.update(np.random.default_rng(5).normal(size=(40, 3)))
    order = [1, 2, 0]  # A, B, C among the symbols of the fit
    now = dcc.correlation().corr[np.ix_(order, order)]
    m = dataclasses.replace(matrix(estimator="dcc"), corr=now, model_version=4)
    path = dcc.forecast(30)
    for k in (1, 2, 30):
        exact = path[k - 1][np.ix_(order, order)]
        np.testing.assert_allclose(m.forecast(k, fit), exact, atol=ROUNDING)
    np.testing.assert_allclose(m.forecast(10_000, fit), fit.long_run, atol=ROUNDING)
    np.testing.assert_array_equal(m.forecast(1, fit), now)


def test_forecast_of_an_ewma_is_flat() -> None:
    np.testing.assert_array_equal(matrix().forecast(50), matrix().corr)


def test_forecast_needs_the_fit_that_the_matrix_is_of() -> None:
    m = dataclasses.replace(matrix(estimator="dcc"), model_version=4)
    with pytest.raises(InputError, match=r"^forecast needs the fit of fx, model version 4"):
        m.forecast(2)
    with pytest.raises(InputError, match=r"^this matrix is of fx, model version 4, the fit is of"):
        m.forecast(2, published(version=3))
    with pytest.raises(InputError, match=r"the fit is of metals, model version 4"):
        m.forecast(2, published(universe="metals"))
    converted = dataclasses.replace(m, base_currency="USD")
    with pytest.raises(InputError, match=r"version 4 is of prices as quoted, the matrix in USD"):
        converted.forecast(2, published(version=4))
    with pytest.raises(InputError, match=r"^the fit of fx, model version 4 has no symbol 'B'"):
        m.forecast(2, published(2))
    with pytest.raises(InputError, match=r"from 1, not 0"):
        m.forecast(0)
