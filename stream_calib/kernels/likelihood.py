"""Full Gaussian likelihood of DCC with its score, for few symbols."""

import numpy as np

from stream_calib.kernels._jit import kernel

LOG_2PI = float(np.log(2.0 * np.pi))


@kernel("f8(f8[:,::1], i8, f8[::1], f8[:,::1], b1)")
def _factorise(
    corr: np.ndarray,
    m: int,
    z: np.ndarray,
    inverse: np.ndarray,
    invert: bool,  # noqa: FBT001  # compiled code has no keywords
) -> float:
    # corr becomes U with R = U'U, z becomes e = U^-T z, inverse U^-T; returns ln|R|, NaN if not PD
    log_det = 0.0
    if invert:
        inverse[:m, :m] = 0.0
        for i in range(m):
            inverse[i, i] = 1.0
    for k in range(m):
        pivot = corr[k, k]
        if not pivot > 1e-14:
            return np.nan
        log_det += np.log(pivot)
        scale = 1.0 / np.sqrt(pivot)
        for j in range(k, m):
            corr[k, j] *= scale
        z[k] *= scale
        if invert:
            for j in range(k + 1):
                inverse[k, j] *= scale
        for i in range(k + 1, m):
            factor = corr[k, i]
            for j in range(i, m):
                corr[i, j] -= factor * corr[k, j]
            z[i] -= factor * z[k]
            if invert:
                for j in range(k + 1):
                    inverse[i, j] -= factor * inverse[k, j]
    return log_det


@kernel("void(f8[:,::1], f8[::1], i8, f8[:,::1])")
def _slope(inverse: np.ndarray, e: np.ndarray, m: int, out: np.ndarray) -> None:
    # out = (R^-1 - R^-1 z z' R^-1) / 2, lower triangle, from U^-T and e = U^-T z
    u = np.zeros(m)
    out[:m, :m] = 0.0
    for k in range(m):
        for j in range(k + 1):
            u[j] += inverse[k, j] * e[k]
        for i in range(k + 1):
            factor = 0.5 * inverse[k, i]
            for j in range(i + 1):
                out[i, j] += factor * inverse[k, j]
    for i in range(m):
        for j in range(i + 1):
            out[i, j] -= 0.5 * u[i] * u[j]


@kernel("void(f8[:,::1], f8[:,:,::1], f8[:,::1], f8[:,::1], i8[::1], i8, f8[::1])")
def _score(
    q: np.ndarray,
    dq: np.ndarray,
    corr: np.ndarray,
    slope: np.ndarray,
    seen: np.ndarray,
    m: int,
    out: np.ndarray,
) -> None:
    # out[1:] gains -tr(slope dR); corr holds R in its lower triangle
    for k in range(dq.shape[0]):
        total = 0.0
        for u in range(m):
            i = seen[u]
            for v in range(u):
                j = seen[v]
                change = dq[k, i, j] / np.sqrt(q[i, i] * q[j, j])
                change -= 0.5 * corr[u, v] * (dq[k, i, i] / q[i, i] + dq[k, j, j] / q[j, j])
                total -= 2.0 * slope[u, v] * change
        out[k] += total


@kernel(
    "void(f8[::1], i8[::1], i8, f8[:,::1], f8[:,:,::1], f8[:,::1], b1, f8[::1],"
    " f8[:,::1], f8[:,:,::1])"
)
def _advance(
    x: np.ndarray,
    seen: np.ndarray,
    m: int,
    target: np.ndarray,
    d_target: np.ndarray,
    asymmetry: np.ndarray,
    aielli: bool,  # noqa: FBT001  # compiled code has no keywords
    theta: np.ndarray,
    q: np.ndarray,
    dq: np.ndarray,
) -> None:
    a, b, g = theta[0], theta[1], theta[2]
    n_score = dq.shape[0]
    rest = 1.0 - a - b
    root = np.ones(m)
    d_root = np.zeros((n_score, m))
    for u in range(m):
        if aielli:
            root[u] = np.sqrt(q[seen[u], seen[u]])
            for k in range(n_score):
                d_root[k, u] = 0.5 * dq[k, seen[u], seen[u]] / root[u]
    for u in range(m):
        i = seen[u]
        for v in range(u + 1):
            j = seen[v]
            p = x[i] * root[u] * x[j] * root[v]
            down = min(x[i], 0.0) * min(x[j], 0.0)
            c = target[i, j]
            for k in range(n_score):
                d_p = x[i] * x[j] * (d_root[k, u] * root[v] + root[u] * d_root[k, v])
                own = p - c
                if k == 1:
                    own = q[i, j] - c
                if k == 2:
                    own = down - asymmetry[i, j]
                dq[k, i, j] = own + a * d_p + rest * d_target[k, i, j] + b * dq[k, i, j]
            q[i, j] = rest * c - g * asymmetry[i, j] + a * p + g * down + b * q[i, j]


