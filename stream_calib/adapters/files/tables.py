"""Tables as records: one tick per row, or one column per symbol; CSV, or with types.

Rows are read as columns of JSON texts, which are put together anew: ten times as fast as an
object for every row.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

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
TIME_NAMES = ("timestamp", "ts_utc", "ts_ms", "ts_us", "ts_ns", "ts", "datetime", "date")
PRICE_NAMES = ("last", "close")  # where there is neither a price nor a quote
READ = ("symbol", "price", "bid", "ask")  # what the native format reads, beside the time

Texts = list[bytes | None]  # JSON of the cells of a column, None for what was not observed
Column = Callable[[int], Texts]  # the column of this number

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_NAIVE = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(:\d\d(?:\.\d+)?)?)?", re.ASCII)
_DECIMALS = re.compile(r"[0-9.eE+,-]*")
DIGITS_MAX = 19  # of a whole number that is surely below 2^64


class Table(NamedTuple):
    """How many columns a row may have, and what turns rows, given as columns, into records."""

    counts: frozenset[int]
    read: Callable[[Column], list[bytes]]

    def of_lines(self, lines: Sequence[str]) -> list[bytes]:
        """Turn lines of CSV in which nothing is quoted into records, as ``records`` does."""
        commas = {line.count(",") for line in lines}
        if len(commas) == 1 and (n := commas.pop() + 1) in self.counts and "" not in lines:
            cells = ",".join(lines).split(",")
            return self.read(lambda i: texts(cells[i::n]))
        return self.records([line.split(",") if line else [] for line in lines])

    def records(self, rows: Sequence[Sequence[str]]) -> list[bytes]:
        """Turn rows of CSV into records.

        Empty rows are none. Those of another length stay as they stand: they are no records, and
        whoever decodes them says so.
        """
        if self.counts.issuperset(map(len, rows)):
            return self._read(rows)
        out: list[bytes] = []
        for fits, run in itertools.groupby(rows, lambda row: len(row) in self.counts):
            if fits:
                out += self._read(list(run))
            else:
                out += [",".join(row).encode() for row in run if row]
        return out

    def _read(self, rows: Sequence[Sequence[str]]) -> list[bytes]:
        if not rows:
            return []
        # of rows of several lengths the shortest says which columns all of them have
        columns = list(zip(*rows, strict=len(self.counts) == 1))
        return self.read(lambda i: texts(columns[i]))


def texts(cells: Sequence[str]) -> Texts:
    """Return the JSON of a column of cells; an empty one was not observed.

    What is a number in JSON is one, anything else is the text that it is.
    """
    if "" in cells:
        own = iter(texts([text for text in cells if text]))
        return [next(own) if text else None for text in cells]
    joined = ",".join(cells)
    if cells and _DECIMALS.fullmatch(joined) and "-0" not in joined:
        try:
            values = orjson.loads(f"[{joined}]")
        except orjson.JSONDecodeError:
            values = []
        if len(values) == len(cells) and max(map(len, cells)) <= DIGITS_MAX:
            return list(orjson.dumps(values)[1:-1].split(b","))
    known = {text: orjson.dumps(cell(text)) for text in set(cells)}
    return [known[text] for text in cells]


def pieces(name: str, column: Texts) -> list[bytes]:
    """Return the field of this name of each record, for ``objects``."""
    key = b",%b:" % orjson.dumps(name)
    return [b"" if text is None else key + text for text in column]


def objects(*fields: Sequence[bytes]) -> list[bytes]:
    """Put the fields of records together."""
    return [b"{%b}" % b"".join(row)[1:] for row in zip(*fields, strict=True)]


def plain(names: Sequence[str]) -> Table:
    """Return what turns the rows under a header into native ticks, or objects of their cells."""
    if is_wide(names):
        return Table(frozenset({len(names)}), lambda column: list(_prices(names, column)))
    keys = _native(names)

    def read(column: Column) -> list[bytes]:
        columns = [column(i) for i in range(len(names))]
        if "ts_utc" in names:
            at = names.index("ts_utc")
            columns[at] = [_zoned(text) for text in columns[at]]
        return objects(*map(pieces, keys, columns))

    return Table(frozenset({len(names)}), read)


def is_wide(names: Sequence[str]) -> bool:
    """Tell whether a header is that of a time and one column of prices per symbol."""
    first, *others = (name.lower() for name in names or [" "])
    return first in TIMES and bool(others) and not FIELDS.intersection(others)


def cell(text: str) -> str | int | float:
    """Read one cell: a plain JSON number as a number, anything else as the text it is."""
    number = _NUMBER.fullmatch(text)
    if number is None:
        return text
    if number.lastindex is None:
        return int(text) if len(text) <= 20 and -(2**63) <= int(text) < 2**64 else text
    return float(text) if abs(float(text)) < float("inf") else text


def _native(names: Sequence[str]) -> list[str]:
    # The names that the native format reads, where another spelling stands for them.
    names, lower = list(names), [name.lower() for name in names]
    for i, name in enumerate(lower):
        if name in READ and lower.count(name) == 1:
            names[i] = name
    for wanted, others in (("time", TIME_NAMES), ("price", PRICE_NAMES)):
        if wanted not in names and not (wanted == "price" and {"bid", "ask"} & set(names)):
            found = next((name for name in (wanted, *others) if lower.count(name) == 1), None)
            names = [
                wanted if low == found else name for low, name in zip(lower, names, strict=True)
            ]
    return names


def _prices(names: Sequence[str], column: Column) -> Iterator[bytes]:
    heads = [b'{"symbol":%b,"time":' % orjson.dumps(name) for name in names[1:]]
    for time, *prices in zip(*map(column, range(len(names))), strict=True):
        try:
            at = b'%d,"price":' % time_ns(orjson.loads(_zoned(time) or b"null"))
        except MalformedError:
            yield ",".join(map(_shown, (time, *prices))).encode()
            continue
        for head, price in zip(heads, prices, strict=True):
            if price is not None:
                yield b"%b%b%b}" % (head, at, price)


def _shown(text: bytes | None) -> str:
    return "" if text is None else str(orjson.loads(text))


def _zoned(text: bytes | None) -> bytes | None:
    # a day, or a time without a zone, is one in UTC
    value = orjson.loads(text) if text else None
    found = _NAIVE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return text
    day, minute, second = found.groups()
    return b'"%bT%b%bZ"' % (
        day.encode(),
        (minute or "00:00").encode(),
        (second or ":00").encode(),
    )
