"""Schemas and messages of producers that write Avro, written by fastavro as they would."""

import io
import json
from typing import Any

import fastavro

from stream_calib.values import ValueSchema

TICK = {
    "type": "record",
    "name": "Tick",
    "namespace": "market",
    "fields": [
        {"name": "symbol", "type": "string"},
        {"name": "time", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "price", "type": "double"},
    ],
}
DECIMAL_TICK = {
    "type": "record",
    "name": "Tick",
    "fields": [
        {"name": "symbol", "type": "string"},
        {"name": "time", "type": "long"},
        {
            "name": "price",
            "type": {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 4},
        },
        {"name": "id", "type": ["null", "long"], "default": None},
    ],
}
CRYPTOFEED = {
    "type": "record",
    "name": "Trade",
    "fields": [{"name": name, "type": "string"} for name in ("exchange", "symbol", "side", "id")]
    + [{"name": name, "type": "double"} for name in ("amount", "price", "timestamp")]
    + [{"name": "receipt_timestamp", "type": "double"}],
}
# Debezium names the record once, and refers to it by its name afterwards
DEBEZIUM = {
    "type": "record",
    "name": "Envelope",
    "namespace": "db.ticks",
    "fields": [
        {
            "name": "before",
            "type": [
                "null",
                {
                    "type": "record",
                    "name": "Value",
                    "fields": [
                        {"name": "symbol", "type": "string"},
                        {
                            "name": "time",
                            "type": {
                                "type": "long",
                                "connect.name": "io.debezium.time.Timestamp",
                            },
                        },
                        {"name": "price", "type": "double"},
                    ],
                },
            ],
            "default": None,
        },
        {"name": "after", "type": ["null", "Value"], "default": None},
        {"name": "op", "type": "string"},
        {"name": "ts_ms", "type": ["null", "long"], "default": None},
    ],
}


def schema_of(*definitions: Any) -> ValueSchema:
    """Return what a source would attach; what is referred to comes first."""
    return ValueSchema("AVRO", tuple(json.dumps(one) for one in definitions))


def frame(id_: int) -> bytes:
    """Return the frame of a schema id."""
    return b"\0" + id_.to_bytes(4, "big")


def framed(id_: int | bytes, definition: Any, message: Any) -> bytes:
    """Write one record as a producer with a registry does."""
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(definition), message)
    return (frame(id_) if isinstance(id_, int) else id_) + stream.getvalue()
