"""Under which names the server answers: somebody else's page reaches it by a name of its own."""

import asyncio

import pytest
from pydantic import SecretStr

from stream_calib.adapters.http import HttpServer
from stream_calib.config import HttpConfig
from tests.web.showing import serving

PATHS = ("/metrics", "/healthz", "/readyz", "/version", "/refit/fx", "/nowhere", "/", "/api/state")
SECRET = "a-token-that-is-long"


async def status(server: HttpServer, path: str, line: str) -> int:
    # of the older version, which needs no Host
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET {path} HTTP/1.0\r\n{line}\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    await writer.wait_closed()
    return int(answer.split()[1])


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Host: evil.example\r\n",
        "Host: 127.0.0.1.evil.example\r\n",
        "Host: localhost\r\nOrigin: http://evil.example\r\n",
    ],
    ids=["no name", "of somebody", "that begins well", "from another page"],
)
async def test_without_a_token_only_healthz_answers_under_a_foreign_name(line: str) -> None:
    async with serving() as (server, _, _):
        found = {path: await status(server, path, line) for path in PATHS}
    assert found == dict.fromkeys(PATHS, 403) | {"/healthz": 200}


async def test_without_a_token_a_loopback_name_is_enough() -> None:
    async with serving() as (server, _, _):
        for name in (f"127.0.0.1:{server.port}", "localhost", f"LOCALHOST:{server.port}", "[::1]"):
            assert await status(server, "/metrics", f"Host: {name}\r\n") == 200


async def test_with_a_token_the_name_does_not_matter() -> None:
    async with serving(HttpConfig(port=0, token=SecretStr(SECRET))) as (server, _, _):
        lines = f"Host: calib.example\r\nAuthorization: Bearer {SECRET}\r\n"
        assert await status(server, "/metrics", lines) == 200
