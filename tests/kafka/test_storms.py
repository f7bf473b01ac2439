"""Faults of every kind at random times on three nodes, repeated by ``CHAOS_SEED``.

The seed decides which faults come, in which order, for how long, and with what pauses. When a
request meets one of them is the machine's affair.
"""

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from random import Random

import pytest

from tests.kafka import proxy as faults
from tests.kafka.answers import PASSING, PASSING_TO_READERS, refuse
from tests.kafka.proxy import (
    ADD_PARTITIONS,
    END_TXN,
    FETCH,
    INIT_PRODUCER_ID,
    OFFSET_COMMIT,
    PRODUCE,
    Exchange,
    Fault,
)
from tests.kafka.storm import CHUNKED, FITTED, PLAIN, Scene
from tests.kafka.three import Three

pytestmark = pytest.mark.chaos

KILLED = "service killed"
WAITING = {"cut before", "cut after", "end sent twice", "end late"}  # for a request
PAUSES_S = (0.2, 2.0)
WRITES = (PRODUCE, ADD_PARTITIONS, END_TXN, INIT_PRODUCER_ID, OFFSET_COMMIT)
STORMS = ((PLAIN, 120.0), (FITTED, 120.0), (PLAIN, 100.0), (CHUNKED, 40.0))
LONG_S = 100.0  # of this, a deck takes about half on two cores
# While the nodes are away no start succeeds, and the next one comes after half a second. That one
# of the service's own fences it for good, or that its watchdog has to end it, was never seen.
MAY_END = {5: 40}
MAY_RESTART = 60  # tried again and again while nodes are away


