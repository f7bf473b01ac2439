"""Standard errors of a and b (and g): sandwich with the target's own error stacked in."""

import math

import numpy as np

from stream_calib.estimation.calibrated import PERSISTENCE_MAX
from stream_calib.estimation.calibration.maximum import CURVATURE_STEP, curvature
from stream_calib.estimation.calibration.objective import Composite, Full
from stream_calib.kernels.dcc_targets import star_returns
from stream_calib.values import F64

SHIFT = 1e-5
FULL_TARGET_MAX = 10  # symbols up to which the full likelihood's errors include the target's
NAMES = ("a", "b", "g")


def standard_errors(objective: Composite | Full, theta: F64) -> dict[str, float]:
    """Estimate the standard errors of a fit's parameters.

        V = G^-1 J G^-1,   G = -d(score)/d(theta),   J = long-run variance of the sum of
        s_t + sum_pairs D_ij psi_ij,t,   D_ij = d(score)/dc_ij / T_ij
        psi_ij = y_i y_j - c_ij (y_i^2 + y_j^2) / 2,   y = x / rms(x)

    Parameters
    ----------
    objective
        The likelihood that was maximised.
    theta : (3,)
        Its maximum; g = 0 stands for a model without.

    Returns
    -------
    dict
        ``a``, ``b`` (and ``g``); NaN at an edge of the region or without curvature.

    Notes
    -----
    psi is how one bar moves the estimated correlation c_ij. It is as persistent as the
    correlations, so J takes Bartlett weights over 1.3 sqrt(t) bars (Lazarus, Lewis, Stock and
    Watson 2018). The errors of the GARCH stage and of ADCC's asymmetry matrix are left out, and
    so is the target's when it was given, or above ten symbols in the full likelihood.

    References
    ----------
    Engle and Sheppard (2001), NBER 8554, sec. 3.2; Pakel et al. (2021), sec. 3.3.
    """
    n = 3 if theta[2] > 0.0 else 2
    room = min(float(theta[:n].min()), PERSISTENCE_MAX - float(theta[:2].sum()))
    if room < 2 * CURVATURE_STEP:
        return dict.fromkeys(NAMES[:n], math.nan)

    def score(x: F64) -> F64:
        moved = theta.copy()
        moved[:n] = x
        return objective(moved)[1 : n + 1]

    bread = -curvature(score, theta[:n])
    bars = _bars(objective, theta)[:, :n]
    if not np.isfinite(bread).all() or np.linalg.eigvalsh(bread)[0] <= 0.0:
        return dict.fromkeys(NAMES[:n], math.nan)
    inverse = np.linalg.inv(bread)
    variance = np.diag(inverse @ _long_run(bars) @ inverse)
    return {name: math.sqrt(v) for name, v in zip(NAMES[:n], variance, strict=True)}


def _bars(objective: Composite | Full, theta: F64) -> F64:
    # score of each bar, plus what the bar does to it through the target
    if isinstance(objective, Composite):
        bars = np.zeros((objective.z.shape[1], 3))
        objective.by_pair(theta, 0.0, bars)
        if objective.given:
            return bars
        ends = [objective.by_pair(theta, sign * SHIFT)[:, 1:].copy() for sign in (-1.0, 1.0)]
        slopes = (ends[1] - ends[0]) / (2.0 * SHIFT)
        return bars + _through_target(objective, theta, objective.pairs, slopes)
    out = objective.by_bar(theta)
    if out is None:
        return np.full((len(objective.z), 3), math.nan)
    n = objective.z.shape[1]
    if objective.given is not None or n > FULL_TARGET_MAX:
        return out[:, 1:]
    pairs = np.stack(np.triu_indices(n, 1), axis=1).astype(np.int64)
    slopes = np.zeros((len(pairs), 3))
    for k, (i, j) in enumerate(pairs):
        for sign in (-1.0, 1.0):
            shift = np.zeros((n, n))
            shift[i, j] = shift[j, i] = sign * SHIFT
            moved = objective.by_bar(theta, shift)
            if moved is not None:
                slopes[k] += sign * moved[:, 1:].sum(axis=0) / (2.0 * SHIFT)
    return out[:, 1:] + _through_target(objective, theta, pairs, slopes)


def _through_target(objective: Composite | Full, theta: F64, pairs: np.ndarray, slopes: F64) -> F64:
    news = objective.news
    by_symbol = np.ascontiguousarray(news if isinstance(objective, Composite) else news.T)
    star = by_symbol
    if objective.model == "cdcc":
        star = np.empty_like(by_symbol)
        star_returns(by_symbol, theta[0], theta[1], star)
    total = np.zeros((star.shape[1], 3))
    for (i, j), slope in zip(pairs, slopes, strict=True):
        seen = ~np.isnan(star[i] * star[j])
        y1, y2 = star[i, seen], star[j, seen]
        scales = np.sqrt(np.mean(y1 * y1) * np.mean(y2 * y2))
        if not scales > 0.0:
            continue
        corr = np.mean(y1 * y2) / scales
        squares = y1 * y1 / np.mean(y1 * y1) + y2 * y2 / np.mean(y2 * y2)
        psi = y1 * y2 / scales - 0.5 * corr * squares
        total[seen] += psi[:, None] * (slope / seen.sum())
    return total


def _long_run(bars: F64) -> F64:
    centred = bars - bars.mean(axis=0)
    lags = math.ceil(1.3 * math.sqrt(len(bars)))
    total = centred.T @ centred
    for lag in range(1, min(lags, len(bars) - 1) + 1):
        cross = centred[lag:].T @ centred[:-lag]
        total += (1.0 - lag / (lags + 1.0)) * (cross + cross.T)
    matrix: F64 = total
    return matrix
