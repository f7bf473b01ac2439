"""Projections and the nearest ascending sequence, as their definitions say."""

import numpy as np

from stream_calib.values import F64


def fold_projections(returns: F64, vectors: F64, decay: float) -> tuple[F64, F64]:
    """Weighted sums V and E (n,) over all rows, pair by pair."""
    n = returns.shape[1]
    moments, exposures = np.zeros(n), np.zeros(n)
    apart = ~np.eye(n, dtype=bool)
    for x in returns:
        seen = ~np.isnan(x)
        filled = np.where(seen, x, 0.0)
        for i in range(n):
            u = vectors[:, i]
            pairs, together = np.outer(u**2, u**2)[apart], np.outer(seen, seen)[apart]
            share = float(pairs[together].sum() / pairs.sum())
            crossed = float(np.outer(u * filled, u * filled)[apart].sum())
            own = float((u**2 * filled**2).sum())
            of_own = float((u**2)[seen].sum())
            moment = 0.0 if share == 0.0 else crossed + share * own / of_own
            moments[i] = decay * moments[i] + moment
            exposures[i] = decay * exposures[i] + share
    return moments, exposures


def fit_ascending(values: F64, weights: F64) -> F64:
    """y_i = max over a <= i of min over b >= i of the weighted mean of v_a .. v_b."""
    n = len(values)

    def mean(a: int, b: int) -> float:
        part = slice(a, b + 1)
        return float(np.average(values[part], weights=weights[part]))

    return np.array(
        [max(min(mean(a, b) for b in range(i, n)) for a in range(i + 1)) for i in range(n)]
    )
