"""GARCH kernels equal their oracles; their derivatives are the likelihood's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.special import polygamma

from stream_calib.kernels.garch import advance_variances, filter_variances
from stream_calib.kernels.garch_likelihood import differentiate, digamma, loglik, trigamma
from stream_calib.kernels.working_set import find_step
from stream_calib.values import F64
from tests.oracles import garch as oracle
from tests.oracles import working_set as step_oracle

THETA = np.array([0.05, 0.06, 0.08, 0.8, 0.07, 6.0])
seeds = st.integers(0, 2**32 - 1)


def series(m: int, t: int, seed: int) -> F64:
    """Heavy tails and holes."""
    rng = np.random.default_rng(seed)
    panel = rng.standard_t(5, (m, t))
    panel[rng.random((m, t)) < 0.1] = np.nan
    return panel


def derivatives(
    panel: F64, theta: F64, start: F64, *, student: bool
) -> tuple[float, F64, F64, F64]:
    scores, hessian, opg = np.empty((panel.shape[1], 6)), np.empty((6, 6)), np.empty((6, 6))
    gradient = np.empty(6)
    value = differentiate(panel, theta, student, start, scores, gradient, hessian, opg)
    # the same sum in another order
    np.testing.assert_allclose(gradient, scores.sum(axis=0), rtol=1e-9, atol=1e-9)
    return value, scores, hessian, opg


@given(st.integers(1, 4), st.integers(0, 80), seeds)
@hypothesis_settings(max_examples=25)
def test_filter_equals_its_oracle(n: int, t: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    e = np.ascontiguousarray(series(n, t, seed).T)
    ranges = ((0.0, 0.1), (0.0, 0.2), (0.5, 0.8), (-0.1, 0.1))
    params = np.array([rng.uniform(low, high, n) for low, high in ranges])
    start, out = rng.uniform(0.5, 2.0, n), np.empty((t + 1, n))
    filter_variances(e, params, start, out)
    for i in range(n):
        wanted = oracle.variances(e[:, i], params[:, i].tolist(), start[i])
        # the same terms in another order, up to 80 times
        np.testing.assert_allclose(out[:, i], wanted, rtol=1e-13)


def test_without_omega_and_with_sum_one_the_filter_is_the_weighted_mean_of_riskmetrics() -> None:
    e = np.random.default_rng(2).standard_normal((500, 1))
    out = np.empty((501, 1))
    filter_variances(e, np.array([[0.0], [0.06], [0.94], [0.0]]), np.ones(1), out)
    weight = 0.06 * 0.94 ** np.arange(500)[::-1]
    wanted = weight @ e[:, 0] ** 2 + 0.94**500
    assert out[-1, 0] == pytest.approx(wanted, rel=1e-12)  # rounding of 500 steps


@pytest.mark.parametrize("student", [False, True])
@pytest.mark.parametrize("start", [0.0, 0.7])
@given(st.integers(1, 3), st.integers(2, 60), seeds)
@hypothesis_settings(max_examples=15)
def test_likelihood_and_its_sum_equal_the_oracle(
    student: bool, start: float, m: int, t: int, seed: int
) -> None:
    panel = series(m, t, seed)
    panel[:, 0] = 1.0  # something to take the mean of
    starts = np.full(m, start)
    wanted = sum(oracle.logliks(r, THETA, start, student=student).sum() for r in panel)
    # sums of up to 180 terms of about 1
    assert loglik(panel, THETA, student, starts) == pytest.approx(wanted, rel=1e-12, abs=1e-11)
    value, scores, _, opg = derivatives(panel, THETA, starts, student=student)
    assert value == pytest.approx(wanted, rel=1e-12, abs=1e-11)
    np.testing.assert_allclose(opg, scores.T @ scores, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("student", [False, True])
@pytest.mark.parametrize("start", [0.0, 0.7])
@pytest.mark.parametrize("seed", range(4))
def test_scores_and_hessian_are_the_slopes_of_likelihood_and_scores(
    student: bool, start: float, seed: int
) -> None:
    panel, starts = series(2, 400, seed), np.full(2, start)
    _, scores, hessian, _ = derivatives(panel, THETA, starts, student=student)
    assert (hessian == hessian.T).all()
    for p in range(6 if student else 5):
        step = np.zeros(6)
        step[p] = 1e-5
        up = [oracle.logliks(r, THETA + step, start, student=student) for r in panel]
        down = [oracle.logliks(r, THETA - step, start, student=student) for r in panel]
        slope = (np.sum(up, axis=0) - np.sum(down, axis=0)) / 2e-5
        size = np.abs(scores[:, p]).max()
        # 1e-6 of the largest: the cube of the step, and rounding over the step. Of mu the
        # slope is broken where a residual changes its sign, which a step this small hardly meets
        np.testing.assert_allclose(scores[:, p], slope, rtol=1e-6, atol=1e-6 * size)
        assert scores[:, p].sum() == pytest.approx(slope.sum(), rel=1e-6, abs=1e-7 * size * 400)
        above = derivatives(panel, THETA + step, starts, student=student)[1].sum(axis=0)
        below = derivatives(panel, THETA - step, starts, student=student)[1].sum(axis=0)
        scale = np.sqrt(np.abs(np.diagonal(hessian)) * abs(hessian[p, p])) + 1.0
        assert (np.abs((above - below) / 2e-5 - hessian[p]) <= 1e-6 * scale).all()


def test_scores_of_normal_errors_have_nothing_about_nu() -> None:
    _, scores, hessian, _ = derivatives(series(1, 50, 1), THETA, np.ones(1), student=False)
    assert not scores[:, 5].any()
    assert not hessian[5].any()


@pytest.mark.parametrize("x", [0.5, 1.0, 1.025, 3.7, 10.0, 250.5])
def test_polygammas_are_those_of_scipy(x: float) -> None:
    # the first term left out of either series is below 1e-13 at 10
    assert digamma(x) == pytest.approx(polygamma(0, x), rel=1e-12, abs=1e-13)
    assert trigamma(x) == pytest.approx(polygamma(1, x), rel=1e-12)


@pytest.mark.parametrize("seed", range(30))
def test_a_step_is_the_best_that_the_held_rules_allow(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, k, n_fixed = 5, 4, int(rng.integers(0, 2))
    half = rng.standard_normal((p, p))
    curvature = half @ half.T + 0.1 * np.eye(p)
    gradient, rules = rng.standard_normal(p), rng.standard_normal((k, p))
    held, step = np.ones(k, dtype=np.bool_), np.empty(p)
    assert find_step(gradient, curvature, rules, held, n_fixed, step)
    # what is let go by its multiplier points inwards at first; several at once need not all
    if (rules @ step <= 1e-9).all():
        wanted = step_oracle.find_step(gradient, curvature, rules, n_fixed)
        # the condition of random 5 x 5 matrices is at most about 1e4
        np.testing.assert_allclose(step, wanted, rtol=1e-9, atol=1e-10)
    assert gradient @ step >= 0.0
    np.testing.assert_allclose(rules[held] @ step, 0.0, atol=1e-10)


def test_no_step_is_given_where_the_quadratic_has_no_top() -> None:
    held, step = np.zeros(1, dtype=np.bool_), np.empty(2)
    rules = np.array([[0.0, 1.0]])
    bent = np.diag([1.0, -1.0])
    assert not find_step(np.ones(2), bent, rules, held, 0, step)
    held[:] = True  # along the rule it has one
    assert find_step(np.ones(2), bent, rules, held, 1, step)
    assert step.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("cap", [0.0, 2.0])
@given(st.integers(1, 4), st.integers(0, 120), seeds)
@hypothesis_settings(max_examples=20)
def test_advancing_bar_by_bar_equals_its_oracle(cap: float, n: int, t: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    returns = np.ascontiguousarray(series(n, t, seed).T)
    returns[t // 2 : t // 2 + 6] *= 100.0  # caps in short order
    exposure = np.where(np.isnan(returns), 0.0, rng.integers(1, 4, (t, n)))
    params = np.array([[0.01], [0.1], [0.05], [0.8], [0.1]]) * np.ones(n)
    params[:, ::2] = np.nan
    variance = np.where(np.isnan(params[0]), np.nan, 1.0)
    sums, score, z, counts = np.zeros((3, n)), np.zeros(n), np.empty(n), np.empty(3)
    decay = 0.98
    assets = [oracle.Asset(decay, cap) for _ in range(n)]
    for i in range(1, n, 2):
        assets[i].params, assets[i].variance = params[:, i], 1.0
    for k in range(t):
        args = (params, decay, cap, 1.03, variance, sums, score, z, counts)
        advance_variances(returns[k], exposure[k], *args)
        wanted = [
            asset.take(float(returns[k, i]), float(exposure[k, i]), 1.03)
            for i, asset in enumerate(assets)
        ]
        # weighted sums of up to 120 terms
        np.testing.assert_allclose(z, [w[0] for w in wanted], rtol=1e-11)
        assert counts.tolist() == np.sum([w[1] for w in wanted], axis=0).tolist()
    fitted = [asset.variance for asset in assets[1::2]]
    np.testing.assert_allclose(variance[1::2], fitted, rtol=1e-11)
    np.testing.assert_allclose(score, [a.score for a in assets], atol=1e-12)
