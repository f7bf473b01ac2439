"""Robust innovations: returns capped by their own standard deviation before anything sees them."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from stream_calib.estimation.protocol import Layout
from stream_calib.kernels.winsor import cap_returns, read_rescale
from stream_calib.values import F64, I64, ReturnBlock

HALF_LIFE_MIN_OBS = 10.0  # of fewer no variance is known well enough to cap by it
LIMIT_MIN, LIMIT_MAX = 2.0, 10.0
POOL_HALF_LIVES = 20.0  # tails change slowly, and capped returns are rare
PRIOR_RETURNS = 300.0
LEAST_DEGREES = 3.0  # of the Student-t laws that tails are compared with
LAWS = 32
STEPS = 2000

Block = TypeVar("Block", bound=ReturnBlock)


class Winsor:
    """Caps each return at ``limit`` standard deviations known before it.

    For each symbol a variance per bar follows the capped squares, so one bad tick moves it by
    no more than a return at the cap does, and every later number is that of a run in which the
    return was the cap. Only single returns are changed: what is estimated from them stays
    positive semi-definite.

    Capped squares are too small on average. How much is read off two frequencies, of returns
    beyond the limit and beyond two thirds of it, counted over all symbols with a memory of
    twenty half-lives, as it is for the Student-t law with these tails; how far a return was
    beyond the cap is never looked at. ``vol_scale`` is the factor for a volatility estimated
    from capped returns, one for all symbols; correlations need none.

    Nothing is capped before about twenty returns of the symbol. A return of exactly zero says
    nothing about the size of the next move and is passed over: a price that stands still, or a
    peg, has no variance by which its first move would be capped. Caps in short order (more
    than two, and more than one return in twenty) double the limit each: a real change of
    volatility by any factor is followed as fast as without capping.

    Parameters
    ----------
    n
        Number of symbols.
    half_life_obs
        Age in bars at which a square counts half; shorter than that of the correlation.
    limit
        Standard deviations at which a return is capped.
    clock
        What ages a square: later returns of the symbol (``observations``), or ``time``.

    Attributes
    ----------
    capped : (n,)
        Returns of each symbol capped by the last call of ``transform``; not part of the state.

    Raises
    ------
    ValueError
        If ``n`` < 1, ``half_life_obs`` < 10, ``limit`` is not in [2, 10] or the clock is
        unknown.

    References
    ----------
    Equations at ``cap_returns`` in ``kernels/winsor``.

    Examples
    --------
    >>> import numpy as np
    >>> winsor = Winsor(1, half_life_obs=100)
    >>> returns = np.resize([1.0, -1.0], (200, 1))
    >>> returns[150] = 50.0
    >>> ones, bars = np.ones((200, 1)), np.arange(200)
    >>> capped = winsor.transform(ReturnBlock(bars, returns, ones, np.ones(200)))
    >>> round(float(capped.returns[150, 0]), 2), winsor.capped
    (3.01, array([1]))
    """

    LAYOUT = Layout(by_symbol={"sums": 0.0, "score": 0.0})

    def __init__(
        self, n: int, half_life_obs: float, limit: float = 3.0, clock: str = "observations"
    ) -> None:
        check_memory(n, half_life_obs)
        if not LIMIT_MIN <= limit <= LIMIT_MAX:
            message = f"limit must be from {LIMIT_MIN:g} to {LIMIT_MAX:g}, not {limit}"
            raise ValueError(message)
        if clock not in {"observations", "time"}:
            message = f"clock must be 'observations' or 'time', not {clock!r}"
            raise ValueError(message)
        self.n = n
        self.half_life_obs = float(half_life_obs)
        self.limit = float(limit)
        self.clock = clock
        self.capped: I64 = np.zeros(n, dtype=np.int64)
        self._prior, self._tails = tail_tables(self.limit)
        self._sums = np.zeros((3, n))
        self._score = np.zeros(n)
        self._pool = np.zeros(3)

    def transform(self, block: Block) -> Block:
        """Cap the returns of k bars; everything else of the block is as it was.

        Parameters
        ----------
        block : (k, n)
            Returns in any unit, NaN where not observed. What comes back is of the same class.

        Raises
        ------
        ValueError
            If the block is of another width.
        """
        if block.returns.ndim != 2 or block.returns.shape[1] != self.n:
            message = f"a block is (k, {self.n}), not {block.returns.shape}"
            raise ValueError(message)
        seen = np.exp2(-block.elapsed_bars / self.half_life_obs)
        unseen = seen if self.clock == "time" else np.ones_like(seen)
        returns = np.empty(block.returns.shape)
        self.capped = np.zeros(self.n, dtype=np.int64)
        cap_returns(
            block.returns,
            block.exposure,
            seen,
            unseen,
            np.exp2(-block.elapsed_bars / (POOL_HALF_LIVES * self.half_life_obs)),
            self.limit,
            self._prior,
            self._tails,
            self._sums,
            self._score,
            self._pool,
            returns,
            self.capped,
        )
        return replace(block, returns=returns)

    def vol_scale(self) -> float:
        """Return the volatility of returns over that of capped returns, at least 1."""
        return math.sqrt(read_rescale(self._pool, self._prior, self._tails))

    def state(self) -> dict[str, F64]:
        """Return copies of all arrays that make up the state."""
        settings = [self.n, self.half_life_obs, self.limit, self.clock == "time"]
        return {
            "settings": np.array(settings, np.float64),
            "sums": self._sums.copy(),
            "score": self._score.copy(),
            "pool": self._pool.copy(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Continue from what ``state`` returned."""
        n, half_life_obs, limit, timed = state["settings"]
        clock = "time" if timed else "observations"
        winsor = cls(int(n), float(half_life_obs), float(limit), clock)
        winsor._sums[:] = state["sums"]
        winsor._score[:] = state["score"]
        winsor._pool[:] = state["pool"]
        return winsor


