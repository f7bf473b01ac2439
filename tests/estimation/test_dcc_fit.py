"""Fits of DCC: published optima, identities, gaps, edges, and what is refused."""

import math
from typing import Any

import numpy as np
import pytest

from stream_calib.estimation.calibration.dcc import fit_dcc
from stream_calib.estimation.calibration.pairs import choose_pairs
from stream_calib.values import F64
from tests.estimation.dcc_truths import fixture, run_cdcc, run_dcc
from tests.oracles.likelihood import full_loglik


@pytest.fixture(scope="module", name="panel")
def _panel() -> F64:
    return fixture()


def test_the_fixture_is_the_published_one(panel: F64) -> None:
    # printed to eight digits
    np.testing.assert_allclose(
        panel[0], [1.08874316, 0.72829717, 3.00840863, 0.53369705], atol=6e-9
    )
    np.testing.assert_allclose(
        panel[-1], [-0.545491, -0.21428338, -0.9563483, -1.04186239], atol=6e-9
    )


# Optima of the Oxford MFE toolbox's likelihood on this fixture.
OPTIMA: list[tuple[dict[str, Any], float, float]] = [
    ({"model": "dcc", "likelihood": "full"}, 0.04486358, 0.93863032),
    ({"model": "dcc", "pairs": "contiguous"}, 0.04509152, 0.93677564),
    ({"model": "dcc", "pairs": "all"}, 0.04202242, 0.94217946),
    ({"model": "cdcc", "likelihood": "full"}, 0.043233, 0.937731),
]


@pytest.mark.parametrize(("settings", "a", "b"), OPTIMA)
def test_the_optimum_is_the_reference(
    panel: F64, settings: dict[str, Any], a: float, b: float
) -> None:
    fit = fit_dcc(panel, **settings)
    # 1e-5 is what the reference is compared to; it is printed to six digits at least
    assert (fit.a, fit.b) == pytest.approx((a, b), abs=1e-5)
    assert fit.converged
    assert fit.reason == ""


@pytest.mark.parametrize(("model", "loglik"), [("dcc", -10329.66002727), ("cdcc", -10333.714278)])
def test_likelihoods_at_the_optima_are_the_reference(panel: F64, model: Any, loglik: float) -> None:
    fit = fit_dcc(panel, model=model, likelihood="full")
    assert fit.loglik == pytest.approx(loglik, abs=1e-6)  # digits of the reference


def test_the_likelihood_is_that_of_the_twin_for_every_model(panel: F64) -> None:
    for model in ("dcc", "cdcc", "adcc", "constant"):
        fit = fit_dcc(panel[:500], model=model)
        asymmetry = np.zeros((4, 4)) if fit.asymmetry is None else fit.asymmetry
        theta = np.array([fit.a, fit.b, fit.g])
        bars = full_loglik(
            panel[:500], panel[:500], fit.target, asymmetry, theta, aielli=model == "cdcc"
        )
        assert fit.loglik == pytest.approx(bars.loglik.sum(), rel=1e-11)  # rounding


def test_full_and_composite_agree_on_a_pair(panel: F64) -> None:
    pair = panel[:, :2]
    for model in ("dcc", "cdcc", "adcc"):
        fits = [fit_dcc(pair, model=model, likelihood=how) for how in ("full", "composite")]
        full, composite = fits
        # one pair is the whole panel; Newton stops within 1e-6
        assert (full.a, full.b, full.g) == pytest.approx(
            (composite.a, composite.b, composite.g), abs=2e-6
        )
        assert composite.composite_loglik == pytest.approx(composite.loglik, rel=1e-12)
        assert full.se == pytest.approx(composite.se, rel=0.02)  # differences of differences


def test_adcc_finds_more_likelihood_than_dcc(panel: F64) -> None:
    down = np.where(panel < 0.0, 1.15 * panel, 0.85 * panel)
    wide, narrow = (fit_dcc(down, model=m, likelihood="full") for m in ("adcc", "dcc"))
    assert wide.loglik >= narrow.loglik - 1e-6  # nested: rounding of a sum of 2000
    assert wide.asymmetry is not None
    assert wide.g >= 0.0


def test_without_news_the_model_is_constant_correlation(panel: F64) -> None:
    fit = fit_dcc(panel, model="constant")
    corr = panel.T @ panel
    corr /= np.sqrt(np.outer(np.diag(corr), np.diag(corr)))
    np.testing.assert_allclose(fit.target, corr, atol=1e-14)  # rounding
    squares = np.einsum("ti,ij,tj->t", panel, np.linalg.inv(corr), panel)
    normal = -0.5 * (4 * math.log(2 * math.pi) + np.linalg.slogdet(corr)[1] + squares)
    assert fit.loglik == pytest.approx(normal.sum(), rel=1e-12)  # rounding
    assert (fit.a, fit.b, fit.se) == (0.0, 0.0, {})


