"""One row of the DCC, beside scaling R in place and beside ``precise``.

What is kept is R itself, packed: after the update it is there to be read, and reading it costs
nothing. ``Dcc.correlation`` writes it out twice over, with what it is worth, as two square
matrices. ``precise`` has no target, and divides by variances of its own besides.
"""

import time
from collections.abc import Callable

import numba
import numpy as np
import precise

from stream_calib.estimation.dcc import Dcc
from stream_calib.estimation.dcc_likelihood import dcc_loglik
from stream_calib.kernels.dcc import fold_shocks
from stream_calib.values import F64, DccParams
from tests.oracles import dcc as oracle
from tests.oracles import dcc_likelihood as likelihood_oracle

SIZES = (10, 50, 100, 500, 1000)
ROUNDS = 40
SCALING_MAX = 2.0  # of scaling the packed R, at N = 1000
PRECISE_MIN = 20.0  # update and read at N = 100
US_MAX = 6.0  # for a row at N = 100, of one block


@numba.njit("void(f8[::1], f8, i8)", nogil=True)
def scale_in_place(corr: np.ndarray, factor: float, k: int) -> None:
    """Touch what is kept, with one multiplication each: the physical limit."""
    for _ in range(k):
        for p in range(corr.size):
            corr[p] *= factor


def bench_one_row() -> None:
    check_answer()
    heads = (
        "row",
        "one by one",
        "cdcc",
        "adcc",
        "30 % missing",
        "scaling",
        "Dcc + square",
        "precise",
    )
    print("\nDCC update with R readable, microseconds a row (least of the rounds)")
    print(f"  {'n':>5}" + "".join(f"{head:>14}" for head in heads), end="")
    print(f"{'x scaling':>11}{'precise / row':>15}{'/ Dcc':>8}")
    for n in SIZES:
        took = _measure(n)
        scaling = took["one by one"] / took["scaling"]
        kernel, whole = (took["precise"] / took[way] for way in ("one by one", "Dcc + square"))
        print(f"  {n:>5}" + "".join(f"{took[head]:>14.2f}" for head in heads), end="")
        print(f"{scaling:>11.2f}{kernel:>15.1f}{whole:>8.1f}")
        if n == 1000:
            assert scaling <= SCALING_MAX
        if n == 100:
            assert kernel >= PRECISE_MIN
            assert took["row"] <= US_MAX


def bench_likelihood() -> None:
    print("\nFull likelihood of 1000 rows, seconds")
    for n in (5, 20, 100):
        rng = np.random.default_rng(1)
        z, target = rng.standard_normal((1000, n)), 0.7 * np.eye(n) + 0.3
        started_s = time.perf_counter()
        ours = dcc_loglik(z, 0.05, 0.93, target)
        took_s = time.perf_counter() - started_s
        started_s = time.perf_counter()
        path = oracle.full_path(z, 0.05, 0.93, target)
        numpy = likelihood_oracle.log_densities(z, path[:-1]).sum()
        numpy_s = time.perf_counter() - started_s
        assert abs(ours - numpy) < 1e-9 * abs(numpy)
        print(f"  n = {n:<4} ours {took_s:.4f}   NumPy {numpy_s:.4f}   x {numpy_s / took_s:.1f}")


def check_answer() -> None:
    """Derive what ``precise`` computes from our recursion without a target."""
    n, rows, rate = 5, 3000, 0.05  # of the beginning .95^3000 is left: nothing
    rng = np.random.default_rng(1)
    returns = rng.standard_normal((rows, 1)) + rng.standard_normal((rows, n))
    peer = precise.DCCCovariance(r=rate)
    peer.partial_fit(returns)
    mean, variance, shocks = np.zeros(n), np.ones(n), np.empty_like(returns)
    for t, row in enumerate(returns):
        weight = max(rate, 1.0 / (t + 1))
        apart = row - mean
        mean = mean + weight * apart
        variance = variance + weight * (apart**2 - variance)
        shocks[t] = apart / np.sqrt(np.maximum(variance, 1e-12))  # it contains the shock already
    # a + b < 1 is asked for; what is left of the target is 1e-12
    ours = Dcc(DccParams(rate, 1.0 - rate - 1e-13, np.eye(n), "dcc"), n)
    ours.update(shocks)
    np.testing.assert_allclose(ours.correlation().corr, peer.correlation_, rtol=0.0, atol=1e-8)


def _measure(n: int) -> dict[str, float]:
    k = 400 if n < 500 else 20
    rng = np.random.default_rng(1)
    z = rng.standard_normal((k, n))
    holes = np.where(rng.random((k, n)) < 0.3, np.nan, z)
    rows = [np.ascontiguousarray(row[None]) for row in z]
    target = 0.7 * np.eye(n) + 0.3
    packed = target[np.triu_indices(n)]
    less = 0.4 * packed
    size = packed.size
    state = (packed.copy(), np.ones(n), np.zeros(n), np.zeros((2, n)))
    unread, ones, one, scaled = np.empty((0, size)), np.ones(k), np.ones(1), np.ones(size)
    dcc = Dcc(DccParams(0.05, 0.93, target, "dcc"), n)
    peer = precise.DCCCovariance(r=0.05)
    peer.partial_fit(z[:2])

    def fold(z: F64, pull: F64, *, aielli: bool = False, g: float = 0.0) -> None:
        weights = (0.05, 0.93, g, 1.0, 0.99)
        fold_shocks(z, pull, aielli, *weights, packed, less, *state, unread)

    def one_by_one() -> None:
        for row in rows:
            fold(row, one)

    def square() -> None:
        for row in rows:
            dcc.update(row)
            dcc.correlation()

    def by_precise() -> None:
        for row in z[:20]:
            peer.partial_fit(row[None])
            peer.correlation_  # noqa: B018  # computed when read

    ways: dict[str, tuple[Callable[[], object], int]] = {
        "row": (lambda: fold(z, ones), k),
        "one by one": (one_by_one, k),
        "cdcc": (lambda: fold(z, ones, aielli=True), k),
        "adcc": (lambda: fold(z, ones, g=0.01), k),
        "30 % missing": (lambda: fold(holes, ones), k),
        "scaling": (lambda: scale_in_place(scaled, 0.9999, k), k),
        "Dcc + square": (square, k),
        "precise": (by_precise, 20),
    }
    least = dict.fromkeys(ways, np.inf)
    for _ in range(ROUNDS if n < 500 else 15):
        for name, (way, count) in ways.items():
            started_s = time.perf_counter()
            way()
            least[name] = min(least[name], (time.perf_counter() - started_s) / count * 1e6)
    return least
