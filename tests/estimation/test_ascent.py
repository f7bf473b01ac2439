"""Climbs end where the rules and the objective say, wherever they begin."""

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, minimize

from stream_calib.estimation.calibration.ascent import Rules, climb
from stream_calib.estimation.calibration.garch import fit_garch
from stream_calib.kernels.garch_likelihood import loglik
from stream_calib.values import F64


class Hill:
    """-(x - top)' B (x - top) / 2 - w sum (x - top)^4."""

    def __init__(self, top: F64, curvature: F64, quartic: float) -> None:
        self.top, self.curvature, self.quartic = top, curvature, quartic

    def value(self, point: F64) -> float:
        away = point - self.top
        return float(-away @ self.curvature @ away / 2.0 - self.quartic * (away**4).sum())

    def derivatives(self, point: F64) -> tuple[float, F64, F64, F64]:
        away = point - self.top
        gradient = -self.curvature @ away - 4.0 * self.quartic * away**3
        hessian = -self.curvature - np.diag(12.0 * self.quartic * away**2)
        return self.value(point), gradient, hessian, np.eye(len(point))


class Slope:
    """x, which has no top."""

    def value(self, point: F64) -> float:
        return float(point.sum())

    def derivatives(self, point: F64) -> tuple[float, F64, F64, F64]:
        n = len(point)
        return self.value(point), np.ones(n), np.zeros((n, n)), np.eye(n)


@pytest.mark.parametrize("seed", range(20))
def test_a_climb_ends_where_another_optimiser_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    half = rng.standard_normal((4, 4))
    hill = Hill(rng.standard_normal(4) * 2.0, half @ half.T + 0.5 * np.eye(4), 0.1)
    rules = Rules(
        np.vstack([np.eye(4)[:1], rng.standard_normal((1, 4)), -np.eye(4), np.eye(4)]),
        np.concatenate([[0.0], [1.0], np.ones(8)]),
        1,
    )
    summit = climb(hill, np.zeros(4), rules)

    def depth(point: F64) -> float:
        return -hill.value(point)

    def slope(point: F64) -> F64:
        return -hill.derivatives(point)[1]

    other = minimize(
        depth,
        np.zeros(4),
        jac=slope,
        method="SLSQP",
        constraints=[
            LinearConstraint(rules.matrix[:1], rules.limits[:1], rules.limits[:1]),
            LinearConstraint(rules.matrix[1:], -np.inf, rules.limits[1:]),
        ],
        tol=1e-14,
    )
    assert summit.converged
    assert (rules.matrix @ summit.point <= rules.limits + 1e-12).all()
    assert summit.value == pytest.approx(-other.fun, abs=1e-9)
    # a flat top: where values agree to 1e-9, points do to its root
    np.testing.assert_allclose(summit.point, other.x, atol=1e-4)
    gaps = rules.limits - rules.matrix @ summit.point
    assert (gaps[summit.held] < 1e-10).all()


def test_a_slope_without_end_does_not_converge() -> None:
    summit = climb(Slope(), np.zeros(2), Rules(np.zeros((0, 2)), np.zeros(0), 0))
    assert not summit.converged


def test_a_slope_that_a_rule_ends_converges_there() -> None:
    rules = Rules(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([3.0, 2.0]), 0)
    summit = climb(Slope(), np.zeros(2), rules)
    assert summit.converged
    np.testing.assert_allclose(summit.point, [3.0, 2.0], rtol=1e-12)
    assert summit.held.tolist() == [True, True]


def test_a_climb_is_given_up_where_another_did_better() -> None:
    hill = Hill(np.ones(2), np.eye(2), 0.0)
    nothing = Rules(np.zeros((0, 2)), np.zeros(0), 0)
    assert climb(hill, np.zeros(2), nothing, floor=-1.0).converged
    assert not climb(hill, np.zeros(2), nothing, floor=5.0).converged


@pytest.mark.parametrize("seed", range(12))
def test_short_heavy_tailed_series_are_climbed_to_their_highest_peak(seed: int) -> None:
    # 500 bars with outliers: several peaks, most of them at a bound; a coarse grid of all
    # parameters finds no place above the fit
    returns = np.random.default_rng(seed).standard_t(4, 500)
    fit = fit_garch(returns, mean="zero")
    assert fit.converged
    variance = np.mean(returns**2)
    for alpha in (1e-6, 0.02, 0.05, 0.1, 0.2, 0.4):
        for sum_ in (0.05, 0.3, 0.5, 0.7, 0.9, 0.95, 0.98, 0.999):
            if alpha <= sum_:
                omega = variance * (1.0 - sum_)
                theta = np.array([0.0, omega, alpha, sum_ - alpha, 0.0, 8.0])
                assert loglik(returns[None].copy(), theta, False, np.zeros(1)) <= fit.loglik + 1e-9
