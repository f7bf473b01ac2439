"""Targets and eigenvalues that sampling noise was taken out of."""

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple, Self

import numpy as np

from stream_calib.estimation.cleaning import (
    Spectrum,
    compose_correlation,
    decompose,
    in_order,
    one_blas_thread,
    repair_correlation,
)
from stream_calib.estimation.protocol import Layout
from stream_calib.values import F64, I64

TARGET_FLOOR = 1e-6  # least eigenvalue of a target: far below noise, far above rounding
EIGENVALUE_MIN = 1e-6
LIFTED_MIN = 0.01  # of targets with holes, where division by a has taken too much away


class Shrunk(NamedTuple):
    """A shrunk covariance (n, n) and the weight of what it was shrunk to."""

    cov: F64
    weight: float


def ledoit_wolf_weight(cov: F64, fourth: float, weight2: float) -> float:
    """Return how far a covariance should be shrunk to a multiple of the identity.

        d = min(1, b2 / d2);   d2 = |S - m I|^2,  m = tr S / n
        b2 = sum_t w_t^2 |x_t|^4 - (sum_t w_t^2) |S|^2

    Parameters
    ----------
    cov : (n, n)
        S = sum w_t x_t x_t', in a canonical order.
    fourth
        sum w_t^2 |x_t|^4; for T equal weights sum |x_t|^4 / T^2.
    weight2
        sum w_t^2 of weights that sum to 1; for T equal weights 1 / T.

    References
    ----------
    Ledoit and Wolf (2004), Journal of Multivariate Analysis 88, equations 14 and 15.
    """
    n = len(cov)
    mean = float(np.trace(cov)) / n
    squares = float(np.sum(cov * cov))
    error = max(0.0, fourth - weight2 * squares)
    distance = float(np.sum((cov - mean * np.eye(n)) ** 2))
    return 1.0 if distance <= error else error / distance


def ledoit_wolf(x: F64) -> Shrunk:
    """Shrink the covariance of x (t, n), of zero mean and without holes, to m I.

        S' = (1 - d) S + d m I

    with d of ``ledoit_wolf_weight`` for equal weights. O(t n^2).
    """
    t, n = x.shape
    with one_blas_thread():
        cov = x.T @ x / t
    fourth = float(np.sum(np.sum(x * x, axis=1) ** 2)) / t**2
    weight = ledoit_wolf_weight(cov, fourth, 1.0 / t)
    shrunk = (1.0 - weight) * cov
    shrunk.flat[:: n + 1] += weight * float(np.trace(cov)) / n
    return Shrunk(shrunk, weight)


class FourthMoment:
    """What exponentially weighted Ledoit-Wolf shrinkage needs beside the covariance.

        W <- c W + 1;   W2 <- c^2 W2 + 1;   F <- c^2 F + |x|^4

    ``weight(cov)`` is ``ledoit_wolf_weight(cov, F / W^2, W2 / W^2)``, where ``cov`` is the
    average of x x' under the same weights.

    Parameters
    ----------
    decay
        c, in (0, 1]: weight on the past for each row.

    Raises
    ------
    ValueError
        If ``decay`` is not in (0, 1].

    Notes
    -----
    Of a row with holes |x|^2 is scaled up by the share of symbols observed; a row without any
    return changes nothing.
    """

    LAYOUT = Layout()

    def __init__(self, decay: float) -> None:
        if not 0.0 < decay <= 1.0:
            message = f"decay must be in (0, 1], not {decay}"
            raise ValueError(message)
        self.decay = float(decay)
        self._sums = np.zeros(3)

    def update(self, x: F64) -> None:
        """Fold rows (k, n) in, NaN where not observed."""
        for row in np.atleast_2d(x):
            squares = (row * row)[~np.isnan(row)]
            if not squares.size:
                continue
            # exact sums: the order of the symbols must not show in the last bit
            length2 = math.fsum(squares.tolist()) * (row.size / squares.size)
            decay2 = self.decay * self.decay
            self._sums *= (self.decay, decay2, decay2)
            self._sums += (1.0, 1.0, length2 * length2)

    def weight(self, cov: F64) -> float:
        """Return the weight of the identity for the covariance of the same rows."""
        total, total2, fourth = self._sums.tolist()
        if total <= 0.0:
            return 1.0
        return ledoit_wolf_weight(cov, fourth / total**2, total2 / total**2)

    def state(self) -> dict[str, F64]:
        """Return copies of all arrays that make up the state."""
        return {"settings": np.array([self.decay]), "sums": self._sums.copy()}

    @classmethod
    def from_state(cls, state: Mapping[str, F64]) -> Self:
        """Continue from what ``state`` returned."""
        moment = cls(float(state["settings"][0]))
        moment._sums[:] = state["sums"]
        return moment


