"""How much of the sampling error cleaning takes away, on truths that are known.

PRIAL, the percentage relative improvement in average loss, is 100 where a cleaned matrix is as
near to the truth as eigenvalues chosen with the truth in hand make it (the rotation-invariant
oracle: eigenvectors of the estimate, u' R u for eigenvalues), 0 where it is as far off as the
estimate, negative where cleaning did harm. It is taken twice. Of the covariance of standardised
returns, as papers do: what is published has a unit diagonal, which their oracle has not, and so
can pass 100. And, harder, of the correlation, against that oracle scaled to a unit diagonal:
the estimate then knows the variances too.
"""

import sys
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from stream_calib.estimation.cleaning import (
    Spectrum,
    compose_correlation,
    decompose,
    repair_correlation,
)
from stream_calib.estimation.eigenvalues import EigenvalueCleaner
from stream_calib.estimation.shrinkage import (
    clip_correlation,
    ledoit_wolf_weight,
    quadratic_inverse_eigenvalues,
)
from stream_calib.values import F64, eigenvalue_floor

Truth: TypeAlias = Callable[[int, np.random.Generator], F64]
RATIOS = (0.3, 0.7, 1.0, 2.0)  # n_eff / n of the criterion
EVERY = 25  # bars between two judgements


def spectrum_truth(n: int, rng: np.random.Generator) -> F64:
    """Draw a matrix with eigenvalues 1, 3 and 10 (a fifth, two fifths, two fifths of them)."""
    fifth = n // 5
    values = np.repeat([1.0, 3.0, 10.0], [fifth, 2 * fifth, n - 3 * fifth])
    vectors = np.linalg.qr(rng.standard_normal((n, n)))[0]
    return unit((vectors * values) @ vectors.T)


def factor_truth(n: int, rng: np.random.Generator) -> F64:
    """Draw four factors of equal strength and noise of each symbol's own."""
    loadings = 0.5 * rng.standard_normal((n, 4))
    return unit(loadings @ loadings.T + np.diag(rng.uniform(0.5, 1.5, n)))


def market_truth(n: int, rng: np.random.Generator) -> F64:
    """Draw a factor common to all, three weaker ones, and noise of each symbol's own."""
    loadings = 0.3 * rng.standard_normal((n, 4))
    loadings[:, 0] = rng.uniform(0.4, 0.8, n)
    return unit(loadings @ loadings.T + np.diag(rng.uniform(0.3, 0.7, n)))


def unit(cov: F64) -> F64:
    """Scale a covariance to a unit diagonal."""
    scale = np.sqrt(np.diag(cov))
    return np.asarray(cov / np.outer(scale, scale))


class Average:
    """An EWMA of unit variances, as a study needs it: quick, and correct from the first bar."""

    def __init__(self, n: int, memory: float) -> None:
        self.decay = 1.0 - 1.0 / memory
        self.sums, self.total, self.total2, self.fourth = np.zeros((n, n)), 0.0, 0.0, 0.0

    def update(self, x: F64) -> None:
        self.sums *= self.decay
        self.sums += np.outer(x, x)
        self.total = self.decay * self.total + 1.0
        self.total2 = self.decay**2 * self.total2 + 1.0
        self.fourth = self.decay**2 * self.fourth + float(x @ x) ** 2

    def corr(self) -> F64:
        return unit(self.sums)

    def n_eff(self) -> float:
        return self.total**2 / self.total2


def candidates(estimate: Average, cleaner: EigenvalueCleaner, slow: Average) -> dict[str, F64]:
    """Return every way of cleaning one estimate."""
    corr, n_eff = estimate.corr(), estimate.n_eff()
    eigenvalues, vectors = decompose(corr)
    qis = quadratic_inverse_eigenvalues(np.maximum(eigenvalues, 1e-10), n_eff)
    covariance = estimate.sums / estimate.total
    fourth = estimate.fourth / estimate.total**2
    weight = ledoit_wolf_weight(covariance, fourth, 1.0 / n_eff)
    return {
        "raw": corr,
        "online": cleaner.clean(corr, n_eff),
        "clip": clip_correlation(corr, n_eff),
        "qis": compose_correlation(Spectrum(np.maximum(qis, 1e-6), vectors)),
        "linear": unit((1.0 - weight) * covariance + weight * np.eye(len(corr))),
        "slow": slow.corr(),
    }


