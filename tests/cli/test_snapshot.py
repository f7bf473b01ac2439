"""The verbs on saved states; against a journal on Kafka in tests/kafka/test_snapshot_verify.py."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest

from stream_calib.adapters.snapshots import SnapshotFolder
from stream_calib.values import NO_TIME, SECOND_NS, Snapshot
from stream_calib.wire.snapshots import encode_snapshot
from tests.cli.command import Done, is_one_sentence

FOLDER = Path("snapshots") / "calib.journal" / "sim"
NEWEST_NS = 1_700_000_000 * SECOND_NS


def saved(number: int, universe: str = "sim") -> Snapshot:
    """Return a snapshot whose newest tick is one second later per entry."""
    newest_ns = NEWEST_NS + number * SECOND_NS
    return Snapshot(
        universe=universe,
        number=number,
        chain=f"{number:032x}",
        settings={"universe": {"name": universe}, "time": {"lateness": "2s"}},
        numerics={"numpy": "2.1.0"},
        software_version="0.1.0",
        arrays={
            "intake.marks": np.array([[9, newest_ns, 0, 0, 0], [0, NO_TIME, 0, 0, 0]], np.int64),
            "ewma.products": np.arange(6, dtype=np.float64).reshape(2, 3),
        },
    )


def name(snapshot: Snapshot) -> str:
    return f"{snapshot.number:020d}-{snapshot.chain}.snap"


@pytest.fixture
def store(cli: Callable[..., Done]) -> SnapshotFolder:
    """Save three snapshots where the configuration keeps them."""
    kept = SnapshotFolder(FOLDER.resolve())
    kept.open()
    for number in (5, 70, 100):
        kept.save(name(saved(number)), encode_snapshot(saved(number)))
    return kept


def damage(path: Path, kind: str) -> None:
    value = bytearray(path.read_bytes())
    match kind:
        case "empty":
            value.clear()
        case "cut":
            del value[-1:]
        case "half":
            del value[len(value) // 2 :]
        case "head":
            value[20] ^= 1
        case "body":
            value[-50] ^= 1
        case "more":
            value += b"\0"
    path.write_bytes(value)


def test_list_shows_what_is_kept_newest_first(
    cli: Callable[..., Done], store: SnapshotFolder
) -> None:
    damage(FOLDER / name(saved(70)), "half")
    done = cli("snapshot", "list", "--config", "settings.toml")
    assert (done.code, done.err) == (0, "")
    head, *lines = done.out.splitlines()
    assert head.split() == ["universe", "entry", "as", "of", "bytes", "valid", "version", "file"]
    size = len(encode_snapshot(saved(100)))
    newest, damaged, oldest = (line.split() for line in lines)
    assert newest == [
        *("sim", "100", "2023-11-14T22:15:00.000000000Z", str(size), "yes", "0.1.0"),
        str(store.folder / name(saved(100))),
    ]
    half = (FOLDER / name(saved(70))).stat().st_size
    assert damaged[:6] == ["sim", "-", "-", str(half), "no", "-"]
    assert oldest[1] == "5"


def test_list_as_json_says_why_one_is_no_good(
    cli: Callable[..., Done], store: SnapshotFolder
) -> None:
    damage(FOLDER / name(saved(70)), "body")
    done = cli("snapshot", "list", "-c", "settings.toml", "--json")
    rows = orjson.loads(done.out)
    assert [row["number"] for row in rows] == [100, None, 5]
    assert [row["valid"] for row in rows] == [True, False, True]
    assert [bool(row["reason"]) for row in rows] == [False, True, False]
    assert rows[0] == {
        "universe": "sim",
        "number": 100,
        "as_of": "2023-11-14T22:15:00.000000000Z",
        "bytes": len(encode_snapshot(saved(100))),
        "valid": True,
        "reason": "",
        "software_version": "0.1.0",
        "file": str(store.folder / name(saved(100))),
    }


def test_before_the_first_tick_there_is_no_time(cli: Callable[..., Done]) -> None:
    early = saved(0)
    for arrays in (
        {"intake.marks": np.array([[0, NO_TIME, 0, 0, 0]])},
        {"intake.marks": np.empty((0, 5), np.int64)},
        {},
    ):
        FOLDER.mkdir(parents=True, exist_ok=True)
        value = encode_snapshot(dataclasses.replace(early, arrays=arrays))
        (FOLDER / name(early)).write_bytes(value)
        (row,) = orjson.loads(cli("snapshot", "list", "-c", "settings.toml", "--json").out)
        assert (row["valid"], row["as_of"]) == (True, None)


def test_no_snapshots_are_no_error(cli: Callable[..., Done]) -> None:
    assert cli("snapshot", "list", "-c", "settings.toml") == Done(0, "no snapshots\n", "")
    assert cli("snapshot", "list", "-c", "settings.toml", "--json").out == "[]\n"
    done = cli("snapshot", "verify", "-c", "settings.toml", "--offline")
    assert done == Done(0, "no snapshots\n", "")
    assert not FOLDER.exists()


def test_inspect_shows_the_head_and_the_arrays(
    cli: Callable[..., Done], store: SnapshotFolder
) -> None:
    done = cli("snapshot", "inspect", FOLDER / name(saved(100)))
    assert (done.code, done.err) == (0, "")
    lines = [line.strip() for line in done.out.splitlines()]
    for line in (
        "universe: sim",
        "number: 100",
        f"chain: {saved(100).chain}",
        "software_version: 0.1.0",
        "lateness: 2s",
        "numpy: 2.1.0",
        "intake.marks: int64 (2, 5)",
        "ewma.products: float64 (2, 3)",
    ):
        assert line in lines
    done = cli("snapshot", "inspect", FOLDER / name(saved(100)), "--json")
    head = orjson.loads(done.out)
    assert (head["number"], head["settings"]["time"]) == (100, {"lateness": "2s"})


@pytest.mark.parametrize("content", [b"", b"not a snapshot", bytes(1000)])
def test_inspect_of_something_else_is_one_sentence(
    cli: Callable[..., Done], content: bytes
) -> None:
    Path("other").write_bytes(content)
    done = cli("snapshot", "inspect", "other")
    assert (done.code, done.out) == (4, "")
    assert is_one_sentence(done.err), done.err
    assert done.err.startswith("stream-calib: other: ")
    done = cli("snapshot", "inspect", "missing")
    assert done.code == 4
    assert done.err == "stream-calib: missing: cannot be read (No such file or directory)\n"


def test_verify_names_every_good_file(cli: Callable[..., Done], store: SnapshotFolder) -> None:
    done = cli("snapshot", "verify", "-c", "settings.toml", "--offline")
    good = [f"{store.folder / which}: good" for which in store.names()]
    assert (done.code, done.out.splitlines(), done.err) == (0, good, "")
    files = [FOLDER / which for which in store.names()]
    done = cli("snapshot", "verify", *files)
    assert (done.code, done.out.splitlines()) == (0, [f"{file}: good" for file in files])


@pytest.mark.parametrize("kind", ["empty", "cut", "half", "head", "body", "more"])
def test_verify_finds_any_damage(
    cli: Callable[..., Done], store: SnapshotFolder, kind: str
) -> None:
    bad = store.folder / name(saved(70))
    damage(bad, kind)
    done = cli("snapshot", "verify", "-c", "settings.toml", "--offline")
    assert (done.code, len(done.out.splitlines())) == (8, 2)
    assert is_one_sentence(done.err), done.err
    assert done.err.startswith(f"stream-calib: {bad}: ")


def test_verify_gives_every_bad_file_a_line(
    cli: Callable[..., Done], store: SnapshotFolder
) -> None:
    (FOLDER / name(saved(7))).write_bytes(encode_snapshot(saved(8)))
    (FOLDER / name(saved(9))).write_bytes(encode_snapshot(saved(9, "other")))
    done = cli("snapshot", "verify", "-c", "settings.toml", "--offline")
    assert (done.code, len(done.out.splitlines())) == (8, 3)
    assert done.err.splitlines() == [
        f"stream-calib: {store.folder / name(saved(9))}: it is of universe 'other', in the folder "
        "of 'sim'",
        f"stream-calib: {store.folder / name(saved(7))}: by what is in it, its name would be "
        f"{name(saved(8))}",
    ]
    done = cli("snapshot", "verify", "missing")
    assert (done.code, done.out) == (8, "")
    assert done.err == "stream-calib: missing: cannot be read (No such file or directory)\n"


def test_verbs_disturb_nobody_who_owns_the_folder(
    cli: Callable[..., Done], store: SnapshotFolder
) -> None:
    leftover = FOLDER / f".{name(saved(101))}.77.tmp"
    leftover.write_bytes(b"half of a snap")
    assert cli("snapshot", "list", "-c", "settings.toml").code == 0
    assert cli("snapshot", "verify", "-c", "settings.toml", "--offline").code == 0
    assert leftover.exists()
    store.save(name(saved(101)), encode_snapshot(saved(101)))


def test_verbs_say_what_is_missing(cli: Callable[..., Done]) -> None:
    done = cli("snapshot", "verify")
    assert (done.code, done.out) == (4, "")
    assert is_one_sentence(done.err), done.err
    text = Path("settings.toml").read_text()
    Path("settings.toml").write_text(f"[snapshots]\nenabled = false\n{text}")
    for verb in ("list", "verify"):
        done = cli("snapshot", verb, "-c", "settings.toml")
        assert (done.code, done.out) == (4, "")
        assert "snapshots.enabled is false" in done.err
        assert is_one_sentence(done.err), done.err
