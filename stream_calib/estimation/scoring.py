"""How well a published matrix predicted what came after it."""

import math
from typing import NamedTuple

import numpy as np

from stream_calib.estimation.contest import fitness
from stream_calib.values import F64, I64

NORMAL_95 = 1.959963984540054
ROWS_MIN = 8.0  # of a pair: Fisher's z of fewer is far from normal
TIE = 1e-12  # of a correlation at one


class Judged(NamedTuple):
    """Scores of one forecast by the returns that came.

    ``gain`` is the log score of the correlations over that of none, in nats; ``qlike`` is
    (ln|H| + r'H^-1 r) / n of the covariance; ``surprise`` is z'R^-1 z / n, one on average where
    volatilities and correlations are right.
    """

    gain: float
    qlike: float
    surprise: float


def judge(corr: F64, vol: F64, returns: F64, order: I64) -> Judged | None:
    """Score a forecast by the returns that came.

        gain = (z'z - z'R^-1 z - ln|R|) / 2,   qlike = (ln|H| + r'H^-1 r) / n,   z = r / vol

    Parameters
    ----------
    corr : (n, n)
        Positive definite.
    vol : (n,)
        Standard deviations over the time that ``returns`` are of, above zero.
    returns : (n,)
        NaN where nothing was observed: such symbols are left out.
    order : (n,)
        Canonical order of the symbols: theirs does not show in the last bits.

    Returns
    -------
    Judged or None
        None with less than two symbols observed.

    References
    ----------
    Patton (2011), Journal of Econometrics 160, 246-256: QLIKE is consistent under noisy proxies.
    """
    z = returns / vol
    n, log_det, squares = fitness(z, corr, order)
    if n < 2:
        return None
    seen = np.isfinite(z)
    plain = math.fsum(z[seen] * z[seen])
    scale = 2.0 * math.fsum(np.log(vol[seen]))
    gain = 0.5 * (plain - squares - log_det)
    return Judged(gain, (log_det + scale + squares) / n, squares / n)


def count_covered(corr: F64, band: F64, products: F64, squares: F64, rows: F64) -> tuple[int, int]:
    """Count the pairs whose correlation over later rows is within what was said of them.

        |atanh r_b - atanh r| <= 1.96 sqrt((band / (1 - r^2))^2 + 1 / (T - 3))

    Parameters
    ----------
    corr, band : (n, n)
        r and its standard error, as published.
    products, squares, rows : (n, n)
        Sums of z_i z_j over later rows in which both were observed, of z_i^2 over the same ones,
        and T, how many these were.

    Returns
    -------
    int, int
        Pairs within, and pairs in all: those of ``ROWS_MIN`` rows or more.
    """
    i, j = np.triu_indices(len(corr), 1)
    scale = squares[i, j] * squares[j, i]
    usable = (rows[i, j] >= ROWS_MIN) & (scale > 0.0)
    i, j = i[usable], j[usable]
    limit = 1.0 - TIE
    realised = np.clip(products[i, j] / np.sqrt(scale[usable]), -limit, limit)
    said = np.clip(corr[i, j], -limit, limit)
    error = np.sqrt((band[i, j] / (1.0 - said * said)) ** 2 + 1.0 / (rows[i, j] - 3.0))
    inside = np.abs(np.arctanh(realised) - np.arctanh(said)) <= NORMAL_95 * error
    return int(inside.sum()), len(inside)
