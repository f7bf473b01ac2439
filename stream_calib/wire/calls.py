"""Requests for fits and their answers, between two processes over pipes.

A frame is ``SCW1``, the lengths of head (u32) and arrays (u64), the CRC-32 of these 16 bytes;
then the head (JSON: what it is, and a table of the arrays; spaces up to a multiple of 8), the
arrays as float64, and the CRC-32 of all bytes before; all little-endian. Nothing in it is code.

Arrays are not copied, and the last checksum can be taken part by part, with the interpreter's
lock let go, so that whoever sends or receives a frame keeps no other thread waiting.
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
SUM_BYTES = 4
_LENGTHS = struct.Struct("<4sIQ")
_ALIGNED = 8
PREFIX_BYTES = _LENGTHS.size + SUM_BYTES
_REQUEST = ("model", "number", "reason", "as_of_ns", "settings")
_FAILURE = ("model", "number", "code", "reason")

Parts = tuple[bytes | memoryview, ...]
Frame = bytes | bytearray | memoryview


def encode_request(request: FitRequest) -> Parts:
    """Turn a request into the parts of a frame but its checksum; large parts are its own memory.

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
    """Turn an answer into the parts of a frame but its checksum; large parts are the fit's memory.

    Raises
    ------
    ValueError
        If an array is not float64.
    """
    if isinstance(answer, Fit):
        return _frame({"kind": "fit", "model": answer.model}, answer.arrays)
    head = {name: getattr(answer, name) for name in _FAILURE}
    return _frame({"kind": "failure"} | head, {})


def seal(parts: Parts) -> bytearray:
    """Join parts and their checksum to the frame."""
    return bytearray().join((*parts, checksum(*parts).to_bytes(SUM_BYTES, "little")))


def checksum(*parts: Frame, start: int = 0) -> int:
    """Return the CRC-32 of parts one after the other, ``start`` being that of what came before."""
    for part in parts:
        start = zlib.crc32(part, start)
    return start


def frame_bytes(prefix: Frame) -> int:
    """Return the length of the whole frame that begins with these ``PREFIX_BYTES`` bytes.

    Raises
    ------
    InputError
        If no frame begins here.
    """
    n_head, n_arrays = _lengths(prefix)
    return PREFIX_BYTES + n_head + n_arrays + SUM_BYTES


def decode_request(frame: Frame, check: int | None = None) -> FitRequest:
    """Turn a whole frame back into a request, whose arrays are the frame's memory.

    ``check`` is the checksum of all but the last ``SUM_BYTES``, if it was taken already.

    Raises
    ------
    InputError
        If it is not the frame of a request, or damaged.
    """
    head, arrays = _open(frame, check)
    try:
        if head["kind"] == "request":
            return FitRequest(**{name: head[name] for name in _REQUEST}, arrays=arrays)
    except KeyError as error:
        message = f"a request without {error}"
        raise InputError(message) from None
    message = f"a frame of kind {head['kind']!r}, not a request"
    raise InputError(message)


def decode_answer(frame: Frame, check: int | None = None) -> Fit | FitFailure:
    """Turn a whole frame back into a fit or a failure; arrays are the frame's memory.

    ``check`` is the checksum of all but the last ``SUM_BYTES``, if it was taken already.

    Raises
    ------
    InputError
        If it is not the frame of an answer, or damaged.
    """
    head, arrays = _open(frame, check)
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
    text += b" " * (-(PREFIX_BYTES + len(text)) % _ALIGNED)
    lengths = _LENGTHS.pack(MAGIC, len(text), sum(map(len, payload)))
    start = lengths + checksum(lengths).to_bytes(SUM_BYTES, "little") + text
    return (start, *payload)


def _lengths(prefix: Frame) -> tuple[int, int]:
    # checked by itself: memory is reserved by it before the rest is there
    if len(prefix) < PREFIX_BYTES:
        message = "the frame is torn"
        raise InputError(message)
    magic, n_head, n_arrays = _LENGTHS.unpack_from(prefix)
    if magic != MAGIC or _sum_at(prefix, _LENGTHS.size) != checksum(prefix[: _LENGTHS.size]):
        message = "not a frame (no whole SCW1 at the start)"
        raise InputError(message)
    return n_head, n_arrays


def _sum_at(data: Frame, at: int) -> int:
    return int.from_bytes(data[at : at + SUM_BYTES], "little")


def _open(frame: Frame, check: int | None) -> tuple[dict[str, Any], dict[str, F64]]:
    view = memoryview(frame)
    n_head, n_arrays = _lengths(view)
    end = PREFIX_BYTES + n_head + n_arrays
    if check is None:
        check = checksum(view[:-SUM_BYTES])
    if len(view) != end + SUM_BYTES or check != _sum_at(view, end):
        message = "the frame is damaged: its checksum is not that of its bytes"
        raise InputError(message)
    body = view[PREFIX_BYTES:end]
    try:
        head: dict[str, Any] = orjson.loads(body[:n_head])
        arrays = unpack_arrays(head["arrays"], body[n_head:], copy=False)
        head["kind"] = str(head["kind"])
    except (KeyError, TypeError, ValueError) as error:
        message = f"not a frame ({type(error).__name__}: {error})"
        raise InputError(message) from None
    return head, arrays
