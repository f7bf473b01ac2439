"""False alarms and delays of detectors on fitted models, over many drawn markets."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from stream_calib.estimation.calibration.dcc import fit_dcc
from stream_calib.estimation.dcc_likelihood import dcc_filter
from stream_calib.estimation.drift import DriftDetector
from stream_calib.values import F64, DccParams
from tests.estimation.truths import Change, Kind, broken, tilted, truth

FITTED = 1000  # rows that the model is fitted to
Rows = Callable[[DccParams, F64, float], list[int]]  # model, rows, ARL0 -> rows of the alarms


class Rate(NamedTuple):
    """Rows to an alarm over those asked for, over all runs, and its standard error."""

    ratio: float
    error: float
    alarms: int


def drift_rows(params: DccParams, z: F64, arl0: float) -> list[int]:
    """Run the detector."""
    detector = DriftDetector(params, z.shape[1], arl0=arl0)
    return [alarm.row for alarm in detector.update(z)]


def likelihood_ratio_rows(params: DccParams, z: F64, arl0: float) -> list[int]:
    """Run what is usually done: chains of normal likelihood ratios of tilted targets.

    Each alternative is the fitted DCC with another target; nothing is calibrated.
    """
    tilts: tuple[tuple[Change, float], ...] = (
        ("fusing", 0.15),
        ("fusing", 0.35),
        ("loosening", 0.2),
        ("loosening", 0.45),
    )
    own = _log_densities(params, z)
    ratios = [
        _log_densities(replace(params, target=tilted(params.target, change, g)), z) - own
        for change, g in tilts
    ]
    chains, rows = np.zeros(len(tilts)), []
    for t, bets in enumerate(np.exp(np.minimum(np.array(ratios).T, 300.0))):
        chains = np.minimum((chains + 1.0) * bets, 1e200)
        if chains.mean() >= arl0:
            rows.append(t + 1)
            chains[:] = 0.0
    return rows


def _log_densities(params: DccParams, z: F64) -> F64:
    path = dcc_filter(z, params.a, params.b, params.target, model=params.model)[:-1]
    solved = np.linalg.solve(path, z[:, :, None])[:, :, 0]
    densities: F64 = -0.5 * (np.linalg.slogdet(path)[1] + np.sum(z * solved, axis=1))
    return densities


def false_alarm_rate(
    name: str, n: int, runs: range, rows: int, arl0: float, alarms_of: Rows = drift_rows
) -> Rate:
    """Count alarms in markets without a break, each with a model fitted to its first rows."""
    counts = []
    for seed in runs:
        z = truth(name, n, FITTED + rows, seed)
        counts.append(len(alarms_of(fit_dcc(z[:FITTED]).params, z[FITTED:], arl0)))
    total = sum(counts)
    ratio = rows * len(counts) / max(total, 1) / arl0
    # alarms of one market are not independent: the spread over markets tells the error
    spread = np.std(counts, ddof=1) * np.sqrt(len(counts)) if len(counts) > 1 else np.inf
    return Rate(ratio, float(ratio * spread / max(total, 1)), total)


def delays(
    name: str,
    n: int,
    runs: range,
    change: Change,
    g: float,
    kind: Kind,
    before: int = 500,
    arl0: float = 2000.0,
    after: int = 600,
    alarms_of: Rows = drift_rows,
) -> F64:
    """Return rows from the break to the first alarm after it, ``after`` where there is none."""
    found = []
    for seed in runs:
        z = broken(name, n, FITTED + before, after, change, g, kind, seed)
        rows = alarms_of(fit_dcc(z[:FITTED]).params, z[FITTED:], arl0)
        late = [row - before for row in rows if row > before]
        found.append(late[0] if late else after)
    return np.array(found, np.float64)
