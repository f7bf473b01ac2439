"""The HTTP face: a real server on the loopback address, asked by a real client."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from pydantic import SecretStr

from stream_calib.adapters.http import Health, HttpServer
from stream_calib.config import HttpConfig
from stream_calib.errors import ConfigError, PortInUseError

PATHS = ("/metrics", "/healthz", "/readyz", "/version")
READY = Health(ready=True)
Start = Callable[..., Awaitable[HttpServer]]


def render(accept: str) -> tuple[bytes, str]:
    return f"# asked for {accept}\n".encode(), "text/plain; version=0.0.4; charset=utf-8"


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start a server on a free port; it is closed when the test ends."""
    async with contextlib.AsyncExitStack() as stack:

        async def start_one(
            config: HttpConfig | None = None,
            health: Callable[[], Health] = lambda: READY,
            refit: Callable[[str], bool | None] = lambda _: None,
        ) -> HttpServer:
            server = HttpServer(config or HttpConfig(port=0), render, health, "1.2.3", refit)
            await server.start()
            stack.push_async_callback(server.close)
            return server

        yield start_one


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


async def talk(server: HttpServer, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize(
    ("told", "status"), [(True, 202), (False, 503), (None, 404)], ids=["taken", "not now", "none"]
)
async def test_a_full_refit_can_be_demanded_with_the_token(
    start: Start, client: aiohttp.ClientSession, told: bool | None, status: int
) -> None:
    asked = []

    def refit(universe: str) -> bool | None:
        asked.append(universe)
        return told

    server = await start(HttpConfig(port=0, token=SecretStr(SECRET)), refit=refit)
    async with client.post(f"{server.url}/refit/fx") as response:
        assert response.status == 401
    assert asked == []
    bearer = {"Authorization": f"Bearer {SECRET}"}
    async with client.get(f"{server.url}/refit/fx", headers=bearer) as response:
        assert (response.status, response.headers["Allow"]) == (405, "POST")
    async with client.post(f"{server.url}/refit/fx", headers=bearer) as response:
        assert response.status == status
    assert asked == ["fx"]


async def test_without_a_token_nobody_can_demand_a_refit(
    start: Start, client: aiohttp.ClientSession
) -> None:
    server = await start(refit=lambda _: True)
    async with client.post(f"{server.url}/refit/fx") as response:
        assert response.status == 403
        assert "http.token" in await response.text()


async def test_metrics_are_rendered_as_asked(start: Start, client: aiohttp.ClientSession) -> None:
    server = await start()
    async with client.get(f"{server.url}/metrics", headers={"Accept": "a, b"}) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert await response.text() == "# asked for a, b\n"


async def test_rendering_does_not_hold_up_the_loop(client: aiohttp.ClientSession) -> None:
    begun, release = threading.Event(), threading.Event()

    def slow(accept: str) -> tuple[bytes, str]:
        begun.set()
        release.wait(10)
        return b"", "text/plain"

    server = HttpServer(HttpConfig(port=0), slow, lambda: READY, "1", lambda _: None)
    await server.start()
    scrape = asyncio.ensure_future(client.get(f"{server.url}/metrics"))
    assert await asyncio.to_thread(begun.wait, 10)
    async with client.get(f"{server.url}/healthz") as response:
        assert response.status == 200
    assert not scrape.done()
    release.set()
    (await scrape).release()
    await server.close()


@pytest.mark.parametrize(
    ("health", "healthz", "readyz", "body"),
    [
        (READY, 200, 200, {"ready": True, "reasons": []}),
        (Health(False, ("no matrix",)), 200, 503, {"ready": False, "reasons": ["no matrix"]}),
        (Health(False, ("end",), alive=False), 503, 503, {"ready": False, "reasons": ["end"]}),
    ],
)
async def test_health_decides_the_status(
    start: Start,
    client: aiohttp.ClientSession,
    health: Health,
    healthz: int,
    readyz: int,
    body: dict[str, object],
) -> None:
    server = await start(health=lambda: health)
    async with client.get(f"{server.url}/healthz") as response:
        assert response.status == healthz
        assert await response.json() == {"alive": health.alive}
    async with client.get(f"{server.url}/readyz") as response:
        assert response.status == readyz
        assert await response.json() == body


async def test_version(start: Start, client: aiohttp.ClientSession) -> None:
    server = await start()
    async with client.get(f"{server.url}/version") as response:
        assert (response.status, await response.json()) == (200, {"version": "1.2.3"})


@pytest.mark.parametrize("path", PATHS)
async def test_head_is_get_without_the_body(
    start: Start, client: aiohttp.ClientSession, path: str
) -> None:
    server = await start()
    async with client.get(server.url + path) as full, client.head(server.url + path) as head:
        assert (head.status, await head.read()) == (full.status, b"")
        assert head.headers["Content-Type"] == full.headers["Content-Type"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
@pytest.mark.parametrize("path", PATHS)
async def test_nothing_can_be_changed(
    start: Start, client: aiohttp.ClientSession, method: str, path: str
) -> None:
    server = await start()
    async with client.request(method, server.url + path) as response:
        assert response.status == 405
        assert response.headers["Allow"] == "GET, HEAD"


async def test_a_body_is_refused(start: Start, client: aiohttp.ClientSession) -> None:
    server = await start()
    async with client.get(f"{server.url}/version", data=b"x") as response:
        assert response.status == 413
    async with client.post(f"{server.url}/version", data=b"x" * 1_000_000) as response:
        assert response.status == 405


async def test_a_body_that_never_ends_is_cut_off(start: Start) -> None:
    server = await start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /version HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 5)
    assert answer.startswith(b"HTTP/1.1 413")
    writer.close()


@pytest.mark.parametrize("path", ["/", "/metrics/", "/../etc/passwd", "/api", "/healthz/x"])
async def test_other_paths_are_not_found(
    start: Start, client: aiohttp.ClientSession, path: str
) -> None:
    server = await start()
    async with client.get(server.url + path) as response:
        assert response.status == 404


SECRET = "a-token-that-is-long"


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Bearer {SECRET}x",
        f"Bearer {SECRET[:-1]}",
        f"Basic {SECRET}",
        SECRET,
        "Bearer é",
    ],
)
async def test_without_the_token_only_healthz_answers(
    start: Start, client: aiohttp.ClientSession, given: str | None
) -> None:
    server = await start(HttpConfig(port=0, token=SecretStr(SECRET)))
    headers = {} if given is None else {"Authorization": given}
    for path in (*PATHS, "/nowhere"):
        for method in ("GET", "HEAD", "POST"):
            async with client.request(method, server.url + path, headers=headers) as response:
                if path == "/healthz":
                    assert response.status == (405 if method == "POST" else 200)
                else:
                    assert response.status == 401
                    assert response.headers["WWW-Authenticate"] == "Bearer"
                    assert SECRET not in await response.text()


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_with_the_token_all_paths_answer(
    start: Start, client: aiohttp.ClientSession, scheme: str
) -> None:
    server = await start(HttpConfig(port=0, token=SecretStr(SECRET)))
    for path in PATHS:
        headers = {"Authorization": f"{scheme} {SECRET}"}
        async with client.get(server.url + path, headers=headers) as response:
            assert response.status == 200


