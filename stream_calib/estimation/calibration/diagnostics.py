"""What a fitted correlation model leaves behind: four tests on residuals and signs."""

import math

import numpy as np
from scipy.stats import chi2, kstest

from stream_calib.estimation.calibration.objective import (
    Composite,
    DccModel,
    asymmetry_of,
    target_of,
)
from stream_calib.estimation.cleaning import one_blas_thread
from stream_calib.kernels.likelihood import score_full
from stream_calib.values import F64, I64

LAGS = 10
SHEPPARD_LAGS = 5
ROWS_MIN = 50


def residuals(z: F64, news: F64, target: F64, model: DccModel, theta: F64) -> F64 | None:
    """Decorrelate: e_t = L_t^-1 z_t with R_t = L_t L_t'.

    Parameters
    ----------
    z, news : (t, n)
        NaN where not observed.
    target : (n, n)
        C, and Q_1.
    model, theta
        As for ``objective.Full``.

    Returns
    -------
    (t, n) or None
        None if some R_t has no root. O(t n^3).
    """
    n = z.shape[1]
    out = np.empty(z.shape)
    asymmetry = asymmetry_of(news) if model == "adcc" else np.zeros((n, n))
    bars, slopes = np.empty((len(z), 1)), np.empty((0, n, n))
    z, news = np.ascontiguousarray(z), np.ascontiguousarray(news)
    target = np.ascontiguousarray(target)
    good = score_full(z, news, target, slopes, asymmetry, model == "cdcc", theta, bars, out)
    return out if good else None


def residual_products(e: F64, pairs: I64) -> dict[str, float]:
    """Test products e_i e_j for autocorrelation: Ljung-Box over ten lags, mean over the pairs.

    ``rejected`` is the share of pairs whose p is below .05; a good model leaves about .05.
    ``mean`` is the mean of the statistics, 10 for a good model. Rows with gaps are left out.

    References
    ----------
    Ljung and Box (1978), Biometrika 65(2).
    """
    e = e[~np.isnan(e).any(axis=1)]
    t = len(e)
    if t < ROWS_MIN:
        return {"mean": math.nan, "rejected": math.nan}
    statistics = []
    for i, j in pairs:
        product = e[:, i] * e[:, j]
        product = product - product.mean()
        square = float(product @ product)
        corr = [float(product[k:] @ product[:-k]) / square for k in range(1, LAGS + 1)]
        weights = t * (t + 2.0) / (t - np.arange(1, LAGS + 1))
        statistics.append(float(weights @ np.square(corr)))
    p = chi2.sf(statistics, LAGS)
    return {"mean": float(np.mean(statistics)), "rejected": float(np.mean(p < 0.05))}


def constant_correlation(z: F64, pairs: I64) -> dict[str, float]:
    """Test whether correlations are constant.

        y_ij,t = (S^-1/2 z_t)_i (S^-1/2 z_t)_j;   y_t = beta_0 + sum_k beta_k y_{t-k} + error
        X = beta' (X'X) beta / sigma^2 ~ chi2(6) if they are

    Parameters
    ----------
    z : (t, n)
        Rows with gaps are left out.
    pairs : (p, 2)
        Pairs that are stacked in one regression.

    Returns
    -------
    dict
        ``statistic`` and its ``p``; NaN if the constant correlation has no root.

    References
    ----------
    Engle and Sheppard (2001), NBER 8554, eqs. (32)-(34); five lags.
    """
    z = z[~np.isnan(z).any(axis=1)]
    nothing = {"statistic": math.nan, "p": math.nan}
    if len(z) < ROWS_MIN:
        return nothing
    with one_blas_thread():
        values, vectors = np.linalg.eigh(target_of(z, "dcc", 0.0, 0.0))
        if values[0] <= 1e-10:
            return nothing
        e = z @ (vectors / np.sqrt(values)) @ vectors.T
    y = e[:, pairs[:, 0]] * e[:, pairs[:, 1]]
    left = y[SHEPPARD_LAGS:].ravel()
    lagged = [y[SHEPPARD_LAGS - k : len(y) - k].ravel() for k in range(1, SHEPPARD_LAGS + 1)]
    right = np.stack([np.ones(len(left)), *lagged], axis=1)
    with one_blas_thread():
        gram = right.T @ right
        beta = np.linalg.solve(gram, right.T @ left)
        rest = left - right @ beta
        statistic = float(beta @ gram @ beta / (rest @ rest / len(rest)))
    return {"statistic": statistic, "p": float(chi2.sf(statistic, SHEPPARD_LAGS + 1))}


