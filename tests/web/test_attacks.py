"""Clients that mean no good: memory stays bounded, the service goes on, the metrics say so."""

import asyncio
import contextlib
import os
import re
import struct
import zlib
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest
from pydantic import SecretStr

from stream_calib.adapters.http import pages as pages_module
from stream_calib.adapters.http import server as server_module
from stream_calib.adapters.http.server import CONNECTIONS_MAX
from stream_calib.config import HttpConfig
from stream_calib.wire.live import decode_live
from tests.web.showing import blocks, effects_of, matrix_of, serving
from tests.web.target import Target, target

BODY_BYTES = 4 * 10**9
GROWS = 80 * 2**20  # what a server of 200 connections may take besides; attacks are of gigabytes
LONG_S = 120  # a busy machine
SECRET = "a-token-that-is-long"


@pytest.fixture(scope="module")
def attacked() -> Iterator[Target]:
    with target() as started:
        yield started


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LONG_S)) as session:
        yield session


@contextlib.asynccontextmanager
async def unmoved(attacked: Target, client: aiohttp.ClientSession) -> AsyncIterator[None]:
    """What is done meanwhile costs no memory, and a viewer gets its frames before and after."""
    await looks(attacked, client)
    before = attacked.memory()
    yield
    assert attacked.memory() - before < GROWS
    await looks(attacked, client)


async def looks(attacked: Target, client: aiohttp.ClientSession) -> None:
    async with client.ws_connect(f"{attacked.url}/ws", max_msg_size=0) as socket:
        await socket.send_json({"watch": ["fx", "ewma"]})
        for _ in range(3):
            head, _, _ = decode_live(await socket.receive_bytes(timeout=LONG_S))
            assert len(head["symbols"]) == 200
            await socket.send_json({"drawn": 1})


async def refused(attacked: Target, client: aiohttp.ClientSession, reason: str) -> float:
    async with client.get(f"{attacked.url}/metrics") as answer:
        text = await answer.text()
    found = re.search(rf'http_refused_total{{reason="{reason}"}} (\S+)', text)
    return float(found[1]) if found else 0.0


async def opened(attacked: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", attacked.port)


async def poured(attacked: Target, start: bytes, more: bytes, n_bytes: int) -> tuple[int, bytes]:
    """Send without end; return how much went out before the other side hung up, and its answer."""
    reader, writer = await opened(attacked)
    sent, answer = 0, b""
    with contextlib.suppress(ConnectionError):
        writer.write(start)
        while sent < n_bytes and not writer.is_closing():
            writer.write(more)
            await asyncio.wait_for(writer.drain(), LONG_S)
            sent += len(more)
    with contextlib.suppress(ConnectionError):
        answer = await asyncio.wait_for(reader.read(1000), LONG_S)
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return sent, answer


async def test_a_thousand_connections_leave_room_for_more(
    attacked: Target, client: aiohttp.ClientSession
) -> None:
    files = attacked.files()
    async with unmoved(attacked, client):
        idle = [await opened(attacked) for _ in range(1000)]
        async with client.get(f"{attacked.url}/healthz") as answer:
            assert answer.status == 200
        assert attacked.files() - files <= CONNECTIONS_MAX + 10
        assert await refused(attacked, client, "crowd") >= 1000 - CONNECTIONS_MAX
        for _, writer in idle:
            writer.close()


@pytest.mark.parametrize("path", ["/version", "/api/universes", "/", "/ws", "/login"])
@pytest.mark.parametrize("chunked", [False, True], ids=["of a length", "chunked"])
async def test_a_body_of_gigabytes_is_not_read(
    attacked: Target, client: aiohttp.ClientSession, path: str, *, chunked: bool
) -> None:
    how = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {BODY_BYTES}"
    start = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{attacked.port}\r\n{how}\r\n\r\n".encode()
    block = b"x" * 2**20
    more = f"{len(block):x}\r\n".encode() + block + b"\r\n" if chunked else block
    async with unmoved(attacked, client):
        sent, answer = await poured(attacked, start, more, BODY_BYTES)
        assert sent < BODY_BYTES  # half a second's reading, and the buffers of both kernels
        assert answer[:12] in {b"", b"HTTP/1.1 405", b"HTTP/1.1 413"}


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"GET /", b"x" * 10_000),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"x" * 10_000),
        (b"GET / HTTP/1.1\r\n", b"X: y\r\n" * 1000),
        (b"GET / HTTP/1.1\r\nCookie: ", b"a=b; " * 1000),
        (b"", os.urandom(10_000)),
    ],
    ids=["line", "header", "headers", "cookies", "noise"],
)
async def test_a_head_that_never_ends_is_refused(
    attacked: Target, client: aiohttp.ClientSession, start: bytes, more: bytes
) -> None:
    async with unmoved(attacked, client):
        sent, answer = await poured(attacked, start, more, 10**8)
        assert sent < 10**8
        assert not answer.startswith(b"HTTP/1.1 200")


