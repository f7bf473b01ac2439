"""Composite likelihood of DCC: bivariate log densities summed over pairs, with their score."""

import numpy as np

from stream_calib.kernels._jit import kernel

OMEGA_MIN = 1e-12  # 1 - r^2 of two identical series is 0, and its logarithm would win every fit
PRODUCT_MIN = 1e-200  # logarithms are taken of products of many factors, before they underflow
LOG_2PI = float(np.log(2.0 * np.pi))


@kernel("void(f8[::1], f8[::1], f8[::1], f8[::1], f8[::1], f8[::1], f8[::1], f8[::1], f8[:,::1])")
def _score_engle(
    z1: np.ndarray,
    z2: np.ndarray,
    x1: np.ndarray,
    x2: np.ndarray,
    target: np.ndarray,
    asymmetry: np.ndarray,
    theta: np.ndarray,
    out: np.ndarray,
    out_bars: np.ndarray,
) -> None:
    a, b, g = theta[0], theta[1], theta[2]
    by_bar = out_bars.shape[0] > 0
    leverage = g != 0.0 or asymmetry[0] != 0.0
    c11, c12, c22 = target[0], target[1], target[2]
    m11, m12, m22 = asymmetry[0], asymmetry[1], asymmetry[2]
    rest = 1.0 - a - b
    w11, w12, w22 = rest * c11 - g * m11, rest * c12 - g * m12, rest * c22 - g * m22
    q11, q12, q22 = c11, c12, c22
    a11 = a12 = a22 = b11 = b12 = b22 = g11 = g12 = g22 = 0.0
    product, logs, squares = 1.0, 0.0, 0.0
    score_a = score_b = score_g = 0.0
    seen = 0
    for t in range(z1.size):
        y1, y2 = z1[t], z2[t]
        if y1 != y1 or y2 != y2:
            continue
        seen += 1
        inverse = 1.0 / np.sqrt(q11 * q22)
        r = q12 * inverse
        omega = max(1.0 - r * r, OMEGA_MIN)
        i_omega = 1.0 / omega
        u = (y1 * y1 + y2 * y2 - 2.0 * r * (y1 * y2)) * i_omega
        product *= omega
        squares += u
        if product < PRODUCT_MIN:
            logs += np.log(product)
            product = 1.0
        slope = (r + y1 * y2 - r * u) * i_omega
        i11 = q22 * inverse * inverse
        i22 = q11 * inverse * inverse
        half = 0.5 * r
        s_a = slope * (a12 * inverse - half * (a11 * i11 + a22 * i22))
        s_b = slope * (b12 * inverse - half * (b11 * i11 + b22 * i22))
        score_a += s_a
        score_b += s_b
        if by_bar:
            out_bars[t, 0] += s_a
            out_bars[t, 1] += s_b
        p11, p12, p22 = x1[t] * x1[t], x1[t] * x2[t], x2[t] * x2[t]
        n11 = n12 = n22 = 0.0
        if leverage:
            s_g = slope * (g12 * inverse - half * (g11 * i11 + g22 * i22))
            score_g += s_g
            if by_bar:
                out_bars[t, 2] += s_g
            down1, down2 = min(x1[t], 0.0), min(x2[t], 0.0)
            n11, n12, n22 = down1 * down1, down1 * down2, down2 * down2
            g11 = n11 - m11 + b * g11
            g12 = n12 - m12 + b * g12
            g22 = n22 - m22 + b * g22
        a11 = p11 - c11 + b * a11
        a12 = p12 - c12 + b * a12
        a22 = p22 - c22 + b * a22
        b11 = q11 - c11 + b * b11
        b12 = q12 - c12 + b * b12
        b22 = q22 - c22 + b * b22
        q11 = w11 + a * p11 + g * n11 + b * q11
        q12 = w12 + a * p12 + g * n12 + b * q12
        q22 = w22 + a * p22 + g * n22 + b * q22
    out[0] = -0.5 * (logs + np.log(product) + squares) - seen * LOG_2PI
    out[1] = score_a
    out[2] = score_b
    out[3] = score_g


