"""What other processes, a kill and strange files do to the snapshots in a folder."""

import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stream_calib.adapters.snapshots import LOCK, SnapshotFolder
from stream_calib.errors import OwnershipError

OLD, NEW = b"old" * 100_000, b"new" * 100_000
DEADLINE_S = 20.0

# Saves the second snapshot, tells on which point it stands, and waits there to be killed.
CHILD = """
import sys, time
from pathlib import Path
from stream_calib.adapters.snapshots import SnapshotFolder

def at(point):
    if point == sys.argv[2]:
        print(point, flush=True)
        time.sleep(60)

store = SnapshotFolder(Path(sys.argv[1]), at=at)
store.open()
if sys.argv[2] == "open":
    at("open")
store.save(f"{2:020d}-00ff.snap", b"new" * 100_000)
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


def stopped_at(folder: Path, point: str) -> "subprocess.Popen[str]":
    """Start a process and let it run up to this point of a save."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder), point], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == f"{point}\n"
    return child


def kill(child: "subprocess.Popen[str]") -> None:
    with child:
        child.send_signal(signal.SIGKILL)


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ("snapshot_write", [name(1)]),
        ("snapshot_written", [name(1)]),
        ("snapshot_renamed", [name(2), name(1)]),  # the folder is not synced yet
        ("snapshot_saved", [name(2), name(1)]),
    ],
)
def test_kill_leaves_whole_files(folder: Path, point: str, expected: list[str]) -> None:
    kill(stopped_at(folder, point))
    leftovers = list(folder.glob("*.tmp"))
    assert len(leftovers) == (point in {"snapshot_write", "snapshot_written"})
    store = SnapshotFolder(folder)
    store.open()
    assert store.names() == expected
    values = {name(1): OLD, name(2): NEW}
    assert [store.load(which) for which in expected] == [values[which] for which in expected]
    assert {path.name for path in folder.iterdir()} == {LOCK, *expected}
    store.close()


def test_torn_file_is_never_seen_while_it_is_written(folder: Path) -> None:
    child = stopped_at(folder, "snapshot_write")
    assert SnapshotFolder(folder).names() == [name(1)]
    kill(child)


def test_second_process_is_refused_until_the_first_is_killed(folder: Path) -> None:
    child = stopped_at(folder, "open")
    store = SnapshotFolder(folder)
    with pytest.raises(OwnershipError) as caught:
        store.open()
    assert str(caught.value) == (
        f"Another process (pid {child.pid}) keeps its snapshots in {folder}"
    )
    assert caught.value.exit_code == 9
    kill(child)
    store.open()
    assert store.unusable is None
    store.save(name(2), NEW)
    store.close()


def test_programs_started_meanwhile_do_not_keep_the_folder(folder: Path) -> None:
    store = SnapshotFolder(folder)
    store.open()
    with subprocess.Popen(["sleep", "60"], close_fds=False) as sleeper:
        store.close()
        heir = SnapshotFolder(folder)
        heir.open()
        heir.close()
        sleeper.kill()


def test_closing_waits_for_the_save_under_way(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncing, go_on = threading.Event(), threading.Event()

    def fsync(_file: int) -> None:
        syncing.set()
        assert go_on.wait(DEADLINE_S)

    store = SnapshotFolder(folder)
    store.open()
    monkeypatch.setattr(os, "fsync", fsync)
    saving = threading.Thread(target=store.save, args=(name(2), NEW))
    saving.start()
    assert syncing.wait(DEADLINE_S)
    closing = threading.Thread(target=store.close)
    closing.start()
    with pytest.raises(OwnershipError):
        SnapshotFolder(folder).open()
    go_on.set()
    for thread in (saving, closing):
        thread.join(DEADLINE_S)
    heir = SnapshotFolder(folder)
    heir.open()
    assert heir.names() == [name(2), name(1)]
    heir.close()


def test_links_and_strange_files_are_no_snapshots(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    (folder / name(2)).symlink_to(secret)
    (folder / f".{name(3)}.tmp").symlink_to(secret)
    (folder / name(4)).mkdir()
    os.mkfifo(folder / name(5))
    (folder / "notes.txt").write_bytes(b"")
    store = SnapshotFolder(folder)
    assert store.names() == [name(1)]
    for which in (name(2), name(4), name(5)):
        with pytest.raises(OSError, match=r"symbolic link|directory|Not a file"):
            store.load(which)
    store.open()
    assert store.unusable is None
    store.save(name(3), NEW)
    store.save(name(2), NEW)
    assert store.load(name(2)) == NEW
    assert not (folder / name(2)).is_symlink()
    assert secret.read_bytes() == b"secret"
    assert (folder / "notes.txt").exists()
    store.close()


def test_lock_file_that_is_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    (folder / LOCK).unlink()
    (folder / LOCK).symlink_to(secret)
    store = SnapshotFolder(folder)
    store.open()
    assert store.unusable is not None
    assert secret.read_bytes() == b"secret"


def test_only_this_user_can_read_them(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = SnapshotFolder(tmp_path / "fx")
        store.open()
        store.save(name(1), NEW)
        store.close()
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "fx").iterdir()]
    assert modes == [0o600, 0o600]
    assert stat.S_IMODE((tmp_path / "fx").stat().st_mode) == 0o700


def test_snapshot_of_200_megabytes(tmp_path: Path) -> None:
    value = os.urandom(1_000_000) * 200
    store = SnapshotFolder(tmp_path / "fx", keep=1)
    store.open()
    for number in (1, 2):
        store.save(name(number), value)
    assert store.names() == [name(2)]
    assert store.load(name(2)) == value
    store.close()


def test_no_file_stays_open(folder: Path) -> None:
    def descriptors() -> int:
        return sum(os.path.exists(f"/proc/self/fd/{n}") for n in range(limit))  # noqa: PTH110

    limit = min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    before = descriptors()
    for number in range(2, 6):
        store = SnapshotFolder(folder)
        store.open()
        store.save(name(number), NEW)
        store.load(name(number))
        with pytest.raises(OwnershipError):
            SnapshotFolder(folder).open()
        store.close()
    assert descriptors() == before
