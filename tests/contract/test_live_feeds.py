"""Live feeds through ccxt, from an exchange on this machine: each tick once, gaps counted."""

import asyncio
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard

pytest.importorskip("ccxt", reason="live feeds need the extra feed")

from deploy.kafka.broker import free_port
from stream_calib.adapters.embedded import EmbeddedLog, EmbeddedSink
from stream_calib.adapters.exchanges import ExchangeFeed, symbol_name
from stream_calib.errors import InputError, TransportError
from stream_calib.service.feeding import Feeding, FeedPace
from stream_calib.values import FeedCounts, Output, RecordBatch
from stream_calib.wire.ticks import decode
from tests.contract.exchanges import (
    HANG_UP,
    T0_MS,
    TEAR,
    Exchange,
    Frame,
    as_batch,
    columns,
    market,
    quote,
    running_exchange,
    trade,
    until,
)

SYMBOLS = {"BINANCE:BTCUSDT": 0, "BINANCE:ETHUSDT": 1}
QUICK = FeedPace(stale_s=5.0, retry_s=0.02, retry_max_s=0.1, hold_s=0.2)


def btc(*idents: int) -> list[str]:
    return [trade("BTCUSDT", i, f"{65_000 + i / 100:.8f}", T0_MS + 10 * i) for i in idents]


def eth(*idents: int) -> list[str]:
    return [trade("ETHUSDT", i, f"{1900 + i / 100:.8f}", T0_MS + 10 * i + 5) for i in idents]


def recorded(folder: Path, venue: str, wanted: Any) -> list[bytes]:
    """Return recorded frames, without the envelope of combined streams."""
    path = folder / "raw" / "cryptofeed_v3" / f"{venue}.jsonl.zst"
    if not path.is_file():
        pytest.skip(f"no recording of {venue} here")
    lines = zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read().splitlines()
    frames = [row["data"] for row in map(orjson.loads, lines) if row["t"] == "recv"]
    documents = [orjson.loads(frame) for frame in frames if frame[:1] == "{"]
    rows = [row.get("data", row) if "stream" in row else row for row in documents]
    return [orjson.dumps(row) for row in rows if wanted(row)]


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
        sink: Any = EmbeddedSink,
    ) -> None:
        self.log = EmbeddedLog()
        self.log.create_topic("ticks", 2)
        self.counts = FeedCounts()
        self.said: list[str] = []
        self.feed = ExchangeFeed(
            name, symbols, channel, self.counts, settings or exchange.settings()
        )
        self.sink = sink(self.log)
        self.feeding = Feeding(
            [self.feed],
            {name: self.counts},
            self.sink,
            "ticks",
            2,
            self.said.append,
            pace,
        )
        self.stop = asyncio.Event()

    async def begin(self) -> "asyncio.Task[None]":
        """Start."""
        await self.feed.start()
        return asyncio.create_task(self.feeding.run(self.stop))

    async def until_written(self, n: int) -> None:
        """Run until so many ticks are written, a moment longer, and then to the end."""
        running = await self.begin()
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


async def test_each_trade_is_written_once_in_order_and_what_is_missed_is_counted() -> None:
    first = [*btc(100, 101), *eth(7), *btc(102), *eth(8), *btc(102)]
    second = [*btc(101, 102, 103), *eth(8, 9), *btc(107), *eth(10)]  # 104 to 106 are left out
    third: list[Frame] = [
        *eth(10, 11),
        "{not json",
        b"\xff\xfe",
        "[]",
        *btc(108),
        "{}",
        0.1,
        *btc(105),
    ]  # late
    async with running_exchange([*first, HANG_UP], [*second, TEAR], third) as exchange:
        run = Run(exchange)
        await run.until_written(12)
    assert run.idents() == {
        "BINANCE:BTCUSDT": [100, 101, 102, 103, 107, 108, 105],
        "BINANCE:ETHUSDT": [7, 8, 9, 10, 11],
    } or pytest.fail(f"{run.idents()} {run.counts}")
    assert run.counts.reconnects == {"lost": 2, "stale": 0, "refused": 0, "backlog": 0}
    assert (run.counts.repeated, run.counts.late) == (5, 1)
    assert (run.counts.gaps, run.counts.missed) == (1, 3)
    assert run.counts.garbled >= 2  # what is no JSON; the rest ccxt passes over, or not
    assert (exchange.open, exchange.connections) == (0, 3)


