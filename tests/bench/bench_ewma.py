"""The EWMA update of one bar, beside scaling the same memory in place and beside NumPy.

While every bar was complete one triangle is kept (complete; by call: a call for each bar), from
the first hole on five (holed: complete bars after one; 30 % missing).
"""

import time
from collections.abc import Callable

import numba
import numpy as np

from stream_calib.estimation.ewma import Ewma

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
    heads = ("complete", "by call", "holed", "30 % missing", "scaling 1", "scaling 5", "NumPy")
    print(f"  {'n':>5}" + "".join(f"{head:>14}" for head in heads), end="")
    print(f"{'complete / 1':>14}{'holed / 5':>12}{'NumPy / complete':>18}")
    for n in SIZES:
        whole, called, holed, gaps, one, five, numpy = _measure(n)
        cells = (whole, called, holed, gaps, one, five, numpy)
        print(f"  {n:>5}" + "".join(f"{cell:>14.2f}" for cell in cells), end="")
        print(f"{whole / one:>14.2f}{holed / five:>12.2f}{numpy / whole:>18.1f}")
        if n == 1000:
            assert whole / one <= 1.3
            assert holed / five <= 1.3


def _measure(n: int) -> list[float]:
    k = 400 if n < 500 else 20
    rng = np.random.default_rng(1)
    full = rng.standard_normal((k, n))
    some = np.where(rng.random((k, n)) < 0.3, np.nan, full)
    sums = np.ones((5, n * (n + 1) // 2))
    square = np.ones((n, n))
    whole, called, holed, gaps = (Ewma(n, 69.0) for _ in range(4))
    holed.update(some)

    def call_by_call() -> None:
        for row in full:
            called.update(row)

    def with_numpy() -> None:
        # one sum, no missing bars, as it is usually written
        nonlocal square
        for row in full[: max(1, k // 20)]:
            square = 0.99 * square + 0.01 * np.outer(row, row)

    ways: list[tuple[Callable[[], object], int]] = [
        (lambda: whole.update(full), k),
        (call_by_call, k),
        (lambda: holed.update(full), k),
        (lambda: gaps.update(some), k),
        (lambda: scale_in_place(sums[:1], 0.9999, k), k),
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
