"""What is no number as arrays, and back: a state is made of arrays alone."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from stream_calib.engine.rejects import Original
from stream_calib.values import I64

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]
SHA256_BYTES = 32
LIKE_BEFORE = -2


def text_array(value: object) -> npt.NDArray[np.uint8]:
    """Write a JSON value as the bytes of its one text."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return np.frombuffer(text.encode(), np.uint8).copy()


def read_text(array: npt.NDArray[Any]) -> Any:  # noqa: ANN401
    """Return the JSON value that ``text_array`` wrote."""
    return json.loads(array.tobytes())


def original_arrays(originals: Sequence[Original]) -> Arrays:
    """Lay originals out: ``kept`` counts the bytes at hand, -1 for a tombstone.

    -2 is one like that before it: thousands of ticks may be of one record.
    """
    kept = [-1 if o.value is None else len(o.value) for o in originals]
    for i in range(len(kept) - 1, 0, -1):
        if kept[i] > 0 and originals[i] == originals[i - 1]:
            kept[i] = LIKE_BEFORE
    values = [o.value or b"" for o, n in zip(originals, kept, strict=True) if n > 0]
    sha256 = np.frombuffer(b"".join(o.sha256 for o in originals), np.uint8)
    return {
        "kept": np.array(kept, np.int64),
        "length": np.array([o.length for o in originals], np.int64),
        "sha256": sha256.reshape(-1, SHA256_BYTES).copy(),
        "bytes": np.frombuffer(b"".join(values), np.uint8).copy(),
    }


def read_originals(arrays: Mapping[str, npt.NDArray[Any]]) -> list[Original]:
    """Return the originals that ``original_arrays`` laid out."""
    kept, every_byte = arrays["kept"], arrays["bytes"].tobytes()
    out: list[Original] = []
    for size, piece, length, digest in zip(
        kept, pieces(np.maximum(kept, 0)), arrays["length"], arrays["sha256"], strict=True
    ):
        if size == LIKE_BEFORE:
            out.append(out[-1])
        else:
            value = None if size < 0 else every_byte[piece]
            out.append(Original(value, int(length), digest.tobytes()))
    return out


def pieces(counts: npt.NDArray[Any]) -> Iterator[slice]:
    """Yield one slice after the other, of these lengths."""
    stop = 0
    for count in counts:
        start, stop = stop, stop + int(count)
        yield slice(start, stop)


def counts_of(parts: Sequence[Sequence[object] | npt.NDArray[Any]]) -> I64:
    """Return the length of each part."""
    return np.array([len(part) for part in parts], np.int64)


def under(prefix: str, arrays: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """Put names below a prefix."""
    return {f"{prefix}.{name}": array for name, array in arrays.items()}


def within(prefix: str, arrays: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """Return what lies below a prefix, without it."""
    start = f"{prefix}."
    return {
        name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)
    }
