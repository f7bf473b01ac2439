"""Hayashi-Yoshida per tick: linear in the number of assets, beside one NumPy row."""

import time
from collections.abc import Callable

import numpy as np

from stream_calib.estimation.hayashi_yoshida import HayashiYoshida

SIZES = (10, 50, 100, 200, 500, 1000)
ROUNDS = 15
TICKS = 4000
# 100 to 1000 assets: ten times the work, and the state leaves the cache on the way
GROWTH_MAX = 15.0
EXPONENT_MAX = 1.2  # cost per tick as a power of n, from 50 to 1000; quadratic would be 2


def bench_one_tick() -> None:
    print("\nHayashi-Yoshida, one tick, nanoseconds (least of the rounds), and ratios")
    print(f"  {'n':>5}{'apart':>10}{'ties of 10':>12}{'fading':>10}{'NumPy row':>11}", end="")
    print(f"{'ns per asset':>14}{'NumPy / ours':>14}")
    cost: dict[int, float] = {}
    for n in SIZES:
        apart, ties, fading, numpy = _measure(n)
        cost[n] = apart
        print(f"  {n:>5}{apart:>10.0f}{ties:>12.0f}{fading:>10.0f}{numpy:>11.0f}", end="")
        print(f"{apart / n:>14.2f}{numpy / apart:>14.1f}")
    growth = cost[1000] / cost[100]
    print(f"  n = 1000 against n = 100: {growth:.1f} (linear: 10, quadratic: 100)")
    some = [n for n in SIZES if n >= 50]
    exponent = np.polyfit(np.log(some), np.log([cost[n] for n in some]), 1)[0]
    print(f"  n = 50 to 1000: grows as n to the {exponent:.2f}")
    assert growth <= GROWTH_MAX
    assert exponent <= EXPONENT_MAX


def _measure(n: int) -> list[float]:
    rng = np.random.default_rng(1)
    asset = rng.integers(0, n, TICKS)
    log_price = 4.6 + 1e-4 * rng.normal(size=TICKS)
    apart = np.arange(1, TICKS + 1) * 1000
    together = np.repeat(np.arange(1, TICKS // 10 + 1) * 1000, 10)
    then, products = np.zeros((2, n, n))
    price = np.zeros(n)

    def with_numpy() -> None:
        # the same row of work as it would be written without the compiler; no ties, no decay
        for i, p in zip(asset[:400].tolist(), log_price[:400].tolist(), strict=True):
            products[i] += (p - price[i]) * (price - then[i])
            price[i] = p
            then[i] = price

    ways: list[tuple[Callable[[], object], int]] = [
        (_feeding(n, apart, asset, log_price, None), TICKS),
        (_feeding(n, together, asset, log_price, None), TICKS),
        (_feeding(n, apart, asset, log_price, 1e6), TICKS),
        (with_numpy, 400),
    ]
    least = [np.inf] * len(ways)
    for _ in range(ROUNDS):
        for i, (way, ticks) in enumerate(ways):
            started_s = time.perf_counter()
            way()
            least[i] = min(least[i], (time.perf_counter() - started_s) / ticks * 1e9)
    return least


def _feeding(
    n: int,
    time_ns: np.ndarray,
    asset: np.ndarray,
    log_price: np.ndarray,
    half_life_ns: float | None,
) -> Callable[[], None]:
    # every round goes on where the one before ended; first ticks are over before the first
    estimator = HayashiYoshida(n, half_life_ns)
    estimator.update(np.zeros(n, np.int64), np.arange(n), np.full(n, 4.6))
    start_ns = 0

    def feed() -> None:
        nonlocal start_ns
        estimator.update(time_ns + start_ns, asset, log_price)
        start_ns += int(time_ns[-1])

    return feed
