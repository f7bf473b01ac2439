"""Tables with types: Parquet and Arrow's own files, as the records of the CSV that says the same.

Read a batch of rows after the other, never as a whole; needs the extra ``arrow`` (pyarrow).
Columns have the names they have in CSV, an index of pandas is the first. Of the values:

- Timestamps of any unit and zone, and dates, are ns since the epoch; without a zone they are
  UTC.
- Null and NaN are not observed: the record does not have them.
- Decimals and texts that are plain numbers are numbers; dictionaries are what they stand for.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from stream_calib.adapters.files.layouts import named
from stream_calib.adapters.files.tables import Texts, cell
from stream_calib.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

ARROW = {".parquet": "Parquet", ".pq": "Parquet", ".arrow": "Arrow", ".feather": "Arrow"}
CELLS = 1 << 17  # of a batch
MAGIC = b"ARROW1"
UNIT_NS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}


def arrow_records(path: Path) -> Iterator[list[bytes]]:
    """Yield the records of a file of these kinds, a batch at a time.

    Raises
    ------
    InputError
        It is damaged, cut off, or compressed once more; or pyarrow is not there.
    """
    if path.suffix.lower() not in ARROW:
        raise InputError(f"{path}: {ARROW[Path(path.stem).suffix.lower()]} is not read compressed")
    what = ARROW[path.suffix.lower()]
    try:
        import pyarrow as pa  # noqa: PLC0415
    except ImportError:
        raise InputError(
            f"{path}: {what} is read by the extra arrow (pip install 'stream-calib[arrow]')"
        ) from None
    try:
        for batch in _batches(path):
            yield _records(batch)
    except pa.ArrowException as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(f"{path}: it is no whole {what} file ({reason})") from None


def _batches(path: Path) -> "Iterator[pa.RecordBatch]":
    import pyarrow as pa  # noqa: PLC0415

    with path.open("rb") as file:
        magic = file.read(len(MAGIC))
    if ARROW[path.suffix.lower()] == "Parquet":
        from pyarrow import parquet  # noqa: PLC0415

        with parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as table:
            size = max(1, CELLS // max(1, len(table.schema_arrow.names)))
            for batch in table.iter_batches(size, use_threads=False):
                yield _ordered(batch, table.schema_arrow)
        return
    with pa.OSFile(str(path)) as source:
        opened = (pa.ipc.open_file if magic == MAGIC else pa.ipc.open_stream)(source)
        count = opened.num_record_batches if magic == MAGIC else None
        batches = opened if count is None else map(opened.get_batch, range(count))
        size = max(1, CELLS // max(1, len(opened.schema.names)))
        for whole in batches:
            whole.validate(full=True)  # offsets of a damaged file point anywhere
            for start in range(0, whole.num_rows, size):
                yield _ordered(whole.slice(start, size), opened.schema)


def _ordered(batch: "pa.RecordBatch", schema: "pa.Schema") -> "pa.RecordBatch":
    # pandas writes its index last, and reads it as if it were first
    index = [
        name
        for name in (schema.pandas_metadata or {}).get("index_columns", [])
        if isinstance(name, str) and name in schema.names
    ]
    order = [*index, *(name for name in schema.names if name not in index)]
    return batch if order == schema.names else batch.select(order)


def _records(batch: "pa.RecordBatch") -> list[bytes]:
    names = [
        "" if name.startswith("__index_level_") else name.strip() for name in batch.schema.names
    ]
    return named(names).read(lambda i: _texts(batch.column(i))) if names else []


def _texts(column: "pa.Array") -> Texts:
    import pyarrow as pa  # noqa: PLC0415

    kind = column.type
    if pa.types.is_dictionary(kind):
        return _chosen(_texts(column.dictionary), column.indices)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        encoded = column.dictionary_encode()
        own: Texts = [_text(value) for value in encoded.dictionary.to_pylist()]
        return _chosen(own, encoded.indices)
    if pa.types.is_timestamp(kind):
        return _times(column.cast(pa.int64()), UNIT_NS[kind.unit])
    if pa.types.is_date(kind):
        return _times(column.cast(pa.timestamp("ms")).cast(pa.int64()), UNIT_NS["ms"])
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _numbers(column)
    if pa.types.is_decimal(kind):
        return [_text(value) for value in column.cast(pa.string()).to_pylist()]
    return [
        None if value is None else orjson.dumps(value, default=str) for value in column.to_pylist()
    ]


def _text(value: str | None) -> bytes | None:
    return None if value is None or value == "" else orjson.dumps(cell(value))


def _chosen(own: Texts, indices: "pa.Array") -> Texts:
    if not indices.null_count:
        return [own[i] for i in indices.to_numpy(zero_copy_only=False).tolist()]
    return [None if i is None else own[i] for i in indices.to_pylist()]


def _times(column: "pa.Array", unit_ns: int) -> Texts:
    largest = (2**63 - 1) // unit_ns
    return [
        None
        if value is None
        # what int64 cannot hold in ns is no time of any market, and shall not be taken for one
        else b"%d" % (value * unit_ns)
        if abs(value) <= largest
        else b'"out of range"'
        for value in column.to_pylist()
    ]


def _numbers(column: "pa.Array") -> Texts:
    missing = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
    filled = column if missing is None else column.fill_null(0)
    values: Any = filled.to_numpy(zero_copy_only=False)
    joined = orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)
    texts: Texts = list(joined[1:-1].split(b","))
    if values.dtype.kind == "f" and not (finite := np.isfinite(values)).all():
        for i in np.flatnonzero(~finite).tolist():
            texts[i] = None if np.isnan(values[i]) else b'"inf"'
    if missing is not None:
        for i in np.flatnonzero(missing).tolist():
            texts[i] = None
    return texts
