"""How a process begins and ends that has no standard error, or no memory."""

import os
import sys
from typing import NoReturn

from stream_calib.adapters.log_pipe import say_without_memory

STANDARD_ERROR = 2
NO_MEMORY = b"stream-calib: there is no memory, or no thread, to go on with; start it anew\n"
NO_THREAD = "can't start new thread"


def end_without_memory() -> NoReturn:
    """End at once, as after a crash, with one sentence that takes no memory."""
    say_without_memory(NO_MEMORY)
    os._exit(1)


def occupy_standard_error() -> None:
    """Take the place of a standard error that is closed.

    The first connection would get its number, and be told what is said.
    """
    if sys.stderr is None:
        descriptor = os.open(os.devnull, os.O_WRONLY)
        if descriptor != STANDARD_ERROR:
            os.dup2(descriptor, STANDARD_ERROR)
            os.close(descriptor)
        sys.stderr = os.fdopen(STANDARD_ERROR, "w", closefd=False)
