"""Under which names the server answers: somebody else's page reaches it by a name of its own."""

import asyncio
import re

import aiohttp
import pytest
from pydantic import SecretStr

from stream_calib.adapters.http import HttpServer
from stream_calib.config import HttpConfig
from tests.real_parts import ROOT
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


async def test_a_browser_behind_a_proxy_is_let_in_where_the_name_is_passed_on() -> None:
    # what README's nginx sends: of a browser that asks for a page, and for a WebSocket
    named = re.findall(r'proxy_set_header (\S+) "?([^";]+)"?;', (ROOT / "README.md").read_text())
    values = {"$host": "view.example", "$scheme": "https", "$http_upgrade": ""}
    sent = {name: values.get(value, value) for name, value in named}
    assert sent.keys() == {"Host", "Upgrade", "Connection", "X-Forwarded-Proto"}
    assert sent.pop("Upgrade") == ""  # is not passed on where it is empty
    proxied = {"Origin": "https://view.example", **sent}
    async with (
        aiohttp.ClientSession() as client,
        serving(HttpConfig(port=0, token=SecretStr(SECRET))) as (server, _, _),
        serving() as (open_, _, _),
    ):

        async def give(url: str, headers: dict[str, str]) -> tuple[int, str]:
            async with client.post(
                f"{url}/login", data={"token": SECRET}, headers=headers, allow_redirects=False
            ) as answer:
                return answer.status, await answer.text()

        assert (await give(server.url, proxied))[0] == 303
        bearer = proxied | {"Authorization": f"Bearer {SECRET}"}
        async with client.get(server.url, headers=bearer) as answer:
            assert answer.status == 200
        await (await client.ws_connect(f"{server.url}/ws", headers=bearer)).close()
        status, said = await give(server.url, {"Origin": proxied["Origin"]})
        assert (status, "pass on the Host" in said, "http.token" in said) == (403, True, False)
        status, said = await give(open_.url, proxied)
        assert (status, "http.token" in said) == (403, True)


async def test_with_a_token_the_name_does_not_matter() -> None:
    async with serving(HttpConfig(port=0, token=SecretStr(SECRET))) as (server, _, _):
        lines = f"Host: calib.example\r\nAuthorization: Bearer {SECRET}\r\n"
        assert await status(server, "/metrics", lines) == 200
