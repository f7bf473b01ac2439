"""DCC as its papers write it: whole matrices, one row after the other."""

import numpy as np

from stream_calib.values import F64


def full_path(
    z: F64,
    a: float,
    b: float,
    target: F64,
    g: float = 0.0,
    model: str = "dcc",
    asymmetry: F64 | None = None,
) -> F64:
    """Return R (t + 1, n, n) where nothing is missing."""
    less = np.zeros_like(target) if asymmetry is None else asymmetry
    q = target.copy()
    path = [normalised(q)]
    for row in z:
        x = np.sqrt(np.diagonal(q)) * row if model == "cdcc" else row
        fall = np.minimum(x, 0.0)
        q = (1.0 - a - b) * target + a * np.outer(x, x) + b * q
        q = q + g * (np.outer(fall, fall) - less)
        path.append(normalised(q))
    return np.stack(path)


def path(
    z: F64,
    a: float,
    b: float,
    target: F64,
    g: float = 0.0,
    model: str = "dcc",
    asymmetry: F64 | None = None,
    unseen: float = 1.0,
    pull: F64 | None = None,
) -> F64:
    """Return R (t + 1, n, n) where rows have holes, and time passes between them.

    The 2 x 2 block of two symbols is moved by news where both are observed, by what passes
    without where neither is; where one is, their correlation alone returns.
    """
    n = z.shape[1]
    less = np.zeros_like(target) if asymmetry is None else asymmetry
    pull = np.ones(len(z)) if pull is None else pull
    corr, own = normalised(target), np.diagonal(target).copy()
    out = [corr.copy()]
    for row, left in zip(z, pull, strict=True):
        q = corr * np.sqrt(np.outer(own, own))
        q = target + left * (q - target)
        seen = np.isfinite(row)
        x = np.where(seen, row, 0.0)
        x = np.sqrt(np.diagonal(q)) * x if model == "cdcc" else x
        fall = np.minimum(x, 0.0)
        news = (1.0 - a - b) * target + a * np.outer(x, x) + b * q
        news = news + g * (np.outer(fall, fall) - less)
        without = target + unseen * (q - target)
        for i in range(n):
            for j in range(n):
                block = news if seen[i] else without
                if seen[i] != seen[j]:
                    mean = target[i, j] / np.sqrt(target[i, i] * target[j, j])
                    corr[i, j] = mean + unseen * (normalised(q)[i, j] - mean)
                else:
                    corr[i, j] = block[i, j] / np.sqrt(block[i, i] * block[j, j])
        np.fill_diagonal(corr, 1.0)
        own = np.where(seen, np.diagonal(news), np.diagonal(without))
        out.append(corr.copy())
    return np.stack(out)


def normalised(q: F64) -> F64:
    """Divide a covariance by its deviations."""
    scale = 1.0 / np.sqrt(np.diagonal(q))
    corr = q * np.outer(scale, scale)
    np.fill_diagonal(corr, 1.0)
    return corr


def aielli_target(z: F64, a: float, b: float) -> F64:
    """Return the normalised mean of z* z*', for which the diagonals of Q alone are needed."""
    own = np.ones(z.shape[1])
    scaled = np.empty_like(z)
    for t, row in enumerate(z):
        scaled[t] = np.sqrt(own) * row
        own = (1.0 - a - b) + a * scaled[t] ** 2 + b * own
    return normalised(scaled.T @ scaled / len(z))
