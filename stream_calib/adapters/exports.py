"""Matrices as files of other programs: Parquet and csv, a row for each pair, or stacked arrays.

``.parquet`` and ``.csv``: as_of, universe, estimator, sequence, a, b, corr, band, n_eff; pairs in
the order of the upper triangle. ``.npz``: ``as_of_ns`` and ``sequence`` (t,), ``symbols`` (n,),
``vol`` (t, n), ``corr``, ``band`` and ``n_eff`` (t, n, n), NaN where a symbol was not ready; with
pairs chosen ``a`` and ``b`` (p,) and the rest (t, p).

A file is there whole or not at all.
"""

import contextlib
import csv
import io
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from stream_calib.errors import InputError
from stream_calib.values import F64, I64, Matrix
from stream_calib.wire.cloudevents import rfc3339

GROUP_ROWS = 1 << 18  # of Parquet: about 20 MB before compression
COLUMNS = ("as_of", "universe", "estimator", "sequence", "a", "b", "corr", "band", "n_eff")
FIGURES = ("corr", "band", "n_eff")
Pairs = Sequence[tuple[str, str]]


class Export(Protocol):
    """A file that takes matrices one after the other."""

    def add(self, matrix: Matrix) -> int:
        """Take a matrix in; return how many pairs of it."""

    def finish(self) -> None:
        """Write what is not written yet."""

    def abandon(self) -> None:
        """Let go of the file, whatever is in it by now."""


@contextlib.contextmanager
def open_export(path: Path, pairs: Pairs | None = None) -> Iterator[Export]:
    """Open an export by the suffix of its name; it takes its place when all went well.

    Parameters
    ----------
    path
        ``.parquet``, ``.csv`` or ``.npz``; replaced if it exists.
    pairs
        Only these; None is all.

    Raises
    ------
    InputError
        The suffix is another one, the file cannot be written, or pyarrow is missing.
    """
    kind = KINDS.get(path.suffix)
    if kind is None:
        raise InputError(f"{path}: the name has to end in {', '.join(KINDS)}")
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            export = kind(file, pairs)
            try:
                yield export
                export.finish()
            except BaseException:
                export.abandon()
                raise
        part.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        part.unlink(missing_ok=True)


class _Places:
    # Where the pairs of a matrix stand; of the same symbols as before it is known.
    def __init__(self, pairs: Pairs | None) -> None:
        self._pairs = pairs
        self._symbols: tuple[str, ...] | None = None
        self._places: tuple[I64, I64] = (np.empty(0, np.int64), np.empty(0, np.int64))

    def of(self, matrix: Matrix) -> tuple[I64, I64]:
        if matrix.symbols != self._symbols:
            self._symbols = matrix.symbols
            if self._pairs is None:
                self._places = np.triu_indices(len(matrix.symbols), 1)
            else:
                at = {symbol: i for i, symbol in enumerate(matrix.symbols)}
                both = [(at[a], at[b]) for a, b in self._pairs if a in at and b in at]
                rows, columns = np.array(both, np.int64).reshape(-1, 2).T
                self._places = rows, columns
        return self._places


class ParquetExport:
    """Rows in Parquet, in groups, so that no more than one of them is in memory."""

    def __init__(self, file: BinaryIO, pairs: Pairs | None = None) -> None:
        try:
            import pyarrow as pa  # noqa: PLC0415
            import pyarrow.parquet as pq  # noqa: PLC0415
        except ImportError:
            message = "Parquet needs pyarrow: pip install 'stream-calib[arrow]'"
            raise InputError(message) from None
        self._pa, self._places = pa, _Places(pairs)
        kinds = [
            pa.timestamp("ns", tz="UTC"),
            *(pa.string(), pa.string(), pa.int64()),
            *(pa.string(), pa.string()),
            *(pa.float64(),) * len(FIGURES),
        ]
        self._schema = pa.schema(list(zip(COLUMNS, kinds, strict=True)))
        self._writer = pq.ParquetWriter(file, self._schema)
        self._batches: list[Any] = []
        self._n_rows = 0

    def add(self, matrix: Matrix) -> int:
        """Take a matrix in; return how many pairs of it."""
        pa, (rows, columns) = self._pa, self._places.of(matrix)
        n, names = len(rows), pa.array(matrix.symbols)
        once = (matrix.as_of_ns, matrix.universe, matrix.estimator, matrix.sequence)
        kinds = self._schema.types[: len(once)]
        arrays = [
            *(pa.repeat(pa.scalar(x, kind), n) for x, kind in zip(once, kinds, strict=True)),
            *(names.take(pa.array(places)) for places in (rows, columns)),
            *(pa.array(getattr(matrix, name)[rows, columns]) for name in FIGURES),
        ]
        self._batches.append(pa.record_batch(arrays, schema=self._schema))
        self._n_rows += n
        if self._n_rows >= GROUP_ROWS:
            self._write()
        return n

    def finish(self) -> None:
        """Write the last group and the table of contents."""
        self._write()
        self._writer.close()

    def abandon(self) -> None:
        """Let go of the file, whatever is in it by now."""
        with contextlib.suppress(OSError):  # or it would complain later
            self._writer.close()

    def _write(self) -> None:
        table = self._pa.Table.from_batches(self._batches, self._schema)
        if len(table):
            self._writer.write_table(table, row_group_size=max(len(table), 1))
        self._batches, self._n_rows = [], 0


