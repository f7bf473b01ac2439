"""What cryptofeed's Kafka back ends write; symbols become ``EXCHANGE:SYMBOL``.

    {"exchange": "BYBIT", "symbol": "BTC-USDT-PERP", "side": "sell", "amount": 0.004,
     "price": 65114.2, "id": "a9188a0a", "type": null, "timestamp": 1786310819.68,
     "receipt_timestamp": 1786310819.965676}

Trades, tickers (``bid``, ``ask``), closed candles (``stop``, ``close``), books (``book`` of a
whole book, not ``delta``) and level one books (``bid_price``, ``bid_size``, ...). ``timestamp``
is the venue's, in seconds, in milliseconds for the tickers and candles of some venues; where it
is null ``receipt_timestamp`` counts. Funding, liquidations, open interest and changes of a book
are refused as ``unsupported``.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from stream_calib.wire.ticks.fields import (
    MalformedError,
    SilentError,
    inside,
    mapping,
    number,
)
from stream_calib.wire.ticks.formats import Document, Format
from stream_calib.wire.ticks.layouts import Layout

_TIMES = ("timestamp", "receipt_timestamp")
TRADES = Layout("symbol", _TIMES, "price", ident="id", exchange="exchange")
TICKER = Layout("symbol", _TIMES, bid="bid", ask="ask", exchange="exchange")
CANDLES = Layout("symbol", ("end",), "close", exchange="exchange", end_of="stop")
L1_BOOK = Layout(
    "symbol",
    _TIMES,
    bid="bid_price",
    ask="ask_price",
    bid_size="bid_size",
    ask_size="ask_size",
    exchange="exchange",
)


def matches(keys: AbstractSet[str]) -> bool:
    """Tell whether this looks like a message of cryptofeed."""
    return "receipt_timestamp" in keys and "time" not in keys


def flat(keys: AbstractSet[str]) -> Layout | None:
    """Tell what is one tick as it stands."""
    if {"price", "amount"} <= keys:
        return TRADES
    if {"bid", "ask"} <= keys:
        return TICKER
    return L1_BOOK if {"bid_price", "ask_price"} <= keys else None


def rows(document: Document) -> tuple[Layout, Sequence[Document]]:
    """Read one candle or book."""
    if "close" in document and "stop" in document:
        if document.get("closed") is not True:
            reason = "open_bar"
            raise SilentError(reason)
        return CANDLES, ({**document, "end": inside(document["stop"])},)
    if "book" in document and document.get("delta") is None:
        return L1_BOOK, (_best(document),)
    reason = "unsupported"
    raise MalformedError(reason)


def _best(document: Document) -> Document:
    book = mapping(document["book"])
    best: dict[str, object] = {}
    for side, choose in (("bid", max), ("ask", min)):
        levels = {number(price): size for price, size in mapping(book.get(side)).items()}
        if levels:
            price = choose(levels)
            best |= {f"{side}_price": price, f"{side}_size": levels[price]}
    if not best:
        reason = "unpriced"
        raise SilentError(reason)
    return {**document, **best}


FORMAT = Format("cryptofeed", matches, rows, flat=flat)
