"""Second moments of returns along given directions, and the nearest ascending sequence."""

import numpy as np

from stream_calib.kernels._jit import kernel


@kernel("void(f8[:,::1], f8[:,::1], f8[::1], f8[::1], f8[::1], f8[::1])")
def fold_projections(
    returns: np.ndarray,
    vectors: np.ndarray,
    fourth: np.ndarray,
    decay: np.ndarray,
    moments: np.ndarray,
    exposures: np.ndarray,
) -> None:
    """Fold k rows of returns into their second moments along n directions.

        p_i = sum_j u_ji x_j;   d_i = sum_j u_ji^2 x_j^2;   s_i = sum_j u_ji^2     over observed j
        q_i = (s_i^2 - sum_j u_ji^4) / (1 - f_i);   f_i = sum of u_ji^4 over all j
        V_i <- c V_i + (p_i^2 - d_i) + q_i d_i / s_i;   E_i <- c E_i + q_i

    V / E estimates u' S u. A row without holes adds p_i^2 and 1. With holes, products of two
    symbols are as rare as q and squares as s, so each is divided by its own share before the
    two are joined with weight q: unbiased when holes fall on all symbols alike.

    Parameters
    ----------
    returns : (k, n)
        Standardised, NaN where not observed.
    vectors : (n, n)
        u_ji: row j is a symbol, column i a direction of length 1.
    fourth : (n,)
        f_i; where it is 1 (a direction of one symbol) q is the symbol's own presence.
    decay : (k,)
        c: weight on the past in each row.
    moments, exposures : (n,), changed in place
        V and E.

    Notes
    -----
    O(k n^2). Each sum over symbols runs in the order of the rows of ``vectors``.

    References
    ----------
    Tan and Zohren (2020), arXiv 2012.05757, for whole rows.
    """
    n = returns.shape[1]
    projections = np.empty(n)
    squares = np.empty(n)
    shares = np.empty(n)
    shares2 = np.empty(n)
    for t in range(returns.shape[0]):
        seen = 0
        projections[:] = 0.0
        for j in range(n):
            x = returns[t, j]
            if x == x:
                seen += 1
                for i in range(n):
                    projections[i] += vectors[j, i] * x
        if seen == n:
            for i in range(n):
                moments[i] = decay[t] * moments[i] + projections[i] * projections[i]
                exposures[i] = decay[t] * exposures[i] + 1.0
            continue
        squares[:] = 0.0
        shares[:] = 0.0
        shares2[:] = 0.0
        for j in range(n):
            x = returns[t, j]
            if x == x:
                for i in range(n):
                    u2 = vectors[j, i] * vectors[j, i]
                    squares[i] += u2 * x * x
                    shares[i] += u2
                    shares2[i] += u2 * u2
        for i in range(n):
            pairs = 1.0 - fourth[i]
            q = (shares[i] * shares[i] - shares2[i]) / pairs if pairs > 1e-12 else shares[i]
            q = min(1.0, max(0.0, q))
            moment = 0.0
            if q > 0.0 and shares[i] > 0.0:
                moment = projections[i] * projections[i] - squares[i] + q * squares[i] / shares[i]
            moments[i] = decay[t] * moments[i] + moment
            exposures[i] = decay[t] * exposures[i] + q


@kernel("void(f8[::1], f8[::1], f8[::1])")
def fit_ascending(values: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """Find the ascending sequence nearest to given values, by pooling adjacent violators.

        minimise sum_i w_i (y_i - v_i)^2   subject to   y_1 <= y_2 <= ... <= y_n

    Parameters
    ----------
    values : (n,)
        v, finite.
    weights : (n,)
        w, positive.
    out : (n,), overwritten
        y.

    Notes
    -----
    O(n): each value enters a block once and blocks only merge.

    References
    ----------
    Barlow, Bartholomew, Bremner and Brunk (1972), ch. 1: the pool-adjacent-violators algorithm.
    """
    n = values.size
    level = np.empty(n)
    weight = np.empty(n)
    start = np.empty(n, np.int64)
    blocks = 0
    for i in range(n):
        level[blocks] = values[i]
        weight[blocks] = weights[i]
        start[blocks] = i
        blocks += 1
        while blocks > 1 and level[blocks - 2] >= level[blocks - 1]:
            one, other = weight[blocks - 2], weight[blocks - 1]
            level[blocks - 2] = (one * level[blocks - 2] + other * level[blocks - 1]) / (
                one + other
            )
            weight[blocks - 2] = one + other
            blocks -= 1
    for b in range(blocks):
        stop = start[b + 1] if b + 1 < blocks else n
        for i in range(start[b], stop):
            out[i] = level[b]
