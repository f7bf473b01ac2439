"""The disk under the snapshots is read-only, or takes long, while the service is at work."""

import asyncio
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.command import COMMAND, spawn
from tests.kafka import proxy as faults
from tests.kafka.bounds import Watched, tell, unhurried, with_face
from tests.kafka.killing import DEADLINE_S, Victim
from tests.kafka.living import Live, ended, said_at
from tests.kafka.proxy import END_TXN, KafkaProxy
from tests.kafka.test_faults_process import (
    STOP_S,
    catches_up,
    completes,
    reference,
    settings,
)
from tests.kafka.test_faults_snapshots import folder

SYNC_S = 10.0
MOUNTED = """
mount -t tmpfs -o size="$2" none "$1" || exit 1
eval "$3"
shift 3
exec "$@"
"""


def on_a_disk(victim: Victim, place: Path, size: str, prepare: str = "") -> Live:
    """Start the service where a folder is a disk of its own, which others do not see."""
    unshare = shutil.which("unshare")
    if os.geteuid() != 0 or unshare is None:
        pytest.skip("a file system of a test's own takes root and unshare")
    place.mkdir(parents=True)
    program = [unshare, "-m", "sh", "-c", MOUNTED, "sh", place, size, prepare, *COMMAND]
    return Live(spawn("run", "--config", victim.config_file, program=program, cwd=victim.folder))


def remount(pid: int, place: Path, how: str) -> None:
    """Mount a disk that a process sees another way; a save under way is waited for."""
    words = ["nsenter", "-t", str(pid), "-m", "mount", "-o", f"remount,{how}", str(place)]
    deadline_s = time.monotonic() + DEADLINE_S
    while (done := subprocess.run(words, capture_output=True, check=False)).returncode:
        assert time.monotonic() < deadline_s, done.stderr
        time.sleep(0.01)


@pytest.mark.chaos
async def test_f26_disk_is_mounted_read_only_while_it_runs(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    began_s = time.monotonic()
    parted = await unhurried(kafka_bootstrap, tmp_path, seed)
    victim, place = parted.victim, folder(parted.victim)
    settings(victim, 'replay_cost = "100ms"', 'replay_cost = "1ms"\nkeep = 100')
    port = with_face(victim)
    await parted.feed(0.3)
    live = on_a_disk(victim, place, "64m")
    await asyncio.to_thread(live.until_said, "running")
    service = Watched(live.process, port)
    snapshots = service.snapshots
    await service.until(lambda: snapshots("saved") > 0)
    assert snapshots("failed") == 0
    await asyncio.to_thread(remount, service.pid, place, "ro")
    await parted.feed(0.4)
    await service.until(lambda: snapshots("failed") > 0)
    saved = snapshots("saved")
    await parted.feed(0.5)
    await catches_up(live, victim)
    await service.until(lambda: not service.reasons())
    assert snapshots("saved") == saved
    await asyncio.to_thread(remount, service.pid, place, "rw")
    await parted.feed(1.0)
    await service.until(lambda: snapshots("saved") > saved)
    expected = await catches_up(live, victim)
    growth_mib = service.growth_mib
    done = await ended(live, signal.SIGTERM)
    assert (done.code, done.sentence) == (0, "")
    failures = done.said("snapshot failed")
    assert {entry["reason"] for entry in failures} == {"Read-only file system"}
    done = await completes(victim, expected)  # where there is no such disk, nor what was on it
    assert done.said("recovered")[0]["snapshot"] == -1
    tell("F26", "disk read-only, then not", growth_mib, 0, time.monotonic() - began_s)


@pytest.mark.chaos
async def test_f27_syncing_takes_ten_seconds_and_longer(
    proxy: KafkaProxy, tmp_path: Path, seed: int, strange_host: Path
) -> None:
    began_s = time.monotonic()
    parted = await unhurried(proxy.bootstrap, tmp_path, seed)
    victim, holds, met = parted.victim, tmp_path / "holds", tmp_path / "holds.met"
    settings(victim, 'replay_cost = "100ms"', 'replay_cost = "1ms"\nkeep = 100')
    port = with_face(victim)
    env = {"LD_PRELOAD": str(strange_host), "STRANGE_DISK": str(holds)}
    live = Live(spawn("run", "--config", victim.config_file, cwd=victim.folder, env=env))
    await asyncio.to_thread(live.until_said, "running")
    service = Watched(live.process, port)

    def saved() -> float:
        return service.snapshots("saved")

    async def publishes(share: float) -> None:
        await parted.feed(share)
        await catches_up(live, victim)

    async def is_held() -> None:
        holds.touch()
        await parted.feed(0.2)
        await service.until(met.exists)

    await publishes(0.2)
    await service.until(lambda: saved() > 0)
    await is_held()
    held_s, before = time.monotonic(), saved()
    distance_s = service.number("snapshot_distance_seconds")
    await publishes(0.2)
    await service.until(lambda: service.number("snapshot_distance_seconds") > distance_s)
    await service.until(lambda: not service.reasons())
    assert saved() == before
    await asyncio.sleep(max(0.0, held_s + SYNC_S - time.monotonic()))
    held_s = time.monotonic() - held_s
    holds.unlink()
    await service.until(lambda: saved() > before)
    assert service.number("snapshot_seconds_sum") >= held_s
    assert service.number("restarts_total") == 0

    met.unlink()
    await is_held()
    before = saved()
    proxy.inject(END_TXN, faults.swallow)  # doubt, after the eight seconds of a commit
    await publishes(0.5)
    assert service.number("restarts_total") == 1
    await publishes(1.0)
    await service.until(lambda: not service.reasons())
    assert saved() == before

    growth_mib, asked_s = service.growth_mib, time.time()
    done = await ended(live, signal.SIGTERM, may_give_up=True)
    assert (done.code, done.sentence) == (0, "")
    assert len(done.said("recovered")) == 2
    assert len(done.said("snapshot not waited for")) == 1
    assert not done.said("snapshot failed")
    assert said_at(done.log[-1]) - asked_s < STOP_S
    assert holds.exists()  # all of that while it took long
    holds.unlink()
    await completes(victim, await reference(victim, flush=False))
    tell("F27", "fsync takes 10 s and longer", growth_mib, 0, time.monotonic() - began_s)
