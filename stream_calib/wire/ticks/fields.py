"""Field readers that all tick formats share: times, numbers, ids; one by one and in bulk.

Both ways accept the same values and give the same results; the bulk readers refuse a column
as a whole when one entry is unusual, and its records are then read one by one.
"""

import hashlib
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np

from stream_calib.values import F64, I64, TICK

AT_LOG_NS = 0  # the time of a tick whose message has none: when the log took it in

EARLIEST_NS = 631_152_000_000_000_000  # 1990-01-01
LATEST_NS = 4_102_444_800_000_000_000  # 2100-01-01
# magnitude tells the unit: seconds, milliseconds, microseconds, nanoseconds
UNITS = ((1e11, 1_000_000_000), (1e14, 1_000_000), (1e17, 1_000), (math.inf, 1))
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:[0-5]\d)",
    re.ASCII,
)
# of the years that numpy holds in 64 bits; what it does not read is read one by one
_ZULU = re.compile(r"(?:19|20)\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z", re.ASCII)
_DECIMALS = re.compile(r"[0-9.eE+-]*", re.ASCII)
_COUNTED = re.compile(r"(?:[1-9]\d{0,17}(?:\n|\Z))+", re.ASCII)
NUMBER_LENGTH_MAX, TIME_LENGTH_MAX, ID_LENGTH_MAX = 64, 20, 19
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class MalformedError(Exception):
    """A record that this format cannot read; ``args[0]`` is the reason, from a bounded set."""


class SilentError(Exception):
    """A record that by its nature carries no price; ``args[0]`` is why, from a bounded set."""


class UnusualError(Exception):
    """A column that the bulk readers leave to the one-by-one readers."""


class Tick(NamedTuple):
    """One tick as a format reads it; what it does not carry is NaN or 0."""

    symbol: str
    time_ns: int
    price: float = math.nan
    bid: float = math.nan
    ask: float = math.nan
    ident: int = 0
    kind: int = TICK
    bid_size: float = math.nan
    ask_size: float = math.nan


def text(value: object) -> str:
    """Read a non-empty text field."""
    if not isinstance(value, str) or not value:
        reason = "field"
        raise MalformedError(reason)
    return value


def number(value: object) -> float:
    """Read a finite number, written as a JSON number or as decimal text.

    No zero has a sign: ``-0`` is read with one by some readers and without by others, and a sign
    would be in the state.
    """
    if isinstance(value, str) and len(value) <= NUMBER_LENGTH_MAX and _NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        reason = "field"
        raise MalformedError(reason)
    if not math.isfinite(value):
        reason = "number"
        raise MalformedError(reason)
    return float(value) + 0.0


def time_ns(value: object) -> int:
    """Read a time: ns, us, ms or s since the epoch (told by magnitude), or RFC 3339 text.

    A float cannot hold more than microseconds and is rounded to them.
    """
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value) if len(value) < TIME_LENGTH_MAX else value
    if isinstance(value, str):
        nanoseconds = _rfc3339_ns(value)
    elif isinstance(value, bool) or not isinstance(value, int | float):
        reason = "field"
        raise MalformedError(reason)
    elif not math.isfinite(value):
        reason = "time_range"
        raise MalformedError(reason)
    else:
        unit_ns = next(ns for bound, ns in UNITS if abs(value) < bound)
        if isinstance(value, int):
            nanoseconds = value * unit_ns
        elif unit_ns == 1:
            nanoseconds = round(value)
        else:
            nanoseconds = round(value * (unit_ns / 1000)) * 1000
    if not EARLIEST_NS <= nanoseconds < LATEST_NS:
        reason = "time_range"
        raise MalformedError(reason)
    return nanoseconds


def _rfc3339_ns(value: str) -> int:
    found = _RFC3339.fullmatch(value)
    if found is None:
        reason = "field"
        raise MalformedError(reason)
    date, clock, fraction, zone = found.groups()
    try:
        moment = datetime.fromisoformat(f"{date}T{clock}{zone.upper().replace('Z', '+00:00')}")
    except ValueError:
        reason = "field"
        raise MalformedError(reason) from None
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    seconds = since.days * 86_400 + since.seconds
    return seconds * 1_000_000_000 + int((fraction or "").ljust(9, "0"))


