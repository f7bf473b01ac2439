"""Three real nodes, with a proxy in front of each that clients are sent to."""

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

from deploy.kafka.cluster import LocalCluster
from deploy.kafka.leadership import AdminError, Administrator, another
from stream_calib.adapters.kafka import KafkaSink, TopicSpec, ensure_topics
from stream_calib.config import KafkaConfig
from stream_calib.errors import TransportError
from stream_calib.values import Output
from tests.kafka.proxy import Exchange, Fault, KafkaProxy

REPLICATION = 3
WARM_UP_S = 120.0


class Three:
    """The nodes and their proxies, which run in a thread: a test may block.

    Parameters
    ----------
    cluster
        Nodes that advertise the ports of the proxies.
    ports
        Those ports, by node.
    """

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.proxies: dict[int, KafkaProxy] = {}
        self._waiting: dict[int, list[Fault]] = {}
        self._choose: Callable[[Exchange], Fault | None] = lambda _exchange: None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @classmethod
    def create(cls, folder: Path) -> "Three":
        """Return nodes that are not started, each with a port of its own for its proxy."""
        from deploy.kafka.broker import free_port

        ports: set[int] = set()
        while len(ports) < REPLICATION:
            ports.add(free_port())
        return cls(LocalCluster(folder, advertised=sorted(ports)))

    @property
    def bootstrap(self) -> str:
        return self.cluster.bootstrap

    def __enter__(self) -> Self:
        self.cluster.start()
        self._thread.start()
        for k, node in self.cluster.nodes.items():
            port = int(self.cluster.advertised[k].rpartition(":")[2])
            proxy = KafkaProxy(port, int(node.bootstrap.rpartition(":")[2]))
            proxy.chance = self._next
            self.proxies[k] = proxy
            asyncio.run_coroutine_threadsafe(proxy.__aenter__(), self._loop).result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            for proxy in self.proxies.values():
                ending = proxy.__aexit__(kind, error, traceback)
                asyncio.run_coroutine_threadsafe(ending, self._loop).result()
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self.cluster.kill()  # its data is of no use to anybody

    def heal(self) -> None:
        """Let everything run and pass; what still waits for a request will never meet one."""
        self.chance(lambda _exchange: None)
        self._call(self._waiting.clear)
        for proxy in self.proxies.values():
            proxy.chance = self._next
        for node in self.cluster.nodes.values():
            node.resume()
        self.cluster.start()

    def inject(self, api: int, *faults: Fault) -> None:
        """Let these faults at the next requests of a kind, whichever node they are for."""
        self._call(lambda: self._waiting.setdefault(api, []).extend(faults))

    def again(self, api: int, fault: Fault) -> None:
        """Let a fault that could not be done at the next request; called by the fault itself."""
        self._waiting.setdefault(api, []).append(fault)

    def waiting(self) -> int:
        """How many faults still wait for a request."""
        return sum(map(len, self._waiting.values()))

    def chance(self, choose: Callable[[Exchange], Fault | None]) -> None:
        """Have this asked for a fault at every request for which none waits."""
        self._choose = choose

    def chance_at(self, node: int, choose: Callable[[Exchange], Fault | None]) -> None:
        """Have this asked instead at every request for one node, until all is healed."""
        self.proxies[node].chance = choose

    def hang_up(self) -> int:
        """Cut all connections; return how many there were."""
        cut = 0

        def hang_up_all() -> None:
            nonlocal cut
            cut = sum(proxy.hang_up() for proxy in self.proxies.values())

        self._call(hang_up_all)
        return cut

    def taken_failures(self) -> list[BaseException]:
        """Return what connections have died of since the last call, other than being cut."""
        found = [failure for proxy in self.proxies.values() for failure in proxy.failures]
        for proxy in self.proxies.values():
            proxy.failures.clear()
        return found

    def seen(self, api: int) -> int:
        """How many requests of a kind have passed."""
        return sum(proxy.seen.count(api) for proxy in self.proxies.values())

    def move_leaders(self, topics: Sequence[str], random: Random) -> int:
        """Move one partition of each topic to another node in sync; return how many moved."""
        moved = 0
        with self.cluster.administrator() as admin:
            for topic in topics:
                with contextlib.suppress(AdminError):
                    places = admin.places(topic)
                    if places:
                        moved += _move(admin, topic, random.choice(sorted(places)))
        return moved

    def move_coordinators(
        self, groups: Mapping[str, str], transactional_ids: Mapping[str, str]
    ) -> Counter[str]:
        """Move who coordinates groups and the transactions of producers.

        Parameters
        ----------
        groups, transactional_ids
            Theirs, each under a name for it.

        Returns
        -------
        Counter
            Which moved, by that name.
        """
        moved: Counter[str] = Counter()
        with self.cluster.administrator() as admin:
            for ask, which in (
                (admin.coordinator_of_group, groups),
                (admin.coordinator_of_transactions, transactional_ids),
            ):
                for name, key in which.items():
                    with contextlib.suppress(AdminError):
                        moved[name] += _move(admin, *ask(key))
        return moved

    def leader(self, topic: str, partition: int = 0) -> int:
        """Return the node that leads a partition."""
        with self.cluster.administrator() as admin:
            return admin.places(topic)[partition].leader

    def _next(self, exchange: Exchange) -> Fault | None:
        waiting = self._waiting.get(exchange.api)
        return waiting.pop(0) if waiting else self._choose(exchange)

    def _call(self, work: Callable[[], object]) -> None:
        done: Future[object] = Future()
        self._loop.call_soon_threadsafe(lambda: done.set_result(work()))
        done.result()


