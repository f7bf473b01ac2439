"""Several processes share a universe that moves, dies and freezes: one output, as of one."""

from random import Random

import pytest

from tests.simulation import clock
from tests.simulation.broker import Faults
from tests.simulation.test_crashes import draw_faults
from tests.simulation.world import World, make_input

N_SCHEDULES = 12  # make test-full runs a thousand
N_FULL = 1_000


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Seed of the first schedule; the one that fails is in the assertion."""
    return Random(request.config.getoption("randomly_seed", 0)).getrandbits(48)


def check(seed: int) -> World:
    """Bytes do not depend on who wrote them, how often that changed, or who believed what."""
    random = Random(seed)
    n_partitions = random.randint(1, 3)
    rows = make_input(random, n_partitions)
    good = World(Random(seed + 1), Faults(), rows, n_partitions)
    expected = clock.run(good.run()).published()
    faults = draw_faults(random)
    faults.stalled = 0.0 if seed % 3 else 0.3
    world = World(random, faults, rows, n_partitions, damage=False)
    if faults.stalled:  # a standby that takes over reads no snapshot
        own = world.config.ownership.model_copy(update={"standby": "never"})
        world.config = world.config.model_copy(update={"ownership": own})
    clock.run(world.share(random.randint(2, 4)))
    assert world.published() == expected, f"seed {seed}"
    assert clock.run(world.repeated()) == expected, f"seed {seed}"
    return world


def test_workers_that_lose_and_gain_a_universe_publish_what_one_would(seed: int) -> None:
    worlds = [check(seed + k) for k in range(N_SCHEDULES)]
    assert sum(world.group.moves for world in worlds) > 3 * len(worlds)
    assert sum(world.group.frozen for world in worlds) > 0
    assert sum(world.broker.refused for world in worlds) > 0  # in the middle of a commit
    assert sum(world.roles["owner"] for world in worlds) > 2 * len(worlds)
    following = [world for world in worlds if not world.faults.stalled]
    assert sum(world.roles["standby"] for world in following) > 2 * len(following)


@pytest.mark.full
def test_the_same_over_more_schedules(seed: int) -> None:
    for k in range(N_FULL):
        check(seed + N_SCHEDULES + k)
