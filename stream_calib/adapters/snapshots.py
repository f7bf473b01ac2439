"""Snapshots as files of one folder: written whole or not at all.

A file has its name only once all of its bytes are on the disk. Names and bytes are the caller's.
"""

import contextlib
import errno
import os
import re
import stat
import threading
from collections.abc import Callable
from pathlib import Path

from stream_calib.wire.snapshots import NAME, is_snapshot_name, surplus

_LEFTOVER = re.compile(rf"\.{NAME}\.\d+\.tmp", re.ASCII)
# a link in the place of a file is never followed, a pipe in its place never waited for
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


PATIENCE_S = 0.5  # of whoever closes, with a save under way


def _nothing(_point: str) -> None: ...


class SnapshotFolder:
    """Keeps the snapshots of one universe in a folder; implements ``ports.SnapshotStore``.

    Reading needs no ``open``.

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
        self._open = False
        self._opened = 0  # times: a save belongs to one of them
        self._saving = threading.Lock()
        self._naming = threading.Lock()  # held while a save gives a name or takes one away

    def open(self) -> None:
        """Make the folder, and remove what a crash left behind.

        What another process is still writing, whose universe this has become, goes with it. A
        folder that cannot be written is no error: ``unusable`` says why, what is in it can still
        be read, and ``save`` fails.
        """
        assert not self._open
        self.unusable = None
        try:
            self._make()
            for path in self.folder.iterdir():
                if _LEFTOVER.fullmatch(path.name):
                    path.unlink(missing_ok=True)
            self._try_writing()
            self._opened += 1
            self._open = True
        except OSError as error:
            blocked = isinstance(error, FileExistsError | NotADirectoryError)
            reason = "a file is in its place" if blocked else error.strerror or str(error)
            self.unusable = f"{self.folder} cannot be written ({reason})"

    def names(self) -> list[str]:
        """Return the names of all snapshots, newest first; none where there is no folder.

        Raises
        ------
        OSError
            They cannot be listed.
        """
        try:
            with os.scandir(self.folder) as entries:
                found = [
                    entry.name
                    for entry in entries
                    if is_snapshot_name(entry.name) and entry.is_file(follow_symlinks=False)
                ]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(found, reverse=True)

    def load(self, name: str) -> bytes:
        """Return the bytes of one; OSError when it is not there or cannot be read."""
        if not is_snapshot_name(name):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        path = self.folder / name
        with os.fdopen(os.open(path, _READ), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(errno.EINVAL, "Not a file", str(path))
            return file.read()

    def save(self, name: str, value: bytes) -> None:
        """Keep a snapshot; on return it survives a loss of power.

        Of those before it the oldest are dropped then; newer ones are another owner's to drop.

        Raises
        ------
        OSError
            It is not saved, or not for certain; or the folder was closed meanwhile.
        """
        if not is_snapshot_name(name):
            raise OSError(errno.EINVAL, "Not the name of a snapshot", name)
        opened = self._opened
        with self._saving:
            self._check_open(opened)
            temporary = self._temporary(name)
            try:
                self._write(temporary, value)
                self._at("snapshot_written")
                with self._naming:
                    self._check_open(opened)
                    temporary.replace(self.folder / name)
            except OSError:
                with contextlib.suppress(OSError):
                    temporary.unlink()  # it would take the space that is missing, perhaps
                raise
            self._at("snapshot_renamed")
            _sync(self.folder)
            with self._naming:
                self._check_open(opened)
                names: list[str] = []
                with contextlib.suppress(OSError):  # it is saved, and what is older stays for now
                    names = self.names()
                for old in surplus(names, name, self._keep):
                    self.delete(old)
            self._at("snapshot_saved")

    def delete(self, name: str) -> None:
        """Drop one; nothing happens when it is not there, or cannot be dropped."""
        if self._open and is_snapshot_name(name):
            with contextlib.suppress(OSError):
                (self.folder / name).unlink()

    def close(self) -> None:
        """Let go, after a save that is under way; one that takes long is given up.

        Nothing gets its name from it any more, and nothing is dropped: whoever opens next finds
        what is there now, however long the disk takes.
        """
        is_idle = self._saving.acquire(timeout=PATIENCE_S)
        with self._naming:
            self._open = False
        if is_idle:
            self._saving.release()

    def _check_open(self, opened: int) -> None:
        if not self._open or opened != self._opened:
            raise OSError(errno.EROFS, self.unusable or "Not open", str(self.folder))

    def _temporary(self, name: str) -> Path:
        return self.folder / f".{name}.{os.getpid()}.tmp"

    def _try_writing(self) -> None:
        probe = self._temporary(f"{0:020d}-probe.snap")
        os.close(os.open(probe, _CREATE, 0o600))
        probe.unlink()

    def _make(self) -> None:
        new = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in new:
            _sync(path.parent)

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