@pytest.mark.parametrize("model", ["dcc", "cdcc", "adcc"])
def test_permuting_symbols_changes_no_bit_of_the_parameters(panel: F64, model: Any) -> None:
    order = [2, 0, 3, 1]
    z = panel[:600].copy()
    z[100:130, 1] = np.nan
    one, other = fit_dcc(z, model=model), fit_dcc(z[:, order], model=model)
    assert (one.a, one.b) == (other.a, other.b) or model == "adcc"  # delta is an eigenvalue
    assert (one.a, one.b, one.g) == pytest.approx((other.a, other.b, other.g), abs=1e-6)
    np.testing.assert_array_equal(other.target, one.target[np.ix_(order, order)])


def test_two_fits_are_the_same_bytes() -> None:
    z = run_cdcc(np.random.default_rng(5).standard_normal((300, 40)), np.eye(40), 0.05, 0.9)
    one, other = fit_dcc(z), fit_dcc(z.copy())
    assert (one.a, one.b, one.se) == (other.a, other.b, other.se)
    assert one.target.tobytes() == other.target.tobytes()


def test_input_is_not_changed(panel: F64) -> None:
    z = panel[:200].copy()
    fit_dcc(z, robust="t")
    np.testing.assert_array_equal(z, panel[:200])


def test_gaps_leave_the_parameters_where_they_were(panel: F64) -> None:
    z = panel.copy()
    z[np.random.default_rng(3).random(z.shape) < 0.05] = np.nan
    whole, gappy = fit_dcc(panel), fit_dcc(z)
    # standing still over a tenth of the bars of a pair costs less than two standard errors
    assert abs(whole.a - gappy.a) < 2 * whole.se["a"]
    assert abs(whole.b - gappy.b) < 2 * whole.se["b"]
    assert math.isfinite(gappy.loglik)


def test_a_bar_nobody_observed_changes_nothing(panel: F64) -> None:
    z = np.insert(panel[:400], 200, np.nan, axis=0)
    one, other = fit_dcc(panel[:400]), fit_dcc(z)
    assert (one.a, one.b) == (other.a, other.b)
    assert other.loglik == pytest.approx(one.loglik, rel=1e-13)  # targets by product and by pair


def test_a_given_target_is_kept(panel: F64) -> None:
    target = np.full((4, 4), 0.4) + 0.6 * np.eye(4)
    for model in ("dcc", "cdcc"):
        fit = fit_dcc(panel, model=model, target=target)
        np.testing.assert_array_equal(fit.target, target)
        assert fit.converged


def test_a_target_may_be_made_from_the_news(panel: F64) -> None:
    seen = []

    def halved(x: F64) -> F64:
        seen.append(x)
        corr = np.corrcoef(x.T)
        return 0.5 * corr + 0.5 * np.eye(4)

    fit = fit_dcc(panel, target=halved)
    np.testing.assert_allclose(fit.target, halved(seen[-1]), atol=1e-15)  # rounding
    # the news of the second round are scaled by the fit of the first
    assert np.abs(seen[1] - seen[0]).max() > 0.0
    assert seen[0].shape == panel.shape


def test_the_target_of_cdcc_is_consistent_where_that_of_dcc_is_not() -> None:
    truth = np.full((3, 3), 0.9) + 0.1 * np.eye(3)
    z = run_cdcc(np.random.default_rng(1).standard_normal((20_000, 3)), truth, 0.1, 0.89)
    fit, naive = fit_dcc(z), fit_dcc(z, model="dcc")
    pairs = np.triu_indices(3, 1)
    # the mean of persistent products of pairs near .9 is known to about .01 in 20000 bars
    assert abs(fit.target[pairs].mean() - 0.9) < 0.02
    assert naive.target[pairs].mean() < fit.target[pairs].mean() - 0.005


def test_independent_series_end_at_an_edge_and_say_so() -> None:
    fit = fit_dcc(np.random.default_rng(2).standard_normal((400, 40)))
    assert not fit.converged
    assert "a is 0" in fit.reason
    assert math.isnan(fit.se["a"])
    assert math.isfinite(fit.composite_loglik)


