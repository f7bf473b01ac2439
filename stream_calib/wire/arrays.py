"""Named arrays as a table of contents and one run of little-endian bytes, and back."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

KINDS = "biuf"  # booleans and numbers: nothing that would have to be pickled
_DTYPE = re.compile(r"[<|][biuf][1248]|<f16", re.ASCII)


def lay_out_arrays(
    arrays: Mapping[str, npt.NDArray[Any]],
) -> tuple[list[dict[str, Any]], list[memoryview]]:
    """Lay arrays out in the order of their names, without a copy where their bytes are in order.

    Returns
    -------
    table
        Name, dtype, shape and offset into the joined parts, of each array.
    parts
        The bytes of each array; they change with the array.

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
        part = np.ascontiguousarray(little).reshape(-1).view(np.uint8).data
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
    return table, parts


def pack_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> tuple[list[dict[str, Any]], bytes]:
    """Lay arrays out as one run of bytes: the table of ``lay_out_arrays``, and its parts joined.

    Raises
    ------
    ValueError
        If an array holds anything but numbers.
    """
    table, parts = lay_out_arrays(arrays)
    return table, b"".join(parts)


def unpack_arrays(
    table: Sequence[Mapping[str, Any]], payload: bytes | memoryview, *, copy: bool = True
) -> dict[str, Any]:
    """Return the arrays that ``pack_arrays`` laid out, as copies of their own.

    Without ``copy`` they are views of the payload, where the machine is little-endian.

    Raises
    ------
    KeyError, TypeError, ValueError
        If the table is not one of these bytes, from the first to the last.
    """
    out: dict[str, Any] = {}
    offset = 0
    for entry in table:
        name, shape = entry["name"], tuple(entry["shape"])
        lengths = all(type(length) is int and 0 <= length < 1 << 48 for length in shape)
        # judged before numpy sees it, which reads far more than types of numbers out of a text
        if not lengths or not _DTYPE.fullmatch(entry["dtype"]) or entry["offset"] != offset:
            message = f"array {name!r} is not where it should be"
            raise ValueError(message)
        dtype = np.dtype(entry["dtype"])
        count = math.prod(shape)
        if dtype.str != entry["dtype"] or count * dtype.itemsize > len(payload) - offset:
            message = f"array {name!r} is not in these bytes"
            raise ValueError(message)
        array = np.frombuffer(payload, dtype, count, offset) if count else np.empty(0, dtype)
        out[str(name)] = array.reshape(shape).astype(dtype.newbyteorder("="), copy=copy)
        offset += count * dtype.itemsize
    if offset != len(payload):
        message = f"{len(payload) - offset} bytes belong to no array"
        raise ValueError(message)
    return out
