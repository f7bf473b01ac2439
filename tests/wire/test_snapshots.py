"""Snapshots on the wire: whole and unchanged, or refused in one sentence."""

import hashlib
import struct
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stream_calib.errors import InputError
from stream_calib.values import Snapshot
from stream_calib.wire.snapshots import (
    decode_snapshot,
    digest_state,
    encode_snapshot,
    read_head,
)
from tests.golden.values import SNAPSHOT

BYTES = encode_snapshot(SNAPSHOT)
HEAD_BYTES = struct.unpack_from("<I", BYTES, 4)[0]

dtypes = st.sampled_from(["?", "u1", "<i8", "<u8", "<f8", "<f4", "<i4"]).map(np.dtype)
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
states = st.dictionaries(st.text(max_size=8), hnp.arrays(dtypes, shapes), max_size=5)


def same(one: Snapshot, other: Snapshot) -> bool:
    names = [field.name for field in fields(Snapshot) if field.name != "arrays"]
    arrays = [
        {k: (a.dtype, a.shape, a.tobytes()) for k, a in s.arrays.items()} for s in (one, other)
    ]
    return arrays[0] == arrays[1] and all(getattr(one, n) == getattr(other, n) for n in names)


def sealed(blob: bytes) -> bytes:
    """Bytes with the checksum they ought to have."""
    return blob + hashlib.sha256(blob).digest()


def with_head(change: Callable[[dict[str, Any]], object]) -> bytes:
    """The snapshot with another head and a right checksum."""
    document = orjson.loads(BYTES[8 : 8 + HEAD_BYTES])
    change(document)
    head = orjson.dumps(document)
    payload = BYTES[8 + HEAD_BYTES : -32]
    return sealed(b"SCS1" + struct.pack("<I", len(head)) + head + payload)


def refused(value: bytes, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        decode_snapshot(value)
    assert "\n" not in str(caught.value)


@given(states)
def test_a_snapshot_comes_back_as_it_was(arrays: dict[str, np.ndarray]) -> None:
    snapshot = replace(SNAPSHOT, arrays=arrays)
    back = decode_snapshot(encode_snapshot(snapshot))
    assert same(back, snapshot)
    assert all(array.flags.writeable for array in back.arrays.values())


def test_a_snapshot_has_the_same_bytes_in_every_process() -> None:
    assert BYTES[:4] == b"SCS1"
    assert hashlib.sha256(BYTES[:-32]).digest() == BYTES[-32:]
    turned = replace(SNAPSHOT, arrays=dict(reversed(list(SNAPSHOT.arrays.items()))))
    assert encode_snapshot(turned) == BYTES
    assert digest_state(SNAPSHOT.arrays) == "d3ae86ea7030b3f6ad04e1ef70fd8ff1"


def test_the_head_can_be_read_alone() -> None:
    head = read_head(BYTES)
    assert (head["format_version"], head["universe"], head["number"]) == (1, "fx", 12)
    assert head["settings"] == SNAPSHOT.settings
    assert [entry["name"] for entry in head["arrays"]] == sorted(SNAPSHOT.arrays)
    assert head["arrays"][-1] == {"name": "c.square", "dtype": "<f8", "shape": [2, 2], "offset": 19}
    assert read_head(BYTES[: 8 + HEAD_BYTES]) == head
    with pytest.raises(InputError, match="head cannot be read"):
        read_head(BYTES[: 7 + HEAD_BYTES])


def test_no_flipped_bit_goes_unseen() -> None:
    for place in range(8 * len(BYTES)):
        damaged = bytearray(BYTES)
        damaged[place // 8] ^= 1 << place % 8
        refused(bytes(damaged), "snapshot")


def test_a_snapshot_cut_anywhere_is_refused() -> None:
    for length in range(len(BYTES)):
        refused(BYTES[:length], "snapshot")


@pytest.mark.parametrize("junk", [b"\0", b"x" * 32, BYTES])
def test_a_snapshot_with_something_behind_it_is_refused(junk: bytes) -> None:
    refused(BYTES + junk, "^the snapshot is damaged: its checksum")


def test_nothing_is_no_snapshot() -> None:
    refused(b"", "^the snapshot is empty$")
    refused(bytes(100), r"^not a snapshot \(no SCS1 at the start\)$")


@given(st.binary(max_size=100))
def test_no_bytes_are_taken_for_a_snapshot(junk: bytes) -> None:
    for value in (junk, b"SCS1" + junk, sealed(b"SCS1" + junk)):
        with pytest.raises(InputError):
            decode_snapshot(value)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_a_snapshot_of_another_format_is_refused(version: object) -> None:
    value = with_head(lambda head: head.update(format_version=version))
    refused(value, f"^snapshot has format_version {version}, this reader knows 1$")


@pytest.mark.parametrize(
    "change",
    [
        lambda head: head.pop("chain"),
        lambda head: head.pop("arrays"),
        lambda head: head["arrays"].pop(),
        lambda head: head["arrays"][0].update(dtype="|O"),
        lambda head: head["arrays"][0].update(dtype="nonsense"),
        lambda head: head["arrays"][0].update(dtype=">i8"),
        lambda head: head["arrays"][0].update(shape=[3]),
        lambda head: head["arrays"][0].update(shape=[-1]),
        lambda head: head["arrays"][0].update(shape=["2"]),
        lambda head: head["arrays"][0].update(offset=1),
        lambda head: head["arrays"][-1].update(shape=[2, 3]),
        lambda head: head.update(arrays=5),
        lambda head: head.update(arrays=[5]),
    ],
)
def test_a_head_that_lies_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    refused(with_head(change), "^not a snapshot")


@pytest.mark.parametrize(
    "array", [np.array([None]), np.array(["text"]), np.array([b"x"]), np.array(["2020"], "M8[D]")]
)
def test_only_numbers_are_state(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="not numbers"):
        encode_snapshot(replace(SNAPSHOT, arrays={"x": array}))


def test_a_digest_sees_names_dtypes_shapes_and_bytes() -> None:
    zeros = np.zeros(4, np.int64)
    digests = [
        digest_state(arrays)
        for arrays in (
            {},
            {"a": zeros},
            {"b": zeros},
            {"a": zeros.reshape(2, 2)},
            {"a": zeros.view(np.float64)},
            {"a": zeros, "b": zeros[:0]},
            {"a": zeros[:2], "b": zeros[2:]},
            {"a": np.array([0, 0, 0, 1])},
        )
    ]
    assert len(set(digests)) == len(digests)
    assert {len(digest) for digest in digests} == {32}
    assert digest_state({"a": zeros, "b": zeros}) == digest_state({"b": zeros, "a": zeros})
