"""What other processes, a kill and strange files do to the snapshots in a folder."""

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stream_calib.adapters import snapshots
from stream_calib.adapters.snapshots import SnapshotFolder

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
    assert {path.name for path in folder.iterdir()} == set(expected)
    store.close()


def test_torn_file_is_never_seen_while_it_is_written(folder: Path) -> None:
    child = stopped_at(folder, "snapshot_write")
    assert SnapshotFolder(folder).names() == [name(1)]
    kill(child)


def test_heir_takes_the_place_of_a_process_that_hangs(folder: Path) -> None:
    child = stopped_at(folder, "snapshot_write")
    store = SnapshotFolder(folder)
    store.open()
    assert store.unusable is None
    store.save(name(2), NEW)
    store.close()
    kill(child)
    assert {path.name for path in folder.iterdir()} == {name(1), name(2)}


class HeldDisk:
    """A disk that does not come to the end of a sync before it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.syncing, self.go_on = threading.Event(), threading.Event()
        monkeypatch.setattr(os, "fsync", self._fsync)

    def _fsync(self, _file: int) -> None:
        self.syncing.set()
        assert self.go_on.wait(DEADLINE_S)


def test_closing_waits_for_the_save_under_way(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "PATIENCE_S", DEADLINE_S)
    store = SnapshotFolder(folder)
    store.open()
    disk = HeldDisk(monkeypatch)
    saving = threading.Thread(target=store.save, args=(name(2), NEW))
    saving.start()
    assert disk.syncing.wait(DEADLINE_S)
    closing = threading.Thread(target=store.close)
    closing.start()
    closing.join(0.2)
    assert closing.is_alive()
    disk.go_on.set()
    for thread in (saving, closing):
        thread.join(DEADLINE_S)
    heir = SnapshotFolder(folder)
    heir.open()
    assert heir.names() == [name(2), name(1)]
    heir.close()


def test_save_that_takes_long_is_given_up_by_closing_and_never_has_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "PATIENCE_S", 0.1)
    store = SnapshotFolder(folder, keep=1)
    store.open()
    disk, failures = HeldDisk(monkeypatch), []

    def save(number: int) -> None:
        try:
            store.save(name(number), NEW)
        except OSError as error:
            failures.append((number, error.strerror))

    given_up = threading.Thread(target=save, args=(2,))
    given_up.start()
    assert disk.syncing.wait(DEADLINE_S)
    store.close()  # or this test would not get any further
    store.open()
    next_one = threading.Thread(target=save, args=(3,))
    next_one.start()
    next_one.join(0.2)
    assert next_one.is_alive()  # one save after the other
    assert (store.names(), store.load(name(1))) == ([name(1)], OLD)
    disk.go_on.set()
    for thread in (given_up, next_one):
        thread.join(DEADLINE_S)
    assert failures == [(2, "Not open")]
    assert {path.name for path in folder.iterdir()} == {name(3)}
    store.close()


def test_save_that_is_given_up_after_it_has_its_name_drops_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "PATIENCE_S", 0.1)
    reached, go_on = threading.Event(), threading.Event()

    def at(point: str) -> None:
        if point == "snapshot_renamed":
            reached.set()
            assert go_on.wait(DEADLINE_S)

    store = SnapshotFolder(folder, keep=1, at=at)
    store.open()
    failures: list[str | None] = []

    def save() -> None:
        try:
            store.save(name(2), NEW)
        except OSError as error:
            failures.append(error.strerror)

    saving = threading.Thread(target=save)
    saving.start()
    assert reached.wait(DEADLINE_S)
    store.close()
    store.open()
    go_on.set()
    saving.join(DEADLINE_S)
    assert failures == ["Not open"]
    assert store.names() == [name(2), name(1)]  # which somebody may be about to read
    store.close()


def test_links_and_strange_files_are_no_snapshots(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    (folder / name(2)).symlink_to(secret)
    (folder / f".{name(3)}.{os.getpid()}.tmp").symlink_to(secret)
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
    assert modes == [0o600]
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
        store.close()
    assert descriptors() == before


def test_folder_that_cannot_be_listed_is_no_empty_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    store = SnapshotFolder(folder)
    store.open()
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        store.names()
    store.save(name(2), NEW)  # what is older stays for now
    monkeypatch.undo()
    assert store.names() == [name(2), name(1)]
    store.close()
