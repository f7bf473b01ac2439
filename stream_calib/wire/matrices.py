"""Matrices on the wire: JSON up to 200 symbols, packed float32 in chunks above.

JSON carries every digit of ``corr`` and ``vol``; ``n_eff`` and ``band``, estimates of precision
themselves, are rounded. Triangles are the upper one, row by row, without the diagonal: the
entry (i, j > i) of n symbols stands at ``i n - i (i + 1) / 2 + j - i - 1``. Times are text.

Packed: ``SCM1``, the length of the head (u32), the head (JSON, padded with spaces to a
multiple of 4), then float32 triangles of ``corr``, ``n_eff`` and ``band``, and of ``band_total``
where it is known (in the head it is null), all little-endian.
Above 900 kB the bytes are cut into chunks with keys ``<universe>|<estimator>|<chunk>``.
"""

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import orjson

from stream_calib.errors import InputError
from stream_calib.values import F64, JSON_MAX_SYMBOLS, Matrix, Output, Quality, Regime
from stream_calib.wire.cloudevents import JSON_TYPE, headers

PACKED_TYPE = "application/vnd.stream-calib.tri-f32"
MAGIC = b"SCM1"
CHUNK_BYTES = 900_000
SCHEMA_VERSION = 1
TRIANGLES = ("corr", "n_eff", "band")
_TIMES = ("as_of_ns", "data_from_ns", "horizon_ns", "bar_ns")
_ABSENT = ("audit", "base_currency")  # where there is none
_PLAIN = tuple(
    field.name
    for field in fields(Matrix)
    if field.name
    not in {*TRIANGLES, *_TIMES, *_ABSENT, "vol", "staleness_ns", "quality", "regime", "band_total"}
)
_OPTIONAL = ("raw_variances", "floored_variances")  # absent where they do not apply
_SUMMARIES = ("effective_bets", "crisis_distance")  # absent where they are not known


def encode(matrix: Matrix, topic: str, partition: int) -> tuple[Output, ...]:
    """Turn a matrix into the records that carry it.

    Returns
    -------
    tuple of Output
        One record, or the chunks of one matrix in order.
    """
    key = f"{matrix.universe}|{matrix.estimator}"
    if len(matrix.symbols) <= JSON_MAX_SYMBOLS:
        return (_output(matrix, topic, partition, key, to_json(matrix), JSON_TYPE, "1/1"),)
    head = orjson.dumps(matrix_head(matrix), option=orjson.OPT_SERIALIZE_NUMPY)
    head += b" " * (-len(head) % 4)
    blob = MAGIC + struct.pack("<I", len(head)) + head
    triangles = list(_triangles(matrix))
    if matrix.band_total is not None:
        triangles.append(_rounded(matrix.band_total))
    blob += b"".join(triangle.astype("<f4").tobytes() for triangle in triangles)
    parts = [blob[at : at + CHUNK_BYTES] for at in range(0, len(blob), CHUNK_BYTES)]
    return tuple(
        _output(
            matrix,
            topic,
            partition,
            key if len(parts) == 1 else f"{key}|{i}",
            part,
            PACKED_TYPE,
            f"{i + 1}/{len(parts)}",
        )
        for i, part in enumerate(parts)
    )


def to_json(matrix: Matrix) -> bytes:
    """Turn a matrix of any size into one JSON document."""
    document = matrix_head(matrix) | dict(zip(TRIANGLES, _triangles(matrix), strict=True))
    if matrix.band_total is not None:
        document["band_total"] = _rounded(matrix.band_total)
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def decode(value: bytes, content_type: str = JSON_TYPE) -> Matrix:
    """Turn the value of a record, or the joined chunks of one matrix, back into the matrix.

    Raises
    ------
    InputError
        If the bytes are not a matrix of a schema version that is known here.
    """
    try:
        document = _unpack(value) if content_type == PACKED_TYPE else orjson.loads(value)
        version = document["schema_version"]
        if version != SCHEMA_VERSION:
            raise InputError(_unknown(version))
        return _matrix(document)
    except (ArithmeticError, KeyError, TypeError, ValueError, struct.error) as error:
        message = f"not a correlation matrix ({type(error).__name__}: {error})"
        raise InputError(message) from None


def read_head(value: bytes, content_type: str = JSON_TYPE) -> Mapping[str, Any]:
    """Return what a matrix says about itself, without its triangles where they are packed.

    Of a packed one the first chunk is enough.

    Raises
    ------
    InputError
        If the bytes are not a matrix of a schema version that is known here.
    """
    try:
        if content_type == PACKED_TYPE:
            document, _ = _head(value)
        else:
            document = orjson.loads(value)
        if document["schema_version"] != SCHEMA_VERSION:
            raise InputError(_unknown(document["schema_version"]))
    except (ArithmeticError, KeyError, TypeError, ValueError, struct.error) as error:
        message = f"not a correlation matrix ({type(error).__name__}: {error})"
        raise InputError(message) from None
    else:
        return document


def join(chunks: Sequence[tuple[bytes, Mapping[str, bytes]]]) -> Matrix:
    """Put the chunks of one matrix, (value, headers) in order, together.

    Raises
    ------
    InputError
        If a chunk is missing, of another matrix, or damaged.
    """
    first = chunks[0][1]
    for i, (value, head) in enumerate(chunks):
        whole = (
            head.get("chunk") == f"{i + 1}/{len(chunks)}".encode()
            and head.get("ce_id") == first.get("ce_id")
            and head.get("crc32") == f"{zlib.crc32(value):08x}".encode()
        )
        if not whole:
            message = f"matrix {first.get('ce_id', b'?').decode()} is torn at chunk {i + 1}"
            raise InputError(message)
    content_type = first.get("content-type", b"").decode()
    return decode(b"".join(value for value, _ in chunks), content_type)


