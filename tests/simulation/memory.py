"""What the simulation has in place of a disk: files in memory that outlive a process."""

import errno
import os
from collections.abc import Callable

from stream_calib.wire.snapshots import is_snapshot_name, surplus


class MemoryDisk:
    """The files of one folder.

    ``full``: nothing more can be written; ``broken``: neither written nor read.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.full = False
        self.broken = False


class MemorySnapshots:
    """A ``ports.SnapshotStore`` in memory; stores on one disk are as processes on one folder.

    What ``at`` raises leaves the disk as a kill at that point would.
    """

    def __init__(
        self,
        disk: MemoryDisk | None = None,
        keep: int = 3,
        at: Callable[[str], None] = lambda _point: None,
    ) -> None:
        assert keep >= 1
        self.disk = disk or MemoryDisk()
        self.unusable: str | None = None
        self._keep = keep
        self._at = at
        self._open = False

    def open(self) -> None:
        assert not self._open
        self.unusable = "the disk is broken" if self.disk.broken else None
        self._open = not self.disk.broken

    def names(self) -> list[str]:
        return [] if self.disk.broken else sorted(self.disk.files, reverse=True)

    def load(self, name: str) -> bytes:
        if name not in self.names():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return self.disk.files[name]

    def save(self, name: str, value: bytes) -> None:
        if not is_snapshot_name(name):
            raise OSError(errno.EINVAL, "Not the name of a snapshot", name)
        if not self._open or self.disk.broken:
            raise OSError(errno.EROFS, self.unusable or "Not open", name)
        if self.disk.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
        self._at("snapshot_write")
        self._at("snapshot_written")
        self.disk.files[name] = bytes(value)
        self._at("snapshot_renamed")
        for old in surplus(self.names(), name, self._keep):
            self.delete(old)
        self._at("snapshot_saved")

    def delete(self, name: str) -> None:
        if self._open:
            self.disk.files.pop(name, None)

    def close(self) -> None:
        self._open = False
