"""Journal entries on the wire, and the digest of the records that they cover."""

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_calib.errors import InputError
from stream_calib.values import JournalEntry, Range, RecordBatch, Source, Watermark
from stream_calib.wire.journal import decode_entry, digest_records, encode_entry
from tests.golden.values import ENTRY

positions = st.integers(0, 2**63 - 1)
times = st.integers(-(2**63), 2**63 - 1)
sources = st.builds(Source, st.text(min_size=1), st.integers(0, 10_000))
entries = st.builds(
    JournalEntry,
    number=positions,
    ranges=st.lists(
        st.builds(Range, sources, positions, positions, positions, st.integers(0, 2**64 - 1))
    ).map(tuple),
    watermarks=st.lists(
        st.builds(Watermark, sources, positions, times, st.sampled_from(["idle", "flush"]))
    ).map(tuple),
    discovered=st.lists(sources).map(tuple),
    sequences=st.dictionaries(st.text(), st.tuples(positions, positions)),
    config_fingerprint=st.text(),
)


@given(entries)
def test_an_entry_comes_back_as_it_was(entry: JournalEntry) -> None:
    back = decode_entry(encode_entry(entry))
    assert back == entry
    assert [type(r) for r in back.ranges] == [Range] * len(entry.ranges)
    assert [type(w.source) for w in back.watermarks] == [Source] * len(entry.watermarks)


def test_the_bytes_do_not_depend_on_the_order_of_a_mapping() -> None:
    one = replace(ENTRY, sequences={"a": (1, 2), "b": (3, 4)})
    other = replace(ENTRY, sequences={"b": (3, 4), "a": (1, 2)})
    assert encode_entry(one) == encode_entry(other)


@pytest.mark.parametrize("version", [0, 2, 99, "1", None])
def test_an_entry_of_another_version_is_refused_in_one_sentence(version: object) -> None:
    document = orjson.loads(encode_entry(ENTRY)) | {"version": version}
    expected = f"^journal entry has version {version}, this reader knows 1$"
    with pytest.raises(InputError, match=expected):
        decode_entry(orjson.dumps(document))


DOCUMENT: dict[str, Any] = orjson.loads(encode_entry(ENTRY))


@pytest.mark.parametrize("name", DOCUMENT)
def test_an_entry_without_one_of_its_fields_is_refused(name: str) -> None:
    rest = {key: value for key, value in DOCUMENT.items() if key != name}
    with pytest.raises(InputError, match=r"^not a journal entry"):
        decode_entry(orjson.dumps(rest))


@pytest.mark.parametrize(
    "damage",
    [
        {"ranges": [["ticks", 0, 1, 2, 3]]},
        {"ranges": [["ticks", 0, 1, 2, 3, "not hex"]]},
        {"ranges": 5},
        {"watermarks": [["ticks", 0, 1, "soon", "idle"]]},
        {"discovered": [["ticks"]]},
        {"discovered": [None]},
        {"sequences": []},
        {"sequences": {"ewma": [1]}},
        {"sequences": {"ewma": None}},
    ],
    ids=repr,
)
def test_a_damaged_entry_is_refused(damage: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"^not a journal entry"):
        decode_entry(orjson.dumps(DOCUMENT | damage))


@given(st.binary(max_size=50))
def test_no_bytes_are_taken_for_an_entry(junk: bytes) -> None:
    with pytest.raises(InputError):
        decode_entry(junk)


# digests

BATCH = RecordBatch(Source("ticks", 0), 10, 14, (10, 11, 13), (5, 6, -1), (b"ab", None, b"c"))


def test_a_digest_has_the_same_value_in_every_process() -> None:
    assert digest_records(BATCH) == 0x29AB8B44E8D9827F


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


@given(st.lists(st.tuples(times, times, st.none() | st.binary(max_size=20)), max_size=5))
def test_a_digest_fits_sixty_four_bits(rows: list[tuple[int, int, bytes | None]]) -> None:
    offsets, stamps, values = zip(*rows, strict=True) if rows else ((), (), ())
    batch = RecordBatch(Source("ticks", 0), 0, len(rows), offsets, stamps, values)
    assert 0 <= digest_records(batch) < 2**64


def test_columns_of_unequal_length_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="argument 2 is longer"):
        digest_records(replace(BATCH, offsets=(10, 11)))
