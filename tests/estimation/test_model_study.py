"""DCC-GARCH on real markets: fits, matrices at every bar, and a refit after a crash."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stream_calib.estimation.calibrated import misfit
from stream_calib.service.replay import replay_effects
from stream_calib.values import Calibration, Event, Fit, Matrix, eigenvalue_floor
from tests.estimation.model_markets import (
    Market,
    crypto,
    crypto_config,
    crypto_ticks,
    currencies,
    dow,
    us_stocks,
)
from tests.estimation.model_study import Walk, newey_west, walk

HOUR_NS = 3_600_000_000_000
CRASH = pd.Timestamp("2021-05-19T13:00").value  # coins are at their lowest at 13:09


def crash_of_coins(folder: Path) -> Market:
    return crypto(folder, "2021-05-18T20:00", "2021-05-19T16:00")._replace(first=900, every=150)


# the bars that a quick version walks through: one fit, and a few hundred to forecast
MARKETS: dict[str, tuple[Callable[[Path], Market], slice]] = {
    "dow": (dow, slice(0, 1200)),
    "us_stocks": (us_stocks, slice(0, 1250)),
    "currencies": (currencies, slice(1250, 2500)),  # to 2009
    "crypto": (crash_of_coins, slice(0, 1200)),
}


@pytest.fixture(scope="module")
def walks(market_data: Path) -> dict[str, Walk]:
    found = {}
    for name, (read, cut) in MARKETS.items():
        market = read(market_data)
        market = market.bars(cut.start, cut.stop)._replace(half_lives={}, pairs=False)
        found[name] = walk(market, grid=(160.0,))
    return found


@pytest.mark.parametrize("name", MARKETS)
def test_fits_are_made_and_sane(walks: dict[str, Walk], name: str) -> None:
    _check_fits(walks[name])


@pytest.mark.parametrize("name", MARKETS)
def test_matrices_of_every_bar_are_positive_definite(walks: dict[str, Walk], name: str) -> None:
    _check_matrices(walks[name])


def test_a_peg_has_a_volatility_of_its_own(walks: dict[str, Walk]) -> None:
    # the krone moves by a thousandth of what the lira moves, and the yen and dollar as others
    walked = walks["currencies"]
    fit = walked.answers[0][1]
    assert isinstance(fit, Fit)
    krone = walked.market.symbols.index("DKK")
    spread = np.nanstd(walked.market.rows.returns, axis=0)
    assert spread[krone] < 0.1 * np.median(spread)
    omega, alpha, beta = fit.arrays["garch"][1:4, krone]
    assert omega > 0.0
    assert alpha + beta < 1.0
    long_run = np.sqrt(omega / (1.0 - alpha - beta))
    # a mean over 1000 bars of squares with heavy tails and long memory
    assert 0.3 < long_run / spread[krone] < 3.0


def test_a_refit_is_installed_after_the_crash(market_data: Path, tmp_path: Path) -> None:
    path, symbols = crypto_ticks(market_data, tmp_path, "2021-05-19T06:00", "2021-05-19T16:00")
    config = crypto_config(symbols, first=300, every=120, window=400)
    matrices: list[Matrix] = []
    events: list[Event] = []
    calibrations: list[Calibration] = []
    for _, effects in replay_effects([path], config):
        matrices += effects.matrices
        events += effects.events
        calibrations += effects.calibrations
    refits = [event for event in events if event.type.startswith("refit")]
    for event in refits:
        sys.stdout.write(f"{pd.Timestamp(event.time_ns)} {event.type} {dict(event.details)}\n")
    # every request is answered before the next bar, by a fit
    for k, asked in enumerate(refits):
        if asked.type == "refit_requested":
            made = refits[k + 1]
            assert made.type in {"refit_installed", "refit_shadowed"}
            assert asked.time_ns == made.time_ns
    alarms = [event for event in events if event.type == "drift_alarm"]
    assert any(CRASH - 2 * HOUR_NS < alarm.time_ns < CRASH for alarm in alarms)
    after = [found for found in calibrations if found.time_ns > CRASH]
    assert len(after) >= 1
    assert after[0].time_ns < CRASH + HOUR_NS
    assert after[0].details["reason"] == "drift"
    window = after[0].details["window"]
    assert isinstance(window, dict)
    assert int(window["from_ns"]) < CRASH < int(window["to_ns"])
    own = [matrix for matrix in matrices if matrix.estimator == "dcc"]
    assert own[-1].model_version == 1 + len(calibrations)
    assert len(own) >= 295  # of ten hours, those after the first fit
    for matrix in own:
        assert np.isfinite(matrix.corr).all()
        assert np.isfinite(matrix.vol).all()
        # a float's worth of rounding below what was repaired to
        assert np.linalg.eigvalsh(matrix.corr)[0] >= 0.5 * eigenvalue_floor(len(matrix.symbols))


@pytest.mark.full
@pytest.mark.parametrize("read", [dow, us_stocks, currencies, crypto])
def test_whole_markets(market_data: Path, read: Callable[[Path], Market]) -> None:
    walked = walk(read(market_data)._replace(pairs=False))
    _check_fits(walked)
    _check_matrices(walked)
    gain = walked.log_score[:, :, 1] - walked.log_score[:, 1:2, 1]
    for k, name in enumerate(walked.models):
        sys.stdout.write(f"{name} over constant: {newey_west(gain[:, k])}\n")


def _check_fits(walked: Walk) -> None:
    n = len(walked.market.symbols)
    for at, fit in walked.answers:
        assert isinstance(fit, Fit), (at, fit)
        assert misfit(fit, n) == ""
        a, b, _ = fit.arrays["dcc"]
        sys.stdout.write(f"bar {at}: a {a:.4f}, b {b:.4f}\n")
        # measured over the four markets: a .007 to .04, b .86 to .992, never at an edge
        assert 0.003 < a < 0.08
        assert 0.8 < b < 0.998
        assert np.isfinite(fit.arrays["target"]).all()  # nothing is left out
        # most have a GARCH; prices that stand still in six minutes of ten have none
        assert np.isnan(fit.arrays["garch"][1]).sum() <= 2


def _check_matrices(walked: Walk) -> None:
    # repaired ones, of all models: finite scores need a Cholesky factor
    assert np.isfinite(walked.log_score[:, :, 1]).all()
    assert np.isfinite(walked.qlike[:, :, 1]).all()
    # without holes what is not repaired is positive definite already
    if not np.isnan(walked.market.rows.returns).any():
        assert (walked.least[:, 0] > walked.floor).all()
        np.testing.assert_array_equal(walked.log_score[..., 0], walked.log_score[..., 1])
