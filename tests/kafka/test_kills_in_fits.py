"""Kill -9 while fits are made and installed: the same bytes, from the journal too."""

import asyncio
import dataclasses
from pathlib import Path
from random import Random

import orjson
import pytest

from stream_calib.adapters.files.sink import _line
from stream_calib.values import Output
from tests.cli.command import run_process
from tests.kafka.killing import WHOLE, Published, Victim, tell, ticks_in

POINTS = ("fit_asked", "fit_answered", "fit_taken")
THEN = ("begin", "output", "journal", "end_txn", "commit", "snapshot_saved")
ROLES = ("correlations", "events", "rejects", "calibrations", "universes")
DCC = "dcc = { bar = '1s', first_fit_bars = 60, refit_bars = 60, window_bars = 200 }"
CHAOS_ROUNDS = 2
SETTLED_S = 6.0  # a fit that was asked for last has its process to start, which has much to import


@pytest.fixture
def random(chaos_seed: int) -> Random:
    return Random(chaos_seed)


async def world(
    bootstrap: str, folder: Path, seed: int, late: str, seconds: float, replication: int = 1
) -> Victim:
    """Return a service to be killed, with its input there."""
    topic, symbols, end_ns = await ticks_in(
        bootstrap, seed, n_symbols=5, seconds=seconds, replication=replication
    )
    extra = f"{DCC}\n[refit]\nlate = '{late}'"
    return await Victim(
        bootstrap,
        folder / "victim",
        [topic],
        symbols,
        extra=extra,
        end_ns=end_ns,
        settled_s=SETTLED_S,
        keep=WHOLE,
        replication=replication,
    ).prepare()


async def left_alone(victim: Victim, folder: Path) -> Published:
    """Return what one publishes that has the same input and settings and is not killed."""
    alone = dataclasses.replace(
        victim, folder=folder / "alone", prefix=f"{victim.prefix}-alone", keep=None
    )
    expected = await (await alone.prepare()).finish(roles=ROLES)
    assert all(expected.values())
    return expected


def kill_in_fits(victim: Victim, random: Random, points: tuple[str, ...], n_fits: int = 2) -> None:
    """Kill it in the middle of one of its fits, and now and then once more right after."""
    for point in points:
        assert victim.until_killed(f"{point}:{random.randint(1, n_fits)}"), point
        if random.random() < 0.5:
            assert victim.until_killed(f"{random.choice(THEN)}:1")


def models(published: Published) -> list[int]:
    return [
        orjson.loads(value or b"")["model_version"] for _, value, _ in published["calibrations"]
    ]


async def test_killed_in_fits_that_are_waited_for_it_publishes_the_same_bytes(
    kafka_bootstrap: str, tmp_path: Path, random: Random
) -> None:
    victim = await world(kafka_bootstrap, tmp_path, random.getrandbits(32), "wait", seconds=300.0)
    expected = await left_alone(victim, tmp_path)
    assert len(models(expected)) >= 3
    await asyncio.to_thread(kill_in_fits, victim, random, POINTS)
    assert await victim.finish(expected, roles=ROLES) == expected
    assert await victim.repeated(ROLES) == expected


@pytest.mark.chaos
async def test_killed_in_fits_that_are_not_waited_for_the_journal_gives_the_same_bytes(
    kafka_bootstrap: str, tmp_path: Path, random: Random
) -> None:
    victim = await world(
        kafka_bootstrap, tmp_path, random.getrandbits(32), "when_ready", seconds=240.0
    )
    # what is not waited for may be the last: the input is read sooner than it is fitted
    await asyncio.to_thread(kill_in_fits, victim, random, POINTS, 1)
    published = await victim.finish(roles=ROLES)  # with what came while it was stopped
    assert all(published.values())
    assert models(published) == list(range(2, 2 + len(models(published))))
    assert models(published)
    told = [orjson.loads(value or b"") for _, value, _ in published["calibrations"]]
    late_ns = [int(fit["time_ns"]) - int(fit["window"]["to_ns"]) for fit in told]
    assert max(late_ns) > 1_000_000_000, late_ns  # more than a bar
    lines = await repeated(victim)
    for role, records in published.items():
        name = f"{victim.prefix}.{role}"
        again = [line for line in lines if orjson.loads(line)["topic"] == name]
        wanted = [_line(Output(name, 0, k or b"", v or b"", h)) for k, v, h in records]
        assert again == wanted


async def repeated(victim: Victim) -> list[bytes]:
    """What ``replay --journal`` gives of it, a line for each record."""
    out = victim.folder / "repeated.jsonl"
    words = ("replay", "--journal", "--config", victim.config_file, "--out", out)
    done = await asyncio.to_thread(run_process, *words, cwd=victim.folder)
    assert (done.code, done.err) == (0, ""), done
    return out.read_bytes().splitlines(keepends=True)


@pytest.mark.chaos
async def test_killed_twenty_times_in_fits_it_publishes_the_same_bytes(
    kafka_bootstrap: str,
    tmp_path: Path,
    random: Random,
    chaos_seed: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kills = fits = compared = 0
    seconds: list[float] = []
    for k in range(CHAOS_ROUNDS):
        seed = random.getrandbits(32)
        folder = tmp_path / str(k)
        victim = await world(kafka_bootstrap, folder, seed, "wait", seconds=1200.0)
        expected = await left_alone(victim, folder)
        await asyncio.to_thread(kill_in_fits, victim, random, POINTS * 3)
        assert await victim.finish(expected, roles=ROLES) == expected, f"seed {seed}"
        assert await victim.repeated(ROLES) == expected, f"seed {seed}"
        compared += victim.states_compared
        kills, fits = kills + victim.kills, fits + len(models(expected))
        seconds += victim.recovery_s
    with capsys.disabled():
        figures = {"kills": kills, "fits": fits, "states": compared, "recovery_s": seconds}
        tell("kills in fits on one node", chaos_seed, **figures)
    assert kills >= 20
    assert compared > 0
