"""Kill -9 at every named point and at any time: the same bytes on the output topics.

``make chaos`` runs the long form and prints the table that the README shows.
"""

import asyncio
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from tests.kafka.killing import Published, Victim, ticks_in

POINTS = (
    "own",
    "restore",
    "begin",
    "output",
    "flush",
    "journal",
    "end_txn",
    "commit",
    "snapshot_write",
    "snapshot_written",
    "snapshot_renamed",
    "snapshot_saved",
)
DURING_RECOVERY = ("own", "restore", "begin")
CHAOS_ROUNDS = 6


@pytest.fixture
def random(request: pytest.FixtureRequest) -> Random:
    seed = request.config.getoption("randomly_seed", 0)
    return Random(seed)


class World(NamedTuple):
    """An input, enough for every kill, and what one publishes of it that is left alone."""

    bootstrap: str
    topic: str
    symbols: Sequence[str]
    end_ns: int
    expected: Published

    @classmethod
    async def create(cls, bootstrap: str, folder: Path, seed: int) -> "World":
        topic, symbols, end_ns = await ticks_in(bootstrap, seed, seconds=1200.0)
        alone = Victim(bootstrap, folder, [topic], symbols, end_ns=end_ns)
        expected = await (await alone.prepare()).finish()
        assert len(expected["correlations"]) > 300
        assert len(expected["rejects"]) > 100
        return cls(bootstrap, topic, symbols, end_ns, expected)

    async def victim(self, folder: Path, mode: str = "exactly_once") -> Victim:
        """Return a service to be killed."""
        victim = Victim(
            self.bootstrap, folder, [self.topic], self.symbols, mode=mode, end_ns=self.end_ns
        )
        return await victim.prepare()


@pytest.fixture(scope="module")
def world(
    kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> World:
    seed = Random(request.config.getoption("randomly_seed", 0)).getrandbits(32)
    return asyncio.run(World.create(kafka_bootstrap, tmp_path_factory.mktemp("alone"), seed))


def kill_at_every_point(victim: Victim, random: Random) -> None:
    for point in random.sample(POINTS, len(POINTS)):
        crash = f"{point}:{1 if point in {'own', 'restore'} else random.randint(1, 3)}"
        assert victim.until_killed(crash), crash


async def test_killed_at_every_point_it_publishes_the_same_bytes(
    world: World, tmp_path: Path, random: Random
) -> None:
    victim = await world.victim(tmp_path)
    await asyncio.to_thread(kill_at_every_point, victim, random)
    assert await victim.finish(world.expected) == world.expected
    assert victim.kills == len(POINTS)


async def test_killed_at_any_time_and_twice_in_a_row_it_publishes_the_same_bytes(
    world: World, tmp_path: Path, random: Random
) -> None:
    victim = await world.victim(tmp_path)
    assert await asyncio.to_thread(victim.until_killed, "commit:2")  # something to recover
    for point in DURING_RECOVERY:
        await asyncio.to_thread(victim.killed_after, random.uniform(0.1, 1.0))
        assert await asyncio.to_thread(victim.until_killed, f"{point}:1")
    assert await victim.finish(world.expected) == world.expected


async def test_written_ahead_everything_is_published_at_least_once(
    world: World, tmp_path: Path, random: Random
) -> None:
    victim = await world.victim(tmp_path, "at_least_once")
    for _ in range(4):
        await asyncio.to_thread(victim.killed_after, random.uniform(0.1, 1.0))
    found = await victim.finish()
    assert {role: list(dict.fromkeys(rows)) for role, rows in found.items()} == world.expected


@pytest.mark.chaos
async def test_killed_a_hundred_times_it_publishes_the_same_bytes(
    kafka_bootstrap: str, tmp_path: Path, random: Random, capsys: pytest.CaptureFixture[str]
) -> None:
    recoveries, kills = [], 0
    for k in range(CHAOS_ROUNDS):
        seed = random.getrandbits(32)
        folder = tmp_path / str(k)
        world = await World.create(kafka_bootstrap, folder / "alone", seed)
        victim = await world.victim(folder / "victim")
        await asyncio.to_thread(kill_at_every_point, victim, random)
        for point in DURING_RECOVERY:
            await asyncio.to_thread(victim.killed_after, random.uniform(0.1, 1.0))
            assert await asyncio.to_thread(victim.until_killed, f"{point}:1")
        assert await victim.finish(world.expected) == world.expected, f"seed {seed}"
        recoveries += victim.recoveries
        kills += victim.kills
    seconds = sorted(r.seconds for r in recoveries)
    cuts = statistics.quantiles(seconds, n=100)
    with capsys.disabled():
        sys.stdout.write(
            f"\n{kills} kills -9, every output identical; {len(seconds)} recoveries: "
            f"p50 {cuts[49]:.2f} s, p99 {cuts[98]:.2f} s, longest {seconds[-1]:.2f} s\n"
        )
    assert kills >= 100
