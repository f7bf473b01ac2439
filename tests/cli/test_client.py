"""How a subscriber puts records back together; on a real broker in tests/kafka/test_service.py."""

import dataclasses
import zlib
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest

from stream_calib.client.assembly import Assembly
from stream_calib.errors import InputError
from stream_calib.values import Matrix, Output
from stream_calib.wire.matrices import encode
from tests.web.observations import matrix

TOPIC = "calib.correlations"


def wide(sequence: int) -> Matrix:
    """Return a matrix that takes several chunks."""
    n = 600
    return dataclasses.replace(
        matrix(sequence=sequence),
        symbols=tuple(f"S{i}" for i in range(n)),
        corr=np.eye(n),
        n_eff=np.full((n, n), 50.0),
        band=np.zeros((n, n)),
        vol=np.full(n, float(sequence)),
        staleness_ns=np.zeros(n, np.int64),
    )


def records(*matrices: Matrix, partition: int = 0) -> list[Output]:
    return [output for m in matrices for output in encode(m, TOPIC, partition)]


def read(
    outputs: Sequence[Output | None], universe: str | None = None, estimator: str | None = None
) -> list[tuple[str, int]]:
    """Return universe and sequence of what comes out; None is a deleted key."""
    assembly = Assembly(universe, estimator)
    found = []
    for offset, output in enumerate(outputs):
        at = {"topic": TOPIC, "offset": offset, "partition": output.partition if output else 0}
        value, key, headers = (output.value, output.key, output.headers) if output else (None,) * 3
        done = assembly.add(SimpleNamespace(value=value, key=key, headers=headers, **at))
        if done is not None:
            found.append((done.universe, done.sequence))
    return found


def test_chunks_are_put_together_whatever_comes_between() -> None:
    first, second = records(wide(1)), records(wide(2))
    assert len(first) == 3
    other = records(matrix("other", 9))
    elsewhere = records(wide(5), partition=1)
    mixed = [first[0], elsewhere[0], *other, first[1], *elsewhere[1:], None, first[2], *second]
    assert read(mixed) == [("other", 9), ("fx", 5), ("fx", 1), ("fx", 2)]


@pytest.mark.parametrize("lost", [[0], [1], [2], [0, 1], [1, 2], [0, 1, 2]])
def test_matrix_that_has_lost_a_chunk_is_passed_over(lost: list[int]) -> None:
    torn = [chunk for i, chunk in enumerate(records(wide(2))) if i not in lost]
    assert read([*records(wide(1)), *torn, *records(wide(3))]) == [("fx", 1), ("fx", 3)]


def test_chunks_of_two_matrices_are_never_mixed() -> None:
    first, second = records(wide(1)), records(wide(2))
    assert read([first[0], second[1], second[2]]) == []
    assert read([first[0], first[1], second[2]]) == []


def test_only_what_is_asked_for_comes() -> None:
    mixed = records(matrix("a", 1), matrix("b", 2), matrix("b", 3, "dcc"))
    assert read(mixed, universe="b") == [("b", 2), ("b", 3)]
    assert read(mixed, estimator="ewma") == [("a", 1), ("b", 2)]
    assert read(mixed, "b", "dcc") == [("b", 3)]
    assert read(mixed, "c") == []


@pytest.mark.parametrize(
    ("key", "headers"),
    [
        (b"SIM:A", ()),
        (b"fx|ewma", ()),
        (b"fx|ewma", (("chunk", b"one"),)),
        (b"|", (("chunk", b"1/1"),)),
        (b"", (("chunk", b"1/1"),)),
        (b"fx|ewma", (("chunk", b"1/1"),)),
        (b"fx|ewma", (("chunk", b"1/1"), ("sequence", b"seven"))),
    ],
)
def test_record_of_somebody_else_is_named(
    key: bytes, headers: tuple[tuple[str, bytes], ...]
) -> None:
    stranger = Output(TOPIC, 0, key, b"{}", headers)
    with pytest.raises(InputError, match=f"record 1 of topic '{TOPIC}' partition 0 is not"):
        read([*records(matrix()), stranger])


def test_damaged_matrix_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    (good,) = records(matrix())
    damaged = dataclasses.replace(good, value=good.value.replace(b"0.5", b"0.6", 1))
    assert read([damaged, *records(matrix(sequence=8))]) == [("fx", 8)]
    assert [message for *_, message in caplog.record_tuples] == [
        f"fx|ewma: matrix 7 has lost a part, or is damaged (topic {TOPIC!r} partition 0 offset 0)"
    ]


def test_matrix_of_a_later_version_is_an_error() -> None:
    (good,) = records(matrix())
    value = good.value.replace(b'"schema_version":1', b'"schema_version":9')
    headers = dict(good.headers) | {"crc32": b"%08x" % zlib.crc32(value)}
    later = dataclasses.replace(good, value=value, headers=tuple(headers.items()))
    with pytest.raises(InputError, match="schema_version 9"):
        read([later])
