"""Rows of a CSV table as records: one tick per row, or one column per symbol."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import orjson

from stream_calib.wire.ticks.fields import MalformedError, time_ns

ROWS = 1000
Cell = str | int | float | None  # text of CSV, or a value of a table that has types
Rows = Callable[[Sequence[Sequence[Cell]]], list[bytes]]  # rows to records; an empty one is none
TIMES = {"", "time", "timestamp", "ts", "ts_ms", "ts_ns", "ts_us", "ts_utc", "date", "datetime"}
# A table with one of these beside the time is not wide: they say something about one symbol.
FIELDS = TIMES | {
    *("symbol", "price", "last", "bid", "ask", "side", "amount", "size", "volume", "id", "note"),
    *("qty", "quantity", "count", "trades", "vwap", "value", "ticker", "type", "venue"),
    *("open", "high", "low", "close", "exchange", "bid_size", "ask_size", "bidsize", "asksize"),
}
READ = ("symbol", "price", "bid", "ask")  # what the native format reads, beside the time

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_NAIVE = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(:\d\d(?:\.\d+)?)?)?", re.ASCII)


class Columns(NamedTuple):
    """Where the fields of a native tick lie in the rows of a table.

    ``symbol`` is told from a row, ``places`` is the number of the column by field, ``counts``
    how many columns a row may have, ``time`` reads the time.
    """

    symbol: Callable[[Sequence[Cell]], str]
    places: Mapping[str, int]
    counts: frozenset[int]
    time: Callable[[Cell], Cell]


def picked(columns: Columns) -> Rows:
    """Return what turns rows into native ticks, of these columns alone."""
    time = columns.places["time"]
    others = [(name, i) for name, i in columns.places.items() if name != "time"]

    def read(row: Sequence[Cell]) -> bytes:
        if len(row) not in columns.counts:
            return unread(row)
        try:
            tick = {"symbol": columns.symbol(row), "time": columns.time(row[time])}
        except MalformedError:
            return unread(row)
        for name, i in others:
            if (value := row[i]) is not None and value != "":
                tick[name] = cell(value)
        return orjson.dumps(tick)

    return lambda block: [read(row) for row in block if row]


def plain(names: Sequence[str]) -> Rows:
    """Return what turns the rows under a header into native ticks, or objects of their cells."""
    if is_wide(names):
        return lambda block: [value for row in block if row for value in _prices(names, row)]
    utc = names.index("ts_utc") if "ts_utc" in names else -1
    keys = native_names(names)
    return lambda block: [_object(keys, row, utc) for row in block if row]


def is_wide(names: Sequence[str]) -> bool:
    """Tell whether a header is that of a time and one column of prices per symbol."""
    first, *others = (name.lower() for name in names or [" "])
    return first in TIMES and bool(others) and not FIELDS.intersection(others)


def native_names(names: Sequence[str]) -> list[str]:
    """Return the names that the native format reads, where another spelling stands for them."""
    names = list(names)
    if "time" not in names:
        times = ("timestamp", "ts_utc", "ts_ms", "ts_us", "ts_ns")
        found = next((name for name in times if name in names), None)
        names = ["time" if name == found else name for name in names]
    lower = [name.lower() for name in names]
    for i, name in enumerate(lower):
        if name in READ and lower.count(name) == 1:
            names[i] = name
    return names


def _object(names: Sequence[str], row: Sequence[Cell], utc: int) -> bytes:
    if len(row) != len(names):
        return unread(row)
    # An empty cell is something that was not observed.
    cells = {name: cell(text) for name, text in zip(names, row, strict=True) if text}
    if utc >= 0 and row[utc]:
        cells[names[utc]] = zoned(cells[names[utc]])
    return orjson.dumps(cells)


def _prices(names: Sequence[str], row: Sequence[Cell]) -> Iterable[bytes]:
    if len(row) != len(names):
        return [unread(row)]
    try:
        at_ns = time_ns(zoned(cell(row[0])))
    except MalformedError:
        return [unread(row)]
    return [
        b'{"symbol":%b,"time":%d,"price":%b}'
        % (orjson.dumps(name), at_ns, orjson.dumps(cell(text)))
        for name, text in zip(names[1:], row[1:], strict=True)
        if text
    ]


def unread(row: Sequence[Cell]) -> bytes:
    """Return a row as it stands: it is no record, and whoever decodes it says so."""
    return ",".join("" if value is None else str(value) for value in row).encode()


def zoned(value: Cell) -> Cell:
    """Return a day, or a time without a zone, as one in UTC."""
    found = _NAIVE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return value
    day, minute, second = found.groups()
    return f"{day}T{minute or '00:00'}{second or ':00'}Z"


def cell(text: Cell) -> Cell:
    """Read one cell: a plain JSON number as a number, anything else as the text it is."""
    if not isinstance(text, str):
        return text
    number = _NUMBER.fullmatch(text)
    if number is None:
        return text
    if number.lastindex is None:
        return int(text) if len(text) <= 20 and -(2**63) <= int(text) < 2**64 else text
    return float(text) if math.isfinite(float(text)) else text
