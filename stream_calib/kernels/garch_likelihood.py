"""The GARCH(1,1) likelihood and its derivatives."""

import math

import numpy as np

from stream_calib.kernels._jit import kernel

N_PARAMS = 6  # mu, omega, alpha, beta, gamma, nu


@kernel("f8(f8)")
def digamma(x: float) -> float:
    """Return psi(x) = d ln Gamma / dx, x > 0 (Abramowitz and Stegun 6.3.5, 6.3.18)."""
    shift = 0.0
    while x < 10.0:
        shift -= 1.0 / x
        x += 1.0
    y = 1.0 / (x * x)
    tail = y * (1.0 / 12 - y * (1.0 / 120 - y * (1.0 / 252 - y * (1.0 / 240 - y / 132))))
    return shift + math.log(x) - 0.5 / x - tail


@kernel("f8(f8)")
def trigamma(x: float) -> float:
    """Return psi'(x), x > 0 (Abramowitz and Stegun 6.4.6, 6.4.12)."""
    shift = 0.0
    while x < 10.0:
        shift += 1.0 / (x * x)
        x += 1.0
    y = 1.0 / (x * x)
    tail = y * (1.0 / 6 - y * (1.0 / 30 - y * (1.0 / 42 - y * (1.0 / 30 - y * 5.0 / 66))))
    return shift + 1.0 / x + 0.5 * y + tail / x


@kernel("UniTuple(f8, 3)(f8)")
def _constants(nu: float) -> tuple[float, float, float]:
    # the part of a Student-t log density that nu alone decides, and its two derivatives
    value = math.lgamma(0.5 * (nu + 1.0)) - math.lgamma(0.5 * nu)
    value -= 0.5 * math.log(math.pi * (nu - 2.0))
    first = 0.5 * (digamma(0.5 * (nu + 1.0)) - digamma(0.5 * nu) - 1.0 / (nu - 2.0))
    second = 0.25 * (trigamma(0.5 * (nu + 1.0)) - trigamma(0.5 * nu))
    second += 0.5 / ((nu - 2.0) * (nu - 2.0))
    return value, first, second


@kernel("UniTuple(f8, 3)(f8[::1], f8, f8)")
def _presample(series: np.ndarray, mu: float, start: float) -> tuple[float, float, float]:
    # variance before the first bar and its two derivatives by mu
    if start > 0.0:
        return start, 0.0, 0.0
    count, first, second = 0.0, 0.0, 0.0
    for r in series:
        if r == r:
            count += 1.0
            first += r - mu
            second += (r - mu) * (r - mu)
    return second / count, -2.0 * first / count, 2.0


@kernel("f8(f8[:,::1], f8[::1], b1, f8[::1])")
def loglik(
    panel: np.ndarray,
    theta: np.ndarray,
    student: bool,  # noqa: FBT001  # compiled code has no keywords
    start: np.ndarray,
) -> float:
    """Return the sum of the log-likelihoods of m series that have the same parameters.

        l_t = c - ln(h_t) / 2 - f(e_t^2 / h_t);   e_t = r_t - mu;   h_t of ``filter_variances``
        normal:    f(u) = u / 2,                              c = -ln(2 pi) / 2
        Student-t: f(u) = (nu + 1) / 2 ln(1 + u / (nu - 2)),  c = ln Gamma((nu + 1) / 2)
                           - ln Gamma(nu / 2) - ln(pi (nu - 2)) / 2

    Parameters
    ----------
    panel : (m, t)
        NaN where not observed: no news, and no part of the sum.
    theta : (6,)
        mu, omega, alpha, beta, gamma, nu.
    student
        Student-t errors of variance 1.
    start : (m,)
        Variance before the first bar; 0 for the mean of e^2.

    References
    ----------
    Bollerslev (1986), eq. 19; Bollerslev (1987), eq. 1.
    """
    mu, omega, alpha, beta, gamma, nu = theta
    constant = _constants(nu)[0] if student else -0.5 * math.log(2.0 * math.pi)
    persistence = alpha + 0.5 * gamma + beta
    total = 0.0
    for i in range(panel.shape[0]):
        h = omega + persistence * _presample(panel[i], mu, start[i])[0]
        for r in panel[i]:
            if r != r:
                h = omega + persistence * h
                continue
            e = r - mu
            u = e * e / h
            loss = 0.5 * (nu + 1.0) * math.log1p(u / (nu - 2.0)) if student else 0.5 * u
            total += constant - 0.5 * math.log(h) - loss
            h = omega + (alpha + (gamma if e < 0.0 else 0.0)) * (e * e) + beta * h
    return total