async def test_trades_read_back_are_the_raw_frames_decoded() -> None:
    idents = range(5000, 5300)
    frames = [frame for pair in zip(btc(*idents), eth(*idents), strict=True) for frame in pair]
    async with running_exchange([*frames[:333], TEAR], frames[300:]) as exchange:
        run = Run(exchange)
        await run.until_written(600)
    fed = decode(run.batch(), "auto", SYMBOLS)
    raw = decode(as_batch([frame.encode() for frame in frames]), "auto", SYMBOLS)
    assert (fed.formats, raw.formats) == ({"native": 600}, {"binance": 600})
    for asset in SYMBOLS.values():
        assert columns(fed, asset) == columns(raw, asset)
    assert run.counts.repeated == 33
    assert (run.counts.gaps, run.counts.missed, run.counts.late) == (0, 0, 0)


async def test_each_quote_is_written_and_says_that_its_time_is_that_of_its_arrival() -> None:
    frames = [quote("BTCUSDT", k, f"{100 + k}.10", f"{100 + k}.20") for k in range(200)]
    async with running_exchange(frames) as exchange:
        run = Run(exchange, "bbo")
        await run.until_written(200)
    fed = decode(run.batch(), "auto", SYMBOLS)
    raw = decode(as_batch([frame.encode() for frame in frames]), "auto", SYMBOLS)
    assert fed.bid.tolist() == raw.bid.tolist()
    assert fed.ask.tolist() == raw.ask.tolist()
    assert fed.bid_size is not None
    assert raw.bid_size is not None
    assert fed.bid_size.tolist() == raw.bid_size.tolist()
    assert {row["time_source"] for row in run.rows()} == {"arrival"}
    assert min(row["time"] for row in run.rows()) > T0_MS * 1_000_000


async def test_recorded_quotes_of_binance_come_through_as_they_decode(market_data: Path) -> None:
    frames = recorded(market_data, "BINANCE", lambda row: "u" in row and "e" not in row)
    bases = {"NKNUSDT": ("NKN", "USDT"), "BLZETH": ("BLZ", "ETH"), "LRCBTC": ("LRC", "BTC")}
    bases["RUNEEUR"] = ("RUNE", "EUR")
    names = {f"BINANCE:{name}": k for k, name in enumerate(bases)}
    async with running_exchange([*frames[:40], HANG_UP], frames[40:], pairs=bases) as exchange:
        run = Run(exchange, "bbo", symbols=["/".join(pair) for pair in bases.values()])
        await run.until_written(len(frames))
    fed, raw = (decode(batch, "auto", names) for batch in (run.batch(), as_batch(frames)))
    for asset in names.values():
        assert fed.bid[fed.asset == asset].tolist() == raw.bid[raw.asset == asset].tolist()
        assert fed.ask[fed.asset == asset].tolist() == raw.ask[raw.asset == asset].tolist()
    assert run.counts.written == len(frames) > 80


async def test_recorded_trades_of_bybit_come_through_as_they_decode(market_data: Path) -> None:
    frames = recorded(market_data, "BYBIT", lambda row: row.get("topic") == "publicTrade.BTCUSDT")
    more = {"type": "swap", "spot": False, "swap": True, "contract": True, "linear": True}
    btc_perpetual = market("BTCUSDT", "BTC/USDT:USDT", settle="USDT", inverse=False, **more)
    names = {"BYBIT:BTCUSDT": 0}
    raw = decode(as_batch(frames), "auto", names)
    async with running_exchange([*frames[:5], TEAR], [*frames[3:], "{}"]) as exchange:
        settings = {
            "markets": {"BTC/USDT:USDT": btc_perpetual},
            "urls": {"api": {"ws": {"public": {"linear": f"ws://{exchange.url}/linear"}}}},
        }
        run = Run(exchange, name="bybit", symbols=["BTC/USDT:USDT"], settings=settings)
        await run.until_written(len(raw.row))
    fed = decode(run.batch(), "auto", names)
    assert len(raw.row) > 20
    assert columns(fed, 0) == columns(raw, 0)  # ids are UUIDs: of both the same digest
    assert run.counts.repeated > 0
    assert run.counts.gaps == 0


