"""Panels whose correlations are known at every bar."""

from typing import NamedTuple

import numpy as np

from stream_calib.values import F64


class Truth(NamedTuple):
    """Standardised returns (t, n), their R before each bar (t, n, n) or r (t,), long-run C."""

    z: F64
    corr: F64
    target: F64


def fixture_normals(n: int) -> F64:
    """Draw with MINSTD from 12345 and Box-Muller's cosine: the same in every language."""
    x = 12345
    out = np.empty(n)
    modulus = 2**31 - 1
    for k in range(n):
        x = 16807 * x % modulus
        u1 = x / modulus
        x = 16807 * x % modulus
        out[k] = np.sqrt(-2.0 * np.log(u1)) * np.cos(2.0 * np.pi * x / modulus)
    return out


def fixture() -> F64:
    """Four symbols, 2000 bars of DCC (.05, .93) around a correlation of .4."""
    target = np.full((4, 4), 0.4) + 0.6 * np.eye(4)
    return run_dcc(fixture_normals(8000).reshape(2000, 4), target, 0.05, 0.93).z


def factor_target(rng: np.random.Generator, n: int) -> F64:
    """Draw a correlation matrix with one common factor and loadings of .3 to .9."""
    loading = rng.uniform(0.3, 0.9, n)
    target = np.outer(loading, loading)
    np.fill_diagonal(target, 1.0)
    return target


def run_dcc(normals: F64, target: F64, a: float, b: float) -> Truth:
    """Turn independent normals into Engle's DCC."""
    q = target.copy()
    z, path = np.empty(normals.shape), np.empty((*normals.shape, normals.shape[1]))
    for t, n in enumerate(normals):
        scale = 1.0 / np.sqrt(np.diag(q))
        path[t] = q * scale[:, None] * scale
        z[t] = np.linalg.cholesky(path[t]) @ n
        q = (1.0 - a - b) * target + a * np.outer(z[t], z[t]) + b * q
    return Truth(z, path, target)


def dcc_returns(normals: F64, target: F64, a: float, b: float) -> F64:
    """Do as ``run_dcc`` and keep z only: the matrices of 300 symbols are 720 MB."""
    q = target.copy()
    z = np.empty(normals.shape)
    for t, n in enumerate(normals):
        scale = 1.0 / np.sqrt(np.diag(q))
        z[t] = np.linalg.cholesky(q * scale[:, None] * scale) @ n
        q = (1.0 - a - b) * target + a * np.outer(z[t], z[t]) + b * q
    return z


def run_cdcc(normals: F64, target: F64, a: float, b: float) -> F64:
    """Turn independent normals into Aielli's cDCC; only z is kept."""
    q = target.copy()
    z = np.empty(normals.shape)
    for t, n in enumerate(normals):
        root = np.sqrt(np.diag(q))
        z[t] = np.linalg.cholesky(q / np.outer(root, root)) @ n
        star = z[t] * root
        q = (1.0 - a - b) * target + a * np.outer(star, star) + b * q
    return z


def latent_pair(rng: np.random.Generator, n: int, phi: float, spread: float, dof: float) -> Truth:
    """Draw a pair whose Fisher z is an AR(1) around that of .4; noise of t(dof), inf for normal."""
    centre = np.arctanh(0.4)
    state = 0.0
    rho = np.empty(n)
    shocks = rng.standard_normal(n) * spread * np.sqrt(1.0 - phi**2)
    for t in range(n):
        rho[t] = np.tanh(centre + state)
        state = phi * state + shocks[t]
    z = rng.standard_normal((n, 2))
    z[:, 1] = rho * z[:, 0] + np.sqrt(1.0 - rho**2) * z[:, 1]
    if np.isfinite(dof):
        z *= np.sqrt((dof - 2.0) / rng.chisquare(dof, n))[:, None]
    return Truth(z, rho, np.array([[1.0, 0.4], [0.4, 1.0]]))


def particle_path(rng: np.random.Generator, truth: Truth, phi: float, spread: float) -> F64:
    """Forecast the latent correlation of a normal pair as well as its law allows, (t,)."""
    n_particles = 1000
    centre, shock = np.arctanh(0.4), spread * np.sqrt(1.0 - phi**2)
    state = spread * rng.standard_normal(n_particles)
    out = np.empty(len(truth.z))
    for t, (x, y) in enumerate(truth.z):
        rho = np.tanh(centre + state)
        out[t] = rho.mean()
        omega = 1.0 - rho**2
        log_weight = -0.5 * (np.log(omega) + (x * x + y * y - 2.0 * rho * x * y) / omega)
        weight = np.cumsum(np.exp(log_weight - log_weight.max()))
        at = (np.arange(n_particles) + rng.random()) / n_particles * weight[-1]
        kept = state[np.minimum(np.searchsorted(weight, at), n_particles - 1)]
        state = phi * kept + shock * rng.standard_normal(n_particles)
    return out


def forecast_path(news: F64, target: F64, a: float, b: float, *, aielli: bool) -> F64:
    """Run a fit over returns: R before each bar, (t, n, n)."""
    q = target.copy()
    out = np.empty((*news.shape, news.shape[1]))
    for t, x in enumerate(news):
        root = np.sqrt(np.diag(q))
        out[t] = q / np.outer(root, root)
        innovation = x * root if aielli else x
        q = (1.0 - a - b) * target + a * np.outer(innovation, innovation) + b * q
    return out


def ewma_path(z: F64, decay: float) -> F64:
    """Run an EWMA of products from the identity: R before each bar, (t, n, n)."""
    q = np.eye(z.shape[1])
    out = np.empty((*z.shape, z.shape[1]))
    for t, x in enumerate(z):
        root = np.sqrt(np.diag(q))
        out[t] = q / np.outer(root, root)
        q = decay * q + (1.0 - decay) * np.outer(x, x)
    return out


def rmse(path: F64, truth: F64) -> float:
    """Root mean squared error over bars and pairs, diagonal left out."""
    if path.ndim == 1:
        return float(np.sqrt(np.mean((path - truth) ** 2)))
    i, j = np.triu_indices(path.shape[1], 1)
    return float(np.sqrt(np.mean((path[:, i, j] - truth[:, i, j]) ** 2)))
