"""GARCH fits: the published benchmark, another program, and what a fit never depends on."""

import csv
import gzip
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stream_calib as sc
from stream_calib.estimation.calibration.garch import GarchFit, fit_garch
from stream_calib.values import F64

FIGURES = ("mu", "omega", "alpha", "beta", "gamma", "nu", "loglik")
TRUTH = (0.02, 0.05, 0.08, 0.87)


def simulated(
    t: int,
    seed: int,
    truth: Sequence[float] = TRUTH,
    nu: float = math.inf,
    gamma: float = 0.0,
) -> F64:
    """Returns of a GARCH process."""
    mu, omega, alpha, beta = truth
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(t + 200)
    if math.isfinite(nu):
        noise = rng.standard_t(nu, t + 200) * math.sqrt((nu - 2.0) / nu)
    h, out = omega / (1.0 - alpha - beta - gamma / 2.0), []
    for z in noise.tolist():
        e = math.sqrt(h) * z
        out.append(mu + e)
        h = omega + (alpha + gamma * (e < 0.0)) * e * e + beta * h
    return np.array(out[200:])


def table(path: Path) -> F64:
    with gzip.open(path, "rt") as file:
        rows = list(csv.reader(file))[1:]
    return np.array([[float(x) if x else math.nan for x in row[1:]] for row in rows])


@pytest.fixture
def dem_gbp(market_data: Path) -> F64:
    """Daily returns of the DEM/GBP benchmark, in percent."""
    with gzip.open(market_data / "daily" / "R_dmbp_DEMGBP.csv.gz", "rt") as file:
        returns = np.array([float(row[0]) for row in list(csv.reader(file))[1:]])
    assert len(returns) == 1974
    assert returns[0] == 0.12533286
    assert (returns**2).sum() == pytest.approx(436.82185392, abs=1e-7)
    return returns


def with_arch(
    returns: F64, backcast: float | None, gjr: bool = False, student: bool = False
) -> Any:
    arch = pytest.importorskip("arch")
    model = arch.arch_model(
        returns, p=1, q=1, o=int(gjr), dist="t" if student else "normal", rescale=False
    )
    settings = {"ftol": 1e-14, "maxiter": 2000}
    return model.fit(disp="off", backcast=backcast, options=settings, show_warning=False)


def decayed_backcast(returns: F64) -> float:
    """Return what arch starts with by default: a weighted mean of the first 75 squares."""
    weight = 0.94 ** np.arange(min(75, len(returns)))
    e = returns - returns.mean()
    return float(weight @ e[: len(weight)] ** 2 / weight.sum())


def bits(fit: GarchFit, i: int | None = None) -> list[bytes]:
    """All that a fit says, or what it says of one of its series."""

    def own(values: Any) -> bytes:
        array = np.asarray(values)
        return np.ascontiguousarray(array if i is None else array[..., i]).tobytes()

    errors: list[Any] = [x for kind in ("hessian", "opg", "qml") for x in fit.se[kind]]
    figures: list[Any] = [getattr(fit, name) for name in FIGURES]
    return [own(x) for x in (*figures, fit.converged, fit.variance, fit.residuals, *errors)]


def test_the_published_benchmark_is_met(dem_gbp: F64) -> None:
    # Fiorentini, Calzolari and Panattoni (1996), as Brooks, Burke and Persand (2001) use it;
    # the digits are those that the rugarch and tsgarch packages list
    fit = sc.fit_garch(dem_gbp, h0="mean_square")
    found = [fit.mu, fit.omega, fit.alpha, fit.beta]
    assert found == pytest.approx([-0.00619041, 0.0107613, 0.153134, 0.805974], abs=1e-6)
    assert fit.loglik == pytest.approx(-1106.60788, abs=1e-5)
    published = {
        "hessian": [0.00846212, 0.00285271, 0.0265228, 0.0335527],
        "opg": [0.00843359, 0.00132298, 0.0139737, 0.0165604],
        "qml": [0.00918935, 0.00649319, 0.0535317, 0.0724614],
    }
    for kind, errors in published.items():
        assert list(fit.se[kind][:4]) == pytest.approx(errors, rel=1e-5)  # all digits they have
        assert [math.isnan(float(x)) for x in fit.se[kind][4:]] == [True, True]
    assert fit.converged is True


