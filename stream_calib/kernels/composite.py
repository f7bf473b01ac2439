"""Composite likelihood of DCC: bivariate log densities summed over pairs, with their score."""

import numpy as np

from stream_calib.kernels._jit import kernel

OMEGA_MIN = 1e-12  # 1 - r^2 of two identical series is 0, and its logarithm would win every fit
PRODUCT_MIN = 1e-200  # logarithms are taken of products of many factors, before they underflow
LOG_2PI = float(np.log(2.0 * np.pi))


@kernel("UniTuple(f8, 3)(f8, f8, f8)")
def _density(y1: float, y2: float, r: float) -> tuple[float, float, float]:
    # 1 - r^2, the squared distance u, and dl/dr
    omega = max(1.0 - r * r, OMEGA_MIN)
    inverse = 1.0 / omega
    u = (y1 * y1 + y2 * y2 - 2.0 * r * (y1 * y2)) * inverse
    return omega, u, (r + y1 * y2 - r * u) * inverse


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
        omega, u, slope = _density(y1, y2, r)
        product *= omega
        squares += u
        if product < PRODUCT_MIN:
            logs += np.log(product)
            product = 1.0
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
    out[1], out[2], out[3] = score_a, score_b, score_g


@kernel("void(f8[::1], f8[::1], f8, f8, f8[:,::1], f8[::1])")
def _diagonal(
    x: np.ndarray, mate: np.ndarray, a: float, b: float, path: np.ndarray, sums: np.ndarray
) -> None:
    # path: x*, 1 / sqrt(q), and q's relative derivatives by a and b, halved, over the bars where
    # both are observed; sums: of x*^2 and of its derivatives
    q = 1.0
    by_a = by_b = 0.0
    sums[:] = 0.0
    for t in range(x.size):
        u = x[t]
        if u != u or mate[t] != mate[t]:
            continue
        root = np.sqrt(q)
        inverse = 1.0 / root
        half = 0.5 * inverse * inverse
        path[0, t] = u * root
        path[1, t] = inverse
        path[2, t] = by_a * half
        path[3, t] = by_b * half
        p = u * u
        sums[0] += p * q
        sums[1] += p * by_a
        sums[2] += p * by_b
        k = a * p + b
        by_a = p * q - 1.0 + k * by_a
        by_b = q - 1.0 + k * by_b
        q = 1.0 - a - b + k * q


@kernel("void(f8[::1], f8[::1], f8[:,::1], f8[:,::1], f8[::1], f8[::1], f8[::1])")
def _target_aielli(
    z1: np.ndarray,
    z2: np.ndarray,
    path1: np.ndarray,
    path2: np.ndarray,
    sums1: np.ndarray,
    sums2: np.ndarray,
    target: np.ndarray,
) -> None:
    # target: correlation of x*, and its derivatives by a and b
    s = by_a = by_b = 0.0
    for t in range(z1.size):
        if z1[t] != z1[t] or z2[t] != z2[t]:
            continue
        p = path1[0, t] * path2[0, t]
        s += p
        by_a += p * (path1[2, t] + path2[2, t])
        by_b += p * (path1[3, t] + path2[3, t])
    scale = np.sqrt(sums1[0] * sums2[0])
    target[:] = 0.0
    if scale > 0.0:
        c = s / scale
        target[0] = c
        target[1] = by_a / scale - 0.5 * c * (sums1[1] / sums1[0] + sums2[1] / sums2[0])
        target[2] = by_b / scale - 0.5 * c * (sums1[2] / sums1[0] + sums2[2] / sums2[0])


