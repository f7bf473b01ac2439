"""The native tick: one JSON object per record.

    {"symbol": "SIM:A", "time": 1625291738612292000, "price": 101.25}
    {"symbol": "SIM:A", "time": "2021-07-03T05:55:38.612Z", "bid": 101.2, "ask": 101.3}

``time`` is ns, us, ms or s since the epoch, or RFC 3339 with a zone; ``id`` is optional; prices
may be text; other keys are ignored.
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


def matches(document: Document) -> bool:
    """Tell whether this looks like a native tick."""
    return "time" in document


def read(document: Document) -> Iterator[Tick]:
    """Read the one tick of a record."""
    price, bid, ask = (document.get(key) for key in ("price", "bid", "ask"))
    if (bid is None) != (ask is None) or (price is None and bid is None):
        reason = "field"
        raise MalformedError(reason)
    tick = Tick(
        text(document.get("symbol")),
        time_ns(document.get("time")),
        ident=ident(document.get("id")),
    )
    if price is not None:
        tick = tick._replace(price=number(price))
    if bid is not None:
        tick = tick._replace(bid=number(bid), ask=number(ask))
    yield tick


def read_bulk(documents: Sequence[Document], symbols: Mapping[str, int]) -> Columns:
    """Read records that are all plain trades, or all plain quotes."""
    price = bid = ask = np.full(len(documents), np.nan)
    try:
        names = [document["symbol"] for document in documents]
        times = [document["time"] for document in documents]
        if "price" in documents[0]:
            price = numbers([document["price"] for document in documents])
            others = ["bid", "ask"]
        else:
            bid = numbers([document["bid"] for document in documents])
            ask = numbers([document["ask"] for document in documents])
            others = ["price"]
    except KeyError:
        raise UnusualError from None
    ids = np.zeros(len(documents), dtype=np.int64)
    if max(map(len, documents)) > 3:
        if any(key in document for document in documents for key in others):
            raise UnusualError
        ids = idents([document.get("id") for document in documents])
    return Columns(times_ns(times), find_assets(names, symbols), price, bid, ask, ids)


FORMAT = Format("native", matches, read, read_bulk)
