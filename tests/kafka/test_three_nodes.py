"""Nodes die, freeze, restart and hand over; what is published does not show it.

Three real nodes, the real service under a supervisor, input written meanwhile. Each test names
the faults of the list in FAULTS.md that it stands for, and prints a line of figures. One universe
has fits, one has matrices in chunks.
"""

import asyncio
import signal
import struct
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Protocol

import pytest

from stream_calib.adapters.kafka.commits import COMMIT_S
from tests.kafka.proxy import END_TXN, FETCH, Exchange, Fault, counted, delay
from tests.kafka.storm import BY_CLOCK, CHUNKED, FITTED, PLAIN, Figures, Make, Scene, for_a_while
from tests.kafka.three import Three

pytestmark = pytest.mark.chaos

BEFORE_S = 3.0  # of quiet, in which it publishes
ALL_DOWN_S = 120.0
MAY_RESTART = 5  # from the journal, within a life: no fault here but one has more than two
TRANSACTION_S = 15.0  # the default of `delivery.transaction_timeout`
UNREAD_S = 10.0  # longer than the 5 s of event time for which a silent partition is waited for


@pytest.fixture
def random(chaos_seed: int) -> Random:
    return Random(chaos_seed)


Trouble = Callable[[Scene], Awaitable[None]]


class Through(Protocol):
    async def __call__(
        self,
        name: str,
        seconds: float,
        trouble: Trouble,
        make: Make = PLAIN,
        may_restart: int = MAY_RESTART,
    ) -> Figures: ...


@pytest.fixture
def through(
    three: Three, tmp_path: Path, chaos_seed: int, capsys: pytest.CaptureFixture[str]
) -> Through:
    """Return what runs a service through some trouble, holds it against truth and says so.

    It never ends by itself meanwhile.
    """

    async def run(
        name: str,
        seconds: float,
        trouble: Trouble,
        make: Make = PLAIN,
        may_restart: int = MAY_RESTART,
    ) -> Figures:
        scene = await Scene.create(three, tmp_path, chaos_seed, seconds, make)
        figures = await scene.through(name, chaos_seed, seconds, trouble, may_restart=may_restart)
        with capsys.disabled():
            figures.tell()
        return figures

    return run


async def journal_leader(scene: Scene) -> int:
    return await asyncio.to_thread(scene.three.leader, f"{scene.victim.prefix}.journal")


async def test_f28_each_node_is_killed_and_started_again(through: Through) -> None:
    async def trouble(scene: Scene) -> None:
        nodes = scene.three.cluster.nodes
        await asyncio.sleep(BEFORE_S)
        for turn in (*nodes, 0):  # the last time whichever leads the journal
            node = nodes[turn or await journal_leader(scene)]
            assert node.pid is not None
            await asyncio.to_thread(node.kill)
            scene.faults["node killed"] += 1
            await asyncio.sleep(6.0)  # others lead, and lead for a while
            await asyncio.to_thread(node.start)
            await asyncio.to_thread(scene.three.cluster.wait_until_whole, scene.topics)

    figures = await through("F28 node killed, started again", 60.0, trouble, FITTED)
    assert figures.fits > 0


async def test_f29_each_node_is_restarted_in_good_order(through: Through) -> None:
    async def trouble(scene: Scene) -> None:
        await asyncio.sleep(BEFORE_S)
        for node in scene.three.cluster.nodes.values():
            assert node.pid is not None
            assert await asyncio.to_thread(node.stop)  # it was not killed
            await asyncio.to_thread(node.start)
            scene.faults["node restarted"] += 1
            await asyncio.to_thread(scene.three.cluster.wait_until_whole, scene.topics)

    await through("F29 node restarted", 45.0, trouble)


async def test_f30_all_nodes_are_down_for_two_minutes(through: Through) -> None:
    async def trouble(scene: Scene) -> None:
        await asyncio.sleep(BEFORE_S)
        await asyncio.to_thread(scene.three.cluster.kill)
        scene.faults["all nodes down"] += 1
        await asyncio.sleep(ALL_DOWN_S)
        await asyncio.to_thread(scene.three.cluster.start)
        await asyncio.to_thread(scene.three.cluster.wait_until_whole, scene.topics)

    # it tries again every few seconds
    await through("F30 all nodes down for two minutes", 150.0, trouble, may_restart=60)


@pytest.mark.parametrize(("every_s", "make"), [(0.15, PLAIN), (3.0, CHUNKED)])
async def test_f31_leaders_move_all_the_time(
    through: Through, random: Random, every_s: float, make: Make
) -> None:
    async def trouble(scene: Scene) -> None:
        own = [topic for topic in scene.topics if not topic.startswith("__")]
        moved: Counter[str] = Counter()

        def move() -> None:
            for topic in random.sample(own, 1) if every_s < 1.0 else own:
                moved[topic] += scene.three.move_leaders([topic], random)

        await for_a_while(30.0, every_s, move)
        scene.faults["leader moved"] += moved.total()
        # 199 and 60 were counted on two cores; a slow machine asks for fewer
        assert moved.total() > (100 if every_s < 1.0 else 40), moved
        assert moved[f"{scene.victim.prefix}.journal"] > 0, moved

    figures = await through(f"F31 leaders moved every {every_s:g} s", 30.0, trouble, make)
    assert make is not CHUNKED or figures.chunks[2] > 10


