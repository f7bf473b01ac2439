"""What the service stands on gives way: log, disk, descriptors, memory, clock, names of hosts."""

import asyncio
import fcntl
import os
import re
import resource
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from deploy.kafka.broker import BRIEF, LocalBroker, UnavailableError, free_port
from stream_calib.cli.ending import NO_MEMORY
from stream_calib.service.universe import PROBE_S
from tests.cli.command import spawn
from tests.cli.forking import Forked
from tests.kafka.bounds import (
    Watched,
    address_bytes,
    descriptors,
    tell,
    unhurried,
    watched,
    with_face,
    written,
)
from tests.kafka.killing import DEADLINE_S, ROLES
from tests.kafka.living import Live, ended, said_at
from tests.kafka.proxy import KafkaProxy
from tests.kafka.test_faults_disk import on_a_disk
from tests.kafka.test_faults_process import (
    catches_up,
    completes,
    names,
    published,
    reaches,
    reference,
    refused,
    scene,
    settings,
    tick_rows,
)
from tests.real_parts import missing

FEW = 8  # descriptors that come and go: who asks, a look at the broker, a file
# Of nobody; and larger than what is handed out of memory that was given back.
LARGE = orjson.dumps({"symbol": "NOBODY", "time": 1, "price": 1.0, "note": "x" * 300_000})
NOTHING_IN_STORE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
MEMORY_MIB = 60.0  # for what a few hundred matrices and their pages may leave behind


@pytest.mark.parametrize("reader", ["does_not_read", "hangs_up"])
async def test_f62_nobody_takes_the_log(
    kafka_bootstrap: str, tmp_path: Path, seed: int, reader: str
) -> None:
    began_s = time.monotonic()
    victim = await scene(kafka_bootstrap, tmp_path, lambda t: tick_rows(t, names(6), seed))
    port = with_face(victim)
    settings(victim, "[http]", '[log]\nlevel = "debug"\n[http]')
    settings(victim, "max_records = 3", "max_records = 200")
    settings(victim, "[delivery]", '[delivery]\nwatchdog_after = "60s"')
    expected = await reference(victim)
    process = await asyncio.to_thread(victim.start)
    assert isinstance(process, Forked)
    try:
        if reader == "hangs_up":
            process.stderr.readline()  # it has come as far as its first words
            process.stderr.close()
        else:  # a page is soon full
            fcntl.fcntl(process.stderr.fileno(), fcntl.F_SETPIPE_SZ, 4096)
        deadline_s = time.monotonic() + DEADLINE_S
        while not reaches(expected)(found := await victim.published()):
            assert process.poll() is None
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.2)
        assert found == expected, f"seed {seed}"
        service = Watched(process, port)
        lost = await asyncio.to_thread(service.number, "log_lines_dropped_total")
        process.send_signal(signal.SIGTERM)
        if reader == "hangs_up":
            assert await asyncio.to_thread(process.wait, DEADLINE_S) == 0
            assert lost > len(expected["correlations"])
        else:
            assert lost == 0  # all of it is within the backlog, and comes when it is read
            _, said = await asyncio.to_thread(process.communicate, DEADLINE_S)
            assert process.returncode == 0
            lines = [orjson.loads(line) for line in said.splitlines()]
            shown = [line["sequence"] for line in lines if line["event"] == "matrix"]
            assert shown == sorted(shown)
            assert len(shown) >= len(expected["correlations"])
            assert lines[-1]["event"] == "stopped"
    finally:
        process.kill()
        with process:
            pass
    tell("F62", f"log: reader {reader}", 0.0, 0, time.monotonic() - began_s)


@pytest.mark.chaos
async def test_f63_descriptors_run_out_in_a_flood_of_connections(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    began_s = time.monotonic()
    parted = await unhurried(kafka_bootstrap, tmp_path, seed)
    victim = parted.victim
    live, service = await watched(victim)
    await parted.feed(0.4)
    await service.until(lambda: not service.reasons())
    pid = service.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    open_ = descriptors(pid)
    # asked through a connection that is there already
    asking = await asyncio.open_connection("127.0.0.1", service.port)
    assert await asked(asking) == []
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_ + 4, hard))
    flood = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(60)]
    try:
        await parted.feed(0.5)
        deadline_s = time.monotonic() + DEADLINE_S
        while not any("Too many open files" in reason for reason in await asked(asking)):
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.1)
        # it goes on with the connections that it has
        await catches_up(live, victim)
        assert any("Too many open files" in reason for reason in await asked(asking))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        await parted.feed(1.0)
        await catches_up(live, victim)
    finally:
        for connection in flood:
            connection.close()
        asking[1].close()
    await service.until(lambda: not service.reasons())
    await service.until(lambda: descriptors(pid) <= open_ + FEW)
    growth_mib = service.growth_mib
    assert growth_mib < MEMORY_MIB
    done = await ended(live, signal.SIGTERM)
    assert (done.code, done.sentence) == (0, "")
    assert not done.said("starting over from the journal")  # what was open stayed open
    tell("F63", "no descriptor left, 60 connections", growth_mib, 0, time.monotonic() - began_s)


