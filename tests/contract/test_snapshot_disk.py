"""What a full, broken, read-only or slow disk does to the snapshots in a folder."""

import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stream_calib.adapters.snapshots import SnapshotFolder

OLD, NEW = b"old" * 100_000, b"new" * 100_000
# The system's own tables: even root can make no folder there.
NOT_WRITABLE = Path("/proc/self/snapshots")
DEADLINE_S = 20.0

# Saves under a limit on the size of a file, which is a full disk to it.
LIMITED = """
import resource, signal, sys
from pathlib import Path
from stream_calib.adapters.snapshots import SnapshotFolder

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = SnapshotFolder(Path(sys.argv[1]))
store.open()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    store.save(f"{2:020d}-00ff.snap", b"new" * 100_000)
except OSError as error:
    print(error.strerror)
store.save(f"{3:020d}-00ff.snap", b"small enough")
"""


def name(number: int) -> str:
    return f"{number:020d}-00ff.snap"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with an older snapshot in it."""
    place = tmp_path / "fx"
    store = SnapshotFolder(place)
    store.open()
    store.save(name(1), OLD)
    store.close()
    return place


def test_bytes_are_on_the_disk_before_the_name_and_the_name_before_it_is_said_to_be_saved(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(file: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(file).st_mode)
        steps.append("sync folder" if is_folder else f"sync {os.fstat(file).st_size} bytes")
        real_fsync(file)

    def replace(path: Path, target: Path) -> Path:
        steps.append("rename")
        return real_replace(path, target)

    store = SnapshotFolder(folder, at=steps.append)
    store.open()
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    store.save(name(2), NEW)
    assert steps == [
        *("snapshot_write", f"sync {len(NEW)} bytes", "snapshot_written"),
        *("rename", "snapshot_renamed", "sync folder", "snapshot_saved"),
    ]
    store.close()


def test_limit_on_file_size_fails_one_save_and_leaves_no_bytes(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "File too large\n"
    store = SnapshotFolder(folder)
    assert store.names() == [name(3), name(1)]
    assert store.load(name(1)) == OLD
    assert {path.name for path in folder.iterdir()} == {name(1), name(3)}


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """Return a mounted disk of one megabyte; skip where nothing may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["unshare", "--mount", "true"]
    try:
        subprocess.run(words, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("nothing may be mounted here, not even in a namespace of its own")
    return place


ON_FULL_DISK = """
import sys
from pathlib import Path
from stream_calib.adapters.snapshots import SnapshotFolder

disk = Path(sys.argv[1])
store = SnapshotFolder(disk / "fx")
store.open()
store.save(f"{1:020d}-00ff.snap", b"old" * 100_000)
try:
    store.save(f"{2:020d}-00ff.snap", b"new" * 300_000)
except OSError as error:
    print(error.strerror)
print(*store.names())
store.save(f"{3:020d}-00ff.snap", b"new" * 100_000)
print(*store.names(), store.load(f"{3:020d}-00ff.snap") == b"new" * 100_000)
store.close()

fill = (disk / "fill").open("wb", buffering=0)
try:
    while True:
        fill.write(bytes(4096))
except OSError:
    pass
store = SnapshotFolder(disk / "fx")
store.open()
print(len(store.names()), store.unusable)
try:
    store.save(f"{4:020d}-00ff.snap", b"new" * 100_000)
except OSError as error:
    print(error.strerror)
"""


def test_full_disk_fails_the_save_and_old_ones_stay_readable(small_disk: Path) -> None:
    script = 'mount -t tmpfs -o size=1m none "$0" && exec "$1" -c "$2" "$0"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, small_disk, sys.executable, ON_FULL_DISK],
        capture_output=True,
        text=True,
        check=False,
    )
    if "mount:" in done.stderr:
        pytest.skip("nothing may be mounted here")
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "No space left on device",
        name(1),
        f"{name(3)} {name(1)} True",
        "2 None",
        "No space left on device",
    ]


def full_device(call: Callable[..., int]) -> Callable[..., int]:
    """Return os.write as it is on a device that is always full."""
    full = os.open("/dev/full", os.O_WRONLY)

    def write(file: int, data: memoryview) -> int:
        return call(full, data)

    return write


def test_device_that_is_always_full_leaves_no_bytes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    store = SnapshotFolder(folder)
    store.open()
    monkeypatch.setattr(os, "write", full_device(os.write))
    with pytest.raises(OSError, match="No space left on device"):
        store.save(name(2), NEW)
    monkeypatch.undo()
    assert store.names() == [name(1)]
    assert {path.name for path in folder.iterdir()} == {name(1)}
    store.save(name(2), NEW)
    assert store.names() == [name(2), name(1)]
    store.close()


@pytest.mark.parametrize("failing", [1, 2])
def test_failing_fsync_fails_the_save(
    folder: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    calls = 0

    def fsync(_file: int) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(5, "Input/output error")

    store = SnapshotFolder(folder)
    store.open()
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output error"):
        store.save(name(2), NEW)
    # what reached its name is whole, though nobody may count on it
    assert store.names() == ([name(1)] if failing == 1 else [name(2), name(1)])
    store.close()


def unwritable(kind: str, tmp_path: Path) -> Path:
    if kind == "system":
        return NOT_WRITABLE
    (tmp_path / "file").write_bytes(b"")
    return tmp_path / "file" / ("" if kind == "file" else "below")


@pytest.mark.parametrize("kind", ["system", "file", "below a file"])
def test_folder_that_cannot_be_written_is_told_not_raised(tmp_path: Path, kind: str) -> None:
    place = unwritable(kind, tmp_path)
    store = SnapshotFolder(place)
    for _ in range(2):
        store.open()
        reason = store.unusable
        assert reason is not None
        assert reason.startswith(f"{place} cannot be written (")
        assert ("a file is in its place" in reason) == (kind != "system")
        assert store.names() == []
        with pytest.raises(OSError, match="cannot be written"):
            store.save(name(1), b"")
    store.close()


def test_snapshot_that_cannot_be_dropped_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unlink(path: Path, *, missing_ok: bool = False) -> None:
        raise OSError(1, "Operation not permitted", str(path))

    store = SnapshotFolder(folder)
    store.open()
    monkeypatch.setattr(Path, "unlink", unlink)
    store.delete(name(1))
    assert store.names() == [name(1)]
    store.close()


def test_read_only_folder_can_still_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def read_only(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(30, "Read-only file system", str(path))
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", read_only)
    store = SnapshotFolder(folder)
    store.open()
    assert store.unusable == f"{folder} cannot be written (Read-only file system)"
    assert [store.load(which) for which in store.names()] == [OLD]
    with pytest.raises(OSError, match="Read-only file system"):
        store.save(name(2), NEW)
    store.delete(name(1))
    assert store.names() == [name(1)]


def test_slow_disk_does_not_block_other_threads(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncing, go_on = threading.Event(), threading.Event()

    def fsync(_file: int) -> None:
        syncing.set()
        assert go_on.wait(DEADLINE_S)

    store = SnapshotFolder(folder)
    store.open()
    monkeypatch.setattr(os, "fsync", fsync)
    thread = threading.Thread(target=store.save, args=(name(2), NEW))
    thread.start()
    assert syncing.wait(DEADLINE_S)
    started_s = time.monotonic()
    turns = sum(len(store.load(which)) for _ in range(100) for which in store.names())
    assert turns == 100 * len(OLD)
    assert thread.is_alive()
    assert time.monotonic() - started_s < 5.0  # it is milliseconds, but not on every machine
    go_on.set()
    thread.join(DEADLINE_S)
    assert store.names() == [name(2), name(1)]
    store.close()