@kernel("f8(f8, f8[::1], f8[::1], f8[::1])")
def _pass_over(h: float, theta: np.ndarray, slope: np.ndarray, curve: np.ndarray) -> float:
    # h' = omega + (alpha + gamma / 2 + beta) h, and its derivatives
    persistence = theta[2] + 0.5 * theta[4] + theta[3]
    share = np.array([0.0, 0.0, 1.0, 1.0, 0.5])
    k = 0
    for p in range(5):
        for q in range(p + 1):
            curve[k] = persistence * curve[k] + share[p] * slope[q] + share[q] * slope[p]
            k += 1
    for p in range(5):
        slope[p] = persistence * slope[p] + share[p] * h
    slope[1] += 1.0
    moved: float = theta[1] + persistence * h
    return moved


@kernel("f8(f8, f8, f8[::1], f8[::1], f8[::1])")
def _take_in(h: float, e: float, theta: np.ndarray, slope: np.ndarray, curve: np.ndarray) -> float:
    # h' = omega + (alpha + gamma I) e^2 + beta h, and its derivatives; the curve is a packed
    # lower triangle, in which beta and another make 6 to 9 and 13
    beta = theta[3]
    negative = 1.0 if e < 0.0 else 0.0
    gain = theta[2] + negative * theta[4]
    for k in range(15):
        curve[k] *= beta
    curve[6] += slope[0]
    curve[7] += slope[1]
    curve[8] += slope[2]
    curve[9] += 2.0 * slope[3]
    curve[13] += slope[4]
    curve[0] += 2.0 * gain
    curve[3] -= 2.0 * e
    curve[10] -= 2.0 * e * negative
    slope[0] = beta * slope[0] - 2.0 * e * gain
    slope[1] = beta * slope[1] + 1.0
    slope[2] = beta * slope[2] + e * e
    slope[3] = beta * slope[3] + h
    slope[4] = beta * slope[4] + negative * e * e
    moved: float = theta[1] + gain * (e * e) + beta * h
    return moved


@kernel("void(f8[:,::1], f8[::1], f8[:,::1], f8[:,::1])")
def _complete(
    scores: np.ndarray, gradient: np.ndarray, hessian: np.ndarray, opg: np.ndarray
) -> None:
    # sums of scores and of their outer products, and the upper triangle of the Hessian
    gradient[:] = 0.0
    opg[:] = 0.0
    for t in range(scores.shape[0]):
        for p in range(N_PARAMS):
            gradient[p] += scores[t, p]
            for q in range(N_PARAMS):
                opg[p, q] += scores[t, p] * scores[t, q]
    for p in range(N_PARAMS):
        for q in range(p):
            hessian[q, p] = hessian[p, q]