class CsvExport:
    """Rows of text; numbers with all their digits."""

    def __init__(self, file: BinaryIO, pairs: Pairs | None = None) -> None:
        self._places = _Places(pairs)
        self._text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        self._writer = csv.writer(self._text, lineterminator="\n")
        self._writer.writerow(COLUMNS)

    def add(self, matrix: Matrix) -> int:
        """Take a matrix in; return how many pairs of it."""
        rows, columns = self._places.of(matrix)
        once = [rfc3339(matrix.as_of_ns), matrix.universe, matrix.estimator, matrix.sequence]
        names = np.array(matrix.symbols, dtype=object)
        figures = [getattr(matrix, name)[rows, columns].tolist() for name in FIGURES]
        pairs = zip(names[rows], names[columns], *figures, strict=True)
        self._writer.writerows([*once, *pair] for pair in pairs)
        return len(rows)

    def finish(self) -> None:
        """Write what is not written yet."""
        self._text.detach()  # of the file, which stays open

    def abandon(self) -> None:
        """Let go of the file, whatever is in it by now."""
        with contextlib.suppress(OSError, ValueError):  # it may have been let go
            self._text.detach()


class NpzExport:
    """Stacked arrays of one universe and estimator, all in memory until the end."""

    def __init__(self, file: BinaryIO, pairs: Pairs | None = None) -> None:
        self._file, self._pairs = file, pairs
        self._places = _Places(pairs)
        self._matrices: list[Matrix] = []
        self._symbols: dict[str, None] = {}

    def add(self, matrix: Matrix) -> int:
        """Take a matrix in; return how many pairs of it."""
        if self._matrices:
            first, mine = (f"{m.universe}|{m.estimator}" for m in (self._matrices[0], matrix))
            if first != mine:
                message = f"arrays are of one of {first} and {mine}: name its universe, estimator"
                raise InputError(message)
        self._matrices.append(matrix)
        self._symbols |= dict.fromkeys(matrix.symbols)
        return len(self._places.of(matrix)[0])

    def finish(self) -> None:
        """Write all arrays."""
        matrices, symbols = self._matrices, [*self._symbols]
        n = len(symbols)
        small: dict[str, Any] = {
            "as_of_ns": np.array([m.as_of_ns for m in matrices], np.int64),
            "sequence": np.array([m.sequence for m in matrices], np.int64),
        }
        if self._pairs is None:
            small["symbols"] = np.array(symbols, dtype=str)
        else:
            for k, name in enumerate("ab"):
                small[name] = np.array([pair[k] for pair in self._pairs], dtype=str)
        with zipfile.ZipFile(self._file, "w") as archive:
            for name, array in small.items():
                _write_npy(archive, name, array.dtype, array.shape, [array])
            at = {symbol: i for i, symbol in enumerate(symbols)}
            chosen = None
            if self._pairs is not None:
                chosen = np.array([[at.get(s, n) for s in pair] for pair in self._pairs], np.int64)
            shape = (n, n) if chosen is None else (len(chosen),)
            for name in FIGURES:
                blocks = (_spread(m, getattr(m, name), at, chosen) for m in matrices)
                _write_npy(archive, name, np.dtype("<f8"), (len(matrices), *shape), blocks)
            if chosen is None:
                vols = (_spread(m, m.vol, at, None) for m in matrices)
                _write_npy(archive, "vol", np.dtype("<f8"), (len(matrices), n), vols)

    def abandon(self) -> None:
        """Let go of the file: nothing has been written."""


def _spread(matrix: Matrix, array: F64, at: dict[str, int], chosen: I64 | None) -> F64:
    # Among the symbols of all matrices, and one more that nobody is.
    places = [at[symbol] for symbol in matrix.symbols]
    whole = np.full((len(at) + 1,) * array.ndim, np.nan)
    whole[np.ix_(*[places] * array.ndim)] = array
    if chosen is not None:
        pairs: F64 = whole[chosen[:, 0], chosen[:, 1]]
        return pairs
    cut: F64 = whole[(slice(0, -1),) * array.ndim]
    return cut


def _write_npy(
    archive: zipfile.ZipFile,
    name: str,
    dtype: "np.dtype[Any]",
    shape: tuple[int, ...],
    blocks: Iterable[Any],
) -> None:
    # As numpy.savez does, but block by block: the whole is never in memory a second time.
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    # the same bytes for the same matrices
    info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
    with archive.open(info, "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype).tobytes())


KINDS: Mapping[str, Callable[[BinaryIO, Pairs | None], Export]] = {
    ".parquet": ParquetExport,
    ".csv": CsvExport,
    ".npz": NpzExport,
}
