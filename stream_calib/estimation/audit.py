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
    upper = np.triu_indices(len(order), 1)
    mine, theirs = corr[cut][upper], np.clip(other[cut][upper], -1.0, 1.0)
    known: npt.NDArray[np.bool_] = ~np.isnan(theirs)
    if not known.any():
        return None
    apart = np.abs(np.where(known, theirs - mine, 0.0))
    largest = int(np.argmax(apart))
    pairs = int(known.sum())
    pair = (symbols[order[upper[0][largest]]], symbols[order[upper[1][largest]]])
    return {
        "pairs": pairs,
        "average_correlation": math.fsum(theirs[known]) / pairs,
        "rms_difference": math.sqrt(math.fsum(apart * apart) / pairs),
        "largest_difference": float(apart[largest]),
        "largest_pair": list(pair),
    }
