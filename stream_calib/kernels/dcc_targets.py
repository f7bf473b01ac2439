"""Moments that a target of DCC is made of."""

import numpy as np

from stream_calib.kernels._jit import kernel


@kernel("void(f8[:,::1], f8, f8, f8[:,::1])")
def star_returns(news: np.ndarray, a: float, b: float, out: np.ndarray) -> None:
    """Scale every symbol's news by the root of its own diagonal: x* = sqrt(q) x.

        q' = (1 - a - b) + (a x^2 + b) q,   q_1 = 1

    Parameters
    ----------
    news : (n, t)
        NaN where not observed: q stands still.
    a, b
        News and memory.
    out : (n, t), overwritten
        x*; NaN where not observed.

    References
    ----------
    Aielli (2013), J. Business & Economic Statistics 31(3), eq. (9).
    """
    for i in range(news.shape[0]):
        q = 1.0
        for t in range(news.shape[1]):
            x = news[i, t]
            out[i, t] = x * np.sqrt(q)
            if x == x:
                q = 1.0 - a - b + (a * x * x + b) * q


@kernel("void(f8[:,::1], i8[:,::1], f8, f8, b1, f8[:,::1])")
def pair_moments(
    news: np.ndarray,
    pairs: np.ndarray,
    a: float,
    b: float,
    aielli: bool,  # noqa: FBT001  # compiled code has no keywords
    out: np.ndarray,
) -> None:
    """Average the products of each pair over the bars where both are observed.

        m_ij = mean x_i x_j   (11, 12, 22), of x* if ``aielli``; and the same of min(x, 0)

    Parameters
    ----------
    news : (n, t)
        NaN where not observed.
    pairs : (p, 2)
        Numbers of the two symbols.
    a, b, aielli
        Of the recursion of x*, which each pair runs over its own bars.
    out : (p, 7), overwritten
        m11, m12, m22, the same of the negative parts, bars; means are 0 without bars.

    References
    ----------
    Aielli (2013), sec. 3.2; Cappiello, Engle, Sheppard (2006), eq. (5).
    """
    for k in range(pairs.shape[0]):
        x1, x2 = news[pairs[k, 0]], news[pairs[k, 1]]
        q1 = q2 = 1.0
        out[k] = 0.0
        for t in range(x1.size):
            u1, u2 = x1[t], x2[t]
            if u1 != u1 or u2 != u2:
                continue
            down1, down2 = min(u1, 0.0), min(u2, 0.0)
            out[k, 0] += u1 * u1 * q1
            out[k, 1] += u1 * u2 * np.sqrt(q1 * q2)
            out[k, 2] += u2 * u2 * q2
            out[k, 3] += down1 * down1
            out[k, 4] += down1 * down2
            out[k, 5] += down2 * down2
            out[k, 6] += 1.0
            if aielli:
                q1 = 1.0 - a - b + (a * u1 * u1 + b) * q1
                q2 = 1.0 - a - b + (a * u2 * u2 + b) * q2
        if out[k, 6] > 0.0:
            for m in range(6):
                out[k, m] /= out[k, 6]
