"""What /readyz and /healthz say of a service, from its first second to the day it stands still."""

import asyncio
from collections.abc import Callable

import pytest

from stream_calib.service import universe as universe_module
from tests.service.outside import NAME, WAIT_S, Outside, asked


async def test_a_start_says_what_it_waits_for() -> None:
    outside = Outside()
    outside.connected.clear()
    async with asked(outside) as service:
        await service.until(f"{NAME}: not connected yet")
        assert await service.get("/healthz") == (200, {"alive": True})
        outside.connected.set()
        await service.until(f"{NAME}: no matrix yet")
        outside.tick(1, 60)
        await service.until()


async def test_a_topic_without_partitions_is_said_to_have_none() -> None:
    outside = Outside(partitions=0)
    async with asked(outside) as service:
        await service.until(f"{NAME}: no input partition yet")
        outside.log.create_topic("ticks", 1)
        await service.until(f"{NAME}: no matrix yet")


async def test_a_commit_that_gets_no_answer_is_given_as_the_reason() -> None:
    outside = Outside()
    async with asked(outside) as service:
        outside.tick(1, 60)
        await service.until()
        outside.owned.clear()
        outside.broken = "nobody answered"
        outside.tick(61, 70)
        # it begins anew, and is held up there
        await service.until(f"{NAME}: nobody answered", f"{NAME}: recovering")
        outside.broken = ""
        outside.owned.set()
        await service.until()  # matrices are there; what came meanwhile follows
        text = service.service.observer.render()[0].decode()
    assert 'commits_total{outcome="failed",universe="fx"} 1.0' in text


async def test_a_broker_that_is_away_is_noticed_without_anything_to_commit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(universe_module, "PROBE_S", 0.05)
    outside = Outside()
    async with asked(outside) as service:
        outside.tick(1, 60)
        await service.until()
        outside.broken = "the broker is away"
        said: list[str] = []
        async with asyncio.timeout(WAIT_S):
            while f"{NAME}: the broker is away" not in said:
                await asyncio.sleep(0.02)
                said = (await service.get("/readyz"))[1]["reasons"]
        outside.broken = ""
        await service.until()


async def test_standing_still_for_half_of_the_limit_is_not_to_be_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outside = Outside()
    async with asked(outside) as service:
        outside.tick(1, 60)
        await service.until()
        watchdog = service.service.watchdog
        now: Callable[[], float] = watchdog._clock
        monkeypatch.setattr(watchdog, "look", lambda: None)  # or it would end this process
        monkeypatch.setattr(watchdog, "progressed", lambda *_: None)  # nothing is heard any more
        monkeypatch.setattr(watchdog, "_clock", lambda: now() + 31.0)
        await service.until("nothing was heard of universe 'fx' for 30 s")
        assert await service.get("/healthz") == (503, {"alive": False})
        monkeypatch.undo()
        await service.until()
        assert await service.get("/healthz") == (200, {"alive": True})
