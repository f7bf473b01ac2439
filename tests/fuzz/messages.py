"""Our own messages: matrices, journal entries, fits, snapshots, calls, frames of the live view."""

import struct
import zlib
from collections.abc import Callable, Sequence
from hashlib import blake2b, sha256
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson

from stream_calib.client.assembly import Assembly
from stream_calib.values import Fit, FitFailure, FitRequest, Snapshot
from stream_calib.wire import calls, events, fits, journal, live, matrices, snapshots
from stream_calib.wire.cloudevents import JSON_TYPE, last_sequences
from tests.fuzz.mutation import Spoiler, dumped, spoil_document
from tests.fuzz.target import Target, refused
from tests.golden import values as golden

ARRAYS = {"a": np.array(np.pi), "b": np.arange(6.0).reshape(2, 3), "empty": np.empty((0, 3))}
Seal = Callable[[bytes, bytes], bytes]


def packed(n: int) -> bytes:
    """Return a matrix of n symbols as it is written when there are more than 200."""
    matrix = golden.matrix(n)
    head = orjson.dumps(matrices.matrix_head(matrix), option=orjson.OPT_SERIALIZE_NUMPY)
    head += b" " * (-len(head) % 4)
    upper = np.triu_indices(n, 1)
    squares = (matrix.corr, matrix.n_eff, matrix.band)
    blob = b"".join(square[upper].astype("<f4").tobytes() for square in squares)
    return matrices.MAGIC + struct.pack("<I", len(head)) + head + blob


def with_head(corpus: Sequence[bytes], head_at: int, seal: Seal) -> Callable[[Spoiler, int], bytes]:
    """Return what spoils head or body of a frame and seals it again.

    Without the new seal nothing behind the check would ever be reached.
    """

    def make(spoiler: Spoiler, number: int) -> bytes:
        value, draw = spoiler.spoil(number), spoiler.random
        if draw.random() < 0.3:
            return value
        whole = draw.choice(corpus)
        (size,) = struct.unpack_from("<I", whole, 4)
        head, body = whole[head_at : head_at + size], whole[head_at + size :]
        if draw.random() < 0.9:
            document = orjson.loads(head)
            table = document.get("arrays")
            document = (
                spoil_document(draw, document)
                if not table or draw.random() < 0.3
                else (document | {"arrays": spoil_document(draw, table)})
            )
            head = dumped(document)
        if draw.random() < 0.2:
            body = body[: draw.randrange(len(body) + 1)] + draw.randbytes(draw.randrange(9))
        return seal(head, body)

    return make


def matrix_target() -> Target:
    """Matrices in JSON and packed, as a subscriber reads them."""
    corpus = [matrices.to_json(golden.matrix(n)) for n in (1, 2, 5)] + [packed(4), packed(2)]

    def read(value: bytes) -> None:
        for content_type in (JSON_TYPE, matrices.PACKED_TYPE):
            refused(_read_matrix, value, content_type)
            refused(matrices.read_head, value, content_type)

    seal = with_head(corpus[3:], 8, lambda head, body: _sized(matrices.MAGIC, head) + body)

    def make(spoiler: Spoiler, number: int) -> bytes:
        return seal(spoiler, number) if number % 3 == 0 else spoiler.spoil(number)

    return Target(corpus, read, make)


def _read_matrix(value: bytes, content_type: str) -> None:
    matrix = matrices.decode(value, content_type)
    n = len(matrix.symbols)
    assert matrix.corr.shape == matrix.n_eff.shape == matrix.band.shape == (n, n)
    assert matrix.vol.shape == matrix.staleness_ns.shape == (n,)
    assert all(isinstance(name, str) for name in matrix.symbols)


def _sized(magic: bytes, head: bytes) -> bytes:
    return magic + struct.pack("<I", len(head)) + head


def record_target() -> Target:
    """Records of the output topics: keys, headers and chunks that somebody else has written."""
    outputs = [*matrices.encode(golden.matrix(3), "t", 0)]
    _, chunks = fits.encode_fit(Fit("dcc", ARRAYS), "t", 0, "fx")
    outputs += [*chunks, events.encode_event(golden.EVENT, "t", 0)]
    outputs.append(events.encode_reject(golden.REJECT, "t", 0))
    corpus = [
        dumped(
            [
                o.key.decode(),
                [[k, v.decode()] for k, v in o.headers],
                o.value[:600].decode("latin-1"),
            ]
        )
        for o in outputs
    ]
    names = [dict(chunk.headers)["hash"].decode() for chunk in chunks]

    def read(value: bytes) -> None:
        key, headers, body = _record(value)
        records = [(key, headers, body)] * 2
        record = SimpleNamespace(
            key=key, headers=headers, value=body, topic="t", partition=0, offset=3
        )
        whole = fits.whole_fits(records, names)
        for name, parts in whole.items():
            refused(fits.decode_fit, parts, name)
        last_sequences((one[0], one[1]) for one in records)
        assembly = Assembly(on_problem=lambda _problem: None)
        for _ in range(2):
            refused(assembly.add, record)

    return Target(corpus, read)


