"""Shrinkage and cleaning, beside the eigendecomposition of the same matrix and scikit-learn."""

import time
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from stream_calib.estimation.eigenvalues import EigenvalueCleaner
from stream_calib.estimation.shrinkage import clip_correlation, ledoit_wolf, shrink_target

SIZES = (100, 500, 1000)
NAMES = ("eigh", "clip", "QIS target", "LW", "sklearn LW", "bar", "refresh", "clean")


def bench_cleaning() -> None:
    print("\nCleaning on one BLAS thread, milliseconds (least of the rounds)")
    print(f"  {'n':>5}" + "".join(f"{name:>12}" for name in NAMES))
    for n in SIZES:
        ms = _measure(n)
        print(f"  {n:>5}" + "".join(f"{ms[name]:>12.3f}" for name in NAMES))
        # each is one eigendecomposition and a few products of matrices; a target is repaired
        # before and after, which takes eigenvalues twice
        assert ms["clip"] <= 2.5 * ms["eigh"]
        assert ms["clean"] <= 2.5 * ms["eigh"]
        assert ms["QIS target"] <= 5.0 * ms["eigh"]
        assert ms["LW"] <= 1.5 * ms["sklearn LW"]
        assert ms["bar"] <= ms["eigh"] / 10.0


def _measure(n: int) -> dict[str, float]:
    from sklearn.covariance import LedoitWolf

    rng = np.random.default_rng(1)
    x = rng.standard_normal((2 * n, 1)) + rng.standard_normal((2 * n, n))
    corr = shrink_target(x, "none")
    known = LedoitWolf(assume_centered=True, store_precision=False)
    np.testing.assert_allclose(ledoit_wolf(x).weight, known.fit(x).shrinkage_, rtol=1e-10)
    bars, refreshing = EigenvalueCleaner(n, 10**9), EigenvalueCleaner(n, 1)
    bars.update(x[:20], corr)
    rows = x[:20]
    ways: dict[str, tuple[Callable[[], object], int]] = {
        "eigh": (lambda: np.linalg.eigh(corr), 1),
        "clip": (lambda: clip_correlation(corr, 2.0 * n), 1),
        "QIS target": (lambda: shrink_target(x), 1),
        "LW": (lambda: ledoit_wolf(x), 1),
        "sklearn LW": (lambda: known.fit(x), 1),
        "bar": (lambda: bars.update(rows, corr), len(rows)),
        "refresh": (lambda: refreshing.update(x[:1], corr), 1),
        "clean": (lambda: bars.clean(corr, 2.0 * n), 1),
    }
    least = dict.fromkeys(ways, np.inf)
    with threadpool_limits(1, "blas"):
        for _ in range(20 if n < 500 else 3):
            for name, (way, count) in ways.items():
                started_s = time.perf_counter()
                way()
                taken = (time.perf_counter() - started_s) / count * 1e3
                least[name] = min(least[name], taken)
    return least
