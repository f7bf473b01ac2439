"""Fits beside the stream: whatever goes wrong with one is raised where somebody takes it."""

import asyncio

import pytest

from stream_calib.ports import Fitter
from stream_calib.service.refits import Refits
from stream_calib.service.runner import unobserved
from stream_calib.values import Fit, FitFailure, FitRequest

SOON_S = 30.0  # far above what a turn of the event loop takes
REQUEST = FitRequest("dcc", 1, "first", 123, {}, {})


class OurOwnError(Exception):
    pass


class Answering(Fitter):
    async def fit(self, request: FitRequest) -> Fit | FitFailure:
        return Fit(request.model, {})

    async def close(self) -> None: ...


class Raising(Answering):
    async def fit(self, request: FitRequest) -> Fit | FitFailure:
        raise OurOwnError


def fail(*_: object) -> None:
    raise OurOwnError


async def asked(refits: Refits) -> None:
    await asyncio.to_thread(refits.ask, REQUEST)
    await asyncio.wait_for(refits.ready(), SOON_S)


async def test_a_fit_that_came_back_is_taken_once() -> None:
    excused: list[None] = []
    refits = Refits("u", Answering(), unobserved(), lambda: excused.append(None))
    await asked(refits)
    held = [refits.awaited]
    assert len(refits.take()) == len(excused) == 1
    assert [*held, refits.awaited] == [True, False]
    assert refits.take() == ()


async def test_what_a_fitter_raises_is_raised_where_its_fit_is_taken() -> None:
    refits = Refits("u", Raising(), unobserved(), lambda: None)
    await asked(refits)
    with pytest.raises(OurOwnError):
        refits.take()


async def test_what_is_raised_while_a_fit_is_told_of_is_raised_where_it_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    observer = unobserved()
    monkeypatch.setattr(observer, "refitted", fail)
    refits = Refits("u", Answering(), observer, lambda: None)
    await asked(refits)  # nobody else would end the wait: the watchdog excuses it
    with pytest.raises(OurOwnError):
        refits.take()
