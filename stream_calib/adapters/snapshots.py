"""Snapshots as files of one folder: written whole or not at all, by one process at a time.

A file has its name only once all of its bytes are on the disk. Names and bytes are the
caller's; names are ``<number, 20 digits>-<chain>.snap``, so that the newest sorts last.
"""

import contextlib
import errno
import fcntl
import os
import re
import stat
import threading
from collections.abc import Callable
from pathlib import Path

from stream_calib.errors import OwnershipError

LOCK = ".lock"
_NAME = re.compile(r"\d{20}-\w+\.snap", re.ASCII)
_LEFTOVER = re.compile(r"\.\d{20}-\w+\.snap\.tmp", re.ASCII)
# a link in the place of a file is never followed, a pipe in its place never waited for
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW


def _nothing(_point: str) -> None: ...


class SnapshotFolder:
    """Keeps the snapshots of one universe in a folder; implements ``ports.SnapshotStore``.

    Reading needs no ``open``. A process that dies lets others in.

    Parameters
    ----------
    folder
        Made when it is not there, for this user alone.
    keep
        Snapshots that are kept, the newest by name.
    at
        Told when a save reaches ``snapshot_write`` (half of the bytes), ``snapshot_written``
        (all, not yet under its name), ``snapshot_renamed`` (not yet for certain) and
        ``snapshot_saved``; for tests that crash there.

    Attributes
    ----------
    unusable
        Why nothing can be saved here, known after ``open``; None when nothing is wrong.
    """

    def __init__(self, folder: Path, keep: int = 3, at: Callable[[str], None] = _nothing) -> None:
        assert keep >= 1
        self.folder = folder
        self.unusable: str | None = None
        self._keep = keep
        self._at = at
        self._lock: int | None = None
        self._saving = threading.Lock()

    def open(self) -> None:
        """Make the folder, keep others out, and remove what a crash left behind.

        A folder that cannot be written is no error: ``unusable`` says why, what is in it can
        still be read, and ``save`` fails.

        Raises
        ------
        OwnershipError
            Another process has it open.
        """
        assert self._lock is None
        self.unusable = None
        try:
            self._make()
            self._lock = self._own()
            for path in self.folder.iterdir():
                if _LEFTOVER.fullmatch(path.name):
                    path.unlink()
        except OSError as error:
            blocked = isinstance(error, FileExistsError | NotADirectoryError)
            reason = "a file is in its place" if blocked else error.strerror or str(error)
            self.unusable = f"{self.folder} cannot be written ({reason})"
            self.close()

    def names(self) -> list[str]:
        """Return the names of all snapshots, newest first; none where there is no folder."""
        try:
            with os.scandir(self.folder) as entries:
                found = [
                    entry.name
                    for entry in entries
                    if _NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
                ]
        except OSError:
            return []
        return sorted(found, reverse=True)

    def load(self, name: str) -> bytes:
        """Return the bytes of one; OSError when it is not there or cannot be read."""
        if not _NAME.fullmatch(name):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        path = self.folder / name
        with os.fdopen(os.open(path, _READ), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(errno.EINVAL, "Not a file", str(path))
            return file.read()

    def save(self, name: str, value: bytes) -> None:
        """Keep a snapshot; on return it survives a loss of power.

        The oldest beyond those to be kept are dropped then, never the one just saved.

        Raises
        ------
        OSError
            It is not saved, or not for certain.
        """
        if not _NAME.fullmatch(name):
            raise OSError(errno.EINVAL, "Not the name of a snapshot", name)
        with self._saving:
            if self._lock is None:
                raise OSError(errno.EROFS, self.unusable or "Not open", str(self.folder))
            temporary = self.folder / f".{name}.tmp"
            try:
                self._write(temporary, value)
                self._at("snapshot_written")
                temporary.replace(self.folder / name)
            except OSError:
                with contextlib.suppress(OSError):
                    temporary.unlink()  # it would take the space that is missing, perhaps
                raise
            self._at("snapshot_renamed")
            _sync(self.folder)
            for old in [other for other in self.names() if other != name][self._keep - 1 :]:
                self.delete(old)
            self._at("snapshot_saved")

    def delete(self, name: str) -> None:
        """Drop one; nothing happens when it is not there, or cannot be dropped."""
        if self._lock is not None and _NAME.fullmatch(name):
            with contextlib.suppress(OSError):
                (self.folder / name).unlink()

    def close(self) -> None:
        """Let others in, after a save that is under way."""
        with self._saving:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def _make(self) -> None:
        new = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in new:
            _sync(path.parent)

    def _own(self) -> int:
        # Never removed: whoever waits for a file that is gone would own nothing.
        path = self.folder / LOCK
        lock = os.open(path, _LOCK, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            message = f"Another process (pid {holder}) keeps its snapshots in {self.folder}"
            raise OwnershipError(message) from None
        except OSError:
            os.close(lock)
            raise
        with contextlib.suppress(OSError):  # for the words of others only
            os.ftruncate(lock, 0)
            os.pwrite(lock, b"%d\n" % os.getpid(), 0)
        return lock

    def _write(self, path: Path, value: bytes) -> None:
        path.unlink(missing_ok=True)
        file = os.open(path, _CREATE, 0o600)
        try:
            view, half = memoryview(value), len(value) // 2
            _write_all(file, view[:half])
            self._at("snapshot_write")
            _write_all(file, view[half:])
            os.fsync(file)
        finally:
            os.close(file)


def _sync(folder: Path) -> None:
    # Makes the names in it durable; some network file systems know no such thing.
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.EBADF}:
            raise
    finally:
        os.close(handle)


def _write_all(file: int, view: memoryview) -> None:
    while view:
        view = view[os.write(file, view) :]
