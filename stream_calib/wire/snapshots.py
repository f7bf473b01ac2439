"""Snapshots on the wire: saved engine state that can be checked before it is believed.

``SCS1``, the length of the head (u32), the head (JSON: what the state is of, and a table of
the arrays), the arrays, and the SHA-256 of everything before; all little-endian. Wherever they are
kept their names are ``<number, 20 digits>-<chain>.snap``, so that the newest sorts last.
"""

import hashlib
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt
import orjson

from stream_calib.errors import InputError
from stream_calib.values import Snapshot
from stream_calib.wire.arrays import pack_arrays, unpack_arrays

MAGIC = b"SCS1"
FORMAT_VERSION = 1
_PLAIN = ("universe", "number", "chain", "settings", "numerics", "software_version")
_START, _SHA256 = 8, 32

NAME = r"\d{20}-\w+\.snap"
_NAME = re.compile(NAME, re.ASCII)


def snapshot_name(number: int, chain: str) -> str:
    """Return the name of the snapshot after an entry."""
    return f"{number:020d}-{chain}.snap"


def number_in(name: str) -> int:
    """Return the number of the entry that a name is of."""
    return int(name.partition("-")[0])


def is_snapshot_name(name: str) -> bool:
    """Tell whether a snapshot may go by this name."""
    return _NAME.fullmatch(name) is not None


def surplus(names: Sequence[str], saved: str, keep: int) -> list[str]:
    """Return what is dropped after a save: of those before it the oldest, beyond ``keep`` in all.

    Newer ones stay: another owner's, where who saved was frozen meanwhile. ``names`` come newest
    first.
    """
    return [name for name in names if name < saved][keep - 1 :]


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Turn a snapshot into bytes; equal snapshots give equal bytes.

    Raises
    ------
    ValueError
        If an array holds anything but numbers.
    """
    table, payload = pack_arrays(snapshot.arrays)
    document = {name: getattr(snapshot, name) for name in _PLAIN}
    document |= {"format_version": FORMAT_VERSION, "arrays": table}
    head = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    blob = b"".join((MAGIC, struct.pack("<I", len(head)), head, payload))
    return blob + hashlib.sha256(blob).digest()


def decode_snapshot(value: bytes) -> Snapshot:
    """Turn bytes back into a snapshot, whose arrays are copies that may be written to.

    Raises
    ------
    InputError
        If they are not a whole, undamaged snapshot of a format that is known here.
    """
    head, start = _head(value)
    seal = len(value) - _SHA256
    if seal < start or hashlib.sha256(memoryview(value)[:seal]).digest() != value[seal:]:
        message = "the snapshot is damaged: its checksum is not that of its bytes"
        raise InputError(message)
    try:
        arrays = unpack_arrays(head["arrays"], value[start:seal])
        return Snapshot(**{name: head[name] for name in _PLAIN}, arrays=arrays)
    except (KeyError, TypeError, ValueError) as error:
        message = f"not a snapshot ({type(error).__name__}: {error})"
        raise InputError(message) from None


def read_head(value: bytes) -> dict[str, Any]:
    """Return what a snapshot says about itself, to be looked at; its bytes are not checked.

    The first bytes of a snapshot are enough, up to the end of the head.

    Raises
    ------
    InputError
        If there is no head of a format that is known here.
    """
    return _head(value)[0]


def digest_state(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Return the identity of a state: of names, dtypes, shapes and bytes, by name."""
    table, payload = pack_arrays(arrays)
    digest = hashlib.blake2b(orjson.dumps(table, option=orjson.OPT_SORT_KEYS), digest_size=16)
    digest.update(payload)
    return digest.hexdigest()


def _head(value: bytes) -> tuple[dict[str, Any], int]:
    if value[: len(MAGIC)] != MAGIC:
        message = "not a snapshot (no SCS1 at the start)" if value else "the snapshot is empty"
        raise InputError(message)
    try:
        (size,) = struct.unpack_from("<I", value, len(MAGIC))
        head = orjson.loads(value[_START : _START + size])
        version = head["format_version"]
    except (KeyError, TypeError, ValueError, struct.error):
        message = "the snapshot is damaged: its head cannot be read"
        raise InputError(message) from None
    if version != FORMAT_VERSION:
        message = f"snapshot has format_version {version}, this reader knows {FORMAT_VERSION}"
        raise InputError(message)
    return head, _START + size
