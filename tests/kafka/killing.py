"""Runs the service as a process of its own, ends it in every way, and compares what it left."""

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_calib.adapters.kafka import TopicSpec, ensure_topics
from stream_calib.config import KafkaConfig, load_config
from stream_calib.service.replay import repeat_journal
from stream_calib.service.topics import output_topics
from stream_calib.simulation import simulate
from stream_calib.values import Output
from stream_calib.wire.journal import decode_entry
from tests.cli.command import PATIENT, spawn
from tests.cli.forking import Forked
from tests.kafka import chaos_figures
from tests.kafka.service import write

AT_WORK = "matrix"  # said once it is committed, by one that is asked for debug lines
DEADLINE_S = 180.0  # on a machine that is busy with other things
ROLES = ("correlations", "events", "rejects", "universes")

WHOLE = 100  # snapshots, more than there ever are: the journal is not trimmed
# what a kill leaves behind: a snapshot goes with a commit, which others have made instead
OF_NO_COMMIT = (
    "it is of a commit that did not take place",
    "it is of another course of the journal",
)

Record = tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]
Published = dict[str, list[Record]]


class Recovery(NamedTuple):
    """What one start said about how it came to its state."""

    entry: int
    repeated: int
    snapshot: int
    seconds: float
    states_compared: int


def tell(name: str, seed: int, **figures: object) -> None:
    """Say the figures of a test; how it ends is known, and written beside them, after it."""
    told = {"name": name, "seed": seed} | figures
    sys.stdout.write(f"\nchaos {orjson.dumps(told).decode()}\n")
    chaos_figures.note(told)


