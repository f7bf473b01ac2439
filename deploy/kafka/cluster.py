"""Three real nodes of Apache Kafka on this machine, without Docker.

    python3 -m deploy.kafka.cluster start|stop|status

Each is broker and controller at once, so that any one of them may die: every topic has three
replicas, of which two acknowledge a write, and two of three controllers elect. ``KAFKA_PORT`` is
the first of three ports in a row, 9092 by default. The last line printed by ``start`` is the
bootstrap address.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.kafka.broker import (
    BRIEF,
    DEFAULT_PORT,
    HOST,
    START_DEADLINE_S,
    LocalBroker,
    answers,
    free_port,
    random_cluster_id,
)
from deploy.kafka.jars import CACHE, BrokerError
from deploy.kafka.leadership import AdminError, Administrator

N_NODES = 3
SHARED_NODE = {
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,BROKERS:PLAINTEXT,CONTROLLER:PLAINTEXT",
    # What nodes say to each other never passes what stands in front of the clients' addresses.
    "inter.broker.listener.name": "BROKERS",
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "unclean.leader.election.enable": "false",
    # Leaders move when a test says so.
    "auto.leader.rebalance.enable": "false",
    # A replica that was away or frozen is dropped and let in again within seconds.
    "replica.lag.time.max.ms": "5000",
    "replica.fetch.wait.max.ms": "100",
    "replica.fetch.backoff.ms": "200",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "log.cleaner.dedupe.buffer.size": str(8 * 2**20),
}
MEMORY = ("-Xmx320m", "-Xms64m")


class LocalCluster:
    """Three Kafka nodes, whose whole life is in one folder, with a folder for each inside.

    Parameters
    ----------
    data_dir
        The folder; created when missing. The same folder again is the same cluster, on the same
        ports, also from another process.
    ports
        Ports for clients on the loopback address; free ones by default.
    advertised
        Ports that clients are told instead, where something stands in front of each node.
    settings
        Further lines of every node's ``server.properties``, which win over the ones written here.
    java_options
        Further options of the virtual machines.

    Attributes
    ----------
    nodes
        The nodes by id, from 1 on.
    advertised
        The addresses that clients are told, by node.
    """

    def __init__(
        self,
        data_dir: Path,
        ports: Sequence[int] = (),
        advertised: Sequence[int] = (),
        settings: Mapping[str, str] | None = None,
        java_options: Sequence[str] = BRIEF,
    ) -> None:
        self._dir = data_dir.resolve()
        self._id, self._ports = self._kept(ports, advertised)
        kept = self._ports
        self.advertised = {k: f"{HOST}:{port}" for k, port in enumerate(kept["advertised"], 1)}
        voters = ",".join(f"{k}@{HOST}:{p}" for k, p in enumerate(kept["controllers"], 1))
        self.nodes: dict[int, LocalBroker] = {}
        for k, port in enumerate(kept["clients"], 1):
            own = {
                "node.id": str(k),
                "controller.quorum.voters": voters,
                "listeners": f"PLAINTEXT://{HOST}:{port},BROKERS://{HOST}:{kept['brokers'][k - 1]},"
                f"CONTROLLER://{HOST}:{kept['controllers'][k - 1]}",
                "advertised.listeners": f"PLAINTEXT://{self.advertised[k]},"
                f"BROKERS://{HOST}:{kept['brokers'][k - 1]}",
            }
            self.nodes[k] = LocalBroker(
                self._dir / str(k),
                port,
                SHARED_NODE | own | dict(settings or {}),
                (*MEMORY, *java_options),
                self._id,
            )

    @property
    def bootstrap(self) -> str:
        """Addresses for clients, ``host:port,host:port,host:port``."""
        return ",".join(self.advertised.values())

    @property
    def direct(self) -> str:
        """Addresses of the nodes themselves, whatever stands in front of them."""
        return ",".join(node.bootstrap for node in self.nodes.values())

    def start(self) -> None:
        """Start all nodes that do not run, and return once all are members.

        Raises
        ------
        UnavailableError
            Java or Kafka's jars cannot be had here.
        BrokerError
            A port is taken, or a node does not come up.
        """
        self._keep()
        with ThreadPoolExecutor(N_NODES) as threads:
            list(threads.map(LocalBroker.launch, self.nodes.values()))
        for node in self.nodes.values():
            node.wait_until_it_answers()

    def stop(self) -> None:
        """Shut the nodes down in good order as far as that goes; their data stays."""
        *others, last = self.nodes.values()
        for node in others:
            node.resume()
            node.stop()
        last.kill()  # alone it would wait for somebody to hand its partitions to

    def kill(self) -> None:
        """End all nodes with SIGKILL; their data stays."""
        for node in self.nodes.values():
            node.kill()

    def administrator(self) -> Administrator:
        """Return who asks the nodes, past whatever stands in front of them."""
        return Administrator(self.direct)

    def wait_until_whole(self, topics: Sequence[str], deadline_s: float = START_DEADLINE_S) -> None:
        """Return once every replica of these topics is in sync and every partition is led.

        Raises
        ------
        BrokerError
            They are not in time.
        """
        until_s = time.monotonic() + deadline_s
        with self.administrator() as admin:
            while time.monotonic() < until_s:
                try:
                    places = [p for topic in topics for p in admin.places(topic).values()]
                except AdminError:
                    places = []
                if places and all(
                    p.leader > 0 and len(p.in_sync) == len(p.replicas) for p in places
                ):
                    return
                time.sleep(0.1)
        raise BrokerError(f"Not every replica came back in sync within {deadline_s:g} s.")

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

    def _kept(
        self, ports: Sequence[int], advertised: Sequence[int]
    ) -> tuple[str, dict[str, list[int]]]:
        # What another process, or the next start, has to find again: the id, ports by their use.
        file = self._dir / "cluster.json"
        if file.exists():
            cluster_id, kept = json.loads(file.read_text())
            if ports and list(ports) != kept["clients"]:
                raise BrokerError(f"The cluster of {self._dir} is on other ports; stop it first.")
            return cluster_id, kept
        taken: set[int] = set(ports) | set(advertised)

        def free() -> list[int]:
            found: list[int] = []
            while len(found) < N_NODES:
                port = free_port()
                if port not in taken:
                    found.append(port)
                    taken.add(port)
            return found

        clients = list(ports) or free()
        kept = {
            "clients": clients,
            "advertised": list(advertised) or clients,
            "brokers": free(),
            "controllers": free(),
        }
        return random_cluster_id(), kept

    def _keep(self) -> None:
        self._dir.mkdir(parents=True, exist_ok=True)
        (self._dir / "cluster.json").write_text(json.dumps([self._id, self._ports]))


def main() -> int:
    """Run one verb; return the exit code."""
    parser = argparse.ArgumentParser(description="Three real local Kafka nodes without Docker.")
    parser.add_argument("verb", choices=["start", "stop", "status"])
    verb = parser.parse_args().verb
    folder, first = CACHE / "cluster", int(os.environ.get("KAFKA_PORT") or DEFAULT_PORT)
    try:
        # whichever runs there is stopped
        cluster = LocalCluster(folder, () if verb == "stop" else range(first, first + N_NODES))
        if verb == "start":
            cluster.start()
            print(cluster.bootstrap)
        elif verb == "stop":
            cluster.stop()
            shutil.rmtree(folder, ignore_errors=True)
        else:
            running = [answers(node.bootstrap) for node in cluster.nodes.values()]
            for node, there in zip(cluster.nodes.values(), running, strict=True):
                print(f"{node.bootstrap} {'answers' if there else 'does not answer'}")
            return 0 if all(running) else 3
    except BrokerError as error:
        print(f"kafka: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
