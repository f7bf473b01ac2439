"""A real Apache Kafka on this machine, without Docker.

    python3 -m deploy.kafka.broker start|stop|status

One KRaft node that is broker and controller at once and listens on the loopback address only. Its
jars come from ``$STREAM_CALIB_KAFKA_HOME/libs`` (an unpacked release) or, through Maven, from the
coordinates in ``pom.xml`` beside this file; those are kept in ``.kafka/libs`` at the root of the
repository. ``KAFKA_PORT`` moves the broker away from port 9092. Needs Java 17 or newer and nothing
from outside the standard library. The last line printed by ``start`` is the bootstrap address.
"""

import argparse
import base64
import contextlib
import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.kafka.jars import (
    CACHE,
    BrokerError,
    UnavailableError,
    find_java,
    java_command,
    resolve_libs,
)

__all__ = [
    "BRIEF",
    "HOST",
    "SINGLE_NODE",
    "START_DEADLINE_S",
    "BrokerError",
    "LocalBroker",
    "UnavailableError",
    "answers",
    "find_java",
    "free_port",
]

HOST = "127.0.0.1"
DEFAULT_PORT = 9092
START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 20.0

# What any lone node of a test needs; addresses and folders come on top.
SINGLE_NODE = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    # One node cannot hold three replicas.
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    # Nobody waits for a second member, a dead worker's transaction, or the cleaner.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    "log.cleaner.backoff.ms": "1000",
    # A broker killed and started again is let in once its former self counts as dead.
    "broker.heartbeat.interval.ms": "500",
    "broker.session.timeout.ms": "3000",
    # A misspelt topic is an error and not a new topic.
    "auto.create.topics.enable": "false",
}

# For a virtual machine that lives for minutes: the second compiler never earns what it costs.
BRIEF = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")


