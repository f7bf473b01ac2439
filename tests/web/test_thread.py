"""The HTTP face in a thread of its own, beside the event loop that it tells of."""

import asyncio
import contextlib
import errno
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
from pydantic import SecretStr

from stream_calib.adapters.http import Health, HttpServer, HttpThread, LiveView
from stream_calib.adapters.http import thread as thread_module
from stream_calib.config import HttpConfig
from stream_calib.errors import PortInUseError
from stream_calib.service.runner import unobserved
from stream_calib.wire.live import decode_live
from tests.web.showing import blocks, effects_of, matrix_of

BEARER = {"Authorization": "Bearer a-token-that-is-long"}


@contextlib.asynccontextmanager
async def aside(
    view: LiveView | None = None,
    health: Callable[[], Health] = lambda: Health(ready=True),
    refit: Callable[[str], bool | None] = lambda _: None,
    config: HttpConfig | None = None,
) -> AsyncIterator[HttpThread]:
    settings = config or HttpConfig(port=0)
    started = HttpThread(
        lambda ask: HttpServer(
            settings, lambda _: (b"", "text/plain"), health, "1", refit, view, ask
        )
    )
    await started.start()
    try:
        yield started
    finally:
        await started.close()


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        yield session


async def test_what_the_service_knows_is_asked_on_its_own_loop(
    client: aiohttp.ClientSession,
) -> None:
    threads = []

    def health() -> Health:
        threads.append(threading.get_ident())
        return Health(ready=False, reasons=("no matrix yet",))

    def refit(universe: str) -> bool:
        threads.append(threading.get_ident())
        return universe == "fx"

    config = HttpConfig(port=0, token=SecretStr("a-token-that-is-long"))
    async with aside(health=health, refit=refit, config=config) as server:
        async with client.get(f"{server.url}/healthz") as answer:
            assert answer.status == 200
        async with client.get(f"{server.url}/readyz", headers=BEARER) as answer:
            assert (await answer.json())["reasons"] == ["no matrix yet"]
        async with client.post(f"{server.url}/refit/fx", headers=BEARER) as answer:
            assert answer.status == 202
        async with client.post(f"{server.url}/refit/other", headers=BEARER) as answer:
            assert answer.status == 503
    assert set(threads) == {threading.get_ident()}


async def test_a_service_whose_loop_hangs_is_not_healthy(
    client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread_module, "ANSWER_S", 0.1)
    async with aside() as server:
        url, status = f"{server.url}/healthz", []

        def ask() -> None:
            status.append(asyncio.run(_status(url)))

        asking = threading.Thread(target=ask)
        asking.start()
        while not status:
            time.sleep(0.01)  # noqa: ASYNC251 (this loop is held up on purpose)
        asking.join()
        assert status == [503]
        monkeypatch.setattr(thread_module, "ANSWER_S", 60.0)
        async with client.get(url) as answer:
            assert answer.status == 200


async def test_matrices_told_on_one_loop_are_served_by_the_other(
    client: aiohttp.ClientSession,
) -> None:
    view = LiveView(("fx",), unobserved())
    async with aside(view) as server, client.ws_connect(f"{server.url}/ws") as socket:
        await socket.send_json({"watch": ["fx", "ewma"]})
        for k in range(1, 10):
            view.show("fx", effects_of(matrix_of(blocks(3, 1), k)))
            head, _, _ = decode_live(await socket.receive_bytes(timeout=60))
            assert head["sequence"] == k
            await socket.send_json({"drawn": 1})
    view.show("fx", effects_of(matrix_of(blocks(3, 1), 11)))  # nobody is there, which is no error


async def test_a_taken_port_is_told_and_leaves_no_thread() -> None:
    async with aside() as server:
        with pytest.raises(PortInUseError, match="taken by another process"):
            async with aside(config=HttpConfig(port=server.port)):
                pass
        assert sum(t.name == "http" for t in threading.enumerate()) == 1
    assert not [t for t in threading.enumerate() if t.name == "http"]


async def _status(url: str) -> int:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status


async def test_a_crowd_that_finds_no_descriptor_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR, "asyncio")  # a stop that was tested before has hushed it
    loop, complaints = asyncio.get_running_loop(), thread_module.Complaints()
    for number in [errno.EMFILE] * 100 + [errno.EIO] * 2:
        error = OSError(number, os.strerror(number))
        complaints.tell(loop, {"message": "socket.accept() failed", "exception": error})
    said = [(record.name, record.levelno) for record in caplog.records]
    # what else is raised is told each time
    assert said == [("stream_calib.http", logging.ERROR)] + [("asyncio", logging.ERROR)] * 2
    assert caplog.messages[0] == "nobody is let in: Too many open files"
