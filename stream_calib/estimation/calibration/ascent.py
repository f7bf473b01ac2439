"""Climbing to a maximum under linear rules, by Newton steps with a working set."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stream_calib.kernels.working_set import find_step
from stream_calib.values import F64

STEPS_MAX = 200
HALVINGS_MAX = 40
POLISH_GAIN = 1e-7  # below this, rounding of the objective decides what looks like progress
POLISH_MAX = 8
CONVERGED_GAIN = 1e-15  # estimates then are within 1e-7 standard errors
FLAT_GAIN = 1e-9  # enough where the objective is not concave


class Objective(Protocol):
    """A log-likelihood of p parameters."""

    def value(self, point: F64) -> float:
        """Return it."""

    def derivatives(self, point: F64) -> tuple[float, F64, F64, F64]:
        """Return it with gradient (p,), Hessian (p, p) and summed outer products of scores."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules ``matrix`` x <= ``limits`` (k, p), (k,); the first ``n_fixed`` are equalities."""

    matrix: F64
    limits: F64
    n_fixed: int


@dataclass(frozen=True, slots=True)
class Summit:
    """Where a climb ended; ``held`` (k,) are the rules that hold with equality there."""

    point: F64
    value: float
    converged: bool
    held: npt.NDArray[np.bool_]


def climb(objective: Objective, point: F64, rules: Rules, floor: float = -np.inf) -> Summit:
    """Climb from a point that obeys the rules to a maximum under them.

        x <- x + s argmax_d (g'd - d'B d / 2)

    B is minus the Hessian; where that is not positive definite, or its step leads nowhere, the
    outer product of the scores. A rule that is reached is held, and let go when its multiplier
    says so. The last steps are whole Newton steps, so that what is returned is exact to rounding.

    Parameters
    ----------
    floor
        Give up where Newton's quadratic foresees no more than this: another climb did better.

    Returns
    -------
    Summit
        Not converged if 200 steps were not enough or no step went upwards.

    References
    ----------
    Berndt, Hall, Hall and Hausman (1974) for the outer product; Nocedal and Wright, Numerical
    Optimization (2006), sec. 16.5, for the working set.
    """
    held = np.zeros(len(rules.limits), dtype=np.bool_)
    held[: rules.n_fixed] = True
    polished = 0
    for _ in range(STEPS_MAX):
        value, gradient, hessian, products = objective.derivatives(point)
        if not (np.isfinite(value) and np.isfinite(gradient).all()):
            return Summit(point, value, converged=False, held=held)
        moved = None
        for newton in (True, False):
            # products are singular where parameters are indistinct
            curvature = -hessian if newton else products * (1.0 + 1e-6 * np.eye(len(point)))
            after, step = held.copy(), np.empty(len(point))
            if not find_step(gradient, curvature, rules.matrix, after, rules.n_fixed, step):
                continue
            gain = float((gradient * step).sum())
            if gain < (CONVERGED_GAIN if newton else FLAT_GAIN) or polished > POLISH_MAX:
                return Summit(point, value, converged=True, held=after)
            if newton and value + gain < floor:
                return Summit(point, value, converged=False, held=after)
            polished += gain < POLISH_GAIN
            moved = _search(objective, rules, (point, value, step, gain), after)
            if moved is not None:
                break
            if gain < FLAT_GAIN:
                return Summit(point, value, converged=True, held=after)
        if moved is None:
            return Summit(point, value, converged=False, held=held)
        point, held = moved, after
    return Summit(point, objective.value(point), converged=False, held=held)


def _search(
    objective: Objective,
    rules: Rules,
    from_here: tuple[F64, float, F64, float],
    held: npt.NDArray[np.bool_],
) -> F64 | None:
    """Go along a step as far as the rules and the objective allow; hold the rule that is met."""
    point, value, step, gain = from_here
    speed = (rules.matrix * step).sum(axis=1)
    room = np.maximum(rules.limits - (rules.matrix * point).sum(axis=1), 0.0)
    ahead = ~held & (speed > 0.0)
    reach = np.divide(room, speed, out=np.full(len(room), np.inf), where=ahead)
    length = min(1.0, float(reach.min(initial=np.inf)))
    meets = held.copy()
    if length < 1.0:
        meets[np.argmin(reach)] = True
    for halving in range(HALVINGS_MAX):
        there: F64 = point + length * step
        if gain < POLISH_GAIN or objective.value(there) >= value + 1e-4 * length * gain:
            if halving == 0:
                held[:] = meets
            return there
        length *= 0.5
    return None
