"""The process that fits run in: ``python -m stream_calib.adapters.workers.child [module:name]``.

Frames of ``wire/calls`` come in on the standard input and go out on what was the standard
output, one after the other. It ends when its input ends, which is when its parent does.
"""

import contextlib
import os
import queue
import sys
import threading
from pathlib import Path

import numpy as np

from stream_calib.adapters.workers.answering import CALIBRATE, answered, load
from stream_calib.errors import InputError
from stream_calib.wire.calls import (
    PREFIX_BYTES,
    SUM_BYTES,
    checksum,
    decode_request,
    encode_answer,
    frame_bytes,
)

NICE = 10  # a fit is never more urgent than a tick


def main(function: str) -> None:
    """Answer requests until the input ends."""
    requests, answers = _own_pipes()
    _yield_to_others()
    frames: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
    # a thread of its own, so that the end of the parent is noticed in the middle of a fit
    threading.Thread(target=_read_frames, args=(requests, frames), daemon=True).start()
    calibrate = load(function)
    while True:
        answer = answered(calibrate, decode_request(frames.get()))
        try:
            parts = encode_answer(answer)
            for part in (*parts, checksum(*parts).to_bytes(SUM_BYTES, "little")):
                _write_all(answers, memoryview(part))
        except BrokenPipeError:
            os._exit(0)


def _own_pipes() -> tuple[int, int]:
    # A library that prints writes to the standard error from now on, and none can read frames.
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, answers


def _yield_to_others() -> None:
    with contextlib.suppress(OSError):
        os.nice(NICE)
    if sys.platform == "linux":  # never run instead of the event loop just because a pipe is ready
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with contextlib.suppress(OSError):  # where memory runs out the service is not what is killed
        Path("/proc/self/oom_score_adj").write_text("1000")


def _read_frames(requests: int, frames: "queue.SimpleQueue[memoryview]") -> None:
    try:
        while True:
            prefix = _read_all(requests, PREFIX_BYTES)
            frame = np.empty(frame_bytes(prefix), np.uint8).data
            frame[:PREFIX_BYTES] = prefix
            _read_into(requests, frame[PREFIX_BYTES:])
            frames.put(frame)
    except EOFError:
        os._exit(0)
    except (InputError, MemoryError, OSError) as error:
        sys.stderr.write(f"request not read: {error}\n")
        sys.stderr.flush()
        os._exit(1)


def _read_all(file: int, n_bytes: int) -> bytes:
    out = bytearray(n_bytes)
    _read_into(file, memoryview(out))
    return bytes(out)


def _read_into(file: int, view: memoryview) -> None:
    while view:
        n_read = os.readv(file, [view])
        if n_read == 0:
            raise EOFError
        view = view[n_read:]


def _write_all(file: int, view: memoryview) -> None:
    while view:
        view = view[os.write(file, view) :]


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else CALIBRATE)