def _move(admin: Administrator, topic: str, partition: int) -> bool:
    place = admin.places(topic).get(partition)
    node = None if place is None else another(place)
    return node is not None and admin.move_leader(topic, partition, node)


async def feed(
    bootstrap: str, topic: str, rows: Sequence[Sequence[bytes]], seconds: float
) -> list[int]:
    """Write rows into the partitions of a topic, evenly over so many seconds, come what may.

    Returns
    -------
    ends
        How many records each partition holds. After an answer that was lost some may be there
        twice: what counts is what is in the log.
    """
    config = KafkaConfig(bootstrap_servers=bootstrap)
    clock = asyncio.get_running_loop().time
    begun_s, sent = clock(), [0] * len(rows)
    sink = KafkaSink(config)
    try:
        while any(n < len(own) for n, own in zip(sent, rows, strict=True)):
            share = min(1.0, (clock() - begun_s) / seconds) if seconds else 1.0
            due = [int(share * len(own)) for own in rows]
            batch = [
                Output(topic, p, b"", value, ())
                for p, own in enumerate(rows)
                for value in own[sent[p] : min(due[p], sent[p] + 2000)]
            ]
            try:
                await sink.publish(batch)
            except TransportError:
                await sink.close()
                await asyncio.sleep(0.5)
                sent = await _written(config, topic, sent)
                continue
            for output in batch:
                sent[output.partition] += 1
            await asyncio.sleep(0.05)
    finally:
        await sink.close()
    return sent


async def _written(config: KafkaConfig, topic: str, sent: Sequence[int]) -> list[int]:
    from stream_calib.adapters.kafka import KafkaSource
    from stream_calib.values import Source

    source = KafkaSource(config, [topic])
    try:
        await source.start()
        bounds = await source.bounds([Source(topic, p) for p in range(len(sent))])
    except TransportError:
        return list(sent)
    finally:
        await source.close()
    return [max(n, bounds[Source(topic, p)][1]) for p, n in enumerate(sent)]


async def warm_up(bootstrap: str) -> None:
    """Return when topics of three replicas can be made."""
    async with asyncio.timeout(WARM_UP_S):
        while True:
            with contextlib.suppress(TransportError):
                await ensure_topics(
                    KafkaConfig(bootstrap_servers=bootstrap), [TopicSpec("warm", 1, REPLICATION)]
                )
                return
            await asyncio.sleep(0.2)