def _triangles(matrix: Matrix) -> tuple[F64, F64, F64]:
    upper = np.triu_indices(len(matrix.symbols), 1)
    # rounding to what the figures are worth keeps a matrix of 200 symbols under 900 kB
    return matrix.corr[upper], np.round(matrix.n_eff[upper], 1), _rounded(matrix.band)


def _rounded(band: F64) -> F64:
    errors: F64 = np.round(band[np.triu_indices(len(band), 1)], 5)
    return errors


def matrix_head(matrix: Matrix) -> dict[str, Any]:
    """Return all of a matrix but its triangles, as it stands on the wire."""
    quality, regime = matrix.quality, matrix.regime
    shift_ns = regime.since_shift_ns
    return {
        **{name: getattr(matrix, name) for name in _PLAIN},
        **{name: str(getattr(matrix, name)) for name in _TIMES},
        "staleness_ns": [str(age) for age in matrix.staleness_ns],
        "vol": np.ascontiguousarray(matrix.vol),
        "band_total": None,
        "quality": {
            "min_eigenvalue": quality.min_eigenvalue,
            "repair": quality.repair,
            "capped_pairs": quality.capped_pairs,
            "cleaned": quality.cleaned,
            "degraded": quality.degraded,
            **{key: n for key in _OPTIONAL if (n := getattr(quality, key)) is not None},
        },
        "regime": {
            "average_correlation": regime.average_correlation,
            "top_eigenvalue_share": regime.top_eigenvalue_share,
            **{key: x for key in _SUMMARIES if (x := getattr(regime, key)) is not None},
            **({} if shift_ns is None else {"since_shift_ns": str(shift_ns)}),
        },
        **{name: x for name in _ABSENT if (x := getattr(matrix, name)) is not None},
    }


def _output(
    matrix: Matrix, topic: str, partition: int, key: str, value: bytes, type_: str, chunk: str
) -> Output:
    head = headers(
        "matrix",
        f"{matrix.universe}|{matrix.estimator}|{matrix.sequence}",
        matrix.universe,
        matrix.as_of_ns,
        type_,
        value,
        sequence=str(matrix.sequence),
        chunk=chunk,
    )
    return Output(topic, partition, key.encode(), value, head)


def _unknown(version: object) -> str:
    return f"matrix has schema_version {version}, this reader knows {SCHEMA_VERSION}"


def _head(blob: bytes) -> tuple[dict[str, Any], int]:
    if blob[:4] != MAGIC:
        message = "no SCM1 at the start"
        raise ValueError(message)
    (size,) = struct.unpack_from("<I", blob, 4)
    return orjson.loads(blob[8 : 8 + size]), size


def _unpack(blob: bytes) -> dict[str, Any]:
    document, size = _head(blob)
    n = len(document["symbols"])
    triangles = np.frombuffer(blob, dtype="<f4", offset=8 + size).reshape(-1, n * (n - 1) // 2)
    names = (*TRIANGLES, "band_total")[: max(len(TRIANGLES), len(triangles))]
    return document | dict(zip(names, triangles, strict=True))


def _matrix(document: Mapping[str, Any]) -> Matrix:
    n = len(document["symbols"])
    names = (*document["symbols"], *document["pending"], document["universe"])
    whole = (document["sequence"], document["model_version"])
    if {*map(type, names)} != {str} or {*map(type, whole)} != {int}:
        message = "names that are no texts, or numbers that are not whole"
        raise ValueError(message)
    quality, band_total = document["quality"], document["band_total"]
    plain = {name: document[name] for name in _PLAIN}
    plain |= {name: tuple(document[name]) for name in ("symbols", "pending")}
    plain |= {name: int(document[name]) for name in _TIMES}
    return Matrix(
        **plain,
        corr=_square(document["corr"], n, 1.0),
        n_eff=_square(document["n_eff"], n, np.nan),
        band=_square(document["band"], n, 0.0),
        band_total=None if band_total is None else _square(band_total, n, 0.0),
        vol=np.array(document["vol"], dtype=np.float64).reshape(n),
        staleness_ns=np.array([int(age) for age in document["staleness_ns"]], np.int64).reshape(n),
        quality=Quality(
            quality["min_eigenvalue"],
            quality["repair"],
            quality["capped_pairs"],
            quality["cleaned"],
            tuple(quality["degraded"]),
            *(quality.get(key) for key in _OPTIONAL),
        ),
        audit=document.get("audit"),
        base_currency=document.get("base_currency"),
        regime=_regime({**document["regime"]}),
    )


def _regime(document: Mapping[str, Any]) -> Regime:
    shift_ns = document.get("since_shift_ns")
    return Regime(
        document["average_correlation"],
        document["top_eigenvalue_share"],
        **{key: document.get(key) for key in _SUMMARIES},
        since_shift_ns=None if shift_ns is None else int(shift_ns),
    )


def _square(triangle: Sequence[float], n: int, diagonal: float) -> F64:
    with np.errstate(invalid="ignore"):  # a NaN of another kind is still one
        entries = np.array(triangle, dtype=np.float64).reshape(n * (n - 1) // 2)
    square = np.full((n, n), diagonal)
    upper = np.triu_indices(n, 1)
    square[upper] = entries
    square.T[upper] = entries
    return square
