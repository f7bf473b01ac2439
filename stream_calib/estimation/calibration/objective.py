"""What a fit of DCC maximises: a sum of log densities with its score in a, b and g."""

import math
from typing import Literal

import numpy as np

from stream_calib.estimation.cleaning import one_blas_thread
from stream_calib.kernels.composite import score_aielli_pairs, score_engle_pairs
from stream_calib.kernels.dcc_targets import pair_moments, star_returns
from stream_calib.kernels.likelihood import score_full
from stream_calib.values import F64, I64

DccModel = Literal["dcc", "cdcc", "adcc"]


class Composite:
    """Composite likelihood of a panel over a list of pairs.

    Parameters
    ----------
    z, news : (t, n)
        Standardised returns and what enters the recursion; NaN where not observed.
    pairs : (p, 2)
        Numbers of the two symbols.
    model
        ``dcc``, ``cdcc`` or ``adcc``.
    target : (n, n), optional
        Given target; otherwise each pair's own moments over its common bars.
    """

    def __init__(
        self, z: F64, news: F64, pairs: I64, model: DccModel, target: F64 | None = None
    ) -> None:
        self.model, self.pairs, self.given = model, pairs, target is not None
        self.z = np.ascontiguousarray(z.T)
        self.news = self.z if news is z else np.ascontiguousarray(news.T)
        moments = np.empty((len(pairs), 7))
        pair_moments(self.news, pairs, 0.0, 0.0, False, moments)  # noqa: FBT003
        self.n_bars = float(moments[:, 6].sum())
        self.target = np.zeros((len(pairs), 3))
        if target is not None:
            i, j = pairs.T
            self.target = np.stack([target[i, i], target[i, j], target[j, j]], axis=1)
            if model == "cdcc":
                self.target = np.stack([target[i, j], *np.zeros((2, len(pairs)))], axis=1)
        elif model != "cdcc":
            self.target[:, 0] = self.target[:, 2] = 1.0
            self.target[:, 1] = _normalised(moments[:, :3])
        self.asymmetry = np.zeros((len(pairs), 3))
        if model == "adcc":
            self.asymmetry = np.ascontiguousarray(moments[:, 3:6])
        self._out = np.empty((len(pairs), 4))
        self._paths = np.empty((len(self.z) if model == "cdcc" else 0, 4, len(z)))

    def by_pair(self, theta: F64, shift: float = 0.0, out_bars: F64 | None = None) -> F64:
        """Return each pair's log likelihood and score, (p, 4).

        ``shift`` is added to every target correlation; the score of each bar is added to
        ``out_bars`` (t, 3).
        """
        bars = np.empty((0, 3)) if out_bars is None else out_bars
        if self.model == "cdcc":
            score_aielli_pairs(
                self.z,
                self.news,
                self.pairs,
                self.target,
                self.given,
                shift,
                theta,
                self._paths,
                self._out,
                bars,
            )
        else:
            target = self.target
            if shift:
                target = target.copy()
                target[:, 1] += shift
            score_engle_pairs(
                self.z, self.news, self.pairs, target, self.asymmetry, theta, self._out, bars
            )
        return self._out

    def __call__(self, theta: F64) -> F64:
        """Return the sum of log densities and its score in a, b, g: (4,).

        Summed exactly rounded, so that the order of the pairs changes no bit.
        """
        return np.array([math.fsum(column) for column in self.by_pair(theta).T])


