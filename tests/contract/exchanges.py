"""An exchange on this machine: the REST that ccxt asks for at the start, and real websockets.

Its frames are those of Binance (made by hand in the documented layout, or recorded) or of any
other venue; what each connection sends is a script.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from enum import Enum, auto
from typing import Any

import orjson
from aiohttp import WSMsgType, web

from stream_calib.values import RecordBatch, Source, TickBatch


class End(Enum):
    """How a connection ends."""

    HANG_UP = auto()  # closed, as a server does
    TEAR = auto()  # gone without a word


HANG_UP, TEAR = End
Frame = str | bytes | float | End  # a number is a pause in seconds

T0_MS = 1_700_000_000_000
BASES = {"BTCUSDT": ("BTC", "USDT"), "ETHUSDT": ("ETH", "USDT")}


class Exchange:
    """Serves one script per connection; after the last one connections stay silent."""

    def __init__(self, scripts: Sequence[Sequence[Frame]], pairs: Any = None) -> None:
        self.scripts = list(scripts)
        self.pairs: dict[str, tuple[str, str]] = pairs or BASES
        self.asked: list[str] = []
        self.subscriptions: list[Any] = []
        self.open = self.connections = 0
        self.url = ""

    def settings(self) -> dict[str, Any]:
        """Return what makes ccxt's Binance talk to this one."""
        rest, socket = f"http://{self.url}/api/v3", f"ws://{self.url}/ws"
        return {
            "urls": {"api": {"public": rest, "ws": {"spot": socket}}},
            "options": {"fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False},
        }

    async def rest(self, request: web.Request) -> web.Response:
        """Answer what is traded."""
        self.asked.append(request.path)
        symbols = [
            {
                "symbol": name,
                "status": "TRADING",
                "baseAsset": base,
                "quoteAsset": quote,
                "baseAssetPrecision": 8,
                "quotePrecision": 8,
                "quoteAssetPrecision": 8,
                "orderTypes": ["LIMIT"],
                "isSpotTradingAllowed": True,
                "isMarginTradingAllowed": False,
                "permissions": ["SPOT"],
                "filters": [{"filterType": "PRICE_FILTER", "tickSize": "0.00000001"}],
            }
            for name, (base, quote) in self.pairs.items()
        ]
        return web.json_response({"timezone": "UTC", "rateLimits": [], "symbols": symbols})

    async def socket(self, request: web.Request) -> web.WebSocketResponse:
        """Wait for a subscription, then play the next script."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.open += 1
        self.connections += 1
        try:
            asked = orjson.loads((await socket.receive()).data)
            self.subscriptions.append(asked)
            if "id" in asked:
                await socket.send_str(orjson.dumps({"result": None, "id": asked["id"]}).decode())
            script = self.scripts.pop(0) if self.scripts else ()
            for frame in script:
                if frame is End.HANG_UP:
                    await socket.close()
                    return socket
                if frame is End.TEAR:
                    assert request.transport is not None
                    request.transport.abort()
                    return socket
                if isinstance(frame, float):
                    await asyncio.sleep(frame)
                elif isinstance(frame, bytes):
                    await socket.send_bytes(frame)
                elif isinstance(frame, str):
                    await socket.send_str(frame)
            while (await socket.receive()).type in {WSMsgType.TEXT, WSMsgType.PING}:
                pass
        except ConnectionError:
            pass  # the other side left in the middle of it
        finally:
            self.open -= 1
        return socket


@asynccontextmanager
async def running_exchange(
    *scripts: Sequence[Frame], pairs: dict[str, tuple[str, str]] | None = None
) -> AsyncIterator[Exchange]:
    """Start one, and stop it at the end."""
    exchange = Exchange(scripts, pairs)
    app = web.Application()
    app.router.add_get("/api/v3/exchangeInfo", exchange.rest)
    app.router.add_get("/{path:.*}", exchange.socket)
    runner = web.AppRunner(app, shutdown_timeout=0.5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        exchange.url = f"{host}:{port}"
        yield exchange
    finally:
        await runner.cleanup()


def toml(table: dict[str, Any], name: str) -> str:
    """Write nested tables as TOML."""
    plain = {k: v for k, v in table.items() if not isinstance(v, dict)}
    lines = [f"[{name}]", *(f"{k} = {as_toml(v)}" for k, v in plain.items())]
    tables = [toml(v, f"{name}.{k}") for k, v in table.items() if isinstance(v, dict)]
    return "\n".join([*lines, *tables])


def as_toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def trade(symbol: str, ident: int, price: str, time_ms: int) -> str:
    """Return a trade as Binance streams it."""
    row = {
        "e": "trade",
        "E": time_ms + 1,
        "s": symbol,
        "t": ident,
        "p": price,
        "q": "0.01000000",
        "T": time_ms,
        "m": False,
        "M": True,
    }
    return orjson.dumps(row).decode()


def quote(symbol: str, update: int, bid: str, ask: str) -> str:
    """Return a best bid and ask as Binance streams it."""
    row = {"u": update, "s": symbol, "b": bid, "B": "1.5", "a": ask, "A": "2.5"}
    return orjson.dumps(row).decode()


def market(id_: str, symbol: str, **more: Any) -> dict[str, Any]:
    """Return a market as ccxt describes one, of the spot market unless said otherwise."""
    base, quote_ = symbol.partition(":")[0].split("/")
    own = {"id": id_, "symbol": symbol, "base": base, "quote": quote_, "active": True}
    kind = {"type": "spot", "spot": True, "swap": False, "contract": False}
    rest = {"baseId": base, "quoteId": quote_, "precision": {}, "limits": {}, "info": {}}
    return {**own, **kind, **rest, **more}


def as_batch(values: Sequence[bytes | None]) -> RecordBatch:
    """Return records as if read from the first partition of a topic."""
    n = len(values)
    return RecordBatch(Source("ticks", 0), 0, n, range(n), [T0_MS] * n, values)


def columns(ticks: TickBatch, asset: int) -> list[tuple[float, ...]]:
    """Return what the ticks of a symbol carry, NaN as -1."""
    rows = ticks.asset == asset
    named = (ticks.time_ns, ticks.price, ticks.bid, ticks.ask, ticks.ident)
    return [
        tuple(-1.0 if value != value else value for value in row)
        for row in zip(*(column[rows].tolist() for column in named), strict=True)
    ]


async def until(true: Any, seconds: float = 60.0) -> None:
    """Wait until something becomes true."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 (what is awaited may be any number)
            await asyncio.sleep(0.01)
