"""Inputs that nobody sends in good faith: only documented errors, in time that is bounded.

What found something in a longer run has a test of its own in the lower half.
"""

import itertools
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest

from stream_calib.adapters.files import FileSource
from stream_calib.config import load_config
from stream_calib.errors import ConfigError, StreamCalibError
from stream_calib.wire import matrices
from stream_calib.wire.arrays import unpack_arrays
from stream_calib.wire.cloudevents import last_sequences
from stream_calib.wire.compression import unzstd
from stream_calib.wire.fits import whole_fits
from stream_calib.wire.ticks import decode
from stream_calib.wire.ticks.fields import MalformedError
from stream_calib.wire.ticks.frames import open_frame
from tests.fuzz import campaign
from tests.fuzz.messages import packed
from tests.fuzz.mutation import Spoiler
from tests.fuzz.target import Target
from tests.fuzz.ticks import batch_of
from tests.wire import avro

FAST_INPUTS = {"text_files": 600, "packed_files": 600, "arrow_files": 300, "lean_files": 200}
LONG_INPUTS = {
    "ticks": 1_000_000,
    "ticks_named": 1_000_000,
    "survey": 500_000,
    "lean_files": 40_000,
}
FILES = frozenset({"text_files", "packed_files", "arrow_files"})


@pytest.mark.parametrize("name", campaign.TARGETS)
def test_garbage_is_read_or_refused_as_documented(name: str, pytestconfig: pytest.Config) -> None:
    seed = int(pytestconfig.option.randomly_seed) % 2**24
    print(campaign.run(name, seed, FAST_INPUTS.get(name, 4000)))


@pytest.mark.fuzz
@pytest.mark.parametrize("name", campaign.TARGETS)
def test_garbage_by_the_hundred_thousand(name: str) -> None:
    seed = secrets.randbits(24)
    print(f"seed {seed}", flush=True)
    print(campaign.run(name, seed, LONG_INPUTS.get(name, 100_000 if name in FILES else 300_000)))


def test_a_number_of_the_input_gives_the_same_input_again() -> None:
    target = campaign.TARGETS["ticks"]()
    one, two = (Spoiler(target.corpus, 7) for _ in range(2))
    assert [one.spoil(i) for i in range(50)] == [two.spoil(i) for i in reversed(range(50))][::-1]


def test_a_finding_says_how_to_have_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Target:
        return Target([b"{}"], lambda value: {b"{}": 0}[value])

    monkeypatch.setattr(campaign, "TARGETS", {"broken": broken})
    with pytest.raises(KeyError) as caught:
        campaign.run("broken", 5, 100)
    (note,) = caught.value.__notes__
    assert note.startswith("python -m tests.fuzz.campaign broken --seed 5 --only ")


# What was found


def read_one(message: object) -> str:
    value = message if isinstance(message, bytes) else orjson.dumps(message)
    (bad,) = decode(batch_of([value]), "auto", {"A": 0}).malformed
    return bad.reason


def test_a_field_of_a_connect_schema_may_be_of_any_type() -> None:
    payload = {"symbol": "A", "time": 1_700_000_000_000, "price": "x"}
    kinds: tuple[object, ...] = ({}, [], None, 1)
    fields = [{"field": "price", "type": kind} for kind in kinds]
    assert read_one({"schema": {"fields": fields}, "payload": payload}) == "field"


def test_a_schema_that_is_part_of_itself_is_not_read() -> None:
    # fastavro reads it on the machine's stack: five thousand bytes ended the process
    parts = {
        "type": "record",
        "name": "Part",
        "fields": [{"name": "next", "type": ["null", "Part"]}],
    }
    with pytest.raises(MalformedError, match="schema"):
        open_frame(avro.frame(1) + b"\x02" * 10 + b"\0", {avro.frame(1): avro.schema_of(parts)})


@pytest.mark.parametrize(
    "nothing",
    [
        "null",
        {"type": "record", "name": "E", "fields": []},
        {"type": "fixed", "name": "F", "size": 0},
    ],
)
def test_an_array_of_nothing_is_not_read(nothing: object) -> None:
    # ten bytes stand for any number of entries
    field = {"name": "a", "type": {"type": "array", "items": nothing}}
    schema = avro.schema_of({"type": "record", "name": "R", "fields": [field]})
    with pytest.raises(MalformedError, match="schema"):
        open_frame(avro.frame(1) + b"\xfe\xff\xff\xff\x0f\0", {avro.frame(1): schema})


def test_a_record_named_twice_is_no_part_of_itself() -> None:
    value = avro.framed(3, avro.DEBEZIUM, {"before": None, "after": None, "op": "d", "ts_ms": 1})
    assert open_frame(value, {avro.frame(3): avro.schema_of(avro.DEBEZIUM)}) == {
        "before": None, "after": None, "op": "d", "ts_ms": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("<f8", [2**62, 4]),
        ("<f8", [-1]), ("<f8", [-1, -1]), ("<f8", ["a", 10**10]), ("<f8", [0.5]),
        ("<f8", [True]),
        ("f8,f8", [1]), ("(2,", [1]), ("|O", [1]), ("<U1", [1]), ("<f8", [10**30, 0]),
        (["<f8"], [1]),
    ],
)  # fmt: skip
def test_a_table_of_arrays_is_judged_before_memory_is_taken(dtype: object, shape: object) -> None:
    table = [{"name": "a", "dtype": dtype, "shape": shape, "offset": 0}]
    with pytest.raises((KeyError, TypeError, ValueError)):
        unpack_arrays(table, b"\0" * 8)


