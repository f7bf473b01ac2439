"""Runs the whole service on a real broker inside a test."""

import asyncio
import subprocess
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from stream_calib.adapters.kafka import KafkaSink, TopicSpec, ensure_topics
from stream_calib.config import Config, KafkaConfig, parse_config
from stream_calib.service.topics import output_topics
from stream_calib.service.wiring import kafka_service
from stream_calib.values import Effects, Matrix, Output

DEADLINE_S = 60.0
# what becomes of ticks that have an outcome already, at the close of their bar
AFTERWARDS = {
    "duplicate",
    "closed",
    "outlier",
    "spread",
    "confirmed_late",
    "crossed_quote",
    "no_price",
}


class Running:
    """A service at work, and what it has published so far."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.outcomes: Counter[str] = Counter()
        self.matrices: list[Matrix] = []
        self.changed = asyncio.Event()

    def note(self, _universe: str, effects: Effects) -> None:
        for (_, outcome), n in effects.counts.items():
            self.outcomes[outcome] += n
        self.matrices += effects.matrices
        self.changed.set()

    @property
    def seen(self) -> int:
        """Records that were given an outcome."""
        return sum(n for outcome, n in self.outcomes.items() if outcome not in AFTERWARDS)

    async def until_seen(self, n: int) -> None:
        """Wait until ``n`` records were given an outcome."""
        await self._until(lambda: self.seen == n)

    async def until_as_of(self, time_ns: int) -> None:
        """Wait until the newest matrix is of this time."""
        await self._until(lambda: bool(self.matrices) and self.matrices[-1].as_of_ns == time_ns)

    async def _until(self, condition: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not condition():
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            raise AssertionError(
                f"stuck at {self.outcomes}, {len(self.matrices)} matrices"
            ) from None


def settings(
    bootstrap: str, topics: Sequence[str], universe: dict[str, Any], **time: str
) -> Config:
    """Settings with names of their own, so that nobody else writes to the outputs."""
    return parse_config(
        {
            "app": f"test-{uuid.uuid4().hex[:12]}",
            "kafka": {"bootstrap_servers": bootstrap},
            "input": {"topics": list(topics), "rejects_per_second": 1_000_000},
            "time": time,
            "output": {"prefix": f"out-{uuid.uuid4().hex[:12]}"},
            "http": {"port": 0},
            "universe": [universe],
        }
    )


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[Running]:
    """Create the output topics, run the service, stop it at the end."""
    await ensure_topics(config.kafka, output_topics(config))
    state = Running(config)
    stop, started = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(kafka_service(config, state.note).run(stop, started.set))
    ready = asyncio.create_task(started.wait())
    try:
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        yield state
    finally:
        ready.cancel()
        stop.set()
        await asyncio.wait_for(task, DEADLINE_S)


async def write(bootstrap: str, rows: Iterable[tuple[str, int, bytes]]) -> None:
    """Write (topic, partition, value) rows as they are."""
    outputs = [Output(topic, partition, b"", value, ()) for topic, partition, value in rows]
    sink = KafkaSink(KafkaConfig(bootstrap_servers=bootstrap))
    await sink.start()
    try:
        await sink.publish(outputs)
    finally:
        await sink.close()


async def create(bootstrap: str, topics: Iterable[str]) -> None:
    """Create one-partition topics."""
    specs = [TopicSpec(name) for name in topics]
    await ensure_topics(KafkaConfig(bootstrap_servers=bootstrap), specs)


def kcat(program: Path, bootstrap: str, topic: str) -> list[dict[str, Any]]:
    """Read a whole topic as a stranger would: key, headers and value of every record."""
    form = r'{"key":"%k","headers":"%h","length":%S}\n%s\n'
    words = ["-b", bootstrap, "-C", "-t", topic, "-e", "-q", "-f", form]
    words += ["-X", "isolation.level=read_committed"]
    done = subprocess.run([program, *words], capture_output=True, check=True, timeout=60)
    lines = done.stdout.splitlines()
    return [
        orjson.loads(head) | {"value": orjson.loads(value)}
        for head, value in zip(lines[::2], lines[1::2], strict=True)
    ]
