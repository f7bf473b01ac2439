"""GARCH(1,1) variances, one bar at a time."""

import numpy as np

from stream_calib.kernels._jit import kernel

WARM_N_EFF = 20.0  # a weighted mean of fewer squares is no variance yet
CAPS_FREE = 2.0  # caps in short order that widen nothing: a bad tick makes two, there and back
CAPS_PER_RETURN = 0.05  # this share of capped returns is never an accident of heavy tails
CAPS_COUNTED = 1.0  # returns that follow more caps than this in short order do not tell of tails


@kernel("void(f8[:,::1], f8[:,::1], f8[::1], f8[:,::1])")
def filter_variances(
    residuals: np.ndarray, params: np.ndarray, start: np.ndarray, out_variance: np.ndarray
) -> None:
    """Filter n series.

        h_0 = e_0^2 = start;   h' = omega + (alpha + gamma 1{e < 0}) e^2 + beta h

    Where e is not observed (and before the first one, whose sign is unknown too) e^2 is h and
    the indicator 1/2: the forecast, without news.

    Parameters
    ----------
    residuals : (t, n)
        NaN where not observed.
    params : (4, n)
        omega, alpha, beta, gamma.
    start : (n,)
        Variance and squared shock before the first bar.
    out_variance : (t + 1, n), overwritten
        h of each bar, known before it; the last row is the forecast.

    References
    ----------
    Bollerslev (1986), eq. 2; Glosten, Jagannathan and Runkle (1993), eq. 3.
    """
    t, n = residuals.shape
    for i in range(n):
        omega, alpha, beta, gamma = params[0, i], params[1, i], params[2, i], params[3, i]
        out_variance[0, i] = omega + (alpha + 0.5 * gamma + beta) * start[i]
    for k in range(t):
        for i in range(n):
            omega, alpha, beta, gamma = params[0, i], params[1, i], params[2, i], params[3, i]
            h, e = out_variance[k, i], residuals[k, i]
            if e == e:
                alpha += gamma if e < 0.0 else 0.0
                out_variance[k + 1, i] = omega + alpha * (e * e) + beta * h
            else:
                out_variance[k + 1, i] = omega + (alpha + 0.5 * gamma + beta) * h


@kernel(
    "void(f8[::1], f8[::1], f8[:,::1], f8, f8, f8, f8[::1], f8[:,::1], f8[::1], f8[::1], f8[::1])"
)
def advance_variances(
    returns: np.ndarray,
    exposure: np.ndarray,
    params: np.ndarray,
    decay: float,
    cap: float,
    rescale: float,
    variance: np.ndarray,
    sums: np.ndarray,
    score: np.ndarray,
    out_z: np.ndarray,
    out_counts: np.ndarray,
) -> None:
    """Standardise one bar of n returns by what was known before it, then take it in.

        e_i = r_i - w_i mu_i;   u_i = e_i / sqrt(w_i h_i);   z_i = sqrt(S) sign(u_i) min(|u_i|, cap)
        x_i = S h_i min(|u_i|, cap 2^max(0, s_i - CAPS_FREE))^2
        h_i <- omega_i + (alpha_i + gamma_i 1{e_i < 0}) x_i + beta_i h_i
        A_i <- d A_i + x_i;  E_i <- d E_i + 1;  E2_i <- d^2 E2_i + 1
        s_i <- max(0, s_i - CAPS_PER_RETURN) + [|u_i| >= cap]

    Without a fit h_i is A_i / E_i. A shock beyond the cap is one at the cap, unless caps come
    in short order (more than two, and more than one return in twenty): each further one doubles
    how large a square may be, so that a real change of volatility is followed. What is not
    observed changes h to its forecast and nothing else. Without a cap x_i = e_i^2 / w_i.

    Parameters
    ----------
    returns, exposure : (n,)
        NaN where not observed; bars that each return spans.
    params : (5, n)
        mu, omega, alpha, beta, gamma; NaN throughout where there is no fit.
    decay
        d: weight on the past in the mean of squares of each further observation.
    cap
        Standard deviations; 0 caps nothing.
    rescale
        S, variance over that of capped returns.
    variance : (n,), changed in place
        h where there is a fit; NaN elsewhere.
    sums : (3, n), changed in place
        A, E and E2, kept for all.
    score : (n,), changed in place
        s: caps in short order.
    out_z : (n,), overwritten
        NaN where not observed or no variance is known: a mean of squares with
        E^2 / E2 < WARM_N_EFF, or a variance of zero.
    out_counts : (3,), overwritten
        Returns judged, those of at least two thirds of the cap, those of at least the cap;
        of symbols with s_i <= CAPS_COUNTED.
    """
    out_counts[:] = 0.0
    for i in range(returns.size):
        r, w = returns[i], exposure[i]
        fitted = variance[i] == variance[i]
        out_z[i] = np.nan
        if not (r == r and w > 0.0):
            if fitted:
                persistence = params[2, i] + 0.5 * params[4, i] + params[3, i]
                variance[i] = params[1, i] + persistence * variance[i]
            continue
        e = r - w * params[0, i] if fitted else r
        square = e * e / w
        h = variance[i]
        if not fitted:
            warm = sums[1, i] * sums[1, i] >= WARM_N_EFF * sums[2, i] and sums[1, i] > 0.0
            h = sums[0, i] / sums[1, i] if warm else 0.0
        if h > 0.0:
            u = e / np.sqrt(w * h)
            if cap > 0.0:
                if score[i] <= CAPS_COUNTED:
                    out_counts[0] += 1.0
                    out_counts[1] += 1.0 if abs(u) >= cap * (2.0 / 3.0) else 0.0
                    out_counts[2] += 1.0 if abs(u) >= cap else 0.0
                widened = cap * 2.0 ** max(0.0, score[i] - CAPS_FREE)
                score[i] = max(0.0, score[i] - CAPS_PER_RETURN) + (1.0 if abs(u) >= cap else 0.0)
                size = min(abs(u), widened)
                square = rescale * h * (size * size)
                u = np.sqrt(rescale) * max(-cap, min(cap, u))
            out_z[i] = u
        if fitted:
            alpha = params[2, i] + (params[4, i] if e < 0.0 else 0.0)
            variance[i] = params[1, i] + alpha * square + params[3, i] * variance[i]
        sums[0, i] = decay * sums[0, i] + square
        sums[1, i] = decay * sums[1, i] + 1.0
        sums[2, i] = decay * decay * sums[2, i] + 1.0
