"""The process: asked to stop, run twice, run with other settings; what it leaves is the same."""

import asyncio
import signal
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pytest

from deploy.kafka.broker import free_port
from stream_calib.adapters.kafka import TopicSpec, ensure_topics
from stream_calib.config import KafkaConfig
from stream_calib.service.watchdog import EXIT_CODE
from stream_calib.simulation import simulate
from stream_calib.values import Matrix
from stream_calib.wire.matrices import join
from tests.cli.command import spawn
from tests.kafka.killing import DEADLINE_S, ROLES, WHOLE, Published, Record, Victim
from tests.kafka.living import GAVE_UP, Ended, Live, ended, said_at, start
from tests.kafka.service import write
from tests.kafka.truth import through_an_engine

STOP_S = 5.0
SESSION_S, WATCHDOG_S = 2, 3
Row = tuple[str, int, bytes]

# The command, which does something to itself at a named point instead of dying there.
DOES_TO_ITSELF = """
import json, os, signal, sys, time
from stream_calib.cli import main
from stream_calib.service import wiring
point, left, what = sys.argv.pop(1), int(sys.argv.pop(1)), sys.argv.pop(1)
def at(name):
    global left
    left -= name == point
    if name == point and left == 0:
        print(json.dumps({"event": "asked", "at": time.time()}), file=sys.stderr, flush=True)
        exec(what)
wiring.crash_points = lambda: at
main()
"""
ASKS_TO_STOP = "os.kill(os.getpid(), signal.SIGTERM)"


async def refused(victim: Victim, code: int, *flags: str) -> str:
    """Start it and return the sentence with which it ends by itself."""
    done = await ended(await start(victim, *flags))
    assert done.code == code, done
    assert done.sentence, done
    return done.sentence


async def crashed(victim: Victim, crash: str, *flags: str) -> Ended:
    """Start it and return what it said until the point where it is killed."""
    done = await ended(await start(victim, *flags, crash=crash))
    assert done.code == -signal.SIGKILL, (crash, done)
    return done


async def run_until(
    victim: Victim, enough: Callable[[Published], bool], *flags: str
) -> tuple[Published, Ended]:
    """Run until enough is published, then stop it in good order."""
    live = await start(victim, *flags)
    await asyncio.to_thread(live.until_said, "running")  # before, a signal ends it at once
    await published(live, victim, enough)
    done = await ended(live, signal.SIGTERM)
    assert (done.code, done.sentence) == (0, ""), done
    return await victim.published(), done


async def completes(victim: Victim, expected: Published, *flags: str) -> Ended:
    """Run until all that is expected is published, which is exactly what is then there."""
    found, done = await run_until(victim, reaches(expected), *flags)
    assert found == expected
    return done


