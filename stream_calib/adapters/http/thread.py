"""The HTTP face on an event loop in a thread of its own: no viewer holds up the service's."""

import asyncio
import contextlib
import errno
import logging
import math
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from stream_calib.adapters.http.server import Ask, HttpServer

ANSWER_S = 5.0  # the service's loop is never busy that long
JOIN_S = 5.0
QUIET_S = 1.0  # asyncio accepts nobody that long once it could not

T = TypeVar("T")


class HttpThread:
    """Runs an ``HttpServer`` beside the event loop that it is started from.

    Parameters
    ----------
    new_server
        Makes the server; it is given what asks the loop that ``start`` was called on: a function
        is called there, and what it returns is awaited for 5 seconds.

    Attributes
    ----------
    url, port
        As those of the server.
    """

    def __init__(self, new_server: Callable[[Ask], HttpServer]) -> None:
        self._server = new_server(self._ask)
        self._asked: asyncio.AbstractEventLoop | None = None
        self._own: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where a program on this machine reaches it."""
        return self._server.url

    @property
    def port(self) -> int:
        """The port bound, 0 before ``start``."""
        return self._server.port

    async def start(self) -> int:
        """Listen, and return the port.

        Raises
        ------
        PortInUseError
            Another process listens there.
        ConfigError
            The address cannot be listened on.
        """
        self._asked = asyncio.get_running_loop()
        self._own = own = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_run, args=(own,), name="http", daemon=True)
        self._thread.start()
        try:
            return await asyncio.wrap_future(
                asyncio.run_coroutine_threadsafe(self._server.start(), own)
            )
        except BaseException:
            await self._end()
            raise

    async def close(self) -> None:
        """Stop listening and drop connections within a few seconds; never raises."""
        if self._own is not None:
            closing = asyncio.run_coroutine_threadsafe(self._server.close(), self._own)
            with contextlib.suppress(TimeoutError):  # its loop hangs, and ends with the process
                await asyncio.wait_for(asyncio.wrap_future(closing), JOIN_S)
            await self._end()

    async def _end(self) -> None:
        own, self._own, thread = self._own, None, self._thread
        assert own is not None
        assert thread is not None
        own.call_soon_threadsafe(own.stop)
        await asyncio.to_thread(thread.join, JOIN_S)

    async def _ask(self, question: Callable[[], T]) -> T:
        async def answer() -> T:
            return question()

        assert self._asked is not None
        asked = asyncio.run_coroutine_threadsafe(answer(), self._asked)
        return await asyncio.wait_for(asyncio.wrap_future(asked), ANSWER_S)


class Complaints:
    """What nobody on an event loop has caught."""

    def __init__(self) -> None:
        self._said_s = -math.inf

    def tell(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log it; that no descriptor is left once a second, not for each who is not let in."""
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in {errno.EMFILE, errno.ENFILE}:
            loop.default_exception_handler(context)
        elif loop.time() - self._said_s >= QUIET_S:
            self._said_s = loop.time()
            logging.getLogger("stream_calib.http").error("nobody is let in: %s", error.strerror)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.set_exception_handler(Complaints().tell)
    try:
        loop.run_forever()
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