async def test_trades_of_kraken_have_the_symbol_that_its_frames_have() -> None:
    def frame(*idents: int) -> str:
        rows = [
            {
                "symbol": "BTC/USD",
                "side": "sell",
                "price": 65000.1 + i,
                "qty": 0.5,
                "ord_type": "market",
                "trade_id": i,
                "timestamp": f"2023-09-25T07:49:{i:02}.708000Z",
            }
            for i in idents
        ]
        return orjson.dumps({"channel": "trade", "type": "update", "data": rows}).decode()

    frames = [frame(11, 12), frame(13), frame(15, 16)]
    async with running_exchange([*frames, frame(15, 16)]) as exchange:
        settings = {
            "markets": {"BTC/USD": market("XXBTZUSD", "BTC/USD")},
            "urls": {"api": {"ws": {"publicV2": f"ws://{exchange.url}/v2"}}},
        }
        run = Run(exchange, name="kraken", symbols=["BTC/USD"], settings=settings)
        await run.until_written(5)
    fed = decode(run.batch(), "auto", {"KRAKEN:BTC/USD": 0})
    raw = decode(as_batch([frame.encode() for frame in frames]), "auto", {"KRAKEN:BTC/USD": 0})
    assert columns(fed, 0) == columns(raw, 0)
    assert (run.counts.repeated, run.counts.gaps, run.counts.missed) == (2, 1, 1)


async def test_trades_of_coinbase_are_put_in_order_whatever_message_brought_them() -> None:
    def frame(*trades: tuple[str, int]) -> str:
        rows = [
            {
                "trade_id": str(i),
                "product_id": product,
                "price": f"{1000 + i}.5",
                "size": "0.3",
                "side": "BUY",
                "time": f"2026-01-01T00:00:00.{i:03}Z",
            }
            for product, i in trades
        ]
        message = {
            "channel": "market_trades",
            "sequence_num": 0,
            "timestamp": "2026-01-01T00:00:01Z",
        }
        return orjson.dumps({**message, "events": [{"type": "update", "trades": rows}]}).decode()

    frames = [
        frame(("BTC-USD", 12), ("BTC-USD", 11), ("ETH-USD", 7), ("BTC-USD", 10)),
        frame(("ETH-USD", 9), ("ETH-USD", 8)),
        frame(("BTC-USD", 13), ("BTC-USD", 12), ("BTC-USD", 11)),  # again, beside a new one
    ]
    async with running_exchange([frames[0], 0.1, *frames[1:]]) as exchange:
        pairs = {"BTC/USD": "BTC-USD", "ETH/USD": "ETH-USD"}
        settings = {
            "markets": {symbol: market(id_, symbol) for symbol, id_ in pairs.items()},
            "urls": {"api": {"ws": f"ws://{exchange.url}/coinbase"}},
        }
        run = Run(exchange, name="coinbase", symbols=[*pairs], settings=settings)
        await run.until_written(7)
    assert run.idents() == {"COINBASE:BTC-USD": [10, 11, 12, 13], "COINBASE:ETH-USD": [7, 8, 9]}
    assert (run.counts.repeated, run.counts.missed, run.counts.late) == (2, 0, 0)
    names = {"COINBASE:BTC-USD": 0, "COINBASE:ETH-USD": 1}
    fed = decode(run.batch(), "auto", names)
    raw = decode(as_batch([frame.encode() for frame in frames]), "auto", names)
    for asset in names.values():
        assert set(columns(fed, asset)) == set(columns(raw, asset))


async def test_a_burst_of_thousands_comes_through_one_connection() -> None:
    # more than aiohttp's queue takes at once: a loop that empties it behind its back gets stuck
    n = 12_000
    async with running_exchange(btc(*range(1, n + 1))) as exchange:
        run = Run(exchange)
        await run.until_written(n)
    assert run.idents() == {"BINANCE:BTCUSDT": [*range(1, n + 1)]}
    assert run.counts.reconnects.total() == 0
    assert run.counts.overrun == 0


