"""Frames through pipes, for threads that have nothing else to do: every call blocks."""

import os

import numpy as np

from stream_calib.wire.calls import PREFIX_BYTES, SUM_BYTES, Parts, checksum, frame_bytes

PIECE_BYTES = 1 << 20  # of what the interpreter's lock is let go for at a time


def write_frame(file: int, parts: Parts) -> None:
    """Write the parts of a frame, and their checksum behind them.

    Raises
    ------
    BrokenPipeError
        If nobody reads.
    """
    check = 0
    for part in parts:
        view = memoryview(part)
        check = checksum(view, start=check)
        _write(file, view)
    _write(file, memoryview(check.to_bytes(SUM_BYTES, "little")))


def read_frame(file: int) -> tuple[memoryview, int]:
    """Read a frame, and take the checksum of all but its last ``SUM_BYTES``.

    Raises
    ------
    EOFError
        If the pipe ends before the frame does.
    InputError
        If no frame begins here.
    MemoryError
        If it is too large.
    """
    prefix = memoryview(bytearray(PREFIX_BYTES))
    _read(file, prefix)
    frame = np.empty(frame_bytes(prefix), np.uint8).data
    frame[:PREFIX_BYTES] = prefix
    _read(file, frame[PREFIX_BYTES:])
    return frame, checksum(frame[:-SUM_BYTES])


def _write(file: int, view: memoryview) -> None:
    while view:
        view = view[os.write(file, view[:PIECE_BYTES]) :]


def _read(file: int, view: memoryview) -> None:
    while view:
        n_read = os.readv(file, [view[:PIECE_BYTES]])
        if n_read == 0:
            raise EOFError
        view = view[n_read:]