async def asked(asking: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> list[str]:
    """Return the reasons of /readyz, through a connection that stays."""
    reader, writer = asking
    writer.write(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    found = re.search(rb"content-length: (\d+)", head.lower())
    assert found is not None, head
    length = int(found[1])
    return list(orjson.loads(await reader.readexactly(length))["reasons"])


async def test_a_flood_of_connections_leaves_half_of_the_descriptors(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    victim = await scene(kafka_bootstrap, tmp_path, lambda t: tick_rows(t, names(6), seed))
    settings(victim, "max_records = 3", "max_records = 50")
    expected = await reference(victim)
    live, service = await watched(victim)
    await service.until(lambda: not service.reasons())
    open_ = descriptors(service.pid)
    _, hard = resource.prlimit(service.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (100, hard))
    flood = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(120)]
    try:
        found = await published(live, victim, reaches(expected))
        assert found == expected, f"seed {seed}"
        # whoever asks is let in, for the oldest of those that wait makes room
        await service.until(lambda: not service.reasons())
        assert descriptors(service.pid) < 90
    finally:
        for connection in flood:
            connection.close()
    await service.until(lambda: descriptors(service.pid) <= open_ + FEW)
    done = await ended(live, signal.SIGTERM)
    assert done.code == 0
    # all of them at once may be too many for a moment, and each of them says no word of it
    assert len(done.log) < 60


async def test_f15_memory_runs_out(kafka_bootstrap: str, tmp_path: Path, seed: int) -> None:
    began_s = time.monotonic()
    parted = await unhurried(kafka_bootstrap, tmp_path, seed)
    victim = parted.victim
    settings(victim, "max_records = 3", "max_records = 50")
    await parted.feed(0.5)
    words = ("run", "--config", victim.config_file)
    # from nothing: one that was forked still has to start the threads of BLAS
    live = Live(spawn(*words, cwd=victim.folder, env=NOTHING_IN_STORE))
    await asyncio.to_thread(live.until_said, "running")
    pid = live.process.pid
    limit = address_bytes(pid)
    resource.prlimit(pid, resource.RLIMIT_AS, (limit, limit))
    deadline_s = time.monotonic() + DEADLINE_S
    while live.process.poll() is None:  # what it has may last for a while
        assert time.monotonic() < deadline_s
        await written(kafka_bootstrap, victim.topics[0], [LARGE] * 4)
        await asyncio.sleep(0.1)
    code = live.process.wait()
    live.close()
    said = [line for line in live.lines if not line.startswith("{")]
    # Python itself may give up where it cannot have what it needs most
    assert code in {1, -signal.SIGABRT, -signal.SIGSEGV}, live.lines
    assert code != 1 or said == [NO_MEMORY.decode()], live.lines
    await parted.feed(1.0)
    await completes(victim, await reference(victim, flush=False))
    tell("F15", f"no more memory: exit code {code}", 0.0, 0, time.monotonic() - began_s)


FILLED = 'head -c 2000000 /dev/zero > "$1/ballast" 2> /dev/null'


@pytest.mark.chaos
async def test_f25_disk_is_full_and_has_space_again(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    began_s = time.monotonic()
    parted = await unhurried(kafka_bootstrap, tmp_path, seed)
    victim = parted.victim
    settings(victim, 'replay_cost = "100ms"', 'replay_cost = "1ms"')
    port = with_face(victim)
    disk = victim.folder / "snapshots"
    await parted.feed(0.5)
    live = on_a_disk(victim, disk, "1m", FILLED)
    await asyncio.to_thread(live.until_said, "running")
    service = Watched(live.process, port)
    await service.until(lambda: service.snapshots("failed") > 1)
    assert service.snapshots("saved") == 0
    os.unlink(f"/proc/{service.pid}/root{disk}/ballast")  # noqa: PTH108
    await parted.feed(1.0)
    await catches_up(live, victim)
    await service.until(lambda: service.snapshots("saved") > 0)
    growth_mib = service.growth_mib
    assert growth_mib < MEMORY_MIB
    done = await ended(live, signal.SIGTERM)
    assert (done.code, done.sentence) == (0, "")
    assert {entry["reason"] for entry in done.said("snapshot failed")} == {
        "No space left on device"
    }
    tell("F25", "disk of 1 MiB full, then not", growth_mib, 0, time.monotonic() - began_s)


async def test_f59_the_clock_on_the_wall_jumps_by_an_hour_to_and_fro(
    kafka_bootstrap: str, tmp_path: Path, seed: int, strange_host: Path
) -> None:
    began_s = time.monotonic()
    victim = await scene(kafka_bootstrap, tmp_path, lambda t: tick_rows(t, names(6), seed))
    settings(victim, "max_records = 3", "max_records = 20")
    port = with_face(victim)
    expected = await reference(victim)
    env = {"LD_PRELOAD": str(strange_host), "STRANGE_CLOCK": "1"}
    words = ("run", "--config", victim.config_file)
    live = Live(spawn(*words, cwd=victim.folder, env=env))
    await asyncio.to_thread(live.until_said, "running")
    service = Watched(live.process, port)
    found = await published(live, victim, reaches(expected))
    assert found == expected, f"seed {seed}"
    assert await asyncio.to_thread(service.number, "restarts_total") == 0
    growth_mib = service.growth_mib
    done = await ended(live, signal.SIGTERM)
    assert (done.code, done.sentence) == (0, "")
    spoken_s = [said_at(entry) for entry in done.log]
    assert max(spoken_s) - min(spoken_s) > 3500.0  # it did jump
    # and the state it left goes on under a clock that is right
    await completes(victim, expected)
    tell("F59", "clock jumps of an hour, 14 a second", growth_mib, 0, time.monotonic() - began_s)


@pytest.fixture
async def by_name(tmp_path: Path) -> AsyncIterator[KafkaProxy]:
    """Give the test a proxy in front of a broker that clients have to look up by its name."""
    port = free_port()
    settings = {"advertised.listeners": f"PLAINTEXT://localhost:{port}"}
    node = LocalBroker(tmp_path / "kafka", settings=settings, java_options=BRIEF)
    try:
        await asyncio.to_thread(node.start)
    except UnavailableError as error:
        missing("STREAM_CALIB_REQUIRE_BROKER", f"no Kafka of our own: {error}")
    try:
        async with KafkaProxy(port, int(node.bootstrap.rpartition(":")[2])) as between:
            yield between
    finally:
        await asyncio.to_thread(node.stop)


@pytest.mark.chaos
async def test_f60_names_of_hosts_are_not_known_for_a_while(
    by_name: KafkaProxy, tmp_path: Path, seed: int, strange_host: Path
) -> None:
    began_s = time.monotonic()
    parted = await unhurried(by_name.bootstrap, tmp_path, seed)
    victim, flag = parted.victim, tmp_path / "no-names"
    port = with_face(victim)
    settings(victim, "127.0.0.1", "localhost")
    env = {"LD_PRELOAD": str(strange_host), "STRANGE_NAMES": str(flag)}
    words = ("run", "--config", victim.config_file)
    flag.touch()
    process = spawn(*words, cwd=victim.folder, env=env)
    done = await ended(Live(process))
    assert done.code == 5
    assert done.sentence.endswith("cannot be reached: the host name is not known")
    flag.unlink()
    live = Live(spawn(*words, cwd=victim.folder, env=env))
    await asyncio.to_thread(live.until_said, "running")
    service = Watched(live.process, port)
    await parted.feed(0.4)
    await service.until(lambda: not service.reasons())
    flag.touch()
    await parted.feed(0.5)
    expected = await catches_up(live, victim)  # what is connected stays connected
    await service.until(lambda: "the host name is not known" in "".join(service.reasons()))
    assert not any("starting over from the journal" in line for line in live.lines)
    assert by_name.hang_up() > 0
    await parted.feed(1.0)
    await asyncio.sleep(2 * PROBE_S)
    await service.until(lambda: "the host name is not known" in "".join(service.reasons()))
    assert await victim.published() == expected  # for it has to look up where to go
    flag.unlink()
    expected = await catches_up(live, victim)
    await service.until(lambda: not service.reasons())
    growth_mib = service.growth_mib
    done = await ended(live, signal.SIGTERM)
    assert (done.code, done.sentence) == (0, "")
    tell("F60", "no name is known for a while", growth_mib, 0, time.monotonic() - began_s)


async def test_f61_the_port_is_taken(kafka_bootstrap: str, tmp_path: Path) -> None:
    victim = await scene(kafka_bootstrap, tmp_path, lambda t: [(t, 0, b"{}")])
    port = with_face(victim)
    with socket.create_server(("127.0.0.1", port)):
        sentence = await refused(victim, 7)
    assert sentence == f"stream-calib: http.port: 127.0.0.1:{port} is taken by another process"
    assert not any((await victim.published((*ROLES, "journal"))).values())  # it has not begun
