"""Snapshots on a shared URL, through fsspec: any host that knows the URL goes on from them.

Nobody is kept out here: who may write a universe is decided elsewhere. Names hold the number and
the chain of a journal entry, so that two writers never mean different things by one; a temporary
name is its writer's alone; what is torn is refused by its checksum.
"""

import contextlib
import errno
import os
import re
import threading
import uuid
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from stream_calib.errors import ConfigError
from stream_calib.wire.snapshots import NAME, is_snapshot_name, surplus

T = TypeVar("T")
TIMEOUT_S = 20.0
_LEFTOVER = re.compile(rf"\.({NAME})\.[0-9a-f]{{32}}\.tmp", re.ASCII)
# Where an object is there whole or not at all; elsewhere it is written under another name first.
_WHOLE = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "cos", "memory"}


def _nothing(_point: str) -> None: ...


class SnapshotObjects:
    """Keeps the snapshots of one universe under a URL; implements ``ports.SnapshotStore``.

    Every request runs in a thread of its own and is given up after ``timeout_s``; while one that
    was given up still hangs, the next ones fail at once. Whatever goes wrong is an OSError whose
    words hold no credentials.

    Parameters
    ----------
    url
        Such as ``s3://bucket/path``; user, password and query are for the backend alone.
    path
        Below the URL.
    keep
        Snapshots that are kept, the newest by name.
    timeout_s
        How long a request may take.
    at
        Told of the points of a save, as ``SnapshotFolder`` does.

    Attributes
    ----------
    unusable
        Why nothing can be saved here, known after ``open``; None when nothing is wrong.

    Raises
    ------
    ConfigError
        There is no package for such URLs.
    """

    def __init__(
        self,
        url: str,
        path: str,
        keep: int = 3,
        timeout_s: float = TIMEOUT_S,
        at: Callable[[str], None] = _nothing,
    ) -> None:
        assert keep >= 1
        self.unusable: str | None = None
        self._parts = urlsplit(url)
        self._path = path
        self._keep, self._timeout_s, self._at = keep, timeout_s, at
        self._is_open = False
        self._saving = threading.Lock()
        self._hanging: threading.Thread | None = None
        self._connected: tuple[Any, str] | None = None
        _check_backend(self._parts.scheme)

    @property
    def place(self) -> str:
        """Where this is, without credentials."""
        parts = self._parts
        host = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{host}{parts.path.rstrip('/')}/{self._path}"

    def open(self) -> None:
        """Get ready, and remove what a crash left behind; ``unusable`` says what is wrong."""
        self.unusable, self._is_open = None, True
        try:
            self._within("opening", self._prepare)
        except OSError as error:
            self.unusable = f"{self.place} cannot be used ({error.strerror})"

    def names(self) -> list[str]:
        """Return the names of all snapshots, newest first; OSError when they cannot be listed."""
        found = self._within("listing", self._list)
        return sorted(filter(is_snapshot_name, found), reverse=True)

    def load(self, name: str) -> bytes:
        """Return the bytes of one; OSError when it is not there or cannot be read."""
        if not is_snapshot_name(name):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return self._within("reading", lambda fs, root: bytes(fs.cat_file(f"{root}/{name}")))

    def save(self, name: str, value: bytes) -> None:
        """Keep a snapshot; of those before it the oldest are dropped then.

        Raises
        ------
        OSError
            It is not saved, or not for certain.
        """
        if not is_snapshot_name(name):
            raise OSError(errno.EINVAL, "Not the name of a snapshot", name)
        with self._saving:
            if not self._is_open:
                raise OSError(errno.EROFS, "Not open", self.place)
            self._at("snapshot_write")
            if self._parts.scheme in _WHOLE:
                self._at("snapshot_written")
                self._within("writing", lambda fs, root: fs.pipe_file(f"{root}/{name}", value))
            else:
                self._write_aside(name, value)
            self._at("snapshot_renamed")
            with contextlib.suppress(OSError):  # it is saved; what is too many can wait
                for old in surplus(self.names(), name, self._keep):
                    self.delete(old)
            self._at("snapshot_saved")

    def delete(self, name: str) -> None:
        """Drop one; nothing happens when it is not there, or cannot be dropped."""
        if self._is_open and is_snapshot_name(name):
            with contextlib.suppress(OSError):
                self._within("deleting", lambda fs, root: fs.rm_file(f"{root}/{name}"))

    def close(self) -> None:
        """Save no more, after a save that is under way."""
        with self._saving:
            self._is_open = False

    def _write_aside(self, name: str, value: bytes) -> None:
        aside = f".{name}.{uuid.uuid4().hex}.tmp"
        try:
            self._within("writing", lambda fs, root: fs.pipe_file(f"{root}/{aside}", value))
            self._at("snapshot_written")
            self._within("renaming", lambda fs, root: fs.mv(f"{root}/{aside}", f"{root}/{name}"))
        except OSError:
            with contextlib.suppress(OSError):
                self._within("deleting", lambda fs, root: fs.rm_file(f"{root}/{aside}"))
            raise

    def _prepare(self, fs: Any, root: str) -> None:  # noqa: ANN401
        fs.makedirs(root, exist_ok=True)
        found = self._list(fs, root)
        newest = max(filter(is_snapshot_name, found), default="")
        for name in found:
            leftover = _LEFTOVER.fullmatch(name)
            if leftover and leftover[1] < newest:  # what is newer may be written at this moment
                fs.rm_file(f"{root}/{name}")

    def _list(self, fs: Any, root: str) -> list[str]:  # noqa: ANN401
        fs.invalidate_cache()
        try:
            found = fs.ls(root, detail=True)
        except FileNotFoundError:
            return []
        return [e["name"].rstrip("/").rpartition("/")[2] for e in found if e["type"] == "file"]

    def _within(self, doing: str, work: Callable[[Any, str], T]) -> T:
        if self._hanging is not None and self._hanging.is_alive():
            raise OSError(errno.ETIMEDOUT, "an earlier request still hangs", self.place)
        done: list[T] = []
        failed: list[Exception] = []

        def run() -> None:
            try:
                if self._connected is None:
                    self._connected = self._connect()
                done.append(work(*self._connected))
            except Exception as error:
                failed.append(error)

        thread = threading.Thread(target=run, name="snapshots", daemon=True)
        thread.start()
        thread.join(self._timeout_s)
        if done:
            return done[0]
        self._connected = None  # a connection may be what is wrong
        if failed:
            raise self._as_os_error(failed[0], doing)
        self._hanging = thread
        words = f"no answer within {self._timeout_s:g} s while {doing}"
        raise OSError(errno.ETIMEDOUT, words, self.place)

    def _connect(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs  # noqa: PLC0415  an extra

        fresh = {"skip_instance_cache": True, "use_listings_cache": False}
        whole = self._parts._replace(path=f"{self._parts.path.rstrip('/')}/{self._path}")
        fs, root = url_to_fs(whole.geturl(), **fresh)
        return fs, root.rstrip("/")

    def _as_os_error(self, error: Exception, doing: str) -> OSError:
        if isinstance(error, FileNotFoundError):
            return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.place)
        code = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
        words = (isinstance(error, OSError) and error.strerror) or str(error)
        words = f"{words or type(error).__name__}, while {doing}"
        return OSError(code, self._without_secrets(words), self.place)

    def _without_secrets(self, words: str) -> str:
        user, _, password = self._parts.netloc.rpartition("@")[0].partition(":")
        for secret in (self._parts.query, password, user):
            for form in {secret, unquote(secret)} - {""}:
                words = words.replace(form, "***")
        return " ".join(words.split())


def _check_backend(scheme: str) -> None:
    try:
        from fsspec import get_filesystem_class  # noqa: PLC0415  an extra
    except ImportError:
        message = "snapshots.url needs an extra: pip install 'stream-calib[objectstore]'"
        raise ConfigError(message) from None
    try:
        get_filesystem_class(scheme)
    except ImportError as error:
        message = f"snapshots.url: {scheme}:// needs another package: {error}"
        raise ConfigError(message) from None
    except ValueError:
        message = f"snapshots.url: {scheme}:// is nothing that fsspec knows"
        raise ConfigError(message) from None
