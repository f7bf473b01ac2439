"""Listens: /metrics, /healthz, /readyz, /version, POST /refit/<universe>, and the live view."""

import asyncio
import contextlib
import errno
import logging
import os
import resource
from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from stream_calib.adapters.http.admission import Admission
from stream_calib.adapters.http.answers import Request, as_json, plain
from stream_calib.adapters.http.live import LiveView
from stream_calib.adapters.http.pages import Pages
from stream_calib.config import HttpConfig
from stream_calib.errors import ConfigError, PortInUseError

CLOSE_S = 3.0
REFIT_PATH = "/refit/"
LINGER_S = 0.5  # an unwanted body is read no longer than this
FIRST_S = 10.0  # within which a connection has to have asked for something
CONNECTIONS_MAX = 200  # and half of the descriptors there may be, which Kafka and files need too
HUNG = "the service does not answer"

T = TypeVar("T")


class Ask(Protocol):
    """Calls a function where the service is at home, and returns what it returns."""

    async def __call__(self, question: Callable[[], T], /) -> T:
        """Call it; TimeoutError where there is no answer."""
        ...


async def here(question: Callable[[], T]) -> T:
    """Call it on this event loop."""
    return question()


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the service works (``alive``), and whether it is of use yet (``ready``).

    ``reasons`` say in words what is missing; they are shown to whoever may ask. Of the universes
    in ``standing_by`` another process is the owner.
    """

    ready: bool
    reasons: tuple[str, ...] = ()
    alive: bool = True
    standing_by: tuple[str, ...] = ()


class HttpServer:
    """Answers on the event loop it is started on.

    Parameters
    ----------
    config
        Address and token; with a token every path but /healthz asks for it, and without one
        they answer under a loopback name alone, and nothing can be changed through POST.
    render
        Takes the Accept header, returns the metrics and their content type; called in a thread.
    health
        Asked at each request; must not wait.
    version
        What /version answers.
    refit
        Has a full fit made for the universe of a name: whether it will be; None: there is none
        of that name.
    view
        What the live view shows, which is there where this is.
    ask
        Calls ``health`` and ``refit``; TimeoutError where there is no answer.
    refused
        Told of who is turned away, by a reason of ``answers.REFUSALS``, or ``crowd`` and ``slow``.

    Attributes
    ----------
    port
        The port bound, 0 before ``start``.
    url
        Where a program on this machine reaches it, without a slash at the end.
    """

    def __init__(
        self,
        config: HttpConfig,
        render: Callable[[str], tuple[bytes, str]],
        health: Callable[[], Health],
        version: str,
        refit: Callable[[str], bool | None],
        view: LiveView | None = None,
        ask: Ask = here,
        refused: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.port = 0
        self.url = ""
        self._config = config
        self._render = render
        self._health = health
        self._version = version
        self._refit = refit
        self._ask = ask
        self._refused = refused
        self._runner: web.ServerRunner | None = None
        self._server: _Server | None = None
        token = config.token
        self._admission = Admission(None if token is None else token.get_secret_value())
        self._view = view
        self._showing: asyncio.Task[None] | None = None
        self._viewed = None if view is None else Pages(view, self._admission, self._told)
        self._pages = {
            "/metrics": self._metrics,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/version": self._about,
        }

    async def start(self) -> int:
        """Listen, and return the port.

        Raises
        ------
        PortInUseError
            Another process listens there.
        ConfigError
            The address cannot be listened on.
        """
        server = _Server(
            self._answer,
            request_factory=self._request,
            access_log=None,
            logger=_own_log(),
            lingering_time=LINGER_S,
        )
        server.refused = self._refused
        self._server = server
        if self._viewed is not None:
            server.kept = self._viewed.kept
        # waited for twice: for pages to be answered, then for those that hang to be dropped
        runner = web.ServerRunner(server, shutdown_timeout=CLOSE_S / 3)
        await runner.setup()
        host, port = self._config.host, self._config.port
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            await runner.cleanup()
            if error.errno == errno.EADDRINUSE:
                message = f"http.port: {host}:{port} is taken by another process"
                raise PortInUseError(message) from None
            # asyncio words some of them anew, with the address twice
            number = error.errno or 0
            reason = os.strerror(number) if number > 0 else error.strerror or str(error)
            message = f"http.host: cannot listen on {host}:{port} ({reason})"
            raise ConfigError(message) from None
        self._runner = runner
        if self._view is not None:
            self._view.at_home()
            self._showing = asyncio.create_task(self._view.run())
        bound, self.port = runner.addresses[0][:2]
        self.url = f"http://{_reachable(bound)}:{self.port}"
        return self.port

    async def close(self) -> None:
        """Stop listening and drop connections within a few seconds; never raises."""
        runner, self._runner = self._runner, None
        if self._showing is not None:
            self._showing.cancel()
        if runner is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(CLOSE_S):
                    if self._viewed is not None:
                        await self._viewed.close()
                    await runner.cleanup()

    def _request(self, *given: Any) -> Request:  # noqa: ANN401
        message, payload, protocol, writer, task = given
        loop = asyncio.get_running_loop()
        request = Request(message, payload, protocol, writer, task, loop)
        request.refused = self._refused
        return request

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._server is not None:
            self._server.asked(request.transport)
        if self._viewed is not None and self._viewed.owns(request.path):
            return await self._viewed.answer(request)
        if request.path == "/healthz":
            pass
        elif self._admission.is_open and not self._admission.same_site(request):
            return plain(403, self._admission.foreign)
        elif not self._admission.bearer(request):
            return plain(401, "a bearer token is needed", {"WWW-Authenticate": "Bearer"})
        if request.path.startswith(REFIT_PATH):
            return await self._refit_page(request)
        page = self._pages.get(request.path)
        if page is None:
            return plain(404, "not found")
        if request.method not in {"GET", "HEAD"}:
            return plain(405, "only GET and HEAD", {"Allow": "GET, HEAD"})
        if request.can_read_body:
            return plain(413, "a request has no body here")
        return await page(request)

    async def _refit_page(self, request: web.BaseRequest) -> web.Response:
        if request.method != "POST":
            return plain(405, "only POST", {"Allow": "POST"})
        if self._admission.is_open:
            return plain(403, "set http.token to allow it: without one anybody could")
        universe = request.path.removeprefix(REFIT_PATH)
        try:
            done = await self._ask(lambda: self._refit(universe))
        except TimeoutError:
            return plain(503, HUNG)
        if done is None:
            return plain(404, "no universe of that name")
        if not done:
            return plain(503, "the universe is not at work, or has no model to fit")
        return as_json({"refit": "at the next bar"}, 202)

    async def _metrics(self, request: web.BaseRequest) -> web.Response:
        accept = ",".join(request.headers.getall("Accept", []))
        body, content_type = await asyncio.to_thread(self._render, accept)
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _healthz(self, request: web.BaseRequest) -> web.Response:
        alive = (await self._state()).alive
        return as_json({"alive": alive}, 200 if alive else 503)

    async def _readyz(self, request: web.BaseRequest) -> web.Response:
        health = await self._state()
        told = {"ready": health.ready, "reasons": health.reasons}
        return as_json(told, 200 if health.ready else 503)

    async def _told(self) -> dict[str, object]:
        health = await self._state()
        return {
            "ready": health.ready,
            "reasons": health.reasons,
            "standing_by": health.standing_by,
        }

    async def _state(self) -> Health:
        try:
            return await self._ask(self._health)
        except TimeoutError:
            return Health(ready=False, reasons=(HUNG,), alive=False)

    async def _about(self, request: web.BaseRequest) -> web.Response:
        return as_json({"version": self._version}, 200)


class _Server(web.Server):
    # When there are too many connections, the oldest makes room that no viewer is behind: who only
    # opens them can keep nobody else out. One that has asked for nothing after some seconds, or is
    # not done with asking, is ended.
    kept: Set[asyncio.BaseTransport] = frozenset()
    refused: Callable[[str], None]

    def __init__(self, *given: Any, **named: Any) -> None:  # noqa: ANN401
        super().__init__(*given, **named)
        self._waited_for: dict[asyncio.BaseTransport, asyncio.TimerHandle] = {}

    def asked(self, transport: asyncio.BaseTransport | None) -> None:
        if transport is not None and (timer := self._waited_for.pop(transport, None)) is not None:
            timer.cancel()

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        later = asyncio.get_running_loop().call_later
        self._waited_for[transport] = later(FIRST_S, self._drop, transport)
        there = [t for t in self._connections.values() if not t.is_closing()]
        if len(there) > _connections_max():
            self.refused("crowd")
            next((t for t in there if t not in self.kept), transport).abort()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        self.asked(self._connections.get(handler))
        super().connection_lost(handler, exc)

    def _drop(self, transport: asyncio.Transport) -> None:
        del self._waited_for[transport]
        self.refused("slow")
        transport.abort()


def _is_ours(record: logging.LogRecord) -> bool:
    # Requests that are none, and clients that are gone, are no errors of this program: they were
    # answered, and whoever sends a million of them shall not fill a disk.
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | ConnectionError | web.RequestPayloadError)


def _own_log() -> logging.Logger:
    log = logging.getLogger("stream_calib.http")
    log.addFilter(_is_ours)  # the same one is not added twice
    return log


def _connections_max() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = limit == resource.RLIM_INFINITY
    return CONNECTIONS_MAX if unlimited else min(CONNECTIONS_MAX, limit // 2)


def _reachable(host: str) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (compared, not bound)
    return f"[{host}]" if ":" in host else host