def _record(value: bytes) -> tuple[bytes | None, list[tuple[str, bytes]], bytes | None]:
    # what the client hands over is typed, whatever is in it
    try:
        document: Any = orjson.loads(value)
    except orjson.JSONDecodeError:
        return value, [("chunk", value), ("sequence", value)], value
    parts = [*document, None, None, None][:3] if isinstance(document, list) else [None] * 3
    key, heads, body = parts
    pairs = [pair for pair in heads if isinstance(pair, list)] if isinstance(heads, list) else []
    headers = [(str(pair[0]), _bytes(pair[1])) for pair in pairs if len(pair) == 2]
    return (None if key is None else _bytes(key)), headers, None if body is None else _bytes(body)


def _bytes(value: object) -> bytes:
    return str(value).encode("utf-8", "surrogatepass")


def journal_target() -> Target:
    """Journal entries: damaged, or sealed anew by whoever may write there."""
    entry = journal.encode_entry(golden.ENTRY, "t", 0).value

    def make(spoiler: Spoiler, number: int) -> bytes:
        value, draw = spoiler.spoil(number), spoiler.random
        if draw.random() < 0.4:
            return value
        document = spoil_document(draw, orjson.loads(entry))
        try:
            text = orjson.dumps({**document, "chain": ""}, option=orjson.OPT_SORT_KEYS)
        except TypeError:
            return dumped(document)
        chain = blake2b(text, digest_size=16).hexdigest()
        return orjson.dumps({**document, "chain": chain})

    return Target([entry], lambda value: refused(journal.decode_entry, value), make)


def fit_target() -> Target:
    """Fits, whose hash is right though their content is not."""
    _, (chunk,) = fits.encode_fit(Fit("dcc", ARRAYS), "t", 0, "fx")
    corpus = [chunk.value]

    def read(value: bytes) -> None:
        refused(fits.decode_fit, [value], blake2b(value, digest_size=16).hexdigest())

    make = with_head(corpus, 8, lambda head, body: _sized(fits.MAGIC, head) + body)
    return Target(corpus, read, make)


def snapshot_target() -> Target:
    """Snapshots, whose checksum is right though their content is not."""
    snapshot = Snapshot(
        "fx", 7, "0" * 32, {"universe": {"symbols": ["A"]}}, {"numpy": "2"}, "0.1.0",
        {**ARRAYS, "n": np.arange(3), "flags": np.array([True, False])},
    )  # fmt: skip
    corpus = [snapshots.encode_snapshot(snapshot)]

    def read(value: bytes) -> None:
        refused(snapshots.decode_snapshot, value)
        refused(snapshots.read_head, value)

    def seal(head: bytes, body: bytes) -> bytes:
        blob = _sized(snapshots.MAGIC, head) + body[:-32]
        return blob + sha256(blob).digest()

    return Target(corpus, read, with_head(corpus, 8, seal))


def call_target() -> Target:
    """Frames between the service and the process that fits."""
    request = FitRequest("dcc", 7, "schedule", 2**62, {"window": 1000, "names": ["A"]}, ARRAYS)
    parts = [calls.encode_request(request), calls.encode_answer(Fit("dcc", ARRAYS))]
    parts.append(calls.encode_answer(FitFailure("dcc", 7, "short", "Too few bars.")))
    corpus = [bytes(calls.seal(one)) for one in parts]

    def read(value: bytes) -> None:
        refused(calls.decode_request, value)
        refused(calls.decode_answer, value)
        refused(calls.frame_bytes, value[: calls.PREFIX_BYTES])

    def seal(head: bytes, body: bytes) -> bytes:
        body = body[: -calls.SUM_BYTES]
        lengths = struct.pack("<4sIQ", calls.MAGIC, len(head), len(body))
        frame = lengths + zlib.crc32(lengths).to_bytes(4, "little") + head + body
        return frame + zlib.crc32(frame).to_bytes(4, "little")

    return Target(corpus, read, with_head(corpus, calls.PREFIX_BYTES, seal))


def live_target() -> Target:
    """Frames of the live view."""
    corpus = [live.encode_live(golden.matrix(n)).value for n in (1, 4)]
    make = with_head(corpus, 8, lambda head, body: _sized(live.MAGIC, head) + body)
    return Target(corpus, lambda value: refused(live.decode_live, value), make)


TARGETS = {
    "matrices": matrix_target,
    "records": record_target,
    "journal": journal_target,
    "fits": fit_target,
    "snapshots": snapshot_target,
    "calls": call_target,
    "live": live_target,
}
