"""What comes through sockets that is no browser: requests, headers, paths, cookies, frames.

Whatever is sent, the answer is one that a client has earned (no 5xx but those that are meant),
nothing is logged as an error, and the next client is served.
"""

import asyncio
import contextlib
import logging
import re
import secrets
import struct
import time

import pytest
from pydantic import SecretStr

from stream_calib.config import HttpConfig
from tests.fuzz.mutation import Spoiler
from tests.web.showing import blocks, effects_of, matrix_of, serving

TOKEN = "s3cret-token-of-many"
KEY = b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
UPGRADE = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" + KEY
HOST = b"Host: 127.0.0.1\r\n"
BEARER = b"Authorization: Bearer " + TOKEN.encode() + b"\r\n"
PATHS = (
    b"/", b"/metrics", b"/healthz", b"/readyz", b"/version", b"/login", b"/ws", b"/style.css",
    b"/api/universes", b"/api/matrix/fx/ewma", b"/api/matrix/fx/ewma.csv",
    b"/api/matrix/fx/ewma.npy",
    b"/api/history/fx/ewma?pair=X:S000,X:S001", b"/api/summary/fx/ewma", b"/api/events/fx?after=3",
    b"/refit/fx", b"/api%2Funiverses", b"/api/../version", b"//api/universes",
    b"/api/matrix/%2e%2e/%00",
    b"http://[/", b"http://x/api/universes", b"*", b"/%ff%fe", b"/api/events/fx?after=%D9%A3",
)  # fmt: skip
FORM = b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 12\r\n\r\ntoken=s3cret"
PARTS = (
    b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 66\r\n\r\n--b\r\n"
    b'Content-Disposition: form-data; name="token"\r\n\r\nx\r\n--b--\r\n....'
)
CORPUS = (
    *(b"GET " + path + b" HTTP/1.1\r\n" + HOST + BEARER + b"\r\n" for path in PATHS),
    *(b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"\r\n" for path in PATHS[:8]),
    b"POST /login HTTP/1.1\r\n" + HOST + FORM,
    b"POST /login HTTP/1.1\r\n" + HOST + PARTS,
    b"POST /login HTTP/1.1\r\n" + HOST + FORM.replace(b"urlencoded", b"urlencoded; charset=none"),
    b"POST /login HTTP/1.1\r\n" + HOST
    + b"Transfer-Encoding: chunked\r\n\r\n5\r\ntoken\r\n0\r\n\r\n",
    b"POST /refit/fx HTTP/1.1\r\n" + HOST + BEARER + b"Content-Length: 0\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"Origin: http://[\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST
    + b"Origin: null\r\nCookie: stream_calib_session=\xff; a=b; ;;\r\n\r\n",
    b"GET /ws HTTP/1.1\r\n" + HOST + BEARER + UPGRADE + b"\r\n",
    *(
        b"GET /ws HTTP/1.1\r\n" + HOST + BEARER + UPGRADE.replace(one, one + b"\xee") + b"\r\n"
        for one in (b"Connection: ", b"Version: ", b"Key: ")
    ),
    b"HEAD / HTTP/1.0\r\n\r\n",
)  # fmt: skip
WATCHING = b"GET /ws HTTP/1.1\r\n" + HOST + BEARER + UPGRADE + b"\r\n"
MEANT = {b"503"}  # too many viewers, not ready, no universe at work


def frame(payload: bytes, opcode: int = 1) -> bytes:
    """Return a frame of a WebSocket, as a client masks it (with zeros)."""
    size = len(payload)
    if size < 126:
        return struct.pack("!BB4x", 0x80 | opcode, 0x80 | size) + payload
    return struct.pack("!BBH4x", 0x80 | opcode, 0xFE, size) + payload


FRAMES = (
    frame(b'{"watch":["fx","ewma"]}'), frame(b'{"drawn":1}'), frame(b'{"watch":["no","no"]}'),
    frame(b'{"drawn":-1}'), frame(b"[[[[" * 30), frame(b"x" * 2000), frame(b"\xff\xfe"),
    frame(b"", 9), frame(b"", 8), frame(b"x", 2), frame(b"\x03\xe8", 8), frame(b"x", 3),
)  # fmt: skip


