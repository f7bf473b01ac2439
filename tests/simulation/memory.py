"""What the simulation has in place of a disk: files in memory that outlive a process."""

import errno
import os
import re
from collections.abc import Callable

from stream_calib.errors import OwnershipError

_NAME = re.compile(r"\d{20}-\w+\.snap", re.ASCII)


class MemoryDisk:
    """The files of one folder and who keeps it.

    ``full``: nothing more can be written; ``broken``: neither written nor read.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.owner: object | None = None
        self.full = False
        self.broken = False

    def crash(self) -> None:
        """Let go of what a process held that is no more."""
        self.owner = None


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

    def open(self) -> None:
        assert self.disk.owner is not self
        self.unusable = "the disk is broken" if self.disk.broken else None
        if self.disk.broken:
            return
        if self.disk.owner is not None:
            raise OwnershipError("Another process (pid simulated) keeps its snapshots here")
        self.disk.owner = self

    def names(self) -> list[str]:
        return [] if self.disk.broken else sorted(self.disk.files, reverse=True)

    def load(self, name: str) -> bytes:
        if name not in self.names():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return self.disk.files[name]

    def save(self, name: str, value: bytes) -> None:
        if not _NAME.fullmatch(name):
            raise OSError(errno.EINVAL, "Not the name of a snapshot", name)
        if self.disk.owner is not self or self.disk.broken:
            raise OSError(errno.EROFS, self.unusable or "Not open", name)
        if self.disk.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
        self._at("snapshot_write")
        self._at("snapshot_written")
        self.disk.files[name] = bytes(value)
        self._at("snapshot_renamed")
        for old in [other for other in self.names() if other != name][self._keep - 1 :]:
            self.delete(old)
        self._at("snapshot_saved")

    def delete(self, name: str) -> None:
        if self.disk.owner is self:
            self.disk.files.pop(name, None)

    def close(self) -> None:
        if self.disk.owner is self:
            self.disk.owner = None
