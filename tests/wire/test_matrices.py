"""Matrices on the wire: what counts comes back, torn ones are found, decoded ones invert."""

import contextlib
import struct
import zlib
from dataclasses import fields, replace
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_calib.errors import InputError
from stream_calib.estimation.cleaning import repair_correlation
from stream_calib.values import F64, JSON_MAX_SYMBOLS, Matrix, Output, eigenvalue_floor
from stream_calib.wire import matrices
from stream_calib.wire.cloudevents import JSON_TYPE
from stream_calib.wire.matrices import PACKED_TYPE, decode, encode, join
from tests.golden.values import AS_OF_NS, matrix

SIZES = (2, 3, JSON_MAX_SYMBOLS, JSON_MAX_SYMBOLS + 1, 500)
PROMISED = {
    "schema_version", "universe", "universe_id", "estimator", "kind", "horizon_ns", "bar_ns",
    "sequence", "as_of_ns", "data_from_ns", "symbols", "pending", "corr", "vol", "vol_unit",
    "annualisation", "return_type", "price_policy", "n_eff", "band", "band_total",
    "staleness_ns", "quality", "regime", "drift_level", "model_version", "config_fingerprint",
    "software_version",
}  # fmt: skip


def encoded(value: Matrix) -> tuple[Output, ...]:
    return encode(value, "calib.correlations", 4)


def decoded(records: tuple[Output, ...]) -> Matrix:
    return join([(record.value, dict(record.headers)) for record in records])


def document_of(value: Matrix) -> dict[str, Any]:
    (record,) = encoded(value)
    document: dict[str, Any] = orjson.loads(record.value)
    return document


def with_corr(corr: F64) -> Matrix:
    return replace(matrix(len(corr)), corr=corr)


def headers_of(record: Output) -> dict[str, bytes]:
    return dict(record.headers)


# the round trip


@pytest.mark.parametrize("n", SIZES)
def test_every_field_comes_back(n: int) -> None:
    sent = matrix(n)
    got = decoded(encoded(sent))
    for field in fields(Matrix):
        if field.name not in matrices.TRIANGLES:
            before, after = getattr(sent, field.name), getattr(got, field.name)
            assert np.array_equal(before, after), field.name


@pytest.mark.parametrize("n", [2, 3, JSON_MAX_SYMBOLS])
def test_json_keeps_every_digit_of_a_correlation(n: int) -> None:
    noise = np.random.default_rng(n).uniform(-1.0, 1.0, (n, n))
    corr = (noise + noise.T) / 2.0
    np.fill_diagonal(corr, 1.0)
    vol = np.random.default_rng(n).lognormal(-9.0, 3.0, n)
    got = decoded(encoded(replace(with_corr(corr), vol=vol)))
    assert got.corr.tobytes() == corr.tobytes()
    assert got.vol.tobytes() == vol.tobytes()


@pytest.mark.parametrize("n", [JSON_MAX_SYMBOLS + 1, 500])
def test_packed_correlations_are_the_nearest_float32(n: int) -> None:
    sent = matrix(n)
    got = decoded(encoded(sent))
    assert got.corr.tobytes() == sent.corr.astype(np.float32).astype(np.float64).tobytes()
    assert got.vol.tobytes() == sent.vol.tobytes()  # in the head, with every digit


@pytest.mark.parametrize("n", SIZES)
def test_precision_figures_are_rounded_to_what_they_are_worth(n: int) -> None:
    sent = matrix(n)
    got = decoded(encoded(sent))
    upper = np.triu_indices(n, 1)
    # half of the last decimal kept, and half an ulp of float32 above 200 symbols
    ulp = 2.0**-24 if n > JSON_MAX_SYMBOLS else 2.0**-53
    assert np.abs(got.n_eff - sent.n_eff)[upper].max() <= 0.05 + 66.0 * ulp
    assert np.abs(got.band - sent.band)[upper].max() <= 0.000005 + ulp


