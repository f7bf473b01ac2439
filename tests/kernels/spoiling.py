"""Arrays that compiled code must refuse: of another type, or not contiguous."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from stream_calib.values import F64

Spoil = Callable[[F64], np.ndarray]


def as_float32(array: F64) -> np.ndarray:
    return array.astype(np.float32)


def as_strided(array: F64) -> np.ndarray:
    return np.repeat(array, 2, axis=-1)[..., ::2]


def refuses(call: Callable[..., Any], arguments: Sequence[Any], index: int, spoil: Spoil) -> None:
    """Check that a call takes its arguments no more once one of them is spoilt."""
    wrong = list(arguments)
    wrong[index] = spoil(wrong[index])
    with pytest.raises(TypeError, match="No matching definition"):
        call(*wrong)
