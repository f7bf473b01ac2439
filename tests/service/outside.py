"""A whole service on the in-process log, which a test can hold up and break, and who asks it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import aiohttp

from stream_calib.adapters.embedded import EmbeddedCommitLog, EmbeddedLog, EmbeddedSource
from stream_calib.config import Config, parse_config
from stream_calib.errors import TransportError
from stream_calib.ports import JournalRecord, Ownership, SnapshotStore
from stream_calib.service.topics import output_topics, topics_by_role
from stream_calib.service.wiring import Adapters, Service
from stream_calib.values import Output, Source

WAIT_S = 60.0  # for a machine ten times as slow
NAME = "universe fx"
T0_S = 1_700_000_000
UNIVERSE = {
    "name": "fx",
    "symbols": ["A", "B"],
    "ready_n_eff": 2,
    "ewma": {"window": "1s"},
    "dcc": {"enabled": False},
}


class Outside:
    """The in-process log, which can be held up and broken."""

    def __init__(self, partitions: int = 1) -> None:
        self.config: Config = parse_config(
            {
                "universe": [UNIVERSE],
                "http": {"port": 0},
                "snapshots": {"replay_cost": "1ms"},
                "delivery": {"commit_interval": "50ms", "watchdog_after": "60s"},
            }
        )
        self.log = EmbeddedLog()
        self.connected, self.owned = asyncio.Event(), asyncio.Event()
        self.connected.set()
        self.owned.set()
        self.broken = ""
        self.store: SnapshotStore | None = None
        self.ownership: Ownership | None = None
        for name in ("ticks", *(spec.name for spec in output_topics(self.config))):
            self.log.create_topic(name, partitions if name == "ticks" else 1)

    def tick(self, first: int, last: int) -> None:
        """Write a tick of each symbol for every second of these, which moves a little."""
        for second in range(first, last + 1):
            for symbol, period in (("A", 7), ("B", 11)):
                tick = {"symbol": symbol, "time": (T0_S + second) * 1_000_000_000}
                tick["price"] = 100.0 + 0.01 * (second % period)
                self.log.append("ticks", 0, None, json.dumps(tick).encode())

    def service(self) -> Service:
        outside = self

        class HeldSource(EmbeddedSource):
            async def start(self) -> None:
                await outside.connected.wait()
                await super().start()

            async def bounds(self, sources: Sequence[Source]) -> Mapping[Source, tuple[int, int]]:
                if outside.broken:
                    raise TransportError(outside.broken)
                return await super().bounds(sources)

        class HeldLog(EmbeddedCommitLog):
            async def own(self) -> Sequence[JournalRecord]:
                await outside.owned.wait()
                return await super().own()

            async def commit(
                self, outputs: Sequence[Output], entry: Output, positions: Mapping[Source, int]
            ) -> int:
                if outside.broken:
                    raise TransportError(outside.broken)
                return await super().commit(outputs, entry, positions)

        topics = topics_by_role(self.config)
        adapters = Adapters(
            lambda _: HeldSource(self.log, ("ticks",)),
            lambda _: HeldLog(self.log, topics),
            lambda _: self.store,
            ownership=self.ownership,
        )
        return Service(self.config, adapters)


class Asked:
    """A service that runs, and who asks it."""

    def __init__(self, service: Service, client: aiohttp.ClientSession) -> None:
        self.service = service
        self._client = client

    async def get(self, path: str) -> tuple[int, Any]:
        async with self._client.get(f"{self.service.http.url}{path}") as response:
            return response.status, await response.json()

    async def until(self, *reasons: str) -> None:
        """Wait until these are the reasons that are given."""
        said: list[str] | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                while said != [*reasons]:
                    await asyncio.sleep(0.02)
                    status, answer = await self.get("/readyz")
                    assert status == (200 if answer["ready"] else 503)
                    assert answer["ready"] == (not answer["reasons"])
                    said = answer["reasons"]
        assert said == [*reasons]


@contextlib.asynccontextmanager
async def asked(outside: Outside) -> AsyncIterator[Asked]:
    service, stop = outside.service(), asyncio.Event()
    running = asyncio.create_task(service.run(stop))
    try:
        while not (service.http.url or running.done()):  # noqa: ASYNC110 (it has no event for it)
            await asyncio.sleep(0.01)
        async with aiohttp.ClientSession() as client:
            yield Asked(service, client)
    finally:
        outside.broken = ""
        for event in (outside.connected, outside.owned, stop):
            event.set()
        await asyncio.wait_for(running, WAIT_S)
