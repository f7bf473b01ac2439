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

from stream_calib.adapters.workers.answering import CALIBRATE, answered, load
from stream_calib.adapters.workers.pipes import read_frame, write_frame
from stream_calib.errors import InputError
from stream_calib.wire.calls import decode_request, encode_answer

NICE = 10  # a fit is never more urgent than a tick


def main(function: str) -> None:
    """Answer requests until the input ends."""
    requests, answers = _own_pipes()
    _yield_to_others()
    frames: queue.SimpleQueue[tuple[memoryview, int]] = queue.SimpleQueue()
    # a thread of its own, so that the end of the parent is noticed in the middle of a fit
    threading.Thread(target=_read_frames, args=(requests, frames), daemon=True).start()
    calibrate = load(function)
    while True:
        answer = answered(calibrate, decode_request(*frames.get()))
        try:
            write_frame(answers, encode_answer(answer))
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


def _read_frames(requests: int, frames: "queue.SimpleQueue[tuple[memoryview, int]]") -> None:
    try:
        while True:
            frames.put(read_frame(requests))
    except EOFError:
        os._exit(0)
    except (InputError, MemoryError, OSError) as error:
        sys.stderr.write(f"request not read: {error}\n")
        sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else CALIBRATE)
