"""Files: recorded ticks of every kind, what ``replay`` has written, settings, kcat's output."""

import atexit
import base64
import io
import shutil
import struct
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, cast

import orjson

from stream_calib.adapters.files import FileSource
from stream_calib.client import Problem, read_matrices
from stream_calib.config import load_config
from stream_calib.wire import matrices
from stream_calib.wire.ticks import decode
from tests.contract.test_files_garbage import FILES, zipped
from tests.deploy.readers import as_kcat_prints, plain_reader
from tests.fuzz.mutation import Spoiler
from tests.fuzz.target import Target, refused
from tests.golden import values as golden
from tests.real_parts import ROOT

EXPANDED_MAX = 2_000_000  # records of one input: more is read of no file of its size
STARTS: tuple[Any, ...] = ("earliest", datetime(2023, 1, 1, tzinfo=UTC))
QUIET: Callable[[Problem], None] = lambda _problem: None  # noqa: E731


@cache
def _folder() -> Path:
    """Return a folder, in memory where there is one, that ends with the process."""
    memory = Path("/dev/shm")
    folder = tempfile.mkdtemp(prefix="fuzz-", dir=memory if memory.is_dir() else None)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _named(names: Sequence[str], number: int) -> Path:
    return _folder() / names[number % len(names)]


def recorded_target(kinds: Sequence[str]) -> Target:
    """Files of these names: whole ones, and spoilt ones under each other's names."""
    corpus = [FILES[name] for name in kinds]

    def make(spoiler: Spoiler, number: int) -> bytes:
        return (number % 2**16).to_bytes(2, "big") + spoiler.spoil(number)

    def read(value: bytes) -> None:
        path = _named(kinds, int.from_bytes(value[:2], "big"))
        path.write_bytes(value[2:])
        refused(_read_all, path)

    return Target([i.to_bytes(2, "big") + one for i, one in enumerate(corpus)], read, make)


def _read_all(path: Path) -> None:
    source = FileSource([path])
    n = 0
    try:
        source.open()
        while not source.exhausted():
            for batch in source.take(5000):
                n += len(batch.values)
                decode(batch, "auto", {"A": 0})
                assert n < EXPANDED_MAX
    finally:
        source.release()


def lean_target() -> Target:
    """Lean's zip files, whose rows have no header and whose path says what they are."""
    rows = {
        "trade": "34200000,1234500,100,N,0,0\r\n34200100,1234600,50,N,0,1\r\n" * 20,
        "quote": "34200000,1234500,100,0,0,N,0,0\r\n34200000,0,0,1234600,100,N,0,0\r\n" * 20,
    }
    folder = _folder() / "equity" / "usa" / "tick" / "spy"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"20131007_{kind}.zip" for kind in rows]

    def make(spoiler: Spoiler, number: int) -> bytes:
        draw, value = spoiler.random, spoiler.spoil(number)
        return value if draw.random() < 0.2 else zipped(value)

    def read(value: bytes) -> None:
        for path in paths:
            path.write_bytes(value if value[:2] == b"PK" else zipped(value))
            refused(_read_all, path)

    return Target([text.encode() for text in rows.values()], read, make)


def text_target() -> Target:
    """CSV of all kinds, lines of JSON, topics with tabs, captures."""
    return recorded_target([n for n in FILES if n.endswith((".csv", ".tsv")) or n == "capture"])


def packed_target() -> Target:
    """What is compressed, or has types: zip, gzip, zstd, Databento's."""
    return recorded_target([n for n in FILES if n.endswith((".gz", ".zst", ".zip", ".dbn"))])


def arrow_target() -> Target:
    """Parquet and Arrow, whose library is written in C++."""
    return recorded_target([n for n in FILES if n.endswith((".parquet", ".feather"))])


@cache
def output_lines() -> tuple[bytes, ...]:
    """Return lines as ``replay --out`` writes them."""
    lines = []
    for n in (2, 4):
        (record,) = matrices.encode(golden.matrix(n), "t", 0)
        head = {
            "topic": "t",
            "partition": 0,
            "key": record.key.decode(),
            "headers": {name: text.decode() for name, text in record.headers},
        }
        lines.append(orjson.dumps(head)[:-1] + b',"value":' + record.value + b"}")
        packed = head | {"value": base64.b64encode(record.value).decode()}
        packed["headers"] = {
            **cast("dict[str, str]", head["headers"]),
            "content-type": matrices.PACKED_TYPE,
        }
        lines.append(orjson.dumps(packed))
    return tuple(lines)


def replayed_target() -> Target:
    """What ``replay --out`` has written, in the hands of a subscriber."""
    path = _named(["matrices.jsonl"], 0)

    def read(value: bytes) -> None:
        path.write_bytes(value)
        for start in STARTS:
            refused(lambda: [*read_matrices(path, start=start, on_problem=QUIET)])  # noqa: B023

    lines = output_lines()
    return Target([*lines, b"\n".join(lines)], read)


def settings_target() -> Target:
    """Settings in TOML."""
    blocks = [
        "[[universe]]\nname = 'a'\nsymbols = ['A', 'B']\nbar = '1s'\n",
        (ROOT / "examples" / "demo.toml").read_text(),
        "app = 'x'\n[kafka]\nbootstrap_servers = ['a:1', 'b:2']\nconnect_timeout = '3s'\n"
        "[input]\ntopics = ['t']\nformat = 'auto'\n[http]\nport = 0\n"
        "[snapshots]\nfolder = 's'\n[[universe]]\nname = 'b'\n"
        "symbols = ['A', 'B', 'C']\nbar = '5s'\n"
        "[universe.ewma]\nhalf_life = '1h'\n[universe.dcc]\nbar = '1m'\n",
    ]
    path = _named(["settings.toml"], 0)

    def read(value: bytes) -> None:
        path.write_bytes(value)
        refused(load_config, path)

    return Target([block.encode() for block in blocks], read)


def kcat_target() -> Target:
    """What kcat prints, in the reader that deploy/reading.md gives to strangers."""
    page: dict[str, Any] = dict(plain_reader())
    corpus = [as_kcat_prints(matrices.encode(golden.matrix(n), "t", 0)) for n in (2, 4)]
    corpus.append(as_kcat_prints([*matrices.encode(golden.matrix(201), "t", 0)]))
    return Target(corpus, lambda value: _read_page(page, value))


def _read_page(page: dict[str, Any], value: bytes) -> None:
    # twenty lines for strangers: they may stumble, and must come to an end
    try:
        for matrix in page["matrices"](io.BytesIO(value)):
            page["correlation"](matrix, 0, 1)
    except (ArithmeticError, LookupError, TypeError, ValueError, struct.error, RecursionError):
        pass


TARGETS = {
    "text_files": text_target,
    "packed_files": packed_target,
    "lean_files": lean_target,
    "arrow_files": arrow_target,
    "replayed": replayed_target,
    "settings": settings_target,
    "kcat": kcat_target,
}
