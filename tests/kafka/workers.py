"""Several workers of one service, the input that comes meanwhile, and what has to come of it."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from stream_calib.adapters.kafka import KafkaSink, TopicSpec, ensure_topics
from stream_calib.config import KafkaConfig
from stream_calib.simulation import simulate
from stream_calib.values import Output
from tests.kafka.killing import ROLES, Published, Victim, read
from tests.kafka.living import Live
from tests.kafka.test_faults_process import reference, sizes

SESSION_S = 2.0
DEADLINE_S = 300.0
CHUNK_S = 0.1
GARBAGE = b'{"symbol": "broken'
GARBAGE_EVERY = 97
DEBUG = ("--log-level", "debug")  # says each matrix once it is committed


class Workers(Victim):
    """A victim that several processes serve, all in one folder.

    Nothing but the input decides what is published: silence, which is told by the clock, closes no
    bar and no source.
    """

    universes: Sequence[str] = ("u",)
    standby = "spare"
    session_s = SESSION_S
    idle_slack = flush_after = "1h"
    replay_cost = "100ms"

    async def create_topics(self) -> None:
        self._share(self.universes)
        await super().create_topics()

    async def of_all(self) -> list[Published]:
        """What was published, by partition."""

        async def of(partition: int) -> Published:
            names = [f"{self.prefix}.{role}" for role in ROLES]
            rows = await asyncio.gather(*(read(self.bootstrap, n, partition) for n in names))
            return dict(zip(ROLES, rows, strict=True))

        return await asyncio.gather(*(of(k) for k in range(len(self.universes))))

    async def expected(self) -> list[Published]:
        """What comes of the input as it is now where nothing ever happens, without a service."""
        return [await self._reference(name) for name in self.universes]

    async def repeated_all(self) -> list[Published]:
        """What the journal of each universe gives."""
        return [await self.repeated(place=k) for k in range(len(self.universes))]

    async def until_all(self, expected: Sequence[Published]) -> None:
        """Wait until there is as much as expected."""
        found: list[Published] = []
        deadline_s = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline_s:
            found = await self.of_all()
            if [sizes(one) for one in found] == [sizes(one) for one in expected]:
                return
            await asyncio.sleep(0.5)
        raise AssertionError(([sizes(one) for one in found], [sizes(one) for one in expected]))

    async def _reference(self, universe: str) -> Published:
        one = replace(self, folder=self.folder / f"alone-{universe}")
        one.folder.mkdir()
        text = self.config_file.read_text()
        head, *tables = text.split("[[universe]]")
        (own,) = [table for table in tables if f'name = "{universe}"' in table]
        one.config_file.write_text(f"{head}[[universe]]{own}")
        return await reference(one, flush=False)

    def _share(self, universes: Sequence[str]) -> None:
        head, _, first = self.config_file.read_text().partition("[[universe]]")
        tables = [first.replace('name = "u"', f'name = "{name}"') for name in universes]
        for old, new in (
            ('idle_slack = "1s"', f'idle_slack = "{self.idle_slack}"'),
            ('flush_after = "1500ms"', f'flush_after = "{self.flush_after}"'),
            ('replay_cost = "100ms"', f'replay_cost = "{self.replay_cost}"'),
        ):
            assert old in head
            head = head.replace(old, new)
        ownership = f'standby = "{self.standby}"\nsession_timeout = "{self.session_s:g}s"\n'
        self.config_file.write_text(
            f"{head}[ownership]\n{ownership}" + "".join(f"[[universe]]{one}" for one in tables)
        )


class Input(NamedTuple):
    """A topic of one partition, and what is to be written into it: event seconds and bytes."""

    topic: str
    symbols: tuple[str, ...]
    rows: list[tuple[float, bytes]]


async def input_of(
    bootstrap: str, seed: int, seconds: float, *, n_symbols: int = 12, rate_hz: float = 4.0
) -> Input:
    """Create the topic of simulated ticks with some garbage between them; nothing is in it yet."""
    ticks = simulate(n_symbols, seconds, seed=seed, rate_hz=rate_hz)
    topic = f"workers-ticks-{uuid.uuid4().hex[:12]}"
    await ensure_topics(KafkaConfig(bootstrap_servers=bootstrap), [TopicSpec(topic)])
    due_s = ((ticks.time_ns - ticks.time_ns[0]) / 1e9).tolist()
    rows: list[tuple[float, bytes]] = []
    for k, (at_s, record) in enumerate(zip(due_s, ticks.records(), strict=True)):
        rows.append((at_s, orjson.dumps(record)))
        if k % GARBAGE_EVERY == 0:
            rows.append((at_s, GARBAGE))
    return Input(topic, ticks.symbols, rows)


class Feed:
    """Writes an input at a steady pace, some event seconds for each second."""

    def __init__(self, bootstrap: str, given: Input, *, ahead_s: float, speed: float) -> None:
        self._given, self._ahead_s, self._speed = given, ahead_s, speed
        self._config = KafkaConfig(bootstrap_servers=bootstrap)
        self._stop = asyncio.Event()
        self.there = asyncio.Event()  # what is there ahead of the rest
        self.task = asyncio.create_task(self._run())

    @property
    def is_over(self) -> bool:
        """Whether nothing comes any more."""
        return self.task.done()

    async def end(self) -> None:
        """Write no more; return when all that was begun is there."""
        self._stop.set()
        await self.task

    async def _run(self) -> None:
        rows, topic, position = self._given.rows, self._given.topic, 0
        sink, clock = KafkaSink(self._config), asyncio.get_running_loop().time
        await sink.start()
        try:
            began_s = clock()
            while position < len(rows) and not self._stop.is_set():
                due_s = self._ahead_s + self._speed * (clock() - began_s)
                until = position
                while until < len(rows) and rows[until][0] <= due_s:
                    until += 1
                await sink.publish(
                    [Output(topic, 0, b"", value, ()) for _, value in rows[position:until]]
                )
                position = until
                if not self.there.is_set():
                    self.there.set()
                    began_s = clock()
                await asyncio.sleep(CHUNK_S)
        finally:
            await sink.close()


@contextlib.asynccontextmanager
async def feeding(
    bootstrap: str, given: Input, *, ahead_s: float = 0.0, speed: float = 1.0
) -> AsyncIterator[Feed]:
    """Write an input while the block runs; so many event seconds of it are there before."""
    feed = Feed(bootstrap, given, ahead_s=ahead_s, speed=speed)
    try:
        there = asyncio.create_task(feed.there.wait())
        await asyncio.wait({there, feed.task}, return_when=asyncio.FIRST_COMPLETED)
        there.cancel()
        yield feed
    finally:
        if not feed.is_over:
            feed.task.cancel()
            await asyncio.wait({feed.task})


async def served_by(bootstrap: str, folder: Path, given: Input, **settings: Any) -> Workers:
    """Return who is to serve an input, with topics of their own; nobody is at work yet."""
    served = Workers(bootstrap, folder / "served", [given.topic], given.symbols)
    for name, value in settings.items():
        assert hasattr(served, name), name
        setattr(served, name, value)
    await served.prepare()
    return served


def said(worker: Live, event: str) -> list[dict[str, Any]]:
    lines = [orjson.loads(line) for line in list(worker.lines) if line.endswith("}\n")]
    return [line for line in lines if line["event"] == event]


async def until_said(worker: Live, event: str) -> None:
    """Wait until a worker says so."""
    await asyncio.to_thread(worker.until_said, event)