def ident(value: object) -> int:
    """Turn a trade id into a positive 64-bit number; 0 for none.

    Whole numbers below 2^62 stay what they are, written as text too; others become a digest
    with that bit set.
    """
    if value is None or value == "":
        return 0
    if (
        isinstance(value, str)
        and len(value) < ID_LENGTH_MAX
        and value.isascii()
        and value.isdigit()
    ):
        value = value if value[0] == "0" else int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**62:
        return value
    if not isinstance(value, str | int | float):
        reason = "field"
        raise MalformedError(reason)
    digest = hashlib.blake2b(str(value).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 2 | 2**62


def mapping(value: object) -> dict[str, Any]:
    """Read a JSON object."""
    if not isinstance(value, dict):
        reason = "field"
        raise MalformedError(reason)
    return value


def objects(value: object) -> list[dict[str, Any]]:
    """Read a JSON array of objects."""
    if not isinstance(value, list) or not set(map(type, value)) <= {dict}:
        reason = "field"
        raise MalformedError(reason)
    return value


def top(levels: object) -> tuple[object, object]:
    """Return price and size of the first level, [[price, size, ...], ...], that has a size."""
    if not isinstance(levels, list):
        reason = "field"
        raise MalformedError(reason)
    for level in levels:
        if not isinstance(level, list) or len(level) < 2:
            reason = "field"
            raise MalformedError(reason)
        if number(level[1]) > 0.0:
            return level[0], level[1]
    return None, None


def inside(end: object, after_ns: int = 0) -> int:
    """Read the end of a bar, or its begin and how long it is; the close belongs to the bar.

    Venues write the end as 10:00:59.999 or as 10:01:00, which is the next bar's already.
    """
    return time_ns(end) + after_ns - 1


def numbers(values: Sequence[object]) -> F64:
    """Read a column of JSON numbers, or of decimal texts; NaN where there is none."""
    if None in values:
        found = [i for i, value in enumerate(values) if value is not None]
        column = np.full(len(values), np.nan)
        if found:
            column[found] = numbers([values[i] for i in found])
        return column
    kinds = set(map(type, values))
    if kinds == {str}:
        texts: Any = values
        # of these characters float() reads what ``number`` reads, and nothing else
        if not _DECIMALS.fullmatch("".join(texts)) or max(map(len, texts)) > NUMBER_LENGTH_MAX:
            raise UnusualError
    elif not {int, float} >= kinds:
        raise UnusualError
    try:
        column = np.array(values if kinds == {float} else [*map(float, values)])  # type: ignore[arg-type]
    except (OverflowError, ValueError):
        raise UnusualError from None
    if not np.isfinite(column).all():
        raise UnusualError
    return column + 0.0


def times_ns(values: Sequence[object]) -> I64:
    """Read a column of times that are all ints or all floats of one unit, or all text."""
    kinds = set(map(type, values))
    if kinds == {str}:
        return _texts_ns(values)  # type: ignore[arg-type]
    if kinds not in ({int}, {float}):
        raise UnusualError
    try:
        column = np.array(values)
    except OverflowError:
        raise UnusualError from None
    if column.dtype not in {np.dtype(np.int64), np.dtype(np.float64)}:
        raise UnusualError
    least, largest = column.min(), column.max()
    if not (least > 0 and largest < 9.2e18):  # also refuses NaN
        raise UnusualError
    unit_ns = next(ns for bound, ns in UNITS if largest < bound)
    if unit_ns != next(ns for bound, ns in UNITS if least < bound):
        raise UnusualError
    if float(largest) * unit_ns >= 9.2e18:  # would wrap around
        raise UnusualError
    if kinds == {int}:
        nanoseconds = column.astype(np.int64) * unit_ns
    elif unit_ns == 1:
        nanoseconds = np.rint(column).astype(np.int64)
    else:
        nanoseconds = np.rint(column * (unit_ns / 1000)).astype(np.int64) * 1000
    if nanoseconds.min() < EARLIEST_NS or nanoseconds.max() >= LATEST_NS:
        raise UnusualError
    return nanoseconds


def _texts_ns(values: Sequence[str]) -> I64:
    whole = "".join(values)
    if whole.isascii() and whole.isdigit() and max(map(len, values)) < TIME_LENGTH_MAX:
        if "" in values:
            raise UnusualError
        return times_ns([*map(int, values)])
    if not all(map(_ZULU.fullmatch, values)):
        raise UnusualError
    try:
        column = np.array([value[:-1] for value in values], dtype="datetime64[ns]").view(np.int64)
    except ValueError:
        raise UnusualError from None
    if column.min() < EARLIEST_NS or column.max() >= LATEST_NS:
        raise UnusualError
    return column


def idents(values: Sequence[object]) -> I64:
    """Read a column of trade ids."""
    kinds = set(map(type, values))
    if kinds == {int}:
        whole: Any = values
        if min(whole) > 0 and max(whole) < 2**62:
            return np.array(whole, dtype=np.int64)
    elif kinds == {str}:
        texts: Any = values
        if _COUNTED.fullmatch("\n".join(texts)):
            return np.array([*map(int, texts)], dtype=np.int64)
    try:
        return np.array([ident(value) for value in values], dtype=np.int64)
    except MalformedError:
        raise UnusualError from None