@pytest.mark.parametrize("likelihood", ["composite", "full"])
@pytest.mark.parametrize("model", ["dcc", "cdcc", "adcc"])
@pytest.mark.parametrize("kind", ["equal", "opposite", "constant", "tiny", "huge", "breaks"])
def test_odd_but_finite_input_raises_nothing(kind: str, model: Any, likelihood: Any) -> None:
    z = np.random.default_rng(4).standard_normal((100, 3))
    if kind in {"equal", "opposite"}:
        z[:, 1] = z[:, 0] if kind == "equal" else -z[:, 0]
    if kind == "constant":
        z[:, 1] = 0.0
    if kind == "breaks":
        z[50:, 1] = z[50:, 0]
    z[:, 2] *= {"tiny": 1e-8, "huge": 1e8}.get(kind, 1.0)
    fit = fit_dcc(z, model=model, likelihood=likelihood)
    assert 0.0 <= fit.a <= fit.a + fit.b <= 0.9999 + 1e-12
    assert np.isfinite(fit.target).all()
    assert fit.converged == (fit.reason == "")
    assert set(fit.se) <= {"a", "b", "g"}
    assert isinstance(fit.loglik, float)
    assert "signs" in fit.diagnostics


def test_more_symbols_than_bars_have_a_fit_with_a_repaired_target() -> None:
    truth = np.full((60, 60), 0.4) + 0.6 * np.eye(60)
    z = run_dcc(np.random.default_rng(6).standard_normal((50, 60)), truth, 0.05, 0.9).z
    fit = fit_dcc(z)
    assert fit.details["target_repair"] > 0.0
    assert np.linalg.eigvalsh(fit.target)[0] > 0.0
    full = fit_dcc(z, likelihood="full")
    assert not full.converged
    assert "not positive definite" in full.reason


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (np.zeros((100, 1)), {}, "at least two symbols"),
    (np.zeros(100), {}, "at least two symbols"),
    (np.full((100, 2), 0.01), {}, "not standardised"),
    (np.full((100, 2), np.inf), {}, "infinite"),
    (np.ones((29, 2)), {}, "none of the 1 pairs has 30 bars"),
    (np.zeros((100, 2)), {}, "none of the 1 pairs has moves"),
    (np.ones((100, 2)), {"model": "deco"}, "model must be"),
    (np.ones((100, 2)), {"likelihood": "exact"}, "likelihood must be"),
    (np.ones((100, 2)), {"pairs": "some"}, "pairs must be"),
    (np.ones((100, 2)), {"robust": "huber"}, "robust must be"),
    (np.ones((100, 2)), {"target": np.eye(3)}, "the target must be"),
    (np.ones((100, 2)), {"target": 2 * np.eye(2)}, "diagonal of ones"),
    (np.ones((100, 2)), {"target": np.array([[1, 0.5], [0, 1]])}, "symmetric"),
]


@pytest.mark.parametrize(("z", "settings", "sentence"), REFUSED)
def test_what_cannot_be_fitted_is_refused_in_a_sentence(
    z: F64, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        fit_dcc(z, **settings)


def test_one_bad_return_counts_as_one_at_the_cap(panel: F64) -> None:
    z = panel[:500].copy()
    z[250, 1] = 3.0
    bad = z.copy()
    bad[250, 1] = 50.0
    one, other = fit_dcc(z, robust="winsor"), fit_dcc(bad, robust="winsor")
    assert (one.a, one.b) == (other.a, other.b)


def test_weights_turn_wild_bars_down() -> None:
    rng = np.random.default_rng(8)
    truth = np.array([[1.0, 0.5], [0.5, 1.0]])
    z = run_dcc(rng.standard_normal((4000, 2)), truth, 0.03, 0.95).z
    z *= np.sqrt(3.0 / rng.chisquare(5, 4000))[:, None]
    plain, weighted = fit_dcc(z, model="dcc"), fit_dcc(z, model="dcc", robust="t")
    # t5 noise makes Gaussian products noisier than the correlations they follow
    assert weighted.se["a"] < plain.se["a"]
    assert abs(weighted.a - 0.03) < 0.015  # three of its standard errors
    assert weighted.details["weight_min"] < 0.5


def test_pairs_are_a_function_of_n_alone() -> None:
    assert len(choose_pairs(30)) == 30 * 29 // 2
    drawn = choose_pairs(100)
    np.testing.assert_array_equal(drawn, choose_pairs(100))
    assert 4.5 * 100 < len(drawn) <= 500  # five cycles, a few pairs twice
    assert len(np.unique(drawn, axis=0)) == len(drawn)
    assert (drawn[:, 0] < drawn[:, 1]).all()
    assert np.bincount(drawn.ravel(), minlength=100).min() >= 8
    np.testing.assert_array_equal(choose_pairs(301)[:2], [[0, 1], [1, 2]])
