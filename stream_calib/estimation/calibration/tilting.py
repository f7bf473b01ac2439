"""From an old target to a new one by few rows: tilted as a whole, then mixed with what was seen."""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from stream_calib.estimation.cleaning import one_blas_thread
from stream_calib.estimation.contest import fitness
from stream_calib.estimation.dcc import Dcc
from stream_calib.kernels.dcc_targets import star_returns
from stream_calib.values import F64, I64, DccParams

PRIOR_SHARES = (16, 32, 64)  # rows per symbol that an old target may count for
PLENTY = 8  # rows per symbol: of more it counts for less, or it would never be forgotten
STEP, SHARES, TURNS = 0.05, 19, 8  # of the search for the shares of v v' and I
FOLDS = 5  # blocks of rows, each forecast from the earlier ones
SCORED_MAX = 256  # rows that forecasts are judged by: each takes O(n^3)
SMALL, SCORED_MIN = 300, 16  # symbols up to which, and rows that are judged whatever it takes
MOVES_MIN = 10  # a symbol that moved less often keeps its regression on the others


class Moved(NamedTuple):
    """A target (n, n) and how it came about.

    ``fused`` and ``loosened``: g and h of the tilt; ``prior_rows`` that the tilted target counts
    for; ``gain``: nats per row by which targets made in this way forecast later rows better
    than the old one, by the directions of the returns; ``kept``: share of the old target in it.
    """

    target: F64
    fused: float
    loosened: float
    prior_rows: float
    gain: float
    kept: float


def move_target(params: DccParams, z: F64, dropped: int = 0) -> Moved:
    """Move the target of a model by the rows since a change.

        C' = (n0 C_gh + t S) / (n0 + t),   C_gh = (1 - g - h) C + g v v' + h I

    with S the correlation of the news, holes filled by what C expects, and v the signs of the
    leading eigenvector of C + S: all ones, where all move together. g and h are the most likely
    ones by the directions of the news: two numbers, that few rows tell. n0, of ``PRIOR_SHARES``
    times n (1 - h), as what was loosened says nothing of how symbols hang together, or less where
    rows are plenty, is what forecasts best: block after block of the rows, each by a filter whose
    target was made from earlier ones alone. Rows on both sides of a block would tell of the state
    in it, which is no matter of the target.

    Parameters
    ----------
    params
        With C: positive definite, unit diagonal.
    z : (t, n)
        Standardised returns since the change; NaN where not observed.
    dropped
        How many of the first rows only the filter sees.

    Returns
    -------
    Moved
        Positive definite as C is: neither v v', I nor S has a negative eigenvalue.

    Notes
    -----
    O(t n^2) and ``SCORED_MAX`` Cholesky factors for every n0, beside O(n m^2) for a row
    of which m are missing. What fills holes is the first step of the EM algorithm from C
    (Dempster, Laird and Rubin 1977, section 4.2.1). A symbol that hardly moved keeps its
    regression on the others.
    """
    with one_blas_thread():
        return _moved(params, z, dropped)


