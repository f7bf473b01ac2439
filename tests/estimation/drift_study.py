"""How long each detector takes to notice a break, all with the same rate of false alarms.

Every run draws a market of its own, fits a model to its first ``FIT`` rows as the service does,
and lets the detectors watch what follows. Runs without a break set the thresholds; runs with one
give the delays. ``python -m replay_data.draw_drift`` writes what comes of it.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from river import drift
from scipy.stats import ks_2samp

import stream_calib as sc
from stream_calib.estimation.calibration.dcc import fit_dcc
from stream_calib.estimation.cleaning import one_blas_thread
from stream_calib.estimation.dcc import Dcc
from stream_calib.estimation.protocol import Detector
from stream_calib.estimation.shrinkage import shrink_target
from stream_calib.values import F64, I64, DccParams
from tests.estimation.baselines import FEEDS, KnownChange, feeds, first_alarm
from tests.estimation.truths import (
    AVERAGES,
    MEMORY,
    NEWS,
    TRUTHS,
    Change,
    Kind,
    broken,
    factor_target,
    truth,
)

TRUTH = "average_15"
FIT, BEFORE, AFTER, CALM = 1000, 500, 1500, 4000  # rows: fitted, until and after a break, without
ARL0 = 2000.0
ENDLESS = 1e12  # an ARL0 at which no alarm is raised: the statistic is read instead
WINDOW, RECENT = 100, 30  # of KSWIN
TOLERANCES = (0.005, 0.25)  # Page-Hinkley's delta: river's, and half of a shift by .5
OURS, PAGE, ADWIN, KSWIN, KNOWN = "ours", "Page-Hinkley", "ADWIN", "KSWIN", "known change"
DETECTORS = (OURS, PAGE, ADWIN, KSWIN, KNOWN)


class Break(NamedTuple):
    """A change of correlations, as ``truths.broken`` draws it."""

    change: Change
    g: float
    kind: Kind


JUMPS = (
    Break("fusing", 0.15, "jump"),
    Break("fusing", 0.35, "jump"),
    Break("loosening", 0.4, "jump"),
    Break("rotation", 0.0, "jump"),
)
BREAKS = (*JUMPS, *(jump._replace(kind="target") for jump in JUMPS))


class Run(NamedTuple):
    """One market: its truth, its model, and what is needed to go on after the rows of the fit.

    ``past`` are the rows of the fit; ``target``, ``q`` (n, n) those of the true DCC, q after the
    fit; ``centre``, ``spread`` (2,) those of the feeds over the fit; ``before`` (BEFORE, 2) the
    feeds until a break.
    """

    seed: int
    params: DccParams
    past: F64
    target: F64
    q: F64
    centre: F64
    spread: F64
    state: Mapping[str, F64]
    before: F64


class Delay(NamedTuple):
    """Rows from the break to the alarm, over the runs without a false alarm before.

    ``median`` with its standard error, infinite where more than half are missed; in the ``mean``
    a miss counts as ``AFTER``; ``missed`` and ``early`` are shares; ``of`` names the variant.
    """

    median: float
    error: float
    mean: float
    missed: float
    early: float
    of: str = ""


class Study(NamedTuple):
    """What came of n symbols: thresholds, realised ARL0 and delays by break and detector."""

    n: int
    runs: int
    calm: int
    reached: Mapping[str, tuple[float, float]]
    delays: Mapping[Break, Mapping[str, Delay]]


def start(n: int, seed: int, name: str = TRUTH) -> tuple[Run, F64]:
    """Draw a market, fit it; return it with the ``CALM`` rows (CALM, n) without a break."""
    rows = truth(name, n, FIT + CALM, seed)
    params = fitted(rows[:FIT])
    model = Dcc(params, n)
    past = feeds(model, rows[:FIT])
    at_break = Dcc.from_state(model.state())
    before = feeds(at_break, rows[FIT : FIT + BEFORE])
    target = factor_target(_rng(name, n, seed), n, AVERAGES[name])
    q = target
    for z in rows[:FIT]:
        q = (1.0 - NEWS - MEMORY) * target + NEWS * np.multiply.outer(z, z) + MEMORY * q
    centre, spread = past.mean(axis=0), past.std(axis=0)
    before = (before - centre) / spread
    return Run(seed, params, rows[:FIT], target, q, centre, spread, at_break.state(), before), rows[
        FIT:
    ]


def fitted(rows: F64) -> DccParams:
    """Fit as the service does: composite likelihood, a QIS target."""
    return fit_dcc(rows, target=partial(shrink_target, method="qis")).params


def _rng(name: str, n: int, seed: int) -> np.random.Generator:
    # the first thing that truths draws from it is the target
    return np.random.default_rng([TRUTHS.index(name), n, seed])


def watched(run: Run, rows: F64) -> F64:
    """Return the feeds of river's detectors, standardised over the fit, from the break on."""
    return (feeds(Dcc.from_state(run.state), rows) - run.centre) / run.spread


