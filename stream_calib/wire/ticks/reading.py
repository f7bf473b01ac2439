"""Records of any shapes to columns: rows of one layout are gathered, then read in bulk."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import orjson

from stream_calib.values import I64, Malformed, ValueSchema
from stream_calib.wire.ticks import columnar
from stream_calib.wire.ticks.envelopes import ENVELOPES, Envelope
from stream_calib.wire.ticks.fields import (
    AT_LOG_NS,
    EARLIEST_NS,
    LATEST_NS,
    MalformedError,
    SilentError,
    Tick,
    UnusualError,
)
from stream_calib.wire.ticks.formats import Columns, Document, Format
from stream_calib.wire.ticks.frames import FRAMES, open_frame
from stream_calib.wire.ticks.layouts import Layout, Row

BULK_MIN = 32  # below this, reading one by one costs less
SHAPES_MAX = 4096
DEPTH_MAX = 4  # envelopes in envelopes, arrays among them
ROW_SHIFT = 24  # a place is a row of the batch, and a number within that record
UNSUPPORTED, NO_FORMAT = "unsupported", "format"
_Found = tuple[Format | Envelope | None, Layout | None]
_NO_SCHEMAS: Mapping[bytes, ValueSchema] = MappingProxyType({})
_NO_ROWS = np.empty(0, dtype=np.int64)


class Shapes:
    """Tells by the keys of a JSON object which format or envelope it is; remembers it."""

    def __init__(self, formats: Sequence[Format]) -> None:
        self._formats = formats
        self._known: dict[tuple[str, ...], _Found] = {}

    def find(self, shape: tuple[str, ...]) -> "_Found":
        """Return what reads or opens it, None if nothing does; and its layout if keys tell it."""
        known = self._known.get(shape)
        if known is not None:
            return known
        if len(self._known) >= SHAPES_MAX:
            self._known.clear()
        keys = dict.fromkeys(shape).keys()
        candidates: tuple[Format | Envelope, ...] = (*ENVELOPES, *self._formats)
        of = next((one for one in candidates if one.matches(keys)), None)
        found = (of, of.flat(keys) if isinstance(of, Format) else None)
        self._known[shape] = found
        return found


class _Group:
    """Rows of one layout and of the same keys, and their places."""

    __slots__ = ("format_name", "keys", "layout", "pick", "places", "rows")

    def __init__(self, format_name: str, layout: Layout, shape: Sequence[str]) -> None:
        self.format_name = format_name
        self.layout = layout
        self.keys, self.pick = layout.picker(shape)
        self.rows: list[Row] = []
        self.places: list[int] = []


class Read(NamedTuple):
    """What came of records: see TickBatch; ``places`` tell the parts of a record apart."""

    places: I64
    columns: Columns
    formats: Counter[str]
    malformed: tuple[Malformed, ...]
    silent: Counter[str]


class Reader:
    """Gathers rows by layout, and reads them column by column.

    Parameters
    ----------
    shapes
        Of the formats that are accepted.
    symbols
        Index of each symbol.
    packed
        Whether columns in bytes are accepted.
    schemas
        Of records in frames of a registry, by frame.
    """

    def __init__(
        self,
        shapes: Shapes,
        symbols: Mapping[str, int],
        *,
        packed: bool,
        schemas: Mapping[bytes, ValueSchema] = _NO_SCHEMAS,
    ) -> None:
        self._find = shapes.find
        self._symbols = symbols
        self._packed = packed
        self._schemas = schemas
        self._groups: dict[tuple[Layout, tuple[str, ...]], _Group] = {}
        self._flat: dict[tuple[str, ...], _Group] = {}
        self._by_rows: dict[tuple[str, ...], Format] = {}
        self._parts: defaultdict[str, list[tuple[I64, Columns]]] = defaultdict(list)
        self._refused: dict[int, tuple[int, str]] = {}
        self._silent: Counter[str] = Counter()

    def add(self, format_name: str, rows: I64, columns: Columns) -> None:
        """Take ticks that were read elsewhere, one of each of these records."""
        if len(rows):
            self._parts[format_name].append((rows << ROW_SHIFT, columns))

    def read(self, rows_of: Sequence[int], values: Sequence[bytes | None]) -> None:
        """Take in records, with their rows in the batch."""
        loads, flat, by_rows = orjson.loads, self._flat, self._by_rows
        schemas, framed = self._schemas, bool(self._schemas)
        for row, value in zip(rows_of, values, strict=True):
            place = row << ROW_SHIFT
            try:
                if framed and value and value[0] in FRAMES:
                    document = open_frame(value, schemas)
                else:
                    document = loads(value)  # type: ignore[arg-type]
            except orjson.JSONDecodeError:
                self._read_bytes(place, value)
                continue
            except MalformedError as error:
                self._refuse(place, str(error))
                continue
            if type(document) is not dict:
                self._read_document(place, document)
                continue
            shape = tuple(document)
            group = flat.get(shape)
            if group is not None:
                group.rows.append(group.pick(document))
                group.places.append(place)
                continue
            found = by_rows.get(shape)
            if found is None:  # an envelope, or the first of its kind
                self._read_document(place, document)
                continue
            try:
                layout, rows = found.rows(document)
            except SilentError as error:
                self._silent[str(error)] += 1
            except MalformedError as error:
                self._refuse(place, str(error))
            else:
                if self._gather(place, found.name, layout, rows) == place:
                    self._silent["unpriced"] += 1

    def finish(self, timestamps_ms: Sequence[int]) -> Read:
        """Return all ticks in record order; a record is read as a whole or not at all."""
        for group in (*self._flat.values(), *self._groups.values()):
            self._read_group(group, group.rows, group.places)
            if group.layout.at_log:
                stamps_ms = np.array(timestamps_ms, dtype=np.int64)
                parts = self._parts[group.format_name]
                parts[:] = [(places, self._stamped(places, c, stamps_ms)) for places, c in parts]
        if self._refused:
            for parts in self._parts.values():
                parts[:] = [self._without_refused(*part) for part in parts]
        formats: Counter[str] = Counter()
        for name, parts in self._parts.items():
            if n := _n_distinct([places >> ROW_SHIFT for places, _ in parts]):
                formats[name] = n
        everything = [part for parts in self._parts.values() for part in parts]
        places = np.concatenate([_NO_ROWS, *(places for places, _ in everything)])
        columns = Columns.join([columns for _, columns in everything])
        if (places[1:] < places[:-1]).any():
            order = np.argsort(places, kind="stable")
            places, columns = places[order], columns.chosen(order)
        malformed = (Malformed(row, reason) for row, (_, reason) in sorted(self._refused.items()))
        return Read(places, columns, formats, tuple(malformed), self._silent)

    def _refuse(self, place: int, reason: str) -> None:
        """Refuse a record; of several reasons that of its first part counts."""
        row = place >> ROW_SHIFT
        self._refused[row] = min(self._refused.get(row, (place, reason)), (place, reason))

    def _read_bytes(self, place: int, value: bytes | None) -> None:
        """Read what is no JSON as it stands."""
        try:
            if not value:
                reason = "tombstone" if value is None else "empty"
                raise MalformedError(reason)
            if self._packed and value.startswith(columnar.MAGIC):
                columns = columnar.from_bytes(value, self._symbols)
                self._add_part(columnar.FORMAT.name, place, columns)
                return
            document = open_frame(value, self._schemas)
        except MalformedError as error:
            self._refuse(place, str(error))
            return
        self._read_document(place, document)

    def _add_part(self, format_name: str, place: int, columns: Columns) -> None:
        """Take the ticks of one part of one record."""
        self._parts[format_name].append((np.full(len(columns.time_ns), place), columns))

    def _read_document(self, place: int, document: object) -> None:
        """Read one record through envelopes and arrays."""
        quiet: list[str] = []
        try:
            after = self._take(place, document, 0, quiet)
        except MalformedError as error:
            self._refuse(place, str(error))
            return
        if after > place:
            return
        if UNSUPPORTED in quiet:
            self._refuse(place, UNSUPPORTED)
        else:
            self._silent[quiet[0] if quiet else "unpriced"] += 1

    def _take(self, place: int, document: object, depth: int, quiet: list[str]) -> int:
        """Take in what is inside of a document, and return the place after it."""
        if type(document) is not dict:
            return self._take_each(place, document, depth, quiet)
        shape = tuple(document)
        found, layout = self._find(shape)
        if found is None or depth > DEPTH_MAX:
            raise MalformedError(NO_FORMAT)
        if layout is not None:
            group = self._flat.get(shape)
            if group is None:
                group = self._flat[shape] = _Group(found.name, layout, shape)
            group.rows.append(group.pick(document))
            group.places.append(place)
            return place + 1
        try:
            if isinstance(found, Envelope):
                return self._take(place, found.open(document), depth + 1, quiet)
            if found.columns is not None:
                self._add_part(found.name, place, found.columns(document, self._symbols))
                return place + 1
            self._by_rows[shape] = found
            return self._gather(place, found.name, *found.rows(document))
        except SilentError as error:
            quiet.append(str(error))
        except MalformedError as error:
            if str(error) != UNSUPPORTED:
                raise
            quiet.append(UNSUPPORTED)
        return place

    def _take_each(self, place: int, documents: object, depth: int, quiet: list[str]) -> int:
        if not isinstance(documents, list) or not documents or depth > DEPTH_MAX:
            raise MalformedError(NO_FORMAT)
        for part in documents:
            if isinstance(part, list):
                raise MalformedError(NO_FORMAT)
            place = self._take(place, part, depth + 1, quiet)
        return place

    def _gather(self, place: int, name: str, layout: Layout, rows: Sequence[Document]) -> int:
        """Put rows to their likes, and return the place after them."""
        for row in rows:
            shape = tuple(row)
            group = self._groups.get((layout, shape))
            if group is None:
                group = self._groups[layout, shape] = _Group(name, layout, shape)
            group.rows.append(group.pick(row))
            group.places.append(place)
            place += 1
        return place

    def _read_group(self, group: _Group, rows: Sequence[Row], places: Sequence[int]) -> None:
        name, keys = group.format_name, group.keys
        if len(rows) >= BULK_MIN and keys:
            try:
                by_key = dict(zip(keys, zip(*rows, strict=True), strict=True))
                columns = group.layout.read_bulk(by_key, self._symbols)
            except UnusualError:
                # the odd one out sits in one half; the other is still read in bulk
                half = len(rows) // 2
                self._read_group(group, rows[:half], places[:half])
                self._read_group(group, rows[half:], places[half:])
                return
            self._parts[name].append((np.array(places, dtype=np.int64), columns))
            return
        ticks: list[Tick] = []
        own: list[int] = []
        for row, place in zip(rows, places, strict=True):
            try:
                ticks.append(group.layout.read(dict(zip(keys, row, strict=True))))
                own.append(place)
            except MalformedError as error:
                self._refuse(place, str(error))
        if ticks:
            self._parts[name].append((np.array(own, dtype=np.int64), self._columns(ticks)))

    def _columns(self, ticks: Sequence[Tick]) -> Columns:
        names, times, *prices, idents, kinds, bid_sizes, ask_sizes = zip(*ticks, strict=True)
        both = np.array([bid_sizes, ask_sizes])
        sizes: Any = (None, None) if np.isnan(both).all() else both
        price, bid, ask = (np.array(column) for column in prices)
        find = self._symbols.get
        return Columns(
            np.array(times, dtype=np.int64),
            np.array([find(name, -1) for name in names], dtype=np.int64),
            price,
            bid,
            ask,
            np.array(idents, dtype=np.int64),
            np.array(kinds, dtype=np.int8) if any(kinds) else None,
            *sizes,
        )

    def _stamped(self, places: I64, columns: Columns, stamps_ms: I64) -> Columns:
        """Put the log's time to ticks that have none of their own."""
        at = np.flatnonzero(columns.time_ns == AT_LOG_NS)
        if not len(at):
            return columns
        own_ms = stamps_ms[places[at] >> ROW_SHIFT]
        believable = (own_ms >= EARLIEST_NS // 1_000_000) & (own_ms < LATEST_NS // 1_000_000)
        for place, stamp_ms in zip(
            places[at][~believable].tolist(), own_ms[~believable].tolist(), strict=True
        ):
            self._refuse(place, "no_time" if stamp_ms < 0 else "time_range")
        time_ns = columns.time_ns.copy()
        time_ns[at] = np.where(believable, own_ms, 0) * 1_000_000
        return columns._replace(time_ns=time_ns)

    def _without_refused(self, places: I64, columns: Columns) -> tuple[I64, Columns]:
        kept = ~np.isin(places >> ROW_SHIFT, [*self._refused])
        if kept.all():
            return places, columns
        return places[kept], columns.chosen(kept)


def _n_distinct(rows_of: Sequence[I64]) -> int:
    rows = np.concatenate([_NO_ROWS, *rows_of])
    if (rows[1:] < rows[:-1]).any():
        rows = np.sort(rows)
    return int((rows[1:] != rows[:-1]).sum()) + (len(rows) > 0)
