"""What the engine's own cycle makes good of a break, by the measure of ``tests.estimation.loops``.

Volatilities are constant, but the engine does not know it: it fits them, and a DCC, as always.
"""

from collections.abc import Sequence

import numpy as np

from stream_calib.engine.reordering import turned
from stream_calib.estimation.calibrated import BY_NAME, dcc_params
from stream_calib.estimation.calibration.model import calibrate
from stream_calib.estimation.dcc_model import FIT_LAYOUT
from stream_calib.values import F64, Fit, FitFailure, FitRequest
from tests.engine.driver import settings
from tests.engine.regimes import Regimes, names
from tests.estimation.loops import Happened, Recovery, begun, excess, oracle_losses
from tests.estimation.truths import Change

FITTED, BEFORE, AFTER = 2000, 600, 125  # bars: of the first fit, until the break, and after it
SCALE = 0.01  # a bar's deviation
TOLD = {
    "drift_alarm": "alarm",
    "refit_shadowed": "fitted",
    "refit_installed": "installed",
    "refit_rejected": "rejected",
    "refit_rolled_back": "rolled_back",
    "drift_refuted": "refuted",
}


def cycle_recovery(
    n: int, seed: int, change: Change, g: float, marks: Sequence[int], name: str = "three_factors"
) -> Recovery:
    """Run the model half of a universe through a break, beside one that is told nothing of drift.

    Both have the same first fit, and the oracles begin with what it says.
    """
    _, market = begun(n, seed, change, g, (0, FITTED + BEFORE, AFTER), perfect=True, name=name)
    loop = _regimes(n, "conformal").feed(SCALE * market.z)
    first = loop.answers[0]
    assert isinstance(first, Fit)

    def answer(_: FitRequest) -> Fit | FitFailure:
        return first

    never = _regimes(n, "none", answer).feed(SCALE * market.z)
    never_losses, loop_losses = (_losses(run, market.corr, marks) for run in (never, loop))
    happened = [
        Happened(bar, TOLD[turn.type], 0)
        for bar, turn in loop.turns
        if turn.type in TOLD and bar > FITTED
    ]
    oracle = oracle_losses(dcc_params(_as_listed(first, n)), market, marks, never_losses)
    return Recovery(marks, never_losses, loop_losses, oracle, happened)


def _regimes(n: int, detector: str, answer: object = calibrate) -> Regimes:
    dcc = {"bar": "1s", "window_bars": 3000, "first_fit_bars": FITTED, "refit_bars": 0}
    config = settings(names(n), universe__dcc=dcc, universe__drift={"detector": detector})
    return Regimes(config, answer)  # type: ignore[arg-type]


def _as_listed(fit: Fit, n: int) -> Fit:
    assert BY_NAME in fit.arrays
    places = np.argsort(np.argsort(np.array(names(n))))
    return Fit(fit.model, turned(fit.arrays, FIT_LAYOUT, places, n))


def _losses(run: Regimes, truth: F64, marks: Sequence[int]) -> F64:
    first = run.bars - len(run.forecasts) + 1  # bars that the first forecast had seen
    at = [FITTED + BEFORE + mark for mark in marks]
    return np.array([excess(run.forecasts[bar - first], truth[bar]) for bar in at])
