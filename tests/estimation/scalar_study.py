"""One direction of many whose variance changes: what detectors of that alone can do.

A row is seen as the share of its square that lies in a known direction,

    u = y^2 / q,   y = v'e,   q = e'e,   e (n,) normal of variance one but for y, of variance th

so that no common scale of a row matters. Everything is simulated, many runs at a time, and every
detector is given the threshold at which its first false alarm comes after ``ARL0`` rows on average.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from stream_calib.estimation.drift import FIRST_SCORES, SLOPES
from stream_calib.kernels.drift import fold_bets, rank_scores
from stream_calib.values import F64

N, ARL0 = 100, 1e4
MIXED = np.array([0.25, 0.4, 0.6, 1.5, 2.0, 3.0, 5.0])  # th that a mixture reckons with
CHANGED = (0.4, 1.5, 2.3, 4.0)  # th that come
BLOCK = 25  # rows within which a first passage is not told: a four-hundredth of ARL0
MIXTURE, RANKS, KNOWN, SCALED = "mixture", "ranks", "known", "scale known"
PASTS = (500, 2000)  # scores that a rank is taken among at the change
LONGEST = 3000  # rows after which a change is missed; as often as not none is
Squares = tuple[F64, F64]  # y^2 and q of a row, (runs,) each
Update = Callable[[Squares], F64]  # takes a row in, and returns the log statistic (runs, k)


def rows(runs: int, seed: int, ratio: float = 1.0) -> Iterator[Squares]:
    """Draw rows without end, of ``runs`` markets at once."""
    rng = np.random.default_rng(seed)
    while True:
        own = ratio * rng.standard_normal(runs) ** 2
        yield own, own + rng.chisquare(N - 1, runs)


def log_ratio(ratio: F64 | float, squares: Squares) -> F64:
    """Return the log likelihood ratio of the direction of a row, (runs, k).

    L = th^-1/2 (1 - (1 - 1/th) u)^(-n/2)
    """
    th = np.atleast_1d(np.asarray(ratio, np.float64))
    share = (squares[0] / squares[1])[:, None]
    out: F64 = -0.5 * np.log(th) - 0.5 * N * np.log1p(-(1.0 - 1.0 / th) * share)
    return out


def mixture(runs: int) -> Update:
    """Shiryaev and Roberts over the mixed ratios: M_k' = (M_k + 1) L_k, and the mean of M_k."""
    chains = np.zeros((runs, len(MIXED)))

    def update(squares: Squares) -> F64:
        np.multiply(chains + 1.0, np.exp(log_ratio(MIXED, squares)), out=chains)
        np.minimum(chains, 1e200, out=chains)
        level: F64 = np.log(chains.mean(axis=1, keepdims=True))
        return level

    return update


def known(runs: int, ratios: Sequence[float] = CHANGED, *, scaled: bool = False) -> Update:
    """Page's CUSUM that is told th: W' = max(W, 0) + ln L.

    It sees what the mixture sees, or with ``scaled`` y itself, the scale of the row being known.
    """
    th, sums = np.array(ratios), np.zeros((runs, len(ratios)))

    def update(squares: Squares) -> F64:
        if scaled:
            ratio = -0.5 * np.log(th) + 0.5 * (1.0 - 1.0 / th) * squares[0][:, None]
        else:
            ratio = log_ratio(th, squares)
        np.maximum(sums, 0.0, out=sums)
        np.add(sums, ratio, out=sums)
        return sums.copy()

    return update


def ranked(runs: int, seed: int) -> Update:
    """Bets of our detector on u and on -u, where nothing changes.

    Ranks of exchangeable scores are uniform and independent, whatever they are taken among: so
    they are drawn, and no past is kept.
    """
    rng, chains = np.random.default_rng([seed, 1]), np.zeros((runs, 2, len(SLOPES)))

    def update(_: Squares) -> F64:
        x = rng.standard_normal(runs)
        step = SLOPES * (np.stack([x, -x], axis=1)[:, :, None] - 0.5 * SLOPES)
        np.multiply(chains + 1.0, np.exp(step), out=chains)
        level: F64 = np.log(chains.reshape(runs, -1).mean(axis=1))
        return level[:, None]

    return update


class Calibrated(NamedTuple):
    """A threshold of the log statistic, and the ARL0 that is realised with it."""

    threshold: float
    arl0: float


def calibrate(update: Update, runs: int, seed: int, arl0: float = ARL0) -> list[Calibrated]:
    """Find where each statistic has its first alarm once in ``arl0`` rows.

    The rate of alarms is that of runs of twice ``arl0``: rows watched over alarms.
    """
    blocks, feed = int(2.0 * arl0) // BLOCK, rows(runs, seed)
    best: F64 | None = None
    highest = []
    for _ in range(blocks):
        for _ in range(BLOCK):
            now = update(next(feed))
            best = now if best is None else np.maximum(best, now)
        assert best is not None
        highest.append(best)
    paths = np.array(highest)  # (blocks, runs, k)
    return [_threshold(paths[:, :, k], arl0) for k in range(paths.shape[2])]


