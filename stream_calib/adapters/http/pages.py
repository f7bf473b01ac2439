"""The live view's routes: its files, /api and /ws."""

import asyncio
import csv
import io
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import orjson
from aiohttp import web

from stream_calib.adapters.http.admission import Admission
from stream_calib.adapters.http.answers import PAGE_POLICY, as_json, download, plain
from stream_calib.adapters.http.live import Key, LiveView
from stream_calib.adapters.http.socket import serve_frames
from stream_calib.values import Matrix
from stream_calib.wire.live import moved_most
from stream_calib.wire.matrices import to_json

FOLDER = Path(__file__).parents[2] / "web"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    "": "text/plain; charset=utf-8",
}
PUBLIC = ("/style.css", "/icon.svg")  # the form that asks for the token needs them
LOGIN = "/login"
HANDSHAKE = ("Connection", "Sec-WebSocket-Version", "Sec-WebSocket-Key")  # an error repeats them
LOGIN_BYTES_MAX = 2000
LOGIN_S = 5.0
LOGIN_WAIT_S = 0.5  # before a wrong token is answered; one is at a time
VIEWERS_MAX = 50
CLOSE_S = 0.5
MOVED = 8  # pairs
RENDERS_MAX = 2  # of matrices to files at a time


class Pages:
    """Answers what belongs to the live view.

    Parameters
    ----------
    view
        What is shown.
    admission
        Who may see it.
    state
        Says whether the service is ready, and why not, as /readyz does.

    Attributes
    ----------
    kept
        The connections that viewers are behind.
    """

    def __init__(
        self,
        view: LiveView,
        admission: Admission,
        state: Callable[[], Awaitable[dict[str, object]]],
    ) -> None:
        self._state = state
        self._view = view
        self._admission = admission
        self._files = _load(FOLDER)
        self._guessing = asyncio.Lock()
        self._rendering = asyncio.Semaphore(RENDERS_MAX)
        self._sockets: set[web.WebSocketResponse] = set()
        self.kept: set[asyncio.BaseTransport] = set()

    async def close(self) -> None:
        """Send viewers away; those that do not answer are left to whoever closes the server."""
        leaving = [asyncio.create_task(socket.close(code=1001)) for socket in self._sockets]
        if leaving:
            await asyncio.wait(leaving, timeout=CLOSE_S)

    def owns(self, path: str) -> bool:
        """Tell whether a path is answered here."""
        return path in self._files or path in {"/", "/ws", LOGIN} or path.startswith("/api/")

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request whose path is one of these."""
        path = request.path
        if not self._admission.same_site(request):
            return plain(403, self._admission.foreign)
        if path == LOGIN and request.method == "POST":
            return await self._login(request)
        if path not in PUBLIC and not self._admission.looks(request):
            return self._refusal(path)
        if request.method not in {"GET", "HEAD"}:
            return plain(405, "only GET and HEAD", {"Allow": "GET, HEAD"})
        if request.can_read_body:
            return plain(413, "a request has no body here")
        if path == LOGIN:
            return web.Response(status=303, headers={"Location": "/"})
        if path == "/ws":
            return await self._watch(request)
        if path.startswith("/api/"):
            return await self._api(request)
        return self._file("/index.html" if path == "/" else path)

    def _file(self, path: str, status: int = 200) -> web.Response:
        body, content_type = self._files[path]
        headers = {"Content-Type": content_type, "Content-Security-Policy": PAGE_POLICY}
        return web.Response(body=body, status=status, headers=headers)

    def _refusal(self, path: str) -> web.Response:
        if path in {"/", "/index.html", LOGIN}:
            page = self._file("/login.html", 401)
            page.headers["WWW-Authenticate"] = "Bearer"
            return page
        return plain(401, "a bearer token is needed", {"WWW-Authenticate": "Bearer"})

    async def _login(self, request: web.BaseRequest) -> web.Response:
        if (request.content_length or LOGIN_BYTES_MAX + 1) > LOGIN_BYTES_MAX:
            return plain(413, "that is no token")
        if request.content_type != "application/x-www-form-urlencoded":  # what a form sends
            return plain(400, "that is no form")
        try:
            async with asyncio.timeout(LOGIN_S):
                form = await request.post()
        except TimeoutError:
            return plain(408, "that took too long")
        except (LookupError, ValueError, web.RequestPayloadError):  # no such encoding, or not that
            return plain(400, "that is no form")
        given = form.get("token", "")
        if isinstance(given, str) and self._admission.knows(given.strip()):
            done = web.Response(status=303, headers={"Location": "/"})
            self._admission.greet(request, done)
            return done
        if self._guessing.locked():
            return plain(429, "somebody else is giving tokens; try again")
        async with self._guessing:
            await asyncio.sleep(LOGIN_WAIT_S)
        page = self._file("/login.html", 401)
        page.body = self._files["/login.html"][0].replace(b"<p hidden ", b"<p ")
        return page

    async def _watch(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return plain(426, "a WebSocket", {"Upgrade": "websocket", "Connection": "Upgrade"})
        if not all(request.headers.get(name, "").isascii() for name in HANDSHAKE):
            return plain(400, "that is no handshake of a WebSocket")
        if len(self.kept) >= VIEWERS_MAX:
            self._view.observer.refused("viewers")
            return plain(503, f"{VIEWERS_MAX} are looking already")
        transport = request.transport
        if transport is None:
            return plain(400, "gone already")
        self.kept.add(transport)
        try:
            return await serve_frames(self._view, request, self._sockets)
        finally:
            self.kept.discard(transport)

    async def _api(self, request: web.BaseRequest) -> web.Response:
        try:
            parts = [unquote(part) for part in urlsplit(request.raw_path).path.split("/")]
        except ValueError:
            return plain(404, "not found")
        match (parts + [""] * 2)[2], parts[3:]:
            case "universes", []:
                return as_json(self._view.universes())
            case "matrix", [universe, name]:
                estimator, _, suffix = name.partition(".")
                return await self._matrix((universe, estimator), suffix)
            case "history", [universe, estimator]:
                return self._history((universe, estimator), request.query.get("pair", ""))
            case "summary", [universe, estimator]:
                lines = self._view.summaries((universe, estimator))
                return self._nothing(universe) if lines is None else as_json(lines)
            case "moved", [universe, estimator]:
                return await self._moved((universe, estimator), request.query.get("since", "0"))
            case "events", [universe]:
                return self._events(universe, request.query.get("after", "-1"))
            case "state", []:
                return as_json(await self._state())
        return plain(404, "not found")

    async def _matrix(self, key: Key, suffix: str) -> web.Response:
        matrix = self._view.matrix(key)
        if matrix is None or suffix not in {"", "csv", "npy"}:
            return plain(404, "no such matrix")
        name = f"{key[0]}-{key[1]}-{matrix.sequence}.{suffix}"
        async with self._rendering:
            if suffix == "csv":
                body = await asyncio.to_thread(_csv, matrix)
                return download(body, "text/csv; charset=utf-8", name)
            if suffix == "npy":
                body = await asyncio.to_thread(_npy, matrix)
                return download(body, "application/octet-stream", name)
            body = await asyncio.to_thread(to_json, matrix)
        return web.Response(body=body + b"\n", content_type="application/json")

    def _history(self, key: Key, pair: str) -> web.Response:
        shown = self._view.frame(key)
        if shown is None:
            return self._nothing(key[0])
        both = _two_of(pair, frozenset(shown[1].symbols))
        if both is None:
            return plain(400, "pair=A,B has to name two symbols of the matrix")
        lines = self._view.history(key, *both)
        assert lines is not None
        return as_json({"pair": both, **lines})

    def _nothing(self, universe: str) -> web.Response:
        # a page that stayed open asks before there is something, which is no error
        known = self._view.events(universe, -1) is not None
        return web.Response(status=204) if known else plain(404, "no universe of that name")

    async def _moved(self, key: Key, since: str) -> web.Response:
        since_ns = _number(since)
        if since_ns is None:
            return plain(400, "since= has to be nanoseconds")
        frames = self._view.since(key, since_ns)
        if frames is None:
            return self._nothing(key[0])
        async with self._rendering:
            moved = await asyncio.to_thread(moved_most, *frames, MOVED)
        then, now = (str(frame.as_of_ns) for frame in frames)
        return as_json({"then_ns": then, "now_ns": now, "moved": [m._asdict() for m in moved]})

    def _events(self, universe: str, after: str) -> web.Response:
        number = _number(after)
        if number is None:
            return plain(400, "after= has to be a sequence")
        events = self._view.events(universe, number)
        if events is None:
            return plain(404, "no universe of that name")
        return as_json([orjson.Fragment(event) for event in events])


def _two_of(pair: str, symbols: frozenset[str]) -> tuple[str, str] | None:
    if len(pair) > 2 * max(map(len, symbols), default=0) + 1:
        return None
    for k, sign in enumerate(pair):  # a symbol may have a comma in it
        a, b = pair[:k], pair[k + 1 :]
        if sign == "," and a != b and a in symbols and b in symbols:
            return a, b
    return None


def _number(text: str) -> int | None:
    plain_text = text.removeprefix("-")
    return int(text) if plain_text.isascii() and plain_text.isdigit() and len(text) < 20 else None


def _load(folder: Path) -> dict[str, tuple[bytes, str]]:
    # read once, and nothing else is ever served: no request can name a file
    return {
        f"/{path.relative_to(folder).as_posix()}": (path.read_bytes(), TYPES[path.suffix])
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in TYPES
    }


def _csv(matrix: Matrix) -> bytes:
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(["symbol", *matrix.symbols])
    for symbol, row in zip(matrix.symbols, matrix.corr.tolist(), strict=True):
        rows.writerow([symbol, *row])
    return text.getvalue().encode()


def _npy(matrix: Matrix) -> bytes:
    held = io.BytesIO()
    np.save(held, matrix.corr)
    return held.getvalue()
