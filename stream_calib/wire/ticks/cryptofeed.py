"""Trades as cryptofeed's Kafka back end writes them; symbols become ``EXCHANGE:SYMBOL``.

    {"exchange": "BYBIT", "symbol": "BTC-USDT-PERP", "side": "sell", "amount": 0.004,
     "price": 65114.2, "id": "a9188a0a", "type": null, "timestamp": 1786310819.68,
     "receipt_timestamp": 1786310819.965676}

``timestamp`` is the venue's, in seconds, milliseconds for some venues; null times fall back to
``receipt_timestamp``. Other channels (ticker, candles, book) are refused as ``unsupported``.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from stream_calib.wire.ticks.fields import (
    MalformedError,
    Tick,
    UnusualError,
    ident,
    idents,
    number,
    numbers,
    text,
    time_ns,
    times_ns,
)
from stream_calib.wire.ticks.formats import Columns, Document, Format, find_assets

_FIELDS = ("exchange", "symbol", "price", "amount", "id", "timestamp")


def matches(document: Document) -> bool:
    """Tell whether this looks like a message of cryptofeed."""
    return "receipt_timestamp" in document and "time" not in document


def read(document: Document) -> Iterator[Tick]:
    """Read the one trade of a record."""
    if "price" not in document or "amount" not in document:
        reason = "unsupported"
        raise MalformedError(reason)
    when = document.get("timestamp")
    yield Tick(
        f"{text(document.get('exchange'))}:{text(document.get('symbol'))}",
        time_ns(document.get("receipt_timestamp") if when is None else when),
        price=number(document["price"]),
        ident=ident(document.get("id")),
    )


def read_bulk(documents: Sequence[Document], symbols: Mapping[str, int]) -> Columns:
    """Read records that are all plain trades."""
    try:
        exchanges, names, prices, _, ids, times = (
            [document[key] for document in documents] for key in _FIELDS
        )
    except KeyError:
        raise UnusualError from None
    if not all(map(matches, documents)):
        raise UnusualError
    if set(map(type, exchanges + names)) != {str} or "" in exchanges or "" in names:
        raise UnusualError
    full = [f"{exchange}:{name}" for exchange, name in zip(exchanges, names, strict=True)]
    nothing = np.full(len(documents), np.nan)
    return Columns(
        times_ns(times), find_assets(full, symbols), numbers(prices), nothing, nothing, idents(ids)
    )


FORMAT = Format("cryptofeed", matches, read, read_bulk)
