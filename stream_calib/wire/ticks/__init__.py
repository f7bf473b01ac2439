"""Records to ticks: one file per message format, and ``decode`` over all of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from stream_calib.errors import ConfigError
from stream_calib.values import I64, Malformed, RecordBatch, TickBatch
from stream_calib.wire.ticks import cryptofeed, native
from stream_calib.wire.ticks.fields import MalformedError, Tick, UnusualError
from stream_calib.wire.ticks.formats import Columns, Document, Format
from stream_calib.wire.ticks.plain import SymbolTable

FORMATS: Mapping[str, Format] = {f.name: f for f in (native.FORMAT, cryptofeed.FORMAT)}
BULK_MIN = 32  # below this, reading one by one costs less than finding the odd one out


def check_format(name: str) -> None:
    """Refuse a format that no decoder has, naming the key."""
    if name != "auto" and name not in FORMATS:
        message = f"input.format: {name!r} is not one of auto, {', '.join(FORMATS)}"
        raise ConfigError(message)


def decode(records: RecordBatch, format_name: str, symbols: Mapping[str, int]) -> TickBatch:
    """Decode the records of one source; never raises.

    Parameters
    ----------
    records
        As read.
    format_name
        A name in FORMATS, or ``auto``: the format is told from each record.
    symbols
        Index of each symbol of the universe; a ``SymbolTable`` is made once for many batches.

    Returns
    -------
    TickBatch
        A pure function of the records, however they are batched: records that no format can
        read are in ``malformed``, with a reason: ``tombstone``, ``empty``, ``json``,
        ``format``, ``field``, ``number``, ``time_range`` or ``unsupported``.
    """
    formats = tuple(FORMATS.values()) if format_name == "auto" else (FORMATS[format_name],)
    table = symbols if isinstance(symbols, SymbolTable) else SymbolTable(symbols)
    reader = _Reader(formats, table)
    if native.FORMAT in formats and len(records.values) >= BULK_MIN:
        reader.scan(records.values)
    else:
        reader.read(records.values, 0)
    rows, columns = reader.columns()
    return TickBatch(
        records, dict(reader.formats), rows, *columns[:6], tuple(reader.malformed), *columns[6:]
    )


class _Reader:
    """Reads runs of records, in bulk where they are alike, else one by one."""

    def __init__(self, formats: Sequence[Format], symbols: SymbolTable) -> None:
        self._accepted = formats
        self._symbols = symbols
        self._parts: list[tuple[I64, Columns]] = []
        self.formats: Counter[str] = Counter()
        self.malformed: list[Malformed] = []

    def scan(self, values: Sequence[bytes | None]) -> None:
        """Read plain native ticks from their bytes, and what lies between them as records."""
        if not self._symbols.scan(values[:1])[0].any():
            return self.read(values, 0)
        plain, columns = self._symbols.scan(values)
        edges = np.flatnonzero(np.diff(plain, prepend=False, append=False))
        after = 0
        for start, stop in [*edges.reshape(-1, 2).tolist(), (len(values), len(values))]:
            if after < start:
                self.read(values[after:start], after)
            if start < stop:
                rows = np.arange(start, stop)
                self._parts.append((rows, columns.rows(start, stop)))
                self.formats[native.FORMAT.name] += stop - start
            after = stop
        return None

    def read(self, values: Sequence[bytes | None], first_row: int) -> None:
        """Read records, halving a run down to the odd one out."""
        if len(values) < BULK_MIN:
            self._read_each(values, first_row)
            return
        try:
            documents: list[Document] = list(map(orjson.loads, values))  # type: ignore[arg-type]
            self._read_bulk(documents, first_row)
        except (TypeError, AttributeError, orjson.JSONDecodeError, UnusualError):
            # the odd one out sits in one half; the other is still read in bulk
            half = len(values) // 2
            self.read(values[:half], first_row)
            self.read(values[half:], first_row + half)

    def columns(self) -> tuple[I64, Columns]:
        """Return the rows and columns of all ticks, in record order."""
        rows = np.concatenate([_NO_ROWS, *(rows for rows, _ in self._parts)])
        return rows, Columns.join([columns for _, columns in self._parts])

    def _read_bulk(self, documents: Sequence[Document], first_row: int) -> None:
        format_ = self._format_of(documents[0])
        if format_ is None or format_.read_bulk is None:
            raise UnusualError
        columns = format_.read_bulk(documents, self._symbols)
        self._parts.append((np.arange(first_row, first_row + len(documents)), columns))
        self.formats[format_.name] += len(documents)

    def _read_each(self, values: Sequence[bytes | None], first_row: int) -> None:
        rows: list[int] = []
        ticks: list[Tick] = []
        for row, value in enumerate(values, first_row):
            try:
                found = self._read_one(value)
            except MalformedError as error:
                self.malformed.append(Malformed(row, str(error)))
                continue
            rows.extend([row] * len(found))
            ticks.extend(found)
        if ticks:
            names, times, *prices, idents, kinds, bid_sizes, ask_sizes = zip(*ticks, strict=True)
            both = np.array([bid_sizes, ask_sizes])
            sizes: Any = (None, None) if np.isnan(both).all() else both
            price, bid, ask = (np.array(column) for column in prices)
            columns = Columns(
                np.array(times, dtype=np.int64),
                np.array([self._symbols.get(name, -1) for name in names], dtype=np.int64),
                price,
                bid,
                ask,
                np.array(idents, dtype=np.int64),
                np.array(kinds, dtype=np.int8) if any(kinds) else None,
                *sizes,
            )
            self._parts.append((np.array(rows, dtype=np.int64), columns))

    def _read_one(self, value: bytes | None) -> list[Tick]:
        if not value:
            raise MalformedError("tombstone" if value is None else "empty")
        try:
            document = orjson.loads(value)
        except orjson.JSONDecodeError:
            reason = "json"
            raise MalformedError(reason) from None
        format_ = self._format_of(document) if isinstance(document, dict) else None
        if format_ is None:
            reason = "format"
            raise MalformedError(reason)
        ticks = list(format_.read(document))
        self.formats[format_.name] += 1
        return ticks

    def _format_of(self, document: Document) -> Format | None:
        return next((f for f in self._accepted if f.matches(document)), None)


_NO_ROWS = np.empty(0, dtype=np.int64)
