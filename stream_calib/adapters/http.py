"""The HTTP face of the service: /metrics, /healthz, /readyz, /version, POST /refit/<universe>."""

import asyncio
import contextlib
import errno
import functools
import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from stream_calib.config import HttpConfig
from stream_calib.errors import ConfigError, PortInUseError

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
CLOSE_S = 3.0
REFIT_PATH = "/refit/"
LINGER_S = 0.5  # an unwanted body is read no longer than this


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the service works (``alive``), and whether it is of use yet (``ready``).

    ``reasons`` say in words what is missing; they are shown to whoever may ask.
    """

    ready: bool
    reasons: tuple[str, ...] = ()
    alive: bool = True


class HttpServer:
    """Answers GET and HEAD on four paths and POST on one, on the event loop it is started on.

    Parameters
    ----------
    config
        Address and token; with a token every path but /healthz asks for it, and without one
        nothing can be changed through POST.
    render
        Takes the Accept header, returns the metrics and their content type; called in a thread.
    health
        Asked at each request; must not wait.
    version
        What /version answers.
    refit
        Has a full fit made for the universe of a name: whether it will be; None: there is none
        of that name.

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
    ) -> None:
        self.port = 0
        self.url = ""
        self._config = config
        self._render = render
        self._health = health
        self._version = version
        self._refit = refit
        self._runner: web.ServerRunner | None = None
        token = config.token
        self._token = None if token is None else token.get_secret_value().encode()
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
        server = web.Server(
            self._answer,
            request_factory=functools.partial(_Request, loop=asyncio.get_running_loop()),
            access_log=None,
            lingering_time=LINGER_S,
        )
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
        bound, self.port = runner.addresses[0][:2]
        self.url = f"http://{_reachable(bound)}:{self.port}"
        return self.port

    async def close(self) -> None:
        """Stop listening and drop connections within a few seconds; never raises."""
        runner, self._runner = self._runner, None
        if runner is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(CLOSE_S):
                    await runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path != "/healthz" and not self._admitted(request):
            return _plain(401, "a bearer token is needed", {"WWW-Authenticate": "Bearer"})
        if request.path.startswith(REFIT_PATH):
            return self._refit_page(request)
        page = self._pages.get(request.path)
        if page is None:
            return _plain(404, "not found")
        if request.method not in {"GET", "HEAD"}:
            return _plain(405, "only GET and HEAD", {"Allow": "GET, HEAD"})
        if request.can_read_body:
            return _plain(413, "a request has no body here")
        return await page(request)

    def _admitted(self, request: web.BaseRequest) -> bool:
        if self._token is None:
            return True
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        secret = given.strip().encode(errors="surrogateescape")
        return hmac.compare_digest(secret, self._token) and scheme.lower() == "bearer"

    def _refit_page(self, request: web.BaseRequest) -> web.Response:
        if request.method != "POST":
            return _plain(405, "only POST", {"Allow": "POST"})
        if self._token is None:
            return _plain(403, "set http.token to allow it: without one anybody could")
        done = self._refit(request.path.removeprefix(REFIT_PATH))
        if done is None:
            return _plain(404, "no universe of that name")
        if not done:
            return _plain(503, "the universe is not at work, or has no model to fit")
        return _json({"refit": "at the next bar"}, 202)

    async def _metrics(self, request: web.BaseRequest) -> web.Response:
        accept = ",".join(request.headers.getall("Accept", []))
        body, content_type = await asyncio.to_thread(self._render, accept)
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _healthz(self, request: web.BaseRequest) -> web.Response:
        alive = self._health().alive
        return _json({"alive": alive}, 200 if alive else 503)

    async def _readyz(self, request: web.BaseRequest) -> web.Response:
        health = self._health()
        body = {"ready": health.ready, "reasons": health.reasons}
        return _json(body, 200 if health.ready else 503)

    async def _about(self, request: web.BaseRequest) -> web.Response:
        return _json({"version": self._version}, 200)


class _Request(web.BaseRequest):
    # Every answer passes here, also the one to a request that could not be read.
    async def _prepare_hook(self, resp: web.StreamResponse) -> None:
        resp.headers.popall("Server", None)
        resp.headers.update(HEADERS)


def _json(body: dict[str, Any], status: int) -> web.Response:
    return web.Response(
        body=orjson.dumps(body) + b"\n", status=status, content_type="application/json"
    )


def _plain(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(text=text + "\n", status=status, headers=headers)


def _reachable(host: str) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (compared, not bound)
    return f"[{host}]" if ":" in host else host
