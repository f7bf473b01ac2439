"""Snapshots and journals that are cut, flipped, strange or ahead, and disks that refuse."""

import asyncio
import dataclasses
import resource
import shutil
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path
from random import Random

import orjson
import pytest

from deploy.kafka.broker import free_port
from stream_calib.adapters.kafka.reading import read_kept
from stream_calib.config import load_config
from stream_calib.errors import RecoveryError
from stream_calib.service.wiring import kafka_service
from stream_calib.values import JournalEntry, Snapshot, Source
from stream_calib.wire.journal import decode_entry, encode_entry, link
from stream_calib.wire.snapshots import MAGIC, decode_snapshot, encode_snapshot, number_in
from tests.kafka.bounds import unhurried, watched
from tests.kafka.killing import ROLES, Published, Victim
from tests.kafka.living import ended, start
from tests.kafka.service import write
from tests.kafka.test_faults_process import (
    catches_up,
    completes,
    crashed,
    names,
    published,
    reaches,
    reference,
    refused,
    run_until,
    scene,
    settings,
    tick_rows,
)

ENDS_S = 120.0
OTHER_CHAIN = "0123456789abcdef0123456789abcdef"
Damage = Callable[[bytes, Random], bytes]


def sealed(**changes: object) -> Damage:
    """A snapshot that is whole, but says something else about itself."""

    def damage(value: bytes, _random: Random) -> bytes:
        return encode_snapshot(dataclasses.replace(decode_snapshot(value), **changes))  # type: ignore[arg-type]

    return damage


def flipped(value: bytes, random: Random) -> bytes:
    damaged = bytearray(value)
    damaged[random.randrange(len(value))] ^= 1 << random.randrange(8)
    return bytes(damaged)


def other_format(value: bytes, _random: Random) -> bytes:
    assert value.count(b'"format_version":1') == 1
    return value.replace(b'"format_version":1', b'"format_version":2')


def other_state(value: bytes, _random: Random) -> bytes:
    snapshot = decode_snapshot(value)
    arrays = dict(snapshot.arrays)
    arrays["layer.ewma.sums"] = arrays["layer.ewma.sums"].astype(float) + 1e-12
    return encode_snapshot(dataclasses.replace(snapshot, arrays=arrays))


