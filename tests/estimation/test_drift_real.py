"""False alarms on real returns whose days are in another order: nothing lasts, all else is real."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stream_calib.estimation.calibration.dcc import fit_dcc
from stream_calib.estimation.drift import DriftDetector
from stream_calib.estimation.garch import GarchVolatility
from stream_calib.estimation.shrinkage import shrink_target
from stream_calib.values import F64, ReturnBlock

NAME = "binance_1m_close_40pairs_20210410_20210520.csv.gz"
N, FIT, WATCHED, ARL0, RUNS = 20, 1000, 4000, 1000.0, 16
DAY = 1440


def quiet_days(folder: Path) -> list[F64]:
    """One-minute returns of whole days before the crash of May 2021."""
    prices = pd.read_csv(folder / "bars" / NAME, index_col=0)
    values = np.log(prices.to_numpy(np.float64)[:, :N])
    returns = np.diff(values, axis=0)[: 30 * DAY]
    days = [returns[k * DAY : (k + 1) * DAY] for k in range(30)]
    return [day for day in days if np.isfinite(day).all() and (day != 0.0).any(axis=0).all()]


def standardised(returns: F64) -> F64:
    volatility = GarchVolatility(returns.shape[1], 60.0, 3.0)
    ones = np.ones(returns.shape)
    block = ReturnBlock(
        np.arange(len(returns)), np.ascontiguousarray(returns), ones, np.ones(len(returns))
    )
    return volatility.standardise(block).returns


@pytest.mark.full
def test_on_shuffled_days_of_coins_the_rate_is_not_far_from_what_was_asked(
    market_data: Path,
) -> None:
    days, bars, alarms = quiet_days(market_data), 0, 0
    for seed in range(RUNS):
        order = np.random.default_rng(seed).permutation(len(days))[:5]
        z = standardised(np.vstack([days[k] for k in order]))[200:]
        fit = fit_dcc(z[:FIT], target=partial(shrink_target, method="qis"))
        before = DriftDetector(fit.params, N, arl0=np.inf)
        before.update(z[:FIT])
        detector = DriftDetector(fit.params, N, arl0=ARL0, seed=seed, inflation=before.dependence())
        for k in range(FIT, FIT + WATCHED, 100):
            found = detector.update(z[k : k + 100])
            if found:
                bars, alarms = bars + found[0].row, alarms + 1
                break
        else:
            bars += WATCHED
    ratio = bars / max(1, alarms) / ARL0
    print(f"{len(days)} days, {RUNS} orders: {alarms} alarms, realised over asked {ratio:.2f}")
    # .43: each day of coins has its own level of correlation, and the model has seen less than one
    assert ratio >= 0.25
