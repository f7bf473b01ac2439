"""A partition whose leader is away, in a whole service; and a look at the ends that fails."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest

from stream_calib.adapters.embedded import EmbeddedCommitLog, EmbeddedSource
from stream_calib.errors import TransportError
from stream_calib.service import pacing
from stream_calib.service import universe as universe_module
from stream_calib.service.topics import topics_by_role
from stream_calib.service.wiring import Adapters, Service
from stream_calib.values import RecordBatch, Source
from tests.service.outside import NAME, T0_S, WAIT_S, Asked, Outside, asked

P, Q = Source("ticks", 0), Source("ticks", 1)
AWAY = "the leader is away"
SILENT = f"{NAME}: nothing is heard of topic 'ticks' partition 1; what depends on it waits"


class TwoLeaders(Outside):
    """Two partitions, of one of which nothing is heard for a while, as a Kafka client hears it."""

    def __init__(self) -> None:
        super().__init__(partitions=2)
        self.away: frozenset[Source] = frozenset()
        self.failure: Exception | None = None

    def ticks(self, first: int, last: int) -> None:
        """Write a tick of A to one partition and one of B to the other, for each second."""
        for second in range(first, last):
            for partition, symbol, period in ((0, "A", 7), (1, "B", 11)):
                tick = {"symbol": symbol, "time": (T0_S + second) * 1_000_000_000}
                tick["price"] = 100.0 + 0.01 * (second % period)
                self.log.append("ticks", partition, None, json.dumps(tick).encode())

    def service(self) -> Service:
        outside = self

        class Client(EmbeddedSource):
            def __init__(self) -> None:
                super().__init__(outside.log, ("ticks",))
                self.told: dict[Source, int] = {}
                self.at_s: dict[Source, float] = {}
                self.wanted: frozenset[Source] = frozenset()

            def pause(self, sources: frozenset[Source]) -> None:
                self.wanted = sources

            async def poll(self, max_records: int, timeout_s: float) -> list[RecordBatch]:
                away = outside.away
                super().pause(self.wanted | away)
                batches = await super().poll(max_records, timeout_s)
                for source, end in super().ends().items():
                    if source not in away:
                        self.told[source] = end
                        self.at_s[source] = asyncio.get_running_loop().time()
                return batches

            def ends(self) -> Mapping[Source, int]:
                return dict(self.told)

            def told_s(self) -> Mapping[Source, float]:
                return dict.fromkeys(self._positions, 0.0) | self.at_s

            async def bounds(self, sources: Sequence[Source]) -> Mapping[Source, tuple[int, int]]:
                if outside.failure is not None:
                    raise outside.failure
                return await super().bounds(sources)

        topics = topics_by_role(self.config)
        adapters = Adapters(
            lambda _: Client(),
            lambda _: EmbeddedCommitLog(self.log, topics),
            lambda _: self.store,
        )
        return Service(self.config, adapters)


def counted(service: Asked) -> dict[str, float]:
    """Return how many ticks had which outcome."""
    text = service.service.observer.render()[0].decode()
    lines = re.findall(r'stream_calib_ticks_total\{outcome="(\w+)",.*\} ([\d.e+]+)', text)
    total: dict[str, float] = {}
    for outcome, n in lines:
        total[outcome] = total.get(outcome, 0.0) + float(n)
    return {outcome: n for outcome, n in total.items() if n > 0}


async def until_applied(service: Asked, n: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while counted(service).get("applied", 0.0) != n:  # noqa: ASYNC110 (it has no event)
            await asyncio.sleep(0.02)


@asynccontextmanager
async def two_leaders(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[TwoLeaders, Asked]]:
    monkeypatch.setattr(universe_module, "PROBE_S", 0.05)
    # long against a turn of a slow machine that hears of both
    monkeypatch.setattr(pacing, "UNHEARD_S", 1.0)
    outside = TwoLeaders()
    async with asked(outside) as service:
        outside.ticks(0, 60)
        await service.until()
        yield outside, service
        outside.away, outside.failure = frozenset(), None


async def test_no_tick_is_late_because_its_leader_was_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with two_leaders(monkeypatch) as (outside, service):
        await until_applied(service, 120)
        outside.away, outside.failure = frozenset({Q}), TransportError(AWAY)
        await service.until(f"{NAME}: {AWAY}", SILENT)
        outside.ticks(60, 120)  # twelve times idle_slack
        async with asyncio.timeout(WAIT_S):
            while counted(service)["applied"] <= 120:  # noqa: ASYNC110 (it has no event)
                await asyncio.sleep(0.02)
        await service.until(f"{NAME}: {AWAY}", SILENT)
        outside.away, outside.failure = frozenset(), None
        outside.ticks(120, 130)
        await until_applied(service, 260)
        await service.until()
        assert counted(service) == {"applied": 260.0}


async def test_a_look_at_the_ends_that_fails_leaves_the_watchdog_at_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with two_leaders(monkeypatch) as (outside, service):
        watched = service.service.watchdog._seen
        outside.failure = TransportError(AWAY)
        await service.until(f"{NAME}: {AWAY}")
        assert watched == {}  # it is known why nothing comes
        outside.failure = RuntimeError("an answer that nobody expects")
        async with asyncio.timeout(WAIT_S):
            while "fx" not in watched:  # noqa: ASYNC110 (it has no event)
                await asyncio.sleep(0.02)
        await service.until()
        outside.failure = TransportError(AWAY)  # it goes on looking
        await service.until(f"{NAME}: {AWAY}")