def prial(
    truth: Truth, n: int, memory: float, bars: int, seed: int, history_bars: int = 1000
) -> tuple[dict[str, float], dict[str, float]]:
    """Return both PRIALs of every candidate over an EWMA of some memory, for a constant truth.

    ``bars`` are judged, after the estimate has warmed up, the cleaner has seen ``history_bars``
    and the long memory a thousand.
    """
    rng = np.random.default_rng(seed)
    corr = truth(n, rng)
    root = np.linalg.cholesky(corr)
    estimate, slow = Average(n, memory), Average(n, 1000.0)
    cleaner = EigenvalueCleaner(n)
    warm = int(8 * memory)
    for _ in range(max(0, 1000 - warm)):
        slow.update(root @ rng.standard_normal(n))
    for _ in range(warm):
        x = root @ rng.standard_normal(n)
        estimate.update(x)
        slow.update(x)
    losses: dict[str, float] = {}
    for t in range(history_bars + bars):
        x = root @ rng.standard_normal(n)
        cleaner.update(x, estimate.corr)
        estimate.update(x)
        slow.update(x)
        if t < history_bars or t % EVERY:
            continue
        found = candidates(estimate, cleaner, slow)
        covariance = estimate.sums / estimate.total
        found |= {"covariance": covariance, "oracle": oracle_of(covariance, corr)}
        found["scaled"] = unit(oracle_of(found["raw"], corr))
        for name, matrix in found.items():
            losses[name] = losses.get(name, 0.0) + float(np.sum((matrix - corr) ** 2))
    return improvements(losses, "covariance", "oracle"), improvements(losses, "raw", "scaled")


def oracle_of(estimate: F64, truth: F64) -> F64:
    """Return the matrix nearest to the truth that has the eigenvectors of an estimate."""
    vectors = decompose(estimate).vectors
    return np.asarray((vectors * np.einsum("ji,jk,ki->i", vectors, truth, vectors)) @ vectors.T)


def improvements(losses: Mapping[str, float], worst: str, best: str) -> dict[str, float]:
    """Return the PRIAL of each candidate from summed squared errors."""
    possible = losses[worst] - losses[best]
    return {
        name: 100.0 * (losses[worst] - loss) / possible
        for name, loss in losses.items()
        if name not in {"raw", "covariance", "oracle", "scaled"}
    }


def qlike(matrix: F64, truth: F64) -> float:
    """Return tr(M^-1 R) + log det M for each symbol: least, in expectation, at M = R."""
    root = np.linalg.cholesky(matrix)
    half = np.linalg.solve(root, truth)
    log_det = 2.0 * float(np.sum(np.log(np.diag(root))))
    return (float(np.trace(np.linalg.solve(root.T, half))) + log_det) / len(truth)


def dcc_path(n: int, a: float, b: float, bars: int, rng: np.random.Generator) -> list[F64]:
    """Simulate R_t of DCC(1,1) around a target with a common factor, with normal news."""
    target = market_truth(n, rng)
    q, path = target, []
    for _ in range(bars):
        corr = unit(q)
        z = np.linalg.cholesky(corr) @ rng.standard_normal(n)
        q = (1.0 - a - b) * target + a * np.outer(z, z) + b * q
        path.append(corr)
    return path


def losses_along(
    path: list[F64], memory: float, judged: range, seed: int, reset_at: int = -1
) -> dict[str, float]:
    """Return the mean QLIKE of every candidate over the judged bars of a path of truths.

    The cleaner is reset before bar ``reset_at``.
    """
    rng = np.random.default_rng(seed)
    n = len(path[0])
    estimate, slow, cleaner = Average(n, memory), Average(n, 1000.0), EigenvalueCleaner(n)
    estimate.update(rng.standard_normal(n))
    losses: dict[str, list[float]] = {}
    for t, corr in enumerate(path):
        if t == reset_at:
            cleaner.reset()
        if t in judged and t % 5 == 0:
            for name, matrix in candidates(estimate, cleaner, slow).items():
                # as published: positive definite by the same guard
                losses.setdefault(name, []).append(qlike(_guarded(matrix), corr))
        x = np.linalg.cholesky(corr) @ rng.standard_normal(n)
        cleaner.update(x, estimate.corr)
        estimate.update(x)
        slow.update(x)
    return {name: float(np.mean(values)) for name, values in losses.items()}


def _guarded(matrix: F64) -> F64:
    return repair_correlation(matrix, eigenvalue_floor(len(matrix))).corr


def show(title: str, *columns: Mapping[str, float]) -> None:
    """Print figures; pytest -s lets them through."""
    lines = [
        f"  {name:>8}" + "".join(f"{column[name]:>12.3f}" for column in columns)
        for name in columns[0]
    ]
    sys.stdout.write("\n".join(["", title, *lines, ""]))