# What is done to the newest snapshot, and what is said about it when it is refused.
DAMAGES: dict[str, tuple[Damage, str]] = {
    "f17_other_format": (other_format, "format_version 2, this reader knows 1"),
    "f17_other_magic": (lambda v, _: b"SCS0" + v[len(MAGIC) :], "not a snapshot"),
    "f19_cut_in_the_magic": (lambda v, _: v[:3], "not a snapshot"),
    "f19_cut_in_the_head": (lambda v, r: v[: r.randint(8, 100)], "its head cannot be read"),
    "f19_cut_in_the_payload": (lambda v, r: v[: len(v) * r.randint(60, 90) // 100], "is damaged"),
    "f19_cut_in_the_trailer": (lambda v, r: v[: -r.randint(1, 31)], "is damaged"),
    "f19_one_byte_too_many": (lambda v, _: v + b"\0", "is damaged"),
    "f20_one_bit": (flipped, ""),
    "f21_no_bytes": (lambda _v, _r: b"", "the snapshot is empty"),
    "f22_another_universe": (sealed(universe="other"), "it is of universe 'other'"),
    "f23_newer_than_the_journal": (sealed(number=10**6), "a commit that did not take place"),
    "f23_uncommitted_or_zombie": (sealed(chain=OTHER_CHAIN), "another course of the journal"),
    "f23_another_state": (other_state, "its state is not the one in the journal"),
}


def folder(victim: Victim) -> Path:
    return victim.folder / "snapshots" / f"{victim.prefix}.journal" / "u"


def kept(victim: Victim) -> list[Path]:
    """Return the files of the snapshots, newest first."""
    return sorted(folder(victim).glob("*.snap"), reverse=True)


async def killed_scene(
    bootstrap: str, tmp_path: Path, seed: int, *, keep: int = 100, crash: str = "snapshot_saved:2"
) -> tuple[Victim, Published]:
    """Return a service that was killed when it had saved some snapshots, and what it owes."""
    victim = await scene(bootstrap, tmp_path, lambda t: tick_rows(t, names(6), seed))
    cost = f'replay_cost = "1ms"\nkeep = {keep}'
    settings(victim, 'replay_cost = "100ms"', cost)
    expected = await reference(victim)
    await crashed(victim, crash)
    return victim, expected


def plant(victim: Victim, name: str, value: bytes) -> str:
    """Put a snapshot into the folder; its name is that of what it says it is, where it says so."""
    (folder(victim) / name).write_bytes(value)
    return name


def named(snapshot: Snapshot) -> str:
    return f"{snapshot.number:020d}-{snapshot.chain}.snap"


async def test_f17_to_f23_damaged_and_strange_snapshots_are_refused_and_deleted(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    random = Random(seed)
    victim, expected = await killed_scene(kafka_bootstrap, tmp_path, seed)
    await crashed(victim, "snapshot_write:1")  # F18: half a snapshot, under no name yet
    assert list(folder(victim).glob(".*.tmp"))
    good = [path.name for path in kept(victim)]
    newest = kept(victim)[0].read_bytes()
    number = decode_snapshot(newest).number
    planted = {}
    for k, (fault, (damage, reason)) in enumerate(DAMAGES.items()):
        value = damage(newest, random)
        # one that fits in number would be found out by its chain or its state, not by its name
        name = f"{number + 1 + k:020d}-{OTHER_CHAIN}.snap"
        planted[plant(victim, name, value)] = (fault, reason)
    done = await crashed(victim, "snapshot_saved:1")  # who has committed may delete
    refusals = {entry["name"]: entry["reason"] for entry in done.said("snapshot refused")}
    for name, (fault, reason) in planted.items():
        assert reason in refusals.pop(name), (fault, f"seed {seed}")
        assert not (folder(victim) / name).exists(), fault
    assert refusals == {}
    assert not list(folder(victim).glob(".*.tmp"))
    (recovery,) = done.said("recovered")
    assert recovery["snapshot"] == number
    # and with none left that is any good
    left = kept(victim)
    assert {path.name for path in left} >= set(good)
    for path in left:
        path.write_bytes(random.choice(list(DAMAGES.values())[2:9])[0](path.read_bytes(), random))
    done = await completes(victim, expected)
    assert len(done.said("snapshot refused")) == len(left), f"seed {seed}"
    assert done.said("recovered")[0]["snapshot"] == -1


@pytest.mark.chaos
@pytest.mark.parametrize("fault", DAMAGES)
async def test_snapshot_fault(kafka_bootstrap: str, tmp_path: Path, seed: int, fault: str) -> None:
    victim, expected = await killed_scene(kafka_bootstrap, tmp_path, seed)
    damage, reason = DAMAGES[fault]
    newest, older = kept(victim)[:2]
    newest.write_bytes(damage(newest.read_bytes(), Random(seed)))
    done = await completes(victim, expected)
    (refusal,) = done.said("snapshot refused")
    assert refusal["name"] == newest.name
    assert reason in refusal["reason"], f"seed {seed}"
    assert done.said("recovered")[0]["snapshot"] == number_in(older.name)


@pytest.mark.chaos
async def test_f23_f24_orphans_of_the_future_and_no_snapshots_at_all(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    victim, expected = await killed_scene(kafka_bootstrap, tmp_path, seed)
    last = decode_snapshot(kept(victim)[0].read_bytes())
    orphan = dataclasses.replace(last, number=last.number + 5, chain=OTHER_CHAIN)
    for path in kept(victim):
        path.unlink()
    plant(victim, named(orphan), encode_snapshot(orphan))
    done = await completes(victim, expected)
    (refusal,) = done.said("snapshot refused")
    assert refusal["reason"] == "it is of a commit that did not take place"
    assert done.said("recovered")[0]["snapshot"] == -1
    assert done.said("recovered")[0]["repeated"] > last.number


@pytest.mark.chaos
async def test_f24_no_snapshots_and_a_journal_that_was_trimmed(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    victim, expected = await killed_scene(kafka_bootstrap, tmp_path, seed, keep=1)
    await run_until(victim, lambda found: bool(found["correlations"]))  # a clean stop trims
    backup = tmp_path / "backup"
    shutil.copytree(folder(victim), backup)
    for path in kept(victim):
        path.unlink()
    sentence = await refused(victim, 8)
    assert "begins at entry" in sentence
    assert "bring the snapshots of its last host here" in sentence
    # what the sentence asks for helps
    shutil.copytree(backup, folder(victim), dirs_exist_ok=True)
    await completes(victim, expected)


def failed_snapshots(port: int) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    wanted = [line for line in lines if line.startswith("stream_calib_snapshots_total{")]
    return sum(float(line.split()[-1]) for line in wanted if 'outcome="failed"' in line)


async def test_f25_disk_is_full(kafka_bootstrap: str, tmp_path: Path, seed: int) -> None:
    victim, expected = await killed_scene(kafka_bootstrap, tmp_path, seed, crash="commit:2")
    saved, port = kept(victim), free_port()
    settings(victim, "enabled = false", f"enabled = true\nport = {port}")
    live = await start(victim)
    resource.prlimit(live.process.pid, resource.RLIMIT_FSIZE, (4096, 4096))
    found = await published(live, victim, reaches(expected))
    assert found == expected, f"seed {seed}"
    assert await asyncio.to_thread(failed_snapshots, port) >= 1
    done = await ended(live, signal.SIGTERM)
    assert (done.code, done.sentence) == (0, "")
    failures = done.said("snapshot failed")
    assert {entry["reason"] for entry in failures} == {"File too large"}
    assert {entry["level"] for entry in failures} == {"warning"}
    assert kept(victim) == saved
    assert not list(folder(victim).glob(".*.tmp"))
    await completes(victim, expected)  # and there is space again
    assert len(kept(victim)) > len(saved)


@pytest.mark.chaos
async def test_f26_folder_cannot_be_used(kafka_bootstrap: str, tmp_path: Path, seed: int) -> None:
    victim = await scene(kafka_bootstrap, tmp_path, lambda t: tick_rows(t, names(6), seed))
    expected = await reference(victim)
    blocked = victim.folder / "snapshots"
    blocked.write_text("not a folder")
    done = await crashed(victim, "commit:2")
    (warning,) = done.said("no snapshots can be kept")
    assert "a file is in its place" in warning["reason"]
    assert warning["level"] == "warning"
    settings(victim, "[snapshots]", '[snapshots]\nfolder = "/proc/no/such"')
    done = await completes(victim, expected)
    (warning,) = done.said("no snapshots can be kept")
    assert "/proc/no/such" in warning["reason"]
    assert done.said("recovered")[0]["repeated"] > 0
    assert blocked.read_text() == "not a folder"


@pytest.mark.chaos
async def test_f26_folder_is_made_useless_while_it_runs(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    parted = await unhurried(kafka_bootstrap, tmp_path, seed)
    victim = parted.victim
    settings(victim, 'replay_cost = "100ms"', 'replay_cost = "1ms"\nkeep = 100')
    live, service = await watched(victim)
    snapshots = service.snapshots
    await parted.feed(0.4)
    await service.until(lambda: snapshots("saved") > 0)
    folder(victim).rename(tmp_path / "aside")
    folder(victim).write_bytes(b"")
    await parted.feed(0.5)
    await service.until(lambda: snapshots("failed") > 0)
    saved = snapshots("saved")
    await parted.feed(1.0)
    expected = await catches_up(live, victim)
    assert snapshots("saved") == saved
    done = await ended(live, signal.SIGTERM)
    assert (done.code, done.sentence) == (0, "")
    reasons = {entry["reason"] for entry in done.said("snapshot failed")}
    assert "Not a directory" in reasons
    assert reasons <= {"Not a directory", "No such file or directory"}  # for a moment it was gone
    folder(victim).unlink()
    await completes(victim, expected)


BROKEN_ENTRIES = {
    "f44_garbage": b"\x00\xff not a journal entry",
    "f44_another_document": b"[1, 2, 3]",
    "f44_half_an_entry": b'{"version":1,"universe":"u"}',
    "f44_does_not_follow": encode_entry(link(JournalEntry("u", 7)), "t", 0).value,
    "f44_changed": encode_entry(link(JournalEntry("u", 7)), "t", 0).value.replace(b"7", b"8", 1),
    "f44_empty": b"",
    "f17_of_a_later_version": orjson.dumps({"version": 2, "universe": "u"}),
}


ALWAYS = {"f44_garbage", "f44_does_not_follow", "f17_of_a_later_version"}


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, marks=() if fault in ALWAYS else pytest.mark.chaos)
        for fault in BROKEN_ENTRIES
    ],
)
async def test_broken_journal_is_never_a_cold_start(
    kafka_bootstrap: str, tmp_path: Path, seed: int, fault: str
) -> None:
    rows = tick_rows("", names(6), seed, 20.0)
    victim = await scene(kafka_bootstrap, tmp_path, lambda t: [(t, 0, v) for _, _, v in rows])
    config, topic = load_config(victim.config_file), f"{victim.prefix}.journal"
    await crashed(victim, "commit:2")
    before = await victim.published((*ROLES, "journal"))
    entries = [decode_entry(value or b"") for _, value, _ in before["journal"]]
    assert len(entries) == 2
    # one that follows what was there: to pass over what is broken would do no harm at first
    follower = link(JournalEntry("u", entries[-1].number + 1, previous=entries[-1].chain))
    whole = encode_entry(follower, topic, 0).value
    position = (await read_kept(config.kafka, Source(topic, 0))).after
    await write(kafka_bootstrap, [(topic, 0, BROKEN_ENTRIES[fault]), (topic, 0, whole)])
    where = f"journal of universe 'u' at position {position}: "
    with pytest.raises(RecoveryError, match=where) as caught:
        await asyncio.wait_for(kafka_service(config).run(asyncio.Event()), ENDS_S)
    assert caught.value.exit_code == 8
    if fault == "f17_of_a_later_version":
        assert "version 2, this reader knows 1" in str(caught.value)
    if fault == "f44_garbage":
        sentence = await refused(victim, 8)
        assert where in sentence
        assert "not a journal entry" in sentence
        assert await refused(victim, 8, "--genesis", "--accept-divergence") == sentence
    after = await victim.published((*ROLES, "journal"))
    written = [value for _, value, _ in after.pop("journal")]
    kept_ = [value for _, value, _ in before.pop("journal")]
    assert written == [*kept_, BROKEN_ENTRIES[fault], whole]
    assert after == before


@pytest.mark.chaos
async def test_f16_universes_that_changed_places_are_refused(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    other = '[[universe]]\nname = "v"\nsymbols = ["SIM:0", "SIM:1"]'
    victim = await scene(kafka_bootstrap, tmp_path, lambda t: [(t, 0, b"{}")], extra=other)
    live = await start(victim)
    await asyncio.to_thread(live.until_said, "running")
    assert (await ended(live, signal.SIGTERM)).code == 0
    settings(victim, 'name = "u"', 'name = "x"')
    settings(victim, 'name = "v"', 'name = "u"')
    settings(victim, 'name = "x"', 'name = "v"')
    sentence = await refused(victim, 3)
    assert "universes keep their order in the configuration" in sentence
