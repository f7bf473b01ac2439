"""What the proxy counts has happened to a request."""

import asyncio
import contextlib
import struct
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from deploy.kafka.broker import free_port
from tests.kafka.proxy import (
    END_TXN,
    HEAD,
    PRODUCE,
    Exchange,
    KafkaProxy,
    counted,
    cut_after,
    cut_before,
    delay,
)


def frame(data: bytes) -> bytes:
    return struct.pack(">i", len(data)) + data


@contextlib.asynccontextmanager
async def node(*, answers: bool) -> AsyncIterator[KafkaProxy]:
    """Give a proxy before something that answers every request, or hangs up at one."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while answers or not reader.at_eof():
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                request = await reader.readexactly(size)
                if not answers:
                    break
                writer.write(frame(request[4:8] + b"done"))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with KafkaProxy(free_port(), port) as proxy:
            yield proxy


async def ask(proxy: KafkaProxy, api: int) -> bytes:
    """Send one request on a connection of its own; return its answer, empty where it is cut."""
    host, _, port = proxy.bootstrap.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(frame(HEAD.pack(api, 0, 7) + b"\0\2me"))
        async with asyncio.timeout(30.0):
            return await reader.read(100)
    finally:
        writer.close()


async def test_fault_that_no_request_meets_is_not_counted() -> None:
    counts: Counter[str] = Counter()
    async with node(answers=True) as proxy:
        proxy.inject(END_TXN, counted(cut_before, counts, "cut"))
        assert await ask(proxy, PRODUCE)
        assert not counts
        assert await ask(proxy, END_TXN) == b""
    assert counts == {"cut": 1}


async def test_cut_after_an_answer_is_counted_where_the_broker_has_answered() -> None:
    counts: Counter[str] = Counter()
    async with node(answers=True) as proxy:
        proxy.inject(PRODUCE, counted(cut_after, counts, "cut"))
        assert await ask(proxy, PRODUCE) == b""
    assert counts == {"cut": 1}
    async with node(answers=False) as proxy:
        proxy.inject(PRODUCE, counted(cut_after, counts, "cut"))
        assert await ask(proxy, PRODUCE) == b""
    assert counts == {"cut": 1}


async def test_fault_that_fails_looks_like_a_cut_and_fails_the_test_in_the_end() -> None:
    counts: Counter[str] = Counter()

    async def broken(exchange: Exchange) -> None:
        raise LookupError(exchange.client)

    async def meet() -> None:
        async with node(answers=True) as proxy:
            proxy.inject(PRODUCE, counted(broken, counts, "broken"))
            assert await ask(proxy, PRODUCE) == b""
            assert await ask(proxy, PRODUCE)  # others are served

    with pytest.raises(LookupError, match=r"^me$"):
        await meet()
    assert not counts


async def test_connection_that_either_side_cuts_is_no_failure() -> None:
    for answers in (True, False):
        async with node(answers=answers) as proxy:
            for fault in (cut_before, cut_after, delay(0.01)):
                proxy.inject(PRODUCE, fault)
                await ask(proxy, PRODUCE)
        assert proxy.failures == []


async def test_fault_that_is_forgotten_meets_nothing() -> None:
    counts: Counter[str] = Counter()
    async with node(answers=True) as proxy:
        proxy.inject(PRODUCE, counted(cut_before, counts, "cut"))
        proxy.forget()
        assert await ask(proxy, PRODUCE)
    assert not counts