def _moved(params: DccParams, z: F64, dropped: int) -> Moved:
    news = scaled_news(z, params)[dropped:]
    n = z.shape[1]
    moves = np.isfinite(news) & (news != 0.0)
    # in the first block too: the others are forecast from it
    first = moves[: max(1, len(news) // FOLDS)].any(axis=0)
    known = np.flatnonzero(first & (moves.sum(axis=0) >= MOVES_MIN))
    if len(known) < 2:
        return Moved(params.target.copy(), 0.0, 0.0, math.inf, 0.0, 1.0)
    if len(known) < n:
        part = _moved(part_of(params, known), np.ascontiguousarray(z[:, known]), dropped)
        return part._replace(target=_extended(params.target, known, part.target))
    rows = _filled(params.target, news)
    gains = _gains(params, z, dropped, rows)
    best = int(np.argmax(gains))
    tilts = _tilts(params.target, rows, FOLDS)
    fused, loosened = tilts.likely()
    prior_rows = float((1.0 - loosened) * _priors(rows, n)[best])
    target = _blend(tilts.at(fused, loosened), rows, FOLDS, prior_rows)
    kept = (1.0 - fused - loosened) * prior_rows / (prior_rows + float(rows.ends[-1]))
    return Moved(target, fused, loosened, prior_rows, float(gains[best]), kept)


def part_of(params: DccParams, known: I64) -> DccParams:
    """Return the parameters of some of the symbols."""
    cut = np.ix_(known, known)
    less = None if params.asymmetry is None else params.asymmetry[cut]
    return replace(params, target=params.target[cut], asymmetry=less)


def scaled_news(z: F64, params: DccParams) -> F64:
    """Return what the target is the mean product of: z (t, n), with cDCC over its own scale."""
    if params.model != "cdcc":
        return z
    by_symbol = np.ascontiguousarray(z.T)
    star = np.empty_like(by_symbol)
    star_returns(by_symbol, params.a, params.b, star)
    out: F64 = np.ascontiguousarray(star.T)
    return out


class _Rows(NamedTuple):
    """Rows without holes (t, n), where each fold ends, and summed products of each fold."""

    filled: F64
    ends: I64
    moments: F64  # (folds, n, n)


def _filled(old: F64, news: F64) -> _Rows:
    t, n = news.shape
    ends = np.arange(1, FOLDS + 1) * t // FOLDS
    seen = np.isfinite(news)
    filled = np.where(seen, news, 0.0)
    moments = np.zeros((FOLDS, n, n))
    precision = old if seen.all() else np.linalg.inv(old)
    for row in np.flatnonzero(~seen.all(axis=1)):
        gone, there = np.flatnonzero(~seen[row]), np.flatnonzero(seen[row])
        spread = np.linalg.inv(precision[np.ix_(gone, gone)])
        filled[row, gone] = -spread @ (precision[np.ix_(gone, there)] @ news[row, there])
        fold = int(np.searchsorted(ends, row, "right"))
        moments[fold][np.ix_(gone, gone)] += 0.5 * (spread + spread.T)
    for k, part in enumerate(np.split(filled, ends[:-1])):
        moments[k] += part.T @ part
    return _Rows(filled, ends, moments)


class _Tilts(NamedTuple):
    """What a tilted target (1 - g - h) C + g v v' + h I is read from, in the basis of C."""

    old: F64
    values: F64  # eigenvalues of C
    signs: F64  # v
    along: F64  # v in the basis
    turned: F64  # rows in the basis

    def at(self, fused: float, loosened: float) -> F64:
        """Return the target."""
        out = (1.0 - fused - loosened) * self.old
        out += fused * np.multiply.outer(self.signs, self.signs)
        out.flat[:: len(out) + 1] = 1.0
        return out

    def score(self, fused: float, loosened: float) -> float:
        """Return the log likelihood of the directions of the rows, up to a constant.

        D = (1 - g - h) L + h;   ln |D + g u u'| = ln |D| + ln (1 + g u' D^-1 u)
        x' (D + g u u')^-1 x = x' D^-1 x - g (u' D^-1 x)^2 / (1 + g u' D^-1 u)
        """
        rows, n = self.turned, len(self.values)
        spread = (1.0 - fused - loosened) * self.values + loosened
        slope = self.along / spread
        grown = 1.0 + fused * float(self.along @ slope)
        lengths = rows**2 @ (1.0 / spread) - (fused / grown) * (rows @ slope) ** 2
        lengths = lengths[lengths > 0.0]
        logs = len(lengths) * (float(np.log(spread).sum()) + math.log(grown))
        return -0.5 * (logs + n * float(np.log(lengths).sum()))

    def likely(self) -> tuple[float, float]:
        """Return the most likely g and h of a grid, searched in turns from none."""
        best, scores = (0, 0), {(0, 0): self.score(0.0, 0.0)}
        for turn in range(TURNS):
            before = best
            for k in range(SHARES - best[1 - turn % 2]):
                at = (k, best[1]) if turn % 2 == 0 else (best[0], k)
                if at not in scores:
                    scores[at] = self.score(STEP * at[0], STEP * at[1])
                best = at if scores[at] > scores[best] else best
            if turn > 0 and best == before:
                break
        return STEP * best[0], STEP * best[1]


def _tilts(old: F64, rows: _Rows, folds: int) -> _Tilts:
    values, vectors = np.linalg.eigh(old)
    both = np.linalg.eigh(old + _unit(rows.moments[:folds].sum(axis=0)))[1][:, -1]
    signs = np.where(both < 0.0, -1.0, 1.0)
    turned = rows.filled[: rows.ends[folds - 1]] @ vectors
    return _Tilts(old, values, signs, signs @ vectors, turned)


def _blend(prior: F64, rows: _Rows, folds: int, prior_rows: float) -> F64:
    """Mix a target with the first folds."""
    weight = prior_rows / (prior_rows + rows.ends[folds - 1])
    target: F64 = weight * prior + (1.0 - weight) * _unit(rows.moments[:folds].sum(axis=0))
    np.fill_diagonal(target, 1.0)
    return target


def _priors(rows: _Rows, n: int) -> F64:
    return np.array(PRIOR_SHARES) * n * min(1.0, PLENTY * n / float(rows.ends[-1]))


def _gains(params: DccParams, z: F64, dropped: int, rows: _Rows) -> F64:
    # nats per row over the old target, for each n0
    n = len(params.target)
    total, plain = np.zeros(len(PRIOR_SHARES)), 0.0
    scored = max(SCORED_MIN, int(SCORED_MAX * min(1.0, (SMALL / n) ** 3)))
    every = 1 + int(rows.ends[-1] - rows.ends[0] - 1) // scored
    for folds in range(1, FOLDS):
        start, stop = (dropped + int(end) for end in rows.ends[folds - 1 : folds + 1])
        plain += _forecast_score(params, z, start, stop, every)
        tilts = _tilts(params.target, rows, folds)
        fused, loosened = tilts.likely()
        prior = tilts.at(fused, loosened)
        for j, prior_rows in enumerate((1.0 - loosened) * _priors(rows, n)):
            moved = replace(params, target=_blend(prior, rows, folds, float(prior_rows)))
            total[j] += _forecast_score(moved, z, start, stop, every)
    gains: F64 = (total - plain) * (every / float(rows.ends[-1] - rows.ends[0]))
    return gains


def _forecast_score(params: DccParams, z: F64, start: int, stop: int, every: int) -> float:
    dcc = Dcc(params, z.shape[1])
    dcc.update(z[:start])
    total = 0.0
    for row in range(start, stop):
        if row % every == 0:
            total += fitness(z[row], dcc.next_corr()).angular
        dcc.update(z[row : row + 1])
    return total


def _extended(old: F64, known: I64, target: F64) -> F64:
    """Put symbols without news beside the others as their regression on them says."""
    n = len(old)
    rest = np.setdiff1d(np.arange(n), known)
    slope = np.linalg.solve(old[np.ix_(known, known)], old[np.ix_(known, rest)]).T
    across = slope @ target
    left = old[np.ix_(rest, rest)] - slope @ old[np.ix_(known, rest)]
    out = np.empty((n, n))
    out[np.ix_(known, known)] = target
    out[np.ix_(rest, known)] = across
    out[np.ix_(known, rest)] = across.T
    out[np.ix_(rest, rest)] = left + across @ slope.T
    return _unit(out)


def _unit(square: F64) -> F64:
    scale = 1.0 / np.sqrt(square.diagonal())
    out = 0.5 * (square + square.T) * np.multiply.outer(scale, scale)
    np.fill_diagonal(out, 1.0)
    return out
