"""What is held against the output of a service finds what is missing, twice there, or torn."""

from dataclasses import replace

import pytest

from stream_calib.errors import InputError
from stream_calib.wire.matrices import encode
from tests.golden.values import matrix
from tests.kafka.killing import Record
from tests.kafka.truth import chunks, numbered


@pytest.fixture(scope="module")
def large() -> list[Record]:
    """Give three matrices of 450 symbols, as they are on the wire."""
    one = replace(matrix(450), universe="u", estimator="ewma")
    outputs = [o for k in (1, 2, 3) for o in encode(replace(one, sequence=k), "correlations", 0)]
    return [(o.key, o.value, o.headers) for o in outputs]


def test_matrices_are_counted_by_their_chunks(large: list[Record]) -> None:
    assert chunks(large) == {2: 3}


@pytest.mark.parametrize("lost", range(6))
def test_chunk_that_is_missing_is_found(large: list[Record], lost: int) -> None:
    with pytest.raises(InputError, match="torn at chunk"):
        chunks(large[:lost] + large[lost + 1 :])


def test_chunks_of_two_matrices_that_are_mixed_are_found(large: list[Record]) -> None:
    a, b, c, d = large[:4]
    with pytest.raises(AssertionError):
        numbered([a, c, b, d])


def test_matrix_that_is_missing_or_there_twice_is_found(large: list[Record]) -> None:
    assert [len(parts) for parts in numbered(large)["u|ewma"]] == [2, 2, 2]
    with pytest.raises(AssertionError):
        numbered(large[:2] + large[4:])
    with pytest.raises(AssertionError):
        numbered(large + large[:2])
    with pytest.raises(InputError, match="torn at chunk"):
        chunks(large + large[4:])
