"""Events and rejects on the wire."""

import orjson

from stream_calib.errors import InputError
from stream_calib.values import Event, Output, Reject
from stream_calib.wire.cloudevents import JSON_TYPE, headers


def encode_event(event: Event, topic: str, partition: int) -> Output:
    """Turn an event into its record: JSON, keyed by universe."""
    value = orjson.dumps(
        {
            "schema_version": 1,
            "universe": event.universe,
            "sequence": event.sequence,
            "type": event.type,
            "time_ns": str(event.time_ns),
            "details": event.details,
        }
    )
    id_ = f"{event.universe}|events|{event.sequence}"
    head = headers(
        "event", id_, event.universe, event.time_ns, JSON_TYPE, value, sequence=str(event.sequence)
    )
    return Output(topic, partition, event.universe.encode(), value, head)


def decode_event(value: bytes) -> Event:
    """Read an event back.

    Raises
    ------
    InputError
        The bytes are no event.
    """
    try:
        told = orjson.loads(value)
        return Event(
            str(told["universe"]),
            int(told["sequence"]),
            str(told["type"]),
            int(told["time_ns"]),
            dict(told["details"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"not an event ({type(error).__name__}: {error})") from None


def encode_reject(reject: Reject, topic: str, partition: int) -> Output:
    """Turn a reject into its record: the original bytes, why and from where in the headers.

    The value is cut at REJECT_BYTES_MAX; ``length`` and ``sha256`` are of the whole. A tombstone
    is an empty value with ``tombstone: true``.
    """
    where = f"{reject.source.topic}-{reject.source.partition}-{reject.offset}"
    head = {
        "universe": reject.universe,
        "reason": reject.reason,
        "topic": reject.source.topic,
        "partition": str(reject.source.partition),
        "offset": str(reject.offset),
        "length": str(reject.length),
        "sha256": reject.sha256,
        "tombstone": str(reject.value is None).lower(),
        "content-type": "application/octet-stream",
    }
    return Output(
        topic,
        partition,
        where.encode(),
        reject.value or b"",
        tuple((name, text.encode()) for name, text in head.items()),
    )
