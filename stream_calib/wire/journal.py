"""Journal entries on the wire, the chain that ties them, and digests of what they cover."""

import hashlib
import zlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from stream_calib.errors import InputError
from stream_calib.values import (
    Change,
    FitFailure,
    JournalEntry,
    Move,
    Output,
    Range,
    RecordBatch,
    Source,
    Watermark,
)
from stream_calib.wire.cloudevents import JSON_TYPE

VERSION = 1


class RecordDigest:
    """A 64-bit digest of consecutive records: offsets, log times, lengths and values.

    Checksums: records change by accident, and every one that is read has to pay for this.
    """

    def __init__(self) -> None:
        # one for each column, so that a cut between two batches does not show
        self._columns = [0, 0, 0]
        self._values = 0

    def update(self, records: RecordBatch) -> None:
        """Take in the next records."""
        columns = (records.offsets, records.timestamps_ms, _lengths(records.values))
        self._columns = [
            zlib.crc32(array("q", column).tobytes(), before)
            for column, before in zip(columns, self._columns, strict=True)
        ]
        self._values = zlib.crc32(b"".join(filter(None, records.values)), self._values)

    def value(self) -> int:
        """Return the digest of all records so far."""
        return zlib.crc32(array("I", self._columns).tobytes()) << 32 | self._values


def _lengths(values: Sequence[bytes | None]) -> list[int]:
    try:
        return list(map(len, values))  # type: ignore[arg-type]
    except TypeError:
        return [-1 if value is None else len(value) for value in values]


class TopicDigest:
    """A digest of consecutive records of one topic."""

    def __init__(self) -> None:
        self._digest = hashlib.blake2b(digest_size=16)

    def add(
        self, partition: int, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]
    ) -> None:
        """Take in the next record."""
        parts = [key, value]
        parts += [part for name, text in headers for part in (name.encode(), text)]
        self._digest.update(array("q", [partition, len(parts), *map(len, parts)]).tobytes())
        for part in parts:
            self._digest.update(part)

    def value(self) -> bytes:
        """Return the digest of all records so far."""
        return self._digest.digest()


def digest_topics(topics: Mapping[str, bytes]) -> str:
    """Return the digest of all topics that got a record, from the digest of each."""
    whole = hashlib.blake2b(digest_size=16)
    for topic in sorted(topics):
        whole.update(topic.encode() + b"\0" + topics[topic])
    return whole.hexdigest()


class OutputDigest:
    """A digest of published records, in the order of each topic."""

    def __init__(self) -> None:
        self.n_outputs = 0
        self._topics: dict[str, TopicDigest] = {}

    def update(self, outputs: Sequence[Output]) -> None:
        """Take in the next records."""
        self.n_outputs += len(outputs)
        for o in outputs:
            digest = self._topics.setdefault(o.topic, TopicDigest())
            digest.add(o.partition, o.key, o.value, o.headers)

    def value(self) -> str:
        """Return the digest of all records so far."""
        return digest_topics({topic: digest.value() for topic, digest in self._topics.items()})


def link(entry: JournalEntry) -> JournalEntry:
    """Return the entry with its chain: a hash of the chain before it and of all it says."""
    text = _dumps(replace(entry, chain=""))
    return replace(entry, chain=hashlib.blake2b(text, digest_size=16).hexdigest())


def encode_entry(entry: JournalEntry, topic: str, partition: int) -> Output:
    """Turn a journal entry into its record: JSON, keyed by universe."""
    headers = (
        ("content-type", JSON_TYPE.encode()),
        ("number", str(entry.number).encode()),
        ("previous", entry.previous.encode()),
    )
    return Output(topic, partition, entry.universe.encode(), _dumps(entry), headers)


def decode_entry(value: bytes) -> JournalEntry:
    """Turn the value of a record back into a journal entry.

    Raises
    ------
    InputError
        If it is not an entry of a version that is known here, or was damaged.
    """
    try:
        document = orjson.loads(value)
        if document["version"] != VERSION:
            message = (
                f"journal entry has version {document['version']}, this reader knows {VERSION}"
            )
            raise InputError(message)
        entry = JournalEntry(
            universe=document["universe"],
            number=document["number"],
            changes=tuple(Change(kind, details) for kind, details in document["changes"]),
            moves=tuple(_move(move) for move in document["moves"]),
            sequences={name: (a, b) for name, (a, b) in document["sequences"].items()},
            n_outputs=document["n_outputs"],
            outputs_digest=document["outputs_digest"],
            state_digest=document["state_digest"],
            emitted=document["emitted"],
            config_fingerprint=document["config_fingerprint"],
            previous=document["previous"],
            chain=document["chain"],
        )
        damaged = link(entry).chain != entry.chain
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        message = f"not a journal entry ({type(error).__name__}: {error})"
        raise InputError(message) from None
    if damaged:
        message = f"journal entry {entry.number} does not carry the hash of what it says"
        raise InputError(message)
    return entry


def _dumps(entry: JournalEntry) -> bytes:
    return orjson.dumps(
        {
            "version": VERSION,
            "universe": entry.universe,
            "number": entry.number,
            "changes": [[change.kind, change.details] for change in entry.changes],
            "moves": [
                {
                    "installs": move.installs,
                    "discovered": [list(source) for source in move.discovered],
                    "ranges": [
                        [*r.source, r.position_before, r.position_after, r.n_records, _hex(r)]
                        for r in move.ranges
                    ],
                    "watermarks": [
                        [*w.source, w.position, str(w.time_ns), w.cause] for w in move.watermarks
                    ],
                    **({"failures": [_failure(f) for f in move.failures]} if move.failures else {}),
                    **({"refit": True} if move.refit else {}),
                }
                for move in entry.moves
            ],
            "sequences": {name: list(pair) for name, pair in entry.sequences.items()},
            "n_outputs": entry.n_outputs,
            "outputs_digest": entry.outputs_digest,
            "state_digest": entry.state_digest,
            "emitted": entry.emitted,
            "config_fingerprint": entry.config_fingerprint,
            "previous": entry.previous,
            "chain": entry.chain,
        },
        option=orjson.OPT_SORT_KEYS,
    )


def _failure(failure: FitFailure) -> list[object]:
    return [failure.model, failure.number, failure.code, failure.reason]


def _hex(wanted: Range) -> str:
    return f"{wanted.digest:016x}"


def _move(document: Any) -> Move:  # noqa: ANN401
    return Move(
        installs=tuple(document["installs"]),
        discovered=tuple(Source(*source) for source in document["discovered"]),
        ranges=tuple(
            Range(Source(topic, partition), before, after, n_records, int(digest, 16))
            for topic, partition, before, after, n_records, digest in document["ranges"]
        ),
        watermarks=tuple(
            Watermark(Source(topic, partition), position, int(time_ns), cause)
            for topic, partition, position, time_ns, cause in document["watermarks"]
        ),
        failures=tuple(FitFailure(*failure) for failure in document.get("failures", ())),
        refit=document.get("refit", False),
    )
