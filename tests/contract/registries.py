"""A schema registry on this machine that speaks the REST of Confluent's, and has bad days."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote

from aiohttp import web


class Registry:
    """Schemas by id, by GUID and by subject; what was asked for is counted."""

    def __init__(self) -> None:
        self.url = ""
        self.ids: dict[int, dict[str, Any]] = {}
        self.guids: dict[str, dict[str, Any]] = {}
        self.subjects: dict[tuple[str, int], dict[str, Any]] = {}
        self.asked: list[str] = []
        self.status = 200  # anything else: it is ill
        self.login: tuple[str, str] | None = None

    def add(self, id_: int, definition: Any, **more: Any) -> None:
        """Register a schema under an id."""
        self.ids[id_] = {"schema": json.dumps(definition), **more}

    async def answer(self, request: web.Request) -> web.Response:
        """Answer as a registry."""
        self.asked.append(request.path)
        if self.login is not None:
            word = base64.b64encode(":".join(self.login).encode()).decode()
            if request.headers.get("Authorization") != f"Basic {word}":
                return web.json_response({"error_code": 401, "message": "no"}, status=401)
        if self.status != 200:
            return web.Response(text="<html>", status=self.status)
        match [unquote(part) for part in request.raw_path.strip("/").split("/")]:
            case ["schemas", "ids", id_]:
                found = self.ids.get(int(id_))
            case ["schemas", "guids", guid]:
                found = self.guids.get(guid)
            case ["subjects", subject, "versions", number]:
                found = self.subjects.get((subject, int(number)))
            case _:
                found = None
        if found is None:
            return web.json_response({"error_code": 40403, "message": "not found"}, status=404)
        return web.json_response(found)


@asynccontextmanager
async def running_registry() -> AsyncIterator[Registry]:
    """Start one, and stop it at the end."""
    registry = Registry()
    app = web.Application()
    app.router.add_get("/{path:.*}", registry.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    registry.url = f"http://{host}:{port}"
    try:
        yield registry
    finally:
        await runner.cleanup()
        await asyncio.sleep(0)
