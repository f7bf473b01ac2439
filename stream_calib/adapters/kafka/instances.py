"""A name for this process that it has again after a restart, and no other one meanwhile."""

import contextlib
import fcntl
import os
import re
import secrets
import socket
from pathlib import Path

INSTANCES_MOST = 100
MARK_BYTES = 8
_OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW


class Instance:
    """The first free place in a folder, kept until the process ends, however it ends.

    Parameters
    ----------
    folder
        Shared by the processes of one host; made when it is not there. None for no place.
    given
        The name, where somebody else sees to it that no other process has it.

    Attributes
    ----------
    name
        What was given, or host and the mark of a place; None where no place is taken.
    """

    def __init__(self, folder: Path | None, given: str | None = None) -> None:
        self.name = given
        self._folder = folder
        self._given = given
        self._lock: int | None = None

    def take(self) -> None:
        """Take a place, where there is one to be had."""
        folder = self._folder
        if self.name is not None or folder is None:
            return
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for place in range(INSTANCES_MOST):
                if self._lock_file(folder / f".instance-{place}"):
                    self.name = f"{host_name()}-{self._mark()}"
                    break

    def close(self) -> None:
        """Let another process have the name."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock, self.name = None, self._given

    def _lock_file(self, path: Path) -> bool:
        # Never removed: whoever holds a file that is gone would hold nothing.
        lock = os.open(path, _OPEN, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        except OSError:
            os.close(lock)
            raise
        self._lock = lock
        return True

    def _mark(self) -> str:
        # Chance tells apart the places of several folders; what was drawn once stays.
        assert self._lock is not None
        mark = os.pread(self._lock, MARK_BYTES, 0).decode(errors="replace")
        if not re.fullmatch(rf"[0-9a-f]{{{MARK_BYTES}}}", mark):
            mark = secrets.token_hex(MARK_BYTES // 2)
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, mark.encode(), 0)
        return mark


def host_name() -> str:
    """Return the name of this host, as far as it can be part of a name in Kafka."""
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in socket.gethostname())
