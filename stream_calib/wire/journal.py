"""Journal entries on the wire, and the digest of the records that they cover."""

import hashlib
import struct

import orjson

from stream_calib.errors import InputError
from stream_calib.values import JournalEntry, Range, RecordBatch, Source, Watermark

VERSION = 1
_HEAD = struct.Struct("<qqi")


def digest_records(records: RecordBatch) -> int:
    """Return a 64-bit digest of offsets, log times and values."""
    digest = hashlib.blake2b(digest_size=8)
    rows = zip(records.offsets, records.timestamps_ms, records.values, strict=True)
    for offset, timestamp_ms, value in rows:
        digest.update(_HEAD.pack(offset, timestamp_ms, -1 if value is None else len(value)))
        digest.update(value or b"")
    return int.from_bytes(digest.digest(), "big")


def encode_entry(entry: JournalEntry) -> bytes:
    """Turn a journal entry into JSON."""
    return orjson.dumps(
        {
            "version": VERSION,
            "number": entry.number,
            "ranges": [
                [*r.source, r.position_before, r.position_after, r.n_records, f"{r.digest:016x}"]
                for r in entry.ranges
            ],
            "watermarks": [
                [*w.source, w.position, str(w.time_ns), w.cause] for w in entry.watermarks
            ],
            "discovered": [list(source) for source in entry.discovered],
            "sequences": {name: list(pair) for name, pair in entry.sequences.items()},
            "config_fingerprint": entry.config_fingerprint,
        },
        option=orjson.OPT_SORT_KEYS,
    )


def decode_entry(value: bytes) -> JournalEntry:
    """Turn JSON back into a journal entry.

    Raises
    ------
    InputError
        If it is not an entry of a version that is known here.
    """
    try:
        document = orjson.loads(value)
        if document["version"] != VERSION:
            message = (
                f"journal entry has version {document['version']}, this reader knows {VERSION}"
            )
            raise InputError(message)
        return JournalEntry(
            number=document["number"],
            ranges=tuple(
                Range(Source(topic, partition), before, after, n_records, int(digest, 16))
                for topic, partition, before, after, n_records, digest in document["ranges"]
            ),
            watermarks=tuple(
                Watermark(Source(topic, partition), position, int(time_ns), cause)
                for topic, partition, position, time_ns, cause in document["watermarks"]
            ),
            discovered=tuple(Source(*source) for source in document["discovered"]),
            sequences={name: (a, b) for name, (a, b) in document["sequences"].items()},
            config_fingerprint=document["config_fingerprint"],
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        message = f"not a journal entry ({type(error).__name__}: {error})"
        raise InputError(message) from None
