"""Rows of a CSV table as records: one tick per row, or one column per symbol."""

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence

import orjson

from stream_calib.wire.ticks.fields import MalformedError, time_ns

ROWS = 1000
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


def records(header: Sequence[str], rows: Iterator[Sequence[str]]) -> Iterator[list[bytes]]:
    """Turn the rows under a header into records, as JSON objects; empty rows are none."""
    names = [name.strip() for name in header]
    wide = is_wide(names)
    utc = names.index("ts_utc") if "ts_utc" in names else -1
    if not wide:
        names = _native(names)
    while part := list(itertools.islice(rows, ROWS)):
        if wide:
            yield [value for row in part if row for value in _prices(names, row)]
        else:
            yield [_object(names, row, utc) for row in part if row]


def is_wide(names: Sequence[str]) -> bool:
    """Tell whether a header is that of a time and one column of prices per symbol."""
    first, *others = (name.lower() for name in names or [" "])
    return first in TIMES and bool(others) and not FIELDS.intersection(others)


def _native(names: list[str]) -> list[str]:
    # The names that the native format reads, where another spelling stands for them.
    if "time" not in names:
        times = ("timestamp", "ts_utc", "ts_ms", "ts_us", "ts_ns")
        found = next((name for name in times if name in names), None)
        names = ["time" if name == found else name for name in names]
    lower = [name.lower() for name in names]
    for i, name in enumerate(lower):
        if name in READ and lower.count(name) == 1:
            names[i] = name
    return names


def _object(names: Sequence[str], row: Sequence[str], utc: int) -> bytes:
    if len(row) != len(names):
        return _unread(row)
    # An empty cell is something that was not observed.
    cells = {name: cell(text) for name, text in zip(names, row, strict=True) if text}
    if utc >= 0 and row[utc]:
        cells[names[utc]] = _zoned(cells[names[utc]])
    return orjson.dumps(cells)


def _prices(names: Sequence[str], row: Sequence[str]) -> Iterable[bytes]:
    if len(row) != len(names):
        return [_unread(row)]
    try:
        at_ns = time_ns(_zoned(cell(row[0])))
    except MalformedError:
        return [_unread(row)]
    return [
        b'{"symbol":%b,"time":%d,"price":%b}'
        % (orjson.dumps(name), at_ns, orjson.dumps(cell(text)))
        for name, text in zip(names[1:], row[1:], strict=True)
        if text
    ]


def _unread(row: Sequence[str]) -> bytes:
    return ",".join(row).encode()  # no record; whoever decodes it says so


def _zoned(value: str | int | float) -> str | int | float:
    found = _NAIVE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return value
    day, minute, second = found.groups()
    return f"{day}T{minute or '00:00'}{second or ':00'}Z"


def cell(text: str) -> str | int | float:
    """Read one cell: a plain JSON number as a number, anything else as the text it is."""
    number = _NUMBER.fullmatch(text)
    if number is None:
        return text
    if number.lastindex is None:
        return int(text) if len(text) <= 20 and -(2**63) <= int(text) < 2**64 else text
    return float(text) if math.isfinite(float(text)) else text
