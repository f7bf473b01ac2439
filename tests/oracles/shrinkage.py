"""Shrinkage as its papers write it down: one eigenvalue, one observation at a time."""

import numpy as np

from stream_calib.values import F64


def quadratic_inverse(cov: F64, n_obs: int) -> F64:
    """Shrunk covariance of Ledoit and Wolf (2022), section 4, for any n and n_obs."""
    n = len(cov)
    eigenvalues, vectors = np.linalg.eigh(cov)
    null = max(0, n - n_obs)
    c = n / n_obs
    h = min(c**2, 1.0 / c**2) ** 0.35 / n**0.35
    inverse = [1.0 / value for value in eigenvalues[null:]]
    d = [0.0] * n
    for i, x in enumerate(inverse):
        theta = np.mean([y * (y - x) / ((y - x) ** 2 + h**2 * y**2) for y in inverse])
        conjugate = np.mean([h * y**2 / ((y - x) ** 2 + h**2 * y**2) for y in inverse])
        amplitude2 = theta**2 + conjugate**2
        if null:
            d[null + i] = 1.0 / (x * amplitude2)
        else:
            parts = (1 - c) ** 2 * x, 2 * c * (1 - c) * x * theta, c**2 * x * amplitude2
            d[i] = 1.0 / sum(parts)
    for i in range(null):
        d[i] = 1.0 / ((c - 1.0) * np.mean(inverse))
    scale = sum(eigenvalues) / sum(d)
    out = np.zeros((n, n))
    for i in range(n):
        out += scale * d[i] * np.outer(vectors[:, i], vectors[:, i])
    return out


def ledoit_wolf_weight(x: F64, weights: F64) -> float:
    """Weight of the identity under weights (t,) that sum to 1, from x (t, n).

    The error of S is that of a weighted mean of x x', estimated by the weighted mean itself:
    sum w^2 |x x' - S|^2 in expectation, which for equal weights is the sum itself.
    """
    n = x.shape[1]
    products = [np.outer(row, row) for row in x]
    cov = sum(w * p for w, p in zip(weights, products, strict=True))
    fourth = sum(w**2 * float(row @ row) ** 2 for w, row in zip(weights, x, strict=True))
    error = fourth - float(weights @ weights) * float(np.sum(cov**2))
    distance = float(np.sum((cov - np.trace(cov) / n * np.eye(n)) ** 2))
    return float(min(1.0, max(0.0, error) / distance))


def clip(corr: F64, n_obs: float) -> F64:
    """Marchenko-Pastur clipping, eigenvalue by eigenvalue, scaled to a unit diagonal."""
    n = len(corr)
    eigenvalues, vectors = np.linalg.eigh(corr)
    edge = (1.0 - max(eigenvalues) / n) * (1.0 + np.sqrt(n / n_obs)) ** 2
    below = [value for value in eigenvalues if value < edge]
    kept = [value if value >= edge else sum(below) / len(below) for value in eigenvalues]
    cleaned = sum(v * np.outer(u, u) for v, u in zip(kept, vectors.T, strict=True))
    scale = np.sqrt(np.diag(cleaned))
    return np.asarray(cleaned / np.outer(scale, scale))