async def test_empty_lines_are_read_no_longer_than_a_head_may_take(
    attacked: Target, client: aiohttp.ClientSession
) -> None:
    async with unmoved(attacked, client):
        sent, answer = await poured(attacked, b"", b"\r\n" * 5000, 10**8)
        assert sent > 0
        assert answer == b""


async def test_who_asks_slowly_is_dropped(
    client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "FIRST_S", 1.0)
    async with serving() as (server, view, observer):
        silent = await asyncio.open_connection("127.0.0.1", server.port)
        slow = await asyncio.open_connection("127.0.0.1", server.port)
        async with client.ws_connect(f"{server.url}/ws") as viewer:
            with contextlib.suppress(ConnectionError):
                for byte in b"GET /version HTTP/1.1\r\nX: " + b"x" * 1000:
                    slow[1].write(bytes([byte]))
                    await asyncio.sleep(0.01)
                    if slow[0].at_eof():
                        break
            for reader, writer in (silent, slow):
                with contextlib.suppress(ConnectionError):
                    assert await asyncio.wait_for(reader.read(), LONG_S) == b""
                writer.close()
            await viewer.send_json({"watch": ["fx", "ewma"]})  # has asked in time, and stays
            view.show("fx", effects_of(matrix_of(blocks(3, 1))))
            await viewer.receive_bytes(timeout=LONG_S)
        assert b'http_refused_total{reason="slow"} 2.0' in observer.render("")[0]


