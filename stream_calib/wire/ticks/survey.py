"""What records are made of, beside their ticks: symbols, envelopes, formats, kinds, time units."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stream_calib.values import I64, RecordBatch, TickBatch, ValueSchema
from stream_calib.wire.ticks import FORMATS, columnar
from stream_calib.wire.ticks.envelopes import Envelope
from stream_calib.wire.ticks.fields import UNITS, MalformedError, time_ns
from stream_calib.wire.ticks.frames import frame_of
from stream_calib.wire.ticks.layouts import Layout
from stream_calib.wire.ticks.reading import ROW_SHIFT, Reader, Shapes

_BOUNDS = [bound for bound, _ in UNITS[:-1]]
RECEIVED = "receipt_timestamp"  # the one field by which a format says when it had a message
UNIT_NAMES = ("s", "ms", "us", "ns")
RFC3339, OF_LOG = "RFC 3339", "of the log"


class Label(NamedTuple):
    """What a tick was written as: ``kind`` is trade, quote, ticker, candle or control."""

    format: str
    kind: str
    unit: str


class Surveyed(NamedTuple):
    """The ticks of a batch, m of them, with what they were written as.

    ``ticks`` has assets by the survey's ``symbols``; ``label`` (m,) is an index into its
    ``labels``; ``received_ns`` (m,) is when whoever wrote the message had it, 0 where it does not
    say.
    """

    ticks: TickBatch
    label: I64
    received_ns: I64


class Survey:
    """Decodes records of any symbols and remembers what they were written as.

    Attributes
    ----------
    symbols
        Every symbol found, by its index.
    labels
        What ticks were written as.
    envelopes
        Records by what they came wrapped in.
    """

    def __init__(self) -> None:
        self._roster = _Roster()
        self._labels: dict[Label, int] = {}
        self._shapes = Shapes(tuple(FORMATS.values()))
        self.envelopes: Counter[str] = Counter()

    @property
    def symbols(self) -> list[str]:
        """Every symbol found, in the order of their indices."""
        return [*self._roster]

    @property
    def labels(self) -> list[Label]:
        """What ticks were written as, in the order of their numbers."""
        return [*self._labels]

    def take(self, records: RecordBatch) -> Surveyed:
        """Decode the records of one source as ``auto`` does; never raises."""
        reader = _SurveyReader(self._shapes, self._roster, records.schemas)
        reader.read(range(len(records.values)), records.values)
        places, columns, formats, malformed, silent = reader.finish(records.timestamps_ms)
        bad = {row for row, _ in malformed}
        framed = sum(bool(frame_of(v)) and i not in bad for i, v in enumerate(records.values))
        self.envelopes += reader.envelopes + Counter({"schema registry": framed})
        row = places >> ROW_SHIFT
        ticks = TickBatch(records, formats, row, *columns[:6], malformed, *columns[6:], silent)
        label, received_ns = self._written(reader, places)
        return Surveyed(ticks, label, received_ns)

    def _written(self, reader: "_SurveyReader", places: I64) -> tuple[I64, I64]:
        written = reader.written()
        at = np.array([place for place, _, _ in written], dtype=np.int64)
        known = self._labels
        number = np.array(
            [known.setdefault(label, len(known)) for _, label, _ in written], dtype=np.int64
        )
        received_ns = np.array([received for _, _, received in written], dtype=np.int64)
        order = np.argsort(at, kind="stable")
        found = order[np.searchsorted(at, places, sorter=order)] if len(at) else at
        return number[found], received_ns[found]


class _Roster(dict[str, int]):
    """Has every symbol that it is asked for."""

    def get(self, name: str, _default: Any = None) -> int:  # noqa: ANN401
        return self.setdefault(name, len(self))


class _SurveyReader(Reader):
    """Counts envelopes, and tells of each tick what it was written as."""

    def __init__(
        self, shapes: Shapes, roster: _Roster, schemas: Mapping[bytes, ValueSchema]
    ) -> None:
        super().__init__(shapes, roster, packed=True, schemas=schemas)
        self.envelopes: Counter[str] = Counter()
        self._columnar: dict[int, str] = {}

    def written(self) -> list[tuple[int, Label, int]]:
        """Return place, label and time of receipt of every row that was read."""
        name = columnar.FORMAT.name
        out = [(place, Label(name, "columns", unit), 0) for place, unit in self._columnar.items()]
        for group in (*self._flat.values(), *self._groups.values()):
            layout, at = group.layout, {key: i for i, key in enumerate(group.keys)}
            kind = _kind_of(layout, group.keys)
            times = [
                at[key] for key in ((layout.end_of,) if layout.end_of else layout.time) if key in at
            ]
            received = at.get(RECEIVED)
            labels: dict[str, Label] = {}
            for place, row in zip(group.places, group.rows, strict=True):
                when = row[times[0]] if times else None
                if when is None:
                    when = next((row[i] for i in times if row[i] is not None), None)
                unit = _unit(when)
                label = labels.get(unit)
                if label is None:
                    label = labels[unit] = Label(group.format_name, kind, unit)
                at_ns = 0 if received is None else _time_ns(row[received])
                out.append((place, label, at_ns))
        return out

    def _read_bytes(self, place: int, value: bytes | None) -> None:
        if value and value.startswith(columnar.MAGIC):
            self._columnar[place] = "ns"
        super()._read_bytes(place, value)

    def _take(self, place: int, document: object, depth: int, quiet: list[str]) -> int:
        if type(document) is dict:
            found, _ = self._find(tuple(document))
            if isinstance(found, Envelope):
                self.envelopes[found.name] += 1
            elif found is not None and found.columns is not None:
                times = document.get("time")
                self._columnar[place] = _unit(times[0] if isinstance(times, list) and times else 0)
        return super()._take(place, document, depth, quiet)

    def _take_each(self, place: int, documents: object, depth: int, quiet: list[str]) -> int:
        if depth == 0 and isinstance(documents, list):
            self.envelopes["array"] += 1
        return super()._take_each(place, documents, depth, quiet)


def _kind_of(layout: Layout, keys: Sequence[str]) -> str:
    if layout.kind:
        return "control"
    if layout.end_of:
        return "candle"
    priced = layout.price in keys
    quoted = layout.bid in keys or layout.ask in keys
    return "ticker" if priced and quoted else "quote" if quoted else "trade"


def _unit(value: object) -> str:
    if value is None:
        return OF_LOG
    if isinstance(value, str):
        if not (value.isascii() and value.isdigit() and len(value) <= 20):
            return RFC3339
        value = int(value)
    if not isinstance(value, int | float) or value != value:  # noqa: PLR0124  NaN
        return OF_LOG
    return UNIT_NAMES[bisect_right(_BOUNDS, abs(value))]


def _time_ns(value: object) -> int:
    try:
        return time_ns(value)
    except MalformedError:
        return 0
