"""Spoils valid messages: bits, ends, numbers, nesting, text; each a function of its seed."""

import copy
import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

BYTES_MAX = 1 << 16  # of a spoilt message, but for those that are blown up on purpose
BLOWN_UP_BYTES = 1 << 18
NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
ODD_NUMBERS = (
    b"0", b"-0", b"-1", b"1e999", b"-1e999", b"1e-999", b"NaN", b"Infinity", b"-Infinity", b"null",
    b"9007199254740993", b"18446744073709551615", b"18446744073709551616", b"-9223372036854775809",
    b"9223372036854775807", b"4294967296", b"1E400", b"0.1e-400", b"00012", b"+1", b".5", b"5.",
    b"1_000", b"0x10", b"1,5", b"true", b"9" * 400, b"9" * 5000, b"0." + b"3" * 500,
)  # fmt: skip
ODD_BYTES = (
    b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\\ud800",
    b"\\udc00\\ud800", b"\\u0000", b"\r\n", b"\n", b"\t", b'"', b"'", b"\\", b"{", b"}", b"[",
    b"]", b",", b":", b"\x1b[2J", b"\x7f", b"\xe2\x80\xae", b"\xc2\xa0", b"\xd9\xa3",
)  # fmt: skip
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**400,
    1e308, -1e308, 5e-324, 0.1, "", " ", "0", "-1", "1e5", "NaN", "٣", "\ud800", "\x00", "a" * 300,
    "9" * 5000, "2024-02-30T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00",
    "<f8", "|O", "(2,", "f8,f8", "\x1b[2J", [], {}, [[]], [None], [0] * 40, {"": {}}, {"a": [1]},
)  # fmt: skip


class Spoiler:
    """Makes inputs out of a corpus; the same seed and number give the same input.

    Parameters
    ----------
    corpus
        Valid messages, at least one.
    seed
        Of the run.
    """

    def __init__(self, corpus: Sequence[bytes], seed: int) -> None:
        assert corpus
        self._corpus = corpus
        self._seed = seed
        self.random = random.Random()

    def spoil(self, number: int) -> bytes:
        """Return the input of this number."""
        draw = self.random
        draw.seed(self._seed << 40 | number)
        value = draw.choice(self._corpus)
        if draw.random() < 0.5 and value[:1] in {b"{", b"["}:
            value = self._spoil_document(value)
            if draw.random() < 0.6:
                return value
        for _ in range(1 + int(draw.expovariate(0.7))):
            value = draw.choice(_WAYS)(draw, value, self._corpus)
        return value if len(value) <= BLOWN_UP_BYTES else value[:BLOWN_UP_BYTES]

    def _spoil_document(self, value: bytes) -> bytes:
        try:
            document = json.loads(value)
        except (ValueError, RecursionError):
            return value
        return dumped(spoil_document(self.random, document))


def spoil_document(draw: random.Random, document: Any, rounds: int | None = None) -> Any:
    """Return a JSON document with parts of it dropped, doubled, renamed or replaced."""
    for _ in range(rounds or 1 + int(draw.expovariate(0.8))):
        nodes: list[tuple[Any, Any]] = []
        _collect(document, nodes)
        if not nodes:
            return copy.deepcopy(draw.choice(ODD_VALUES))
        holder, at = draw.choice(nodes)
        other, other_at = draw.choice(nodes)
        match draw.randrange(7):
            case 0:
                del holder[at]
            case 1 if isinstance(holder, dict):
                holder[draw.choice(("", "time", "symbol", "data", "price", "\ud800"))] = holder.pop(
                    at
                )
            case 2:
                holder[at] = json.loads(json.dumps(other[other_at]))
            case 3 if isinstance(holder, list):
                holder.insert(at, json.loads(json.dumps(other[other_at])))
            case 4 if isinstance(holder[at], int | float) and not isinstance(holder[at], bool):
                holder[at] = draw.choice((str(holder[at]), -holder[at], holder[at] * 10**6))
            case _:
                holder[at] = copy.deepcopy(draw.choice(ODD_VALUES))
    return document