async def test_two_exchanges_share_a_topic_and_one_that_breaks_off_does_not_stop_the_other() -> (
    None
):
    log, stop = EmbeddedLog(), asyncio.Event()
    log.create_topic("ticks", 1)
    counts = {"binance": FeedCounts(), "binanceus": FeedCounts()}
    scripts: list[Sequence[Frame]] = [[*eth(1, 2), TEAR]] * 200
    async with running_exchange(btc(*range(1, 11))) as one, running_exchange(*scripts) as two:
        feeds = [
            ExchangeFeed(name, symbols, "trades", counts[name], of.settings())
            for name, symbols, of in (
                ("binance", ["BTC/USDT"], one),
                ("binanceus", ["ETH/USDT"], two),
            )
        ]
        for feed in feeds:
            await feed.start()
        feeding = Feeding(feeds, counts, EmbeddedSink(log), "ticks", 1, print, QUICK)
        running = asyncio.create_task(feeding.run(stop))
        await until(lambda: counts["binanceus"].reconnects["lost"] > 3)
        await until(lambda: counts["binance"].written == 10)
        stop.set()
        await running
    assert counts["binance"].reconnects.total() == 0
    assert counts["binanceus"].written == 2
    # ccxt, which would connect anew beside us, must not: it would use up what is sent once
    assert two.connections - counts["binanceus"].reconnects.total() in {0, 1}
    symbols = {orjson.loads(record.value or b"")["symbol"] for record in log.read("ticks", 0, 0)}
    assert symbols == {"BINANCE:BTCUSDT", "BINANCE_US:ETHUSDT"}


async def test_a_silent_exchange_is_connected_to_anew() -> None:
    async with running_exchange(btc(1), btc(2)) as exchange:
        run = Run(exchange, pace=replace(QUICK, stale_s=3.0))
        await run.until_written(2)
    assert run.idents() == {"BINANCE:BTCUSDT": [1, 2]}
    assert run.counts.reconnects["stale"] >= 1
    assert any("nothing for 3 s" in sentence for sentence in run.said)


class Ailing(EmbeddedSink):
    """A log that takes nothing for a while."""

    ill = True

    async def publish(self, outputs: Sequence[Output]) -> None:
        """Write, unless it is ill."""
        if self.ill:
            message = "Kafka at nowhere cannot be reached"
            raise TransportError(message)
        await super().publish(outputs)


async def test_reading_stops_when_the_log_takes_nothing_and_what_was_read_is_written() -> None:
    scripts: list[Sequence[Frame]] = [
        [*btc(*range(1, 61)), 0.1, *btc(*range(61, 121))],
        btc(*range(126, 131)),
    ]
    async with running_exchange(*scripts) as exchange:
        run = Run(exchange, pace=replace(QUICK, backlog=50, hold_s=2.0), sink=Ailing)
        running = await run.begin()
        await until(lambda: run.counts.reconnects["backlog"] == 1 and exchange.open == 0)
        read, held = run.counts.messages, run.feeding.waiting
        await asyncio.sleep(0.3)
        assert (run.counts.messages, run.feeding.waiting) == (read, held)
        assert run.feeding.troubles() == ("binance is not connected", "the log takes no ticks")
        run.sink.ill = False
        await until(lambda: run.counts.written == 125)
        run.stop.set()
        await running
    assert run.idents() == {"BINANCE:BTCUSDT": [*range(1, 121), *range(126, 131)]}
    assert (run.counts.gaps, run.counts.missed) == (1, 5)
    assert any("reading stopped" in sentence for sentence in run.said)
    assert "ticks are written again" in run.said


async def test_what_cannot_be_written_before_the_end_is_counted_and_said() -> None:
    async with running_exchange(btc(*range(1, 8))) as exchange:
        run = Run(exchange, pace=replace(QUICK, flush_s=0.1), sink=Ailing)
        running = await run.begin()
        await until(lambda: run.feeding.waiting == 7)
        run.stop.set()
        with pytest.raises(TransportError, match="7 ticks could not be written to 'ticks'"):
            await running
    assert (run.counts.written, run.counts.unwritten) == (0, 7)


