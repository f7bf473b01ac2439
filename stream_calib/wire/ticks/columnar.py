"""Many ticks in one record, column by column: in bytes, or the same in JSON.

Bytes, all little-endian, nothing between the parts:

    offset  size
    0       4      "SCT1"
    4       2      which columns there are: 1 price, 2 bid, 4 ask, 8 bid_size, 16 ask_size, 32 id
    6       2      number of symbols, s
    8       4      number of ticks, n
    12      4      zero
    16      8 n    time: int64, ns since the epoch
            8 n    each of the columns named, in the order above: float64, the id int64
            2 n    symbol: uint16, counted from 0 among the names
            rest   names of the s symbols in UTF-8, a line feed between two of them

NaN is a price or a size that a tick does not carry, 0 an id; each tick has a price, a bid or an
ask. The twin in JSON has the same columns under the same names, null for what is not carried, and
times in any unit that a native tick may have:

    {"symbols": ["SIM:A", "SIM:B"], "symbol": [0, 1, 0], "time": [1625291738612292000, ...],
     "price": [101.25, 7.5, 101.26]}

A record is read as a whole or refused as a whole.
"""

import struct
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import numpy.typing as npt

from stream_calib.values import F64, I64
from stream_calib.wire.ticks.fields import (
    EARLIEST_NS,
    LATEST_NS,
    MalformedError,
    UnusualError,
    ident,
    idents,
    number,
    numbers,
    time_ns,
    times_ns,
)
from stream_calib.wire.ticks.formats import Columns, Document, Format
from stream_calib.wire.ticks.layouts import Layout

MAGIC = b"SCT1"
NUMBERS = ("price", "bid", "ask", "bid_size", "ask_size")
COLUMNS = (*NUMBERS, "id")
ID_BIT = 1 << len(NUMBERS)
SYMBOLS_MAX = 1 << 16
_HEAD = struct.Struct("<4sHHII")


def matches(keys: AbstractSet[str]) -> bool:
    """Tell whether this looks like columns of ticks."""
    return "symbols" in keys and "time" in keys


def to_bytes(
    symbols: Sequence[str],
    symbol: npt.ArrayLike,
    time_ns: npt.ArrayLike,
    columns: Mapping[str, npt.ArrayLike],
) -> bytes:
    """Write ticks as one record.

    Parameters
    ----------
    symbols
        Names, s of them, without line feeds.
    symbol : (n,)
        Index of each tick's symbol among the names.
    time_ns : (n,)
        Event times.
    columns
        ``price``, ``bid``, ``ask``, ``bid_size``, ``ask_size`` (NaN: not carried) and ``id``
        (0: none), each (n,); any of them may be left out.

    Raises
    ------
    ValueError
        There is no such column, one is of another length, or a name has a line feed in it.
    """
    times, places = np.asarray(time_ns, dtype="<i8"), np.asarray(symbol, dtype="<u2")
    lengths = {name: len(np.atleast_1d(np.asarray(own))) for name, own in columns.items()}
    wrong = [name for name, n in lengths.items() if n != len(times) or name not in COLUMNS]
    if wrong or len(places) != len(times) or any("\n" in name for name in symbols):
        message = f"columns {[*COLUMNS]} of {len(times)} ticks, names without line feeds: {wrong}"
        raise ValueError(message)
    which, parts = 0, [times.tobytes()]
    for i, name in enumerate(COLUMNS):
        if name in columns:
            which |= 1 << i
            parts.append(np.asarray(columns[name], "<i8" if name == "id" else "<f8").tobytes())
    head = _HEAD.pack(MAGIC, which, len(symbols), len(times), 0)
    return b"".join([head, *parts, places.tobytes(), "\n".join(symbols).encode()])


