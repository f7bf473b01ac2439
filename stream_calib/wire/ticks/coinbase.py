"""The feed of Coinbase Exchange; symbols become ``COINBASE:BTC-USD``.

    {"type": "match", "trade_id": 10, "sequence": 50, "maker_order_id": "...",
     "taker_order_id": "...",
     "time": "2014-11-07T08:19:27.028459Z", "product_id": "BTC-USD", "size": "5.23512",
     "price": "400.23", "side": "sell"}

``match`` and ``ticker``. ``last_match`` repeats, on connecting, a trade of before; orders say
nothing of prices.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from stream_calib.wire.ticks.fields import MalformedError, SilentError
from stream_calib.wire.ticks.formats import Document, Format
from stream_calib.wire.ticks.layouts import Layout

VENUE = "COINBASE"
MATCHES = Layout("product_id", ("time",), "price", ident="trade_id", venue=VENUE)
TICKERS = Layout(
    "product_id",
    ("time",),
    "price",
    "best_bid",
    "best_ask",
    "best_bid_size",
    "best_ask_size",
    at_log=True,
    venue=VENUE,
)
_SILENT = {
    "last_match": "repeated",
    **dict.fromkeys(("subscriptions", "heartbeat", "status", "error"), "control"),
    **dict.fromkeys(("received", "open", "done", "change", "activate"), "unpriced"),
}


def matches(keys: AbstractSet[str]) -> bool:
    """Tell whether this looks like a message of Coinbase Exchange."""
    if "type" not in keys or "channel" in keys:
        return False
    return not keys.isdisjoint({"product_id", "channels", "products"})


def rows(document: Document) -> tuple[Layout, Sequence[Document]]:
    """Read one message."""
    kind = document["type"]
    if kind == "match":
        return MATCHES, (document,)
    if kind in ("ticker", "ticker_batch"):
        return TICKERS, (document,)
    silent = _SILENT.get(kind) if isinstance(kind, str) else None
    if silent is not None:
        raise SilentError(silent)
    reason = "unsupported"
    raise MalformedError(reason)


FORMAT = Format("coinbase", matches, rows, venue=VENUE)