def _threshold(paths: F64, arl0: float) -> Calibrated:
    low, high = 0.0, float(paths.max())
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _realised(paths, middle) < arl0 else (low, middle)
    return Calibrated(high, _realised(paths, high))


def _realised(paths: F64, threshold: float) -> float:
    passed = paths >= threshold
    alarms = int(passed[-1].sum())
    before = (~passed).sum() * BLOCK + 0.5 * BLOCK * alarms  # an alarm is within its block
    return float(before) / max(alarms, 0.5)


def delays(update: Update, thresholds: Sequence[float], ratio: float, runs: int, seed: int) -> F64:
    """Return how many rows after a change at the start each alarm comes, (runs, k)."""
    limits = np.array(thresholds)
    out: F64 = np.full((runs, len(limits)), float(LONGEST))
    feed = rows(runs, seed, ratio)
    for row in range(1, LONGEST):
        passed = update(next(feed)) >= limits
        out[passed & (out == LONGEST)] = row
        if (out < LONGEST).all():
            break
    return out


def ranked_delays(threshold: float, ratio: float, past: int, runs: int, seed: int) -> F64:
    """Return the delays of our bets, (runs,), ranks being taken among the scores so far.

    ``past`` of them are from before the change, and chains begin with it.
    """
    out = np.full(runs, float(LONGEST))
    ones, level = np.ones(2), np.exp(threshold)
    rng = np.random.default_rng([seed, past])
    for run in range(runs):
        ratios = np.repeat([1.0, ratio], [past, LONGEST])
        own = ratios * rng.standard_normal(len(ratios)) ** 2
        share = own / (own + rng.chisquare(N - 1, len(ratios)))
        ordered, in_time = np.empty((2, len(share))), np.empty((2, len(share)))
        normal, chains = np.empty(2), np.zeros((2, len(SLOPES)))
        uniforms = rng.random((len(share), 2))
        for t, (score, ties) in enumerate(zip(share, uniforms, strict=True)):
            rank_scores(np.array([score, -score]), ties, t, ordered, in_time, normal)
            if t >= max(past, FIRST_SCORES) and fold_bets(normal, ones, SLOPES, chains) >= level:
                out[run] = t + 1 - past
                break
    return out


class Row(NamedTuple):
    """Mean delays with a variance ratio.

    Of CUSUMs that know the change, one of them the scale of rows as well; of the mixture; and
    of ranks, by how many scores they begin with.
    """

    ratio: float
    known: float
    scaled: float
    mixture: float
    ranks: Mapping[int, float]
    missed: Mapping[int, float]  # share of runs in which ranks found nothing in LONGEST rows

    @property
    def cost(self) -> float:
        """How much longer the mixture takes than whoever knows the change."""
        return self.mixture / self.known


class Study(NamedTuple):
    """Realised ARL0 by detector, and the delays."""

    arl0: Mapping[str, float]
    rows: Sequence[Row]


def study(runs: int, delay_runs: int, ranked_runs: int = 0, seed: int = 0) -> Study:
    """Set thresholds on ``runs`` runs, and compare delays; without ``ranked_runs`` not our bets."""
    mixed = calibrate(mixture(runs), runs, seed)[0]
    told = calibrate(known(runs), runs, seed)
    scaled = calibrate(known(runs, scaled=True), runs, seed)
    own = calibrate(ranked(runs, seed), runs, seed)[0] if ranked_runs else None
    out = []
    for k, ratio in enumerate(CHANGED):
        after = seed + 100 + k

        def mean(
            update: Update, limit: Calibrated, ratio: float = ratio, seed: int = after
        ) -> float:
            return float(delays(update, [limit.threshold], ratio, delay_runs, seed).mean())

        ranks = {
            past: ranked_delays(own.threshold, ratio, past, ranked_runs, after)
            for past in PASTS
            if own is not None
        }
        out.append(
            Row(
                ratio,
                mean(known(delay_runs, [ratio]), told[k]),
                mean(known(delay_runs, [ratio], scaled=True), scaled[k]),
                mean(mixture(delay_runs), mixed),
                {past: float(rows.mean()) for past, rows in ranks.items()},
                {past: float((rows == LONGEST).mean()) for past, rows in ranks.items()},
            )
        )
    reached = {MIXTURE: mixed.arl0} | ({} if own is None else {RANKS: own.arl0})
    for name, found in ((KNOWN, told), (SCALED, scaled)):
        reached |= {f"{name} {th:g}": c.arl0 for th, c in zip(CHANGED, found, strict=True)}
    return Study(reached, out)
