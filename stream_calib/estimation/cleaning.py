"""From an estimate to a matrix that can be inverted: the guard before publication."""

from functools import cache
from typing import NamedTuple

import numpy as np
from threadpoolctl import ThreadpoolController

from stream_calib.values import F64, I64


class Repaired(NamedTuple):
    """A positive definite correlation matrix and what it took."""

    corr: F64
    min_eigenvalue: float
    max_eigenvalue: float
    repair: float


@cache
def _blas() -> ThreadpoolController:
    # looking the libraries up takes longer than the eigenvalues of a small matrix
    return ThreadpoolController()


def repair_correlation(corr: F64, floor: float, order: I64 | None = None) -> Repaired:
    """Shrink a correlation matrix towards the identity until it is positive definite.

        R' = (1 - s) R + s I,   s = max(0, (floor - Lmin) / (1 - Lmin))

    Parameters
    ----------
    corr : (n, n)
        Symmetric, unit diagonal, finite; eigenvalues of any sign.
    floor
        Least eigenvalue of the result, in (0, 1).
    order : (n,)
        A canonical order of the rows, so that the order of the symbols does not show in the
        last bits of the eigenvalues.

    Returns
    -------
    Repaired
        ``repair`` is s, the weight of the identity.

    Notes
    -----
    O(n^3). Eigenvalues are computed on one BLAS thread: with more their last bits vary.
    """
    canonical = corr if order is None else corr[np.ix_(order, order)]
    with _blas().limit(limits=1, user_api="blas"):
        eigenvalues = np.linalg.eigvalsh(canonical)
    least, largest = float(eigenvalues[0]), float(eigenvalues[-1])
    if least >= floor:
        return Repaired(corr, least, largest, 0.0)
    weight = (floor - least) / (1.0 - least)
    repaired = (1.0 - weight) * corr
    np.fill_diagonal(repaired, 1.0)
    return Repaired(
        repaired,
        (1.0 - weight) * least + weight,
        (1.0 - weight) * largest + weight,
        weight,
    )
