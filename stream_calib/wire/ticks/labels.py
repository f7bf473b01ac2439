"""Of which symbol a record is and of what time, whatever symbols there are."""

from typing import Any

import numpy as np

from stream_calib.values import I64, RecordBatch
from stream_calib.wire.ticks import BULK_MIN, FORMATS, check_format
from stream_calib.wire.ticks.reading import ROW_SHIFT, Reader, Shapes
from stream_calib.wire.ticks.symbols import SymbolTable

NAMES_MAX = 100_000


class _Names(dict[str, int]):
    # gives every symbol that is looked up a number
    def get(self, name: str, _default: Any = None) -> int:  # noqa: ANN401  as dict has it
        return self.setdefault(name, len(self))


class Labels:
    """Reads symbols and times of records; remembers the symbols, to read the next ones faster.

    Parameters
    ----------
    format_name
        As ``decode`` takes it.

    Raises
    ------
    ConfigError
        There is no such format.
    """

    def __init__(self, format_name: str = "auto") -> None:
        check_format(format_name)
        auto = format_name == "auto"
        self._shapes = Shapes(tuple(FORMATS.values()) if auto else (FORMATS[format_name],))
        self._packed = format_name in {"auto", "columnar"}
        self._native = format_name in {"auto", "native"}
        self._names = _Names()
        self._table = SymbolTable({})

    def read(self, records: RecordBatch) -> tuple[I64, list[str]]:
        """Return what each record is of.

        Returns
        -------
        time_ns : (m,)
            The time of its first tick, 0 for a record that has none.
        symbols : (m,)
            The symbol of its ticks, "" for none or several.
        """
        if len(self._names) > NAMES_MAX:  # garbage names ever new ones
            self._names, self._table = _Names(), SymbolTable({})
        values = records.values
        time_ns, asset = np.zeros(len(values), np.int64), np.full(len(values), -1, np.int64)
        rest = np.arange(len(values))
        if self._native and self._names and len(values) >= BULK_MIN:
            plain, columns = self._table.scan(values)
            known = plain & (columns.asset >= 0)
            time_ns[known], asset[known] = columns.time_ns[known], columns.asset[known]
            rest = rest[~known]
        if len(rest):
            reader = Reader(self._shapes, self._names, packed=self._packed)
            reader.read(rest.tolist(), [values[row] for row in rest.tolist()])
            places, ticks, *_ = reader.finish(records.timestamps_ms)
            own, first = np.unique(places >> ROW_SHIFT, return_index=True)
            if len(own):
                time_ns[own] = ticks.time_ns[first]
                lowest = np.minimum.reduceat(ticks.asset, first)
                highest = np.maximum.reduceat(ticks.asset, first)
                asset[own] = np.where(lowest == highest, lowest, -1)
        names = [*self._names, ""]
        if len(self._names) != len(self._table):
            self._table = SymbolTable(self._names)
        return time_ns, [names[i] for i in asset.tolist()]
