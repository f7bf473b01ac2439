"""CloudEvents 1.0 in Kafka's binary mode: the envelope travels in the headers."""

import zlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

JSON_TYPE = "application/json"
DIGITS_MAX = 19  # of a number of 64 bits


def rfc3339(time_ns: int) -> str:
    """Write a time with nine digits and ``Z``."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, tz=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def parse_rfc3339(text: str) -> int:
    """Read a time in UTC as ``rfc3339`` writes it, or with fewer digits."""
    whole, _, rest = text.removesuffix("Z").partition(".")
    moment = datetime.fromisoformat(f"{whole}+00:00")
    return int(moment.timestamp()) * 1_000_000_000 + int(f"{rest:0<9}")


def headers(
    type_: str, id_: str, universe: str, time_ns: int, content_type: str, value: bytes, **more: str
) -> tuple[tuple[str, bytes], ...]:
    """Build the headers of one record; ``time_ns`` is event time, never the clock."""
    fields = {
        "ce_specversion": "1.0",
        "ce_id": id_,
        "ce_source": f"/stream-calib/{universe}",
        "ce_type": f"stream_calib.{type_}.v1",
        "ce_time": rfc3339(time_ns),
        "content-type": content_type,
        "crc32": f"{zlib.crc32(value):08x}",
        **more,
    }
    return tuple((name, text.encode()) for name, text in fields.items())


def is_number(text: bytes) -> bool:
    """Tell whether a header holds a whole number of at most 64 bits."""
    return text.isdigit() and len(text) <= DIGITS_MAX


def last_sequences(
    records: Iterable[tuple[bytes | None, Sequence[tuple[str, bytes]]]],
) -> dict[str, int]:
    """Return the largest sequence number by estimator, and for "events", from (key, headers)."""
    found: dict[str, int] = {}
    for key, head in records:
        sequence = dict(head).get("sequence", b"")
        if is_number(sequence):
            name = [*(key or b"").decode(errors="replace").split("|"), "events"][1]
            found[name] = max(found.get(name, 0), int(sequence))
    return found
