"""Binance's public dumps, spot and futures: CSV with a header or none, usually one in a zip.

    BTCUSDT-trades-2025-01-02.zip      id, price, qty, quote_qty, time, is_buyer_maker, ...
    BTCUSDT-aggTrades-2025-01-02.zip   id, price, qty, first id, last id, time, is_buyer_maker, ...
    BTCUSDT-1m-2025-01.zip             open_time, open, high, low, close, volume, close_time, ...
    BTCUSDT-bookTicker-2024-03-01.zip  id, bid, bid qty, ask, ask qty, transaction time, event time

The name says symbol and kind, and the symbol becomes ``BINANCE:BTCUSDT``. Times are in
milliseconds, of the spot market from 2025 on in microseconds; magnitude tells. A bar becomes a
tick of its close, within it as its stream gives it.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import orjson

from stream_calib.adapters.files.tables import Column, Table, objects, pieces
from stream_calib.wire.ticks.fields import MalformedError, inside

_NAME = re.compile(
    r"([A-Z0-9_]+)-(trades|aggTrades|bookTicker|\d+(?:s|m|h|d|w|mo))-\d{4}-\d\d(?:-\d\d)?\.csv"
)


class _Kind(NamedTuple):
    places: dict[str, int]
    counts: frozenset[int]
    header: tuple[str, ...]  # how it begins, where there is one


TRADES = _Kind({"time": 4, "price": 1, "size": 2, "id": 0}, frozenset({6, 7}), ("id", "price"))
AGGREGATES = _Kind(
    {"time": 5, "price": 1, "size": 2, "id": 0}, frozenset({7, 8}), ("agg_trade_id", "price")
)
QUOTES = _Kind(
    {"time": 5, "bid": 1, "ask": 3, "bid_size": 2, "ask_size": 4},
    frozenset({7}),
    ("update_id", "best_bid_price"),
)
BARS = _Kind({"time": 6, "price": 4}, frozenset({11, 12}), ("open_time", "open"))


def table(first: Sequence[str], file_name: str) -> tuple[Table, bool] | None:
    """Return what reads the rows of a dump, and whether the first of them is a header.

    None if the name is not that of a dump, or the first row is neither a header that is known
    nor of as many cells as it should be.
    """
    found = _NAME.fullmatch(file_name)
    if found is None:
        return None
    symbol, name = found.groups()
    kind = {"trades": TRADES, "aggTrades": AGGREGATES, "bookTicker": QUOTES}.get(name, BARS)
    named = tuple(first[: len(kind.header)]) == kind.header
    if len(first) not in kind.counts or not (named or first[0].isdigit()):
        return None
    head = b',"symbol":"BINANCE:%b"' % symbol.encode()

    def read(column: Column) -> list[bytes]:
        times = column(kind.places["time"])
        if kind is BARS:
            times = [_inside(text) for text in times]
        prices = [pieces(key, column(i)) for key, i in kind.places.items() if key != "time"]
        return objects([head] * len(times), pieces("time", times), *prices)

    return Table(kind.counts, read), named


def _inside(text: bytes | None) -> bytes | None:
    try:
        return b"%d" % inside(orjson.loads(text or b"null"))
    except MalformedError:
        return text  # whoever decodes it says so
