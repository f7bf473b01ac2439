"""The unified dicts of ccxt and ccxt.pro: trades, tickers and order books.

    {"info": {...}, "id": "15683430", "timestamp": 1633998523963, "symbol": "BTC/USDT",
     "datetime": "2021-10-12T00:28:43.963Z", "side": "buy", "price": 0.3528, "amount": 58.0, ...}

``timestamp`` is in milliseconds; where a ticker has none the time of the log counts. The dicts do
not name their exchange: a field ``exchange`` may be added, else ``input.exchanges`` says it by
topic, else symbols are as they stand. Orders look alike and are refused as ``unsupported``.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from stream_calib.wire.ticks.fields import MalformedError, SilentError, top
from stream_calib.wire.ticks.formats import Document, Format
from stream_calib.wire.ticks.layouts import Layout

TRADES = Layout("symbol", ("timestamp", "datetime"), "price", ident="id")
TICKERS = Layout(
    "symbol",
    ("timestamp", "datetime"),
    "last",
    "bid",
    "ask",
    "bidVolume",
    "askVolume",
    at_log=True,
)
BOOKS = replace(TICKERS, price="")
_OF_EXCHANGES = {own: replace(own, exchange="exchange") for own in (TRADES, TICKERS, BOOKS)}


def matches(keys: AbstractSet[str]) -> bool:
    """Tell whether this looks like a dict of ccxt."""
    return {"symbol", "timestamp", "datetime"} <= keys


def flat(keys: AbstractSet[str]) -> Layout | None:
    """Tell a trade that does not name its exchange."""
    is_trade = {"price", "amount"} <= keys and keys.isdisjoint({"status", "exchange"})
    return TRADES if is_trade else None


def rows(document: Document) -> tuple[Layout, Sequence[Document]]:
    """Read one dict."""
    layout, row = _layout(document)
    if document.get("exchange") is not None:
        layout = _OF_EXCHANGES[layout]
    return layout, (row,)


def _layout(document: Document) -> tuple[Layout, Document]:
    if "price" in document and "amount" in document and "status" not in document:
        return TRADES, document
    if "bid" in document and "last" in document:
        if all(document.get(key) is None for key in ("bid", "ask", "last")):
            reason = "unpriced"
            raise SilentError(reason)
        return TICKERS, document
    if "bids" in document and "asks" in document:
        bid, ask = top(document["bids"]), top(document["asks"])
        best = {"bid": bid[0], "bidVolume": bid[1], "ask": ask[0], "askVolume": ask[1]}
        return BOOKS, {**document, **best}
    reason = "unsupported"
    raise MalformedError(reason)


FORMAT = Format("ccxt", matches, rows, flat=flat)
