"""The EWMA update of one bar, beside scaling the same memory in place and beside NumPy."""

import time
from collections.abc import Callable

import numba
import numpy as np

from stream_calib.kernels.ewma import fold_returns

SIZES = (10, 50, 100, 200, 500, 1000)
ROUNDS = 100


@numba.njit("void(f8[:,::1], f8, i8)", nogil=True)
def scale_in_place(sums: np.ndarray, factor: float, k: int) -> None:
    """Touch what the update touches, with one multiplication each: the physical limit."""
    for _ in range(k):
        for row in range(sums.shape[0]):
            for i in range(sums.shape[1]):
                sums[row, i] *= factor


def bench_one_bar() -> None:
    print("\nEWMA update of one bar, microseconds (least of the rounds), and ratios")
    print(f"  {'n':>5}{'update':>10}{'30 % missing':>14}{'scaling':>10}{'NumPy':>12}", end="")
    print(f"{'x scaling':>11}{'NumPy / ours':>14}")
    for n in SIZES:
        ours, gaps, scaling, numpy = _measure(n)
        print(f"  {n:>5}{ours:>10.2f}{gaps:>14.2f}{scaling:>10.2f}{numpy:>12.1f}", end="")
        print(f"{ours / scaling:>11.2f}{numpy / ours:>14.1f}")
        if n == 1000:
            assert ours / scaling <= 1.3


def _measure(n: int) -> list[float]:
    k = 400 if n < 500 else 20
    rng = np.random.default_rng(1)
    full = rng.standard_normal((k, n))
    some = np.where(rng.random((k, n)) < 0.3, np.nan, full)
    ones, gaps = np.ones((k, n)), np.where(np.isnan(some), 0.0, 1.0)
    decay, group = np.full((k, 1, 1), 0.99), np.zeros(n, np.int64)
    sums = np.ones((5, n * (n + 1) // 2))
    fourth = np.zeros((2, n))
    square = np.ones((n, n))

    def with_numpy() -> None:
        # one sum, no missing bars, as it is usually written
        nonlocal square
        for row in full[: max(1, k // 20)]:
            square = 0.99 * square + 0.01 * np.outer(row, row)

    a, b, c, e, e2 = sums
    ways: list[tuple[Callable[[], object], int]] = [
        (lambda: fold_returns(full, ones, group, decay, decay, a, b, c, e, e2, fourth), k),
        (lambda: fold_returns(some, gaps, group, decay, decay, a, b, c, e, e2, fourth), k),
        (lambda: scale_in_place(sums, 0.9999, k), k),
        (with_numpy, max(1, k // 20)),
    ]
    least = [np.inf] * len(ways)
    for _ in range(ROUNDS):
        for i, (way, rows) in enumerate(ways):
            started_s = time.perf_counter()
            way()
            least[i] = min(least[i], (time.perf_counter() - started_s) / rows * 1e6)
    return least