def spoilt(spoiler: Spoiler, number: int) -> bytes:
    """Return a request, or a handshake and some frames."""
    value, draw = spoiler.spoil(number), spoiler.random
    if number % 4:
        return value
    pieces = [draw.choice(FRAMES) for _ in range(draw.randrange(1, 5))]
    stream = b"".join(pieces)
    if draw.random() < 0.7:
        stream = Spoiler([stream], number).spoil(number)
    return WATCHING + stream


async def ask(port: int, request: bytes, patience_s: float, *, hangs_up: bool = False) -> bytes:
    """Send bytes, and return what comes until the end or until nothing comes for a while."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        writer.write(request)
        with contextlib.suppress(OSError, TimeoutError):
            if hangs_up:
                writer.write_eof()
            while len(answer) < 1 << 16:
                piece = await asyncio.wait_for(reader.read(1 << 16), patience_s)
                if not piece:
                    break
                answer += piece
    finally:
        writer.transport.abort()
    return answer


async def campaign(seed: int, n: int, config: HttpConfig, at_once: int = 64) -> tuple[int, float]:
    """Send n inputs; return how many were answered, and the longest that the loop was kept."""
    answered, kept_s = 0, 0.0
    async with serving(config) as (server, view, _):
        view.show("fx", effects_of(matrix_of(blocks(4, 2))))
        numbers = iter(range(n))

        async def one_after_the_other(_place: int) -> None:
            nonlocal answered, kept_s
            spoiler = Spoiler(CORPUS, seed)
            for number in numbers:
                request = spoilt(spoiler, number)
                start = time.thread_time()
                answer = await ask(server.port, request, 0.05, hangs_up=number % 5 == 0)
                kept_s = max(kept_s, time.thread_time() - start)
                answered += bool(answer)
                statuses = {part[:3] for part in re.split(rb"HTTP/1\.[01] ", answer)[1:]}
                wrong = {status for status in statuses if status[:1] == b"5"} - MEANT
                assert not wrong, (
                    f"seed {seed} number {number} {request[:3000]!r}: {answer[:300]!r}"
                )
                if number % 500 == 0:
                    alive = await ask(server.port, b"GET /healthz HTTP/1.0\r\n\r\n", 30.0)
                    assert alive.startswith(b"HTTP/1.0 200"), (seed, number, alive)

        await asyncio.gather(*map(one_after_the_other, range(at_once)))
    return answered, kept_s


@pytest.mark.parametrize("token", [None, TOKEN], ids=["open", "with a token"])
async def test_no_bytes_on_a_socket_are_an_error_of_the_server(
    pytestconfig: pytest.Config, caplog: pytest.LogCaptureFixture, token: str | None
) -> None:
    seed = int(pytestconfig.option.randomly_seed) % 2**24
    await held(seed, 1000, token, caplog)


@pytest.mark.fuzz
@pytest.mark.parametrize("token", [None, TOKEN], ids=["open", "with a token"])
async def test_no_hundred_thousand_sockets_are_either(
    caplog: pytest.LogCaptureFixture, token: str | None
) -> None:
    seed = secrets.randbits(24)
    print(f"seed {seed}", flush=True)
    await held(seed, 100_000, token, caplog)


async def held(seed: int, n: int, token: str | None, caplog: pytest.LogCaptureFixture) -> None:
    config = HttpConfig(port=0, token=None if token is None else SecretStr(token))
    with caplog.at_level(logging.WARNING):
        answered, kept_s = await campaign(seed, n, config)
    told = [
        (r.name, r.getMessage(), r.exc_text) for r in caplog.records if r.levelno >= logging.ERROR
    ]
    assert not told, f"seed {seed}: {told[:2]}"
    assert answered > n // 4
    print(f"http         {n:>9,} inputs, {answered:,} answered, kept {kept_s * 1e3:.1f} ms at most")


async def test_odd_requests_are_refused_and_not_failed(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(HttpConfig(port=0, token=SecretStr(TOKEN))) as (server, _, _):
        answers = await asyncio.gather(*(ask(server.port, one, 1.0) for one in CORPUS))
    for request, answer in zip(CORPUS, answers, strict=True):
        assert answer[9:10] != b"5" or answer[9:12] in MEANT, (request, answer[:200])
        assert TOKEN.encode() not in answer
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]
