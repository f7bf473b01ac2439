"""One row of the detectors, beside the Cholesky factors that it cannot do without."""

import time
from collections.abc import Callable
from functools import partial

import numpy as np

from stream_calib.estimation.cleaning import Root, one_blas_thread
from stream_calib.estimation.drift import DriftDetector
from stream_calib.estimation.miscalibration import Miscalibration
from stream_calib.values import F64, DccParams
from tests.estimation.truths import factor_target

SIZES = (20, 100, 300, 1000)
MS_MAX = 60.0  # a row of 1000 symbols; DCC bars are seconds apart
FACTORS_MAX = 3.0  # of two Cholesky factors, at 1000, where the detector takes one


def least(step: Callable[[], object], rounds: int) -> float:
    """Least microseconds of the processor in some rounds: one thread, whoever else runs."""
    took = []
    for _ in range(rounds):
        start = time.thread_time()
        step()
        took.append(time.thread_time() - start)
    return 1e6 * min(took)


def factorise(corr: F64) -> None:
    for _ in range(2):
        Root(corr.copy())


def bench_one_row() -> None:
    print("\nOne row of the drift detectors, microseconds of the processor (least of the rounds)")
    print(f"  {'n':>5}{'detector':>12}{'block':>12}{'miscal.':>12}{'2 Cholesky':>12}{'ratio':>8}")
    for n in SIZES:
        rng = np.random.default_rng(n)
        target = factor_target(rng, n, 0.3)
        params = DccParams(0.02, 0.97, target)
        detector, watch = DriftDetector(params, n), Miscalibration(params, n)
        z = rng.standard_normal((200, n)) @ np.linalg.cholesky(target).T
        detector.update(z[:60])
        rounds = 5 if n == 1000 else 40
        alone = least(partial(detector.update, z[:1]), rounds)
        block = least(partial(detector.update, z[:10]), max(2, rounds // 5)) / 10
        blame = least(partial(watch.update, z[:1], target), rounds)
        with one_blas_thread():
            factors = least(partial(factorise, target), rounds)
        print(f"  {n:>5}{alone:>12.0f}{block:>12.0f}{blame:>12.0f}{factors:>12.0f}", end="")
        print(f"{alone / factors:>8.1f}")
    assert alone <= FACTORS_MAX * factors
    assert alone <= 1000.0 * MS_MAX