@kernel("void(f8[::1], f8[::1], f8[:,::1], f8[:,::1], f8[::1], f8[::1], f8[::1], f8[:,::1])")
def _score_aielli(
    z1: np.ndarray,
    z2: np.ndarray,
    path1: np.ndarray,
    path2: np.ndarray,
    target: np.ndarray,
    theta: np.ndarray,
    out: np.ndarray,
    out_bars: np.ndarray,
) -> None:
    a, b = theta[0], theta[1]
    by_bar = out_bars.shape[0] > 0
    c = target[0]
    rest = 1.0 - a - b
    w, w_a, w_b = rest * c, rest * target[1] - c, rest * target[2] - c
    q = c
    by_a, by_b = target[1], target[2]
    product, logs, squares = 1.0, 0.0, 0.0
    score_a = score_b = 0.0
    seen = 0
    for t in range(z1.size):
        y1, y2 = z1[t], z2[t]
        if y1 != y1 or y2 != y2:
            continue
        seen += 1
        inverse = path1[1, t] * path2[1, t]
        r_a = path1[2, t] + path2[2, t]
        r_b = path1[3, t] + path2[3, t]
        r = q * inverse
        omega, u, slope = _density(y1, y2, r)
        product *= omega
        squares += u
        if product < PRODUCT_MIN:
            logs += np.log(product)
            product = 1.0
        s_a = slope * (by_a * inverse - r * r_a)
        s_b = slope * (by_b * inverse - r * r_b)
        score_a += s_a
        score_b += s_b
        if by_bar:
            out_bars[t, 0] += s_a
            out_bars[t, 1] += s_b
        p = path1[0, t] * path2[0, t]
        by_a = p + a * p * r_a + w_a + b * by_a
        by_b = q + a * p * r_b + w_b + b * by_b
        q = w + a * p + b * q
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


@kernel(
    "void(f8[:,::1], f8[:,::1], i8[:,::1], f8[:,::1], b1, f8, f8[::1], f8[:,:,::1],"
    " f8[:,::1], f8[:,::1])"
)
def score_aielli_pairs(
    z: np.ndarray,
    news: np.ndarray,
    pairs: np.ndarray,
    target: np.ndarray,
    given: bool,  # noqa: FBT001  # compiled code has no keywords
    shift: float,
    theta: np.ndarray,
    paths: np.ndarray,
    out: np.ndarray,
    out_bars: np.ndarray,
) -> None:
    """Compute each pair's log likelihood of cDCC and its score, the target's share included.

        x* = sqrt(q_ii) x;   Q' = (1 - a - b) S + a x* x*' + b Q,   Q_1 = S,  s_ii = 1
        s12 = sum x1* x2* / sqrt(sum x1*^2  sum x2*^2)

    The diagonals follow q' = (1 - a - b) + (a x^2 + b) q whatever s12 is: they are run once for
    each symbol (for each pair, if it has gaps), and s12 and its derivatives by a and b come from
    a first pass over each pair.

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
    paths : (n, 4, t), overwritten
        Room to work in: claiming it anew takes as long as the rest.
    out : (p, 4), overwritten
        Log likelihood, score in a and b, 0.

    References
    ----------
    Aielli (2013), J. Business & Economic Statistics 31(3), eqs. (9)-(11), sec. 3.2.
    """
    n, n_bars = news.shape
    a, b = theta[0], theta[1]
    sums = np.empty((n, 3))
    gaps = np.zeros(n, np.bool_)
    for i in range(n):
        gaps[i] = np.isnan(news[i]).any()
        if not gaps[i]:
            _diagonal(news[i], news[i], a, b, paths[i], sums[i])
    own = np.empty(3)
    scratch = np.empty((2, 4, n_bars))
    scratch_sums = np.empty((2, 3))
    for k in range(pairs.shape[0]):
        i, j = pairs[k, 0], pairs[k, 1]
        path1, path2 = paths[i], paths[j]
        sums1, sums2 = sums[i], sums[j]
        if gaps[i] or gaps[j]:
            path1, path2 = scratch[0], scratch[1]
            sums1, sums2 = scratch_sums[0], scratch_sums[1]
            _diagonal(news[i], news[j], a, b, path1, sums1)
            _diagonal(news[j], news[i], a, b, path2, sums2)
        if not given:
            _target_aielli(news[i], news[j], path1, path2, sums1, sums2, target[k])
        own[:] = target[k]
        own[0] += shift
        _score_aielli(z[i], z[j], path1, path2, own, theta, out[k], out_bars)
