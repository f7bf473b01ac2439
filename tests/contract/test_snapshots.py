"""What holds for every store of snapshots; what a real folder adds is in the files beside it."""

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_calib.adapters.objectstore import SnapshotObjects
from stream_calib.adapters.snapshots import SnapshotFolder
from stream_calib.ports import SnapshotStore
from tests.simulation.memory import MemoryDisk, MemorySnapshots

Process = Callable[..., SnapshotStore]
POINTS = ["snapshot_write", "snapshot_written", "snapshot_renamed", "snapshot_saved"]


def name(number: int, chain: str = "00ff") -> str:
    return f"{number:020d}-{chain}.snap"


@pytest.fixture(params=["folder", "memory", "url of files", "url of objects"])
def process(request: pytest.FixtureRequest, tmp_path: Path) -> Process:
    """Make one more store over the same place, as one more process would."""
    disk = MemoryDisk()
    if request.param.startswith("url"):
        is_file = request.param.endswith("files")
        url = (tmp_path / "c").as_uri() if is_file else f"memory://{uuid.uuid4().hex}"
        return lambda **options: SnapshotObjects(url, "a/b", **options)
    if request.param == "memory":
        return lambda **options: MemorySnapshots(disk, **options)
    return lambda **options: SnapshotFolder(tmp_path / "a" / "b", **options)


@pytest.fixture
def store(process: Process) -> SnapshotStore:
    opened = process()
    opened.open()
    return opened


def test_new_store_is_empty(store: SnapshotStore) -> None:
    assert store.names() == []


@pytest.mark.parametrize("value", [b"", b"x", bytes(range(256)) * 5000])
def test_what_is_saved_is_loaded(store: SnapshotStore, value: bytes) -> None:
    store.save(name(7), value)
    assert store.names() == [name(7)]
    assert store.load(name(7)) == value


def test_names_come_newest_first(process: Process) -> None:
    store = process(keep=10)
    store.open()
    for number in (2, 10, 1, 9):
        store.save(name(number), b"")
    assert store.names() == [name(number) for number in (10, 9, 2, 1)]


def test_only_the_newest_are_kept(store: SnapshotStore) -> None:
    for number in range(6):
        store.save(name(number), b"%d" % number)
    assert store.names() == [name(5), name(4), name(3)]
    assert store.load(name(3)) == b"3"


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_as_many_are_kept_as_asked_for(process: Process, keep: int) -> None:
    store = process(keep=keep)
    store.open()
    for number in range(8):
        store.save(name(number), b"")
    assert len(store.names()) == keep


@pytest.mark.parametrize("keep", [1, 3])
def test_who_saves_late_drops_nothing_that_is_newer(process: Process, keep: int) -> None:
    store = process(keep=keep)
    store.open()
    for number in range(10, 10 + keep):
        store.save(name(number), b"")
    newer = store.names()
    store.save(name(1), b"of an owner that was frozen meanwhile")
    assert store.names() == [*newer, name(1)]
    store.save(name(20), b"")
    assert store.names() == [name(20), *newer][:keep]


def test_same_name_is_replaced(store: SnapshotStore) -> None:
    store.save(name(1), b"a longer value")
    store.save(name(1), b"short")
    assert (store.names(), store.load(name(1))) == ([name(1)], b"short")


def test_same_number_with_another_chain_is_another_snapshot(store: SnapshotStore) -> None:
    store.save(name(1, "aa"), b"a")
    store.save(name(1, "bb"), b"b")
    assert [store.load(which) for which in store.names()] == [b"b", b"a"]


def test_deleted_one_is_gone_and_may_be_deleted_again(store: SnapshotStore) -> None:
    store.save(name(1), b"")
    for _ in range(2):
        store.delete(name(1))
        assert store.names() == []


@pytest.mark.parametrize("which", [name(1), "nonsense", "../secret", ".lock", ""])
def test_one_that_is_not_there_cannot_be_loaded(store: SnapshotStore, which: str) -> None:
    with pytest.raises(OSError, match="No such file"):
        store.load(which)


@pytest.mark.parametrize("which", ["nonsense", "../" + name(1), f"{name(1)}.tmp", ".lock", ""])
def test_only_names_of_snapshots_are_saved_or_deleted(store: SnapshotStore, which: str) -> None:
    with pytest.raises(OSError, match="Not the name of a snapshot"):
        store.save(which, b"")
    store.delete(which)
    assert store.names() == []


def test_two_processes_that_both_believe_to_own_do_not_collide(process: Process) -> None:
    first, second = process(), process()
    first.open()
    first.save(name(1), b"kept")
    second.open()
    second.save(name(2, "aa"), b"of the second")
    first.save(name(2, "bb"), b"of the first")
    assert second.load(name(1)) == b"kept"
    assert first.load(name(2, "aa")) == b"of the second"
    first.close()
    second.save(name(3), b"")
    second.close()


def test_closed_store_saves_nothing_and_opens_again(store: SnapshotStore) -> None:
    store.close()
    store.close()
    with pytest.raises(OSError, match="Not open"):
        store.save(name(1), b"")
    store.open()
    store.save(name(1), b"")
    assert store.names() == [name(1)]


def test_reading_needs_no_ownership(process: Process) -> None:
    owner = process()
    assert process().names() == []
    owner.open()
    owner.save(name(1), b"value")
    assert process().load(name(1)) == b"value"


def test_points_of_a_save_come_in_order(process: Process) -> None:
    told: list[str] = []
    store = process(at=told.append)
    store.open()
    store.save(name(1), b"value")
    assert told == POINTS


class CrashError(Exception):
    """The process is no more."""


@pytest.mark.parametrize("point", POINTS)
def test_crash_in_a_save_leaves_whole_snapshots(process: Process, point: str) -> None:
    def crash(reached: str) -> None:
        if armed and reached == point:
            raise CrashError

    armed = False
    first = process(at=crash)
    first.open()
    first.save(name(1), b"old" * 1000)
    armed = True
    with pytest.raises(CrashError):
        first.save(name(2), b"new" * 1000)
    first.close()
    second = process()
    second.open()
    values = {name(1): b"old" * 1000, name(2): b"new" * 1000}
    expected = [name(2), name(1)] if point in POINTS[2:] else [name(1)]
    assert second.names() == expected
    assert [second.load(which) for which in expected] == [values[which] for which in expected]
    second.save(name(2), b"again")
    assert second.load(name(2)) == b"again"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["save", "delete", "reopen"]),
            st.integers(0, 5),
            st.binary(max_size=20),
        )
    ),
    st.integers(1, 4),
)
def test_folder_and_memory_do_the_same(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, int, bytes]], keep: int
) -> None:
    folder = tmp_path_factory.mktemp("snapshots")
    stores: list[SnapshotStore] = [SnapshotFolder(folder, keep), MemorySnapshots(keep=keep)]
    contents = []
    for store in stores:
        store.open()
        for action, number, value in actions:
            match action:
                case "save":
                    store.save(name(number), value)
                case "delete":
                    store.delete(name(number))
                case "reopen":
                    store.close()
                    store.open()
        contents.append([(which, store.load(which)) for which in store.names()])
        store.close()
    assert contents[0] == contents[1]
