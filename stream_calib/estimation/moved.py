"""Which correlations have moved most since a change."""

import math
from collections.abc import Sequence

import numpy as np

from stream_calib.estimation.cleaning import one_blas_thread
from stream_calib.values import F64, I64

PAIRS_MAX = 10
SYMBOLS_MAX = 5
TOGETHER_MIN = 8  # rows of both: fewer say nothing of a pair
CORRELATION_MAX = 0.999  # up to which Fisher's z is taken


def moved(z: F64, before: F64, symbols: Sequence[str], order: I64) -> dict[str, object]:
    """Compare what rows say of each pair with what was expected of it.

        d = atanh(r) - atanh(r0),   r = sum z_i z_j / sqrt(sum z_i^2 sum z_j^2)

    with sums over the rows in which both are observed.

    Parameters
    ----------
    z : (k, n)
        Standardised returns since the change, NaN where not observed.
    before : (n, n)
        The correlations expected, r0.
    symbols
        Names of the n symbols.
    order : (n,)
        Their canonical order, which decides between equals.

    Returns
    -------
    dict
        JSON values. ``pairs``: the largest |d| first, each with its ``symbols``, correlation
        ``before`` and ``after``, ``delta`` and the standard error of ``after``. ``symbols``: the
        ones whose correlations with all others moved most, by the mean of |after - before|.
        ``average_before`` and ``average_after``: over all pairs; null where too few rows tell.
    """
    z, before = z[:, order], before[np.ix_(order, order)]
    seen = np.isfinite(z)
    own = np.where(seen, z, 0.0)
    n, upper = len(order), np.triu_indices(len(order), 1)
    ones = seen.astype(np.float64)
    with one_blas_thread():  # in canonical order: the universe's own does not show
        together, products = ones.T @ ones, own.T @ own
        squares = (own * own).T @ ones
    scale = np.sqrt(squares * squares.T)
    after = np.divide(products, scale, out=np.full((n, n), np.nan), where=scale > 0.0)
    after[together < TOGETHER_MIN] = np.nan
    known = np.isfinite(after) & np.isfinite(before)
    held = [np.clip(r, -CORRELATION_MAX, CORRELATION_MAX) for r in (after, before)]
    distance = np.where(known, np.abs(np.arctanh(held[0]) - np.arctanh(held[1])), 0.0)
    delta = np.where(known, after - before, 0.0)
    names = [symbols[i] for i in order]
    chosen = np.argsort(-distance[upper], kind="stable")[:PAIRS_MAX]
    pairs = [(int(upper[0][p]), int(upper[1][p])) for p in chosen]
    np.fill_diagonal(delta, 0.0)
    shares = np.array([math.fsum(np.abs(row)) for row in delta]) / max(1, n - 1)
    most = np.argsort(-shares, kind="stable")[:SYMBOLS_MAX]
    both = known[upper]
    count = int(both.sum())
    return {
        "pairs": [
            {
                "symbols": [names[i], names[j]],
                "before": float(before[i, j]),
                "after": float(after[i, j]),
                "delta": float(delta[i, j]),
                "se": float((1.0 - after[i, j] ** 2) / math.sqrt(together[i, j])),
            }
            for i, j in pairs
            if known[i, j]
        ],
        "symbols": [
            {"symbol": names[i], "mean_move": float(shares[i])} for i in most if shares[i] > 0.0
        ],
        "average_before": math.fsum(before[upper][both]) / count if count else None,
        "average_after": math.fsum(after[upper][both]) / count if count else None,
    }