@kernel("void(f8[::1], f8[::1], f8, f8, f8[::1])")
def _target_aielli(x1: np.ndarray, x2: np.ndarray, a: float, b: float, target: np.ndarray) -> None:
    # target: correlation of z*, and its derivatives by a and b
    q1 = q2 = 1.0
    a1 = a2 = b1 = b2 = 0.0
    s11 = s12 = s22 = a11 = a12 = a22 = b11 = b12 = b22 = 0.0
    for t in range(x1.size):
        u1, u2 = x1[t], x2[t]
        if u1 != u1 or u2 != u2:
            continue
        p1, p2 = u1 * u1, u2 * u2
        p12 = u1 * u2 * np.sqrt(q1 * q2)
        i1, i2 = 0.5 / q1, 0.5 / q2
        s11 += p1 * q1
        s22 += p2 * q2
        s12 += p12
        a11 += p1 * a1
        a22 += p2 * a2
        a12 += p12 * (a1 * i1 + a2 * i2)
        b11 += p1 * b1
        b22 += p2 * b2
        b12 += p12 * (b1 * i1 + b2 * i2)
        k1, k2 = a * p1 + b, a * p2 + b
        a1 = p1 * q1 - 1.0 + k1 * a1
        a2 = p2 * q2 - 1.0 + k2 * a2
        b1 = q1 - 1.0 + k1 * b1
        b2 = q2 - 1.0 + k2 * b2
        q1 = 1.0 - a - b + k1 * q1
        q2 = 1.0 - a - b + k2 * q2
    scale = np.sqrt(s11 * s22)
    if scale > 0.0:
        c = s12 / scale
        target[0] = c
        target[1] = a12 / scale - 0.5 * c * (a11 / s11 + a22 / s22)
        target[2] = b12 / scale - 0.5 * c * (b11 / s11 + b22 / s22)
    else:
        target[:] = 0.0


@kernel("void(f8[::1], f8[::1], f8[::1], f8[::1], f8[::1], f8[::1], f8[::1], f8[:,::1])")
def _score_aielli(
    z1: np.ndarray,
    z2: np.ndarray,
    x1: np.ndarray,
    x2: np.ndarray,
    target: np.ndarray,
    theta: np.ndarray,
    out: np.ndarray,
    out_bars: np.ndarray,
) -> None:
    a, b = theta[0], theta[1]
    by_bar = out_bars.shape[0] > 0
    c, by_a, by_b = target[0], target[1], target[2]
    rest = 1.0 - a - b
    w12, w_a, w_b = rest * c, rest * by_a - c, rest * by_b - c
    q1 = q2 = 1.0
    q12 = c
    a1 = a2 = b1 = b2 = 0.0
    a12, b12 = by_a, by_b
    product, logs, squares = 1.0, 0.0, 0.0
    score_a = score_b = 0.0
    seen = 0
    for t in range(z1.size):
        y1, y2 = z1[t], z2[t]
        if y1 != y1 or y2 != y2:
            continue
        seen += 1
        scale = np.sqrt(q1 * q2)
        inverse = 1.0 / scale
        r = q12 * inverse
        omega = max(1.0 - r * r, OMEGA_MIN)
        i_omega = 1.0 / omega
        u = (y1 * y1 + y2 * y2 - 2.0 * r * (y1 * y2)) * i_omega
        product *= omega
        squares += u
        if product < PRODUCT_MIN:
            logs += np.log(product)
            product = 1.0
        slope = (r + y1 * y2 - r * u) * i_omega
        i1 = q2 * inverse * inverse
        i2 = q1 * inverse * inverse
        # relative derivatives of sqrt(q1 q2)
        r_a = 0.5 * (a1 * i1 + a2 * i2)
        r_b = 0.5 * (b1 * i1 + b2 * i2)
        s_a = slope * (a12 * inverse - r * r_a)
        s_b = slope * (b12 * inverse - r * r_b)
        score_a += s_a
        score_b += s_b
        if by_bar:
            out_bars[t, 0] += s_a
            out_bars[t, 1] += s_b
        p1, p2 = x1[t] * x1[t], x2[t] * x2[t]
        p12 = x1[t] * x2[t] * scale
        k1, k2 = a * p1 + b, a * p2 + b
        a12 = p12 + a * p12 * r_a + w_a + b * a12
        b12 = q12 + a * p12 * r_b + w_b + b * b12
        q12 = w12 + a * p12 + b * q12
        a1 = p1 * q1 - 1.0 + k1 * a1
        a2 = p2 * q2 - 1.0 + k2 * a2
        b1 = q1 - 1.0 + k1 * b1
        b2 = q2 - 1.0 + k2 * b2
        q1 = rest + k1 * q1
        q2 = rest + k2 * q2
    out[0] = -0.5 * (logs + np.log(product) + squares) - seen * LOG_2PI
    out[1] = score_a
    out[2] = score_b
    out[3] = 0.0


