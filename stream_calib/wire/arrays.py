"""Named arrays as a table of contents and one run of little-endian bytes, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

KINDS = "biuf"  # booleans and numbers: nothing that would have to be pickled


def pack_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> tuple[list[dict[str, Any]], bytes]:
    """Lay arrays out in the order of their names.

    Returns
    -------
    table
        Name, dtype, shape and offset into the bytes, of each array.
    payload

    Raises
    ------
    ValueError
        If an array holds anything but numbers.
    """
    table, parts, offset = [], [], 0
    for name in sorted(arrays):
        array = arrays[name]
        if array.dtype.kind not in KINDS:
            message = f"array {name!r} holds {array.dtype}, not numbers"
            raise ValueError(message)
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        part = little.tobytes()
        table.append(
            {
                "name": name,
                "dtype": little.dtype.str,
                "shape": list(array.shape),
                "offset": offset,
            }
        )
        parts.append(part)
        offset += len(part)
    return table, b"".join(parts)


def unpack_arrays(table: Sequence[Mapping[str, Any]], payload: bytes) -> dict[str, Any]:
    """Return the arrays that ``pack_arrays`` laid out, as copies of their own.

    Raises
    ------
    KeyError, TypeError, ValueError
        If the table is not one of these bytes, from the first to the last.
    """
    out: dict[str, Any] = {}
    offset = 0
    for entry in table:
        dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
        if dtype.kind not in KINDS or dtype.str != entry["dtype"] or entry["offset"] != offset:
            message = f"array {entry['name']!r} is not where it should be"
            raise ValueError(message)
        count = 1
        for length in shape:
            count *= length
        array = np.frombuffer(payload, dtype, count, offset) if count else np.empty(0, dtype)
        out[entry["name"]] = array.reshape(shape).astype(dtype.newbyteorder("="))
        offset += count * dtype.itemsize
    if offset != len(payload):
        message = f"{len(payload) - offset} bytes belong to no array"
        raise ValueError(message)
    return out
