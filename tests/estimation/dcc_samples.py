"""Samples that other programs were run on."""

from pathlib import Path

import numpy as np
import pandas as pd

from stream_calib.values import F64
from tests.oracles.dcc import full_path

DOW = ("AA", "AXP", "BA", "BAC", "C")
# mu, omega, alpha, beta of rmgarch 1.4-2 on the first 1000 rows, in percent
DOW_GARCH = {
    "AA": (0.198126649, 0.112884120, 0.176399517, 0.822600287),
    "AXP": (-0.004277480, 0.431502900, 0.148553169, 0.779195585),
    "BA": (0.128953751, 0.032571908, 0.016433677, 0.974714469),
    "BAC": (0.188374451, 0.903508991, 0.291980359, 0.571242378),
    "C": (0.087541978, 1.179889197, 0.106460612, 0.720579187),
}


def minstd_sample() -> F64:
    """Draw 2000 rows of DCC (.05, .93), all correlations .4, from a generator of 31 bits."""
    state, modulus = 12345, 2**31 - 1
    uniforms = np.empty((2000 * 4, 2))
    for pair in uniforms:
        for k in range(2):
            state = 16807 * state % modulus
            pair[k] = state / modulus
    normal = np.sqrt(-2.0 * np.log(uniforms[:, 0])) * np.cos(2.0 * np.pi * uniforms[:, 1])
    target = np.where(np.eye(4, dtype=bool), 1.0, 0.4)
    q, rows = target.copy(), []
    for shock in normal.reshape(2000, 4):
        z = np.linalg.cholesky(full_path(np.empty((0, 4)), 0.05, 0.93, q)[0]) @ shock
        rows.append(z)
        q = (1.0 - 0.05 - 0.93) * target + 0.05 * np.outer(z, z) + 0.93 * q
    return np.array(rows)


def dow_sample(market_data: Path) -> tuple[F64, F64]:
    """Return residuals over deviations (1000, 5) under those GARCH(1,1), and the deviations.

    The first variance is the mean squared residual.
    """
    table = pd.read_csv(market_data / "daily" / "R_dji30ret.csv.gz")
    returns = 100.0 * table[list(DOW)].to_numpy(np.float64)[:1000]
    mu, omega, alpha, beta = np.array([DOW_GARCH[name] for name in DOW]).T
    residuals = returns - mu
    variance = np.empty_like(residuals)
    variance[0] = (residuals**2).mean(axis=0)
    for t in range(1, len(residuals)):
        variance[t] = omega + alpha * residuals[t - 1] ** 2 + beta * variance[t - 1]
    return residuals / np.sqrt(variance), np.sqrt(variance)