def test_the_default_start_of_arch_is_another_likelihood(dem_gbp: F64) -> None:
    # arch starts with a decayed mean of the first squares: 2.1 more than the benchmark
    theirs = with_arch(dem_gbp, None)
    assert theirs.loglikelihood == pytest.approx(-1104.52, abs=0.01)
    ours = fit_garch(dem_gbp, h0=decayed_backcast(dem_gbp))
    assert ours.loglik == pytest.approx(theirs.loglikelihood, abs=1e-5)
    assert [ours.mu, ours.omega, ours.alpha, ours.beta] == pytest.approx(
        theirs.params.tolist(),
        abs=2e-5,  # as far as their optimiser goes
    )
    assert fit_garch(dem_gbp).loglik == pytest.approx(-1106.60788, abs=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_fits_are_those_of_arch_with_the_same_start(seed: int) -> None:
    rng = np.random.default_rng(seed)
    alpha = rng.uniform(0.04, 0.15)
    truth = (rng.uniform(-0.1, 0.1), rng.uniform(0.05, 0.2), alpha, rng.uniform(0.75, 0.94 - alpha))
    returns = simulated(2000, seed, truth)
    backcast = float(np.mean((returns - returns.mean()) ** 2))
    theirs, ours = with_arch(returns, backcast), fit_garch(returns, h0=backcast)
    assert ours.loglik == pytest.approx(theirs.loglikelihood, abs=1e-5)
    assert ours.loglik >= theirs.loglikelihood - 1e-9
    # the likelihood is flat: where theirs stops 1e-7 below the top, parameters differ by 1e-4
    found = [ours.mu, ours.omega, ours.alpha, ours.beta]
    assert found == pytest.approx(theirs.params.tolist(), abs=1e-4)


@pytest.mark.parametrize(("gjr", "student"), [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("seed", range(3))
def test_leverage_and_heavy_tails_are_those_of_arch(gjr: bool, student: bool, seed: int) -> None:
    returns = simulated(3000, seed, nu=6.0 if student else math.inf, gamma=0.05 * gjr)
    backcast = float(np.mean((returns - returns.mean()) ** 2))
    theirs = with_arch(returns, backcast, gjr, student)
    ours = fit_garch(
        returns, backcast, model="gjr" if gjr else "garch", errors="t" if student else "normal"
    )
    assert ours.loglik == pytest.approx(theirs.loglikelihood, abs=1e-5)
    names = {"mu": "mu", "omega": "omega", "alpha[1]": "alpha", "beta[1]": "beta"}
    for theirs_name, name in (names | ({"gamma[1]": "gamma"} if gjr else {})).items():
        assert getattr(ours, name) == pytest.approx(theirs.params[theirs_name], abs=1e-4)
    if student:  # a few degrees of freedom, each known to a tenth
        assert ours.nu == pytest.approx(theirs.params["nu"], abs=2e-3)
    else:
        assert math.isnan(float(ours.nu))
    assert gjr or ours.gamma == 0.0


def test_standard_errors_are_those_of_arch_where_it_has_them() -> None:
    returns = simulated(3000, 5)
    backcast = float(np.mean((returns - returns.mean()) ** 2))
    theirs, ours = with_arch(returns, backcast), fit_garch(returns, h0=backcast)
    # arch differentiates numerically, twice
    assert list(ours.se["qml"][:4]) == pytest.approx(theirs.std_err.tolist(), rel=2e-2)


@pytest.mark.parametrize("model", ["garch", "gjr"])
@pytest.mark.parametrize("errors", ["normal", "t"])
@pytest.mark.parametrize("factor", [2.0**-20, 3.7e-5, 1e4])
def test_another_unit_gives_the_same_fit_in_that_unit(
    model: Any, errors: Any, factor: float
) -> None:
    returns = simulated(1500, 11, nu=5.0, gamma=0.05)
    one = fit_garch(returns, model=model, errors=errors)
    other = fit_garch(returns * factor, model=model, errors=errors)
    assert one.converged
    for name, power in (("mu", 1), ("omega", 2), ("alpha", 0), ("beta", 0), ("gamma", 0)):
        scaled = getattr(one, name) * factor**power
        # rounding of the input, through a fit that is exact to 1e-15 of likelihood
        assert getattr(other, name) == pytest.approx(scaled, rel=1e-7)
        error = getattr(one.se["qml"], name) * factor**power
        assert getattr(other.se["qml"], name) == pytest.approx(error, rel=1e-6, nan_ok=True)
    assert other.loglik == pytest.approx(one.loglik - 1500 * math.log(factor), abs=1e-8)
    np.testing.assert_allclose(other.variance, one.variance * factor**2, rtol=1e-7)


def test_a_series_is_fitted_alone_as_among_others_to_the_last_bit() -> None:
    panel = np.stack([simulated(600, seed) for seed in range(6)], axis=1)
    panel[:50, 2] = math.nan
    panel[:, 4] = 1.0
    whole = fit_garch(panel)
    assert np.asarray(whole.converged).tolist() == [True, True, True, True, False, True]
    for i in range(6):
        alone = fit_garch(panel[:, i])
        assert bits(alone) == bits(whole, i)
        assert isinstance(alone.alpha, float)
        assert alone.variance.shape == (601,)
    order = [3, 5, 0, 4, 2, 1]
    turned = fit_garch(panel[:, order])
    assert [bits(turned, k) for k in range(6)] == [bits(whole, i) for i in order]


@pytest.mark.parametrize("errors", ["normal", "t"])
def test_pooled_fits_do_not_know_the_order_of_series(errors: Any) -> None:
    panel = np.stack([simulated(300, seed) for seed in range(8)], axis=1)
    panel[:120, 3] = math.nan
    panel[:, 6] = 0.0
    whole = fit_garch(panel, errors=errors, pooled=True)
    order = [3, 5, 0, 7, 4, 6, 2, 1]
    turned = fit_garch(panel[:, order], errors=errors, pooled=True)
    assert [bits(turned, k) for k in range(8)] == [bits(whole, i) for i in order]


def test_short_series_pooled_find_what_each_alone_does_not() -> None:
    truth = (0.0, 0.05, 0.06, 0.90)
    scales = np.geomspace(0.01, 100.0, 60)
    panel = np.stack([simulated(300, seed, truth) for seed in range(60)], axis=1) * scales
    fit, alone = fit_garch(panel, pooled=True), fit_garch(panel)
    alpha, beta = np.asarray(fit.alpha), np.asarray(fit.beta)
    assert (alpha == alpha[0]).all()
    assert (beta == beta[0]).all()
    # 18 000 returns; targeting at 300 bars takes a few percent off the persistence
    assert alpha[0] == pytest.approx(0.06, abs=0.01)
    assert beta[0] == pytest.approx(0.90, abs=0.03)
    assert np.std(np.asarray(alone.beta)) > 0.1
    level = np.asarray(fit.omega) / (1.0 - alpha - beta)
    np.testing.assert_allclose(level, panel.var(axis=0), rtol=1e-9)
    errors = [np.asarray(fit.se["qml"].alpha)[0], np.asarray(fit.se["qml"].beta)[0]]
    assert 0.002 < errors[0] < 0.01 < errors[1] * 2.0 < 0.1


def test_pooled_errors_count_that_series_move_together() -> None:
    returns = simulated(500, 3)
    once = fit_garch(returns, targeting=True)
    thrice = fit_garch(np.stack([returns] * 3, axis=1), pooled=True)
    one, three = once.se["qml"].alpha, np.asarray(thrice.se["qml"].alpha)
    assert np.asarray(thrice.alpha) == pytest.approx(once.alpha, rel=1e-7)
    assert three == pytest.approx(one, rel=1e-6)  # copies tell nothing new


def test_targeting_holds_the_sample_variance() -> None:
    returns = simulated(1000, 8)
    fit = fit_garch(returns, targeting=True)
    free = fit_garch(returns)
    assert fit.mu == pytest.approx(returns.mean(), abs=1e-15)
    level = fit.omega / (1.0 - fit.alpha - fit.beta)
    assert level == pytest.approx(returns.var(), rel=1e-10)
    assert fit.loglik < free.loglik


def test_without_a_mean_residuals_are_the_returns() -> None:
    returns = simulated(500, 2)
    fit = fit_garch(returns, mean="zero")
    assert fit.mu == 0.0
    assert fit.residuals.tobytes() == returns.tobytes()
    assert math.isnan(float(fit.se["hessian"].mu))


def test_the_first_variance_is_the_mean_square_passed_on() -> None:
    returns = simulated(500, 2)
    fit = fit_garch(returns, model="gjr")
    share = fit.alpha + fit.gamma / 2.0 + fit.beta
    first = fit.omega + share * np.mean(fit.residuals**2)
    assert fit.variance[0] == pytest.approx(first, rel=1e-13)
    given = fit_garch(returns, h0=3.0)
    assert given.variance[0] == pytest.approx(
        given.omega + (given.alpha + given.beta) * 3.0, rel=1e-13
    )


def test_holes_are_no_news() -> None:
    returns = simulated(4000, 21)
    holes = returns.copy()
    holes[np.random.default_rng(1).random(4000) < 0.1] = math.nan
    fit = fit_garch(holes)
    assert fit.converged
    assert (np.isnan(fit.residuals) == np.isnan(holes)).all()
    k = int(np.flatnonzero(np.isnan(holes))[5])
    passed = fit.omega + (fit.alpha + fit.beta) * fit.variance[k]
    assert fit.variance[k + 1] == pytest.approx(passed, rel=1e-14)
    # three standard errors of a fit of 4000
    assert fit.alpha == pytest.approx(TRUTH[2], abs=0.04)
    assert fit.beta == pytest.approx(TRUTH[3], abs=0.06)


@pytest.mark.parametrize(
    "returns",
    [
        np.zeros(500),
        np.full(500, 0.1),
        np.full(500, math.nan),
        np.zeros(0),
        np.random.default_rng(1).standard_normal(99),
        np.where(np.arange(500) % 3 == 0, np.random.default_rng(1).standard_normal(500), 0.0),
        np.random.default_rng(1).standard_normal(500) * 1e200,
        np.random.default_rng(1).standard_normal(500) * 1e-200,
    ],
    ids=["zeros", "constant", "unobserved", "empty", "short", "peg", "huge", "tiny"],
)
@pytest.mark.parametrize("pooled", [False, True])
def test_what_cannot_be_fitted_is_nan_and_never_an_error(returns: F64, pooled: bool) -> None:
    fit = fit_garch(returns, pooled=pooled)
    assert fit.converged is False
    assert all(math.isnan(getattr(fit, name)) for name in FIGURES)
    assert np.isnan(fit.variance).all()
    assert fit.variance.shape == (len(returns) + 1,)
    assert np.isnan(fit.params.omega).all()


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("errors", ["normal", "t"])
def test_series_without_any_clustering_converge_too(seed: int, errors: Any) -> None:
    returns = np.random.default_rng(seed).standard_normal(400)
    fit = fit_garch(returns, errors=errors, model="gjr" if seed % 2 else "garch")
    assert fit.converged
    assert fit.alpha + fit.gamma / 2.0 + fit.beta <= 0.9999 + 1e-12
    assert fit.alpha >= 1e-6 - 1e-15
    assert fit.omega > 0.0
    assert np.isfinite(fit.variance).all()


def test_at_a_bound_the_parameter_has_no_error_and_the_others_do() -> None:
    # a jump of variance in the middle: persistence at its bound
    returns = np.random.default_rng(2).standard_normal(800)
    returns[400:] *= 8.0
    fit = fit_garch(returns)
    assert fit.converged
    assert fit.alpha + fit.beta == pytest.approx(0.9999, abs=1e-12)
    assert fit.se["qml"].alpha == pytest.approx(fit.se["qml"].beta, rel=1e-6)


def test_stocks_and_currencies_converge(market_data: Path) -> None:
    stocks = table(market_data / "daily" / "R_dji30ret.csv.gz")
    assert stocks.shape == (5521, 30)
    assert np.asarray(fit_garch(stocks).converged).all()
    rates = table(market_data / "daily" / "R_stochvol_exrates_23fx_vs_EUR.csv.gz")
    returns = np.diff(np.log(rates), axis=0)
    for model in ("garch", "gjr"):
        fit = fit_garch(returns, model=model)
        assert np.asarray(fit.converged).all()  # among them DKK, held within a band of its own
    # MYR against USD stood at 3.8 for years: what moved it were the digits of two quotes
    pegged = returns[:1000, 11] - returns[:1000, 22]
    fit = fit_garch(np.stack([pegged, np.where(np.abs(pegged) < 1e-3, 0.0, pegged)], axis=1))
    assert np.isfinite(fit.variance[:, 0]).all()
    assert np.asarray(fit.converged).tolist() == [True, False]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"h0": "median"}, "median"),
        ({"h0": -1.0}, "h0"),
        ({"h0": math.nan}, "h0"),
        ({"mean": "median"}, "median"),
        ({"model": "arch"}, "arch"),
        ({"errors": "cauchy"}, "cauchy"),
    ],
)
def test_what_is_not_known_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_garch(simulated(200, 1), **settings)


def test_infinite_returns_and_cubes_are_refused() -> None:
    for wrong in (np.full(200, np.inf), np.zeros((2, 2, 2))):
        with pytest.raises(ValueError, match="returns are"):
            fit_garch(wrong)


@pytest.mark.full
def test_estimates_scatter_as_their_errors_say() -> None:
    fit = fit_garch(np.stack([simulated(2000, seed) for seed in range(400)], axis=1))
    for name, truth in zip(("mu", "omega", "alpha", "beta"), TRUTH, strict=True):
        estimates = np.asarray(getattr(fit, name))
        errors = np.asarray(getattr(fit.se["hessian"], name))
        inside = np.mean(np.abs(estimates - truth) < 1.96 * errors)
        # a share of 400 has a standard error of .011; bands are good to a few percent at 2000 bars
        assert 0.90 <= inside <= 0.98, name
