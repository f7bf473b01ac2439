"""Requests for fits and their answers: back to the last bit, or refused in one sentence."""

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stream_calib.errors import InputError
from stream_calib.values import F64, Fit, FitFailure, FitRequest
from stream_calib.wire.calls import (
    PREFIX_BYTES,
    SUM_BYTES,
    checksum,
    decode_answer,
    decode_request,
    encode_answer,
    encode_request,
    frame_bytes,
    seal,
)

REQUEST = FitRequest(
    model="dcc",
    number=7,
    reason="schedule",
    as_of_ns=2**62 + 1,
    settings={"window": 1000, "names": ["A", "Ü"], "deep": {"x": 0.1, "y": None, "z": True}},
    arrays={
        "returns": np.array([[1.0, np.nan], [-0.0, 5e-324]]),
        "empty": np.empty((0, 3)),
        "number": np.array(np.pi),
    },
)
FAILURE = FitFailure("dcc", 7, "not_converged", "The gradient is 0.1 after 200 steps.")
FRAME = bytes(seal(encode_request(REQUEST)))

shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
dicts = st.dictionaries(st.text(max_size=8), hnp.arrays(np.float64, shapes), max_size=5)


def bits(arrays: "dict[str, F64] | object") -> dict[str, object]:
    assert isinstance(arrays, dict)
    return {name: (a.dtype, a.shape, a.tobytes()) for name, a in arrays.items()}


def refused(frame: bytes, sentence: str) -> None:
    for decode in (decode_request, decode_answer):
        with pytest.raises(InputError, match=sentence) as caught:
            decode(frame)
        assert "\n" not in str(caught.value)


def test_a_request_comes_back_as_it_was() -> None:
    back = decode_request(FRAME)
    assert (back.model, back.number, back.reason, back.as_of_ns, back.settings) == (
        "dcc",
        7,
        "schedule",
        2**62 + 1,
        REQUEST.settings,
    )
    assert bits(back.arrays) == bits(REQUEST.arrays)


@given(dicts)
def test_a_fit_comes_back_to_the_last_bit(arrays: dict[str, F64]) -> None:
    back = decode_answer(seal(encode_answer(Fit("garch", arrays))))
    assert isinstance(back, Fit)
    assert back.model == "garch"
    assert bits(back.arrays) == bits(arrays)


def test_a_failure_comes_back_as_it_was() -> None:
    assert decode_answer(seal(encode_answer(FAILURE))) == FAILURE


def test_arrays_in_another_order_of_memory_come_back_the_same() -> None:
    square = np.arange(12.0).reshape(3, 4)
    for array in (square.T, np.asfortranarray(square), square[::-1, ::2]):
        back = decode_answer(seal(encode_answer(Fit("m", {"x": array}))))
        assert isinstance(back, Fit)
        assert np.array_equal(back.arrays["x"], array)


def test_large_arrays_are_not_copied_into_the_frame() -> None:
    returns = np.zeros((10, 10))
    parts = encode_request(FitRequest("m", 1, "first", 0, {}, {"returns": returns}))
    returns[:] = 1.0
    assert bytes(parts[1]) == returns.tobytes()


@given(st.text(max_size=20))
def test_arrays_that_come_back_are_the_memory_of_the_frame_and_aligned(model: str) -> None:
    parts = encode_request(FitRequest(model, 1, "first", 0, {}, {"x": np.arange(9.0)}))
    frame = np.frombuffer(seal(parts), np.uint8)
    x = decode_request(frame.data).arrays["x"]
    assert np.shares_memory(x, frame)
    assert x.flags.writeable
    assert (x.ctypes.data - frame.ctypes.data) % 8 == 0


def test_the_first_bytes_tell_the_length_of_the_frame() -> None:
    assert frame_bytes(FRAME[:PREFIX_BYTES]) == len(FRAME)


def test_equal_requests_have_equal_frames() -> None:
    turned = dict(reversed(list(REQUEST.arrays.items())))
    other = FitRequest("dcc", 7, "schedule", 2**62 + 1, REQUEST.settings, turned)
    assert seal(encode_request(other)) == FRAME


@given(st.integers(0, 8 * len(FRAME) - 1))
def test_a_flipped_bit_is_found(bit: int) -> None:
    damaged = bytearray(FRAME)
    damaged[bit // 8] ^= 1 << bit % 8
    refused(bytes(damaged), "frame")


@given(st.lists(st.integers(0, len(FRAME) - SUM_BYTES), max_size=5).map(sorted))
def test_the_checksum_may_be_taken_piece_by_piece(cuts: list[int]) -> None:
    check, body = 0, FRAME[:-SUM_BYTES]
    for start, stop in zip([0, *cuts], [*cuts, len(body)], strict=True):
        check = checksum(body[start:stop], start=check)
    assert bits(decode_request(FRAME, check).arrays) == bits(REQUEST.arrays)
    with pytest.raises(InputError, match="damaged"):
        decode_request(FRAME, check ^ 1)


@given(st.integers(0, len(FRAME) - 1))
def test_a_torn_frame_is_refused(n: int) -> None:
    refused(FRAME[:n], "frame")


def test_a_frame_with_more_behind_it_is_refused() -> None:
    refused(FRAME + b"\0", "damaged")


@given(st.binary(max_size=64))
def test_garbage_reserves_no_memory(garbage: bytes) -> None:
    with pytest.raises(InputError):
        frame_bytes(garbage)
    with pytest.raises(InputError):
        frame_bytes(b"SCW1" + garbage)


def test_a_request_is_no_answer_and_an_answer_no_request() -> None:
    with pytest.raises(InputError, match="not an answer"):
        decode_answer(FRAME)
    with pytest.raises(InputError, match="not a request"):
        decode_request(seal(encode_answer(FAILURE)))


def test_arrays_that_are_not_float64_are_refused() -> None:
    with pytest.raises(ValueError, match="int64, not float64"):
        encode_answer(Fit("m", {"x": np.arange(3)}))  # type: ignore[dict-item]


def test_settings_that_are_no_json_values_are_refused() -> None:
    with pytest.raises(orjson.JSONEncodeError):
        encode_request(FitRequest("m", 1, "first", 0, {"x": object()}, {}))
