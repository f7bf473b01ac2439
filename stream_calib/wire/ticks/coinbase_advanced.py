"""The feed of Coinbase Advanced Trade; symbols become ``COINBASE:BTC-USD``.

    {"channel": "market_trades", "timestamp": "2026-08-09T21:05:48.228568804Z", "sequence_num": 0,
     "events": [{"type": "snapshot", "trades": [
        {"product_id": "BTC-USD", "trade_id": "1068572090", "price": "65083.67", "size": "0.002186",
         "time": "2026-08-09T21:05:42.514318Z", "side": "SELL"}, ...]}]}

``market_trades``, which come newest first and are put in order, and ``ticker``, whose time is
that of the message. ``candles`` never say that they are closed.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from stream_calib.wire.ticks.fields import MalformedError, SilentError, objects
from stream_calib.wire.ticks.formats import Document, Format
from stream_calib.wire.ticks.layouts import Layout

VENUE = "COINBASE"
TRADES = Layout("product_id", ("time",), "price", ident="trade_id", venue=VENUE)
TICKERS = Layout(
    "product_id",
    ("at",),
    "price",
    "best_bid",
    "best_ask",
    "best_bid_quantity",
    "best_ask_quantity",
    venue=VENUE,
)
_SILENT = {
    "candles": "open_bar",
    **dict.fromkeys(
        ("subscriptions", "heartbeats", "status", "user", "futures_balance_summary"), "control"
    ),
}


def matches(keys: AbstractSet[str]) -> bool:
    """Tell whether this looks like a message of Coinbase Advanced Trade."""
    return {"channel", "events"} <= keys


def rows(document: Document) -> tuple[Layout, Sequence[Document]]:
    """Read the trades or tickers of one message."""
    channel = document["channel"]
    if channel == "market_trades":
        trades = [t for e in objects(document["events"]) for t in objects(e.get("trades"))]
        return TRADES, trades[::-1]
    if channel in ("ticker", "ticker_batch"):
        at = document.get("timestamp")
        events = objects(document["events"])
        return TICKERS, [{**t, "at": at} for e in events for t in objects(e.get("tickers"))]
    silent = _SILENT.get(channel) if isinstance(channel, str) else None
    if silent is not None:
        raise SilentError(silent)
    reason = "unsupported"
    raise MalformedError(reason)


FORMAT = Format("coinbase_advanced", matches, rows, venue=VENUE)
