"""GARCH(1,1) as it is meant: one series, one bar, one formula at a time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from stream_calib.values import F64

WARM_N_EFF = 20.0
CAPS_FREE, CAPS_PER_RETURN, CAPS_COUNTED = 2.0, 0.05, 1.0


def variances(residuals: F64, params: Sequence[float], start: float) -> F64:
    """Variances (t + 1,) of one series; what is not observed is what was expected.

    ``params`` are omega, alpha, beta, gamma.
    """
    omega, alpha, beta, gamma = params
    h = [omega + (alpha + gamma / 2 + beta) * start]
    for e in residuals.tolist():
        square = h[-1] if math.isnan(e) else e * e
        share = 0.5 if math.isnan(e) else float(e < 0.0)
        h.append(omega + (alpha + gamma * share) * square + beta * h[-1])
    return np.array(h)


def logliks(returns: F64, theta: F64, start: float, *, student: bool) -> F64:
    """Log-likelihood (t,) of each return, 0 where not observed; a start of 0: the mean of e^2."""
    mu, omega, alpha, beta, gamma, nu = theta.tolist()
    e = returns - mu
    first = start or float(np.nanmean(e * e))
    h = variances(e, (omega, alpha, beta, gamma), first)[:-1]
    u = e * e / h
    if student:
        constant = math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2)
        constant -= math.log(math.pi * (nu - 2)) / 2
        loglik = constant - np.log(h) / 2 - (nu + 1) / 2 * np.log1p(u / (nu - 2))
    else:
        loglik = -(np.log(2 * math.pi) + np.log(h) + u) / 2
    return np.where(np.isnan(returns), 0.0, loglik)


@dataclass
class Asset:
    """One asset of the online recursion; ``params`` are mu, omega, alpha, beta, gamma."""

    decay: float
    cap: float
    params: F64 | None = None
    variance: float = math.nan
    squares: list[float] = field(default_factory=list)
    score: float = 0.0

    def forecast(self) -> float:
        """Variance of the next bar; NaN if there is none to rely on."""
        if self.params is not None:
            return self.variance
        weight = self.decay ** np.arange(len(self.squares))[::-1]
        if not weight.sum() ** 2 >= WARM_N_EFF * (weight**2).sum() or not self.squares:
            return math.nan
        return float(weight @ self.squares / weight.sum()) or math.nan

    def take(self, r: float, w: float, rescale: float) -> tuple[float, tuple[int, int, int]]:
        """One bar: z, and whether it was judged, two thirds of the cap away, capped."""
        _, omega, alpha, beta, gamma = self.params if self.params is not None else np.zeros(5)
        h = self.forecast()
        if math.isnan(r) or w <= 0.0:
            self.variance = omega + (alpha + gamma / 2 + beta) * self.variance
            return math.nan, (0, 0, 0)
        e = r - w * float(self.params[0]) if self.params is not None else r
        u, square, counts = e / math.sqrt(w * h), e * e / w, (0, 0, 0)
        z = u
        if self.cap > 0.0 and not math.isnan(h):
            capped = abs(u) >= self.cap
            if self.score <= CAPS_COUNTED:
                counts = (1, int(abs(u) >= self.cap * 2 / 3), int(capped))
            size = min(abs(u), self.cap * 2 ** max(0.0, self.score - CAPS_FREE))
            square = rescale * h * size**2
            z = math.sqrt(rescale) * float(np.clip(u, -self.cap, self.cap))
            self.score = max(0.0, self.score - CAPS_PER_RETURN) + capped
        self.variance = omega + (alpha + gamma * (e < 0.0)) * square + beta * self.variance
        self.squares.append(square)
        return z, counts
