"""How often detectors cry wolf on markets that do not break, beside what was asked for.

``python -m replay_data.draw_arl0`` writes what comes of it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from stream_calib.estimation.cleaning import one_blas_thread
from stream_calib.estimation.dcc import Dcc
from stream_calib.values import F64
from tests.estimation.baselines import FEEDS, FittedRatio, feeds, first_alarm
from tests.estimation.drift_study import (
    CALM,
    ENDLESS,
    FIT,
    TOLERANCES,
    adwin,
    calibrated,
    fitted,
    own_path,
    page_hinkley,
    page_path,
    passages,
    realised,
    watching,
)
from tests.estimation.truths import TRUTHS, truth

TARGETS = (500.0, 1000.0, 2000.0)
OURS, RATIO = "ours", "fitted likelihood ratio"
PAGE, ADWIN, SET = "Page-Hinkley", "ADWIN", "Page-Hinkley, set"
USUAL = 0.005, 50.0  # Page-Hinkley's tolerance and threshold in river
ADWIN_USUAL = 0.002


class Rate(NamedTuple):
    """A realised ARL0 and its Monte Carlo error, by a bootstrap over the runs."""

    rows: float
    error: float


class Market(NamedTuple):
    """What came of one truth with n symbols; rates by detector, variant or target ARL0."""

    name: str
    n: int
    runs: int
    rates: Mapping[tuple[str, str], Rate]


class Watched(NamedTuple):
    """The paths of one truth's runs: our statistic, the ratio's, and river's feeds (CALM, 2)."""

    own: Sequence[F64]
    ratio: Sequence[F64]
    numbers: Sequence[F64]


def watch(name: str, n: int, runs: int) -> Watched:
    """Fit every run to its first rows, and let the detectors see the rest."""
    own, ratio, numbers = [], [], []
    for seed in range(runs):
        rows = truth(name, n, FIT + CALM, seed)
        params = fitted(rows[:FIT])
        rest, stop = rows[FIT:], TARGETS[-1]
        detector = watching(params, rows[:FIT], seed)
        own.append(own_path(detector, rest, stop))
        ratio.append(ratio_path(FittedRatio(params, n, ENDLESS), rest, stop))
        model = Dcc(params, n)
        past = feeds(model, rows[:FIT])
        numbers.append((feeds(model, rest) - past.mean(axis=0)) / past.std(axis=0))
    return Watched(own, ratio, numbers)


def ratio_path(detector: FittedRatio, rows: F64, stop: float) -> F64:
    """Return the likelihood ratio's statistic after each row, until it reaches ``stop``."""
    path = np.zeros(len(rows))
    for t, row in enumerate(rows):
        detector.take(row)
        path[t] = detector.level * ENDLESS
        if path[t] >= stop:
            return path[: t + 1]
    return path


def rate(alarms: Sequence[int]) -> Rate:
    """Sum up first alarms, 0 for none within ``CALM`` rows."""
    drawn = np.random.default_rng(len(alarms)).integers(0, len(alarms), (400, len(alarms)))
    again = [realised(list(row)) for row in np.array(alarms)[drawn]]
    return Rate(realised(alarms), float(np.std(again)))


def study(n: int, runs: int, names: Sequence[str] = TRUTHS) -> list[Market]:
    """Measure every detector on every truth; the first truth sets Page and Hinkley's threshold."""
    found, thresholds = [], dict[str, float]()
    with one_blas_thread():
        for name in names:
            seen = watch(name, n, runs)
            if not thresholds:
                thresholds = {feed: _set(seen, k) for k, feed in enumerate(FEEDS)}
            found.append(Market(name, n, runs, _rates(seen, thresholds)))
    return found


def _set(seen: Watched, column: int) -> float:
    paths = [page_path(rows[:, column].tolist(), TOLERANCES[1]) for rows in seen.numbers]
    return calibrated(partial(passages, paths), 1.0, 1000.0)[0]


def _rates(seen: Watched, thresholds: Mapping[str, float]) -> dict[tuple[str, str], Rate]:
    out = {}
    for target in TARGETS:
        for name, paths in ((OURS, seen.own), (RATIO, seen.ratio)):
            out[name, f"{target:g}"] = rate(passages(paths, target))
    for column, feed in enumerate(FEEDS):
        lists = [rows[:, column].tolist() for rows in seen.numbers]
        makers: dict[str, Callable[[], object]] = {
            PAGE: partial(page_hinkley, *USUAL),
            ADWIN: partial(adwin, ADWIN_USUAL),
            SET: partial(page_hinkley, TOLERANCES[1], thresholds[feed]),
        }
        for name, make in makers.items():
            out[name, feed] = rate([first_alarm(make, numbers) for numbers in lists])
    return out
