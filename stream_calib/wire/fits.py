"""Fits on the wire: calibrated models to the last bit, in chunks, named by their content.

``SCF1``, the length of the head (u32), the head (JSON: the model and a table of the arrays),
the arrays as float64; all little-endian. The bytes are cut into chunks with keys
``<universe>|<hash>|<chunk>``.
"""

import hashlib
import struct
from collections.abc import Iterable, Sequence

import numpy as np
import orjson

from stream_calib.errors import InputError
from stream_calib.values import Fit, Output
from stream_calib.wire.arrays import pack_arrays, unpack_arrays
from stream_calib.wire.cloudevents import is_number

FIT_TYPE = "application/vnd.stream-calib.fit"
MAGIC = b"SCF1"
CHUNK_BYTES = 900_000
_START = 8

Record = tuple[bytes | None, Sequence[tuple[str, bytes]], bytes | None]  # key, headers, value


def encode_fit(
    fit: Fit, topic: str, partition: int, universe: str
) -> tuple[str, tuple[Output, ...]]:
    """Turn a fit into its hash and the records that carry it, in order.

    Raises
    ------
    ValueError
        If an array is not float64.
    """
    for name, array in fit.arrays.items():
        if array.dtype != np.float64:
            message = f"array {name!r} of a fit holds {array.dtype}, not float64"
            raise ValueError(message)
    table, payload = pack_arrays(fit.arrays)
    head = orjson.dumps({"model": fit.model, "arrays": table}, option=orjson.OPT_SORT_KEYS)
    blob = b"".join((MAGIC, struct.pack("<I", len(head)), head, payload))
    hash_ = _hash(blob)
    parts = [blob[at : at + CHUNK_BYTES] for at in range(0, len(blob), CHUNK_BYTES)]
    outputs = []
    for i, part in enumerate(parts):
        headers = {
            "content-type": FIT_TYPE,
            "universe": universe,
            "model": fit.model,
            "hash": hash_,
            "chunk": f"{i + 1}/{len(parts)}",
        }
        key = f"{universe}|{hash_}|{i}"
        fields = tuple((name, text.encode()) for name, text in headers.items())
        outputs.append(Output(topic, partition, key.encode(), part, fields))
    return hash_, tuple(outputs)


def decode_fit(chunks: Sequence[bytes], hash_: str) -> Fit:
    """Turn the values of a fit's records, in order, back into the fit.

    Raises
    ------
    InputError
        If they are not the content that the hash is of.
    """
    blob = b"".join(chunks)
    if _hash(blob) != hash_:
        message = f"fit {hash_} is torn or damaged: its {len(chunks)} chunks have another hash"
        raise InputError(message)
    try:
        (size,) = struct.unpack_from("<I", blob, len(MAGIC))
        head = orjson.loads(blob[_START : _START + size])
        arrays = unpack_arrays(head["arrays"], blob[_START + size :])
        model = head["model"]
    except (KeyError, TypeError, ValueError, struct.error) as error:
        message = f"not a fit ({type(error).__name__}: {error})"
        raise InputError(message) from None
    if blob[: len(MAGIC)] != MAGIC:
        message = "not a fit (no SCF1 at the start)"
        raise InputError(message)
    return Fit(model, arrays)


def whole_fits(records: Iterable[Record], hashes: Sequence[str]) -> dict[str, list[bytes]]:
    """Return the chunks of these fits, in order, from the records of a topic.

    A fit of which a chunk is missing is absent; one that was written twice is the same twice.
    Records that are no chunks are passed over.
    """
    found: dict[str, dict[int, bytes]] = {}
    sizes: dict[str, int] = {}
    for key, headers, value in records:
        _, name, *_ = ["", *(key or b"").decode(errors="replace").split("|")[-2:], ""]
        i, _, n = dict(headers).get("chunk", b"").partition(b"/")
        if name in hashes and is_number(i) and is_number(n):
            found.setdefault(name, {})[int(i)] = value or b""
            sizes[name] = int(n)
    return {
        name: [chunks[i] for i in sorted(chunks)]
        for name, chunks in found.items()
        if len(chunks) == sizes[name]
    }


def _hash(blob: bytes) -> str:
    return hashlib.blake2b(blob, digest_size=16).hexdigest()
