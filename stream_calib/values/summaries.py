"""What is said of a published matrix in a few numbers."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stream_calib.values.units import F64


@dataclass(frozen=True, slots=True)
class Quality:
    """How the published matrix came to be positive definite, and whether it is degraded.

    Of the variances of all symbols by two scales, ``raw_variances`` keep their noise, because
    too little would be left without it, and ``floored_variances`` are held at their floor; None
    with one scale.
    """

    min_eigenvalue: float
    repair: float
    capped_pairs: int
    cleaned: bool = False
    degraded: tuple[str, ...] = ()
    raw_variances: int | None = None
    floored_variances: int | None = None


@dataclass(frozen=True, slots=True)
class Regime:
    """One-number summaries of the matrix.

    ``top_eigenvalue_share`` is the absorption ratio of one factor; ``effective_bets`` how many
    uncorrelated positions its spectrum is worth, 1 to n; ``crisis_distance`` the root mean square
    distance of its pairs from v v', where all move as one: 0 there, about 1 where nothing is
    correlated. ``since_shift_ns`` is the time since the last shift that a model was fitted to,
    None before the first. All but the first two are None where a writer did not know them.
    """

    average_correlation: float
    top_eigenvalue_share: float
    effective_bets: float | None = None
    crisis_distance: float | None = None
    since_shift_ns: int | None = None


def summarise(corr: F64, values: F64, leading: F64) -> Regime:
    """Summarise a correlation matrix (n, n) by its eigenvalues (n,) and its leading vector (n,).

    As the service does for those that it publishes: effective bets after Meucci (2009), and
    the distance from v v' with v the signs of the leading vector.
    """
    n = len(corr)
    upper = corr[np.triu_indices(n, 1)]
    signs = np.where(leading * leading[np.argmax(np.abs(leading))] < 0.0, -1.0, 1.0)
    apart = upper - np.outer(signs, signs)[np.triu_indices(n, 1)]
    shares = np.maximum(values, 0.0) / n
    shares = shares[shares > 0.0]
    return Regime(
        math.fsum(upper) / len(upper),
        float(values[-1]) / n,
        math.exp(-math.fsum(shares * np.log(shares))),
        math.sqrt(math.fsum(apart * apart) / len(upper)),
    )


class Score(NamedTuple):
    """How well what an estimator had published predicted the DCC bars that came next.

    Means that forget half in 250 bars: ``gain`` in log score over no correlation, in nats a bar;
    ``qlike`` per symbol; ``surprise``, squares over what was predicted, right at one. At the end
    of a block of bars ``covered`` of ``pairs`` pairs had a realised correlation within their 95 %
    band; both are 0 otherwise.
    """

    estimator: str
    gain: float
    qlike: float
    surprise: float
    covered: int
    pairs: int