def quadratic_inverse_eigenvalues(eigenvalues: F64, n_obs: float) -> F64:
    """Shrink the eigenvalues of an equally weighted sample covariance.

        x_i = 1 / L_i,  c = n / n_obs,  h = min(c^2, c^-2)^.35 / n^.35
        th_i = mean_j x_j (x_j - x_i) / ((x_j - x_i)^2 + h^2 x_j^2)
        H_i  = mean_j h x_j^2 / ((x_j - x_i)^2 + h^2 x_j^2)
        1 / d_i = (1 - c)^2 x_i + 2 c (1 - c) x_i th_i + c^2 x_i (th_i^2 + H_i^2)     n <= n_obs
        1 / d_i = x_i (th_i^2 + H_i^2);  for the null ones (c - 1) mean x             n > n_obs

    and then scaled so that their sum is as before.

    Parameters
    ----------
    eigenvalues : (n,)
        Ascending; those beyond the n - n_obs smallest positive.
    n_obs
        Observations, less those spent on means.

    References
    ----------
    Ledoit and Wolf (2022), Bernoulli 28, "Quadratic shrinkage for large covariance matrices",
    section 4.
    """
    n = len(eigenvalues)
    c = n / n_obs
    null = max(0, n - int(n_obs))
    h = min(c * c, 1.0 / (c * c)) ** 0.35 / n**0.35
    x = 1.0 / eigenvalues[null:]
    gap = x[:, None] - x
    scaled = (h * x[:, None]) ** 2
    below = gap * gap + scaled
    theta = np.mean(x[:, None] * gap / below, axis=0)
    conjugate = np.mean(scaled / h / below, axis=0)
    amplitude2 = theta * theta + conjugate * conjugate
    shrunk = np.empty(n)
    if null == 0:
        shrunk[:] = 1.0 / (x * ((1.0 - c) ** 2 + 2.0 * c * (1.0 - c) * theta + c * c * amplitude2))
    else:
        shrunk[:null] = 1.0 / ((c - 1.0) * np.mean(x))
        shrunk[null:] = 1.0 / (x * amplitude2)
    return shrunk * (float(np.sum(eigenvalues)) / float(np.sum(shrunk)))


def clip_eigenvalues(eigenvalues: F64, n_obs: float) -> F64:
    """Average the eigenvalues of a correlation matrix that noise alone could have made.

        s2 = 1 - L_max / n;   edge = s2 (1 + sqrt(n / n_obs))^2

    Those below the edge of Marchenko and Pastur (1967) are replaced by their mean, which is
    held above ``EIGENVALUE_MIN`` where the matrix is far from positive definite.

    Parameters
    ----------
    eigenvalues : (n,)
        Ascending, of a matrix with a unit diagonal.
    n_obs
        Observations; the effective number where they are weighted.

    References
    ----------
    Laloux, Cizeau, Bouchaud and Potters (1999), Physical Review Letters 83.
    """
    n = len(eigenvalues)
    left = 1.0 - float(eigenvalues[-1]) / n
    noise = eigenvalues < left * (1.0 + math.sqrt(n / n_obs)) ** 2
    clipped = np.maximum(eigenvalues, EIGENVALUE_MIN)
    if noise.any():
        clipped[noise] = max(float(np.mean(eigenvalues[noise])), EIGENVALUE_MIN)
    return clipped


def clip_correlation(corr: F64, n_obs: float, order: I64 | None = None) -> F64:
    """Clean a correlation matrix (n, n) by ``clip_eigenvalues``; unit diagonal again."""
    eigenvalues, vectors = decompose(in_order(corr, order))
    return compose_correlation(Spectrum(clip_eigenvalues(eigenvalues, n_obs), vectors), order)


