"""The native tick: one JSON object per record.

    {"symbol": "SIM:A", "time": 1625291738612292000, "price": 101.25}
    {"symbol": "SIM:A", "time": "2021-07-03T05:55:38.612Z", "bid": 101.2, "ask": 101.3}
    {"symbol": "SIM:A", "time": 1625291739, "bid": 101.2, "bid_size": 300}
    {"symbol": "SIM:A", "time": 1625299200, "adjust": {"factor": 0.5}}

``time`` is ns, us, ms or s since the epoch, or RFC 3339 with a zone; ``id`` and sizes are
optional; a quote may carry one side alone; prices may be text; other keys are ignored.
``adjust`` is a control record, in event time like a tick: prices before it are multiplied by
``factor`` (0.5 for a split of two for one), get ``offset`` added (the roll of a future), or with
``"reset": true`` say nothing about those after it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from stream_calib.values import FACTOR, OFFSET, RESET
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

_PRICES = ("price", "bid", "ask")
_SIZES = ("bid_size", "ask_size")


def matches(document: Document) -> bool:
    """Tell whether this looks like a native tick."""
    return "time" in document


def read(document: Document) -> Iterator[Tick]:
    """Read the one tick of a record."""
    if "adjust" in document:
        yield _control(document)
        return
    prices: dict[str, Any] = {
        key: number(v) for key in _PRICES if (v := document.get(key)) is not None
    }
    if not prices:
        reason = "field"
        raise MalformedError(reason)
    sizes: dict[str, Any] = {
        key: number(v) for key in _SIZES if (v := document.get(key)) is not None
    }
    if any(size < 0.0 for size in sizes.values()):
        reason = "number"
        raise MalformedError(reason)
    symbol, time = text(document.get("symbol")), time_ns(document.get("time"))
    yield Tick(symbol, time, ident=ident(document.get("id")))._replace(**prices, **sizes)


def _control(document: Document) -> Tick:
    adjust: Any = document["adjust"]
    if not isinstance(adjust, dict) or len(adjust) != 1:
        reason = "field"
        raise MalformedError(reason)
    ((how, value),) = adjust.items()
    if how == "reset" and value is True:
        kind, price = RESET, 0.0
    elif how in {"factor", "offset"}:
        kind, price = (FACTOR if how == "factor" else OFFSET), number(value)
    else:
        reason = "field"
        raise MalformedError(reason)
    if kind == FACTOR and not price > 0.0:
        reason = "number"
        raise MalformedError(reason)
    symbol, time = text(document.get("symbol")), time_ns(document.get("time"))
    return Tick(symbol, time, price=price, kind=kind)


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
    sizes: Sequence[Any] = (None, None)
    if max(map(len, documents)) > 3:
        if any(key in document for document in documents for key in (*others, "adjust")):
            raise UnusualError
        ids = idents([document.get("id") for document in documents])
        if any(key in document for document in documents for key in _SIZES):
            sizes = [_sizes([document.get(key) for document in documents]) for key in _SIZES]
    assets = find_assets(names, symbols)
    return Columns(times_ns(times), assets, price, bid, ask, ids, None, *sizes)


def _sizes(values: Sequence[Any]) -> Any:  # noqa: ANN401
    if None in values:
        raise UnusualError
    sizes = numbers(values)
    if (sizes < 0.0).any():
        raise UnusualError
    return sizes


FORMAT = Format("native", matches, read, read_bulk)
