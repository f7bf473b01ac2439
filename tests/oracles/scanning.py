"""Plain ticks by the JSON parser of the standard library and a few words on what is plain."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

TIME_MAX = 9_223_372_036_854_775_799  # what fits into 63 bits with its last digit a 9
KEYS = {"symbol", "time", "price", "bid", "ask"}
SYMBOL = re.compile(r"[ !#-\[\]-~]+", re.ASCII)
INTEGER = re.compile(r"0|[1-9]\d*", re.ASCII)
DECIMAL = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?", re.ASCII)


class Written(str):
    """A number as it is written."""

    __slots__ = ()


def plain_tick(value: bytes, symbols: Sequence[str]) -> tuple[int, int, float, float, float] | None:
    """Return time, place of the symbol, price, bid and ask of a plain tick; None for any other."""
    fields = _fields(value)
    if fields is None or not {"symbol", "time"} <= fields.keys() <= KEYS:
        return None
    symbol, time = fields["symbol"], fields["time"]
    numbers = {key: fields[key] for key in ("price", "bid", "ask") if key in fields}
    if not isinstance(symbol, str) or isinstance(symbol, Written) or not SYMBOL.fullmatch(symbol):
        return None
    if not isinstance(time, Written) or not INTEGER.fullmatch(time) or int(time) > TIME_MAX:
        return None
    if not numbers or ("bid" in numbers) != ("ask" in numbers):
        return None
    if not all(isinstance(n, Written) and DECIMAL.fullmatch(n) for n in numbers.values()):
        return None
    price, bid, ask = (float(numbers.get(key, "nan")) + 0.0 for key in ("price", "bid", "ask"))
    return int(time), symbols.index(symbol) if symbol in symbols else -1, price, bid, ask


def _fields(value: bytes) -> Mapping[str, Any] | None:
    # other white space than blanks is no plain record, nor is an escape or a letter beyond ASCII
    if any(byte in b"\\\t\n\r" or byte > 126 for byte in value):
        return None
    try:
        pairs = json.loads(
            value,
            object_pairs_hook=list,
            parse_int=Written,
            parse_float=Written,
            parse_constant=lambda _: None,
        )
    except ValueError:
        return None
    if not value.lstrip(b" ").startswith(b"{") or any(isinstance(v, list) for _, v in pairs):
        return None
    return dict(pairs) if len(dict(pairs)) == len(pairs) else None
