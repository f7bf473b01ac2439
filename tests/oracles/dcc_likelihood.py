"""Gaussian log densities by way of determinants and solves."""

import numpy as np

from stream_calib.values import F64


def log_densities(z: F64, corr: F64) -> F64:
    """Return ln N(z_t; 0, R_t) of what is observed in each row; ``corr`` is (t, n, n)."""
    out = []
    for row, matrix in zip(z, corr, strict=True):
        seen = np.isfinite(row)
        x, r = row[seen], matrix[np.ix_(seen, seen)]
        _, log_det = np.linalg.slogdet(r)
        square = x @ np.linalg.solve(r, x) if seen.any() else 0.0
        out.append(-0.5 * (seen.sum() * np.log(2.0 * np.pi) + log_det + square))
    return np.array(out)
