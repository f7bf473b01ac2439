"""Whose turn it is: nothing is missed while a process looks away, and a loss is no end."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from stream_calib.adapters.embedded import EmbeddedCommitLog, EmbeddedSource
from stream_calib.config import parse_config
from stream_calib.errors import ConfigError, NotOurTurnError, OwnershipError
from stream_calib.service.runner import unobserved
from stream_calib.service.turn import FENCED_MOST, Turn
from stream_calib.values import RecordBatch
from tests.service.outside import Outside, asked

WAIT_S = 120.0
CONFIG = parse_config({"universe": [{"name": "u", "symbols": ["A", "B"], "topics": ["t"]}]})


class Agreed:
    """What the others say, as a test wants it."""

    def __init__(self) -> None:
        self.ours = self.spare = False
        self.joined = True
        self.failure: Exception | None = None
        self._change = asyncio.Event()

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def holds(self, _partition: int) -> bool:
        return self.ours

    def say(self, *, ours: bool, spare: bool = False) -> None:
        self.ours, self.spare = ours, spare
        self._change.set()
        self._change = asyncio.Event()

    def fail(self, failure: Exception) -> None:
        self.failure = failure
        self.say(ours=False)

    def changed(self) -> Coroutine[Any, Any, None]:
        change = self._change

        async def wait() -> None:
            await change.wait()
            if self.failure is not None:
                raise self.failure

        return wait()

    async def confirm(self, _partition: int) -> bool:
        return self.ours


class HeldTurn(Turn):
    """A turn whose standby closes only when told."""

    closing = asyncio.Event()
    closed = asyncio.Event()

    async def drop(self) -> None:
        if self._standby is not None:
            self.closing.set()
            await self.closed.wait()
            self._standby = None


def turn(agreed: Agreed, kind: type[Turn] = Turn) -> Turn:
    async def in_thread(work: Any) -> Any:
        return work()

    return kind(CONFIG, CONFIG.universe[0], agreed, lambda: None, unobserved(), in_thread)  # type: ignore[arg-type,return-value]


async def test_what_is_given_while_a_standby_closes_is_not_missed() -> None:
    agreed, stop = Agreed(), asyncio.Event()
    held = turn(agreed, HeldTurn)
    assert isinstance(held, HeldTurn)
    held.closing, held.closed = asyncio.Event(), asyncio.Event()
    held._standby = object()  # type: ignore[assignment]
    coming = asyncio.create_task(held.come(stop))
    await held.closing.wait()
    agreed.say(ours=True)
    held.closed.set()
    async with asyncio.timeout(WAIT_S):
        assert await coming is None
    assert held.is_ours


async def test_who_stops_takes_nothing_along() -> None:
    agreed, stop = Agreed(), asyncio.Event()
    waiting = turn(agreed)
    coming = asyncio.create_task(waiting.come(stop))
    await asyncio.sleep(0)
    stop.set()
    async with asyncio.timeout(WAIT_S):
        assert await coming is None
    assert waiting.known.is_set()
    assert waiting.has_waited


async def test_why_it_can_own_nothing_any_more_is_raised_where_somebody_waits() -> None:
    for wait in ("come", "passes"):
        agreed, stop = Agreed(), asyncio.Event()
        agreed.ours = wait == "passes"
        waiting: asyncio.Task[object] = asyncio.create_task(getattr(turn(agreed), wait)(stop))
        await asyncio.sleep(0)
        agreed.fail(ConfigError("snapshots.folder"))
        async with asyncio.timeout(WAIT_S):
            with pytest.raises(ConfigError, match="folder"):
                await waiting


async def test_only_a_stranger_who_keeps_writing_is_an_end() -> None:
    agreed = Agreed()
    ours = turn(agreed)
    for _ in range(3 * FENCED_MOST):  # others took it over, and were given it
        await ours.note_fenced(OwnershipError("fenced"))
        await ours.note_fenced(NotOurTurnError("not ours"))
    agreed.ours = True
    for _ in range(FENCED_MOST):
        await ours.note_fenced(OwnershipError("fenced"))
        await ours.note_fenced(NotOurTurnError("not ours"))  # the group was slow to say so
    with pytest.raises(OwnershipError, match="fenced"):
        await ours.note_fenced(OwnershipError("fenced"))


async def test_a_universe_that_has_passed_to_another_is_not_watched_any_more() -> None:
    outside, agreed = Outside(), Agreed()
    agreed.ours, outside.ownership = True, agreed
    outside.tick(0, 20)
    async with asked(outside) as service, asyncio.timeout(WAIT_S):
        watched = service.service.watchdog._seen
        while "fx" not in watched:  # noqa: ASYNC110 (it has no event)
            await asyncio.sleep(0.01)
        agreed.say(ours=False)
        while watched:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class Asking(Agreed):
    """A group that answers late, and by then has given the universe to another one."""

    def __init__(self) -> None:
        super().__init__()
        self.ours, self.asked = True, asyncio.Event()

    async def lose(self) -> None:
        self.asked.set()
        await asyncio.sleep(0.2)
        self.say(ours=False)
        raise NotOurTurnError("it is another one's by now")


async def test_a_universe_that_is_taken_before_it_is_at_work_holds_up_no_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outside, agreed = Outside(), Asking()
    outside.ownership = agreed
    monkeypatch.setattr(EmbeddedCommitLog, "own", lambda _log: agreed.lose())
    service, stop, started = outside.service(), asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(service.run(stop, started.set))
    async with asyncio.timeout(WAIT_S):
        await agreed.asked.wait()
        await started.wait()
        stop.set()
        await running


async def test_a_client_that_cancels_itself_is_out_of_contact_and_no_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outside, polls = Outside(), 0
    poll = EmbeddedSource.poll

    async def gives_up_once(
        source: EmbeddedSource, max_records: int, timeout_s: float
    ) -> list[RecordBatch]:
        nonlocal polls
        polls += 1
        if polls == 5:
            raise asyncio.CancelledError
        return await poll(source, max_records, timeout_s)

    monkeypatch.setattr(EmbeddedSource, "poll", gives_up_once)
    async with asked(outside) as service:
        await service.until("universe fx: no matrix yet")
        async with asyncio.timeout(WAIT_S):
            while polls < 6:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        outside.tick(0, 60)
        await service.until()
