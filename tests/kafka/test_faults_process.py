"""The process: asked to stop, run twice, run with other settings; what it leaves is the same."""

import asyncio
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pytest

from stream_calib.adapters.kafka import KafkaSource, TopicSpec, ensure_topics
from stream_calib.config import Config, KafkaConfig, load_config
from stream_calib.service.replay import repeat_journal
from stream_calib.service.runner import Runner, unobserved
from stream_calib.service.wiring import VERSION
from stream_calib.simulation import simulate
from stream_calib.values import Matrix, Output
from stream_calib.wire.matrices import join
from tests.cli.command import environment
from tests.cli.forking import Forked
from tests.kafka.killing import DEADLINE_S, ROLES, Published, Record, Victim
from tests.kafka.service import write

STOP_S = 5.0
Row = tuple[str, int, bytes]

# The command, which sends itself a signal at a named point instead of dying there.
SIGNALS_ITSELF = """
import json, os, signal, sys, time
from stream_calib.cli import main
from stream_calib.service import wiring
point, left = sys.argv.pop(1), int(sys.argv.pop(1))
def at(name):
    global left
    left -= name == point
    if name == point and left == 0:
        print(json.dumps({"event": "asked", "at": time.time()}), file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
wiring.crash_points = lambda: at
main()
"""


class Ended(NamedTuple):
    """How a process ended: its code, its one sentence ("" for none), what it logged."""

    code: int
    sentence: str
    log: list[dict[str, Any]]

    def said(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self.log if entry["event"] == event]


class Live:
    """A process at work; what it says is read as it comes."""

    def __init__(self, process: "subprocess.Popen[str] | Forked") -> None:
        self.process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        STARTED.append(self)

    def until_said(self, event: str) -> None:
        deadline_s = time.monotonic() + DEADLINE_S
        while not any(f'"event": "{event}"' in line for line in list(self.lines)):
            assert self.process.poll() is None, self.lines
            assert time.monotonic() < deadline_s, self.lines
            time.sleep(0.02)

    def ended(self, ask: signal.Signals | None = None) -> Ended:
        """Wait for its end; nothing but log lines and one sentence is said."""
        if ask is not None:
            self.process.send_signal(ask)
        try:
            code = self.process.wait(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end: {self.lines[-5:]}") from None
        finally:
            self.close()
        log = [orjson.loads(line) for line in self.lines if line.startswith("{")]
        rest = [line for line in self.lines if not line.startswith("{")]
        assert len(rest) <= 1, self.lines
        assert all(line.startswith("stream-calib: ") for line in rest), self.lines
        return Ended(code, rest[0].strip() if rest else "", log)

    def close(self) -> None:
        """Kill it where it still runs."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)


STARTED: list[Live] = []


async def start(victim: Victim, *flags: str, crash: str = "") -> Live:
    return Live(await asyncio.to_thread(victim.start, *flags, crash=crash))


def end_all() -> None:
    """End what a test that failed has left at work."""
    for live in STARTED:
        live.close()
    STARTED.clear()


async def ended(live: Live, ask: signal.Signals | None = None) -> Ended:
    return await asyncio.to_thread(live.ended, ask)


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


async def reference(victim: Victim, *, flush: bool = True) -> Published:
    """Return what comes of the input when nothing ever happens to it, without a service."""
    config = load_config(victim.config_file)
    universe = config.universe[0]
    runner = Runner(config, universe, VERSION, unobserved())
    source = KafkaSource(config.kafka, config.topics_of(universe))
    outputs: list[Output] = []
    try:
        await source.start()
        discovered, done = await source.discover(), False
        ends = dict(source.ends())
        while not done:
            source.pause(runner.paused(ends))
            batches = await source.poll(5000, 0.2)
            taken = runner.turn(batches, discovered, ends, 0.0)
            discovered = ()
            done = all(runner.engine.intake.position(s) >= end for s, end in ends.items())
            if done and flush:
                taken += runner.turn((), (), ends, 0.0, exhausted=True)
            outputs += [output for effects in taken for output in runner.outputs(effects)]
    finally:
        await source.close()
    return by_role(config, outputs)


async def repeated(victim: Victim) -> Published:
    """Return what the journal says was published, its input read once more."""
    config = load_config(victim.config_file)
    steps = repeat_journal(config, config.universe[0])
    return by_role(config, [output async for _, found in steps for output in found])


def by_role(config: Config, outputs: Sequence[Output]) -> Published:
    found: Published = {role: [] for role in ROLES}
    for o in outputs:
        found[o.topic.removeprefix(f"{config.output.prefix}.")].append((o.key, o.value, o.headers))
    return found


@pytest.fixture(autouse=True)
def nothing_stays_at_work() -> Iterator[None]:
    yield
    end_all()


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("randomly_seed", 0))


def said_at(entry: Mapping[str, Any]) -> float:
    """When it was logged, in seconds since 1970: before Python clears up, which may take long."""
    return datetime.fromisoformat(entry["timestamp"]).timestamp()


async def stopped_at(victim: Victim, point: str) -> None:
    words = [sys.executable, "-c", SIGNALS_ITSELF, point, "1", "run", "--config"]
    process = subprocess.Popen(  # noqa: ASYNC220  returns at once
        [*words, victim.config_file],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    done = await ended(Live(process))
    assert (done.code, done.sentence) == (0, ""), (point, done)
    assert done.log[-1]["event"] == "stopped"
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


async def test_f13_second_process_is_turned_away_here_and_takes_over_from_elsewhere(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    rows: list[Row] = []

    def first_part(topic: str) -> list[Row]:
        rows.extend(tick_rows(topic, names(6), seed))
        return rows[:600]

    victim = await scene(kafka_bootstrap, tmp_path, first_part)
    settings(victim, '"1500ms"', '"60s"')  # nothing is late because of our pauses
    settings(victim, "[snapshots]", "[snapshots]\nkeep = 100")  # each has snapshots of its own
    before = await reference(victim, flush=False)
    first = await start(victim)
    first.until_said("running")
    sentence = await refused(victim, 9)
    assert f"(pid {first.process.pid})" in sentence
    assert "keeps its snapshots in" in sentence
    await published(first, victim, reaches(before))

    elsewhere = Victim(kafka_bootstrap, tmp_path / "elsewhere", victim.topics, victim.symbols)
    elsewhere.prefix = victim.prefix
    elsewhere.folder.mkdir()
    elsewhere.config_file.write_text(victim.config_file.read_text())
    second = await start(elsewhere)
    second.until_said("running")
    assert first.process.poll() is None
    await write(kafka_bootstrap, rows[600:])
    done = await ended(first)
    assert done.code == 9, done
    assert "has taken over" in done.sentence
    expected = await reference(victim, flush=False)
    await published(second, victim, reaches(expected))
    assert (await ended(second, signal.SIGTERM)).code == 0
    assert await victim.published() == expected, f"seed {seed}"
    # what the one who was fenced has left behind does no harm when he comes back
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
    assert await repeated(victim) == found, f"seed {seed}"
