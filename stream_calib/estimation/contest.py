"""Which of two models forecasts better: their likelihood ratio, bar after bar, until one leads."""

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple, Self

import numpy as np

from stream_calib.estimation.cleaning import one_blas_thread, repair_correlation
from stream_calib.estimation.protocol import Layout
from stream_calib.estimation.shrinkage import LIFTED_MIN
from stream_calib.values import F64, I64, eigenvalue_floor

MARGIN = math.log(20.0)  # a model that is right is beaten once in twenty times at most
HUGE = 1e300  # below the corner of an augmented matrix nothing is ever left
Verdict = Literal["", "won", "lost"]
VERDICTS: tuple[Verdict, ...] = ("", "won", "lost")


class Fitness(NamedTuple):
    """What a row looks like under a covariance of what is observed in it.

    ``observed`` symbols, ``log_det`` = ln |R| and ``square`` = z' R^-1 z.
    """

    observed: int
    log_det: float
    square: float

    @property
    def angular(self) -> float:
        """Log density of the direction alone, up to a constant: -(ln |R| + n ln q) / 2.

        0 where nothing moved, or less than two symbols are observed: they have a direction of
        their own under any model.
        """
        if self.observed < 2 or self.square <= 0.0:
            return 0.0
        return -0.5 * (self.log_det + self.observed * math.log(self.square))


def fitness(z: F64, corr: F64, order: I64 | None = None) -> Fitness:
    """Measure one row against a forecast.

    Parameters
    ----------
    z : (n,)
        Returns over their predicted deviations; NaN where not observed: the marginal law of
        what is observed counts.
    corr : (n, n)
        The forecast. Where it is not positive definite it is repaired as before publication.
    order : (n,)
        A canonical order of the symbols, so that their order does not show in the last bit.

    Notes
    -----
    O(n^3), one Cholesky factor of R bordered by z: its last row is L^-1 z. One BLAS thread.
    """
    places = np.arange(len(z)) if order is None else order
    own = places[np.isfinite(z[places])]
    n = len(own)
    if n == 0:
        return Fitness(0, 0.0, 0.0)
    with one_blas_thread():
        factor = _factor(z, corr, own)
        if factor is None:
            floor = eigenvalue_floor(len(corr))
            factor = _factor(z, repair_correlation(corr, floor, order, LIFTED_MIN).corr, own)
    assert factor is not None  # a part of a positive definite matrix is positive definite
    log_det = 2.0 * float(np.log(factor.diagonal()[:n]).sum())
    white = factor[n, :n]
    return Fitness(n, log_det, float((white * white).sum()))


def _factor(z: F64, corr: F64, own: I64) -> F64 | None:
    # [[R, z], [z', c]]: the last row of the factor is L^-1 z, then sqrt(c - q), and c is huge
    n = len(own)
    bordered = np.empty((n + 1, n + 1))
    bordered[:n, :n] = corr[own[:, None], own]
    bordered[n, :n] = z[own]
    bordered[n, n] = HUGE
    try:
        return np.linalg.cholesky(bordered).astype(np.float64, copy=False)
    except np.linalg.LinAlgError:
        return None


class Contest:
    """A challenger against the model in force, on the bars that both forecast.

        l = sum_t [ .5 (ln |R| - ln |R'|) + n / 2 (ln z' R^-1 z - ln z' R'^-1 z) ],   R' challenges

    is the log likelihood ratio of the directions of the returns, which forgets how long they
    are: no fat tail nor common burst of volatility decides a contest. While R is right, and
    returns elliptical, exp(l) is a martingale of mean one whatever R' is made from, as long as
    it is from the past. So P(l ever >= ln 20) <= 1/20, and by exchange of the roles a right
    challenger is turned down once in twenty times at most. What challenges may change from
    bar to bar.

    Parameters
    ----------
    margin
        Nats by which one has to lead, > 0.
    order : (n,), optional
        A canonical order of the symbols, so that their order does not show in the last bit.

    Raises
    ------
    ValueError
        If the margin is not positive.

    References
    ----------
    Ville (1939), for the bound; Tyler (1987), Biometrika 74, for the angular law.

    Examples
    --------
    >>> import numpy as np
    >>> contest = Contest()
    >>> apart, close = np.eye(2), np.array([[1.0, 0.9], [0.9, 1.0]])
    >>> for _ in range(4):
    ...     contest.update(np.array([1.0, 1.0]), apart, close)
    >>> contest.rows, round(contest.log_ratio, 4), contest.verdict
    (3, 4.4167, 'won')
    """

    LAYOUT = Layout()

    def __init__(self, margin: float = MARGIN, order: I64 | None = None) -> None:
        if not margin > 0.0:
            message = f"margin must be positive, not {margin}"
            raise ValueError(message)
        self.margin = float(margin)
        self.order = order
        self.log_ratio = 0.0
        self.rows = 0
        self.verdict: Verdict = ""

    def update(self, z: F64, corr: F64, challenger: F64) -> None:
        """Take in one bar and what both forecast for it; after a verdict nothing counts.

        Parameters
        ----------
        z : (n,)
            Standardised returns, NaN where not observed.
        corr, challenger : (n, n)
            Forecasts for this bar by the model in force and by the challenger.
        """
        if self.verdict:
            return
        here = fitness(z, corr, self.order)
        if here.observed < 2:
            return
        there = fitness(z, challenger, self.order)
        self.log_ratio += there.angular - here.angular
        self.rows += 1
        if self.log_ratio >= self.margin:
            self.verdict = "won"
        elif self.log_ratio <= -self.margin:
            self.verdict = "lost"

    def yield_to(self, other: Self) -> None:
        """Go on against the model that has won ``other`` against the same one in force."""
        self.log_ratio -= other.log_ratio
        self.verdict = "lost" if self.log_ratio <= -self.margin else ""

    def state(self) -> dict[str, F64]:
        """Return copies of all arrays that make up the state, ``order`` apart."""
        verdict = float(VERDICTS.index(self.verdict))
        return {"contest": np.array([self.margin, self.log_ratio, self.rows, verdict])}

    @classmethod
    def from_state(cls, state: Mapping[str, F64], order: I64 | None = None) -> Self:
        """Continue from what ``state`` returned."""
        margin, log_ratio, rows, verdict = (float(number) for number in state["contest"])
        contest = cls(margin, order)
        contest.log_ratio, contest.rows = log_ratio, int(rows)
        contest.verdict = VERDICTS[int(verdict)]
        return contest