@pytest.mark.parametrize("n", SIZES)
def test_decoded_squares_are_symmetric_with_their_diagonals(n: int) -> None:
    got = decoded(encoded(matrix(n)))
    for square in (got.corr, got.n_eff, got.band):
        assert square.tobytes() == square.T.tobytes()
    assert (np.diagonal(got.corr) == 1.0).all()
    assert (np.diagonal(got.band) == 0.0).all()
    assert np.isnan(np.diagonal(got.n_eff)).all()  # a symbol's own is not sent


def test_a_matrix_of_any_size_can_be_written_as_json() -> None:
    sent = matrix(JSON_MAX_SYMBOLS + 50)
    assert decode(matrices.to_json(sent)).corr.tobytes() == sent.corr.tobytes()


# what a reader in another language relies on


@pytest.mark.parametrize("n", [2, 5, 30])
def test_an_entry_stands_where_the_formula_says(n: int) -> None:
    corr = np.eye(n)
    upper = np.triu_indices(n, 1)
    corr[upper] = corr.T[upper] = np.linspace(-0.5, 0.5, len(upper[0]))
    triangle = document_of(with_corr(corr))["corr"]
    assert len(triangle) == n * (n - 1) // 2
    for i in range(n):
        for j in range(i + 1, n):
            assert triangle[i * n - i * (i + 1) // 2 + j - i - 1] == corr[i, j]


def test_packed_bytes_read_as_the_module_describes_them() -> None:
    sent = matrix(500)
    blob = b"".join(record.value for record in encoded(sent))
    assert blob[:4] == b"SCM1"
    (size,) = struct.unpack("<I", blob[4:8])
    assert size % 4 == 0
    head = orjson.loads(blob[8 : 8 + size])
    assert set(head) == PROMISED - set(matrices.TRIANGLES)
    entries = 500 * 499 // 2
    assert len(blob) == 8 + size + 3 * 4 * entries
    upper = np.triu_indices(500, 1)
    for k, name in enumerate(matrices.TRIANGLES):
        start = 8 + size + 4 * entries * k
        triangle = struct.unpack(f"<{entries}f", blob[start : start + 4 * entries])
        # rounding to decimals comes first, then half an ulp of float32
        assert np.abs(np.array(triangle) - getattr(sent, name)[upper]).max() < 0.0501


def test_every_promised_field_is_in_the_json() -> None:
    document = document_of(matrix(3))
    assert set(document) == PROMISED
    assert set(document["quality"]) == {
        "min_eigenvalue", "repair", "capped_pairs", "cleaned", "degraded",
    }  # fmt: skip
    assert set(document["regime"]) == {"average_correlation", "top_eigenvalue_share"}


def test_nothing_but_what_is_unknown_is_null() -> None:
    document = document_of(matrix(3))
    assert {name for name, value in document.items() if value is None} == {
        "band_total",
        "drift_level",
    }
    for name in ("corr", "vol", "n_eff", "band"):
        assert all(isinstance(number, float) for number in document[name])


def test_times_are_text_because_a_double_cannot_hold_them() -> None:
    document = document_of(matrix(3))
    assert document["as_of_ns"] == str(AS_OF_NS)
    for name, value in document.items():
        if name.endswith("_ns"):
            texts = value if isinstance(value, list) else [value]
            assert all(isinstance(text, str) and text.isdigit() for text in texts), name


def test_the_headers_are_a_cloud_event_with_sequence_chunk_and_checksum() -> None:
    (record,) = encoded(matrix(3))
    assert record.key == b"fx|ewma"
    assert (record.topic, record.partition) == ("calib.correlations", 4)
    assert headers_of(record) == {
        "ce_specversion": b"1.0",
        "ce_id": b"fx|ewma|7",
        "ce_source": b"/stream-calib/fx",
        "ce_type": b"stream_calib.matrix.v1",
        "ce_time": b"2023-11-14T22:13:20.123456789Z",
        "content-type": b"application/json",
        "crc32": f"{zlib.crc32(record.value):08x}".encode(),
        "sequence": b"7",
        "chunk": b"1/1",
    }


def test_the_same_matrix_gives_the_same_bytes() -> None:
    for n in (3, 201):
        assert encoded(matrix(n)) == encoded(matrix(n))


# size


def test_the_largest_json_stays_under_the_chunk_size() -> None:
    n = JSON_MAX_SYMBOLS
    rng = np.random.default_rng(1)
    # seventeen digits, a sign and an exponent wherever there can be
    corr = -rng.uniform(1e-6, 1e-5, (n, n))
    corr = (corr + corr.T) / 2.0
    np.fill_diagonal(corr, 1.0)
    n_eff = rng.uniform(1e5, 1e6, (n, n))
    band = rng.uniform(0.1, 1.0, (n, n))
    name = "BINANCE_DELIVERY:1000SHIB-USDT-PERP-{}"
    sent = replace(
        with_corr(corr), n_eff=n_eff, band=band, symbols=tuple(map(name.format, range(n)))
    )
    (record,) = encoded(sent)
    assert len(record.value) < 900_000


def test_matrices_change_to_packed_above_the_json_limit() -> None:
    types = {
        n: headers_of(encoded(matrix(n))[0])["content-type"].decode()
        for n in (JSON_MAX_SYMBOLS, JSON_MAX_SYMBOLS + 1)
    }
    assert [*types.values()] == [JSON_TYPE, PACKED_TYPE]


@pytest.mark.parametrize(("n", "chunks"), [(201, 1), (380, 1), (390, 2), (700, 4)])
def test_a_large_matrix_is_cut_into_chunks_that_fit(n: int, chunks: int) -> None:
    records = encoded(matrix(n))
    assert len(records) == chunks
    assert all(0 < len(record.value) <= 900_000 for record in records)
    keys = [record.key.decode() for record in records]
    assert keys == (["fx|ewma"] if chunks == 1 else [f"fx|ewma|{i}" for i in range(chunks)])
    assert [headers_of(record)["chunk"].decode() for record in records] == [
        f"{i + 1}/{chunks}" for i in range(chunks)
    ]
    assert {headers_of(record)["ce_id"] for record in records} == {b"fx|ewma|7"}
    assert decoded(records).symbols == matrix(n).symbols


# damage


def test_torn_matrices_are_found() -> None:
    whole, other = encoded(matrix(500)), encoded(replace(matrix(500), sequence=8))
    assert len(whole) == 2
    first, second = whole
    flipped = bytes([*second.value[:-1], second.value[-1] ^ 1])
    damaged = replace(second, value=flipped)
    torn = {
        "a chunk missing at the end": [first],
        "a chunk missing at the start": [second],
        "in the wrong order": [second, first],
        "a chunk twice": [first, first],
        "a chunk too many": [first, second, second],
        "chunks of two matrices": [first, other[1]],
        "a bit flipped": [first, damaged],
    }
    for case, records in torn.items():
        with pytest.raises(InputError, match=r"^matrix fx\|ewma\|[78] is torn at chunk [12]$"):
            pytest.fail(f"{case}: {decoded(tuple(records)).sequence}")


def test_a_chunk_without_headers_is_torn() -> None:
    (record,) = encoded(matrix(3))
    with pytest.raises(InputError, match=r"^matrix \? is torn at chunk 1$"):
        join([(record.value, {})])


@pytest.mark.parametrize("n", [3, 201])
def test_a_schema_version_not_known_here_is_refused_in_one_sentence(n: int) -> None:
    (record,) = encoded(matrix(n))
    newer = record.value.replace(b'"schema_version":1', b'"schema_version":2')
    content_type = headers_of(record)["content-type"].decode()
    with pytest.raises(InputError, match=r"^matrix has schema_version 2, this reader knows 1$"):
        decode(newer, content_type)


def test_every_missing_field_is_an_input_error() -> None:
    document = document_of(matrix(3))
    for name in document:
        if name in {"band_total"}:  # a later estimator fills it
            continue
        rest = {key: value for key, value in document.items() if key != name}
        with pytest.raises(InputError, match=r"^not a correlation matrix"):
            decode(orjson.dumps(rest))


@pytest.mark.parametrize("name", ["corr", "n_eff", "band", "vol", "staleness_ns"])
@pytest.mark.parametrize("length", [0, 1, 2, 4])
def test_a_column_of_the_wrong_length_is_an_input_error(name: str, length: int) -> None:
    document = document_of(matrix(3))  # three symbols have three pairs
    document[name] = ["1"] * length if name == "staleness_ns" else [0.5] * length
    with pytest.raises(InputError, match=r"^not a correlation matrix"):
        decode(orjson.dumps(document))


def test_a_list_of_symbols_without_their_numbers_is_an_input_error() -> None:
    document = document_of(matrix(3))
    document["symbols"] = [""] * 200_000  # their square would not fit into memory
    with pytest.raises(InputError, match=r"^not a correlation matrix"):
        decode(orjson.dumps(document))


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(2**63), 2**64 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
DOCUMENT = document_of(matrix(3))


@given(st.sampled_from([*DOCUMENT]), json_values | st.just(["9" * 30] * 3))
def test_a_field_of_any_other_kind_is_read_or_an_input_error(name: str, value: object) -> None:
    with contextlib.suppress(InputError):
        got = decode(orjson.dumps(DOCUMENT | {name: value}))
        assert got.corr.shape == (len(got.symbols), len(got.symbols))


@given(st.binary(max_size=100), st.sampled_from([JSON_TYPE, PACKED_TYPE]), st.booleans())
def test_no_bytes_are_taken_for_a_matrix(junk: bytes, content_type: str, magic: bool) -> None:
    with pytest.raises(InputError):
        decode(b"SCM1" * magic + junk, content_type)


PACKED = encoded(matrix(201))[0].value


@given(st.integers(0, len(PACKED) - 1))
def test_a_packed_matrix_cut_anywhere_is_an_input_error(length: int) -> None:
    with pytest.raises(InputError):
        decode(PACKED[:length], PACKED_TYPE)


# positive definite as decoded


def all_alike(n: int) -> F64:
    return np.ones((n, n))


def three_factors(n: int) -> F64:
    loading = np.random.default_rng(n).normal(size=(n, 3))
    loading /= np.linalg.norm(loading, axis=1)[:, None]
    corr = np.clip(loading @ loading.T, -1.0, 1.0)
    np.fill_diagonal(corr, 1.0)
    return (corr + corr.T) / 2.0


def indefinite(n: int) -> F64:
    noise = np.random.default_rng(n).normal(size=(n, n))
    corr = np.clip(three_factors(n) + 0.1 * (noise + noise.T), -1.0, 1.0)
    np.fill_diagonal(corr, 1.0)
    return corr


@pytest.mark.parametrize("n", [10, 100, 200, 201, 500])
@pytest.mark.parametrize("make", [all_alike, three_factors, indefinite])
def test_a_repaired_matrix_is_positive_definite_as_decoded(make: Any, n: int) -> None:
    corr = make(n)
    assert np.linalg.eigvalsh(corr)[0] < eigenvalue_floor(n) / 2.0  # there is something to repair
    repaired = repair_correlation(corr, eigenvalue_floor(n))
    got = decoded(encoded(with_corr(repaired.corr)))
    np.linalg.cholesky(got.corr)
    # what rounding to float32 can take from the floor: 4 sqrt(n) 2^-24; doubles lose nothing, but
    # eigenvalues of size n are computed to n ulps
    lost = 4.0 * np.sqrt(n) * 2.0**-24 if n > JSON_MAX_SYMBOLS else n * 1e-14
    assert np.linalg.eigvalsh(got.corr)[0] >= eigenvalue_floor(n) - lost


@pytest.mark.parametrize("n", [3, JSON_MAX_SYMBOLS + 1])
def test_a_total_band_comes_back_once_it_is_known(n: int) -> None:
    known = np.round(np.random.default_rng(n).uniform(0.0, 1.0, (n, n)), 5)
    known = np.triu(known, 1) + np.triu(known, 1).T
    got = decoded(encoded(replace(matrix(n), band_total=known)))
    assert got.band_total is not None
    packed = n > JSON_MAX_SYMBOLS
    assert np.array_equal(got.band_total, known.astype(np.float32) if packed else known)
