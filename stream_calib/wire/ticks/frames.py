"""Frames of a schema registry: what they hold, and Avro in them.

A frame is a byte 0 and four bytes of schema id, or a byte 1 and sixteen of a schema's GUID, before
the body (Confluent's wire format). Without a registry the body has to be JSON. With one the
schema says: JSON Schema is JSON, Avro is one datum in binary. What comes of Avro is what the same
message would be in JSON, and is then recognised as that: times stay whole numbers, decimals
become numbers, bytes text of one character each.
"""

import io
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any

import orjson

from stream_calib.values import ValueSchema
from stream_calib.wire.ticks.fields import MalformedError

FRAMES = {0: 5, 1: 17}  # by the first byte, which begins no JSON: where the body begins
SCHEMAS_MAX = 1024  # that are kept ready to read
DEPTH_MAX = 64  # of records in records: what is deeper is no market data
_NAMED = {"record", "error", "enum", "fixed"}


def frame_of(value: bytes | None) -> bytes:
    """Return the frame that a record begins with, which names its schema; empty for none."""
    if not value or value[0] not in FRAMES:
        return b""
    size = FRAMES[value[0]]
    return value[:size] if len(value) > size else b""


def open_frame(value: bytes, schemas: Mapping[bytes, ValueSchema]) -> object:
    """Return the document in a framed record.

    Parameters
    ----------
    value
        Not empty.
    schemas
        By frame; without any the body has to be JSON.

    Raises
    ------
    MalformedError
        ``json`` where there is no frame; ``frame`` where the body is no JSON; ``avro`` where it
        is not of its schema; ``schema`` where that is missing or cannot be read; ``unsupported``
        where it is of another kind.
    """
    frame = frame_of(value)
    schema = schemas.get(frame)
    if schema is not None and schema.kind == "AVRO":
        read = _reader(schema)
        if read is None:
            reason = "schema"
            raise MalformedError(reason)
        return read(value, len(frame))
    if schema is not None and schema.kind != "JSON":
        reason = "schema" if schema.kind == "MISSING" else "unsupported"
        raise MalformedError(reason)
    if not frame:
        reason = "json"
        raise MalformedError(reason)
    try:
        return orjson.loads(value[len(frame) :])
    except orjson.JSONDecodeError:
        reason = "frame"
        raise MalformedError(reason) from None


@lru_cache(maxsize=SCHEMAS_MAX)
def _reader(schema: ValueSchema) -> Callable[[bytes, int], object] | None:
    """Return what reads bodies of a schema; None where the schema cannot be read."""
    import fastavro
    from fastavro.schema import SchemaParseException, UnknownType

    named: dict[str, Any] = {}
    try:
        parsed: Any = None
        for text in schema.texts:  # what it refers to comes before it
            parsed = fastavro.parse_schema(_bare(orjson.loads(text)), named_schemas=named)
        _least_bytes(parsed, {}, named)
    except (SchemaParseException, UnknownType, KeyError, TypeError, ValueError, RecursionError):
        return None
    # only these hold anything that JSON does not
    has_bytes = any(f'"{word}"' in text for text in schema.texts for word in ("bytes", "fixed"))

    read_one = fastavro.schemaless_reader

    def read(value: bytes, start: int) -> object:
        stream = io.BytesIO(value)
        stream.seek(start)
        try:
            document = read_one(stream, parsed, None)
        # whatever garbage makes the library stumble over is no message of this schema
        except Exception:
            document, whole = None, False
        else:
            whole = stream.tell() == len(value)
        if not whole:
            reason = "avro"
            raise MalformedError(reason) from None
        return _plain(document) if has_bytes else document

    return read


def _bare(schema: Any, depth: int = 0) -> Any:  # noqa: ANN401
    """Return a schema without logical types but decimals: numbers are to stay numbers."""
    if depth > DEPTH_MAX:
        raise RecursionError
    if isinstance(schema, list):
        return [_bare(part, depth + 1) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {
        key: value for key, value in schema.items() if key != "logicalType" or value == "decimal"
    }
    for key in ("type", "items", "values", "fields"):
        if key in kept:
            kept[key] = _bare(kept[key], depth + 1)
    return kept


def _least_bytes(schema: Any, sizes: dict[str, int], named: dict[str, Any]) -> int:  # noqa: ANN401
    """Return a lower bound of what a datum takes, 0 for nothing, of a schema that can be trusted.

    Raises RecursionError where a schema is part of itself, since a datum could then be as deep as
    it is long, and the library reads such on the stack of the machine; ValueError where an array
    is of what takes no bytes, since ten bytes could then stand for any number of entries.
    """
    if isinstance(schema, list):
        return 1 + min((_least_bytes(part, sizes, named) for part in schema), default=0)
    if isinstance(schema, str):
        if schema in sizes:
            if sizes[schema] < 0:
                raise RecursionError
            return sizes[schema]
        return _least_bytes(named[schema], sizes, named) if schema in named else schema != "null"
    kind, name = schema["type"], schema.get("name", "")
    if kind not in _NAMED:
        if kind in {"array", "map"}:
            least = _least_bytes(schema["items" if kind == "array" else "values"], sizes, named)
            if kind == "array" and not least:
                raise ValueError
            return 1
        return _least_bytes(kind, sizes, named)
    sizes[name] = -1
    if kind == "fixed":
        sizes[name] = int(schema["size"])
    elif kind == "enum":
        sizes[name] = 1
    else:
        parts = [_least_bytes(field["type"], sizes, named) for field in schema["fields"]]
        sizes[name] = sum(parts)
    return sizes[name]


def _plain(value: object) -> object:
    """Return a value as JSON would have it."""
    if isinstance(value, dict):
        return {key: _plain(own) for key, own in value.items()}
    if isinstance(value, list):
        return [_plain(own) for own in value]
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value
