"""The two-scale update of one bar, beside scaling the same memory in place and beside NumPy."""

import time
from collections.abc import Callable

import numba
import numpy as np

from stream_calib.estimation.two_scale import StampedBlock, TwoScale
from stream_calib.values import F64

SIZES = (10, 50, 100, 500, 1000)
BARS_PER_WINDOW = 12
ROUNDS = 60


@numba.njit("void(f8[:,::1], f8, i8)", nogil=True)
def scale_in_place(sums: np.ndarray, factor: float, k: int) -> None:
    """Touch what the update touches, with one multiplication each: the physical limit."""
    for _ in range(k):
        for row in range(sums.shape[0]):
            for i in range(sums.shape[1]):
                sums[row, i] *= factor


def bench_one_bar() -> None:
    print("\nTwo-scale update of one bar, microseconds (least of the rounds), and ratios")
    print(f"  {'n':>5}{'all tick':>10}{'half tick':>11}{'read':>10}{'scaling':>10}", end="")
    print(f"{'NumPy':>10}{'x scaling':>11}{'NumPy / ours':>14}")
    for n in SIZES:
        ours, gaps, read, scaling, numpy = _measure(n)
        print(f"  {n:>5}{ours:>10.2f}{gaps:>11.2f}{read:>10.1f}{scaling:>10.2f}", end="")
        print(f"{numpy:>10.1f}{ours / scaling:>11.2f}{numpy / ours:>14.1f}")
        if n == 1000:
            assert ours / scaling <= 2.5
            assert numpy / ours >= 10.0


def _block(n: int, m: int, ticking: float) -> StampedBlock:
    rng = np.random.default_rng(1)
    ticks = rng.random((m, n)) < ticking
    ticks[0] = True
    returns = np.where(ticks, rng.standard_normal((m, n)), np.nan)
    bars = np.where(ticks, np.arange(m)[:, None], 0)
    before = np.maximum.accumulate(bars, axis=0)
    exposure = np.zeros((m, n))
    exposure[1:] = np.where(ticks[1:], np.arange(1, m)[:, None] - before[:-1], 0.0)
    returns[0] = np.nan
    age = np.where(ticks, rng.random((m, n)), np.nan)
    return StampedBlock(np.arange(m), returns, exposure, np.ones(m), age)


def _measure(n: int) -> list[float]:
    m = 400 if n < 500 else 20
    full, some = _block(n, m, 1.1), _block(n, m, 0.5)
    sums = np.ones((3, n * (n + 1) // 2))
    begin, end = np.zeros(n), np.full(n, 12.0) + np.random.default_rng(2).random(n)
    products, overlaps, overlaps2 = np.ones((3, n, n))
    one, other = (TwoScale(n, 1440.0, BARS_PER_WINDOW, "time") for _ in range(2))

    def with_numpy() -> None:
        # three sums over full squares, as the equations are usually written down
        for t in range(max(1, m // 20)):
            x: F64 = full.returns[t]
            shared = np.minimum.outer(end, end) - np.maximum.outer(begin, begin)
            shared = np.maximum(shared, 0.0)
            span = end - begin
            products[:] = 0.99 * products + np.where(shared > 0.0, np.outer(x, x), 0.0)
            overlaps[:] = 0.99 * overlaps + shared
            overlaps2[:] = 0.9801 * overlaps2 + np.outer(span, span)

    ways: list[tuple[Callable[[], object], int]] = [
        (lambda: one.update(full), m),
        (lambda: other.update(some), m),
        (one.correlation, 1),
        (lambda: scale_in_place(sums, 0.9999, m), m),
        (with_numpy, max(1, m // 20)),
    ]
    least = [np.inf] * len(ways)
    for _ in range(ROUNDS):
        for i, (way, rows) in enumerate(ways):
            started_s = time.perf_counter()
            way()
            least[i] = min(least[i], (time.perf_counter() - started_s) / rows * 1e6)
    return least