async def test_a_form_that_never_ends_is_given_up(
    client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages_module, "LOGIN_S", 0.2)
    async with serving(HttpConfig(port=0, token=SecretStr(SECRET))) as (server, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        head = f"POST /login HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: 30\r\n"
        form = "Content-Type: application/x-www-form-urlencoded\r\n\r\ntoken="
        writer.write((head + form).encode())
        answer = await asyncio.wait_for(reader.read(), LONG_S)
        assert answer.startswith(b"HTTP/1.1 408")
        writer.close()


async def test_a_form_that_grows_when_unpacked_is_refused(client: aiohttp.ClientSession) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = packer.compress(b"token=" + b"x" * 1_500_000) + packer.flush()
    assert len(bomb) < pages_module.LOGIN_BYTES_MAX
    headers = {
        "Content-Encoding": "gzip",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    async with (
        serving(HttpConfig(port=0, token=SecretStr(SECRET))) as (server, _, _),
        client.post(f"{server.url}/login", data=bomb, headers=headers) as answer,
    ):
        assert answer.status in {400, 401, 413}


@pytest.mark.parametrize(
    "form", ["application/json", "multipart/form-data", "multipart/form-data; boundary=x"]
)
async def test_what_is_no_form_is_no_defect(client: aiohttp.ClientSession, form: str) -> None:
    async with (
        serving(HttpConfig(port=0, token=SecretStr(SECRET))) as (server, _, _),
        client.post(
            f"{server.url}/login", data=b"\xff\x00--x", headers={"Content-Type": form}
        ) as answer,
    ):
        assert answer.status in {400, 401}


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
@pytest.mark.parametrize(
    ("request_line", "status"),
    [("POST /login", 400), ("GET /healthz", 413), ("POST /nothing", 404)],
)
async def test_a_body_that_is_not_packed_as_it_says_is_refused_and_not_logged(
    caplog: pytest.LogCaptureFixture, request_line: str, status: int, packing: str
) -> None:
    body = b"\xff\xffgarbage"
    async with serving() as (server, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        lines = (
            f"{request_line} HTTP/1.1",
            f"Host: 127.0.0.1:{server.port}",
            "Connection: close",
            "Content-Type: application/x-www-form-urlencoded",
            f"Content-Encoding: {packing}",
            f"Content-Length: {len(body)}",
        )
        writer.write("\r\n".join((*lines, "", "")).encode() + body)
        answer = await asyncio.wait_for(reader.read(), LONG_S)
        writer.close()
        await writer.wait_closed()
    assert int(answer.split()[1]) == status
    assert caplog.records == []


@pytest.mark.parametrize("fragments", [1, 1000], ids=["whole", "in fragments"])
async def test_a_message_of_ten_megabytes_ends_its_connection(
    attacked: Target, client: aiohttp.ClientSession, fragments: int
) -> None:
    before = await refused(attacked, client, "message")
    async with unmoved(attacked, client):
        size = 10_000_000 // fragments
        first, next_ = (
            struct.pack(">BBQI", code, 0x80 | 127, size, 0) + b"x" * size for code in (0x01, 0x00)
        )
        if fragments == 1:
            first = b"\x81" + first[1:]
        sent, answer = await poured(attacked, upgrade(attacked) + first, next_, 10_000_000)
        assert answer[:12] in {b"", b"HTTP/1.1 101"}  # the reset may come before it is read
        assert sent <= 10_000_000
    assert await refused(attacked, client, "message") > before


async def test_viewers_that_never_read_cost_no_more_than_they_may(
    attacked: Target, client: aiohttp.ClientSession
) -> None:
    async with unmoved(attacked, client):
        stuck = []
        text = b'{"watch": ["fx", "ewma"]}'
        drawn = b'{"drawn": 100}'
        for _ in range(40):
            _, writer = await opened(attacked)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(upgrade(attacked) + masked(text) + masked(drawn))
            stuck.append(writer)
        for _ in range(10):
            await asyncio.sleep(0.1)
            for writer in stuck:
                writer.write(masked(drawn))
        for writer in stuck:
            writer.transport.abort()  # what it has not sent would keep it open


async def test_many_requests_at_once_on_one_connection_are_answered_one_after_the_other(
    attacked: Target, client: aiohttp.ClientSession
) -> None:
    ask = f"GET /api/universes HTTP/1.1\r\nHost: 127.0.0.1:{attacked.port}\r\n\r\n".encode()
    async with unmoved(attacked, client):
        _, writer = await opened(attacked)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        with contextlib.suppress(ConnectionError, TimeoutError):
            for _ in range(100):
                writer.write(ask * 1000)
                await asyncio.wait_for(writer.drain(), 1)
        writer.transport.abort()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
async def test_the_view_is_for_looking_alone(
    attacked: Target, client: aiohttp.ClientSession, method: str
) -> None:
    before = await refused(attacked, client, "method")
    for path in ("/", "/app.js", "/api/universes", "/api/matrix/fx/ewma", "/ws"):
        async with client.request(method, attacked.url + path) as answer:
            assert answer.status == 405
            assert answer.headers["Allow"] == "GET, HEAD"
    assert await refused(attacked, client, "method") == before + 5


async def test_reasons_are_counted() -> None:
    async with (
        serving(HttpConfig(port=0, token=SecretStr(SECRET))) as (server, _, observer),
        aiohttp.ClientSession() as client,
    ):
        async with client.get(f"{server.url}/metrics"):
            pass
        async with client.get(server.url, headers={"Origin": "http://evil.example"}):
            pass
        bearer = {"Authorization": f"Bearer {SECRET}"}
        async with client.get(f"{server.url}/version", data=b"x", headers=bearer):
            pass
        async with client.ws_connect(f"{server.url}/ws", headers=bearer) as socket:
            await socket.send_str("nonsense")
            await socket.receive(timeout=LONG_S)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"nonsense\r\n\r\n")
        await asyncio.wait_for(reader.read(), LONG_S)
        writer.close()
        text = observer.render("")[0].decode()
        for reason in ("token", "foreign", "too_large", "message", "malformed"):
            assert f'http_refused_total{{reason="{reason}"}} 1.0' in text


def upgrade(attacked: Target) -> bytes:
    lines = (
        "GET /ws HTTP/1.1",
        f"Host: 127.0.0.1:{attacked.port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==",
        "",
        "",
    )
    return "\r\n".join(lines).encode()


def masked(text: bytes) -> bytes:
    """Return a text message as a client sends it, with a mask of zeros."""
    assert len(text) < 126
    return bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text
