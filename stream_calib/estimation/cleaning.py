"""From an estimate to a matrix that can be inverted: the guard before publication."""

import math
from contextlib import AbstractContextManager
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.linalg.blas import dtrmm, dtrsm
from scipy.linalg.lapack import dpotrf
from threadpoolctl import ThreadpoolController

from stream_calib.kernels.two_scale_reading import CORR2_MAX
from stream_calib.values import F64, I64

POWERS = 8
NEAREST_SWEEPS = 2000
NEAREST_TOLERANCE = 1e-10  # largest change of an entry in the last sweep


class Repaired(NamedTuple):
    """A positive definite correlation matrix and what it took."""

    corr: F64
    min_eigenvalue: float
    max_eigenvalue: float
    repair: float
    effective_bets: float


class Spectrum(NamedTuple):
    """Eigenvalues (n,), ascending, and eigenvectors (n, n), one in each column."""

    eigenvalues: F64
    vectors: F64


@cache
def _blas() -> ThreadpoolController:
    # looking the libraries up takes longer than the eigenvalues of a small matrix
    return ThreadpoolController()


def one_blas_thread() -> AbstractContextManager[object]:
    """Return a context in which BLAS has one thread: with more, last bits of results vary."""
    limited: AbstractContextManager[object] = _blas().limit(limits=1, user_api="blas")
    return limited


def in_order(matrix: F64, order: I64 | None) -> F64:
    """Return a matrix with its rows and columns in an order, contiguous."""
    return matrix if order is None else np.ascontiguousarray(matrix[np.ix_(order, order)])


def repair_correlation(
    corr: F64, floor: float, order: I64 | None = None, lifted: float = 0.0
) -> Repaired:
    """Shrink a correlation matrix towards the identity until it is positive definite.

        R' = (1 - s) R + s I,   s = (max(floor, lifted) - Lmin) / (1 - Lmin)  where Lmin < floor

    Parameters
    ----------
    corr : (n, n)
        Symmetric, unit diagonal, finite; eigenvalues of any sign.
    floor
        Least eigenvalue of the result, in (0, 1).
    order : (n,)
        A canonical order of the rows, so that the order of the symbols does not show in the
        last bits of the eigenvalues.
    lifted
        Least eigenvalue of what had to be shrunk, below 1; ``floor`` where that is more. A matrix
        at the very floor says that some portfolio has next to no risk, which nobody observed.

    Returns
    -------
    Repaired
        ``repair`` is s, the weight of the identity; ``effective_bets`` is
        exp(-sum_k p_k ln p_k), p_k = L_k / n (Meucci 2009, Managing Diversification): n where
        nothing is correlated, 1 where all moves as one.

    Notes
    -----
    O(n^3). Eigenvalues are computed on one BLAS thread: with more their last bits vary.
    """
    with one_blas_thread():
        eigenvalues = np.asarray(np.linalg.eigvalsh(in_order(corr, order)), np.float64)
    least, largest = float(eigenvalues[0]), float(eigenvalues[-1])
    if least >= floor:
        return Repaired(corr, least, largest, 0.0, _effective_bets(eigenvalues))
    weight = (max(floor, lifted) - least) / (1.0 - least)
    repaired = (1.0 - weight) * corr
    np.fill_diagonal(repaired, 1.0)
    lifted_all: F64 = (1.0 - weight) * eigenvalues + weight
    return Repaired(
        repaired,
        float(lifted_all[0]),
        float(lifted_all[-1]),
        weight,
        _effective_bets(lifted_all),
    )


def repaired_band(band: F64, before: F64, corr: F64) -> F64:
    """Return the standard errors of ``corr``, which is ``before`` repaired, with its ``band``.

    A standard error is a share of 1 - r^2; all are (n, n).
    """
    if np.array_equal(before, corr):
        return band
    # bands are worked out up to a correlation from which on they do not shrink any more
    left, now = (np.maximum(1.0 - r * r, 1.0 - CORR2_MAX) for r in (before, corr))
    repaired: F64 = band * (now / left)
    return repaired


def _effective_bets(eigenvalues: F64) -> float:
    shares = eigenvalues / len(eigenvalues)
    return math.exp(-math.fsum(shares * np.log(shares)))


def crisis_distance(corr: F64, order: I64 | None = None) -> float:
    """Return how far a correlation matrix is from one in which everything moves as one.

        d^2 = mean over i < j of (R_ij - v_i v_j)^2,   v the signs of the leading eigenvector

    Parameters
    ----------
    corr : (n, n)
        Symmetric, unit diagonal, n >= 2.
    order : (n,)
        A canonical order of the rows, so that the order of the symbols does not show.

    Notes
    -----
    O(n^2): the eigenvector is found by powers, of which only the signs are used.
    """
    square = in_order(corr, order)
    n = len(square)
    shared = np.einsum("ij,ij->i", square, square)
    with one_blas_thread():
        # the symbol that shares most with all others begins
        direction = square[np.argmax(shared)].copy()
        for _ in range(POWERS):
            direction = square @ direction
            direction /= np.abs(direction).max()
        signs = np.where(direction < 0.0, -1.0, 1.0)
        aligned = float(signs @ square @ signs)
    squares = float(shared.sum())
    return math.sqrt(max(0.0, (squares - 2.0 * aligned + n * n) / (n * (n - 1.0))))


