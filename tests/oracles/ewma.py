"""Exponentially weighted products as what they are: sums over the past with explicit weights."""

from typing import NamedTuple

import numpy as np

from stream_calib.values import F64, Correlation

WARM_N_EFF = 30.0
Z2_MAX = 1e4


class Sums(NamedTuple):
    """What is left of all rows: three (n, n), and ``fourth`` (2, n) with the powers' count."""

    products: F64
    exposures: F64
    exposures2: F64
    fourth: F64


def fold_returns(returns: F64, exposure: F64, decay_seen: F64, decay_unseen: F64) -> Sums:
    """Sum the products of all rows, each weighted by every decay that came after it."""
    n = returns.shape[1]
    products, exposures, exposures2 = np.zeros((3, n, n))
    fourth = np.zeros((2, n))
    for i in range(n):
        for j in range(n):
            overlap = _overlap(returns, exposure, i, j)
            weight = _weights(np.where(overlap > 0, decay_seen, decay_unseen))
            product = np.where(overlap > 0, returns[:, i] * returns[:, j], 0.0)
            products[i, j] = weight @ product
            exposures[i, j] = weight @ overlap
            exposures2[i, j] = weight**2 @ overlap**2
        fourth[:, i] = _fourth_powers(returns[:, i], exposure[:, i], decay_seen, decay_unseen)
    return Sums(products, exposures, exposures2, fourth)


def read_correlation(sums: Sums, cap: float) -> Correlation:
    """Divide products by exposures, then covariances by volatilities."""
    n = len(sums.products)
    corr, n_eff, vol = np.full((n, n), np.nan), np.zeros((n, n)), np.full(n, np.nan)
    capped = 0
    for i in range(n):
        if sums.exposures2[i, i] > 0:
            vol[i] = np.sqrt(sums.products[i, i] / sums.exposures[i, i])
    for i in range(n):
        for j in range(n):
            known = sums.exposures2[i, j] > 0
            if i == j:
                corr[i, i] = 1.0
            elif known and vol[i] * vol[j] > 0:
                raw = sums.products[i, j] / sums.exposures[i, j] / (vol[i] * vol[j])
                corr[i, j] = np.clip(raw, -cap, cap)
                capped += int(abs(raw) > cap and i < j)
            else:
                continue
            if known:
                n_eff[i, j] = sums.exposures[i, j] ** 2 / sums.exposures2[i, j]
    return Correlation(corr, vol, n_eff, kappa=0.0, capped=capped)


def _overlap(returns: F64, exposure: F64, i: int, j: int) -> F64:
    missing = np.isnan(returns[:, i]) | np.isnan(returns[:, j])
    return np.where(missing, 0.0, np.minimum(exposure[:, i], exposure[:, j]))


def _weights(decay: F64) -> F64:
    """Weight of each row after the last one: the product of the later rows' decays."""
    return np.array([np.prod(decay[t + 1 :]) for t in range(len(decay))])


def _fourth_powers(
    returns: F64, exposure: F64, decay_seen: F64, decay_unseen: F64
) -> tuple[float, float]:
    """Weighted sum and count of z^4, each z by the variance known before its row."""
    seen = ~np.isnan(returns) & (exposure > 0)
    decay = np.where(seen, decay_seen, decay_unseen)
    weight = _weights(decay)
    total = count = 0.0
    for t in np.flatnonzero(seen):
        past, before = slice(0, t), _weights(decay[:t])
        square = before @ np.where(seen[past], returns[past] ** 2, 0.0)
        span = before @ np.where(seen[past], exposure[past], 0.0)
        span2 = before**2 @ np.where(seen[past], exposure[past] ** 2, 0.0)
        if span2 > 0 and square > 0 and span**2 >= WARM_N_EFF * span2:
            z2 = min(returns[t] ** 2 / (exposure[t] * square / span), Z2_MAX)
            total += weight[t] * z2**2
            count += weight[t]
    return total, count
