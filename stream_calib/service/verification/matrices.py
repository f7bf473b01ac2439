"""Whether numbers can be a correlation matrix."""

import numpy as np

from stream_calib.values import Matrix

ROUNDING = 1e-7  # of an entry near one in float32, and so of an eigenvalue per symbol


def reason_against(matrix: Matrix) -> str:
    """Return why the numbers are no correlation matrix with its precision; empty when they are.

    ``corr`` has to be finite, symmetric, within -1 and 1, of unit diagonal, and positive definite
    but for the rounding of what was written (n times 1e-7); ``vol`` finite and not negative, as
    ``band`` and ``n_eff`` have to be outside the diagonal.
    """
    corr, n = matrix.corr, len(matrix.symbols)
    if not np.isfinite(corr).all():
        return "corr is not finite"
    if (np.abs(corr) > 1.0 + ROUNDING).any() or (np.diag(corr) != 1.0).any():
        return "corr is beyond one, or its diagonal is not one"
    if (corr != corr.T).any():
        return "corr is not symmetric"
    outside = ~np.eye(n, dtype=bool)
    for name, values in (
        ("vol", matrix.vol),
        ("n_eff", matrix.n_eff[outside]),
        ("band", matrix.band[outside]),
    ):
        if not np.isfinite(values).all() or (values < 0.0).any():
            return f"{name} is not finite, or negative"
    try:
        np.linalg.cholesky(corr + n * ROUNDING * np.eye(n))
    except np.linalg.LinAlgError:
        least = float(np.linalg.eigvalsh(corr)[0])
        return f"corr is not positive definite: its least eigenvalue is {least:.3g}"
    return ""
