"""What the diagnostics say of right models and of wrong ones."""

import math

import numpy as np
import pytest
from scipy import stats

from stream_calib.estimation.calibration.dcc import fit_dcc
from stream_calib.estimation.calibration.diagnostics import (
    constant_correlation,
    pair_paths,
    probability_transform,
    residual_products,
    residuals,
)
from stream_calib.estimation.calibration.objective import Composite
from stream_calib.estimation.calibration.pairs import choose_pairs
from stream_calib.values import F64
from tests.estimation.dcc_truths import fixture, run_dcc
from tests.oracles.likelihood import full_loglik

PAIRS = choose_pairs(4)


@pytest.fixture(scope="module", name="panel")
def _panel() -> F64:
    return fixture()


def normal_panel(seed: int) -> F64:
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky(np.full((4, 4), 0.4) + 0.6 * np.eye(4))
    return np.asarray(rng.standard_normal((1000, 4)) @ root.T, dtype=np.float64)


def test_a_right_model_leaves_products_without_memory(panel: F64) -> None:
    right, wrong = fit_dcc(panel).diagnostics, fit_dcc(panel, model="constant").diagnostics
    # chi2(10) has mean 10, the mean of six about 2 of deviation
    assert 5.0 < right["residual_products"]["mean"] < 16.0
    assert wrong["residual_products"]["mean"] > 50.0
    assert wrong["residual_products"]["rejected"] == 1.0
    assert right["signs"]["brier"] < wrong["signs"]["brier"]
    assert right["signs"]["rejected"] <= 1 / 6


def test_constant_correlation_is_rejected_where_it_is_wrong_and_rarely_where_it_is_right(
    panel: F64,
) -> None:
    assert constant_correlation(panel, PAIRS)["p"] < 1e-10
    p = [constant_correlation(normal_panel(seed), PAIRS)["p"] for seed in range(60)]
    # 5 % of 60 are 3; more than 9 has a chance below 1 %
    assert np.mean(np.array(p) < 0.05) <= 9 / 60
    assert stats.kstest(p, "uniform").pvalue > 1e-3


def test_the_probability_transform_is_uniform_for_normal_returns_and_not_for_t5() -> None:
    z = normal_panel(1)
    good = fit_dcc(z, model="constant").diagnostics["probability_transform"]
    assert good["mean"] == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / 1000))  # four deviations
    assert good["p"] > 1e-3
    heavy = z * np.sqrt(3.0 / np.random.default_rng(2).chisquare(5, 1000))[:, None]
    bad = fit_dcc(heavy, model="constant").diagnostics["probability_transform"]
    assert bad["p"] < 1e-4
    assert bad["mean"] < good["mean"]


def test_residuals_are_those_of_the_twin_and_white(panel: F64) -> None:
    fit = fit_dcc(panel)
    theta = np.array([fit.a, fit.b, 0.0])
    e = residuals(panel, panel, fit.target, "cdcc", theta)
    assert e is not None
    want = full_loglik(panel, panel, fit.target, np.zeros((4, 4)), theta, aielli=True)
    np.testing.assert_allclose(e, want.residuals, atol=1e-11)  # rounding
    # a correlation of 2000 independent bars is known to .022
    np.testing.assert_allclose(np.corrcoef(e.T), np.eye(4), atol=0.09)


@pytest.mark.parametrize("model", ["dcc", "cdcc", "adcc"])
def test_paths_of_pairs_are_those_of_the_matrix(panel: F64, model: str) -> None:
    z = panel[:300].copy()
    z[50:60, 1] = np.nan
    fit = fit_dcc(z, model=model)  # type: ignore[arg-type]
    theta = np.array([fit.a, fit.b, fit.g])
    asymmetry = np.zeros((4, 4)) if fit.asymmetry is None else fit.asymmetry
    pair = np.array([[0, 1]])
    # of a pair alone the diagonals stand still with it, so the twin sees the pair only
    square = np.ix_([0, 1], [0, 1])
    moved = z[:, :2].copy()
    moved[np.isnan(moved).any(axis=1)] = np.nan
    rows = ~np.isnan(moved).any(axis=1)
    seen = moved[rows]
    path = full_loglik(
        seen, seen, fit.target[square], asymmetry[square], theta, aielli=model == "cdcc"
    ).corr
    objective = Composite(z, z, pair, model, fit.target)  # type: ignore[arg-type]
    if model == "adcc":
        objective.asymmetry = np.array([[asymmetry[0, 0], asymmetry[0, 1], asymmetry[1, 1]]])
    got = pair_paths(objective, theta)[:, 0]
    assert np.isnan(got[~rows]).all()
    np.testing.assert_allclose(got[rows], path[:-1, 0, 1], atol=1e-12)  # rounding


def test_ljung_box_is_that_of_statsmodels_in_form() -> None:
    e = np.random.default_rng(3).standard_normal((500, 2))
    product = e[:, 0] * e[:, 1]
    centred = product - product.mean()
    corr = np.array([centred[k:] @ centred[:-k] for k in range(1, 11)]) / (centred @ centred)
    want = 500 * 502 * np.sum(corr**2 / (500 - np.arange(1, 11)))
    got = residual_products(e, np.array([[0, 1]]))["mean"]
    assert got == pytest.approx(want, rel=1e-12)  # rounding


def test_few_complete_rows_are_said_to_be_too_few() -> None:
    z = normal_panel(4)
    z[:, 0][:970] = np.nan
    z[30:, 1] = np.where(np.arange(970) % 2, np.nan, z[30:, 1])
    assert math.isnan(constant_correlation(z, PAIRS)["p"])
    assert math.isnan(residual_products(z, PAIRS)["mean"])


def test_bars_without_any_return_do_not_count() -> None:
    e = np.random.default_rng(5).standard_normal((400, 3))
    e[100:110] = np.nan
    e[200:250, 0] = np.nan
    u = probability_transform(e)
    assert u["p"] > 1e-3
    assert 0.4 < u["mean"] < 0.6


def test_a_matrix_without_root_leaves_its_tests_out() -> None:
    z = run_dcc(np.random.default_rng(6).standard_normal((60, 3)), np.eye(3), 0.05, 0.9).z
    z[:, 2] = z[:, 1]
    fit = fit_dcc(z, target=np.array([[1.0, 0, 0], [0, 1, 1], [0, 1, 1]]))
    assert "probability_transform" not in fit.diagnostics
    assert fit.loglik == -math.inf
