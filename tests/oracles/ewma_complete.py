"""Exponentially weighted products of complete bars, as sums over the past."""

from typing import NamedTuple

import numpy as np

from stream_calib.values import F64, Correlation
from tests.oracles import ewma


class Sums(NamedTuple):
    """What is left of the complete rows: (n, n), E and E2 (2,), and ``fourth`` (2, n)."""

    rows: int
    products: F64
    exposures: F64
    fourth: F64


def fold_complete(returns: F64, exposure: F64, decay_seen: F64, decay_unseen: F64) -> Sums:
    """Sum the products of the rows before the first incomplete one, each by its later decays."""
    k, n = returns.shape
    observed = ~np.isnan(returns) & (exposure > 0.0)
    spans = np.where(observed, exposure, 0.0)
    complete = (spans == spans[:, :1]).all(axis=1)  # nobody counts as well
    rows = k if complete.all() else int(np.argmin(complete))
    seen = observed[:rows, 0]
    decay = np.where(seen, decay_seen[:rows, 0, 0], decay_unseen[:rows, 0, 0])
    weight = np.array([np.prod(decay[t + 1 :]) for t in range(rows)])
    products = np.zeros((n, n))
    for t in np.flatnonzero(seen):
        products += weight[t] * np.outer(returns[t], returns[t])
    exposures = np.array([weight @ spans[:rows, 0], weight**2 @ spans[:rows, 0] ** 2])
    group = np.zeros(n, np.int64)
    r, w, d, u = (column[:rows] for column in (returns, exposure, decay_seen, decay_unseen))
    fourth = ewma.fold_returns(r, w, group, d, u).fourth
    return Sums(rows, products, exposures, fourth)


def read_complete(sums: Sums, cap: float) -> Correlation:
    """Divide products by the roots of the diagonal."""
    n = len(sums.products)
    corr, n_eff, vol = np.full((n, n), np.nan), np.zeros((n, n)), np.full(n, np.nan)
    span, span2 = sums.exposures
    capped = 0
    for i in range(n):
        corr[i, i] = 1.0
        if span2 > 0.0:
            vol[i] = np.sqrt(sums.products[i, i] / span)
            n_eff[i, i] = span**2 / span2
        for j in range(n):
            scale = np.sqrt(sums.products[i, i]) * np.sqrt(sums.products[j, j])
            if i != j and span2 > 0.0 and scale > ewma.SQUARES_MIN:
                raw = sums.products[i, j] / scale
                corr[i, j] = np.clip(raw, -cap, cap)
                n_eff[i, j] = span**2 / span2
                capped += int(abs(raw) > cap and i < j)
    return Correlation(corr, vol, n_eff, kappa=0.0, capped=capped)
