"""The full likelihood equals matrices bar by bar, its score their differences."""

import numpy as np
import pytest

from stream_calib.kernels.likelihood import score_full
from stream_calib.values import F64
from tests.oracles.likelihood import full_loglik

T, N = 60, 4
THETAS = [(0.05, 0.9, 0.0, False), (0.04, 0.8, 0.06, False), (0.05, 0.9, 0.0, True)]


def panel(gaps: float) -> tuple[F64, F64, F64]:
    rng = np.random.default_rng(11)
    z = rng.standard_normal((T, N)) + 0.7 * rng.standard_normal((T, 1))
    target: F64 = np.asarray(np.corrcoef(z.T), dtype=np.float64)
    down = np.minimum(z, 0.0)
    z[rng.random((T, N)) < gaps] = np.nan
    return z, target, down.T @ down / T


@pytest.mark.parametrize("gaps", [0.0, 0.2])
@pytest.mark.parametrize(("a", "b", "g", "aielli"), THETAS)
def test_density_residuals_and_score(
    a: float, b: float, g: float, aielli: bool, gaps: float
) -> None:
    z, target, asymmetry = panel(gaps)
    news = 0.9 * z
    theta = np.array([a, b, g])
    # the target moves with a and b in cDCC: any slopes do
    slopes = 0.1 * np.stack([target, target.T @ target, np.zeros((N, N))]) * aielli
    out, residuals = np.empty((T, 4)), np.empty((T, N))
    assert score_full(z, news, target, slopes, asymmetry, aielli, theta, out, residuals)
    want = full_loglik(z, news, target, asymmetry, theta, aielli=aielli)
    np.testing.assert_allclose(out[:, 0], want.loglik, rtol=1e-11)  # rounding
    np.testing.assert_allclose(residuals, want.residuals, atol=1e-11)
    step = 1e-6
    for k in range(2 if aielli else 3):  # cDCC has no g
        ends = []
        for sign in (-1.0, 1.0):
            moved = theta + sign * step * np.eye(3)[k]
            there = target + sign * step * slopes[k]
            ends.append(full_loglik(z, news, there, asymmetry, moved, aielli=aielli).loglik)
        # differences of 1e-6: truncation 1e-12 times third derivatives, rounding 1e-15 / 1e-6
        np.testing.assert_allclose(out[:, 1 + k], (ends[1] - ends[0]) / 2e-6, rtol=1e-5, atol=1e-6)


def test_a_matrix_without_root_is_told() -> None:
    z, target, asymmetry = panel(0.0)
    target[0, 1] = target[1, 0] = 0.999
    target[0, 2] = target[2, 0] = -0.999
    theta, none = np.zeros(3), np.empty((0, N, N))
    out, residuals = np.empty((T, 1)), np.empty((0, N))
    assert not score_full(z, z, target, none, asymmetry, False, theta, out, residuals)
