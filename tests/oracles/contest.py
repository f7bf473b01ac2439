"""Twin of ``estimation/contest``: determinants and inverses as they stand in a textbook."""

import math

import numpy as np

from stream_calib.values import F64


def angular_log_density(z: F64, corr: F64) -> float:
    """ln of |R|^-1/2 (z' R^-1 z)^(-n/2) of what is observed."""
    own = np.isfinite(z)
    x, r = z[own], corr[np.ix_(own, own)]
    square = x @ np.linalg.inv(r) @ x
    return -0.5 * math.log(np.linalg.det(r)) - 0.5 * len(x) * math.log(square)
