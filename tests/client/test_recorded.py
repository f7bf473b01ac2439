"""Matrices out of files that replay has written, whatever their wire form."""

import asyncio
import dataclasses
import gzip
import io
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import orjson
import pandas as pd
import pytest
import zstandard

import stream_calib as sc
from stream_calib.adapters.files import FileSink
from stream_calib.errors import InputError
from stream_calib.values import Event, Matrix, Output
from stream_calib.wire.events import encode_event
from stream_calib.wire.matrices import encode
from tests.cli.test_client import wide
from tests.golden.values import matrix as golden
from tests.web.observations import AS_OF_NS, matrix

TOPIC = "calib.correlations"


async def write(outputs: Sequence[Output]) -> bytes:
    file = io.BytesIO()
    sink = FileSink(file)
    await sink.start()
    await sink.publish(outputs)
    await sink.close()
    return file.getvalue()


def outputs(*matrices: Matrix) -> list[Output]:
    return [output for m in matrices for output in encode(m, TOPIC, 0)]


Problems = list[tuple[str, int, int]]


def read(path: Path | list[Path], **options: object) -> tuple[list[int], Problems]:
    problems: Problems = []

    def note(problem: sc.Problem) -> None:
        problems.append((problem.kind, problem.expected, problem.sequence))

    found = sc.read_matrices(path, on_problem=note, **options)  # type: ignore[arg-type]
    return [m.sequence for m in found], problems


@pytest.mark.parametrize("n", [10, 300, 900])
async def test_every_wire_form_comes_back_as_it_was(tmp_path: Path, n: int) -> None:
    m = golden(n)
    assert len(encode(m, TOPIC, 0)) == {10: 1, 300: 1, 900: 6}[n]
    path = tmp_path / "out.jsonl"
    path.write_bytes(await write(outputs(m)))
    (back,) = sc.read_matrices(path)
    assert back.symbols == m.symbols
    # above 200 symbols correlations are float32, of 24 bits
    np.testing.assert_allclose(back.corr, m.corr, rtol=0.0 if n == 10 else 2.0**-24)
    np.testing.assert_array_equal(back.vol, m.vol)


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        ("", lambda x: x),
        (".gz", gzip.compress),
        (".zst", zstandard.compress),
        (".zst", lambda x: zstandard.compress(x[:5000]) + zstandard.compress(x[5000:])),
    ],
)
async def test_files_may_be_compressed(
    tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / f"out.jsonl{suffix}"
    path.write_bytes(pack(await write(outputs(matrix(sequence=1), wide(2), matrix(sequence=3)))))
    assert read(path) == ([1, 2, 3], [])
    if suffix:
        path.write_bytes(path.read_bytes()[:-5])
        with pytest.raises(InputError, match=r"out.jsonl.\w+: it is cut off"):
            read(path)
        path.write_bytes(b"x" * 100)
        with pytest.raises(InputError, match=r"out.jsonl.\w+: its compressed data are damaged"):
            read(path)


async def test_problems_name_file_and_line(tmp_path: Path) -> None:
    event = encode_event(Event("fx", 1, "gap", 0, {}), "calib.events", 0)
    log = [*outputs(matrix(sequence=1)), event, *outputs(matrix(sequence=4))]
    log += outputs(wide(5))[1:] + outputs(matrix(sequence=6), matrix(sequence=4))
    path = tmp_path / "out.jsonl"
    path.write_bytes(await write(log))
    told: list[str] = []
    found = list(sc.read_matrices(path, on_problem=lambda problem: told.append(str(problem))))
    assert [m.sequence for m in found] == [1, 4, 6]
    assert told == [
        f"fx|ewma: matrices 2 to 3 are missing ({path} line 3)",
        f"fx|ewma: matrix 5 has lost a part, or is damaged ({path} line 4)",
        f"fx|ewma: matrix 4 came once more ({path} line 7)",
    ]


async def test_damaged_value_is_torn(tmp_path: Path) -> None:
    text = await write(outputs(matrix(sequence=1), matrix(sequence=2), matrix(sequence=3)))
    lines = text.splitlines(keepends=True)
    lines[1] = lines[1].replace(b"0.5", b"0.6", 1)
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"".join(lines))
    assert read(path) == ([1, 3], [("torn", 2, 2)])


async def test_lines_written_anew_are_the_same(tmp_path: Path) -> None:
    text = await write(outputs(matrix(sequence=1), wide(2)))
    path = tmp_path / "out.jsonl"
    again = [orjson.loads(line) for line in text.splitlines()]
    path.write_text("\n".join(json.dumps(line) for line in again))
    assert read(path) == ([1, 2], [])