def own_path(detector: Detector, rows: F64, stop: float) -> F64:
    """Return our statistic after each row, until it reaches ``stop``."""
    path = np.zeros(len(rows))
    for t, row in enumerate(rows):
        detector.update(row[None])
        path[t] = detector.level * ENDLESS
        if path[t] >= stop:
            return path[: t + 1]
    return path


def known_path(detector: KnownChange, rows: F64, stop: float) -> F64:
    """Return the CUSUM after each row, until it reaches ``stop``."""
    path = np.zeros(len(rows))
    for t, row in enumerate(rows):
        detector.take(row)
        path[t] = detector.sum
        if path[t] >= stop:
            return path[: t + 1]
    return path


def draws(length: int, seed: int = 0) -> I64:
    """Return which older numbers KSWIN compares with at each of its tests, (tests, RECENT)."""
    rng = random.Random(seed)
    older = range(WINDOW - RECENT)
    tests = length - WINDOW + 1
    return np.array([rng.sample(older, RECENT) for _ in range(tests)])


def kswin_path(numbers: F64, drawn: I64) -> F64:
    """Return the distance of two samples that KSWIN tests after each number, in steps of 1 / 30."""
    windows = np.lib.stride_tricks.sliding_window_view(numbers, WINDOW)
    older = np.take_along_axis(windows, drawn[: len(windows)], axis=1)
    both = np.concatenate([older, windows[:, -RECENT:]], axis=1)
    signs = np.where(np.argsort(both, axis=1) < RECENT, 1, -1)
    path = np.zeros(len(numbers))
    path[WINDOW - 1 :] = np.abs(np.cumsum(signs, axis=1)).max(axis=1)
    return path


def kswin_alpha(steps: int) -> float:
    """Return the p-value that a distance of so many thirtieths has."""
    sample = np.arange(RECENT, dtype=np.float64)
    return float(ks_2samp(sample, sample + steps - 0.5, method="exact").pvalue)


def page_path(numbers: Sequence[float], tolerance: float) -> F64:
    """Return the statistic of river's Page-Hinkley after each number."""
    detector = page_hinkley(tolerance, np.inf)
    path = np.zeros(len(numbers))
    for t, number in enumerate(numbers):
        detector.update(number)
        up = detector._sum_increase - detector._min_increase
        down = detector._max_decrease - detector._sum_decrease
        path[t] = max(up, down)
    path[: detector.min_instances - 1] = 0.0
    return path


def passage(path: F64, threshold: float) -> int:
    """Return the first row, from 1, at which a path reaches the threshold; 0 for never."""
    reached = path >= threshold
    return int(reached.argmax()) + 1 if reached.any() else 0


def passages(paths: Sequence[F64], threshold: float) -> list[int]:
    """Return the passage of each path."""
    return [passage(path, threshold) for path in paths]


def realised(alarms: Sequence[int], length: int = CALM) -> float:
    """Return rows at risk over alarms; as if all had been awaited, were the rate constant."""
    count = sum(alarm > 0 for alarm in alarms)
    return sum(alarm or length for alarm in alarms) / max(count, 0.5)