async def test_f31_partition_of_which_the_leader_is_away_is_waited_for(
    through: Through, random: Random
) -> None:
    async def trouble(scene: Scene) -> None:
        three, (topic,) = scene.three, scene.victim.topics

        def move() -> None:
            scene.faults["leader moved"] += three.move_leaders([topic], random)

        async def hold(partition: int) -> None:
            while await asyncio.to_thread(three.leader, topic, 1 - partition) == (
                node := await asyncio.to_thread(three.leader, topic, partition)
            ):
                await asyncio.to_thread(move)
            until_s, held = time.monotonic() + UNREAD_S, scene.faults["fetch held"]

            def unread(exchange: Exchange) -> Fault | None:
                left_s = until_s - time.monotonic()
                if exchange.api != FETCH or left_s <= 0.0:
                    return None
                return counted(delay(left_s), scene.faults, "fetch held")

            three.chance_at(node, unread)  # what is written there is taken as ever
            await asyncio.sleep(UNREAD_S + 1.0)
            assert scene.faults["fetch held"] > held

        await for_a_while(8.0, 1.0, move)
        for partition in (1, 0):
            await hold(partition)

    figures = await through("F31 one leader not heard of", 34.0, trouble, BY_CLOCK)
    assert figures.late == 0


async def test_f32_coordinators_of_groups_and_transactions_move(through: Through) -> None:
    async def trouble(scene: Scene) -> None:
        moved: Counter[str] = Counter()
        await for_a_while(30.0, 1.0, lambda: moved.update(scene.move_coordinators()))
        for what in ("positions", "owners", "transactions"):
            scene.faults[f"coordinator of {what} moved"] = moved[what]
            assert moved[what] > 20, moved  # of 30 turns, which are fewer on a slow machine

    await through("F32 coordinators moved every second", 30.0, trouble)


async def test_f28_node_that_leads_the_journal_is_frozen(through: Through) -> None:
    scenes: list[Scene] = []

    async def trouble(scene: Scene) -> None:
        scenes.append(scene)
        await asyncio.sleep(BEFORE_S)
        for seconds in (1.0, 12.0):  # shorter and longer than a commit may take
            leader = await journal_leader(scene)
            node = scene.three.cluster.nodes[leader]
            node.pause()
            scene.faults["node frozen"] += 1
            await asyncio.sleep(seconds)
            if seconds > COMMIT_S:
                assert await journal_leader(scene) != leader
            node.resume()
            await asyncio.to_thread(scene.three.cluster.wait_until_whole, scene.topics)

    await through("F28 node frozen", 30.0, trouble)
    service = scenes[0].service
    assert service is not None
    again = [said for said in service.log if said["event"] == "starting over from the journal"]
    assert any("while committing" in str(said["reason"]) for said in again), again


async def test_f36_service_is_frozen_beyond_its_transaction_timeout(through: Through) -> None:
    async def trouble(scene: Scene) -> None:
        service = scene.service
        assert service is not None
        frozen, released, answered = threading.Event(), threading.Event(), threading.Event()
        errors: list[int] = []

        async def end_late(exchange: Exchange) -> None:
            assert service.send(signal.SIGSTOP) is not None
            frozen.set()
            while not released.is_set():  # noqa: ASYNC110  set in another loop
                await asyncio.sleep(0.05)
            answer = await exchange.apply()
            exchange.reply(answer)
            errors.append(struct.unpack_from(">h", answer, 8)[0])
            answered.set()

        await asyncio.sleep(BEFORE_S)
        scene.three.inject(END_TXN, end_late)
        assert await asyncio.to_thread(frozen.wait, 60.0)  # there is a commit each 200 ms
        scene.faults["service frozen"] += 1
        await asyncio.sleep(TRANSACTION_S + 5.0)
        released.set()
        assert await asyncio.to_thread(answered.wait, 60.0)
        # there was nothing to commit any more, and nobody but the broker can have seen to that
        (error,) = errors
        assert error != 0
        scene.faults["transaction timed out"] += 1
        service.send(signal.SIGCONT)
        await asyncio.sleep(BEFORE_S)
        assert service.send(signal.SIGSTOP) is not None
        scene.faults["service frozen"] += 1
        await asyncio.sleep(2.0)
        service.send(signal.SIGCONT)

    figures = await through("F36 service frozen beyond its transaction's time", 35.0, trouble)
    assert figures.restarts > 0
