"""What an estimate of another kind says about a published matrix."""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from stream_calib.values import F64, I64


def compare_correlations(
    corr: F64, other: F64, symbols: tuple[str, ...], order: I64
) -> Mapping[str, object] | None:
    """Sum up how two estimates of the same correlations differ.

    Parameters
    ----------
    corr, other : (n, n)
        ``other`` may be NaN, or beyond one; such entries are left out or count as one.
    symbols, order : (n,)
        Names, and a canonical order of them: that of the rows does not show in the result.

    Returns
    -------
    mapping or None
        ``pairs`` compared; ``average_correlation`` of the other estimate over them;
        ``rms_difference`` and ``largest_difference`` of the two, and its ``largest_pair``.
        None where no pair can be compared.
    """
    cut = np.ix_(order, order)
    mine, theirs = corr[cut], np.clip(other[cut], -1.0, 1.0)
    known: npt.NDArray[np.bool_] = ~np.isnan(theirs)
    np.fill_diagonal(known, val=False)
    entries = int(known.sum())  # each pair twice
    if not entries:
        return None
    apart = np.abs(theirs - mine, out=np.zeros_like(mine), where=known)
    # sums in the canonical order; the first of the largest is above the diagonal
    i, j = divmod(int(np.argmax(apart)), len(order))
    return {
        "pairs": entries // 2,
        "average_correlation": float(theirs.sum(where=known)) / entries,
        "rms_difference": math.sqrt(float((apart * apart).sum()) / entries),
        "largest_difference": float(apart[i, j]),
        "largest_pair": [symbols[order[i]], symbols[order[j]]],
    }
