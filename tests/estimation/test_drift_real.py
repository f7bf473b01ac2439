"""False alarms on real returns whose days are in another order: nothing lasts, all else is real."""

from collections.abc import Callable
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

MINUTES = "binance_1m_close_40pairs_20210410_20210520.csv.gz"
FIVE_MINUTES = "binance_5m_close_16pairs_20201201_20210717.csv.gz"
WATCHED, ARL0, RUNS = 4000, 1000.0, 16


def whole_days(values: F64, per_day: int) -> list[F64]:
    """Returns of the days in which every symbol traded all the time."""
    returns = np.diff(np.log(values), axis=0)
    days = [returns[k : k + per_day] for k in range(0, len(returns) - per_day + 1, per_day)]
    return [day for day in days if np.isfinite(day).all() and (day != 0.0).any(axis=0).all()]


def quiet_minutes(folder: Path) -> list[F64]:
    """One-minute returns of 20 coins before the crash of May 2021."""
    prices = pd.read_csv(folder / "bars" / MINUTES, index_col=0).to_numpy(np.float64)
    return whole_days(prices[: 30 * 1440 + 1, :20], 1440)


def five_minutes(folder: Path) -> list[F64]:
    """Five-minute returns of half a year, of the coins that were there from its beginning."""
    prices = pd.read_csv(folder / "bars" / FIVE_MINUTES, index_col=0).to_numpy(np.float64)
    early = np.isfinite(prices[:28_800]).mean(axis=0) > 0.99
    return whole_days(prices[:, early], 288)


def standardised(returns: F64) -> F64:
    volatility = GarchVolatility(returns.shape[1], 60.0, 3.0)
    ones = np.ones(returns.shape)
    block = ReturnBlock(
        np.arange(len(returns)), np.ascontiguousarray(returns), ones, np.ones(len(returns))
    )
    return volatility.standardise(block).returns


@pytest.mark.full
@pytest.mark.parametrize(
    ("data", "fitted", "least"),
    [
        # each day of coins has its own level of correlation: a model that has seen less than a
        # few of them takes the next one for a shift. Measured: .43, .77, 1.06, .60, .85
        (quiet_minutes, 1000, 0.25),
        (quiet_minutes, 2000, 0.7),  # the criterion, from here on
        (quiet_minutes, 4000, 0.7),
        (five_minutes, 1000, 0.4),
        (five_minutes, 4000, 0.7),
    ],
)
def test_on_shuffled_days_of_coins_the_rate_is_what_was_asked_once_days_were_seen(
    market_data: Path, data: Callable[[Path], list[F64]], fitted: int, least: float
) -> None:
    days, bars, alarms = data(market_data), 0, 0
    n = days[0].shape[1]
    needed = -(-(fitted + WATCHED + 200) // len(days[0]))
    for seed in range(RUNS):
        order = np.random.default_rng(seed).permutation(len(days))[:needed]
        z = standardised(np.vstack([days[k] for k in order]))[200:]
        fit = fit_dcc(z[:fitted], target=partial(shrink_target, method="qis"))
        before = DriftDetector(fit.params, n, arl0=np.inf)
        before.update(z[:fitted])
        detector = DriftDetector(fit.params, n, arl0=ARL0, seed=seed, inflation=before.dependence())
        for k in range(fitted, fitted + WATCHED, 100):
            found = detector.update(z[k : k + 100])
            if found:
                bars, alarms = bars + found[0].row, alarms + 1
                break
        else:
            bars += WATCHED
    ratio = bars / max(1, alarms) / ARL0
    print(f"{n} coins, {len(days)} days, fitted to {fitted} bars: realised over asked {ratio:.2f}")
    assert ratio >= least
