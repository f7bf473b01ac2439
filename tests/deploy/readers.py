"""The readers on the page in deploy/, as a stranger would copy them, and what they are given."""

import re
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stream_calib.values import F64, Matrix, Output
from tests.real_parts import ROOT

PAGE = (ROOT / "deploy" / "reading.md").read_text(encoding="utf-8")
KCAT_FORMAT = r"%h\n%R%s"
PYTHON, JAVA = "read_matrices.py", "ReadMatrices.java"


def code(language: str) -> str:
    """Return the one block of code in this language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return str(found)


def as_kcat_prints(records: Iterable[Output]) -> bytes:
    """Lay records out as kcat does with the format on the page."""
    return b"".join(
        b",".join(name.encode() + b"=" + text for name, text in record.headers)
        + b"\n"
        + len(record.value).to_bytes(4, "big")
        + record.value
        for record in records
    )


def plain_reader() -> Mapping[str, Any]:
    """Return what the Python reader defines."""
    scope: dict[str, Any] = {"__name__": "read_matrices"}
    exec(compile(code("python"), PYTHON, "exec"), scope)
    return scope


def run_python(folder: Path, stdin: bytes) -> list[str]:
    """Run the Python reader with nothing but the standard library."""
    (folder / PYTHON).write_text(code("python"), encoding="utf-8")
    words = [sys.executable, "-I", "-S", "-W", "error", folder / PYTHON]
    return _lines(words, stdin)


class JavaMatrix(NamedTuple):
    """What the Java reader says of a matrix: the CRC-32 is of ``corr`` as float32."""

    id: str
    n: int
    crc32: int
    pivot: float


def run_java(folder: Path, java: Path, stdin: bytes) -> list[JavaMatrix]:
    """Run the Java reader."""
    (folder / JAVA).write_text(code("java"), encoding="utf-8")
    found = []
    for line in _lines([java, "-Xmx512m", folder / JAVA], stdin):
        id_, n, corr, pivot = line.split(" ")
        found.append(JavaMatrix(id_, int(n[2:]), int(corr[5:], 16), float(pivot[6:])))
    return found


def crc32_of(matrix: Matrix) -> int:
    """Return what a reader of float32 should find of ``corr``."""
    return zlib.crc32(upper(matrix.corr).astype("<f4").tobytes())


def upper(square: F64) -> F64:
    """Return the triangle that travels."""
    triangle: F64 = square[np.triu_indices(len(square), 1)]
    return triangle


def square_of(read: Mapping[str, Any], correlation: Callable[..., float]) -> F64:
    """Return the matrix, entry by entry up to 50 symbols, beyond that at once."""
    n = len(read["symbols"])
    if n <= 50:
        return np.array([[correlation(read, i, j) for j in range(n)] for i in range(n)])
    square = np.eye(n)
    square[np.triu_indices(n, 1)] = read["corr"]
    return square + np.triu(square, 1).T


def _lines(words: list[Any], stdin: bytes) -> list[str]:
    done = subprocess.run(words, input=stdin, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    assert not done.stderr
    return done.stdout.decode().splitlines()