async def test_one_file_goes_on_where_the_other_ends(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.jsonl" for i in range(2)]
    paths[0].write_bytes(await write(outputs(matrix(sequence=1), wide(2))[:2]))
    paths[1].write_bytes(await write(outputs(wide(2))[1:] + outputs(matrix(sequence=4))))
    assert read(paths) == ([1, 2, 4], [("gap", 3, 4)])


async def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    many = [matrix("a", 1), matrix("b", 2), matrix("b", 3, "dcc"), matrix("b", 3), matrix("b", 4)]
    path.write_bytes(await write(outputs(*many)))
    assert read(path, universe="a") == ([1], [])
    assert read(path, universe="b", estimator="ewma") == ([2, 3, 4], [])
    assert read(path, universe="b", estimator="ewma", start=3) == ([3, 4], [])
    with pytest.raises(InputError, match="has the estimators dcc and ewma"):
        read(path, universe="b", start=3)
    with pytest.raises(InputError, match=r"^universe has to be given to start from sequence 3"):
        read(path, start=3)
    with pytest.raises(InputError, match=r"^start: a file has no latest"):
        read(path, start="latest")


def at(seconds: float, sequence: int) -> Matrix:
    as_of_ns = AS_OF_NS + round(seconds * 1e9)
    return dataclasses.replace(matrix(sequence=sequence), as_of_ns=as_of_ns)


async def test_start_may_be_a_time(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(await write(outputs(*(at(0.25 * i, i) for i in range(1, 9)))))
    moment = datetime.fromtimestamp(AS_OF_NS // 10**9 + 1, tz=UTC)
    assert read(path, start=moment) == ([4, 5, 6, 7, 8], [])
    assert read(path, start=pd.Timestamp(AS_OF_NS + 10**9 + 1, tz="UTC")) == ([5, 6, 7, 8], [])
    assert read(path, start=pd.Timestamp(AS_OF_NS + 10**9, tz="UTC")) == ([4, 5, 6, 7, 8], [])
    zone = pd.Timestamp(AS_OF_NS + 10**9 + 1, tz="Asia/Tokyo")
    assert read(path, start=zone) == ([5, 6, 7, 8], [])
    with pytest.raises(InputError, match=r"has no zone: write 2023-11-14T22:13:20\+00:00 for UTC"):
        read(path, start=datetime(2023, 11, 14, 22, 13, 20))  # noqa: DTZ001
    with pytest.raises(InputError, match="a sequence or a time, not 'noon'"):
        read(path, start="noon")


@pytest.mark.parametrize(
    "line",
    [
        b'{"symbol": "SIM:A", "time": 1, "price": 2.0}',
        b"not json",
        b'{"headers":{"ce_type":"stream_calib.matrix.v1"},"value":{}}',
        b'{"key":"a","headers":{"ce_type":"stream_calib.matrix.v1"},"value":"%%"}',
        b'{"key":1,"headers":{"ce_type":"stream_calib.matrix.v1"},"value":"AAAA"}',
        b"[1, 2]",
        b'{"topic":"calib.correlations","key":"fx|ewma","headers":{"ce_ty',
    ],
)
async def test_line_that_is_no_output_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(await write(outputs(matrix())) + line)
    with pytest.raises(InputError, match=r"out.jsonl: line 2 is no output record of replay$"):
        read(path)


def test_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.jsonl: cannot be read \(No such file"):
        list(sc.read_matrices(tmp_path / "none.jsonl"))


def test_replay_and_its_output_file_give_the_same_matrices(tmp_path: Path) -> None:
    from stream_calib.cli.replay import _open
    from stream_calib.service.replay import replay_effects

    ticks = sc.simulate(3, 60.0, seed=7, rate_hz=5.0)
    lines = (orjson.dumps(tick, option=orjson.OPT_APPEND_NEWLINE) for tick in ticks.records())
    (tmp_path / "ticks.jsonl").write_bytes(b"".join(lines))
    (tmp_path / "settings.toml").write_text(
        '[[universe]]\nname = "sim"\nbar = "1s"\n'
        'symbols = ["SIM:BANK1", "SIM:TECH1", "SIM:ENRG1"]\n'
        '[universe.ewma]\nhalf_life = "1m"\nwindow = "1s"\n'
    )
    config = sc.load_config(tmp_path / "settings.toml")

    async def run() -> None:
        sink = await _open(tmp_path / "out.jsonl")
        assert sink is not None
        for runner, effects in replay_effects([tmp_path / "ticks.jsonl"], config):
            await sink.publish(runner.outputs(effects))
        await sink.close()

    asyncio.run(run())
    replayed = list(sc.replay(tmp_path / "ticks.jsonl", config))
    recorded = list(sc.read_matrices(tmp_path / "out.jsonl"))
    assert len(replayed) > 10
    assert [m.sequence for m in recorded] == [m.sequence for m in replayed]
    for one, other in zip(replayed, recorded, strict=True):
        np.testing.assert_array_equal(one.corr, other.corr)
