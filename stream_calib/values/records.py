"""What is read from a log and written to one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from stream_calib.values.units import F64, I8, I64


class Source(NamedTuple):
    """One partition of an input topic; sources are ordered by (topic, partition)."""

    topic: str
    partition: int


class ValueSchema(NamedTuple):
    """A schema of a registry: ``kind`` is ``AVRO``, ``JSON``, another one, or ``MISSING``.

    ``texts`` are schemas that it refers to, each after those that it refers to itself, and at
    last the schema.
    """

    kind: str
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """Consecutive records of one source, as read.

    Positions are the reader's, before and after: offsets alone do not cover control
    markers and gaps. ``timestamps_ms`` are the log's own (-1 where it has none). ``schemas`` are
    those of records in frames of a registry, by frame.
    """

    source: Source
    position_before: int
    position_after: int
    offsets: Sequence[int]
    timestamps_ms: Sequence[int]
    values: Sequence[bytes | None]
    schemas: Mapping[bytes, ValueSchema] = field(default_factory=dict)


class Malformed(NamedTuple):
    """A record that no decoder could read: its row in the batch, and why."""

    row: int
    reason: str


@dataclass(frozen=True, slots=True)
class TickBatch:
    """The ticks of one RecordBatch, in record order, as columns of length m.

    A tick carries a trade ``price``, a ``bid``, an ``ask``, or several; what it does not carry
    is NaN. ``row`` points to the record it came from; ``asset`` is -1 for a symbol outside
    the universe; ``ident`` is a 64-bit form of the venue's trade id, 0 for none. ``kind`` is
    TICK, or FACTOR or OFFSET with that number for a price, or RESET; None: ticks alone.
    ``bid_size`` and ``ask_size`` are None where no record carries any. ``formats`` counts
    the records that brought ticks, ``silent`` by reason those that by their nature bring none.
    """

    records: RecordBatch
    formats: Mapping[str, int]
    row: I64
    time_ns: I64
    asset: I64
    price: F64
    bid: F64
    ask: F64
    ident: I64
    malformed: tuple[Malformed, ...] = ()
    kind: I8 | None = None
    bid_size: F64 | None = None
    ask_size: F64 | None = None
    silent: Mapping[str, int] = field(default_factory=dict)


class Watermark(NamedTuple):
    """An outside decision: no tick before ``time_ns`` is awaited from ``source`` any more.

    ``idle``: the source is caught up and silent while others go on. ``flush``: every source
    has been silent so long that the open bar is closed.
    """

    source: Source
    position: int
    time_ns: int
    cause: Literal["idle", "flush"]


@dataclass(frozen=True, slots=True)
class Output:
    """A record to be written: where, and its exact bytes."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


class Published(NamedTuple):
    """A record as it is read back from a topic of the service; no value: its key was deleted."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that was not used, with its original bytes.

    ``value`` is cut at REJECT_BYTES_MAX and None for a tombstone; ``length`` and ``sha256``
    (hex) are of the whole.
    """

    universe: str
    source: Source
    offset: int
    reason: str
    value: bytes | None
    length: int
    sha256: str
