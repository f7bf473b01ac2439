"""Array aliases, times, and limits that every floor shares."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

F64: TypeAlias = npt.NDArray[np.float64]
I64: TypeAlias = npt.NDArray[np.int64]
I8: TypeAlias = npt.NDArray[np.int8]

NO_TIME = -(2**63)  # a time that is not known; compares below every time
SECOND_NS = 1_000_000_000
YEAR_NS = 365 * 86_400 * SECOND_NS

JSON_MAX_SYMBOLS = 200  # larger matrices are packed as float32
REJECT_BYTES_MAX = 65_536  # what is kept of a record that was not used

# what a record is: a tick, or a control record that adjusts earlier prices
TICK, FACTOR, OFFSET, RESET = 0, 1, 2, 3


def eigenvalue_floor(n: int) -> float:
    """Least eigenvalue of a published matrix of n symbols, so that it survives its wire type.

    JSON carries every digit; rounding to float32 moves eigenvalues by up to 4 sqrt(n) 2^-24.
    """
    return 1e-8 if n <= JSON_MAX_SYMBOLS else 1e-4
