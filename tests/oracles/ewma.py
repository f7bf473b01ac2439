"""Exponentially weighted products as what they are: sums over the past with explicit weights."""

from typing import NamedTuple

import numpy as np

from stream_calib.values import F64, I64, Correlation

WARM_N_EFF = 30.0
SQUARES_MIN = 1e-300
Z2_MAX = 1e4


class Sums(NamedTuple):
    """What is left of all rows: five (n, n), and ``fourth`` (2, n) with the powers' count."""

    products: F64
    squares_i: F64
    squares_j: F64
    exposures: F64
    exposures2: F64
    fourth: F64


def fold_returns(
    returns: F64, exposure: F64, group: I64, decay_seen: F64, decay_unseen: F64
) -> Sums:
    """Sum the products of all rows, each weighted by every decay that came after it."""
    n = returns.shape[1]
    products, squares_i, squares_j, exposures, exposures2 = np.zeros((5, n, n))
    fourth = np.zeros((2, n))
    for i in range(n):
        for j in range(n):
            overlap = _overlap(returns, exposure, i, j)
            seen, unseen = (d[:, group[i], group[j]] for d in (decay_seen, decay_unseen))
            weight = _weights(np.where(overlap > 0, seen, unseen))
            ri, rj = (np.where(overlap > 0, returns[:, a], 0.0) for a in (i, j))
            products[i, j] = weight @ (ri * rj)
            squares_i[i, j] = weight @ ri**2
            squares_j[i, j] = weight @ rj**2
            exposures[i, j] = weight @ overlap
            exposures2[i, j] = weight**2 @ overlap**2
        seen, unseen = (d[:, group[i], group[i]] for d in (decay_seen, decay_unseen))
        fourth[:, i] = _fourth_powers(returns[:, i], exposure[:, i], seen, unseen)
    return Sums(products, squares_i, squares_j, exposures, exposures2, fourth)


def read_correlation(sums: Sums, cap: float) -> Correlation:
    """Divide products by the roots of the squares over the same rows."""
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
            elif known and (scale := _scale(sums, i, j)) > SQUARES_MIN:
                raw = sums.products[i, j] / scale
                corr[i, j] = np.clip(raw, -cap, cap)
                capped += int(abs(raw) > cap and i < j)
            else:
                continue
            if known:
                n_eff[i, j] = sums.exposures[i, j] ** 2 / sums.exposures2[i, j]
    return Correlation(corr, vol, n_eff, kappa=0.0, capped=capped)


def _scale(sums: Sums, i: int, j: int) -> float:
    return float(np.sqrt(sums.squares_i[i, j]) * np.sqrt(sums.squares_j[i, j]))


def _overlap(returns: F64, exposure: F64, i: int, j: int) -> F64:
    missing = np.isnan(returns[:, i]) | np.isnan(returns[:, j])
    return np.where(missing | (exposure[:, i] != exposure[:, j]), 0.0, exposure[:, i])


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
            n_eff = span**2 / span2
            total += weight[t] * z2**2 * (n_eff - 2) * (n_eff - 4) / n_eff**2
            count += weight[t]
    return total, count