class Full:
    """Full Gaussian likelihood of a panel; as for ``Composite``, O(t n^3)."""

    def __init__(self, z: F64, news: F64, model: DccModel, target: F64 | None = None) -> None:
        self.z, self.news = np.ascontiguousarray(z), np.ascontiguousarray(news)
        self.model, self.given = model, target
        self.asymmetry = asymmetry_of(news) if model == "adcc" else np.zeros((z.shape[1],) * 2)
        self.n_bars = float(np.count_nonzero(~np.isnan(z)))

    def by_bar(self, theta: F64, shift: F64 | None = None) -> F64 | None:
        """Return log density and score of every bar, (t, 4); None if some R has no root.

        ``shift`` (n, n) is added to the target.
        """
        n = self.z.shape[1]
        target = self.given
        slopes = np.zeros((3, n, n))
        if target is None:
            target = target_of(self.news, self.model, theta[0], theta[1])
            if self.model == "cdcc":
                for k in range(2):
                    slopes[k] = self._target_slope(theta, k)
        if shift is not None:
            target = target + shift
        out = np.empty((len(self.z), 4))
        aielli = self.model == "cdcc"
        good = score_full(
            self.z, self.news, target, slopes, self.asymmetry, aielli, theta, out, np.empty((0, n))
        )
        return out if good else None

    def _target_slope(self, theta: F64, k: int) -> F64:
        # central differences: the target is smooth in a and b, and this is O(t n^2)
        step = 1e-5
        ends = []
        for sign in (-1.0, 1.0):
            moved = theta.copy()
            moved[k] += sign * step
            ends.append(target_of(self.news, "cdcc", moved[0], moved[1]))
        slope: F64 = (ends[1] - ends[0]) / (2.0 * step)
        return slope

    def __call__(self, theta: F64) -> F64:
        """Return the log likelihood and its score in a, b, g: (4,), -inf where it has none."""
        bars = self.by_bar(theta)
        if bars is None:
            return np.array([-np.inf, 0.0, 0.0, 0.0])
        return np.array([math.fsum(column) for column in bars.T])


def target_of(news: F64, model: DccModel, a: float, b: float) -> F64:
    """Return the moment estimate of the target: correlation of the news, of x* for cDCC.

    Parameters
    ----------
    news : (t, n)
        NaN where not observed.
    model
        ``cdcc`` scales the news by the roots of the diagonals of (a, b).

    Returns
    -------
    (n, n)
        Unit diagonal; 0 for pairs that never moved together. With gaps each pair has its own
        bars, and the matrix need not be positive definite.
    """
    n = news.shape[1]
    by_symbol = np.ascontiguousarray(news.T)
    if np.isnan(by_symbol).any():
        pairs = np.stack(np.triu_indices(n, 1), axis=1).astype(np.int64)
        moments = np.empty((len(pairs), 7))
        pair_moments(by_symbol, pairs, a, b, model == "cdcc", moments)
        target = np.eye(n)
        target[pairs[:, 0], pairs[:, 1]] = target[pairs[:, 1], pairs[:, 0]] = _normalised(moments)
        return target
    star = by_symbol
    if model == "cdcc":
        star = np.empty_like(by_symbol)
        star_returns(by_symbol, a, b, star)
    with one_blas_thread(), np.errstate(over="ignore", invalid="ignore"):
        products = star @ star.T
        scale = np.sqrt(np.diag(products))
        scale[scale == 0.0] = 1.0
        corr = products / np.outer(scale, scale)
    target = np.asarray(0.5 * (corr + corr.T), dtype=np.float64)
    target[~np.isfinite(target)] = 0.0  # news far from standardised run x* out of range
    np.fill_diagonal(target, 1.0)
    return target


def asymmetry_of(news: F64) -> F64:
    """Return the mean of n n' with n = min(x, 0), (n, n), each pair over its common bars."""
    n = news.shape[1]
    pairs = np.stack(np.triu_indices(n), axis=1).astype(np.int64)
    moments = np.empty((len(pairs), 7))
    pair_moments(np.ascontiguousarray(news.T), pairs, 0.0, 0.0, False, moments)  # noqa: FBT003
    out = np.empty((n, n))
    out[pairs[:, 0], pairs[:, 1]] = out[pairs[:, 1], pairs[:, 0]] = moments[:, 4]
    return out


def _normalised(moments: F64) -> F64:
    scale = np.sqrt(moments[:, 0] * moments[:, 2])
    out = np.zeros(len(moments))
    np.divide(moments[:, 1], scale, out=out, where=scale > 0.0)
    return out
