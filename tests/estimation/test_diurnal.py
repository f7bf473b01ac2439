"""The intraday pattern: a U is found, a flat market stays flat, no day knows itself."""

import sys
from datetime import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_calib.estimation.calendar import Calendar
from stream_calib.estimation.diurnal import Diurnal, parabolas
from stream_calib.estimation.ewma import Ewma
from stream_calib.values import F64, I64, ReturnBlock
from tests.contract.test_files_lean import ticks_of

MINUTE = 60 * 10**9
DAY_BARS = 390
NEW_YORK = Calendar("America/New_York", frozenset(range(5)), ((time(9, 30), time(16)),))
U_MINUTES = np.arange(DAY_BARS)
U = 1.0 + 4.0 * np.exp(-U_MINUTES / 25.0) + 1.5 * np.exp(-(389 - U_MINUTES) / 25.0)
U /= U.mean()  # 3.8 at the open, .66 at noon, 1.7 at the close


def ends_of(n_days: int) -> I64:
    """Ends of one-minute bars of so many trading days, over a change of clocks."""
    begin = int(np.datetime64("2024-02-05", "ns").astype(np.int64))
    minutes = begin + MINUTE * np.arange((n_days + 2) * 7 * 24 * 60 // 5 + 4 * 24 * 60)
    ends: I64 = minutes[NEW_YORK.is_open(minutes)][: n_days * DAY_BARS] + MINUTE
    return ends


def simulated(n: int, n_days: int, pattern: F64, seed: int, rho: float = 0.0) -> ReturnBlock:
    """Heavy-tailed returns, each day and symbol on a level of its own.

    Symbol i of the first half is correlated with its like in the second, by ``rho``, and shares
    its level: else mixing days would lower the correlation itself.
    """
    rng = np.random.default_rng(seed)
    z = rng.standard_t(6, (n_days, DAY_BARS, n))
    half = n // 2
    z[:, :, half : 2 * half] *= np.sqrt(1.0 - rho * rho)
    z[:, :, half : 2 * half] += rho * z[:, :, :half]
    level = np.exp(0.4 * rng.standard_normal((n_days, 1, n)))
    level[:, :, half : 2 * half] = level[:, :, :half]
    returns = (1e-4 * z * level * np.sqrt(pattern)[:, None]).reshape(-1, n)
    bars = len(returns)
    return ReturnBlock(ends_of(n_days), returns, np.ones((bars, n)), np.ones(bars))


def new(n: int) -> Diurnal:
    return Diurnal(n, 5 * MINUTE, MINUTE, calendar=NEW_YORK)


def after_20_days(pattern: F64, seed: int) -> tuple[F64, F64]:
    """Return what was found per bin and symbol, and the truth per bin."""
    block = simulated(20, 21, pattern, seed)
    diurnal = new(20)
    diurnal.update(block.rows(0, 20 * DAY_BARS))
    found = diurnal.factor(block.time_ns[20 * DAY_BARS :])
    return found[2::5], pattern.reshape(78, 5).mean(axis=1)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_u_is_found_after_20_days(seed: int) -> None:
    found, truth = after_20_days(U, seed)
    off = found / truth[:, None] - 1.0
    rms, mean = float(np.sqrt((off**2).mean())), float(np.abs(off.mean(axis=1)).max())
    sys.stdout.write(f"seed {seed}: rms {rms:.3f}, worst mean over symbols {mean:.3f}\n")
    # a bin is known from about 95 squares of variance 5 (t with 6 degrees of freedom, capped by
    # bin), a third of it after smoothing: .13
    assert rms < 0.15
    # the worst of 78 means of 20, each with a standard error of .03
    assert mean < 0.13


@pytest.mark.parametrize("seed", [4, 5])
def test_a_flat_market_stays_flat(seed: int) -> None:
    found, _ = after_20_days(np.ones(DAY_BARS), seed)
    assert np.sqrt(((found - 1.0) ** 2).mean()) < 0.15  # the noise alone, as above
    assert abs(found.mean() - 1.0) < 1e-12  # bins of a session are of one length here


def test_a_day_does_not_know_itself() -> None:
    block = simulated(3, 15, U, seed=6)
    cut = 14 * DAY_BARS
    wild = block.returns.copy()
    wild[cut:] *= np.linspace(1.0, 50.0, DAY_BARS)[:, None]
    other = ReturnBlock(block.time_ns, wild, block.exposure, block.elapsed_bars)
    assert new(3).update(other).tobytes() == new(3).update(block).tobytes()


def test_factors_are_one_until_days_are_known_then_come_in_by_degrees() -> None:
    block = simulated(50, 12, U, seed=7)
    factors = new(50).update(block).reshape(12, DAY_BARS, 50)
    assert (factors[:3] == 1.0).all()  # none, one and two days known
    opening = factors[:, 2].mean(axis=1)
    assert (np.diff(opening[2:11]) > 0.05).all()
    assert 0.9 < opening[10] / U[:5].mean() < 1.1


def test_reading_ahead_is_what_the_next_bars_get() -> None:
    block = simulated(3, 14, U, seed=8)
    for stop in (13 * DAY_BARS - 3, 13 * DAY_BARS, 13 * DAY_BARS + 7):
        diurnal = new(3)
        diurnal.update(block.rows(0, stop))
        before = {name: array.tobytes() for name, array in diurnal.state().items()}
        ahead = diurnal.factor(block.time_ns[stop : stop + 3])
        assert {name: array.tobytes() for name, array in diurnal.state().items()} == before
        assert ahead.tobytes() == diurnal.update(block.rows(stop, stop + 3)).tobytes()


@given(st.integers(0, 2**32 - 1), st.data())
def test_cuts_saves_and_orders_cannot_be_seen(seed: int, data: st.DataObject) -> None:
    block = simulated(4, 5, U, seed)
    cut = data.draw(st.integers(0, len(block.time_ns)))
    order = data.draw(st.permutations(range(4)))
    whole, part, turned = new(4), new(4), new(4)
    factors = whole.update(block)
    first = part.update(block.rows(0, cut))
    part = Diurnal.from_state(part.state(), NEW_YORK)
    assert np.concatenate([first, part.update(block.rows(cut, len(block.time_ns)))]).tobytes() == (
        factors.tobytes()
    )
    assert [a.tobytes() for a in part.state().values()] == [
        a.tobytes() for a in whole.state().values()
    ]
    returns = np.ascontiguousarray(block.returns[:, order])
    moved = ReturnBlock(block.time_ns, returns, block.exposure, block.elapsed_bars)
    assert turned.update(moved).tobytes() == factors[:, order].tobytes()


def test_half_days_and_closed_times_do_no_harm() -> None:
    block = simulated(4, 21, U, seed=9)
    early = (np.arange(len(block.time_ns)) % DAY_BARS < 200) | (
        np.arange(len(block.time_ns)) // DAY_BARS % 3 > 0
    )
    kept = ReturnBlock(
        block.time_ns[early], block.returns[early], block.exposure[early], block.elapsed_bars[early]
    )
    diurnal = new(4)
    diurnal.update(kept)
    at = block.time_ns[-DAY_BARS:][2::5] + 24 * 3600 * 10**9
    found = diurnal.factor(at).mean(axis=1)
    truth = U.reshape(78, 5).mean(axis=1)
    np.testing.assert_allclose(found, truth, rtol=0.35)  # four symbols: .07, over 78 bins, edges
    night = block.time_ns[-1:] + 5 * 3600 * 10**9
    assert (diurnal.factor(night) == 1.0).all()


def rmse_of_correlation(seed: int, half_life_bars: float) -> tuple[float, float, float]:
    """Of 100 pairs' EWMA: returns as they are, without the pattern found, without the true one."""
    rho, n, n_days = 0.5, 200, 26
    block = simulated(n, n_days, U, seed, rho)
    factors = new(n).update(block)
    truth = np.broadcast_to(np.tile(U, n_days)[:, None], factors.shape)
    errors = []
    pairs = np.arange(100), np.arange(100, 200)
    for divisor in (np.ones_like(factors), factors, truth):
        ewma = Ewma(n, half_life_bars)
        squares = []
        for t in range(20 * DAY_BARS, n_days * DAY_BARS, 30):
            ewma.update(block.returns[t : t + 30] / np.sqrt(divisor[t : t + 30]))
            if t >= 22 * DAY_BARS:
                squares.append(((ewma.correlation().corr[pairs] - rho) ** 2).mean())
        errors.append(float(np.sqrt(np.mean(squares))))
    return errors[0], errors[1], errors[2]


@pytest.mark.parametrize(("half_life_bars", "at_most"), [(60.0, 0.99), (390.0, 0.95)])
def test_correlations_are_closer_once_the_pattern_is_taken_out(
    half_life_bars: float, at_most: float
) -> None:
    plain, without, ideal = rmse_of_correlation(10, half_life_bars)
    sys.stdout.write(f"rmse {plain:.4f}, {without:.4f}, truth known {ideal:.4f}\n")
    # over six seeds: 1.4 to 3.7 % less in an hour, 6.7 to 12.3 % in a day. The mean of the squared
    # pattern is 1.25, so 11 % is what an average over whole days can lose to it
    assert without < at_most * plain
    assert without < 1.03 * ideal


def test_parabolas_are_laid_through_exactly() -> None:
    for around, n_bins, width in ((False, 9, 5), (True, 12, 7), (False, 7, 7)):
        weights, first = parabolas(n_bins, width, around=around)
        np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-14)
        if not around:
            x = np.arange(n_bins, dtype=np.float64)
            curve = 3.0 - 2.0 * x + 0.5 * x * x
            got = [weights[b] @ curve[first[b] : first[b] + width] for b in range(n_bins)]
            np.testing.assert_allclose(got, curve, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": 0},
        {"bin_ns": 0},
        {"bar_ns": 10 * MINUTE},
        {"half_life_days": 0.0},
        {"smooth_bins": 3},
        {"smooth_bins": 6},
        {"smooth_bins": 79},
    ],
)
def test_unusable_settings_are_refused(wrong: dict[str, float]) -> None:
    usual = {"n": 2, "bin_ns": 5 * MINUTE, "bar_ns": MINUTE, "calendar": NEW_YORK}
    with pytest.raises(ValueError, match="must be"):
        Diurnal(**(usual | wrong))  # type: ignore[arg-type]