@kernel(
    "b1(f8[:,::1], f8[:,::1], f8[:,::1], f8[:,:,::1], f8[:,::1], b1, f8[::1], f8[:,::1], f8[:,::1])"
)
def score_full(
    z: np.ndarray,
    news: np.ndarray,
    target: np.ndarray,
    d_target: np.ndarray,
    asymmetry: np.ndarray,
    aielli: bool,  # noqa: FBT001  # compiled code has no keywords
    theta: np.ndarray,
    out_bars: np.ndarray,
    out_residuals: np.ndarray,
) -> bool:
    """Compute the log density of every bar under DCC, cDCC or ADCC, and its score.

        l = -(m ln 2 pi + ln|R| + z' R^-1 z) / 2,   over the m symbols observed in the bar
        dl = -tr[(R^-1 - R^-1 z z' R^-1) dR] / 2

    Q follows the recursion of ``score_engle_pairs``, or of ``score_aielli_pairs`` if ``aielli``.

    Parameters
    ----------
    z, news : (t, n)
        NaN where not observed; a pair without both stands still.
    target : (n, n)
        C, and Q_1.
    d_target : (s, n, n)
        Derivatives of C by the first s of a, b, g; s = 0 leaves the score out.
    asymmetry : (n, n)
        M of ADCC, else 0.
    aielli
        Take x* = sqrt(q_ii) x as news; g is 0 then.
    theta : (3,)
        a, b, g.
    out_bars : (t, 1 + s), overwritten
        Log density and score of each bar.
    out_residuals : (t, n), overwritten
        e = L^-1 z with R = L L', NaN where not observed; (0, n) if not asked for.

    Returns
    -------
    bool
        False if some R was not positive definite; what is out then is not finished.

    Notes
    -----
    O(t n^3).

    References
    ----------
    Engle (2002), J. Business & Economic Statistics 20(3), eqs. (18), (26).
    """
    n = z.shape[1]
    n_score = d_target.shape[0]
    q = target.copy()
    dq = d_target.copy()
    corr = np.zeros((n, n))
    lower = np.zeros((n, n))
    inverse = np.zeros((n, n))
    slope = np.zeros((n, n))
    seen = np.zeros(n, np.int64)
    e = np.zeros(n)
    for t in range(z.shape[0]):
        m = 0
        for i in range(n):
            if z[t, i] == z[t, i]:
                seen[m] = i
                e[m] = z[t, i]
                m += 1
        for u in range(m):
            i = seen[u]
            for v in range(u):
                j = seen[v]
                lower[u, v] = q[i, j] / np.sqrt(q[i, i] * q[j, j])
                corr[v, u] = lower[u, v]
            corr[u, u] = 1.0
        log_det = _factorise(corr, m, e, inverse, n_score > 0)
        if log_det != log_det:
            return False
        total = m * LOG_2PI + log_det
        for u in range(m):
            total += e[u] * e[u]
        out_bars[t, 0] = -0.5 * total
        if out_residuals.shape[0] > 0:
            out_residuals[t] = np.nan
            for u in range(m):
                out_residuals[t, seen[u]] = e[u]
        if n_score > 0:
            out_bars[t, 1:] = 0.0
            _slope(inverse, e, m, slope)
            _score(q, dq, lower, slope, seen, m, out_bars[t, 1:])
        _advance(news[t], seen, m, target, d_target, asymmetry, aielli, theta, q, dq)
    return True
