"""Answers of the HTTP face, and the headers that all of them have."""

from collections.abc import Callable

import orjson
from aiohttp import web

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
PAGE_POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'"
)


REFUSALS = {  # what a status says of who asked; 503 may be the service's own state
    400: "malformed",
    401: "token",
    403: "foreign",
    405: "method",
    408: "slow",
    413: "too_large",
    429: "guessing",
}


class Request(web.BaseRequest):
    """A request whose answer, also one to what could not be read, is strict, and counted."""

    refused: Callable[[str], None]

    async def _prepare_hook(self, resp: web.StreamResponse) -> None:
        if resp.status in REFUSALS:
            self.refused(REFUSALS[resp.status])
        resp.headers.popall("Server", None)
        for name, value in HEADERS.items():
            resp.headers.setdefault(name, value)


def as_json(body: object, status: int = 200) -> web.Response:
    """Answer with JSON."""
    return web.Response(
        body=orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n",
        status=status,
        content_type="application/json",
    )


def plain(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    """Answer with a line of text."""
    return web.Response(text=text + "\n", status=status, headers=headers)


def download(body: bytes, content_type: str, name: str) -> web.Response:
    """Answer with a file."""
    headers = {
        "Content-Type": content_type,
        "Content-Disposition": f'attachment; filename="{name}"',
    }
    return web.Response(body=body, headers=headers)
