"""Journal entries on the wire, their chain, and the digests of what they cover."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_calib.errors import InputError
from stream_calib.values import (
    Change,
    FitFailure,
    JournalEntry,
    Move,
    Output,
    Range,
    RecordBatch,
    Source,
    Watermark,
)
from stream_calib.wire.journal import (
    OutputDigest,
    RecordDigest,
    decode_entry,
    encode_entry,
    link,
)
from tests.golden.values import ENTRY

positions = st.integers(0, 2**63 - 1)
times = st.integers(-(2**63), 2**63 - 1)
sources = st.builds(Source, st.text(min_size=1), st.integers(0, 10_000))
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
kinds = st.sampled_from(["genesis", "owner", "migrate", "reset", "gap", "divergence"])
moves = st.builds(
    Move,
    installs=st.lists(st.text(), max_size=2).map(tuple),
    discovered=st.lists(sources, max_size=3).map(tuple),
    ranges=st.lists(
        st.builds(Range, sources, positions, positions, positions, st.integers(0, 2**64 - 1)),
        max_size=3,
    ).map(tuple),
    watermarks=st.lists(
        st.builds(Watermark, sources, positions, times, st.sampled_from(["idle", "flush"])),
        max_size=3,
    ).map(tuple),
    failures=st.lists(
        st.builds(FitFailure, st.text(), st.integers(0, 2**31), st.text(), st.text()), max_size=2
    ).map(tuple),
    refit=st.booleans(),
)
entries = st.builds(
    JournalEntry,
    universe=st.text(),
    number=positions,
    changes=st.lists(
        st.builds(Change, kinds, st.dictionaries(st.text(), plain, max_size=3)), max_size=2
    ).map(tuple),
    moves=st.lists(moves, max_size=3).map(tuple),
    sequences=st.dictionaries(st.text(), st.tuples(positions, positions), max_size=3),
    n_outputs=positions,
    outputs_digest=st.text(),
    state_digest=st.text(),
    emitted=st.integers(-1, 2**63 - 1),
    config_fingerprint=st.text(),
    previous=st.text(),
).map(link)


def encoded(entry: JournalEntry) -> bytes:
    return encode_entry(entry, "calib.journal", 2).value


@given(entries)
def test_an_entry_comes_back_as_it_was(entry: JournalEntry) -> None:
    back = decode_entry(encoded(entry))
    assert back == entry
    for move in back.moves:
        assert {type(wanted) for wanted in move.ranges} <= {Range}
        assert {type(mark.source) for mark in move.watermarks} <= {Source}


def test_an_entry_is_a_record_keyed_by_its_universe() -> None:
    record = encode_entry(ENTRY, "calib.journal", 2)
    assert (record.topic, record.partition, record.key) == ("calib.journal", 2, b"fx")
    assert dict(record.headers) == {
        "content-type": b"application/json",
        "number": b"12",
        "previous": ENTRY.previous.encode(),
    }


def test_the_bytes_do_not_depend_on_the_order_of_a_mapping() -> None:
    one = replace(ENTRY, sequences={"a": (1, 2), "b": (3, 4)})
    other = replace(ENTRY, sequences={"b": (3, 4), "a": (1, 2)})
    assert encoded(link(one)) == encoded(link(other))


# the chain

CHANGES: dict[str, object] = {
    "universe": "rates",
    "number": 13,
    "changes": (),
    "moves": ENTRY.moves[:1],
    "sequences": {"ewma": (7, 9)},
    "n_outputs": 4,
    "outputs_digest": "",
    "state_digest": "",
    "emitted": 10,
    "config_fingerprint": "",
    "previous": "",
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_chain_is_of_everything_that_the_entry_says(name: str) -> None:
    assert link(replace(ENTRY, **{name: CHANGES[name]})).chain != ENTRY.chain  # type: ignore[arg-type]


def test_a_chain_is_of_nothing_else() -> None:
    assert set(CHANGES) | {"version", "chain"} == set(DOCUMENT)
    assert link(replace(ENTRY, chain="anything")) == ENTRY


# damage


@pytest.mark.parametrize("version", [0, 2, 99, "1", None])
def test_an_entry_of_another_version_is_refused_in_one_sentence(version: object) -> None:
    expected = f"^journal entry has version {version}, this reader knows 1$"
    with pytest.raises(InputError, match=expected):
        decode_entry(orjson.dumps(DOCUMENT | {"version": version}))


DOCUMENT: dict[str, Any] = orjson.loads(encoded(ENTRY))


@pytest.mark.parametrize("name", DOCUMENT)
def test_an_entry_without_one_of_its_fields_is_refused(name: str) -> None:
    rest = {key: value for key, value in DOCUMENT.items() if key != name}
    with pytest.raises(InputError, match=r"^not a journal entry"):
        decode_entry(orjson.dumps(rest))


MOVE = DOCUMENT["moves"][0]


@pytest.mark.parametrize(
    "damage",
    [
        {"moves": [MOVE | {"ranges": [["ticks", 0, 1, 2, 3]]}]},
        {"moves": [MOVE | {"ranges": [["ticks", 0, 1, 2, 3, "not hex"]]}]},
        {"moves": [MOVE | {"ranges": 5}]},
        {"moves": [MOVE | {"watermarks": [["ticks", 0, 1, "soon", "idle"]]}]},
        {"moves": [MOVE | {"discovered": [["ticks"]]}]},
        {"moves": [MOVE | {"discovered": [None]}]},
        {"moves": [{}]},
        {"moves": [5]},
        {"moves": 5},
        {"changes": [["owner"]]},
        {"changes": {}, "moves": None},
        {"sequences": []},
        {"sequences": {"ewma": [1]}},
        {"sequences": {"ewma": None}},
    ],
    ids=repr,
)
def test_a_damaged_entry_is_refused(damage: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"^not a journal entry"):
        decode_entry(orjson.dumps(DOCUMENT | damage))


@pytest.mark.parametrize("name", [name for name in DOCUMENT if name != "version"])
def test_an_entry_that_was_changed_does_not_carry_its_hash(name: str) -> None:
    text = {"universe", "outputs_digest", "state_digest", "config_fingerprint", "previous", "chain"}
    other: object = "other" if name in text else {} if name == "sequences" else []
    if name in {"number", "n_outputs", "emitted"}:
        other = 99
    number = 99 if name == "number" else 12
    expected = f"^journal entry {number} does not carry the hash of what it says$"
    with pytest.raises(InputError, match=expected):
        decode_entry(orjson.dumps(DOCUMENT | {name: other}))


def test_no_flipped_bit_changes_what_is_read() -> None:
    whole = encoded(ENTRY)
    for place in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        try:
            read = decode_entry(bytes(damaged))
        except InputError:
            continue
        assert read == ENTRY  # a digit of a digest in capitals


@given(st.binary(max_size=50))
def test_no_bytes_are_taken_for_an_entry(junk: bytes) -> None:
    with pytest.raises(InputError):
        decode_entry(junk)


# digest of records

BATCH = RecordBatch(Source("ticks", 0), 10, 14, (10, 11, 13), (5, 6, -1), (b"ab", None, b"c"))
Row = tuple[int, int, bytes | None]
rows_of_records = st.lists(st.tuples(times, times, st.none() | st.binary(max_size=20)), max_size=8)


def batch(rows: Sequence[Row]) -> RecordBatch:
    offsets, stamps, values = zip(*rows, strict=True) if rows else ((), (), ())
    return RecordBatch(Source("ticks", 0), 0, len(rows), offsets, stamps, values)


def digest_records(*batches: RecordBatch) -> int:
    digest = RecordDigest()
    for records in batches:
        digest.update(records)
    return digest.value()


def test_a_digest_has_the_same_value_in_every_process() -> None:
    assert digest_records(BATCH) == 0x5319C1A4352441C2


@pytest.mark.parametrize(
    "changes",
    [
        {"offsets": (10, 11, 12)},
        {"timestamps_ms": (5, 7, -1)},
        {"values": (b"ab", None, b"d")},
        {"values": (b"ab", b"", b"c")},
        {"values": (b"a", None, b"bc")},
        {"values": (b"c", None, b"ab")},
        {"offsets": (10, 11), "timestamps_ms": (5, 6), "values": (b"ab", None)},
        {"offsets": (), "timestamps_ms": (), "values": ()},
    ],
    ids=repr,
)
def test_a_digest_sees_every_change_of_the_records(changes: dict[str, Any]) -> None:
    assert digest_records(replace(BATCH, **changes)) != digest_records(BATCH)


def test_a_digest_is_of_the_records_alone() -> None:
    elsewhere = replace(BATCH, source=Source("other", 1), position_before=9, position_after=99)
    assert digest_records(elsewhere) == digest_records(BATCH)


def pieces(rows: Sequence[Any], cuts: list[int]) -> list[Sequence[Any]]:
    bounds = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    return [rows[a:b] for a, b in pairwise(bounds)]


cuts = st.lists(st.integers(0, 8), max_size=4)


@given(rows_of_records, cuts)
def test_how_records_are_cut_cannot_be_seen_in_their_digest(rows: list[Row], at: list[int]) -> None:
    cut = digest_records(*(batch(piece) for piece in pieces(rows, at)))
    assert cut == digest_records(batch(rows))
    assert 0 <= cut < 2**64


@given(rows_of_records, rows_of_records)
def test_other_records_have_another_digest(one: list[Row], other: list[Row]) -> None:
    assert (digest_records(batch(one)) == digest_records(batch(other))) == (one == other)


# digest of outputs

texts = st.text(max_size=3)
outputs = st.lists(
    st.builds(
        Output,
        st.sampled_from("ab"),
        st.integers(0, 2),
        st.binary(max_size=3),
        st.binary(max_size=3),
        st.lists(st.tuples(texts, st.binary(max_size=3)), max_size=2).map(tuple),
    ),
    max_size=6,
)
OUTPUT = Output("t", 1, b"key", b"value", (("name", b"text"), ("more", b"")))


def digest_outputs(*some: Sequence[Output]) -> str:
    digest = OutputDigest()
    for records in some:
        digest.update(records)
    assert digest.n_outputs == sum(map(len, some))
    return digest.value()


def by_topic(some: Sequence[Output]) -> dict[str, list[Output]]:
    return {
        topic: [o for o in some if o.topic == topic] for topic in sorted({o.topic for o in some})
    }


@given(outputs, cuts)
def test_how_outputs_are_cut_cannot_be_seen_in_their_digest(
    some: list[Output], at: list[int]
) -> None:
    assert digest_outputs(*pieces(some, at)) == digest_outputs(some)


@given(outputs)
def test_the_order_within_a_topic_counts_and_that_between_topics_does_not(
    some: list[Output],
) -> None:
    by_topics = [output for records in by_topic(some).values() for output in records]
    assert digest_outputs(by_topics) == digest_outputs(some)
    turned = some[::-1]
    same = by_topic(turned) == by_topic(some)
    assert (digest_outputs(turned) == digest_outputs(some)) == same


@pytest.mark.parametrize(
    "change",
    [
        lambda o: replace(o, topic="u"),
        lambda o: replace(o, partition=2),
        lambda o: replace(o, key=b"kez"),
        lambda o: replace(o, value=b"valuf"),
        lambda o: replace(o, key=b"keyv", value=b"alue"),
        lambda o: replace(o, headers=o.headers[:1]),
        lambda o: replace(o, headers=o.headers[::-1]),
        lambda o: replace(o, headers=(("namet", b"ext"), o.headers[1])),
    ],
)
def test_a_digest_sees_every_change_of_the_outputs(change: Callable[[Output], Output]) -> None:
    assert digest_outputs([change(OUTPUT)]) != digest_outputs([OUTPUT])
    assert digest_outputs([OUTPUT, OUTPUT]) != digest_outputs([OUTPUT])
    assert digest_outputs() != digest_outputs([OUTPUT])