def probability_transform(e: F64) -> dict[str, float]:
    """Compare e'e with the chi2 of the symbols observed: u_t = F(e_t'e_t) is uniform if right.

    ``mean`` is .5 for a calibrated Gaussian model; ``ks`` and ``p`` are Kolmogorov's.
    """
    m = (~np.isnan(e)).sum(axis=1)
    squares = np.nansum(np.square(e), axis=1)[m > 0]
    u = chi2.cdf(squares, m[m > 0])
    test = kstest(u, "uniform")
    return {"mean": float(u.mean()), "ks": float(test.statistic), "p": float(test.pvalue)}


def sign_agreement(z: F64, paths: F64, pairs: I64) -> dict[str, float]:
    """Compare how often two returns have the same sign with P = 1/2 + asin(rho) / pi.

    Parameters
    ----------
    z : (t, n)
        NaN where not observed.
    paths : (t, p)
        One-step correlations of each pair, NaN where not both observed.
    pairs : (p, 2)
        The pairs.

    Returns
    -------
    dict
        ``brier`` of the forecast and ``brier_constant`` of each pair's own share; ``rejected``:
        share of pairs with |hits - expected| beyond 1.96 of its deviations. Holds for every
        elliptical law, whatever its tails.
    """
    first, second = z[:, pairs[:, 0]], z[:, pairs[:, 1]]
    known = ~np.isnan(paths) & (first * second != 0.0)
    hit = (first * second > 0.0).astype(np.float64)
    p = 0.5 + np.arcsin(np.clip(np.where(known, paths, 0.0), -1.0, 1.0)) / np.pi
    counts = np.maximum(known.sum(axis=0), 1)
    share = np.where(known, hit, 0.0).sum(axis=0) / counts
    excess = np.where(known, hit - p, 0.0).sum(axis=0)
    spread = np.sqrt(np.where(known, p * (1.0 - p), 0.0).sum(axis=0))
    score = np.divide(excess, spread, out=np.zeros(len(pairs)), where=spread > 0.0)
    n = max(int(known.sum()), 1)
    return {
        "brier": float(np.where(known, (hit - p) ** 2, 0.0).sum() / n),
        "brier_constant": float(np.where(known, (hit - share) ** 2, 0.0).sum() / n),
        "rejected": float(np.mean(np.abs(score) > 1.96)),
    }


@np.errstate(over="ignore", invalid="ignore")
def pair_paths(objective: Composite, theta: F64) -> F64:
    """Compute each pair's one-step correlations, (t, p), NaN where not both are observed."""
    a, b, g = theta
    i, j = objective.pairs.T
    out = np.full((objective.news.shape[1], len(i)), math.nan)
    c, m = objective.target, objective.asymmetry
    aielli = objective.model == "cdcc"
    if aielli:
        objective.by_pair(theta)  # computes the targets at theta
        ones = np.ones(len(i))
        c = np.stack([ones, objective.target[:, 0], ones], axis=1)
    q = c.copy()
    for t in range(len(out)):  # news that are not standardised run out of range
        x1, x2 = objective.news[i, t], objective.news[j, t]
        seen = ~np.isnan(x1 * x2)
        out[t, seen] = q[seen, 1] / np.sqrt(q[seen, 0] * q[seen, 2])
        x = np.stack([x1, x2], axis=1)
        down = np.minimum(x, 0.0)
        if aielli:
            x = x * np.sqrt(q[:, ::2])
        p = np.stack([x[:, 0] ** 2, x[:, 0] * x[:, 1], x[:, 1] ** 2], axis=1)
        n = np.stack([down[:, 0] ** 2, down[:, 0] * down[:, 1], down[:, 1] ** 2], axis=1)
        new = (1.0 - a - b) * c - g * m + a * p + g * n + b * q
        q[seen] = new[seen]
    return out