@lru_cache(maxsize=8)
def check_memory(n: int, half_life_obs: float) -> None:
    """Refuse no symbol at all, and a memory too short for a variance.

    Raises
    ------
    ValueError
        If ``n`` < 1 or ``half_life_obs`` < 10.
    """
    if n < 1:
        message = f"n must be at least 1, not {n}"
        raise ValueError(message)
    if not half_life_obs >= HALF_LIFE_MIN_OBS:
        message = f"half_life_obs must be at least {HALF_LIFE_MIN_OBS:g}, not {half_life_obs}"
        raise ValueError(message)


def tail_tables(limit: float) -> tuple[F64, F64]:
    """Return ``prior`` (3,) and ``tails`` (2, 34) of ``read_rescale`` for a limit.

    The laws are Student-t of variance 1 and nu degrees of freedom, from the normal to nu = 3
    in equal steps of 1 / nu. With z = sqrt(nu - 2) tan(a) the density is cos(a)^(nu - 1), and
    Simpson's rule integrates it.
    """
    prior, tails = _tail_tables(limit)
    return prior.copy(), tails.copy()


@lru_cache(maxsize=8)  # it takes a tenth of a second, and every estimator restored asks for it
def _tail_tables(limit: float) -> tuple[F64, F64]:
    outer, inner = normal_tail(limit), normal_tail(limit * (2.0 / 3.0))
    excess = (1.0 - limit**2) * outer + limit * math.sqrt(2.0 / math.pi) * math.exp(-0.5 * limit**2)
    prior = PRIOR_RETURNS * np.array([1.0, inner, outer])
    rows = [(outer / inner, excess / outer)]
    for step in range(1, LAWS + 1):
        degrees = LEAST_DEGREES * LAWS / step
        outer, excess = student_tail(limit, degrees)
        inner, _ = student_tail(limit * (2.0 / 3.0), degrees)
        rows.append((outer / inner, excess / outer))
    # the last pair: the largest share of a variance that may lie beyond the cap
    return prior, np.array([*rows, (excess, 0.0)]).T.copy()


def normal_tail(limit: float) -> float:
    """Return P(|z| > limit) of a standard normal z."""
    return math.erfc(limit / math.sqrt(2.0))


def student_tail(limit: float, degrees: float) -> tuple[float, float]:
    """Return P(|z| > limit) and E[max(z^2 - limit^2, 0)] of a Student-t z of variance 1."""
    start = math.atan(limit / math.sqrt(degrees - 2.0))

    def integrate(begin: float, squares: float) -> tuple[float, float]:
        width = (0.5 * math.pi - begin) / STEPS
        mass, excess = [], []
        for q in range(STEPS):  # at pi / 2 itself both are zero, or their limit is
            weight = (1.0 if q == 0 else 4.0 if q % 2 else 2.0) * width / 3.0
            c = math.cos(begin + q * width)
            density = weight * c ** (degrees - 1.0)
            mass.append(density)
            excess.append(density * ((degrees - 2.0) * (1.0 / (c * c) - 1.0) - squares))
        if degrees == LEAST_DEGREES:  # z^2 cos^2 has a limit there that is not zero
            excess.append(width / 3.0)
        return math.fsum(mass), math.fsum(excess)

    whole, _ = integrate(0.0, 0.0)
    outer, excess = integrate(start, limit * limit)
    return outer / whole, excess / whole
