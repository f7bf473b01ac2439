"""Whatever a file holds, it is records or one sentence that names it, and never a traceback."""

import contextlib
import csv
import gzip
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_calib.adapters.files import FileSource
from stream_calib.errors import InputError
from stream_calib.wire.ticks import decode

NS = 1_609_160_400_098_821_953
TICKS = b"time,symbol,price\n" + b"".join(b"16252917386%d,A,%d.5\n" % (i, i) for i in range(10, 90))
WIDE = b"time,A,B\n" + b"".join(b"16252917386%d,%d.5,\n" % (i, i) for i in range(10, 90))
TARDIS = (
    b"exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n"
    + b"binance,BTCUSDT,1625291738612292,1625291738612299,1,buy,1.5,2\n" * 40
)
DATABENTO = (
    b"ts_event,rtype,instrument_id,price,bid_px_00,ask_px_00,symbol\n"
    + b"1609160400098821953,0,5482,3720250000000,,,ESH1\n" * 40
)
CAPTURE = b"configuration: {}\n" + b'1633998512.5: {"e":"trade"}\n' * 40
RECORDS = b'a\t{"time":1625291738}\nb\t\n' * 40
TRADES = b"1,2.5,3,4,1735776000123,True,True\n" * 40


def zipped(content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("BTCUSDT-trades-2025-01-02.csv", content)
    return out.getvalue()


def as_parquet(content: bytes, kind: str) -> bytes:
    pa = pytest.importorskip("pyarrow", reason="the extra arrow is not installed")
    from pyarrow import feather, parquet

    rows = list(csv.DictReader(io.StringIO(content.decode())))
    table, out = pa.Table.from_pylist(rows), io.BytesIO()
    if kind == "parquet":
        parquet.write_table(table, out)
    else:
        feather.write_feather(table, out)
    return out.getvalue()


def dbn(n: int = 20) -> bytes:
    library = pytest.importorskip("databento_dbn", reason="the extra databento is not installed")
    head = library.Metadata(
        dataset="GLBX.MDP3",
        start=NS,
        stype_in=library.SType.from_str("raw_symbol"),
        stype_out=library.SType.from_str("instrument_id"),
        schema=library.Schema.from_str("trades"),
        symbols=["ESH1"],
        partial=[],
        not_found=[],
        mappings=[],
    )
    side = library.Side.from_str("A")
    action = library.Action.from_str("T")
    trade = library.TradeMsg(1, 5482, NS, 3720 * 10**9, 5, action, side, 0, NS)
    return bytes(head) + n * bytes(trade)


FILES = {
    "t.csv": TICKS,
    "w.csv": WIDE,
    "tardis.csv": TARDIS,
    "databento.csv": DATABENTO,
    "BTCUSDT-trades-2025-01-02.csv": TRADES,
    "capture": CAPTURE,
    "t.tsv": RECORDS,
    "t.csv.gz": gzip.compress(TICKS, mtime=0),
    "t.tsv.zst": zstandard.ZstdCompressor().compress(RECORDS),
    "t.zip": zipped(TRADES),
    "t.parquet": as_parquet(TICKS, "parquet"),
    "w.feather": as_parquet(WIDE, "feather"),
    "t.dbn": dbn(),
}


@contextlib.contextmanager
def read_or_said(path: Path) -> Iterator[None]:
    said = ""
    try:
        yield
    except InputError as error:
        said = str(error)
    if said:
        assert said.startswith(f"{path}: ")
        assert "\n" not in said


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=40)
@given(
    changes=st.lists(
        st.tuples(st.floats(0, 1), st.binary(max_size=8), st.integers(0, 40)), max_size=6
    ),
    random=st.none() | st.binary(max_size=300),
)
def test_damaged_files_are_records_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    changes: list[tuple[float, bytes, int]],
    random: bytes | None,
) -> None:
    content = FILES[name]
    if random is not None and len(changes) < 3:
        content = random
    for place, inserted, removed in changes:
        at = int(place * len(content))
        content = content[:at] + inserted + content[at + removed :]
    path: Path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content)
    source = FileSource([path])
    with read_or_said(path):
        source.open()
        while not source.exhausted():
            for batch in source.take(100):
                read = decode(batch, "auto", {"A": 0})
                assert len(batch.values) == len(batch.timestamps_ms)
                assert len(read.malformed) <= len(batch.values)
    source.release()
