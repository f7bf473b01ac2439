"""Version 2 of Kraken's websocket; symbols become ``KRAKEN:BTC/USD``.

    {"channel": "trade", "type": "update", "data": [
        {"symbol": "MATIC/USD", "side": "sell", "price": 0.5117, "qty": 40.0, "ord_type": "market",
         "trade_id": 4665906, "timestamp": "2023-09-25T07:49:37.708706Z"}]}

``trade`` and ``ticker``; a ticker without a time gets that of the log. ``ohlc`` never says that a
bar is closed. Version 1, arrays with codes of its own, is not read.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from stream_calib.wire.ticks.fields import MalformedError, SilentError, objects
from stream_calib.wire.ticks.formats import Document, Format
from stream_calib.wire.ticks.layouts import Layout

VENUE = "KRAKEN"
TRADES = Layout("symbol", ("timestamp",), "price", ident="trade_id", venue=VENUE)
TICKERS = Layout(
    "symbol", ("timestamp",), "last", "bid", "ask", "bid_qty", "ask_qty", at_log=True, venue=VENUE
)
_SILENT = {
    "ohlc": "open_bar",
    **dict.fromkeys(("heartbeat", "status", "instrument", "executions", "balances"), "control"),
}


def matches(keys: AbstractSet[str]) -> bool:
    """Tell whether this looks like a message of Kraken."""
    if "method" in keys:
        return not keys.isdisjoint({"result", "success", "error", "time_in"})
    return "channel" in keys and (
        keys == {"channel"} or ({"type", "data"} <= keys and "events" not in keys)
    )


def rows(document: Document) -> tuple[Layout, Sequence[Document]]:
    """Read the trades or tickers of one message."""
    channel = document.get("channel", "status")
    if channel == "trade":
        return TRADES, objects(document.get("data"))
    if channel == "ticker":
        return TICKERS, objects(document.get("data"))
    silent = _SILENT.get(channel) if isinstance(channel, str) else None
    if silent is not None:
        raise SilentError(silent)
    reason = "unsupported"
    raise MalformedError(reason)


FORMAT = Format("kraken", matches, rows, venue=VENUE)