class LocalBroker:
    """One Kafka node whose whole life is in one folder: settings, log, process id and data.

    Parameters
    ----------
    data_dir
        The folder; created when missing. The same folder started again is the same broker with the
        same data, also after `kill`, also from another process.
    port
        Port for clients on the loopback address; 0 picks a free one and keeps it over restarts.
    settings
        Further lines of ``server.properties``, which win over the ones written here.
    java_options
        Further options of the virtual machine, such as `BRIEF`.
    cluster_id
        Of a node among several, which have to share it; a new one by default.
    """

    def __init__(
        self,
        data_dir: Path,
        port: int = 0,
        settings: Mapping[str, str] | None = None,
        java_options: Sequence[str] = (),
        cluster_id: str = "",
    ) -> None:
        self._dir = data_dir.resolve()
        self._port = port or free_port()
        self._controller_port = free_port()
        self._settings = dict(settings or {})
        self._java_options = tuple(java_options)
        self._cluster_id = cluster_id or random_cluster_id()
        self._properties = self._dir / "server.properties"
        self._log = self._dir / "kafka.log"
        self._pid_file = self._dir / "broker.pid"
        self._data = self._dir / "data"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """Address for clients, ``host:port``."""
        return f"{HOST}:{self._port}"

    @property
    def pid(self) -> int | None:
        """Process id of the running broker of this folder, whoever started it, or None."""
        if self._process is not None and self._process.poll() is None:
            return self._process.pid  # our own child; its command line reads empty at first
        try:
            pid = int(self._pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return None
        # Ids are reused: only a Kafka that runs on our settings file is ours.
        command = _command_line(pid)
        return pid if "kafka.Kafka" in command and str(self._properties) in command else None

    def start(self) -> None:
        """Start the broker and return once it answers; nothing happens when it already does.

        Raises
        ------
        UnavailableError
            Java or Kafka's jars cannot be had here.
        BrokerError
            The port is taken, or Kafka does not come up.
        """
        ours = self.pid is None
        self.launch()
        try:
            self.wait_until_it_answers()
        except BaseException:
            if ours:
                self.kill()
            raise

    def launch(self) -> None:
        """Do what `start` does without waiting: the first of several nodes waits for another."""
        if self.pid is not None:
            if f"//{self.bootstrap}" not in self._properties.read_text():
                raise BrokerError(f"The broker of {self._dir} already runs on another port.")
            return
        if _listens(self._port):
            raise BrokerError(f"Port {self._port} is taken by another program.")
        libs = resolve_libs()
        self._dir.mkdir(parents=True, exist_ok=True)
        self._write_properties()
        if not (self._data / "meta.properties").exists():
            self._format(libs)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                java_command(
                    libs, "-Xmx512m", *self._java_options, "kafka.Kafka", str(self._properties)
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in a terminal is not meant for the broker
            )
        self._pid_file.write_text(str(self._process.pid))

    def stop(self) -> bool:
        """Shut the broker down in good order; its data stays.

        Returns
        -------
        bool
            False where it did not end in time and was killed.
        """
        return self._end(signal.SIGTERM) == signal.SIGTERM

    def kill(self) -> None:
        """End the broker with SIGKILL, as a crash would; its data stays."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze the broker: it answers nobody, and its connections stay."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a broker that was frozen go on."""
        self._send(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _write_properties(self) -> None:
        controller = f"{HOST}:{self._controller_port}"
        properties = {
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "log.dirs": str(self._data),
        }
        properties = SINGLE_NODE | properties | self._settings
        text = "".join(f"{key}={value}\n" for key, value in properties.items())
        self._properties.write_text(text)

    def _format(self, libs: Path) -> None:
        options = ["-t", self._cluster_id, "-c", str(self._properties)]
        command = java_command(libs, *BRIEF, "kafka.tools.StorageTool", "format", *options)
        with self._log.open("ab") as log:
            done = subprocess.run(command, stdout=log, stderr=log, check=False)
        if done.returncode:
            raise BrokerError(f"Kafka could not format its data folder, see {self._log}.")

    def wait_until_it_answers(self) -> None:
        """Return once the broker answers.

        Raises
        ------
        BrokerError
            It ends, or does not answer in time.
        """
        deadline_s = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline_s:
            if answers(self.bootstrap):
                return
            if self.pid is None:
                raise BrokerError(f"Kafka ended while starting, see {self._log}.")
            time.sleep(0.1)
        raise BrokerError(f"Kafka did not answer within {START_DEADLINE_S:.0f} s, see {self._log}.")

    def _send(self, sign: signal.Signals) -> None:
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)

    def _end(self, first: signal.Signals) -> signal.Signals:
        # Returns the signal that it ended by.
        for sign in (first, signal.SIGKILL):
            deadline_s = time.monotonic() + STOP_DEADLINE_S
            self._send(sign)
            while self.pid is not None and time.monotonic() < deadline_s:
                time.sleep(0.02)
            if self.pid is None:
                break
        else:
            raise BrokerError(f"The broker with process id {self.pid} does not end.")
        self._pid_file.unlink(missing_ok=True)
        self._process = None
        return sign


def answers(bootstrap: str, timeout_s: float = 1.0) -> bool:
    """Whether a Kafka at ``host:port`` answers an ApiVersions request without an error."""
    host, _, port = bootstrap.rpartition(":")
    api_key, version, correlation_id, no_client_id = 18, 0, 7, -1
    request = struct.pack(">hhih", api_key, version, correlation_id, no_client_id)
    try:
        with socket.create_connection((host, int(port)), timeout_s) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            with connection.makefile("rb") as stream:
                head = stream.read(struct.calcsize(">iih"))
        _size, answered_id, error = struct.unpack(">iih", head)
    except (OSError, struct.error):
        return False
    return (answered_id, error) == (correlation_id, 0)


def free_port() -> int:
    """Return a port of the loopback address that nothing uses.

    It lies below the ports from which the system picks the near end of connections: there, a client
    that keeps dialling a dead broker can reach itself, and the broker never gets its port back.
    """
    while True:
        port = 20_000 + secrets.randbelow(10_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port


def random_cluster_id() -> str:
    """Return an id for a cluster that is new."""
    # 16 bytes in the alphabet of URLs; a leading dash would look like an option.
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[:22]).startswith("-"):
        pass
    return text


def _command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        pass
    if Path("/proc/self").exists():
        return []
    # Systems without /proc, such as macOS.
    ps = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
    return subprocess.run(ps, capture_output=True, text=True, check=False).stdout.split()


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), 1.0).close()
    except OSError:
        return False
    return True


def main() -> int:
    """Run one verb; return the exit code."""
    parser = argparse.ArgumentParser(description="A real local Kafka without Docker.")
    parser.add_argument("verb", choices=["start", "stop", "status"])
    verb = parser.parse_args().verb
    broker = LocalBroker(CACHE / "broker", int(os.environ.get("KAFKA_PORT") or DEFAULT_PORT))
    try:
        if verb == "start":
            if not answers(broker.bootstrap):  # whichever Kafka answers there will do
                broker.start()
            print(broker.bootstrap)
        elif verb == "stop":
            broker.stop()
            shutil.rmtree(CACHE / "broker", ignore_errors=True)
        else:
            running = answers(broker.bootstrap)
            print(f"{broker.bootstrap} {'answers' if running else 'does not answer'}")
            return 0 if running else 3
    except BrokerError as error:
        print(f"kafka: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