def test_a_block_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="block is"):
        new(3).update(simulated(2, 1, U, 0))


def test_coins_have_a_pattern_that_holds_from_day_to_day(market_data: Path) -> None:
    path = market_data / "bars" / "binance_1m_close_40pairs_20210410_20210520.csv.gz"
    table = pd.read_csv(path, index_col=0)
    table = table[[name for name in table.columns if str(name).endswith("USDT")]].dropna(how="all")
    prices = np.log(table.to_numpy())
    returns = np.vstack([np.full(prices.shape[1], np.nan), np.diff(prices, axis=0)])
    returns[np.append(0, np.diff(table.index)) != 60_000] = np.nan
    returns = np.ascontiguousarray(returns)
    exposure = np.where(np.isnan(returns), 0.0, 1.0)
    ends = table.index.to_numpy(np.int64) * 10**6 + MINUTE
    diurnal = Diurnal(returns.shape[1], 15 * MINUTE, MINUTE)
    factors = diurnal.update(ReturnBlock(ends, returns, exposure, np.ones(len(ends))))
    last = ends > ends[0] + 12 * 24 * 3600 * 10**9
    assert factors[last].min() > 0.1
    assert factors[last].max() < 6.0
    # out of sample: quasi-likelihood loss per day's own level, with the pattern and without
    day = ends[last] // (24 * 3600 * 10**9)
    r2, f = returns[last] ** 2, factors[last]
    gains = []
    for date in np.unique(day):
        at = day == date
        for i in range(returns.shape[1]):
            seen = ~np.isnan(r2[at, i])
            x, g = r2[at, i][seen], f[at, i][seen]
            if len(x) > 700 and x.sum() > 0:
                flat = np.log(x.mean())
                gains.append(flat - np.log(g).mean() - np.log((x / g).mean()))
    gain = float(np.mean(gains))
    sys.stdout.write(f"gain of log likelihood per bar {gain / 2:.4f}, days {len(gains)}\n")
    assert gain > 0.0


