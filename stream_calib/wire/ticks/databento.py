"""Databento's JSON, raw or pretty; symbols become ``DATABENTO:ESH1``.

    {"ts_recv": "1609160400000704060", "hd": {"ts_event": "1609160400000429831", "rtype": 1,
     "publisher_id": 1, "instrument_id": 5482}, "action": "A", "side": "A", "depth": 0,
     "price": "3720250000000", "size": 1, "flags": 128, "ts_in_delta": 22993, "sequence": 1170352,
     "levels": [{"bid_px": "3720000000000", "ask_px": "3720250000000", "bid_sz": 24, "ask_sz": 11,
     "bid_ct": 15, "ask_ct": 9}]}

Trades, ``mbp-1``, ``tbbo``, ``bbo`` and ``ohlcv`` bars. Prices are units of 1e-9 as whole numbers
or their text, or with a point (pretty) what they say. Times are ns, or text with a zone. Without
``symbol`` (``map_symbols``) the ``instrument_id`` stands in.
"""

import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from stream_calib.wire.ticks.fields import (
    MalformedError,
    SilentError,
    inside,
    mapping,
    number,
    objects,
)
from stream_calib.wire.ticks.formats import Document, Format
from stream_calib.wire.ticks.layouts import Layout

VENUE = "DATABENTO"
_WHOLE = re.compile(r"-?\d+", re.ASCII)
UNDEFINED = 2**63 - 1  # a price that there is not
TICKS = Layout("symbol", ("time",), "price", "bid", "ask", "bid_size", "ask_size", venue=VENUE)
CLOSES = Layout("symbol", ("time",), "price", venue=VENUE, end_of="ts_event")
TRADES, TOP, SAMPLED = {0}, {1, 177, 194}, {192, 193, 195, 196}
BARS = {32: 1, 33: 60, 34: 3600, 35: 86_400}  # seconds
CONTROL = {18, 19, 20, 21, 22, 23, 24}  # status, definitions, imbalances, errors, ..., statistics


def matches(keys: AbstractSet[str]) -> bool:
    """Tell whether this looks like a record of Databento."""
    return "hd" in keys


def rows(document: Document) -> tuple[Layout, Sequence[Document]]:
    """Read one record."""
    head = mapping(document["hd"])
    kind = head.get("rtype")
    if type(kind) is not int or kind in CONTROL:
        reason = "field" if type(kind) is not int else "control"
        raise MalformedError(reason) if reason == "field" else SilentError(reason)
    row: dict[str, Any] = {"symbol": _symbol(document, head), "time": head.get("ts_event")}
    if kind in BARS:
        row["price"] = _price(document.get("close"))
        row["ts_event"] = row["time"]
        row["time"] = inside(row["time"], BARS[kind] * 1_000_000_000)
    elif kind in TRADES:
        row["price"] = _price(document.get("price"))
    elif kind in TOP:
        row |= _top(document, traded=document.get("action") == "T")
    elif kind in SAMPLED:  # whose ts_event is that of a trade of before
        row |= _top(document, traded=True) | {"time": document.get("ts_recv")}
    else:
        reason = "unsupported"
        raise MalformedError(reason)
    priced = any(row.get(name) is not None for name in ("price", "bid", "ask"))
    return CLOSES if kind in BARS else TICKS, (row,) if priced else ()


def _top(document: Document, *, traded: bool) -> dict[str, Any]:
    (level,) = objects(document.get("levels"))[:1] or ({},)
    row = {
        "bid": _price(level.get("bid_px")),
        "ask": _price(level.get("ask_px")),
        "bid_size": level.get("bid_sz"),
        "ask_size": level.get("ask_sz"),
    }
    # of other actions than a trade the price is that of an order
    return row | {"price": _price(document.get("price"))} if traded else row


def _symbol(document: Document, head: Mapping[str, Any]) -> object:
    symbol = document.get("symbol")
    if symbol is not None:
        return symbol
    instrument = head.get("instrument_id")
    return str(instrument) if type(instrument) is int else None


def _price(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, str) and len(value) <= 20 and _WHOLE.fullmatch(value):
        value = int(value)
    if type(value) is int:
        return None if value == UNDEFINED else value / 1_000_000_000
    return number(value)


FORMAT = Format("databento", matches, rows, venue=VENUE)
