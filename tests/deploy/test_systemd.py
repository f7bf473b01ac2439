"""The unit holds what systemd and the service agree on; the service says that it is well."""

import contextlib
import re
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stream_calib.adapters.supervisor import Supervisor
from stream_calib.cli.run import EXIT_S
from stream_calib.errors import (
    ConfigError,
    InputError,
    MissingTopicError,
    OwnershipError,
    PortInUseError,
    RecoveryError,
    TransportError,
)
from stream_calib.service.watchdog import EXIT_CODE, LOOK_S
from tests.cli.command import ended, run_process, spawn
from tests.deploy.settings import unknown_variables
from tests.real_parts import ROOT, TopicMaker

UNIT = ROOT / "deploy" / "systemd" / "stream-calib.service"
PROGRAM = "/opt/stream-calib/bin/stream-calib"
EXPOSURE_MAX = 2.0  # of ten; it was 1.4
WORD_S = 120.0  # until the next word; a start compiles where there is no cache


def options() -> dict[str, list[str]]:
    """Return the values of each option of the section [Service]."""
    found: dict[str, list[str]] = defaultdict(list)
    section = ""
    for line in UNIT.read_text().splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found[name].append(value)
    return found


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(s|min)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1.0, "min": 60.0}[unit]


def test_systemd_accepts_the_unit(require_binary: Callable[[str], Path], tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(PROGRAM, sys.executable))
    command = [str(require_binary("systemd-analyze")), "verify", "--man=no", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_service_can_do_little_harm(require_binary: Callable[[str], Path]) -> None:
    command = [str(require_binary("systemd-analyze")), "security", "--offline=yes", "--no-pager"]
    done = subprocess.run(
        [*command, str(UNIT)], capture_output=True, text=True, check=False, timeout=120
    )
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert exposure is not None, done.stderr
    assert float(exposure[1]) <= EXPOSURE_MAX


def test_the_unit_starts_what_there_is() -> None:
    for line in options()["ExecStart"] + options()["ExecStartPre"]:
        program, *words = line.split()
        assert program == PROGRAM
        done = run_process(*words[:1], "--help")
        assert done.code == 0
        assert set(re.findall(r"--[a-z-]+", line)) <= set(re.findall(r"--[a-z-]+", done.out))


def test_its_variables_are_ones_that_are_read() -> None:
    named = dict(entry.split("=", 1) for entry in options()["Environment"])
    assert unknown_variables(named) == []


def test_all_that_is_written_lies_in_its_own_two_folders() -> None:
    found, named = options(), dict(e.split("=", 1) for e in options()["Environment"])
    assert found["StateDirectory"] == found["CacheDirectory"] == ["stream-calib"]
    assert named["NUMBA_CACHE_DIR"].startswith("%C/stream-calib/")
    assert named["STREAM_CALIB__SNAPSHOTS__FOLDER"].startswith("%S/stream-calib/")
    assert found["ProtectSystem"] == ["strict"]


def test_it_is_not_started_again_where_that_cures_nothing() -> None:
    kept = {int(code) for code in options()["RestartPreventExitStatus"][0].split()}
    usage = 2
    hopeless = {e.exit_code for e in (ConfigError, InputError, RecoveryError, OwnershipError)}
    assert kept == hopeless | {usage}
    passing = {e.exit_code for e in (TransportError, MissingTopicError, PortInUseError)}
    assert not kept & (passing | {EXIT_CODE})


def test_its_times_leave_room_for_those_of_the_service() -> None:
    found = {name: values[0] for name, values in options().items()}
    assert seconds(found["WatchdogSec"]) >= 10 * LOOK_S
    assert seconds(found["TimeoutStopSec"]) >= 2 * EXIT_S


@pytest.fixture
def told(tmp_path: Path) -> Iterator[socket.socket]:
    """Yield what a supervisor listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(WORD_S)
        yield listening


def heard(told: socket.socket) -> str:
    return told.recv(4096).decode().partition("\n")[0]


def test_a_start_that_gets_on_asks_for_more_time(told: socket.socket) -> None:
    supervisor = Supervisor.of({"NOTIFY_SOCKET": told.getsockname()})
    supervisor.alive()
    supervisor.ready()
    supervisor.alive()
    supervisor.stopping()
    expected = ["EXTEND_TIMEOUT_USEC=30000000", "READY=1", "WATCHDOG=1", "STOPPING=1"]
    assert [heard(told) for _ in expected] == expected
    supervisor.close()


def test_a_name_in_the_abstract_namespace_is_one_too() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("")  # the kernel picks an abstract one
        listening.settimeout(WORD_S)
        supervisor = Supervisor.of({"NOTIFY_SOCKET": "@" + listening.getsockname()[1:].decode()})
        supervisor.ready()
        assert heard(listening) == "READY=1"
        supervisor.close()


def test_readiness_is_said_again_to_who_did_not_read(told: socket.socket) -> None:
    supervisor = Supervisor.of({"NOTIFY_SOCKET": told.getsockname()})
    for _ in range(2000):  # more than a socket keeps: none of these may wait
        supervisor.alive()
    supervisor.ready()
    told.setblocking(False)
    words: list[str] = []
    with contextlib.suppress(BlockingIOError):
        while len(words) < 2000:
            words.append(heard(told))
    assert "READY=1" not in words
    assert len(words) < 2000
    supervisor.alive()
    assert [heard(told), heard(told)] == ["READY=1", "WATCHDOG=1"]
    supervisor.close()


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/none"}])
def test_without_a_supervisor_nothing_is_missed(environment: dict[str, str]) -> None:
    supervisor = Supervisor.of(environment)
    supervisor.alive()
    supervisor.ready()
    supervisor.stopping()
    supervisor.close()
    supervisor.alive()


async def test_the_service_says_that_it_is_ready_alive_and_ending(
    kafka_bootstrap: str, new_topic: TopicMaker, told: socket.socket, tmp_path: Path
) -> None:
    topic = await new_topic("ticks")
    config = tmp_path / "stream_calib.toml"
    config.write_text(
        f'input.topics = ["{topic}"]\noutput.prefix = "{topic}.out"\nhttp.enabled = false\n'
        '[[universe]]\nname = "u"\nsymbols = ["A", "B"]\n'
    )
    words = ["--config", config, "--bootstrap", kafka_bootstrap]
    assert run_process("topics", "create", *words).code == 0
    process = spawn("run", *words, env={"NOTIFY_SOCKET": told.getsockname()})
    try:
        first = [heard(told)]
        while first[-1] != "READY=1":
            first.append(heard(told))
        assert set(first[:-1]) <= {"EXTEND_TIMEOUT_USEC=30000000"}
        began_s = time.monotonic()
        assert [heard(told), heard(told)] == ["WATCHDOG=1"] * 2
        # one a second, on a machine that may be ten times as slow, which systemd still takes
        assert time.monotonic() - began_s < 20.0
        process.terminate()
        while (word := heard(told)) == "WATCHDOG=1":
            pass
        assert word == "STOPPING=1"
        done = ended(process)
    finally:
        process.kill()  # where it still runs
    assert done.code == 0, done.err
