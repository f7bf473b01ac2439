"""Version 5 of Bybit's public streams; symbols become ``BYBIT:BTCUSDT``.

    {"topic": "publicTrade.BTCUSDT", "type": "snapshot", "ts": 1786310819681, "data": [
        {"T": 1786310819680, "s": "BTCUSDT", "S": "Sell", "v": "0.004", "p": "65114.20",
         "i": "a9188a0a-82bc-50de-be60-03eedbe3cdd7", "BT": false}]}
    {"topic": "tickers.ETHUSDT", "type": "delta", "ts": 1786310819274, "cs": 430879421964,
     "data": {"symbol": "ETHUSDT", "bid1Price": "1922.49", "bid1Size": "153.59"}}

``publicTrade``, ``tickers``, ``orderbook.1`` and closed ``kline``. A change of a ticker carries
only what changed: a side, a size, or no price at all. The messages of spot and derivatives look
alike: ``input.exchanges`` names the exchange by topic.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from stream_calib.wire.ticks.fields import (
    MalformedError,
    SilentError,
    inside,
    mapping,
    objects,
    text,
    top,
)
from stream_calib.wire.ticks.formats import Document, Format
from stream_calib.wire.ticks.layouts import Layout

VENUE = "BYBIT"
TRADES = Layout("s", ("T",), "p", ident="i", venue=VENUE)
TICKERS = Layout(
    "symbol",
    ("ts",),
    "lastPrice",
    "bid1Price",
    "ask1Price",
    "bid1Size",
    "ask1Size",
    venue=VENUE,
)
BOOKS = Layout("s", ("ts",), "", "bid", "ask", "bid_size", "ask_size", venue=VENUE)
KLINES = Layout("symbol", ("at",), "close", venue=VENUE, end_of="end")
_PRICES = ("lastPrice", "bid1Price", "ask1Price")


def matches(keys: AbstractSet[str]) -> bool:
    """Tell whether this looks like a message of Bybit."""
    if "op" in keys:
        return not keys.isdisjoint({"success", "ret_msg"})
    return {"topic", "data"} <= keys


def rows(document: Document) -> tuple[Layout, Sequence[Document]]:
    """Read the trades, the quote or the bars of one message."""
    if "topic" not in document:
        reason = "control"
        raise SilentError(reason)
    kind, _, rest = text(document["topic"]).partition(".")
    data, ts = document.get("data"), document.get("ts")
    if kind == "publicTrade":
        return TRADES, objects(data)
    if kind == "tickers":
        ticker = mapping(data)
        if "" in ticker.values():  # how options say that there is no price
            ticker = {key: value for key, value in ticker.items() if value != ""}
        return TICKERS, ({**ticker, "ts": ts},) if not ticker.keys().isdisjoint(_PRICES) else ()
    if kind == "orderbook" and rest.startswith("1."):
        bid, ask = (top(mapping(data).get(side)) for side in ("b", "a"))
        best = {"bid": bid[0], "bid_size": bid[1], "ask": ask[0], "ask_size": ask[1], "ts": ts}
        return BOOKS, ({**mapping(data), **best},) if bid != ask else ()
    if kind == "kline":
        symbol = rest.rpartition(".")[2]
        closed = [bar for bar in objects(data) if bar.get("confirm") is True]
        if not closed:
            reason = "open_bar"
            raise SilentError(reason)
        return KLINES, [{**b, "symbol": symbol, "at": inside(b.get("end"))} for b in closed]
    reason = "unsupported"
    raise MalformedError(reason)


FORMAT = Format("bybit", matches, rows, venue=VENUE)
