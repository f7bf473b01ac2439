"""What messages come wrapped in besides frames: Connect, Debezium, streams.

Kafka Connect: ``{"schema": ..., "payload": ...}``; numbers that its schema
calls Decimal are bytes in base64 there. Debezium: ``{"op": "c", "before": ..., "after": ...}``,
of which ``after`` is read; deletions say nothing. Combined streams of Binance:
``{"stream": ..., "data": ...}``.
"""

import binascii
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

from stream_calib.wire.ticks.fields import MalformedError, SilentError
from stream_calib.wire.ticks.formats import Document

DECIMAL = "org.apache.kafka.connect.data.Decimal"
SCALE_MAX, UNSCALED_BYTES_MAX = 300, 64


class Envelope(NamedTuple):
    """How an envelope is recognised, by its keys, and opened."""

    name: str
    matches: Callable[[AbstractSet[str]], bool]
    open: Callable[[Document], object]


def _connect(document: Document) -> object:
    return _plain(document["payload"], document["schema"])


def _plain(value: object, schema: object) -> object:
    """Return a value with its decimals as text."""
    if not isinstance(schema, dict):
        return value
    if schema.get("name") == DECIMAL:
        return _decimal(value, schema)
    fields = schema.get("fields")
    if not isinstance(value, dict) or not isinstance(fields, list):
        return value
    out = dict(value)
    for field in fields:
        name = field.get("field") if isinstance(field, dict) else None
        # in a tuple, not in a set: a type may be whatever JSON holds
        if isinstance(name, str) and name in out and field.get("type") in ("struct", "bytes"):
            out[name] = _plain(out[name], field)
    return out


def _decimal(value: object, schema: Mapping[str, Any]) -> object:
    if not isinstance(value, str):  # null, or a number where the converter writes numbers
        return value
    try:
        scale = int(schema["parameters"]["scale"])
        unscaled = binascii.a2b_base64(value, strict_mode=True)
    except (KeyError, OverflowError, TypeError, ValueError):
        reason = "field"
        raise MalformedError(reason) from None
    if abs(scale) > SCALE_MAX or not 0 < len(unscaled) <= UNSCALED_BYTES_MAX:
        reason = "number"
        raise MalformedError(reason)
    number = int.from_bytes(unscaled, "big", signed=True)
    try:
        return number / 10**scale if scale >= 0 else float(number * 10**-scale)
    except OverflowError:
        reason = "number"
        raise MalformedError(reason) from None


def _debezium(document: Document) -> object:
    op, after = document["op"], document["after"]
    if after is None:
        reason = "deleted" if op == "d" else "control"
        raise SilentError(reason)
    return after


def _stream(document: Document) -> object:
    return document["data"]


ENVELOPES = (
    Envelope("connect", lambda keys: keys == {"schema", "payload"}, _connect),
    Envelope("debezium", lambda keys: {"op", "after"} <= keys, _debezium),
    Envelope("stream", lambda keys: keys == {"stream", "data"}, _stream),
)
