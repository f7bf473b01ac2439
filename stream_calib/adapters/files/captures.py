r"""Raw captures of cryptofeed: what came through the sockets, with the time it was received.

Version 3 writes an object of JSON a line; what a socket received is ``t`` = ``recv``:

    {"t":"header","format":2,"exchange":"BINANCE","config":{...}}
    {"t":"recv","conn":"BINANCE.ws.1","ts":1633998511.13,"data":"{\"e\":\"trade\", ...}"}

Before, a line was the time and the message; connections and what was sent have arrows:

    configuration: {...}
    wss://stream.binance.com:9443 <-> 1633998511.1
    wss://stream.binance.com:9443 <- 1633998511.2: {"method": "SUBSCRIBE"}
    https://api.binance.com/api/v3/exchangeInfo -> 1633998510.9: {...}
    1633998511.13: {"e": "trade", ...}

A record is what was received, and its log time is when: messages that say no time of their own
(the spot ``bookTicker`` of Binance) have that. A line that is neither stays a record as it is.
"""

import re
from collections.abc import Iterator, Sequence

import orjson

Received = tuple[list[bytes], list[int]]
_OLD = re.compile(rb"(\d{9,10}(?:\.\d*)?): (.*)", re.DOTALL)
_ASIDE = re.compile(rb"\S+ (?:<->|<-|->) \d+(?:\.\d*)?(?::.*)?", re.DOTALL)
_HEADER = b"configuration: "
_ENDS_MS = 4_102_444_800_000  # 2100-01-01


def is_capture(line: bytes) -> bool:
    """Tell by its first line whether a file is a capture."""
    if line.startswith(_HEADER) or _OLD.fullmatch(line) or _ASIDE.fullmatch(line):
        return True
    event = _event(line)
    if event.get("t") == "header":
        return "format" in event
    return event.get("t") in {"http", "connect", "send", "recv"} and "conn" in event


def received(blocks: Iterator[Sequence[bytes]]) -> Iterator[Received]:
    """Yield what was received and when, in milliseconds, -1 where a line does not say it."""
    for lines in blocks:
        values, stamps_ms = [], []
        for line in lines:
            found = _received(line) if line else None
            if found is not None:
                values.append(found[0])
                stamps_ms.append(found[1])
        yield values, stamps_ms


def _received(line: bytes) -> tuple[bytes, int] | None:
    old = _OLD.fullmatch(line)
    if old is not None:
        return old[2], _milliseconds(float(old[1]))
    if line.startswith(_HEADER) or _ASIDE.fullmatch(line):
        return None
    event = _event(line)
    kind, data = event.get("t"), event.get("data")
    if kind == "recv" and isinstance(data, str):
        return data.encode("utf-8", "surrogatepass"), _milliseconds(event.get("ts"))
    if kind in {"header", "http", "connect", "send"}:
        return None
    return line, -1


def _event(line: bytes) -> dict[str, object]:
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return event if isinstance(event, dict) else {}


def _milliseconds(seconds: object) -> int:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return -1
    milliseconds = seconds * 1000  # a float of JSON may be huge, though never NaN
    return int(milliseconds) if 0 <= milliseconds < _ENDS_MS else -1