def dumped(document: Any) -> bytes:
    """Return a document as JSON, with what no strict writer would write."""
    return json.dumps(document, separators=(",", ":")).encode()


def _collect(document: Any, nodes: list[tuple[Any, Any]], depth: int = 0) -> None:
    if depth > 50:
        return
    places = document.keys() if isinstance(document, dict) else range(len(document))
    for at in places if isinstance(document, dict | list) else ():
        nodes.append((document, at))
        if isinstance(document[at], dict | list):
            _collect(document[at], nodes, depth + 1)


def _flip(draw: random.Random, value: bytes, _corpus: Sequence[bytes]) -> bytes:
    out = bytearray(value)
    for _ in range(1 + draw.randrange(4)):
        if out:
            out[draw.randrange(len(out))] ^= 1 << draw.randrange(8)
    return bytes(out)


def _cut(draw: random.Random, value: bytes, _corpus: Sequence[bytes]) -> bytes:
    return value[: draw.randrange(len(value) + 1)]


def _drop(draw: random.Random, value: bytes, _corpus: Sequence[bytes]) -> bytes:
    at = draw.randrange(len(value) + 1)
    return value[:at] + value[at + 1 + draw.randrange(30) :]


def _insert(draw: random.Random, value: bytes, _corpus: Sequence[bytes]) -> bytes:
    at = draw.randrange(len(value) + 1)
    piece = draw.choice(ODD_BYTES) if draw.random() < 0.7 else draw.randbytes(draw.randrange(12))
    return value[:at] + piece + value[at:]


def _double(draw: random.Random, value: bytes, _corpus: Sequence[bytes]) -> bytes:
    start = draw.randrange(len(value) + 1)
    stop = start + draw.randrange(len(value) - start + 1)
    times = 1 + int(draw.expovariate(0.3))
    return (value[:stop] + value[start:stop] * times + value[stop:])[:BYTES_MAX]


def _splice(draw: random.Random, value: bytes, corpus: Sequence[bytes]) -> bytes:
    other = draw.choice(corpus)
    start = draw.randrange(len(other) + 1)
    return (value[: draw.randrange(len(value) + 1)] + other[start:])[:BYTES_MAX]


def _number(draw: random.Random, value: bytes, _corpus: Sequence[bytes]) -> bytes:
    found = [*NUMBER.finditer(value[:4096])]
    if not found:
        return value
    one = draw.choice(found)
    return value[: one.start()] + draw.choice(ODD_NUMBERS) + value[one.end() :]


def _word(draw: random.Random, value: bytes, _corpus: Sequence[bytes]) -> bytes:
    # lengths and counts of binary formats
    size = draw.choice((1, 2, 4, 8))
    at = draw.randrange(max(1, min(len(value), 256)))
    word: int = draw.choice(
        (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, draw.getrandbits(16))
    )
    piece: bytes = (word & (1 << 8 * size) - 1).to_bytes(size, "little")
    return value[:at] + piece + value[at + size :]


def _nest(draw: random.Random, value: bytes, _corpus: Sequence[bytes]) -> bytes:
    deep = draw.choice((2, 5, 100, 254, 255, 1024, 1025, 10_000))
    before, after = draw.choice(
        ((b"[", b"]"), (b'{"a":', b"}"), (b'{"payload":', b"}"), (b'{"stream":"s","data":', b"}"))
    )
    return before * deep + value + (after * deep if draw.random() < 0.8 else b"")


def _blow_up(draw: random.Random, value: bytes, _corpus: Sequence[bytes]) -> bytes:
    if draw.random() < 0.98:  # rarely: what they cost is measured by itself
        return value
    start = draw.randrange(len(value) + 1)
    piece = value[start : start + 1 + draw.randrange(60)] or b"["
    return value[:start] + piece * (BLOWN_UP_BYTES // len(piece)) + value[start:]


_Way = Callable[[random.Random, bytes, Sequence[bytes]], bytes]
_WAYS: tuple[_Way, ...] = (
    _flip, _flip, _cut, _drop, _insert, _insert, _double, _splice, _number, _number, _word, _nest,
    _blow_up,
)  # fmt: skip