@dataclass
class Victim:
    """A service with its topics and its folder; the input is there before it starts."""

    bootstrap: str
    folder: Path
    topics: Sequence[str]
    symbols: Sequence[str]
    prefix: str = field(default_factory=lambda: f"kill-{uuid.uuid4().hex[:12]}")
    mode: str = "exactly_once"
    max_records: int = 100
    keep: int | None = None  # snapshots, to the oldest of which the journal is trimmed
    extra: str = ""
    replication: int = 1
    end_ns: int = 0  # of the input: before there is a matrix of then, not all is published
    batch_bytes: int | None = None  # at most of one topic in one request, and of a reject
    settled_s: float = 2.5  # without anything new it is: longer than silence closes a bar
    secrets: dict[str, str] = field(default_factory=dict)  # in the environment of a process
    recoveries: list[Recovery] = field(default_factory=list)
    kills: int = 0
    kills_at_work: int = 0  # of those at any time: it had committed a matrix by then
    half_written: int = 0  # transactions of which a kill left some records and others not

    @property
    def config_file(self) -> Path:
        return self.folder / "config.toml"

    @property
    def recovery_s(self) -> list[float]:
        """How long the recoveries took that repeated something and came to their end.

        Those that were killed before are not among them, so long ones are seen less often.
        """
        return [recovery.seconds for recovery in self.recoveries if recovery.repeated]

    @property
    def states_compared(self) -> int:
        """How many states, built again by repeating, were held against the journal's digest."""
        return sum(recovery.states_compared for recovery in self.recoveries)

    async def prepare(self) -> "Victim":
        """Write the configuration and create the topics."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config_file.write_text(
            f"""
            app = "{self.prefix}"
            [kafka]
            bootstrap_servers = "{self.bootstrap}"
            [input]
            topics = {orjson.dumps(list(self.topics)).decode()}
            max_records = {self.max_records}
            [time]
            lateness = "500ms"
            idle_slack = "1s"
            flush_after = "1500ms"
            [output]
            prefix = "{self.prefix}"
            [delivery]
            mode = "{self.mode}"
            commit_interval = "200ms"
            [snapshots]
            replay_cost = "100ms"
            {"" if self.keep is None else f"keep = {self.keep}"}
            [http]
            enabled = false
            [[universe]]
            name = "u"
            symbols = {orjson.dumps(list(self.symbols)).decode()}
            bar = "1s"
            ready_n_eff = 5
            ewma.half_life = "20s"
            ewma.window = "3s"
            {self.extra}
            """
        )
        await self.create_topics()
        return self

    async def create_topics(self) -> None:
        config = load_config(self.config_file)
        specs = output_topics(config, self.replication)
        if self.batch_bytes is not None:
            limit = {"max.message.bytes": str(self.batch_bytes)}
            specs = [
                replace(spec, settings=dict(spec.settings) | limit)
                if spec.name == f"{self.prefix}.rejects"
                else spec
                for spec in specs
            ]
        await ensure_topics(config.kafka, specs)

    def start(self, *flags: str, crash: str = "") -> Forked:
        """Start a process; ``crash`` is point:n, where it ends itself as by kill -9."""
        env = {"STREAM_CALIB_CRASH": crash, **self.secrets}
        return Forked("run", "--config", self.config_file, *flags, cwd=self.folder, env=env)

    def until_killed(self, crash: str, *flags: str) -> bool:
        """Run until the point is reached; False when the process never came there."""
        process = self.start(*flags, crash=crash)
        try:
            _, err = process.communicate(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=DEADLINE_S)
        self._note(err)
        assert process.returncode in {-signal.SIGKILL, 0}, err
        killed = process.returncode == -signal.SIGKILL
        self.kills += killed
        return killed

    def killed_after(self, seconds: float, *flags: str) -> None:
        """Run for a while, then kill -9: mostly while it starts."""
        self._killed_after(seconds, self.start(*flags))

    def killed_at_work(self, seconds: float, *flags: str) -> None:
        """Run until it has committed a matrix, and for a while, then kill -9."""
        process, said = self.start(*flags, "--log-level", "debug"), ""
        late = threading.Timer(DEADLINE_S, process.kill)
        late.daemon = True
        late.start()
        while f'"event": "{AT_WORK}"' not in said:
            line = process.stderr.readline()
            assert line, said[-2000:]  # it has ended
            said += line
        late.cancel()
        self._killed_after(seconds, process, said)
        self.kills_at_work += 1

    def _killed_after(self, seconds: float, process: Forked, said: str = "") -> None:
        time.sleep(seconds)
        process.kill()
        _, err = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == -signal.SIGKILL, err  # it had not ended by itself
        self._note(said + err)
        self.kills += 1

    def killed_while_repeating(self) -> None:
        """Kill it between two entries that it repeats, of which its oldest snapshot knows none."""
        assert self.until_killed("commit:3")  # of the last ones there is no snapshot yet
        with self._oldest_snapshot_alone():
            assert self.until_killed("repeat:1")

    @contextlib.contextmanager
    def _oldest_snapshot_alone(self) -> Iterator[None]:
        folder = self.folder / "snapshots" / f"{self.prefix}.journal" / "u"
        aside = self.folder / "aside"
        aside.mkdir(exist_ok=True)
        newer = sorted(path.name for path in folder.glob("*.snap"))[1:]
        for name in newer:
            (folder / name).rename(aside / name)
        yield
        for name in newer:
            (aside / name).rename(folder / name)

    async def left_half(self) -> bool:
        """Tell whether a transaction is open of which some records are there and others are not."""
        journal = f"{self.prefix}.journal"
        topics = [f"{self.prefix}.{role}" for role in ROLES]
        found = await unfinished(self.bootstrap, [*topics, journal])
        n_outputs = sum(found[topic] for topic in topics)
        if not found[journal]:
            return n_outputs > 0
        _, entry, _ = (await read(self.bootstrap, journal, isolation="read_uncommitted"))[-1]
        return n_outputs < decode_entry(entry or b"").n_outputs

    async def finish(
        self, expected: Published | None = None, *flags: str, roles: Sequence[str] = ROLES
    ) -> Published:
        """Run until all is published, then stop in good order; return what a reader sees then."""
        # From nothing, and with another seed of hashes than those that were forked and killed.
        words = ("run", "--config", self.config_file, *flags)
        process = spawn(*words, program=PATIENT, cwd=self.folder)
        try:
            await self._complete(expected, process, roles)
        finally:
            process.send_signal(signal.SIGTERM)
            _, err = await asyncio.to_thread(process.communicate, timeout=DEADLINE_S)
            said = self._note(err)
        assert process.returncode == 0, err
        # one that hangs ends with 0 too, for it is made to
        assert said[-1]["event"] == "stopped", said[-3:]
        assert not [line for line in said if line["event"].startswith("stopped without")], said
        return await self.published(roles)

    async def _complete(
        self,
        expected: Published | None,
        process: "subprocess.Popen[str]",
        roles: Sequence[str],
    ) -> None:
        deadline_s = time.monotonic() + DEADLINE_S
        before: Published | None = None
        while time.monotonic() < deadline_s:
            assert process.poll() is None, process.communicate()[1]
            await asyncio.sleep(0.3)
            found = await self.published(roles)
            enough = expected is not None and {r: len(v) for r, v in found.items()} == {
                r: len(v) for r, v in expected.items()
            }
            if enough or (found == before and self.is_at_the_end(found)):
                return
            if expected is None and self.is_at_the_end(found):
                before = found
                await asyncio.sleep(self.settled_s)
        raise AssertionError(f"not complete: { {r: len(v) for r, v in found.items()} }")

    def is_at_the_end(self, found: Published) -> bool:
        """Tell whether the newest matrix is of the end of the input."""
        if not found["correlations"] or not found.get("calibrations", True):  # a fit comes late
            return False
        value = found["correlations"][-1][1]
        return int(orjson.loads(value or b"")["as_of_ns"]) >= self.end_ns

    async def published(self, roles: Sequence[str] = ROLES) -> Published:
        """Read the output topics as a reader of committed records."""
        return {role: await read(self.bootstrap, f"{self.prefix}.{role}") for role in roles}

    async def repeated(self, roles: Sequence[str] = ROLES, place: int = 0) -> Published:
        """Return what the journal of a universe gives, each state held against its digest."""
        config = load_config(self.config_file)
        steps = repeat_journal(config, config.universe[place])
        return by_role(self.prefix, [o async for _, outputs in steps for o in outputs], roles)

    def _note(self, err: str) -> list[dict[str, Any]]:
        assert "Traceback" not in err, err
        log = [orjson.loads(line) for line in err.splitlines() if line.startswith("{")]
        for said in log:
            if said["event"] == "recovered":
                recovery = Recovery(*(said[name] for name in Recovery._fields))
                self.recoveries.append(recovery)
            if said["event"] == "snapshot refused":  # any other would be a state that is not equal
                assert said["reason"] in OF_NO_COMMIT, said
        return log


def by_role(prefix: str, outputs: Sequence[Output], roles: Sequence[str] = ROLES) -> Published:
    """Return outputs by their topics; raises where one is of another role."""
    found: Published = {role: [] for role in roles}
    for o in outputs:
        found[o.topic.removeprefix(f"{prefix}.")].append((o.key, o.value, o.headers))
    return found


async def read(
    bootstrap: str, topic: str, partition: int = 0, isolation: str = "read_committed"
) -> list[Record]:
    """Read one partition, by default committed records only: key, value and headers."""
    place, found = TopicPartition(topic, partition), []
    async with AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level=isolation,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    ) as consumer:
        consumer.assign([place])
        end = (await consumer.end_offsets([place]))[place]
        consumer.seek(place, (await consumer.beginning_offsets([place]))[place])
        while await consumer.position(place) < end:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += [(r.key, r.value, tuple(r.headers)) for r in records]
    return found


async def ends_of(
    bootstrap: str, places: Sequence[TopicPartition], isolation: str = "read_committed"
) -> Mapping[TopicPartition, int]:
    """Return where partitions end for a reader of committed records, or of all."""
    async with AIOKafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level=isolation, enable_auto_commit=False
    ) as consumer:
        found: Mapping[TopicPartition, int] = await consumer.end_offsets(places)
    return found


async def unfinished(bootstrap: str, topics: Sequence[str]) -> dict[str, int]:
    """Return how many records of each topic are of a transaction that is open, the only one."""
    places = [TopicPartition(topic, 0) for topic in topics]
    stable = await ends_of(bootstrap, places)
    written = await ends_of(bootstrap, places, "read_uncommitted")
    return {place.topic: written[place] - stable[place] for place in places}


async def ticks_in(
    bootstrap: str,
    seed: int,
    *,
    n_symbols: int = 12,
    seconds: float = 400.0,
    partitions: int = 2,
    replication: int = 1,
) -> tuple[str, tuple[str, ...], int]:
    """Write simulated ticks and some garbage into a topic.

    Returns
    -------
    topic, symbols, end_ns
        Its name, whose ticks they are, and the time of the last one.
    """
    ticks = simulate(n_symbols, seconds, seed=seed, rate_hz=4.0)
    topic = f"kill-ticks-{uuid.uuid4().hex[:12]}"
    kafka = KafkaConfig(bootstrap_servers=bootstrap)
    await ensure_topics(kafka, [TopicSpec(topic, partitions, replication)])
    rows = []
    for k, record in enumerate(ticks.records()):
        rows.append((topic, k % partitions, orjson.dumps(record)))
        if k % 97 == 0:
            rows.append((topic, k % partitions, b'{"symbol": "broken'))
    await write(bootstrap, rows)
    return topic, ticks.symbols, int(ticks.time_ns[-1])
