"""Trading time of one bar, and what ageing by group costs the EWMA, beside one group."""

import time
from collections.abc import Callable
from datetime import time as clock_time

import numpy as np

from stream_calib.estimation.calendar import ALWAYS_OPEN, Calendar
from stream_calib.estimation.ewma import Ewma
from stream_calib.estimation.trading_clock import TradingClock
from stream_calib.estimation.two_scale import TwoScale
from stream_calib.values import F64, ReturnBlock

SIZES = (100, 1000)
GROUPS = (1, 2, 5)
ROUNDS = 60
SECOND = 10**9
NOON = int(np.datetime64("2024-06-05T14:00", "ns").astype(np.int64))
WEEK_DAYS = frozenset(range(5))
CALENDARS = (
    Calendar("America/New_York", WEEK_DAYS, ((clock_time(9, 30), clock_time(16)),)),
    Calendar("Asia/Tokyo", WEEK_DAYS, ((clock_time(9), clock_time(15, 30)),)),
    Calendar("Europe/London", WEEK_DAYS, ((clock_time(8), clock_time(16, 30)),)),
    Calendar("America/Chicago", WEEK_DAYS, ((clock_time(17), clock_time(16)),)),
    ALWAYS_OPEN,
)


def bench_one_bar() -> None:
    print(
        "\nOne bar, microseconds (least of the rounds): trading time asked for one bar and per bar"
    )
    print("of 100; EWMA and two scales (12 bars) where the second market is closed, and with one")
    print("group and all open; ratio of the EWMA to one group with the same symbols missing")
    print(f"  {'n':>5}{'G':>3}{'elapsed 1':>11}{'of 100':>8}{'open mask':>11}", end="")
    print(f"{'EWMA':>9}{'one group':>11}{'ratio':>7}{'two scales':>12}{'one group':>11}")
    for n in SIZES:
        for n_groups in GROUPS:
            one, many, mask, ewma, plain, scales, scales_plain = _measure(n, n_groups)
            print(f"  {n:>5}{n_groups:>3}{one:>11.1f}{many / 100:>8.2f}{mask:>11.1f}", end="")
            print(f"{ewma:>9.2f}{plain:>11.2f}{ewma / plain:>7.2f}", end="")
            print(f"{scales:>12.2f}{scales_plain:>11.2f}")
            if n == 1000:
                assert ewma / plain <= 1.3


def _measure(n: int, n_groups: int) -> list[float]:
    k = 200 if n < 500 else 20
    rng = np.random.default_rng(1)
    group = np.arange(n) % n_groups
    clock = TradingClock(CALENDARS[:n_groups], group, SECOND, 600)
    ends = NOON + SECOND * np.arange(1, k + 1)
    hundred = NOON + SECOND * np.arange(1, 101)
    ticks_ns, asset = NOON + rng.integers(0, SECOND, n), np.arange(n)
    elapsed = clock.elapsed(NOON, ends)
    returns: F64 = rng.standard_normal((k, n))
    returns[:, elapsed[0].diagonal()[group] == 0.0] = np.nan
    exposure = np.where(np.isnan(returns), 0.0, 1.0)
    by_group = ReturnBlock(ends, returns, exposure, elapsed)
    together = ReturnBlock(ends, returns, exposure, np.ones(k))
    ewmas = Ewma(n, 3600.0, "time", group), Ewma(n, 3600.0, "time")
    scales = TwoScale(n, 3600.0, 12, "time", group), TwoScale(n, 3600.0, 12, "time")
    ways: list[tuple[Callable[[], object], int]] = [
        (lambda: clock.elapsed(NOON, ends[:1]), 1),
        (lambda: clock.elapsed(NOON, hundred), 1),
        (lambda: clock.open_mask(ticks_ns, asset), 1),
        (lambda: ewmas[0].update(by_group), k),
        (lambda: ewmas[1].update(together), k),
        (lambda: scales[0].update(by_group), k),
        (lambda: scales[1].update(together), k),
    ]
    least = [np.inf] * len(ways)
    for _ in range(ROUNDS):
        for i, (way, rows) in enumerate(ways):
            started_s = time.perf_counter()
            way()
            least[i] = min(least[i], (time.perf_counter() - started_s) / rows * 1e6)
    return least