def test_strangers_among_the_records_of_fits_are_passed_over() -> None:
    strangers: list[tuple[bytes | None, list[tuple[str, bytes]], bytes | None]] = [
        (b"x", [], b""), (None, [], None), (b"\xff|h|0", [], b""), (b"fx|h|0", [], b""),
        (b"fx|h|0", [("chunk", b"a/b")], b""), (b"fx|h|0", [("chunk", b"9" * 30 + b"/1")], b""),
    ]  # fmt: skip
    assert whole_fits([*strangers, (b"fx|h|0", [("chunk", b"1/1")], b"v")], ["h"]) == {"h": [b"v"]}
    assert last_sequences(
        [(b"\xff|e", [("sequence", b"9" * 40)]), (b"u|e", [("sequence", b"4")])]
    ) == {"e": 4}


def test_a_small_piece_of_zstd_does_not_become_half_a_gigabyte() -> None:
    block = (131072 << 3 | 1 << 1).to_bytes(3, "little") + b"a"  # 128 KiB of one letter
    bomb = b"\x28\xb5\x2f\xfd\x00\x38" + block * 4000
    pieces = unzstd([bomb])
    largest = max(len(piece) for piece in itertools.islice(pieces, 15))  # it ends in the 16th
    assert largest <= 32 * 2**20  # 256 blocks of 128 KiB in 1024 bytes


def test_what_is_said_has_nothing_in_it_that_a_terminal_obeys() -> None:
    said = str(StreamCalibError("a\x1b]0;title\x07b\nc\u202ed " + "e" * 10_000))
    assert said.isprintable()
    assert said.startswith(r"a\x1b]0;title\x07b\nc\u202ed eee")
    assert len(said) < 5000


@pytest.mark.parametrize(
    "text", ["[http]\nport = " + "9" * 5000, "a = " + "[" * 5000, "a" + ".a" * 3000 + " = 1"]
)
def test_settings_that_the_library_stumbles_over_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"settings\.toml"):
        load_config(path)


def seconds(work: Callable[[], object]) -> float:
    best = 1e9
    for _ in range(3):
        start = time.thread_time()
        work()
        best = min(best, time.thread_time() - start)
    return best


def many_topics(n: int, folder: Path) -> Callable[[], object]:
    path = folder / f"{n}.tsv"
    path.write_bytes(b"".join(b"t%d\tx\n" % i for i in range(n)))

    def read() -> None:
        source = FileSource([path])
        source.open()
        while not source.exhausted():
            source.take(5000)
        source.release()

    return read


def one_line(n: int, folder: Path) -> Callable[[], object]:
    path = folder / f"{n}.csv"
    path.write_bytes(b"time," + b"A," * n + b"\n" + b"1," * n)

    def read() -> None:
        source = FileSource([path])
        source.open()
        source.take(5000)
        source.release()

    return read


def records(make: Callable[[int], list[bytes]]) -> Callable[[int, Path], Callable[[], object]]:
    def prepared(n: int, _folder: Path) -> Callable[[], object]:
        batch = batch_of([*make(n)])
        return lambda: decode(batch, "auto", {"A": 0})

    return prepared


BLOWN_UP = {
    "topics": many_topics,
    "columns": one_line,
    "shapes": records(lambda n: [b'{"symbol":"A","k%d":1}' % i for i in range(n)]),
    "keys": records(lambda n: [b"{" + b",".join(b'"k%d":1' % i for i in range(4 * n)) + b"}"]),
    "array": records(
        lambda n: [b"[" + b",".join([b'{"symbol":"A","time":1,"price":2}'] * n) + b"]"]
    ),
    "odd ones out": records(
        lambda n: [
            b'{"symbol":"A","time":1700000000000,"price":%b}' % (b"1", b'"x"')[i % 2]
            for i in range(n)
        ]
    ),
    "text": records(
        lambda n: [b'{"symbol":"%b","time":1700000000000,"price":1}' % (b"A" * 50 * n)]
    ),
    "digits": records(lambda n: [b'{"symbol":"A","time":1,"price":"%b"}' % (b"9" * 50 * n)]),
    "schema": records(
        lambda n: [
            b'{"schema":{"fields":['
            + b",".join([b'{"field":"a","type":"bytes"}'] * n)
            + b']},"payload":{"a":"b"}}'
        ]
    ),
}


@pytest.mark.parametrize("name", BLOWN_UP)
def test_eight_times_as_much_takes_no_more_than_in_proportion(name: str, tmp_path: Path) -> None:
    n = 1500
    small, large = (seconds(BLOWN_UP[name](k, tmp_path)) for k in (n, 8 * n))
    # what is quadratic takes 64 times as long; a machine that is busy doubles what it measures
    assert large < 24 * small + 0.02, f"{small * 1e3:.1f} ms, then {large * 1e3:.1f} ms"


def test_a_nan_of_another_kind_is_still_one() -> None:
    whole = packed(2)
    signalling = b"\x01\x00\xa0\x7f"  # the cast to eight bytes warns of it
    read = matrices.decode(whole[:-4] + signalling, matrices.PACKED_TYPE)
    assert np.isnan(read.band[0, 1])
