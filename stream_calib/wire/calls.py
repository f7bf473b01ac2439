"""Requests for fits and their answers, between two processes over pipes.

A frame is ``SCW1``, the lengths of head (u32) and arrays (u64), the CRC-32 of these 16 bytes;
then the head (JSON: what it is, and a table of the arrays), the arrays as float64, and the
CRC-32 of head and arrays; all little-endian. Nothing in it is code.
"""

import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from stream_calib.errors import InputError
from stream_calib.values import F64, Fit, FitFailure, FitRequest
from stream_calib.wire.arrays import lay_out_arrays, unpack_arrays

MAGIC = b"SCW1"
_PREFIX = struct.Struct("<4sIQI")
_SUM = struct.Struct("<I")
PREFIX_BYTES = _PREFIX.size
_REQUEST = ("model", "number", "reason", "as_of_ns", "settings")
_FAILURE = ("model", "number", "code", "reason")

Parts = tuple[bytes | memoryview, ...]


def encode_request(request: FitRequest) -> Parts:
    """Turn a request into the parts of a frame; large parts are the memory of its arrays.

    Raises
    ------
    TypeError
        If the settings are not JSON values.
    ValueError
        If an array is not float64.
    """
    head = {name: getattr(request, name) for name in _REQUEST}
    return _frame({"kind": "request"} | head, request.arrays)


def encode_answer(answer: Fit | FitFailure) -> Parts:
    """Turn a fit or a failure into the parts of a frame; large parts are the fit's own memory.

    Raises
    ------
    ValueError
        If an array is not float64.
    """
    if isinstance(answer, Fit):
        return _frame({"kind": "fit", "model": answer.model}, answer.arrays)
    head = {name: getattr(answer, name) for name in _FAILURE}
    return _frame({"kind": "failure"} | head, {})


def frame_bytes(prefix: bytes | memoryview) -> int:
    """Return the length of the whole frame that begins with these ``PREFIX_BYTES`` bytes.

    Raises
    ------
    InputError
        If no frame begins here.
    """
    n_head, n_arrays = _lengths(prefix)
    return PREFIX_BYTES + n_head + n_arrays + _SUM.size


def decode_request(frame: bytes | memoryview) -> FitRequest:
    """Turn a whole frame back into a request, whose arrays are copies of their own.

    Raises
    ------
    InputError
        If it is not the frame of a request, or damaged.
    """
    head, arrays = _open(frame)
    try:
        if head["kind"] == "request":
            return FitRequest(**{name: head[name] for name in _REQUEST}, arrays=arrays)
    except KeyError as error:
        message = f"a request without {error}"
        raise InputError(message) from None
    message = f"a frame of kind {head['kind']!r}, not a request"
    raise InputError(message)


def decode_answer(frame: bytes | memoryview) -> Fit | FitFailure:
    """Turn a whole frame back into a fit or a failure; arrays are copies of their own.

    Raises
    ------
    InputError
        If it is not the frame of an answer, or damaged.
    """
    head, arrays = _open(frame)
    try:
        if head["kind"] == "fit":
            return Fit(head["model"], arrays)
        if head["kind"] == "failure":
            return FitFailure(**{name: head[name] for name in _FAILURE})
    except KeyError as error:
        message = f"an answer without {error}"
        raise InputError(message) from None
    message = f"a frame of kind {head['kind']!r}, not an answer"
    raise InputError(message)


def _frame(head: dict[str, Any], arrays: Mapping[str, F64]) -> Parts:
    for name, array in arrays.items():
        if array.dtype != np.float64:
            message = f"array {name!r} holds {array.dtype}, not float64"
            raise ValueError(message)
    table, payload = lay_out_arrays(arrays)
    text = orjson.dumps(head | {"arrays": table}, option=orjson.OPT_SORT_KEYS)
    prefix = _PREFIX.pack(MAGIC, len(text), sum(map(len, payload)), 0)[: -_SUM.size]
    check = zlib.crc32(text)
    for part in payload:
        check = zlib.crc32(part, check)
    start = prefix + _SUM.pack(zlib.crc32(prefix)) + text
    return (start, *payload, _SUM.pack(check))


def _lengths(prefix: bytes | memoryview) -> tuple[int, int]:
    # checked by itself: memory is reserved by it before the rest is there
    if len(prefix) < PREFIX_BYTES:
        message = "the frame is torn"
        raise InputError(message)
    magic, n_head, n_arrays, check = _PREFIX.unpack_from(prefix)
    if magic != MAGIC or check != zlib.crc32(prefix[: PREFIX_BYTES - _SUM.size]):
        message = "not a frame (no whole SCW1 at the start)"
        raise InputError(message)
    return n_head, n_arrays


def _open(frame: bytes | memoryview) -> tuple[dict[str, Any], dict[str, F64]]:
    view = memoryview(frame)
    n_head, n_arrays = _lengths(view)
    body, end = view[PREFIX_BYTES : -_SUM.size], view[-_SUM.size :]
    if len(body) != n_head + n_arrays or _SUM.unpack(end)[0] != zlib.crc32(body):
        message = "the frame is damaged: its checksum is not that of its bytes"
        raise InputError(message)
    try:
        head: dict[str, Any] = orjson.loads(body[:n_head])
        arrays = unpack_arrays(head["arrays"], body[n_head:])
        head["kind"] = str(head["kind"])
    except (KeyError, TypeError, ValueError) as error:
        message = f"not a frame ({type(error).__name__}: {error})"
        raise InputError(message) from None
    return head, arrays
