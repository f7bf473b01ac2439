"""Fits on the wire: to the last bit, in chunks that belong together."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stream_calib.errors import InputError
from stream_calib.values import Fit
from stream_calib.wire.fits import CHUNK_BYTES, decode_fit, encode_fit

SMALL = Fit("dcc", {"target": np.array([[1.0, 0.5], [0.5, 1.0]]), "a": np.array(0.05)})
LARGE = Fit("dcc", {"target": np.arange(500.0 * 500.0).reshape(500, 500)})

arrays = st.dictionaries(
    st.text(max_size=5), hnp.arrays(np.float64, hnp.array_shapes(min_dims=0, min_side=0))
)


def values(fit: Fit) -> tuple[str, list[bytes]]:
    name, outputs = encode_fit(fit, "calib.fits", 3, "fx")
    return name, [output.value for output in outputs]


@given(st.text(), arrays)
def test_a_fit_comes_back_to_the_last_bit(model: str, content: dict[str, np.ndarray]) -> None:
    name, chunks = values(Fit(model, content))
    back = decode_fit(chunks, name)
    assert back.model == model
    assert back.arrays.keys() == content.keys()
    for key, array in content.items():
        assert back.arrays[key].shape == array.shape
        assert back.arrays[key].tobytes() == array.tobytes()
        assert back.arrays[key].flags.writeable


def test_odd_numbers_keep_their_bits() -> None:
    odd = np.array([0x7FF8_0000_0000_0001, 0xFFF0_0000_0000_0000, 1 << 63, 1], np.uint64)
    name, chunks = values(Fit("m", {"odd": odd.view(np.float64)}))
    assert decode_fit(chunks, name).arrays["odd"].view(np.uint64).tolist() == odd.tolist()


def test_every_layout_in_memory_gives_the_same_bytes() -> None:
    square = np.arange(12.0).reshape(3, 4)
    turned = np.asfortranarray(square)
    assert values(Fit("m", {"x": square})) == values(Fit("m", {"x": turned}))


def test_a_large_fit_travels_in_chunks_named_by_its_content() -> None:
    name, outputs = encode_fit(LARGE, "calib.fits", 3, "fx")
    assert len(outputs) == 3
    assert max(len(output.value) for output in outputs) == CHUNK_BYTES == 900_000
    assert [output.key.decode() for output in outputs] == [f"fx|{name}|{i}" for i in range(3)]
    assert [dict(output.headers)["chunk"] for output in outputs] == [b"1/3", b"2/3", b"3/3"]
    assert {(output.topic, output.partition) for output in outputs} == {("calib.fits", 3)}


def test_a_hash_is_of_the_content_alone() -> None:
    assert encode_fit(SMALL, "a", 0, "fx")[0] == encode_fit(SMALL, "b", 1, "rates")[0]
    turned = Fit("dcc", dict(reversed(list(SMALL.arrays.items()))))
    assert values(turned) == values(SMALL)
    assert values(Fit("adcc", SMALL.arrays))[0] != values(SMALL)[0]
    assert values(SMALL)[0] == "92606cbffa6da17a922af75e55b3d302"  # in every process


def test_chunks_that_do_not_belong_together_are_refused_in_one_sentence() -> None:
    name, chunks = values(LARGE)
    other = values(Fit("dcc", {"target": LARGE.arrays["target"] + 1.0}))[1]
    torn: tuple[list[bytes], ...] = (
        [],
        chunks[:2],
        chunks[::-1],
        [*chunks, b"x"],
        [*chunks, chunks[0]],
        [*chunks[:2], other[2]],
    )
    for wrong in torn:
        with pytest.raises(InputError, match=f"^fit {name} is torn or damaged: its [0-9] chunks"):
            decode_fit(wrong, name)


def test_no_flipped_bit_goes_unseen() -> None:
    name, (chunk,) = values(SMALL)
    for place in range(8 * len(chunk)):
        damaged = bytearray(chunk)
        damaged[place // 8] ^= 1 << place % 8
        with pytest.raises(InputError, match="torn or damaged"):
            decode_fit([bytes(damaged)], name)


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"SCF1",
        b"SCF1\xff\xff\xff\xff{}",
        b"SCF1\x02\0\0\0{}",
        b"SCF1\x02\0\0\0[]",
        b'XXXX\x19\0\0\0{"model":"m","arrays":[]}',
        b'SCF1\x19\0\0\0{"model":"m","arrays":[]}rest',
        b'SCF1\x19\0\0\0{"model":"m","arrays":[1]}',
    ],
)
def test_what_is_no_fit_is_refused_even_under_its_own_hash(junk: bytes) -> None:
    with pytest.raises(InputError, match=r"^not a fit"):
        decode_fit([junk], hashlib.blake2b(junk, digest_size=16).hexdigest())


@pytest.mark.parametrize("dtype", [np.float32, np.int64, object])
def test_only_float64_is_a_fit(dtype: type) -> None:
    with pytest.raises(ValueError, match="not float64"):
        encode_fit(Fit("m", {"x": np.zeros(2, dtype)}), "t", 0, "fx")
