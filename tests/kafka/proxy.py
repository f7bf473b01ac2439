"""A man in the middle who understands enough of Kafka's protocol to do harm where it hurts.

The broker advertises the proxy's address, so that every client comes back to it. What is sent
passes unchanged unless a fault waits for its kind of request.
"""

import asyncio
import contextlib
import ssl
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

PRODUCE, FETCH, LIST_OFFSETS, METADATA, OFFSET_COMMIT, FIND_COORDINATOR = 0, 1, 2, 3, 8, 10
JOIN_GROUP, HEARTBEAT, SYNC_GROUP = 11, 12, 14
INIT_PRODUCER_ID, ADD_PARTITIONS, ADD_OFFSETS, END_TXN, TXN_OFFSET_COMMIT = 22, 24, 25, 26, 28

HEAD = struct.Struct(">hhi")  # what every request begins with: api key, version, correlation id


@dataclass
class Exchange:
    """One request and its answer, in the hands of a fault."""

    api: int
    correlation: int
    request: bytes
    connection: "_Connection"
    answer: "asyncio.Future[bytes]" = field(default_factory=asyncio.Future)

    @property
    def client(self) -> str:
        """The name that the client has given itself."""
        (size,) = struct.unpack_from(">h", self.request, HEAD.size)
        return self.request[HEAD.size + 2 :][: max(size, 0)].decode()

    @property
    def body(self) -> bytes:
        """What is asked for, after the head, which ends with the client's name."""
        (size,) = struct.unpack_from(">h", self.request, HEAD.size)
        return self.request[HEAD.size + 2 + max(size, 0) :]

    async def forward(self) -> None:
        """Send the request to the broker; its answer goes to the client when it comes."""
        await self.connection.forward(self)

    async def apply(self) -> bytes:
        """Send the request to the broker and keep the answer, which is returned."""
        self.connection.kept.add(self.correlation)
        await self.connection.forward(self)
        return await self.answer

    def reply(self, answer: bytes) -> None:
        """Give the client an answer, after its correlation id."""
        self.connection.reply(answer)

    def cut(self) -> None:
        """Hang up on the client; what is with the broker, or comes to it later, is answered."""
        self.connection.cut()


Fault = Callable[[Exchange], Awaitable[None]]


class KafkaProxy:
    """Passes what clients and one broker say to each other, and lets faults at it.

    Parameters
    ----------
    port
        Where clients find it, on the loopback address; what the broker advertises.
    broker_port
        Where the broker listens, on the same address.
    tls
        What clients have to speak TLS with; None for plain text, which the broker is spoken to in.

    Attributes
    ----------
    seen
        The kinds of all requests, in order of arrival.
    chance
        Asked for a fault at every request for which none waits; None passes it.
    failures
        What connections have died of. Clients take that for a cut, so the end of the proxy raises
        the first of them.
    """

    def __init__(self, port: int, broker_port: int, tls: ssl.SSLContext | None = None) -> None:
        self.seen: list[int] = []
        self.chance: Callable[[Exchange], Fault | None] = lambda _exchange: None
        self.failures: list[BaseException] = []
        self._port = port
        self._broker_port = broker_port
        self._tls = tls
        self._faults: dict[int, list[Fault]] = {}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: set[_Connection] = set()

    @property
    def bootstrap(self) -> str:
        """Address for clients, ``host:port``."""
        return f"127.0.0.1:{self._port}"

    def inject(self, api: int, *faults: Fault) -> None:
        """Let these faults at the next requests of a kind, one each, in this order."""
        self._faults.setdefault(api, []).extend(faults)

    def waiting(self, api: int) -> int:
        """How many faults still wait for a kind of request."""
        return len(self._faults.get(api, ()))

    def forget(self) -> None:
        """Drop the faults that wait."""
        self._faults.clear()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self._port, ssl=self._tls
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()
        if self.failures and error is None:
            raise self.failures[0]

    def note_end(self, task: "asyncio.Task[None]") -> None:
        """Keep what a task of a connection has died of."""
        if not task.cancelled() and (died_of := task.exception()) is not None:
            self.failures.append(died_of)

    async def handle(self, exchange: Exchange) -> None:
        """Pass one request, or let the fault at it that waits for its kind."""
        self.seen.append(exchange.api)
        waiting = self._faults.get(exchange.api)
        fault = waiting.pop(0) if waiting else self.chance(exchange)
        await (exchange.forward() if fault is None else fault(exchange))

    def hang_up(self) -> int:
        """Cut every connection there is, and return how many; the next one is served."""
        for connection in self._connections:
            connection.cut()
        return len(self._connections)

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self, writer)
        task = asyncio.ensure_future(connection.run(reader, self._broker_port))
        self._tasks.add(task)
        self._connections.add(connection)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(self.note_end)
        task.add_done_callback(lambda _: self._connections.discard(connection))