@kernel(
    "void(f8[:,::1], f8[:,::1], i8[:,::1], f8[:,::1], f8[:,::1], f8[::1], f8[:,::1], f8[:,::1])"
)
def score_engle_pairs(
    z: np.ndarray,
    news: np.ndarray,
    pairs: np.ndarray,
    target: np.ndarray,
    asymmetry: np.ndarray,
    theta: np.ndarray,
    out: np.ndarray,
    out_bars: np.ndarray,
) -> None:
    """Compute each pair's log likelihood of DCC or ADCC and its score.

        Q' = (1 - a - b) C - g M + a x x' + g n n' + b Q,  n = min(x, 0),  Q_1 = C
        l = -ln 2 pi - (ln w + u) / 2,   w = 1 - r^2,   u = (z1^2 + z2^2 - 2 r z1 z2) / w
        dl/dr = (r + z1 z2 - r u) / w,   r = q12 / sqrt(q11 q22)
        dr = dq12 / sqrt(q11 q22) - r (dq11 / q11 + dq22 / q22) / 2

    Parameters
    ----------
    z : (n, t)
        Standardised returns, one symbol after the other; NaN where not observed.
    news : (n, t)
        x: what enters the recursion; ``z`` itself but for robust fits. NaN where ``z`` is.
    pairs : (p, 2)
        Numbers of the two symbols.
    target, asymmetry : (p, 3)
        Entries 11, 12, 22 of C and of M, by pair; M zero without leverage.
    theta : (3,)
        a, b, g.
    out : (p, 4), overwritten
        Log likelihood and score in a, b and g (0 when M and g are), by pair.
    out_bars : (t, 3), added to
        Score by bar, summed over the pairs; (0, 3) if not asked for.

    Notes
    -----
    A pair takes part in the bars where both are observed and stands still in the others. O(p t).
    Swapping the symbols of a pair, or the pairs, changes no bit of a pair's row.

    References
    ----------
    Pakel, Shephard, Sheppard, Engle (2021), J. Business & Economic Statistics 39(3), eq. (8);
    Engle (2002), eq. (18); Cappiello, Engle, Sheppard (2006), eq. (5).
    """
    for k in range(pairs.shape[0]):
        i, j = pairs[k, 0], pairs[k, 1]
        _score_engle(z[i], z[j], news[i], news[j], target[k], asymmetry[k], theta, out[k], out_bars)


@kernel("void(f8[:,::1], f8[:,::1], i8[:,::1], f8[:,::1], b1, f8, f8[::1], f8[:,::1], f8[:,::1])")
def score_aielli_pairs(
    z: np.ndarray,
    news: np.ndarray,
    pairs: np.ndarray,
    target: np.ndarray,
    given: bool,  # noqa: FBT001  # compiled code has no keywords
    shift: float,
    theta: np.ndarray,
    out: np.ndarray,
    out_bars: np.ndarray,
) -> None:
    """Compute each pair's log likelihood of cDCC and its score, the target's share included.

        x* = sqrt(q_ii) x;   Q' = (1 - a - b) S + a x* x*' + b Q,   Q_1 = S,  s_ii = 1
        s12 = sum x1* x2* / sqrt(sum x1*^2  sum x2*^2)

    The diagonals follow q' = (1 - a - b) + (a x^2 + b) q whatever s12 is, so s12 and its
    derivatives by a and b come from a first pass over them.

    Parameters
    ----------
    z, news, pairs, theta, out_bars
        As for ``score_engle_pairs``; g is not used.
    target : (p, 3), overwritten unless given
        s12 of each pair and its derivatives by a and b (0 for a given target).
    given
        Take s12 from ``target``.
    shift
        Added to every s12: for derivatives by it.
    out : (p, 4), overwritten
        Log likelihood, score in a and b, 0.

    References
    ----------
    Aielli (2013), J. Business & Economic Statistics 31(3), eqs. (9)-(11), sec. 3.2.
    """
    own = np.empty(3)
    for k in range(pairs.shape[0]):
        i, j = pairs[k, 0], pairs[k, 1]
        if not given:
            _target_aielli(news[i], news[j], theta[0], theta[1], target[k])
        own[:] = target[k]
        own[0] += shift
        _score_aielli(z[i], z[j], news[i], news[j], own, theta, out[k], out_bars)


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
