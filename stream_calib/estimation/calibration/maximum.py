"""Maximum of a DCC likelihood over its parameters' admissible region."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import LinearConstraint, minimize

from stream_calib.estimation.calibrated import PERSISTENCE_MAX
from stream_calib.values import F64

STARTS = ((0.02, 0.97), (0.05, 0.93), (0.02, 0.90), (0.05, 0.80))
QUIET_STARTS = ((0.01, 0.95), (0.01, 0.85), (0.005, 0.98), (0.005, 0.90), (0.001, 0.98))
CLIMBS_MAX = 3  # more that are made where the first came to no interior maximum
LEVERAGE_START = 0.01
AT_EDGE = 1e-7
CURVATURE_STEP = 1e-5
NEWTON_STEPS = 8
STEPS_MAX = 200
NO_VALUE = 1e10
SLOW = 0.2  # a curvature is kept while each step is this much shorter than the one before
CONVERGED = 1e-6  # a Newton step this small leaves an error of its square


@dataclass(frozen=True)
class Maximum:
    """Where a likelihood is largest: theta (3,) = a, b, g, and what kept it from converging."""

    theta: F64
    value: float
    evaluations: int
    reason: str


def maximise(
    objective: Callable[[F64], F64],
    scale: float,
    delta: float | None = None,
    pilot: Callable[[F64], F64] | None = None,
) -> Maximum:
    """Maximise a likelihood over a >= 0, b >= 0 (g >= 0), a + b (+ delta g) <= .9999.

    Parameters
    ----------
    objective
        theta (3,) -> value and score (4,).
    scale
        Number of densities in the sum, by which it is divided.
    delta
        Weight of g in the constraint; None leaves g at 0.
    pilot
        A cheaper likelihood of the same model, whose maximum is a better start: a few Newton
        steps then do.

    Returns
    -------
    Maximum
        ``reason`` is empty for an interior maximum.

    Notes
    -----
    SLSQP with the analytic score from the best of a few fixed starts, then Newton steps with the
    score's central differences: SLSQP alone stops when the value stands still, which leaves five
    digits of the parameters. The same input takes the same steps.

    At a = 0 the likelihood is the same for every b, and near a + b = 1 it may fall as a grows, so
    that a search which jumps there stays, however much likelihood there is elsewhere. Full
    likelihoods with holes in z invite such a jump: much of the region has no value, and slopes
    are wild next to that part. So an end other than an interior maximum is believed only if no
    start has a larger value; otherwise those that have are climbed from, the best first.
    """
    n = 2 if delta is None else 3
    normal = np.array([1.0, 1.0, delta or 0.0])[:n]
    target = _Negative(objective, n, scale)
    starts = _starts(STARTS, n)
    reason = "not begun"
    if pilot is not None:
        cheap = _Negative(pilot, n, scale)
        x = _search(cheap, starts, normal)
        starts = [x]
        if not _edge(x, normal, cheap(x)[0]):
            x, reason = _polish(target, x, normal)
    if reason:
        x, reason = _climb(target, starts, normal)
    if reason:
        x, reason = _climb_again(target, x, reason, normal)
    if x[0] < AT_EDGE and n == 2:
        x = np.zeros(n)
    theta = np.zeros(3)
    theta[:n] = x
    return Maximum(theta, float(objective(theta)[0]), target.evaluations, reason)


class _Negative:
    # what the search minimises, per thousand densities: value and slope

    def __init__(self, objective: Callable[[F64], F64], n: int, scale: float) -> None:
        self.objective, self.n, self.scale = objective, n, scale
        self.evaluations = 0

    def __call__(self, x: F64) -> tuple[float, F64]:
        self.evaluations += 1
        theta = np.zeros(3)
        theta[: self.n] = np.maximum(x, 0.0)
        out = self.objective(theta)
        if not np.isfinite(out).all():
            return NO_VALUE, np.zeros(self.n)
        return -1e3 * out[0] / self.scale, -1e3 * out[1 : self.n + 1] / self.scale


def _starts(points: tuple[tuple[float, float], ...], n: int) -> list[F64]:
    return [np.array([a, b, min(a, LEVERAGE_START)])[:n] for a, b in points]


def _climb(negative: _Negative, starts: list[F64], normal: F64) -> tuple[F64, str]:
    x = _search(negative, starts, normal)
    reason = _edge(x, normal, negative(x)[0])
    return (x, reason) if reason else _polish(negative, x, normal)


def _climb_again(negative: _Negative, x: F64, reason: str, normal: F64) -> tuple[F64, str]:
    """Climb from starts that are better than x; return where the value is best."""
    least = negative(x)[0]
    starts = [(negative(y)[0], y) for y in _starts(STARTS + QUIET_STARTS, len(x))]
    better = [pair for pair in starts if pair[0] < least]
    for _, start in sorted(better, key=lambda pair: pair[0])[:CLIMBS_MAX]:
        found, why = _climb(negative, [start], normal)
        value = negative(found)[0]
        if value < least:
            x, reason, least = found, why, value
            if not reason:
                break
    return x, reason


def _search(negative: _Negative, starts: list[F64], normal: F64) -> F64:
    start = starts[0]
    if len(starts) > 1:
        start = starts[int(np.argmin([negative(x)[0] for x in starts]))]

    def value_and_slope(x: F64) -> tuple[float, F64]:
        return negative(x)

    found = minimize(
        value_and_slope,
        start,
        jac=True,
        method="SLSQP",
        bounds=[(0.0, PERSISTENCE_MAX)] * len(start),
        constraints=LinearConstraint(normal, -np.inf, PERSISTENCE_MAX),
        options={"ftol": 1e-10, "maxiter": STEPS_MAX},
    )
    x: F64 = np.clip(found.x, 0.0, PERSISTENCE_MAX) if np.isfinite(found.x).all() else start
    return x * min(1.0, PERSISTENCE_MAX / max(float(normal @ x), 1e-300))


def curvature(score: Callable[[F64], F64], x: F64) -> F64:
    """Differentiate a score (n,) by its n parameters, central differences, symmetrised."""
    columns = []
    for k in range(len(x)):
        ends = []
        for sign in (-1.0, 1.0):
            moved = x.copy()
            moved[k] += sign * CURVATURE_STEP
            ends.append(score(moved))
        columns.append((ends[1] - ends[0]) / (2.0 * CURVATURE_STEP))
    slopes = np.stack(columns)
    matrix: F64 = 0.5 * (slopes + slopes.T)
    return matrix


def _edge(x: F64, normal: F64, value: float) -> str:
    if value >= NO_VALUE:
        return "the likelihood has no value: the target is not positive definite"
    if x[0] < AT_EDGE:
        return "a is 0: the correlations do not move, and b is not identified"
    if x[1] < AT_EDGE:
        return "b is 0: correlations have no memory beyond one bar"
    if len(x) > 2 and x[2] < AT_EDGE:
        return "g is 0: no asymmetry"
    if normal @ x > PERSISTENCE_MAX - AT_EDGE:
        return f"persistence is at its limit of {PERSISTENCE_MAX}: correlations do not come back"
    return ""


def _polish(negative: _Negative, x: F64, normal: F64) -> tuple[F64, str]:
    best, slope = negative(x)
    hessian: F64 | None = None
    last = math.inf
    for _ in range(NEWTON_STEPS):
        room = min(float(x.min()), PERSISTENCE_MAX - float(normal @ x))
        if hessian is None and room < 3 * CURVATURE_STEP:
            return x, ""  # too near an edge to differentiate; SLSQP's answer stands
        if hessian is None:
            hessian = curvature(lambda y: negative(y)[1], x)
            if not np.isfinite(hessian).all() or np.linalg.eigvalsh(hessian)[0] <= 0.0:
                return x, "the likelihood is flat around its largest value"
        step = np.linalg.solve(hessian, slope)
        moved = x - step
        if moved.min() < 0.0 or normal @ moved > PERSISTENCE_MAX:
            return x, "a step towards the maximum leads out of the region"
        value, new_slope = negative(moved)
        if value > best + 1e-9 * abs(best):
            return x, "the search stopped short of a maximum"
        x, best, slope = moved, value, new_slope
        size = float(np.abs(step).max())
        if size < CONVERGED:
            return x, ""
        if size > SLOW * last:
            hessian = None
        last = size
    return x, "the search did not settle"