class _Connection:
    def __init__(self, proxy: KafkaProxy, client: asyncio.StreamWriter) -> None:
        self.kept: set[int] = set()  # correlation ids of answers the client shall not see
        self._proxy = proxy
        self._client = client
        self._broker: asyncio.StreamWriter | None = None
        self._open: dict[int, list[Exchange]] = {}

    async def run(self, client: asyncio.StreamReader, broker_port: int) -> None:
        answers: asyncio.Task[None] | None = None
        try:
            broker, self._broker = await asyncio.open_connection("127.0.0.1", broker_port)
            answers = asyncio.ensure_future(self._pass_answers(broker))
            answers.add_done_callback(self._proxy.note_end)
            while frame := await _frame(client):
                api, _version, correlation = HEAD.unpack_from(frame)
                await self._proxy.handle(Exchange(api, correlation, frame, self))
            # A client that has gone may have left something that is to reach the broker.
            open_ = [e.answer for exchanges in self._open.values() for e in exchanges]
            if open_:
                await asyncio.wait(open_, timeout=10)
        except OSError:
            pass  # one of the two is gone, and the other shall notice
        finally:
            if answers is not None:
                answers.cancel()
            for writer in (self._client, self._broker):
                if writer is not None:
                    writer.close()
                    with contextlib.suppress(OSError, asyncio.CancelledError):
                        await writer.wait_closed()

    async def forward(self, exchange: Exchange) -> None:
        assert self._broker is not None
        self._open.setdefault(exchange.correlation, []).append(exchange)
        self._broker.write(struct.pack(">i", len(exchange.request)) + exchange.request)
        await self._broker.drain()

    def reply(self, answer: bytes) -> None:
        if not self._client.is_closing():
            self._client.write(struct.pack(">i", len(answer)) + answer)

    def cut(self) -> None:
        self._client.close()

    async def _pass_answers(self, broker: asyncio.StreamReader) -> None:
        while frame := await _frame(broker):
            (correlation,) = struct.unpack_from(">i", frame)
            waiting = self._open.get(correlation)
            if waiting:
                waiting.pop(0).answer.set_result(frame)
            if correlation not in self.kept:
                self.reply(frame)
        self._client.close()  # the broker hung up
        for exchange in (e for exchanges in self._open.values() for e in exchanges):
            exchange.answer.cancel()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    # Empty at the end of the stream.
    try:
        (size,) = struct.unpack(">i", await reader.readexactly(4))
        return await reader.readexactly(size)
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


def counted(fault: Fault, counts: Counter[str], name: str) -> Fault:
    """Count a fault once it has been done to a request, and not before."""

    async def told(exchange: Exchange) -> None:
        await fault(exchange)
        counts[name] += 1

    return told


def delay(seconds: float) -> Fault:
    """Let the request reach the broker late."""

    async def late(exchange: Exchange) -> None:
        await asyncio.sleep(seconds)
        await exchange.forward()

    return late


def hold(until: asyncio.Event) -> Fault:
    """Keep the request until told, whether the client is still there or not."""

    async def held(exchange: Exchange) -> None:
        await until.wait()
        await exchange.forward()

    return held


async def cut_before(exchange: Exchange) -> None:
    """Hang up instead of passing the request on."""
    exchange.cut()


async def cut_after(exchange: Exchange) -> None:
    """Hang up when the broker has done what was asked, before it is known."""
    await exchange.apply()
    exchange.cut()


async def swallow(exchange: Exchange) -> None:
    """Let the broker do what was asked and never answer."""
    await exchange.apply()


async def repeat(exchange: Exchange) -> None:
    """Bring the request to the broker twice; the client hears of the second time only."""
    await exchange.apply()
    exchange.connection.kept.discard(exchange.correlation)
    await Exchange(
        exchange.api, exchange.correlation, exchange.request, exchange.connection
    ).forward()


def alter(change: Callable[[bytes], bytes]) -> Fault:
    """Let the broker do what was asked and change its answer, correlation id included."""

    async def altered(exchange: Exchange) -> None:
        exchange.reply(change(await exchange.apply()))

    return altered
