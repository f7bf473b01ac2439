"""Standard error, which may be full, closed or slow: whoever logs does not wait for it."""

import contextlib
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import TextIO

BACKLOG_BYTES = 2**20  # of lines that wait
PATIENCE_S = 0.05
LAST_S = 2.0


class LogPipe:
    """Takes lines as a text stream does, and writes them in a thread of its own.

    As long as the other end keeps up a line is out when ``write`` returns, so that a process that
    is killed has said what it said. Once a line takes longer than ``patience_s``, lines wait in a
    backlog and nobody for them, until all of it is out. What does not fit is dropped and counted,
    and so is what cannot be written at all: the other end hung up, or its disk is full.

    Parameters
    ----------
    stream
        Where lines go. One without a file descriptor takes them at once.
    patience_s
        Longest wait of a ``write``.
    backlog_bytes
        Bound of the backlog.
    told
        Called, in the thread, with the number of lines lost once a line can be written again.

    Attributes
    ----------
    dropped
        Lines lost so far.
    """

    def __init__(
        self,
        stream: TextIO,
        patience_s: float = PATIENCE_S,
        backlog_bytes: int = BACKLOG_BYTES,
        told: Callable[[int], None] | None = None,
    ) -> None:
        self.dropped = 0
        self._stream = stream
        self._fd = _descriptor(stream)
        self._patience_s = patience_s
        self._backlog_bytes = backlog_bytes
        self._told = told
        self._on_drop: Callable[[int], None] | None = None
        self._untold = 0
        self._lines: deque[bytes] = deque()  # the first one is being written
        self._n_bytes = 0
        self._stuck = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def waiting_bytes(self) -> int:
        """Size of the backlog."""
        return self._n_bytes

    def watch(self, on_drop: Callable[[int], None]) -> None:
        """Let ``on_drop`` know of every loss, with the number of lines, past ones at once."""
        with self._changed:
            self._on_drop = on_drop
            on_drop(self.dropped)

    def write(self, text: str) -> int:
        """Take a line; never raises, and waits no longer than ``patience_s``."""
        if self._fd is None:
            self._stream.write(text)
            self._stream.flush()
            return len(text)
        line = text.encode(errors="backslashreplace")
        with self._changed:
            if self._n_bytes + len(line) > self._backlog_bytes:
                self._drop()
                return len(text)
            self._lines.append(line)
            self._n_bytes += len(line)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            if not self._stuck and threading.current_thread() is not self._thread:
                out = self._changed.wait_for(lambda: not self._lines, self._patience_s)
                self._stuck = not out
        return len(text)

    def flush(self) -> None:
        """Do nothing: ``write`` has done what can be done."""

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._lines))
                line = self._lines[0]
            is_out, lost = self._put(line), 0
            with self._changed:
                self._lines.popleft()
                self._n_bytes -= len(line)
                if not is_out:
                    self._drop()
                elif not self._lines:
                    lost, self._untold = self._untold, 0
                self._stuck = self._stuck and bool(self._lines)
                self._changed.notify_all()
            if lost and self._told is not None:
                self._told(lost)

    def _put(self, line: bytes) -> bool:
        assert self._fd is not None
        while line:
            try:
                line = line[os.write(self._fd, line) :]
            except BlockingIOError:  # whoever shares it made it not wait
                select.select([], [self._fd], [], 1.0)
            except OSError:
                return False
        return True

    def _drop(self) -> None:
        self.dropped += 1
        self._untold += 1
        if self._on_drop is not None:
            self._on_drop(1)


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError):  # of a test, or of a program that embeds this one
        return None


def say_last(text: str) -> None:
    """Write to standard error before the process ends, which it does even if nobody reads."""
    try:
        LogPipe(sys.stderr, patience_s=LAST_S).write(text)
    except (MemoryError, RuntimeError):  # no thread can be had
        say_without_memory(text.encode())


def say_without_memory(text: bytes) -> None:
    """Write to standard error what is there already, without a thread, or not at all."""
    descriptor = _descriptor(sys.stderr)
    if descriptor is not None and select.select([], [descriptor], [], LAST_S)[1]:
        with contextlib.suppress(OSError):
            os.write(descriptor, text)
