"""The filter of bad ticks and the table of quotes: what they find, and what they leave alone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from stream_calib.estimation.filtering import TickFilter
from stream_calib.estimation.quotes import QuoteTable
from stream_calib.kernels.filtering import HELD, KEEP, OUTLIER
from stream_calib.kernels.quotes import CROSSED, PRICED, SPREAD, UNUSED
from stream_calib.values import F64, I64, SECOND_NS
from tests.contract.test_files_lean import ticks_of

N, SD = 100_000, 1e-4


def judged(price: F64, time_ns: I64 | None = None, **settings: float) -> np.ndarray:
    n = len(price)
    times = np.arange(n) * (SECOND_NS // 2) if time_ns is None else time_ns
    filter_ = TickFilter(1, SECOND_NS, **settings)  # type: ignore[arg-type]
    return filter_.judge(times, np.zeros(n, np.int64), price).code


def walk(law: str, seed: int) -> tuple[F64, np.random.Generator]:
    rng = np.random.default_rng(seed)
    moves = rng.standard_normal(N) if law == "normal" else rng.standard_t(4, N) / np.sqrt(2.0)
    return np.round(100.0 * np.exp(SD * np.cumsum(moves)), 4), rng


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("law", ["normal", "t4"])
def test_clean_ticks_are_left_alone(law: str, seed: int) -> None:
    price, _ = walk(law, seed)
    # of 100,000; a drop needs a move beyond eight deviations and another one back
    assert (judged(price) == OUTLIER).sum() <= 2


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("law", ["normal", "t4"])
@pytest.mark.parametrize("size", [15.0, 50.0])
def test_prints_far_off_are_found(law: str, size: float, seed: int) -> None:
    price, rng = walk(law, seed)
    bad = rng.random(N) < 0.002
    price[bad] *= np.exp(size * SD * rng.choice([-1.0, 1.0], int(bad.sum())))
    code = judged(price)
    # two in a row that agree are believed: .2 % of them; next to a large move some pass as one
    assert (code[bad] == OUTLIER).mean() > 0.96
    assert (code[~bad] == OUTLIER).sum() <= 3


@pytest.mark.parametrize("size", [0.002, 0.01, 0.3])
def test_a_jump_that_lasts_is_followed_by_the_next_tick(size: float) -> None:
    price, _ = walk("normal", 7)
    price[N // 2 :] *= 1.0 + size
    code = judged(price)
    assert (code[N // 2 + 1 :] == KEEP).all()
    assert code[N // 2] != OUTLIER


def test_a_price_on_a_grid_that_stood_still_may_take_a_step() -> None:
    price = np.full(500, 14.0)
    price[250:] = 14.01
    price[260::7] = 14.0
    price[400] = 14.6  # and no more than that
    code = judged(price)
    assert code[400] == OUTLIER
    assert (np.delete(code, 400) != OUTLIER).all()


def test_the_last_tick_far_off_waits() -> None:
    price, _ = walk("normal", 3)
    price[-1] *= 1.05
    assert judged(price)[-1] == HELD


COUNTED = {"spy": 250_601, "bac": 88_172, "ibm": 24_293, "aig": 25_351}


@pytest.mark.parametrize("name", COUNTED)
def test_of_a_days_trades_few_are_dropped_and_those_stand_out(name: str, market_data: Path) -> None:
    path = market_data / "ticks/lean/equity/usa/tick" / name / "20131007_trade.zip"
    ticks = ticks_of(path)
    assert len(ticks) == COUNTED[name]
    times = np.array([tick["time"] for tick in ticks])
    price = np.array([tick["price"] for tick in ticks])
    code = judged(price, times)
    dropped = np.flatnonzero(code == OUTLIER)
    # looked at one by one: prints of other venues, off by many ticks, back at the next trade
    assert 2 <= len(dropped) <= 0.0015 * len(price)
    around = np.array([np.median(price[max(0, i - 10) : i + 11]) for i in dropped])
    usual = np.median(np.abs(np.diff(price))[np.diff(price) != 0.0])
    assert (np.abs(price[dropped] - around) > 2.0 * usual).mean() > 0.9


# quotes


def priced(
    policy: str, rows: Sequence[tuple[float, ...]], **settings: float
) -> tuple[F64, list[int]]:
    columns = np.array(rows, dtype=np.float64).reshape(-1, 5).T
    table = QuoteTable(1, policy, **settings)  # type: ignore[arg-type]
    found = table.price(np.zeros(len(rows), np.int64), *(c.copy() for c in columns))
    return found.price, found.code.tolist()


NO = np.nan


def test_one_side_alone_makes_no_price_and_the_second_one_does() -> None:
    price, code = priced("mid", [(NO, 99.0, NO, NO, NO), (NO, NO, 101.0, NO, NO)])
    assert code == [UNUSED, PRICED]
    assert price[1] == 100.0


def test_while_sides_are_crossed_there_is_no_price_and_then_there_is() -> None:
    rows = [(NO, 99.0, 100.0, NO, NO), (NO, 101.0, NO, NO, NO), (NO, NO, 102.0, NO, NO)]
    price, code = priced("mid", rows)
    assert code == [PRICED, CROSSED, PRICED]
    assert price[2] == 101.5


def test_a_microprice_weighs_each_side_by_the_size_of_the_other() -> None:
    price, code = priced("microprice", [(NO, 99.0, 101.0, 300.0, 100.0)])
    assert code == [PRICED]
    assert price[0] == (99.0 * 100.0 + 101.0 * 300.0) / 400.0


def test_a_trade_is_no_mid_and_a_quote_no_trade() -> None:
    assert priced("mid", [(100.0, NO, NO, NO, NO)])[1] == [UNUSED]
    assert priced("last", [(NO, 99.0, 101.0, NO, NO)])[1] == [UNUSED]


def test_a_quote_much_wider_than_usual_is_refused_until_it_is_usual() -> None:
    rows = [(NO, 100.0 - 0.01, 100.0 + 0.01, NO, NO)] * 40
    rows += [(NO, 90.0, 110.0, NO, NO)] * 50
    _, code = priced("mid", rows)
    assert code[:40] == [PRICED] * 40
    assert code[40:60] == [SPREAD] * 20
    assert code[-1] == PRICED