@kernel("f8(f8[:,::1], f8[::1], b1, f8[::1], f8[:,::1], f8[::1], f8[:,::1], f8[:,::1])")
def differentiate(
    panel: np.ndarray,
    theta: np.ndarray,
    student: bool,  # noqa: FBT001  # compiled code has no keywords
    start: np.ndarray,
    out_scores: np.ndarray,
    out_gradient: np.ndarray,
    out_hessian: np.ndarray,
    out_opg: np.ndarray,
) -> float:
    """Return ``loglik`` and write its first and second derivatives.

        dh'/d(omega, alpha, beta, gamma) = (1, e^2, h, e^2 1{e < 0}) + beta dh
        dh'/dmu = -2 (alpha + gamma 1{e < 0}) e + beta dh/dmu
        score_t = l_h dh - l_e [mu] + l_nu [nu],   with w = (nu + 1) / (nu - 2 + u), normal: w = 1
        l_h = (w u - 1) / (2 h);  l_e = -w e / h;  l_nu = c' - ln(1 + u / (nu - 2)) / 2
                                                          + w u / (2 (nu - 2))

    and once more for the second ones. A start that is the mean of e^2 depends on mu.

    Parameters
    ----------
    panel, theta, student, start
        Of ``loglik``.
    out_scores : (t, 6), overwritten
        Of each bar, summed over the series; those of nu are 0 for normal errors.
    out_gradient : (6,), overwritten
        Sum of the scores.
    out_hessian, out_opg : (6, 6), overwritten
        Second derivatives; sum over the bars of the outer products of their scores.

    References
    ----------
    Fiorentini, Calzolari and Panattoni (1996), sec. 2.
    """
    mu, nu = theta[0], theta[5]
    constant, constant1, constant2 = -0.5 * math.log(2.0 * math.pi), 0.0, 0.0
    if student:
        constant, constant1, constant2 = _constants(nu)
    out_scores[:] = 0.0
    out_hessian[:] = 0.0
    slope, curve, bends = np.empty(5), np.empty(15), np.zeros(15)
    total = 0.0
    for i in range(panel.shape[0]):
        slope[:] = 0.0
        curve[:] = 0.0
        h, slope[0], curve[0] = _presample(panel[i], mu, start[i])
        h = _pass_over(h, theta, slope, curve)
        for t in range(panel.shape[1]):
            r = panel[i, t]
            if r != r:
                h = _pass_over(h, theta, slope, curve)
                continue
            e = r - mu
            u = e * e / h
            weight, weight_u, loss = 1.0, 0.0, 0.5 * u
            if student:
                weight = (nu + 1.0) / (nu - 2.0 + u)
                weight_u = -weight / (nu - 2.0 + u)
                log1 = math.log1p(u / (nu - 2.0))
                loss = 0.5 * (nu + 1.0) * log1
                weight_nu = (1.0 - weight) / (nu - 2.0 + u)
                out_scores[t, 5] += constant1 - 0.5 * log1 + 0.5 * weight * u / (nu - 2.0)
                bend = 0.5 * u / ((nu - 2.0) * (nu - 2.0 + u))
                bend += 0.5 * u * (weight_nu * (nu - 2.0) - weight) / ((nu - 2.0) * (nu - 2.0))
                out_hessian[5, 5] += constant2 + bend
                for p in range(5):
                    out_hessian[5, p] += 0.5 * weight_nu * u / h * slope[p]
                out_hessian[5, 0] += weight_nu * e / h
            total += constant - 0.5 * math.log(h) - loss
            by_h = 0.5 * (weight * u - 1.0) / h
            by_hh = -0.5 * ((weight + weight_u * u) * u + weight * u - 1.0) / (h * h)
            by_he = (weight + weight_u * u) * e / (h * h)
            k = 0
            for p in range(5):
                out_scores[t, p] += by_h * slope[p]
                out_hessian[p, 0] -= by_he * slope[p]
                for q in range(p + 1):
                    bends[k] += by_hh * slope[p] * slope[q] + by_h * curve[k]
                    k += 1
            out_hessian[0, 0] -= by_he * slope[0] + (weight + 2.0 * u * weight_u) / h
            out_scores[t, 0] += weight * e / h
            h = _take_in(h, e, theta, slope, curve)
    k = 0
    for p in range(5):
        for q in range(p + 1):
            out_hessian[p, q] += bends[k]
            k += 1
    _complete(out_scores, out_gradient, out_hessian, out_opg)
    return total
