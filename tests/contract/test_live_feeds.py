"""Live feeds through ccxt from an exchange on this machine: each tick once, what is missed counted."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

pytest.importorskip("ccxt", reason="live feeds need the extra feed")

from stream_calib.adapters.embedded import EmbeddedLog, EmbeddedSink
from stream_calib.adapters.exchanges import ExchangeFeed
from stream_calib.errors import InputError, TransportError
from stream_calib.service.feeding import Feeding, FeedPace
from stream_calib.values import FeedCounts, Output, RecordBatch, Source, TickBatch
from stream_calib.wire.ticks import decode
from tests.contract.exchanges import (
    HANG_UP,
    TEAR,
    Exchange,
    Frame,
    market,
    quote,
    running_exchange,
    trade,
    until,
)

T0_MS = 1_700_000_000_000
SYMBOLS = {"BINANCE:BTCUSDT": 0, "BINANCE:ETHUSDT": 1}
QUICK = FeedPace(stale_s=5.0, retry_s=0.02, retry_max_s=0.1, hold_s=0.2)


def btc(*idents: int) -> list[str]:
    return [trade("BTCUSDT", i, f"{65_000 + i / 100:.8f}", T0_MS + 10 * i) for i in idents]


def eth(*idents: int) -> list[str]:
    return [trade("ETHUSDT", i, f"{1900 + i / 100:.8f}", T0_MS + 10 * i + 5) for i in idents]


class Run:
    """A feed at work on an embedded log."""

    def __init__(
        self,
        exchange: Exchange,
        channel: Any = "trades",
        *,
        name: str = "binance",
        symbols: Sequence[str] = ("BTC/USDT", "ETH/USDT"),
        pace: FeedPace = QUICK,
        settings: dict[str, Any] | None = None,
        sink: Any = None,
    ) -> None:
        self.log = EmbeddedLog()
        self.log.create_topic("ticks", 2)
        self.counts = FeedCounts()
        self.said: list[str] = []
        self.feed = ExchangeFeed(
            name, symbols, channel, self.counts, settings or exchange.settings()
        )
        self.feeding = Feeding(
            [self.feed],
            {name: self.counts},
            sink(self.log) if sink else EmbeddedSink(self.log),
            "ticks",
            2,
            self.said.append,
            pace,
        )
        self.stop = asyncio.Event()

    async def until_written(self, n: int) -> None:
        """Run until so many ticks are written, a moment longer, and then to the end."""
        await self.feed.start()
        running = asyncio.create_task(self.feeding.run(self.stop))
        try:
            await until(lambda: self.counts.written >= n or running.done())
            await asyncio.sleep(0.1)
        except TimeoutError:
            pytest.fail(f"{self.counts}, {self.said}")
        finally:
            self.stop.set()
            await running

    def batch(self) -> RecordBatch:
        """Return all that was written, the first partition first."""
        records = [r for p in range(2) for r in self.log.read("ticks", p, 0, 100_000)]
        return as_batch([r.value for r in records])

    def rows(self) -> list[dict[str, Any]]:
        return [orjson.loads(value or b"") for value in self.batch().values]

    def idents(self) -> dict[str, list[int]]:
        out: dict[str, list[int]] = defaultdict(list)
        for row in self.rows():
            out[row["symbol"]].append(int(row["id"]))
        return out


def as_batch(values: Sequence[bytes | None]) -> RecordBatch:
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


async def test_each_trade_is_written_once_in_order_and_what_is_missed_is_counted() -> None:
    first = [*btc(100, 101), *eth(7), *btc(102), *eth(8), *btc(102)]
    second = [*btc(101, 102, 103), *eth(8, 9), *btc(107), *eth(10)]  # 104 to 106 are left out
    third = [*eth(10, 11), "{not json", b"\xff\xfe", "[]", *btc(108), "{}", *btc(105)]  # one late
    async with running_exchange([*first, HANG_UP], [*second, TEAR], third) as exchange:
        run = Run(exchange)
        await run.until_written(12)
    assert run.idents() == {
        "BINANCE:BTCUSDT": [100, 101, 102, 103, 107, 108, 105],
        "BINANCE:ETHUSDT": [7, 8, 9, 10, 11],
    } or pytest.fail(f"{run.idents()} {run.counts}")
    assert exchange.open == 0