def decompose(matrix: F64) -> Spectrum:
    """Decompose a symmetric matrix (n, n); the largest entry of each eigenvector is positive.

    Where two entries are equally large the first decides. On one BLAS thread, so that the
    same bytes give the same bytes.
    """
    with one_blas_thread():
        eigenvalues, vectors = np.linalg.eigh(matrix)
    largest = np.argmax(np.abs(vectors), axis=0)
    negative = vectors[largest, np.arange(len(vectors))] < 0.0
    return Spectrum(eigenvalues, np.ascontiguousarray(np.where(negative, -vectors, vectors)))


def compose_correlation(spectrum: Spectrum, order: I64 | None = None) -> F64:
    """Put a correlation matrix together from eigenvalues and eigenvectors.

        M = U diag(v) U';   R_ij = M_ij / sqrt(M_ii M_jj)

    Parameters
    ----------
    spectrum
        Eigenvalues positive; the rows of the eigenvectors in canonical order.
    order : (n,)
        The canonical order; the result has its rows as they were before.

    Returns
    -------
    (n, n)
        Symmetric and of unit diagonal to the last bit.
    """
    rows = spectrum.vectors * np.sqrt(spectrum.eigenvalues)
    rows /= np.sqrt((rows * rows).sum(axis=1, keepdims=True))
    with one_blas_thread():
        corr = rows @ rows.T  # a matrix and its own transpose: symmetric by construction
    np.fill_diagonal(corr, 1.0)
    return in_order(corr, None if order is None else np.argsort(order))


class Root:
    """Lower triangle L of a positive definite matrix, M = L L', and what it can do.

    Results are in column order. Call it inside ``one_blas_thread``.

    Parameters
    ----------
    matrix : (n, n)
        Of which only the upper triangle is read, and overwritten.

    Raises
    ------
    np.linalg.LinAlgError
        If the matrix is not positive definite.
    """

    def __init__(self, matrix: F64) -> None:
        # rows in memory are the columns of LAPACK: its lower triangle is our upper one
        lower, info = dpotrf(matrix.T, lower=1, clean=0, overwrite_a=1)
        if info:
            message = "not positive definite"
            raise np.linalg.LinAlgError(message)
        self._lower = lower

    def log_determinant(self) -> float:
        """Return ln |L|, half of ln |M|."""
        return math.fsum(np.log(self._lower.diagonal()))

    def times(self, columns: F64) -> F64:
        """Return L x of every column (n, k)."""
        product: F64 = dtrmm(1.0, self._lower, columns, lower=1)
        return product

    def divide(self, columns: F64) -> F64:
        """Return L^-1 x of every column (n, k)."""
        quotient: F64 = dtrsm(1.0, self._lower, columns, lower=1)
        return quotient

    def divide_transposed(self, columns: F64) -> F64:
        """Return L'^-1 x of every column (n, k)."""
        quotient: F64 = dtrsm(1.0, self._lower, columns, lower=1, trans_a=1)
        return quotient


def nearest_correlation(corr: F64, floor: float, order: I64 | None = None) -> F64:
    """Find the correlation matrix nearest in the Frobenius norm with eigenvalues above a floor.

        alternately   X = P(Y - D),  D <- X - (Y - D),  Y = X with a unit diagonal

    with P lifting eigenvalues to the floor and D Dykstra's correction.

    Parameters
    ----------
    corr : (n, n)
        Symmetric, finite; eigenvalues of any sign.
    floor
        Least eigenvalue of the result, in (0, 1).
    order : (n,)
        A canonical order of the rows.

    Returns
    -------
    (n, n)
        Symmetric, unit diagonal. What the last sweep misses of the floor is made up for by
        ``repair_correlation``.

    Notes
    -----
    O(n^3) for each of at most ``NEAREST_SWEEPS`` sweeps; convergence is linear. For a matrix to
    publish ``repair_correlation`` is cheaper and never makes a correlation stronger.

    References
    ----------
    Higham (2002), IMA Journal of Numerical Analysis 22, algorithm 3.3.
    """
    nearest = in_order(np.array(corr), order)
    np.fill_diagonal(nearest, 1.0)
    correction = np.zeros_like(nearest)
    for _ in range(NEAREST_SWEEPS):
        before, shifted = nearest, nearest - correction
        eigenvalues, vectors = decompose(shifted)
        rows = vectors * np.sqrt(np.maximum(eigenvalues - floor, 0.0))
        with one_blas_thread():
            lifted = rows @ rows.T + floor * np.eye(len(rows))
        correction = lifted - shifted
        nearest = lifted.copy()
        np.fill_diagonal(nearest, 1.0)
        if np.abs(nearest - before).max() <= NEAREST_TOLERANCE:
            break
    repaired = repair_correlation(nearest, floor).corr
    return in_order(repaired, None if order is None else np.argsort(order))