async def published(live: Live, victim: Victim, enough: Callable[[Published], bool]) -> Published:
    """Wait until enough is published by a process at work."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not enough(found := await victim.published()):
        assert live.process.poll() is None, live.lines[-5:]
        assert time.monotonic() < deadline_s, (sizes(found), live.lines[-5:])
        await asyncio.sleep(0.1)
    return found


async def catches_up(live: Live, victim: Victim) -> Published:
    """Wait until all is published that comes of the input so far, and nothing else is."""
    expected = await reference(victim, flush=False)
    found = await published(live, victim, reaches(expected))
    assert found == expected
    return found


async def ends_whole(live: Live, victim: Victim) -> Ended:
    """Let it catch up and stop; its journal, of which nothing was trimmed, gives the same."""
    expected = await catches_up(live, victim)
    done = await ended(live, signal.SIGTERM)
    assert (done.code, done.sentence) == (0, ""), done
    assert await victim.published() == expected == await victim.repeated()
    return done


def reaches(expected: Published) -> Callable[[Published], bool]:
    return lambda found: sizes(found) == sizes(expected)


def sizes(found: Published) -> dict[str, int]:
    return {role: len(rows) for role, rows in found.items()}


def head(record: Record, name: str) -> str:
    return dict(record[2])[name].decode()


def sequences(rows: Sequence[Record]) -> list[int]:
    return [int(head(record, "sequence")) for record in rows]


def matrices(found: Published) -> list[Matrix]:
    return [join([(value or b"", dict(heads))]) for _, value, heads in found["correlations"]]


def events(found: Published) -> list[dict[str, Any]]:
    return [orjson.loads(value or b"") for _, value, _ in found["events"]]


def settings(victim: Victim, old: str, new: str) -> None:
    """Change the settings of a service that does not run."""
    text = victim.config_file.read_text()
    assert old in text
    victim.config_file.write_text(text.replace(old, new))


def tick_rows(topic: str, symbols: Sequence[str], seed: int, seconds: float = 60.0) -> list[Row]:
    ticks = simulate(len(symbols), seconds, seed=seed, rate_hz=4.0, symbols=symbols)
    return [(topic, 0, orjson.dumps(record)) for record in ticks.records()]


def names(n: int) -> tuple[str, ...]:
    return tuple(f"SIM:{k}" for k in range(n))


async def scene(
    bootstrap: str, folder: Path, rows: Callable[[str], Sequence[Row]], **changes: Any
) -> Victim:
    """Return a service that has not run yet, with a topic of its own that holds these rows."""
    topic = f"fault-ticks-{uuid.uuid4().hex[:12]}"
    written = rows(topic)
    n = 1 + max((partition for _, partition, _ in written), default=0)
    await ensure_topics(KafkaConfig(bootstrap_servers=bootstrap), [TopicSpec(topic, n)])
    await write(bootstrap, written)
    symbols = changes.pop("symbols", names(6))
    victim = Victim(bootstrap, folder / "victim", [topic], symbols, max_records=3, **changes)
    return await victim.prepare()


async def begun(
    bootstrap: str, folder: Path, seed: int, **changes: Any
) -> tuple[Victim, list[Row]]:
    """Return a service that has not run yet, and its input, of which 600 records are there."""
    rows: list[Row] = []

    def first_part(topic: str) -> list[Row]:
        rows.extend(tick_rows(topic, names(6), seed))
        return rows[:600]

    return await scene(bootstrap, folder, first_part, **changes), rows


class HalfFed(NamedTuple):
    """A service with HTTP that has not run yet, and what of its input is there and is not."""

    victim: Victim
    url: str
    first: list[Row]
    rest: list[Row]


async def half_fed(bootstrap: str, folder: Path, seed: int) -> HalfFed:
    """Prepare a service of which nothing but the input closes a bar, and whose journal is whole."""
    victim, rows = await begun(bootstrap, folder, seed, keep=WHOLE)
    port = free_port()
    settings(victim, "enabled = false", f"port = {port}")
    settings(victim, '"1500ms"', '"10m"')  # silence closes nothing
    return HalfFed(victim, f"http://127.0.0.1:{port}", rows[:600], rows[600:])


async def reference(victim: Victim, *, flush: bool = True) -> Published:
    """Return what comes of the input when nothing ever happens to it, without a service."""
    return (await through_an_engine(victim, ROLES, flush=flush)).published


def does_to_itself(victim: Victim, point: str, what: str) -> Live:
    """Start one that runs a line of Python on its event loop when it comes to a point."""
    program = [sys.executable, "-c", DOES_TO_ITSELF, point, "1", what]
    return Live(spawn("run", "--config", victim.config_file, program=program))


async def stopped_at(victim: Victim, point: str) -> None:
    done = await ended(does_to_itself(victim, point, ASKS_TO_STOP))
    assert (done.code, done.sentence) == (0, ""), (point, done)
    assert done.log[-1]["event"] == "stopped"
    assert not done.said(GAVE_UP), (point, done)
    assert said_at(done.log[-1]) - done.said("asked")[0]["at"] < STOP_S, (point, done)


@pytest.mark.parametrize(
    "points",
    [
        pytest.param(("journal",), id="f11"),
        pytest.param(
            ("begin", "output", "flush", "journal", "end_txn", "commit"),
            id="f11-all",
            marks=pytest.mark.chaos,
        ),
    ],
)
async def test_f11_asked_to_stop_inside_a_transaction(
    kafka_bootstrap: str, tmp_path: Path, seed: int, points: Sequence[str]
) -> None:
    victim = await scene(kafka_bootstrap, tmp_path, lambda t: tick_rows(t, names(6), seed))
    expected = await reference(victim)
    for point in points:
        await stopped_at(victim, point)
    await completes(victim, expected)


@pytest.mark.chaos
async def test_f14_event_loop_is_blocked_for_longer_than_a_session(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    victim = await scene(kafka_bootstrap, tmp_path, lambda t: tick_rows(t, names(6), seed))
    expected = await reference(victim)
    settings(victim, "[delivery]", f'[ownership]\nsession_timeout = "{SESSION_S}s"\n[delivery]')
    live = does_to_itself(victim, "journal", f"time.sleep({2 * SESSION_S})")
    await asyncio.to_thread(live.until_said, "asked")
    # the group takes it for dead: what it had is its own once more when it has joined again
    found = await published(live, victim, reaches(expected))
    assert found == expected, f"seed {seed}"
    done = await ended(live, signal.SIGTERM)
    assert (done.code, done.sentence) == (0, "")
    (blocked,) = done.said("asked")
    before, after = done.said("recovered")
    assert said_at(before) < blocked["at"]
    assert said_at(after) > blocked["at"] + 2 * SESSION_S
    await completes(victim, expected)


@pytest.mark.chaos
@pytest.mark.parametrize(
    ("point", "who"),
    [
        ("restore", "the event loop has not come round"),  # no universe is waited for yet
        ("commit", ""),  # and whoever is looked at first
    ],
)
async def test_f14_event_loop_is_blocked_for_longer_than_the_watchdog_waits(
    kafka_bootstrap: str, tmp_path: Path, seed: int, point: str, who: str
) -> None:
    victim = await scene(kafka_bootstrap, tmp_path, lambda t: tick_rows(t, names(6), seed))
    expected = await reference(victim)
    usual = victim.config_file.read_text()
    settings(victim, "[delivery]", f'[delivery]\nwatchdog_after = "{WATCHDOG_S}s"')
    done = await ended(does_to_itself(victim, point, f"time.sleep({DEADLINE_S})"))
    assert done.code == EXIT_CODE, done
    assert f"{who} for {WATCHDOG_S} s; ending, to be started anew" in done.sentence
    assert done.log[-1]["event"] == "asked"  # it has done nothing more
    victim.config_file.write_text(usual)
    await completes(victim, expected)


@pytest.mark.chaos
async def test_f13_second_process_stands_by_and_takes_over_when_the_first_ends(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    victim, rows = await begun(kafka_bootstrap, tmp_path, seed)
    settings(victim, '"1500ms"', '"60s"')  # nothing is late because of our pauses
    before = await reference(victim, flush=False)
    first = await start(victim)
    first.until_said("recovered")
    second = await start(victim)
    second.until_said("running")
    await published(first, victim, reaches(before))
    assert not any('"event": "recovered"' in line for line in second.lines)
    done = await ended(first, signal.SIGTERM)
    assert done.code == 0
    assert len(done.said("recovered")) == 1  # the first alone has owned, and all the time
    assert not done.said("no longer the owner")
    second.until_said("recovered")
    await write(kafka_bootstrap, rows[600:])
    expected = await reference(victim, flush=False)
    await published(second, victim, reaches(expected))
    done = await ended(second, signal.SIGTERM)
    assert done.code == 0
    (took_over,) = done.said("recovered")
    assert not done.said("no longer the owner")
    assert took_over["warm"]
    assert took_over["repeated"] <= 1  # the entry of the other's clean stop
    assert await victim.published() == expected, f"seed {seed}"
    await completes(victim, expected)


async def test_f16_changed_settings_are_refused_reset_or_migrated(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    rows: list[Row] = []

    def first_part(topic: str) -> list[Row]:
        rows.extend(tick_rows(topic, names(6), seed, seconds=120.0))
        return rows[: len(rows) // 3]

    victim = await scene(kafka_bootstrap, tmp_path, first_part, symbols=names(5))
    settings(victim, '"1500ms"', '"60s"')
    # few snapshots, all of which are kept: the journal is not trimmed, however slow it goes
    settings(victim, 'replay_cost = "100ms"', 'replay_cost = "3s"\nkeep = 100')
    n = len((await run_until(victim, reaches(await reference(victim, flush=False))))[0]["events"])

    settings(victim, 'half_life = "20s"', 'half_life = "30s"')
    sentence = await refused(victim, 3)
    assert "universe.ewma.half_life was 20s and is 30s" in sentence
    assert "--reset-state" in sentence
    await write(kafka_bootstrap, rows[len(rows) // 3 : 2 * len(rows) // 3])

    def mature(k: int) -> Callable[[Published], bool]:
        time_ns = orjson.loads(rows[k][2])["time"] - 3_000_000_000
        return lambda found: bool(found["correlations"]) and matrices(found)[-1].as_of_ns > time_ns

    found, _ = await run_until(victim, mature(2 * len(rows) // 3), "--reset-state")
    assert "state_reset" in [event["type"] for event in events(found)[n:]]
    assert sequences(found["correlations"]) == list(range(1, 1 + len(found["correlations"])))
    old, n = matrices(found)[-1], len(found["correlations"])

    moved = ("SIM:2", "SIM:1", "SIM:5", "SIM:3")  # two are gone, one is new, two change places
    settings(victim, f"symbols = {orjson.dumps(names(5)).decode()}", f"symbols = {list(moved)}")
    await write(kafka_bootstrap, rows[2 * len(rows) // 3 :])
    await crashed(victim, "commit:2")
    found, _ = await run_until(victim, mature(-1))
    assert sequences(found["correlations"]) == list(range(1, 1 + len(found["correlations"])))
    assert sequences(found["events"]) == list(range(1, 1 + len(found["events"])))
    (changed,) = [event for event in events(found) if event["type"] == "universe_changed"]
    assert changed["details"] == {"added": ["SIM:5"], "removed": ["SIM:0", "SIM:4"]}
    new = matrices(found)[n]
    assert (new.symbols, new.pending) == (("SIM:2", "SIM:1", "SIM:3"), ("SIM:5",))
    places = [old.symbols.index(symbol) for symbol in new.symbols]
    pairs = np.triu_indices(3, 1)
    assert (new.n_eff[pairs] > 0.8 * old.n_eff[places][:, places][pairs]).all(), f"seed {seed}"
    assert abs(new.corr - old.corr[places][:, places]).max() < 0.5, f"seed {seed}"
    assert matrices(found)[-1].symbols == moved
    assert await victim.repeated() == found, f"seed {seed}"
