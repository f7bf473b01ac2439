"""Twin of ``estimation/contest``: determinants and inverses as they stand in a textbook."""

import math

import numpy as np

from stream_calib.values import F64


def angular_log_density(z: F64, corr: F64, deviations: F64 | None = None) -> float:
    """ln of |S|^-1/2 (z' R^-1 z)^(-n/2) of what is observed, S = D R D."""
    own = np.isfinite(z)
    x, r = z[own], corr[np.ix_(own, own)]
    d = np.ones(len(x)) if deviations is None else deviations[own]
    scatter = r * np.outer(d, d)
    square = x @ np.linalg.inv(r) @ x
    return -0.5 * math.log(np.linalg.det(scatter)) - 0.5 * len(x) * math.log(square)


def gaussian_log_density(z: F64, corr: F64) -> float:
    """ln of the normal density of what is observed."""
    own = np.isfinite(z)
    x, r = z[own], corr[np.ix_(own, own)]
    norm = math.log(np.linalg.det(2.0 * math.pi * r))
    return -0.5 * (norm + float(x @ np.linalg.inv(r) @ x))
