"""The readers on the page: a stranger's code on golden bytes, on chunks, and on torn ones."""

import dataclasses
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from stream_calib.values import Matrix, Output
from stream_calib.wire.matrices import CHUNK_BYTES, encode
from tests.deploy.readers import (
    PAGE,
    as_kcat_prints,
    code,
    crc32_of,
    plain_reader,
    run_java,
    run_python,
    square_of,
    upper,
)
from tests.golden import regenerate
from tests.golden.values import matrix

TOPIC = "calib.correlations"
N_TORN = 600  # three chunks
LINES_MAX = 45  # of a reader that a stranger would still copy


def golden(name: str) -> Output:
    head, _, value = regenerate.read(name).partition(b"\n\n")
    key, *rest = [line.split(": ", 1) for line in head.decode().splitlines()]
    return Output(TOPIC, 0, key[1].encode(), value, tuple((n, t.encode()) for n, t in rest))


GOLDEN = [
    (golden("matrix_v1_json.record"), matrix(3)),
    (golden("matrix_v1_packed.record.zst"), matrix(regenerate.PACKED_FROM)),
]


def numbered(sequence: int, n: int = N_TORN) -> list[Output]:
    wide: Matrix = dataclasses.replace(matrix(n), sequence=sequence)
    return list(encode(wide, TOPIC, 0))


def test_the_python_reader_gives_the_golden_matrices() -> None:
    reader = plain_reader()
    stream = io.BytesIO(as_kcat_prints(record for record, _ in GOLDEN))
    for read, (_, expected) in zip(reader["matrices"](stream), GOLDEN, strict=True):
        assert read["symbols"] == list(expected.symbols)
        assert np.float32(read["corr"]).tobytes() == np.float32(upper(expected.corr)).tobytes()
        # these are rounded when they are written, to one digit and to five
        np.testing.assert_allclose(read["n_eff"], upper(expected.n_eff), atol=0.051, rtol=1e-7)
        np.testing.assert_allclose(read["band"], upper(expected.band), atol=6e-6, rtol=1e-7)
        found = square_of(read, reader["correlation"])
        np.linalg.cholesky(found)
        np.testing.assert_allclose(found, expected.corr, rtol=6e-8)  # half an ulp of float32


def test_the_python_reader_needs_nothing_that_is_installed(tmp_path: Path) -> None:
    lines = run_python(tmp_path, as_kcat_prints(record for record, _ in GOLDEN))
    assert lines == ["fx 7 SIM:0 SIM:1 0.5"] * 2


def test_the_java_reader_gives_the_golden_matrices(
    tmp_path: Path, require_binary: Callable[[str], Path]
) -> None:
    records = [*(record for record, _ in GOLDEN), *numbered(8)]
    expected = [*(own for _, own in GOLDEN), matrix(N_TORN)]
    found = run_java(tmp_path, require_binary("java"), as_kcat_prints(records))
    assert [(m.n, m.crc32) for m in found] == [(len(m.symbols), crc32_of(m)) for m in expected]
    assert all(0.0 < m.pivot < 1.0 for m in found)


TEARS: dict[str, Callable[[Sequence[Output], Sequence[Output]], list[Output]]] = {
    "first chunk lost": lambda a, b: [*a[1:], *b],
    "middle chunk lost": lambda a, b: [a[0], a[2], *b],
    "last chunk lost": lambda a, b: [*a[:2], *b],
    "chunks of two matrices": lambda a, b: [a[0], b[1], b[2], *b],
    "a chunk damaged": lambda a, b: [
        a[0],
        dataclasses.replace(a[1], value=b"\1" + a[1].value[1:]),
        a[2],
        *b,
    ],
    "compacted: a chunk of a wider one before": lambda a, b: [a[2], *b],
}


@pytest.mark.parametrize("tear", TEARS.values(), ids=TEARS)
def test_torn_matrices_are_passed_over(tear: Callable[..., list[Output]]) -> None:
    first, second = numbered(7), numbered(8)
    assert len(first) == 3
    stream = io.BytesIO(as_kcat_prints(tear(first, second)))
    assert [read["sequence"] for read in plain_reader()["matrices"](stream)] == [8]


def test_torn_matrices_are_passed_over_in_java(
    tmp_path: Path, require_binary: Callable[[str], Path]
) -> None:
    records: list[Output] = []
    for k, tear in enumerate(TEARS.values()):
        records += tear(numbered(10 * k + 1), numbered(10 * k + 2))
    found = run_java(tmp_path, require_binary("java"), as_kcat_prints(records))
    assert [m.id for m in found] == [f"fx|ewma|{10 * k + 2}" for k in range(len(TEARS))]


def test_the_chunks_of_two_universes_may_be_mixed() -> None:
    one = numbered(7)
    other = list(encode(dataclasses.replace(matrix(N_TORN), universe="other"), TOPIC, 1))
    mixed = [record for pair in zip(one, other, strict=True) for record in pair]
    stream = io.BytesIO(as_kcat_prints(mixed))
    assert [read["universe"] for read in plain_reader()["matrices"](stream)] == ["fx", "other"]


def test_the_page_says_how_large_a_matrix_is() -> None:
    records = encode(matrix(1500), TOPIC, 0)
    size = sum(len(record.value) for record in records)
    assert f"is {size / 1e6:.1f} MB in {len(records)} chunks of at most {CHUNK_BYTES:,}" in PAGE


def test_the_python_reader_is_short() -> None:
    assert len([line for line in code("python").splitlines() if line.strip()]) <= LINES_MAX