def calibrated(
    alarms: Callable[[float], Sequence[int]], low: float, high: float, arl0: float = ARL0
) -> tuple[float, float]:
    """Find the threshold at which the alarms of calm runs have that ARL0; bisection of its log.

    The ARL0 rises from low to high, which may be the greater or the lesser. Returns the threshold
    and the ARL0 that is realised.
    """
    for _ in range(30):
        middle = float(np.sqrt(low * high))
        if realised(alarms(middle)) < arl0:
            low = middle
        else:
            high = middle
    return high, realised(alarms(high))


def delay(alarms: Sequence[int], at: int = BEFORE, of: str = "") -> Delay:
    """Sum up when the alarms of runs with a break came; the error by a bootstrap."""
    kept = np.array([alarm or np.inf for alarm in alarms if not 0 < alarm <= at]) - at
    early = 1.0 - len(kept) / len(alarms)
    if not len(kept):
        return Delay(np.inf, np.nan, AFTER, 1.0, early, of)
    drawn = np.random.default_rng(len(kept)).choice(kept, (400, len(kept)))
    medians = _median(drawn)
    spread = float(medians.std()) if np.isfinite(medians).all() else np.nan
    middle = float(_median(kept[None])[0])
    mean = float(np.minimum(kept, AFTER).mean())
    return Delay(middle, spread, mean, float(np.isinf(kept).mean()), early, of)


