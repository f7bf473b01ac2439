"""GARCH(1,1) fits beside arch, the same series and the same start, in one run."""

import time
from collections.abc import Callable

import numpy as np
import pytest

from stream_calib.estimation.calibration.garch import fit_garch
from stream_calib.estimation.garch import GarchVolatility
from stream_calib.values import F64, ReturnBlock

ROUNDS = 5


def panel(t: int, n: int) -> F64:
    """Returns of GARCH processes."""
    noise = np.random.default_rng(1).standard_normal((t, n))
    h, out = np.ones(n), np.empty((t, n))
    for k in range(t):
        out[k] = np.sqrt(h) * noise[k]
        h = 0.05 + 0.07 * out[k] ** 2 + 0.88 * h
    return out


def least_s(way: Callable[[], object], rounds: int = ROUNDS) -> float:
    least = np.inf
    for _ in range(rounds):
        started_s = time.perf_counter()
        way()
        least = min(least, time.perf_counter() - started_s)
    return least


def bench_fit_beside_arch() -> None:
    arch = pytest.importorskip("arch")

    def with_arch(returns: F64) -> list[float]:
        found = []
        for r in returns.T:
            backcast = float(np.mean((r - r.mean()) ** 2))
            fit = arch.arch_model(r, p=1, q=1, rescale=False).fit(
                disp="off", backcast=backcast, show_warning=False
            )
            found.append(float(fit.loglikelihood))
        return found

    print("\nGARCH(1,1) fits, milliseconds (least of the rounds), standard errors included")
    print(f"  {'n':>5}{'t':>6}{'ours':>9}{'pooled':>9}{'arch':>10}{'arch / ours':>13}")
    for n, t in ((1, 1000), (1, 5000), (100, 1000)):
        returns = panel(t, n)
        h0 = np.mean((returns - returns.mean(axis=0)) ** 2, axis=0)
        fit = fit_garch(returns, h0=h0)
        # the same likelihoods, or better ones: arch stops earlier
        assert (np.asarray(fit.loglik) >= np.array(with_arch(returns)) - 1e-6).all()
        ours = least_s(lambda r=returns, h=h0: fit_garch(r, h0=h))  # type: ignore[misc]
        pooled = least_s(lambda r=returns: fit_garch(r, pooled=True))  # type: ignore[misc]
        theirs = least_s(lambda r=returns: with_arch(r), 1 if n > 1 else ROUNDS)  # type: ignore[misc]
        figures = [1e3 * s for s in (ours, pooled, theirs)]
        print(f"  {n:>5}{t:>6}{figures[0]:>9.2f}{figures[1]:>9.2f}{figures[2]:>10.1f}", end="")
        print(f"{theirs / ours:>13.1f}")
        assert theirs / ours >= 2.0


def bench_one_bar() -> None:
    print("\nstandardising one bar, microseconds (least of the rounds)")
    for n in (10, 100, 1000):
        returns = panel(200, n)
        rows = ReturnBlock(np.arange(200), returns, np.ones_like(returns), np.ones(200))
        for cap in (0.0, 3.0):
            volatility = GarchVolatility(n, half_life_obs=50.0, cap=cap)
            bar_us = 1e6 * least_s(lambda v=volatility, b=rows: v.standardise(b)) / 200  # type: ignore[misc]
            print(f"  n {n:>5}, cap {cap:g}: {bar_us:.2f}")