class Storm:
    """Breaks things, one after the other, as the seed has it.

    What is counted has happened: a process that was there, a leader that leads, a request that
    was met. Kills of the service are counted by how its processes ended.

    Attributes
    ----------
    decks
        How many were drawn to their end; every kind is in each.
    """

    def __init__(self, scene: Scene, seed: int) -> None:
        self._scene = scene
        self._three = scene.three
        self._random = Random(seed)
        self._within = Random(seed + 1)  # which requests are met, asked for in another thread
        self._is_over = True
        self.decks = 0
        # each with how often it is among the cards of a deck
        self._kinds: dict[str, tuple[int, Callable[[], Awaitable[int]]]] = {
            "node killed": (1, self._kill_node),
            "node frozen": (1, self._freeze_node),
            "leader moved": (2, self._move_leaders),
            "coordinator moved": (1, self._move_coordinators),
            "all connections cut": (1, self._hang_up),
            "requests delayed": (1, self._delay),
            "requests refused": (1, lambda: self._refuse(PASSING)),
            "reads refused": (1, lambda: self._refuse(PASSING_TO_READERS)),
            "cut before": (1, lambda: self._once("cut before", faults.cut_before)),
            "cut after": (1, lambda: self._once("cut after", faults.cut_after)),
            "end sent twice": (1, lambda: self._once("end sent twice", faults.repeat, END_TXN)),
            "end late": (1, lambda: self._once("end late", faults.delay(10.0), END_TXN)),
            KILLED: (2, self._kill_service),
            "service frozen": (1, self._freeze_service),
        }

    async def rage(self, seconds: float) -> None:
        """Draw from decks in which every kind is, each in an order of its own."""
        clock = asyncio.get_running_loop().time
        begun_s = clock()
        names = list(self._kinds)
        n_cards = [n for n, _ in self._kinds.values()]
        self._is_over = False
        try:
            while True:
                for name in self._random.sample(names, sum(n_cards), counts=n_cards):
                    if clock() - begun_s > seconds:
                        return
                    if n := await self._kinds[name][1]():
                        self._scene.faults[name] += n
                    await asyncio.sleep(self._random.uniform(*PAUSES_S))
                self.decks += 1
        finally:
            self._is_over = True

    def assert_every_kind_was_met(self) -> None:
        """Hold what has happened against the decks that were drawn to their end.

        In one deck alone a fault may wait in vain for its request, such as one of a start.
        """
        service = self._scene.service
        assert service is not None
        met = self._scene.faults + Counter({KILLED: service.killed})
        missed = self._kinds.keys() - met.keys()
        assert self.decks < 1 or missed <= WAITING, (self.decks, missed)
        assert self.decks < 2 or not missed, (self.decks, missed)

    async def _kill_node(self) -> int:
        node = self._three.cluster.nodes[self._random.choice([1, 2, 3])]
        was_there = node.pid is not None
        await asyncio.to_thread(node.kill)
        await asyncio.sleep(self._random.uniform(0.0, 8.0))
        await asyncio.to_thread(node.start)
        return was_there

    async def _freeze_node(self) -> int:
        node = self._three.cluster.nodes[self._random.choice([1, 2, 3])]
        was_there = node.pid is not None
        node.pause()
        try:
            await asyncio.sleep(self._random.choice([0.3, 2.0, 10.0]))
        finally:
            node.resume()
        return was_there

    async def _move_leaders(self) -> int:
        topics = self._random.sample(self._scene.topics, 4)
        return await asyncio.to_thread(self._three.move_leaders, topics, self._random)

    async def _move_coordinators(self) -> int:
        return (await asyncio.to_thread(self._scene.move_coordinators)).total()

    async def _hang_up(self) -> int:
        return self._three.hang_up() > 0

    async def _delay(self) -> int:
        longest_s = self._random.choice([0.1, 1.0])
        return await self._for_a_while(
            lambda _exchange: faults.delay(self._within.uniform(0.0, longest_s)), 0.3
        )

    async def _refuse(self, with_codes: Mapping[int, Sequence[int]]) -> int:
        def choose(exchange: Exchange) -> Fault | None:
            codes = with_codes.get(exchange.api)
            return refuse(self._within.choice(codes)) if codes else None

        return await self._for_a_while(choose, 0.5)

    async def _for_a_while(self, choose: Callable[[Exchange], Fault | None], share: float) -> int:
        # One fault, however many requests meet it; none if none does.
        met: Counter[str] = Counter()

        def sometimes(exchange: Exchange) -> Fault | None:
            fault = choose(exchange) if self._within.random() < share else None
            return None if fault is None else faults.counted(fault, met, "met")

        self._three.chance(sometimes)
        await asyncio.sleep(self._random.uniform(0.5, 4.0))
        self._three.chance(lambda _exchange: None)
        return met.total() > 0

    async def _once(self, name: str, fault: Fault, *apis: int) -> int:
        api = self._random.choice(apis or (*WRITES, FETCH))
        counted = faults.counted(fault, self._scene.faults, name)

        async def until_done(exchange: Exchange) -> None:
            try:
                await counted(exchange)
            except (OSError, asyncio.CancelledError):  # its node has died of something else
                if not self._is_over:
                    self._three.again(api, until_done)
                raise

        self._three.inject(api, until_done)
        return 0  # it is counted when a request meets it, if ever

    async def _kill_service(self) -> int:
        assert self._scene.service is not None
        self._scene.service.send(signal.SIGKILL)
        return 0

    async def _freeze_service(self) -> int:
        service = self._scene.service
        assert service is not None
        frozen = service.send(signal.SIGSTOP)
        await asyncio.sleep(self._random.choice([1.0, 5.0, 20.0]))
        service.send(signal.SIGCONT)
        return frozen is not None


@pytest.mark.parametrize("number", range(len(STORMS)))
async def test_storm_of_faults_of_every_kind_does_not_show(
    three: Three,
    tmp_path: Path,
    chaos_seed: int,
    number: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seed, (make, seconds) = chaos_seed + 1000 * number, STORMS[number]
    scene = await Scene.create(three, tmp_path, seed, seconds, make)
    storm = Storm(scene, seed)
    with capsys.disabled():
        sys.stdout.write(f"\nstorm {number}: CHAOS_SEED={chaos_seed}\n")
    figures = await scene.through(
        f"storm {number}",
        chaos_seed,
        seconds,
        lambda _scene: storm.rage(seconds),
        MAY_END,
        MAY_RESTART,
    )
    with capsys.disabled():
        figures.tell()
    assert (figures.fits > 0) == (make is FITTED)
    assert make is not CHUNKED or figures.chunks[2] > 10
    storm.assert_every_kind_was_met()
    assert storm.decks > 0 or seconds < LONG_S, figures.faults