async def test_a_token_of_broken_bytes_is_refused(start: Start) -> None:
    server = await start(HttpConfig(port=0, token=SecretStr(SECRET)))
    request = b"GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer \xff\r\n"
    answer = await talk(server, request + b"Connection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize(
    "request_line",
    [
        *(f"GET {path} HTTP/1.1" for path in (*PATHS, "/nowhere")),
        "POST /metrics HTTP/1.1",
        "GET / HTTP/9.9",
        "no request at all",
    ],
)
async def test_every_answer_is_strict_and_says_nothing_of_the_server(
    start: Start, request_line: str
) -> None:
    server = await start()
    request = f"{request_line}\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    head = (await talk(server, request)).split(b"\r\n\r\n")[0].decode().lower()
    lines = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
    assert lines["content-security-policy"].startswith("default-src 'none'")
    assert lines["x-content-type-options"] == "nosniff"
    assert lines["cache-control"] == "no-store"
    assert "server" not in lines
    assert "aiohttp" not in head


async def test_a_defect_is_a_500_without_details(
    client: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(accept: str) -> tuple[bytes, str]:
        raise ZeroDivisionError("inner detail")

    server = HttpServer(HttpConfig(port=0), broken, lambda: READY, "1", lambda _: None)
    await server.start()
    async with client.get(f"{server.url}/metrics") as response:
        assert response.status == 500
        assert "detail" not in await response.text()
        assert "Server" not in response.headers
    await server.close()
    assert "inner detail" in caplog.text


async def test_requests_are_not_logged(
    start: Start, client: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="aiohttp")
    server = await start()
    for path in (*PATHS, "/nowhere"):
        async with client.get(server.url + path):
            pass
    assert [record.message for record in caplog.records if record.name == "aiohttp.access"] == []


async def test_a_taken_port_is_one_sentence_that_names_the_key(start: Start) -> None:
    first = await start()
    second = HttpServer(HttpConfig(port=first.port), render, lambda: READY, "1", lambda _: None)
    with pytest.raises(PortInUseError) as caught:
        await second.start()
    message = str(caught.value)
    assert "http.port" in message
    assert f"127.0.0.1:{first.port}" in message
    assert "\n" not in message
    await second.close()


async def test_a_port_is_free_again_after_close(start: Start) -> None:
    first = await start()
    await first.close()
    again = await start(HttpConfig(port=first.port))
    assert again.port == first.port


async def test_an_address_of_another_machine_is_a_configuration_error() -> None:
    config = HttpConfig(host="192.0.2.1", port=0, token=SecretStr(SECRET))  # RFC 5737: nobody's
    server = HttpServer(config, render, lambda: READY, "1", lambda _: None)
    with pytest.raises(ConfigError, match=r"http\.host: cannot listen on 192\.0\.2\.1"):
        await server.start()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
async def test_the_url_reaches_the_server(
    start: Start, client: aiohttp.ClientSession, host: str
) -> None:
    if host == "::1":
        try:
            with socket.create_server(("::1", 0), family=socket.AF_INET6):
                pass
        except OSError:
            pytest.skip("no IPv6 loopback here")
    server = await start(HttpConfig(host=host, port=0))
    assert server.port > 0
    async with client.get(f"{server.url}/healthz") as response:
        assert response.status == 200


async def test_the_url_of_every_interface_is_the_loopback(
    start: Start, client: aiohttp.ClientSession
) -> None:
    server = await start(HttpConfig(host="0.0.0.0", port=0, token=SecretStr(SECRET)))
    assert server.url == f"http://127.0.0.1:{server.port}"
    async with client.get(f"{server.url}/healthz") as response:
        assert response.status == 200


async def test_close_is_bounded_and_may_come_twice(
    start: Start, client: aiohttp.ClientSession
) -> None:
    server = await start()
    async with client.get(f"{server.url}/healthz"):
        pass  # the connection stays open
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /metr")  # and so does half a request
    began = time.monotonic()
    await server.close()
    await server.close()
    assert time.monotonic() - began < 4
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    with pytest.raises(aiohttp.ClientConnectorError):
        await client.get(f"{server.url}/healthz")


async def test_close_does_not_wait_for_a_page_that_hangs(client: aiohttp.ClientSession) -> None:
    begun, release = threading.Event(), threading.Event()

    def hang(accept: str) -> tuple[bytes, str]:
        begun.set()
        release.wait(30)
        return b"", "text/plain"

    server = HttpServer(HttpConfig(port=0), hang, lambda: READY, "1", lambda _: None)
    await server.start()
    scrape = asyncio.ensure_future(client.get(f"{server.url}/metrics"))
    assert await asyncio.to_thread(begun.wait, 10)
    began = time.monotonic()
    await server.close()
    assert time.monotonic() - began < 4
    release.set()
    with pytest.raises(aiohttp.ClientError):
        await scrape


async def test_close_before_start_does_nothing() -> None:
    await HttpServer(HttpConfig(port=0), render, lambda: READY, "1", lambda _: None).close()