async def test_what_an_exchange_refuses_at_the_start_ends_the_feed_with_its_words() -> None:
    refusal = {"error": {"code": -1121, "msg": "Invalid symbol."}, "id": 1}
    async with running_exchange([orjson.dumps(refusal).decode()]) as exchange:
        run = Run(exchange)
        with pytest.raises(InputError, match=r"binance refuses: .*Invalid symbol"):
            await run.until_written(1)


@pytest.mark.parametrize(
    ("name", "symbols", "channel", "said"),
    [
        ("binanse", ("BTC/USDT",), "trades", "nothing of 'binanse'; did you mean binance"),
        ("bitstamp", ("BTC/USD",), "bbo", "--channel: bitstamp does not stream bbo"),
        ("binance", ("BTC/USDX",), "trades", "has no BTC/USDX; did you mean BTC/USDT"),
    ],
)
async def test_what_an_exchange_does_not_have_is_said_in_a_sentence(
    name: str, symbols: tuple[str, ...], channel: Any, said: str
) -> None:
    async with running_exchange() as exchange:
        with pytest.raises(InputError) as caught:
            await ExchangeFeed(name, symbols, channel, FeedCounts(), exchange.settings()).start()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_two_markets_of_one_name_are_refused() -> None:
    spot = market("BTCUSDT", "BTC/USDT")
    more = {"type": "swap", "spot": False, "swap": True, "contract": True, "linear": True}
    swap = market("BTCUSDT", "BTC/USDT:USDT", settle="USDT", **more)
    settings = {"markets": {row["symbol"]: row for row in (spot, swap)}}
    both = ("BTC/USDT", "BTC/USDT:USDT")
    with pytest.raises(InputError, match="are both BYBIT:BTCUSDT"):
        await ExchangeFeed("bybit", both, "trades", FeedCounts(), settings).start()


async def test_an_exchange_that_cannot_be_reached_is_one_sentence() -> None:
    settings = Exchange([])
    settings.url = f"127.0.0.1:{free_port()}"
    feed = ExchangeFeed("binance", ["BTC/USDT"], "trades", FeedCounts(), settings.settings())
    with pytest.raises(TransportError, match="binance cannot be reached") as caught:
        await feed.start()
    assert "\n" not in str(caught.value)


def test_without_ccxt_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ccxt.pro", None)
    with pytest.raises(InputError, match=r"pip install 'stream-calib\[feed\]'"):
        ExchangeFeed("binance", ["BTC/USDT"], "trades", FeedCounts())


@pytest.mark.parametrize(
    ("exchange", "id_", "symbol", "kind", "name"),
    [
        ("binance", "BTCUSDT", "BTC/USDT", {}, "BINANCE:BTCUSDT"),
        ("binance", "BTCUSDT", "BTC/USDT:USDT", {"contract": True}, "BINANCE_FUTURES:BTCUSDT"),
        (
            "binance",
            "BTCUSD_PERP",
            "BTC/USD:BTC",
            {"contract": True, "inverse": True},
            "BINANCE_DELIVERY:BTCUSD_PERP",
        ),
        ("binanceusdm", "BTCUSDT", "BTC/USDT:USDT", {}, "BINANCE_FUTURES:BTCUSDT"),
        ("kraken", "XXBTZUSD", "BTC/USD", {}, "KRAKEN:BTC/USD"),
        ("bybit", "BTCUSDT", "BTC/USDT", {}, "BYBIT:BTCUSDT"),
        ("okx", "BTC-USDT", "BTC/USDT", {}, "OKX:BTC-USDT"),
        ("coinbase", "BTC-USD", "BTC/USD", {}, "COINBASE:BTC-USD"),
        ("coinbaseexchange", "BTC-USD", "BTC/USD", {}, "COINBASE:BTC-USD"),
    ],
)
def test_symbols_are_named_as_the_decoders_name_them(
    exchange: str, id_: str, symbol: str, kind: dict[str, Any], name: str
) -> None:
    assert symbol_name(exchange, market(id_, symbol, **kind)) == name
