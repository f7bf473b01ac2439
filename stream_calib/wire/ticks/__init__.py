"""Records to ticks: one file per message format, and ``decode`` over all of them."""

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from stream_calib.config.input import InputConfig
from stream_calib.errors import ConfigError
from stream_calib.values import RecordBatch, TickBatch
from stream_calib.wire.ticks import (
    alpaca,
    binance,
    bybit,
    ccxt,
    coinbase,
    coinbase_advanced,
    columnar,
    cryptofeed,
    databento,
    kraken,
    native,
    okx,
    polygon,
)
from stream_calib.wire.ticks.formats import Format
from stream_calib.wire.ticks.reading import BULK_MIN, ROW_SHIFT, Reader, Shapes
from stream_calib.wire.ticks.symbols import SymbolTable, SymbolTables

__all__ = ["BULK_MIN", "FORMATS", "SymbolTables", "check_format", "decode", "symbol_tables"]

FORMATS: Mapping[str, Format] = {
    format_.name: format_
    for format_ in (
        native.FORMAT,
        columnar.FORMAT,
        cryptofeed.FORMAT,
        ccxt.FORMAT,
        binance.FORMAT,
        coinbase.FORMAT,
        coinbase_advanced.FORMAT,
        kraken.FORMAT,
        bybit.FORMAT,
        okx.FORMAT,
        polygon.FORMAT,
        alpaca.FORMAT,
        databento.FORMAT,
    )
}


def check_format(name: str) -> None:
    """Refuse a format that no decoder has, naming the key."""
    if name != "auto" and name not in FORMATS:
        message = f"input.format: {name!r} is not one of auto, {', '.join(FORMATS)}"
        raise ConfigError(message)


def symbol_tables(settings: InputConfig, symbols: Sequence[str]) -> SymbolTables:
    """Return what finds the symbols of a universe under all names that messages may use."""
    venues = {format_.venue for format_ in FORMATS.values() if format_.venue}
    return SymbolTables(symbols, settings.aliases, settings.exchanges, frozenset(venues))


def decode(
    records: RecordBatch, format_name: str, symbols: Mapping[str, int] | SymbolTables
) -> TickBatch:
    """Decode the records of one source; never raises.

    Parameters
    ----------
    records
        As read.
    format_name
        A name in FORMATS, or ``auto``: the format is told from each record.
    symbols
        Index of each symbol of the universe; ``symbol_tables`` are made once for many batches.

    Returns
    -------
    TickBatch
        A pure function of the records, however they are batched. Records that no format can
        read are in ``malformed``, with a reason: ``tombstone``, ``empty``, ``json``, ``frame``,
        ``avro``, ``schema``, ``format``, ``field``, ``number``, ``time_range``, ``no_time`` or
        ``unsupported``. Those that by their nature carry no price are counted in ``silent``:
        ``control``, ``open_bar``, ``repeated``, ``unpriced`` or ``deleted``.
    """
    if isinstance(symbols, SymbolTables):
        table = symbols.of(records.source.topic)
    else:
        table = SymbolTable(symbols)
    values = records.values
    packed = format_name in {"auto", "columnar"}
    reader = Reader(_shapes(format_name), table, packed=packed, schemas=records.schemas)
    rows = np.arange(len(values))
    native_too = format_name in {"auto", native.FORMAT.name}
    if native_too and len(values) >= BULK_MIN and table.scan(values[:1])[0].any():
        plain, columns = table.scan(values)
        reader.add(native.FORMAT.name, rows[plain], columns.chosen(plain))
        rows = rows[~plain]
        values = [values[row] for row in rows.tolist()]
    reader.read(rows.tolist(), values)
    places, ticks, formats, malformed, silent = reader.finish(records.timestamps_ms)
    row = places >> ROW_SHIFT
    return TickBatch(records, formats, row, *ticks[:6], malformed, *ticks[6:], silent=silent)


@cache
def _shapes(format_name: str) -> Shapes:
    formats = tuple(FORMATS.values()) if format_name == "auto" else (FORMATS[format_name],)
    return Shapes(formats)
