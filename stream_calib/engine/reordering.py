"""Arrays by symbol, by pair and by square under another list of symbols."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from stream_calib.engine.arrays import Arrays, under, within
from stream_calib.estimation.protocol import Fill, Layout
from stream_calib.values import I64

State = Mapping[str, npt.NDArray[Any]]


def chosen(array: npt.NDArray[Any], origin: I64, nothing: Fill) -> npt.NDArray[Any]:
    """Take symbols of the last axis from where they stood, -1 for nowhere."""
    out = array[..., origin]
    out[..., origin < 0] = nothing
    return out


def turned(state: State, layout: Layout, origin: I64, n_before: int) -> Arrays:
    """Carry the arrays of one part over; ``origin`` is where each symbol stood, -1 for nowhere."""
    out = dict(state)
    if layout.nested is not None:
        prefix, inner = layout.nested
        out |= under(prefix, turned(within(prefix, state), inner, origin, n_before))
    for name, nothing in layout.by_symbol.items():
        if name in out:
            out[name] = chosen(out[name], origin, nothing)
    for name, nothing in layout.by_row.items():
        if name in out:
            rows = out[name][..., origin, :]
            rows[..., origin < 0, :] = nothing
            out[name] = rows
    for name, nothing in layout.by_square.items():
        if name in out:
            square = out[name][..., origin[:, None], origin]
            square[..., (origin < 0)[:, None] | (origin < 0)] = nothing
            out[name] = square
    return out | _turned_triangles(out, layout, origin, n_before)


def _turned_triangles(state: State, layout: Layout, origin: I64, n_before: int) -> Arrays:
    out: Arrays = {}
    for diagonal, names in ((0, layout.by_triangle), (1, layout.by_pair)):
        i, j = np.triu_indices(len(origin), diagonal)
        first, second = np.minimum(origin[i], origin[j]), np.maximum(origin[i], origin[j])
        # packed row by row; a pair in the other order has some of its triangles exchanged
        width = n_before - diagonal
        place = first * width - first * (first - 1) // 2 + second - first - diagonal
        place = np.where(first < 0, -1, place)
        for name, nothing in names.items():
            if name in state and state[name].size:
                out[name] = chosen(state[name], place, nothing)
        turned = origin[i] > origin[j]
        for one, other in layout.exchanged if diagonal == 0 else ():
            if one in out:
                a, b = out[one], out[other]
                out[one], out[other] = np.where(turned, b, a), np.where(turned, a, b)
    return out
