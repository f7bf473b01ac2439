"""Kill -9 at every named point and at any time: the same bytes on the output topics.

``make chaos`` runs the long form and prints the table that the README shows.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from aiokafka import TopicPartition

from stream_calib.values import Source
from tests.kafka.killing import WHOLE, Published, Victim, ends_of, tell, ticks_in
from tests.kafka.test_kafka_adapter import committed_positions

POINTS = (
    "own",
    "restore",
    "begin",
    "flush",
    "output",
    "journal",
    "end_txn",
    "commit",
    "positions",
    "snapshot_write",
    "snapshot_written",
    "snapshot_renamed",
    "snapshot_saved",
)
KILLS_WHILE_RECOVERING = 6
CHAOS_ROUNDS = 6
PARTITIONS = 2
# A matrix fills it: those of one commit go to the broker one after the other.
BATCH_BYTES = 4096
HALF_TRIES = 10


@pytest.fixture
def random(chaos_seed: int) -> Random:
    return Random(chaos_seed)


class World(NamedTuple):
    """An input, enough for every kill, and what one publishes of it that is left alone."""

    bootstrap: str
    topic: str
    symbols: Sequence[str]
    end_ns: int
    expected: Published
    replication: int = 1

    @classmethod
    async def create(cls, bootstrap: str, folder: Path, seed: int, replication: int = 1) -> "World":
        topic, symbols, end_ns = await ticks_in(
            bootstrap, seed, seconds=1200.0, partitions=PARTITIONS, replication=replication
        )
        alone = Victim(bootstrap, folder, [topic], symbols, end_ns=end_ns, replication=replication)
        expected = await (await alone.prepare()).finish()
        assert len(expected["correlations"]) > 300
        assert len(expected["rejects"]) > 100
        assert all(expected.values())
        return cls(bootstrap, topic, symbols, end_ns, expected, replication)

    async def victim(
        self, folder: Path, mode: str = "exactly_once", keep: int | None = WHOLE
    ) -> Victim:
        """Return a service to be killed, whose journal is kept as a whole by default."""
        victim = Victim(
            self.bootstrap,
            folder,
            [self.topic],
            self.symbols,
            mode=mode,
            keep=keep,
            end_ns=self.end_ns,
            replication=self.replication,
            batch_bytes=BATCH_BYTES,
        )
        return await victim.prepare()

    async def all_is_noted(self, victim: Victim) -> bool:
        """Tell whether lag tools see that a victim has read everything."""
        places = [TopicPartition(self.topic, p) for p in range(PARTITIONS)]
        ends = await ends_of(self.bootstrap, places)
        noted = await committed_positions(self.bootstrap, f"{victim.prefix}.u")
        return noted == {Source(*place): end for place, end in ends.items()}


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
        if point == "output":
            leave_half(victim, random)


def leave_half(victim: Victim, random: Random) -> None:
    """Kill it at its first output until others of the transaction were not written."""
    for _ in range(HALF_TRIES):
        if asyncio.run(victim.left_half()):
            victim.half_written += 1
            return
        assert victim.until_killed(f"output:{random.randint(2, 4)}")
    raise AssertionError("every transaction was written as a whole, or not at all")


def kill_while_recovering(victim: Victim, random: Random, longest_s: float = 1.0) -> None:
    """Kill it at any time, and once more on the way back; in between, while it repeats entries."""
    victim.killed_after(random.uniform(0.1, longest_s))
    assert victim.until_killed("own:1")
    victim.killed_while_repeating()
    victim.killed_at_work(random.uniform(0.0, 0.5))
    assert victim.until_killed("restore:1")


async def test_killed_at_every_point_it_publishes_the_same_bytes(
    world: World, tmp_path: Path, random: Random
) -> None:
    victim = await world.victim(tmp_path)
    await asyncio.to_thread(kill_at_every_point, victim, random)
    assert await victim.finish(world.expected) == world.expected
    assert await victim.repeated() == world.expected
    assert await world.all_is_noted(victim)
    assert victim.kills >= len(POINTS)
    assert victim.half_written > 0
    assert victim.states_compared > 0


@pytest.mark.chaos
async def test_killed_at_any_time_and_twice_in_a_row_it_publishes_the_same_bytes(
    world: World, tmp_path: Path, random: Random
) -> None:
    victim = await world.victim(tmp_path, keep=None)  # and its journal is trimmed meanwhile
    assert await asyncio.to_thread(victim.until_killed, "commit:2")  # something to recover
    await asyncio.to_thread(kill_while_recovering, victim, random)
    assert await victim.finish(world.expected) == world.expected
    assert await world.all_is_noted(victim)


@pytest.mark.chaos
async def test_written_ahead_everything_is_published_at_least_once(
    world: World, tmp_path: Path, random: Random
) -> None:
    victim = await world.victim(tmp_path, "at_least_once")
    for _ in range(2):
        await asyncio.to_thread(victim.killed_after, random.uniform(0.1, 1.0))
        await asyncio.to_thread(victim.killed_at_work, random.uniform(0.0, 0.5))
    found = await victim.finish()
    assert {role: list(dict.fromkeys(rows)) for role, rows in found.items()} == world.expected
    assert await victim.repeated() == world.expected


@pytest.mark.chaos
async def test_killed_a_hundred_times_it_publishes_the_same_bytes(
    kafka_bootstrap: str,
    tmp_path: Path,
    random: Random,
    chaos_seed: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seconds: list[float] = []
    kills = at_work = half = compared = 0
    for k in range(CHAOS_ROUNDS):
        seed = random.getrandbits(32)
        folder = tmp_path / str(k)
        world = await World.create(kafka_bootstrap, folder / "alone", seed)
        is_whole = k > 0  # the journal of the first one is trimmed
        victim = await world.victim(folder / "victim", keep=WHOLE if is_whole else None)
        await asyncio.to_thread(kill_at_every_point, victim, random)
        await asyncio.to_thread(kill_while_recovering, victim, random)
        assert await victim.finish(world.expected) == world.expected, f"seed {seed}"
        assert await world.all_is_noted(victim), f"seed {seed}"
        assert not is_whole or await victim.repeated() == world.expected, f"seed {seed}"
        seconds += victim.recovery_s
        kills, compared = kills + victim.kills, compared + victim.states_compared
        at_work, half = at_work + victim.kills_at_work, half + victim.half_written
    with capsys.disabled():
        figures = {
            "kills": kills,
            "kills_at_work": at_work,
            "half_written": half,
            "states": compared,
            "recovery_s": seconds,
        }
        tell("kills on one node", chaos_seed, **figures)
    assert kills >= 100
    assert at_work >= CHAOS_ROUNDS
    assert half >= CHAOS_ROUNDS
    assert compared >= CHAOS_ROUNDS
