"""Kill -9 of the service on three nodes, of which the leaders move meanwhile: the same bytes."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from tests.kafka import test_kills_in_fits
from tests.kafka.killing import Victim, tell
from tests.kafka.storm import for_a_while
from tests.kafka.test_kills import (
    KILLS_WHILE_RECOVERING,
    POINTS,
    World,
    kill_at_every_point,
    kill_while_recovering,
)
from tests.kafka.three import REPLICATION, Three

pytestmark = pytest.mark.chaos

WORLDS, VICTIMS, AT_ANY_TIME = 3, 5, 5
MOVE_EVERY_S = 3.0
MOVED = "leaders moved"


@contextlib.asynccontextmanager
async def moving(
    three: Three, prefix: str, random: Random, faults: Counter[str]
) -> AsyncIterator[None]:
    """Move the leaders of all that a service writes, every few seconds; count those that moved."""
    topics = [f"{prefix}.{role}" for role in ("correlations", "events", "journal", "rejects")]
    topics.append("__transaction_state")

    def move() -> None:
        faults[MOVED] += three.move_leaders(topics, random)

    task = asyncio.create_task(for_a_while(3600.0, MOVE_EVERY_S, move))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled(), task.exception()  # it has moved to the end


async def kills_in_fits(three: Three, folder: Path, random: Random, faults: Counter[str]) -> Victim:
    """Kill one in the middle of its fits too; its calibrations are compared as well."""
    seed = random.getrandbits(32)
    victim = await test_kills_in_fits.world(
        three.bootstrap, folder, seed, "wait", 300.0, REPLICATION
    )
    roles = test_kills_in_fits.ROLES
    expected = await test_kills_in_fits.left_alone(victim, folder)
    async with moving(three, victim.prefix, Random(seed), faults):
        points = test_kills_in_fits.POINTS
        await asyncio.to_thread(test_kills_in_fits.kill_in_fits, victim, random, points)
        assert await victim.finish(expected, roles=roles) == expected, f"seed {seed}"
    assert await victim.repeated(roles) == expected, f"seed {seed}"
    return victim


@pytest.mark.parametrize("number", range(WORLDS))
async def test_killed_over_a_hundred_times_on_three_nodes_it_publishes_the_same_bytes(
    three: Three,
    tmp_path: Path,
    chaos_seed: int,
    number: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    random = Random(chaos_seed + number)
    seed = random.getrandbits(32)
    world = await World.create(three.bootstrap, tmp_path / "alone", seed, REPLICATION)
    seconds: list[float] = []
    kills = at_work = half = compared = 0
    faults = Counter[str]()
    for k in range(VICTIMS):
        victim = await world.victim(tmp_path / str(k))
        async with moving(three, victim.prefix, Random(seed + k), faults):
            await asyncio.to_thread(kill_at_every_point, victim, random)
            await asyncio.to_thread(kill_while_recovering, victim, random, 1.5)
            for turn in range(AT_ANY_TIME):
                if turn % 2:
                    await asyncio.to_thread(victim.killed_at_work, random.uniform(0.0, 0.5))
                else:
                    await asyncio.to_thread(victim.killed_after, random.uniform(0.1, 2.0))
            assert await victim.finish(world.expected) == world.expected, f"seed {chaos_seed}"
        assert await world.all_is_noted(victim), f"seed {chaos_seed}"
        assert await victim.repeated() == world.expected, f"seed {chaos_seed}"
        at_work, half = at_work + victim.kills_at_work, half + victim.half_written
        seconds += victim.recovery_s
        kills, compared = kills + victim.kills, compared + victim.states_compared
    fitted = await kills_in_fits(three, tmp_path / "fits", random, faults)
    with capsys.disabled():
        figures = {
            "kills": kills + fitted.kills,
            "kills_at_work": at_work,
            "half_written": half,
            "states": compared + fitted.states_compared,
            "faults": dict(faults),
            "recovery_s": seconds + fitted.recovery_s,
        }
        tell(f"kills on three nodes {number}", chaos_seed, **figures)
    assert faults[MOVED] > 0
    assert compared >= VICTIMS
    assert kills >= VICTIMS * (len(POINTS) + KILLS_WHILE_RECOVERING + AT_ANY_TIME)
    assert at_work >= VICTIMS
    assert half >= VICTIMS