def from_bytes(value: bytes, symbols: Mapping[str, int]) -> Columns:
    """Read the ticks of one record in bytes.

    Raises
    ------
    MalformedError
        With the reason: ``field`` where the parts do not fit together.
    """
    if len(value) < _HEAD.size:
        raise _malformed("field")
    _magic, which, n_symbols, n, zero = _HEAD.unpack_from(value)
    n_columns = 1 + which.bit_count()
    names_at = _HEAD.size + n * (8 * n_columns + 2)
    if which >= 2 * ID_BIT or zero or len(value) < names_at or not n:
        raise _malformed("field")
    words = np.frombuffer(value, "<i8", n * n_columns, _HEAD.size).reshape(n_columns, n)
    try:
        names = value[names_at:].decode().split("\n")
    except UnicodeDecodeError:
        raise _malformed("field") from None
    if len(names) != n_symbols:
        raise _malformed("field")
    given = iter(words[1:])
    found = {
        name: next(given).view(np.float64).copy()
        for i, name in enumerate(NUMBERS)
        if which & 1 << i
    }
    ids = next(given).astype(np.int64) if which & ID_BIT else np.zeros(n, dtype=np.int64)
    place = np.frombuffer(value, "<u2", n, names_at - 2 * n).astype(np.int64)
    time = words[0].astype(np.int64)
    if time.min() < EARLIEST_NS or time.max() >= LATEST_NS:
        raise _malformed("time_range")
    if ids.min() < 0:
        raise _malformed("field")
    return _columns(names, place, time, found, ids, symbols)


def from_json(document: Document, symbols: Mapping[str, int]) -> Columns:
    """Read the ticks of one record in JSON; raises MalformedError as ``from_bytes`` does."""
    names, time, place = (_list(document.get(key)) for key in ("symbols", "time", "symbol"))
    numbered = {name: _list(v) for name in NUMBERS if (v := document.get(name)) is not None}
    ids = _list(document["id"]) if document.get("id") is not None else []
    n = len(time)
    if not n or {len(place), *map(len, numbered.values())} != {n} or len(ids) not in {0, n}:
        raise _malformed("field")
    if set(map(type, place)) != {int} or min(place) < 0 or max(place) >= len(names):
        raise _malformed("field")
    return _columns(
        names,
        np.array(place, dtype=np.int64),
        _each(time, times_ns, time_ns, np.int64),
        {name: _each(column, numbers, _optional, np.float64) for name, column in numbered.items()},
        _each(ids, idents, ident, np.int64) if ids else np.zeros(n, dtype=np.int64),
        symbols,
    )


def _columns(
    names: Sequence[Any],
    place: I64,
    time: I64,
    found: Mapping[str, F64],
    ids: I64,
    symbols: Mapping[str, int],
) -> Columns:
    n = len(time)
    if set(map(type, names)) != {str} or "" in names or place.max() >= len(names):
        raise _malformed("field")
    if any(np.isinf(column).any() for column in found.values()):
        raise _malformed("number")
    if any((found[name] < 0.0).any() for name in NUMBERS[3:] if name in found):
        raise _malformed("number")
    price, bid, ask = (found.get(name, np.full(n, np.nan)) for name in NUMBERS[:3])
    if (np.isnan(price) & np.isnan(bid) & np.isnan(ask)).any():
        raise _malformed("field")
    assets = np.array([symbols.get(name, -1) for name in names], dtype=np.int64)
    bid_size, ask_size = (found.get(name) for name in NUMBERS[3:])
    return Columns(time, assets[place], price, bid, ask, ids, None, bid_size, ask_size)


def _each(values: list[Any], bulk: Any, one: Any, dtype: Any) -> Any:  # noqa: ANN401
    # in bulk, or where that does not apply one by one
    try:
        return bulk(values)
    except UnusualError:
        return np.array([one(value) for value in values], dtype=dtype)


def _optional(value: object) -> float:
    return np.nan if value is None else number(value)


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise _malformed("field")
    return value


def _malformed(reason: str) -> MalformedError:
    return MalformedError(reason)


def _rows(document: Document) -> tuple[Layout, Sequence[Document]]:
    # columns are read in place of rows
    raise _malformed("unsupported")


FORMAT = Format("columnar", matches, _rows, from_json)
