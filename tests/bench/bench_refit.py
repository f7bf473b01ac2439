"""A whole refit, GARCH, target and composite likelihood, beside pymgarch's two stages."""

import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from stream_calib.estimation.calibration.dcc import DccFit, fit_dcc
from stream_calib.values import F64

SIZES = ((5, 1000), (29, 2785), (100, 1000), (200, 1000), (500, 1000), (1000, 1000))
GROWTH = (100, 1000)
LIMIT_S = {100: 0.3, 1000: 2.5}
ROUNDS = 3
A, B = 0.03, 0.95


def bench_refit() -> None:
    print(f"\nRefit with its GARCH stage, seconds (least of {ROUNDS}); cdcc, pairs auto")
    print(f"  {'n':>5}{'bars':>7}{'refit':>9}{'GARCH':>9}{'errors':>9}", end="")
    print(f"{'evaluations':>13}{'a':>8}{'b':>8}")
    taken = {}
    for n, t in SIZES:
        returns = panel(n, t)
        whole_s, fit = least_s(partial(fit_dcc, returns, standardised=False))
        z = fit.garch.residuals / np.sqrt(fit.garch.variance[:-1])
        second_s, _ = least_s(partial(fit_dcc, z))
        errors_s, _ = once_s(partial(getattr, fit, "se"))
        taken[n] = whole_s
        print(f"  {n:>5}{t:>7}{whole_s:>9.3f}{whole_s - second_s:>9.3f}{errors_s:>9.3f}", end="")
        print(f"{fit.details['evaluations']:>13.0f}{fit.a:>8.4f}{fit.b:>8.4f}")
        assert fit.converged
    small, large = GROWTH
    sizes = np.log([n for n in taken if n >= small])
    growth = np.polyfit(sizes, np.log([taken[n] for n in taken if n >= small]), 1)[0]
    print(f"  growth exponent over {small} to {large}: {growth:.2f}")
    assert growth < 2.2
    for n, limit_s in LIMIT_S.items():
        print(f"  n {n}: {taken[n]:.2f} s of {limit_s} s, on a quiet core of this machine")
        assert taken[n] <= limit_s


def bench_peer() -> None:
    peer = pytest.importorskip("pymgarch").DCC
    print("\nBeside pymgarch, one run each, compiled. Its default is the full likelihood with")
    print("standard errors; its composite one over all pairs maximises what ours does")
    print(f"  {'n':>5}{'bars':>7}{'ours':>9}{'with se':>9}{'composite':>11}", end="")
    print(f"{'default':>9}{'ratios':>12}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for method in ("full", "composite"):
            peer().fit(panel(3, 300), method=method)
        for n, t in ((5, 1000), (29, 2785)):
            returns = panel(n, t)
            ours_s, fit = least_s(partial(fit_dcc, returns, standardised=False, model="dcc"))
            errors_s, _ = once_s(partial(getattr, fit, "se"))
            pairs = {"compute_se": False, "method": "composite", "pairs": "all"}
            pairs_s, composite = once_s(partial(peer().fit, returns, **pairs))
            default_s, default = once_s(partial(peer().fit, returns))
            ratios = pairs_s / ours_s, default_s / (ours_s + errors_s)
            print(f"  {n:>5}{t:>7}{ours_s:>9.3f}{ours_s + errors_s:>9.3f}{pairs_s:>11.2f}", end="")
            print(f"{default_s:>9.2f}{ratios[0]:>6.0f}{ratios[1]:>6.0f}")
            print(f"        a, b: ours {fit.a:.4f} {fit.b:.4f}", end="")
            print(f", composite {composite.psi[0]:.4f} {composite.psi[1]:.4f}", end="")
            print(f", default {default.psi[0]:.4f} {default.psi[1]:.4f} (starts at .02 .95)")
            # the same likelihood, but for the start of the variances and the target's scale
            assert abs(fit.a - composite.psi[0]) < 0.003
        assert min(ratios) >= 30.0


def panel(n: int, t: int) -> F64:
    """Draw returns in percent: GARCH (.05, .9) with one factor whose weight moves slowly."""
    rng = np.random.default_rng(n)
    common, own = rng.standard_normal((t, 1)), rng.standard_normal((t, n))
    rho = 0.4 + 0.25 * np.sin(np.arange(t) / 60.0)[:, None]
    z = np.sqrt(rho) * common + np.sqrt(1.0 - rho) * own
    returns, h = np.empty((t, n)), np.ones(n)
    for k in range(t):
        returns[k] = np.sqrt(h) * z[k]
        h = 0.05 + 0.05 * returns[k] ** 2 + 0.9 * h
    return returns


def once_s(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def least_s(work: Callable[[], DccFit]) -> tuple[float, DccFit]:
    least, fit = np.inf, work()
    for _ in range(ROUNDS):
        started = time.perf_counter()
        fit = work()
        least = min(least, time.perf_counter() - started)
    return float(least), fit
