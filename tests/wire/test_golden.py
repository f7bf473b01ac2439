"""Released bytes stay what they are, and stay readable."""

from dataclasses import fields

import numpy as np
import pytest

from stream_calib.values import Matrix, Snapshot
from stream_calib.wire.journal import decode_entry
from stream_calib.wire.matrices import decode
from stream_calib.wire.snapshots import decode_snapshot
from tests.golden import regenerate, values


@pytest.mark.parametrize("name", regenerate.golden_files())
def test_the_encoder_writes_the_released_bytes(name: str) -> None:
    assert regenerate.golden_files()[name] == regenerate.read(name)


@pytest.mark.parametrize(
    ("name", "n"),
    [("matrix_v1_json.record", 3), ("matrix_v1_packed.record.zst", regenerate.PACKED_FROM)],
)
def test_a_released_matrix_is_read_as_what_it_was(name: str, n: int) -> None:
    head, _, value = regenerate.read(name).partition(b"\n\n")
    headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
    got, expected = decode(value, headers["content-type"]), values.matrix(n)
    for field in fields(Matrix):
        if field.name not in {"corr", "n_eff", "band"}:
            assert np.array_equal(getattr(got, field.name), getattr(expected, field.name))
    corr = expected.corr if n == 3 else expected.corr.astype(np.float32)
    assert np.array_equal(got.corr, corr)


def test_a_released_journal_entry_is_read_as_what_it_was() -> None:
    assert decode_entry(regenerate.read("journal_entry_v1.json")) == values.ENTRY


def test_a_released_snapshot_is_read_as_what_it_was() -> None:
    got, expected = decode_snapshot(regenerate.read("snapshot_v1.snap")), values.SNAPSHOT
    for field in fields(Snapshot):
        if field.name != "arrays":
            assert getattr(got, field.name) == getattr(expected, field.name)
    both = [
        {name: (a.dtype, a.shape, a.tobytes()) for name, a in snapshot.arrays.items()}
        for snapshot in (got, expected)
    ]
    assert both[0] == both[1]


def test_every_golden_file_is_compared() -> None:
    names = {path.name for path in regenerate.FOLDER.iterdir() if path.is_file()}
    assert names == {"README.md", "regenerate.py", "values.py", *regenerate.golden_files()}