@pytest.mark.full
def test_a_second_real_day_is_still_one_day_too_few(market_data: Path) -> None:
    """Two days of SPY are not enough to say anything: the factor stays 1, the U is there."""
    folder = market_data / "ticks" / "lean" / "equity" / "usa" / "tick" / "spy"
    blocks = []
    for name in ("20131007", "20131008"):
        table = pd.DataFrame(ticks_of(folder / f"{name}_trade.zip"))
        table = table[NEW_YORK.is_open(table["time"].to_numpy(np.int64))]
        last = table.groupby(table["time"] // MINUTE)["price"].last()
        returns = np.diff(np.log(last.to_numpy()))[:, None]
        ends = (last.index.to_numpy(np.int64)[1:] + 1) * MINUTE
        blocks.append(ReturnBlock(ends, returns, np.ones_like(returns), np.ones(len(ends))))
    diurnal = new(1)
    for block in blocks:
        assert (diurnal.update(block) == 1.0).all()
    squares = np.concatenate([b.returns[:, 0] ** 2 for b in blocks])
    minutes = np.concatenate([NEW_YORK.place(b.time_ns - 1)[1] // MINUTE for b in blocks])
    edges = (minutes < 30) | (minutes >= 360)
    ratio = squares[edges].mean() / squares[~edges].mean()
    sys.stdout.write(f"first and last half hour to the rest: {ratio:.2f}\n")
    assert ratio > 1.2
