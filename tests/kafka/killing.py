"""Runs the service as a process of its own, ends it in every way, and compares what it left."""

import asyncio
import signal
import subprocess
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_calib.adapters.kafka import TopicSpec, ensure_topics
from stream_calib.config import KafkaConfig, load_config
from stream_calib.service.wiring import output_topics
from stream_calib.simulation import simulate
from tests.cli.command import spawn
from tests.cli.forking import Forked
from tests.kafka.service import write

DEADLINE_S = 180.0  # on a machine that is busy with other things
ROLES = ("correlations", "events", "rejects", "universes")

Record = tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]
Published = dict[str, list[Record]]


class Recovery(NamedTuple):
    """What one start said about how it came to its state."""

    entry: int
    repeated: int
    snapshot: int
    seconds: float


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
    end_ns: int = 0  # of the input: before there is a matrix of then, not all is published
    settled_s: float = 2.5  # without anything new it is: longer than silence closes a bar
    recoveries: list[Recovery] = field(default_factory=list)
    kills: int = 0

    @property
    def config_file(self) -> Path:
        return self.folder / "config.toml"

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
        await ensure_topics(config.kafka, output_topics(config))

    def start(self, *flags: str, crash: str = "") -> Forked:
        """Start a process; ``crash`` is point:n, where it ends itself as by kill -9."""
        env = {"STREAM_CALIB_CRASH": crash}
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
        killed = process.returncode == -signal.SIGKILL
        self.kills += killed
        return killed

    def killed_after(self, seconds: float, *flags: str) -> None:
        """Run for a while, then kill -9."""
        process = self.start(*flags)
        time.sleep(seconds)
        process.kill()
        _, err = process.communicate(timeout=DEADLINE_S)
        self._note(err)
        self.kills += 1

    async def finish(
        self, expected: Published | None = None, *flags: str, roles: Sequence[str] = ROLES
    ) -> Published:
        """Run until all is published, then stop in good order; return what a reader sees."""
        # From nothing, and with another seed of hashes than those that were forked and killed.
        process = spawn("run", "--config", self.config_file, *flags, cwd=self.folder)
        try:
            found = await self._complete(expected, process, roles)
        finally:
            process.send_signal(signal.SIGTERM)
            _, err = await asyncio.to_thread(process.communicate, timeout=DEADLINE_S)
            self._note(err)
        assert process.returncode == 0, err
        return found

    async def _complete(
        self,
        expected: Published | None,
        process: "subprocess.Popen[str]",
        roles: Sequence[str],
    ) -> Published:
        deadline_s = time.monotonic() + DEADLINE_S
        before: Published | None = None
        while time.monotonic() < deadline_s:
            assert process.poll() is None, process.communicate()[1]
            await asyncio.sleep(0.3)
            found = await self.published(roles)
            enough = expected is not None and {r: len(v) for r, v in found.items()} == {
                r: len(v) for r, v in expected.items()
            }
            if enough or (found == before and self._is_at_the_end(found)):
                return found
            if expected is None and self._is_at_the_end(found):
                before = found
                await asyncio.sleep(self.settled_s)
        raise AssertionError(f"not complete: { {r: len(v) for r, v in found.items()} }")

    def _is_at_the_end(self, found: Published) -> bool:
        if not found["correlations"] or not found.get("calibrations", True):  # a fit comes late
            return False
        value = found["correlations"][-1][1]
        return int(orjson.loads(value or b"")["as_of_ns"]) >= self.end_ns

    async def published(self, roles: Sequence[str] = ROLES) -> Published:
        """Read the output topics as a reader of committed records."""
        return {role: await read(self.bootstrap, f"{self.prefix}.{role}") for role in roles}

    def _note(self, err: str) -> None:
        assert "Traceback" not in err, err
        for line in err.splitlines():
            said = orjson.loads(line) if line.startswith("{") else {}
            if said.get("event") == "recovered":
                recovery = (said["entry"], said["repeated"], said["snapshot"], said["seconds"])
                self.recoveries.append(Recovery(*recovery))


async def read(bootstrap: str, topic: str, partition: int = 0) -> list[Record]:
    """Read one partition, committed records only: key, value and headers."""
    place, found = TopicPartition(topic, partition), []
    async with AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
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


async def ticks_in(
    bootstrap: str, seed: int, *, n_symbols: int = 12, seconds: float = 400.0, partitions: int = 2
) -> tuple[str, tuple[str, ...], int]:
    """Write simulated ticks and some garbage into a topic.

    Returns
    -------
    topic, symbols, end_ns
        Its name, whose ticks they are, and the time of the last one.
    """
    ticks = simulate(n_symbols, seconds, seed=seed, rate_hz=4.0)
    topic = f"kill-ticks-{uuid.uuid4().hex[:12]}"
    await ensure_topics(KafkaConfig(bootstrap_servers=bootstrap), [TopicSpec(topic, partitions)])
    rows = []
    for k, record in enumerate(ticks.records()):
        rows.append((topic, k % partitions, orjson.dumps(record)))
        if k % 97 == 0:
            rows.append((topic, k % partitions, b'{"symbol": "broken'))
    await write(bootstrap, rows)
    return topic, ticks.symbols, int(ticks.time_ns[-1])