def _median(rows: F64) -> F64:
    # the lower of the middle ones: infinities do not average
    middle: F64 = np.sort(rows, axis=1)[:, (rows.shape[1] - 1) // 2]
    return middle


class Bench:
    """The detectors with their thresholds set on the same calm runs."""

    def __init__(self, n: int, calm: Sequence[tuple[Run, F64]], known_runs: int) -> None:
        self.n = n
        self._calm = calm
        self._known = calm[:known_runs]
        self._drawn = draws(CALM)
        self.thresholds: dict[tuple[str, ...], tuple[float, float]] = {}
        own = [own_path(new_detector(run), rows, np.inf) for run, rows in calm]
        self.own = own
        self.thresholds[OURS,] = calibrated(partial(passages, own), 1.0, 1e9)
        self._feeds = []
        for run, rows in calm:
            later = watched(run, rows[BEFORE:])
            self._feeds.append(np.concatenate([run.before, later]))
        for feed in range(2):
            self._set_river(feed)

    def _set_river(self, feed: int) -> None:
        lists = [numbers[:, feed].tolist() for numbers in self._feeds]
        paths = [kswin_path(numbers[:, feed], self._drawn) for numbers in self._feeds]
        for tolerance in TOLERANCES:
            sums = [page_path(numbers, tolerance) for numbers in lists]
            self.thresholds[PAGE, FEEDS[feed], str(tolerance)] = calibrated(
                partial(passages, sums), 1.0, 1000.0
            )
        self.thresholds[ADWIN, FEEDS[feed]] = calibrated(
            lambda delta: [first_alarm(partial(adwin, delta), numbers) for numbers in lists],
            4.0,
            1e-9,
        )
        # distances are whole thirtieths: the one whose ARL0 is nearest
        reached = {float(steps): realised(passages(paths, steps)) for steps in range(8, 28)}
        nearest = min(reached, key=lambda steps: abs(np.log(reached[steps] / ARL0)))
        self.thresholds[KSWIN, FEEDS[feed]] = nearest, reached[nearest]

    def alarms(self, what: Break, runs: Sequence[Run]) -> dict[str, Delay]:
        """Let every detector watch the break, and give each the best of its variants."""
        own, known, numbers = [], [], []
        ratios = self._set_known(what)
        for run in runs:
            z = broken(TRUTH, self.n, FIT + BEFORE, AFTER, *what, run.seed)[FIT:]
            level = self.thresholds[OURS,][0]
            own.append(passage(own_path(new_detector(run), z, level), level))
            known.append([
                passage(known_path(new_known(run, what, kind), z, level), level)
                for kind, level in ratios.items()
            ])  # fmt: skip
            numbers.append(np.concatenate([run.before, watched(run, z[BEFORE:])]))
        found = {OURS: delay(own), **self._river(numbers)}
        columns = zip(*known, strict=True)
        found[KNOWN] = _best([delay(column) for column in columns])
        return found

    def reached(self) -> dict[str, tuple[float, float]]:
        """Return the least and the greatest ARL0 of the variants of each detector."""
        out = {}
        for name in DETECTORS:
            found = [arl0 for key, (_, arl0) in self.thresholds.items() if key[0] == name]
            out[name] = min(found), max(found)
        return out

    def _set_known(self, what: Break) -> dict[Kind | None, float]:
        # of a target's change: at its beginning Q1 is Q0, or Q1 that runs on; the better one
        out: dict[Kind | None, float] = {}
        for kind in (what.kind,) if what.kind == "jump" else (what.kind, None):
            paths = [known_path(new_known(r, what, kind), rows, np.inf) for r, rows in self._known]
            level, reached = calibrated(partial(passages, paths), 1e-2, 50.0)
            out[kind] = level
            self.thresholds[KNOWN, str(what), str(kind)] = level, reached
        return out

    def _river(self, numbers: Sequence[F64]) -> dict[str, Delay]:
        found: dict[str, list[Delay]] = {PAGE: [], ADWIN: [], KSWIN: []}
        for (name, *variant), (level, _) in self.thresholds.items():
            if name not in found:
                continue
            column = FEEDS.index(variant[0])
            chosen = [path[:, column] for path in numbers]
            if name == KSWIN:
                alarms = passages([kswin_path(path, self._drawn) for path in chosen], level)
            elif name == PAGE:
                tolerance = float(variant[1])
                alarms = passages([page_path(p.tolist(), tolerance) for p in chosen], level)
            else:
                alarms = [first_alarm(partial(adwin, level), p.tolist()) for p in chosen]
            found[name].append(delay(alarms, of=" ".join(variant)))
        return {name: _best(delays) for name, delays in found.items()}


def _best(delays: Sequence[Delay]) -> Delay:
    return min(delays, key=lambda found: (found.median, found.mean))


def new_detector(run: Run) -> Detector:
    """Make our detector from the fit of a run, never to raise an alarm."""
    return watching(run.params, run.past, run.seed)


def watching(params: DccParams, past: F64, seed: int) -> sc.DriftDetector:
    """Make our detector as the service does, never to raise an alarm."""
    n = len(params.target)
    before = sc.DriftDetector(params, n, arl0=ENDLESS)
    before.update(past)
    return sc.DriftDetector(params, n, arl0=ENDLESS, seed=seed, inflation=before.dependence())


def new_known(run: Run, what: Break, kind: Kind | None) -> KnownChange:
    """Make the CUSUM that knows the truth of a run, never to raise an alarm."""
    return KnownChange(run.target, run.q, what.change, what.g, kind, np.inf)


def page_hinkley(tolerance: float, threshold: float) -> Any:
    """Make river's test of Page and Hinkley."""
    return drift.PageHinkley(delta=tolerance, threshold=threshold)


def adwin(delta: float) -> Any:
    """Make river's ADWIN."""
    return drift.ADWIN(delta=delta)  # type: ignore[no-untyped-call]


def study(n: int, runs: int, calm: int, known: int) -> tuple[Bench, Study]:
    """Compare all detectors over all breaks.

    Parameters
    ----------
    n
        Number of symbols.
    runs
        Runs with each break.
    calm
        Runs without one, that thresholds are set on; at most as many as ``runs``.
    known
        How many of them the CUSUM gets, which no fit makes differ.
    """
    with one_blas_thread():
        started = [start(n, seed) for seed in range(runs)]
        bench = Bench(n, started[:calm], known)
        delays = {what: bench.alarms(what, [run for run, _ in started]) for what in BREAKS}
    return bench, Study(n, runs, calm, bench.reached(), delays)


def youth(bench: Bench, what: Break, at: int, runs: int) -> Delay:
    """Let our detector watch a break so many rows after the fit."""
    level, alarms = bench.thresholds[OURS,][0], []
    with one_blas_thread():
        for seed in range(runs):
            z = broken(TRUTH, bench.n, FIT + at, AFTER, *what, seed)
            detector = watching(fitted(z[:FIT]), z[:FIT], seed)
            alarms.append(passage(own_path(detector, z[FIT:], level), level))
    return delay(alarms, at)