def shrink_target(
    z: F64,
    method: Literal["qis", "ledoit_wolf", "none"] = "qis",
    order: I64 | None = None,
) -> F64:
    """Estimate the long-run correlation that a DCC model returns to.

        x = z, holes as 0, each column scaled to a mean square of 1;   M = x'x / t
        a_ij = t_ij / sqrt(t_i t_j);   R_ij = M*_ij / a_ij,  i != j

    with M* the shrunk M and t_ij the rows that have both. Zeros attenuate M by a, but leave it a
    sample of t rows, positive semi-definite, which is what shrinkage is made for; dividing by a
    afterwards may need eigenvalues lifted to ``LIFTED_MIN``. Without holes a is 1.

    Parameters
    ----------
    z : (t, n)
        Standardised returns of zero mean, equally weighted, NaN where not observed.
    method
        ``qis``: quadratic-inverse shrinkage, for any n and t; ``ledoit_wolf``: linear, towards
        the identity; ``none``: each pair's correlation in the rows that have both, repaired.
    order : (n,)
        A canonical order of the columns: with it, permuted columns give the permuted bits.

    Returns
    -------
    (n, n)
        Symmetric, unit diagonal, positive definite.

    Raises
    ------
    ValueError
        If the method is unknown, ``z`` is not (t, n >= 2), a value is infinite, a symbol never
        moved, or two symbols were never observed together.

    Notes
    -----
    O(t n^2 + n^3), on one BLAS thread. Holes are taken to fall where they do without regard to
    what was not seen.

    References
    ----------
    Lounici (2014), Bernoulli 20, "High-dimensional covariance matrix estimation with missing
    observations", for zeros in place of holes.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.random.default_rng(1).standard_normal((500, 3))
    >>> shrink_target(z).shape
    (3, 3)
    """
    if method not in {"qis", "ledoit_wolf", "none"}:
        message = f"method must be 'qis', 'ledoit_wolf' or 'none', not {method!r}"
        raise ValueError(message)
    if z.ndim != 2 or z.shape[1] < 2 or np.isinf(z).any():
        message = f"z must be (t, n) with n of at least 2 and without infinities, not {z.shape}"
        raise ValueError(message)
    known = np.ascontiguousarray(z if order is None else z[:, order])
    filled, seen, together = _filled(known)
    if method == "none":
        corr = _of_pairs(filled, seen)
    else:
        corr = _attenuated(filled, method)
        if not seen.all():
            own = np.sqrt(np.diagonal(together))
            corr = _lifted(_unit(corr / (together / np.outer(own, own))))
    corr = repair_correlation(corr, TARGET_FLOOR).corr
    return in_order(corr, None if order is None else np.argsort(order))


def _filled(z: F64) -> tuple[F64, F64, F64]:
    # columns of mean square 1, holes as 0; which are none; rows that a pair has
    seen = (~np.isnan(z)).astype(np.float64)
    filled = np.where(seen > 0.0, z, 0.0)
    squares = np.sum(filled * filled, axis=0)
    if not (squares > 0.0).all():
        message = f"symbols that never moved: columns {np.flatnonzero(squares <= 0.0).tolist()}"
        raise ValueError(message)
    filled /= np.sqrt(squares / len(z))
    with one_blas_thread():
        together = seen.T @ seen
    if not (together > 0.0).all():
        message = "two symbols were never observed together"
        raise ValueError(message)
    return filled, seen, together


def _of_pairs(filled: F64, seen: F64) -> F64:
    with one_blas_thread():
        products = filled.T @ filled
        squares = (filled * filled).T @ seen
    scale = np.sqrt(squares * squares.T)
    # a pair of which one never moved while the other was there has no correlation to speak of
    return _unit(np.divide(products, scale, out=np.zeros_like(products), where=scale > 0.0))


def _attenuated(filled: F64, method: str) -> F64:
    t = len(filled)
    with one_blas_thread():
        sample = _unit(filled.T @ filled / t)
    if method == "qis":
        eigenvalues, vectors = decompose(sample)
        positive = np.maximum(eigenvalues, EIGENVALUE_MIN**2)  # rounding may leave less
        values = np.maximum(quadratic_inverse_eigenvalues(positive, t), EIGENVALUE_MIN)
        return compose_correlation(Spectrum(values, vectors))
    fourth = float(np.sum(np.sum(filled * filled, axis=1) ** 2)) / t**2
    return _unit((1.0 - ledoit_wolf_weight(sample, fourth, 1.0 / t)) * sample)


def _lifted(corr: F64) -> F64:
    eigenvalues, vectors = decompose(corr)
    if eigenvalues[0] >= LIFTED_MIN:
        return corr
    return compose_correlation(Spectrum(np.maximum(eigenvalues, LIFTED_MIN), vectors))


def _unit(corr: F64) -> F64:
    np.fill_diagonal(corr, 1.0)
    return corr
