"""Many files, of many topics, in any order: read in event time, with few of them open."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
import pytest

import stream_calib as sc
from stream_calib.adapters.files import FileSource, source
from stream_calib.values import Matrix, Source

NS = 1_625_270_400_000_000_000
PART_NS = 600_000_000_000
SYMBOLS = ("A", "B", "C")


@pytest.mark.parametrize("opened", [2, 3, 6])
@pytest.mark.parametrize("seed", range(4))
def test_files_that_are_closed_meanwhile_go_on_where_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, opened: int
) -> None:
    monkeypatch.setattr(source, "OPEN_MAX", opened)
    draw = random.Random(seed)
    paths, wanted = [], {}
    for i in range(9):
        path = tmp_path / f"{i}.jsonl"
        lines = [b"%d-%d" % (i, j) for j in range(draw.choice([0, 1, 50, 3000]))]
        path.write_bytes(b"\n".join(lines))
        paths.append(path)
        wanted[Source(path.name, 0)] = lines
    # and one of several topics among them
    mixed = [(draw.choice("xyz"), b"%d" % j) for j in range(200)]
    paths.append(tmp_path / "mixed.tsv")
    paths[-1].write_bytes(b"".join(b"%s\t%s\n" % (t.encode(), v) for t, v in mixed))
    for topic in "xyz":
        wanted[Source(topic, 0)] = [value for own, value in mixed if own == topic]
    reading = FileSource(paths)
    sources = reading.open()
    assert set(sources) == set(wanted)
    got: dict[Source, list[bytes | None]] = {one: [] for one in sources}
    while not reading.exhausted():
        reading.pause(frozenset(draw.sample(sources, draw.randrange(len(sources)))))
        for batch in reading.take(draw.choice([1, 20, 500])):
            assert batch.position_before == len(got[batch.source])
            got[batch.source] += batch.values
        assert len(reading._used) <= opened
    assert got == wanted
    reading.release()


def test_topics_of_one_file_that_follow_each_other_are_not_kept_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "WAITING_MAX", 1000)
    path, n = tmp_path / "t.tsv", 20_000
    parts = [b"".join(b"%s\t%d\n" % (topic, i) for i in range(n)) for topic in (b"a", b"b", b"c")]
    path.write_bytes(b"".join(parts))
    reading = FileSource([path])
    a, b, c = reading.open()
    got: dict[Source, list[bytes | None]] = {a: [], b: [], c: []}
    reading.pause(frozenset({a, b}))  # what is asked for lies behind all the rest
    while not reading.exhausted():
        for batch in reading.take(500):
            got[batch.source] += batch.values
        if len(got[c]) >= n // 2:
            reading.pause(frozenset())
        waiting = sum(file.n_waiting for file in set(reading._files.values()))
        # a block of a file is what is read of it at once
        assert waiting < 1000 + 4 * 60_000
    assert got == {one: [b"%d" % i for i in range(n)] for one in (a, b, c)}
    reading.release()


def part(folder: Path, name: str, number: int, symbols: Sequence[str], seed: int) -> Path:
    """A file of five minutes in ten, half a second between the ticks of a symbol."""
    draw = np.random.default_rng([seed, number])
    market = np.cumsum(draw.normal(0.0, 1e-4, 600))
    own = np.cumsum(draw.normal(0.0, 1e-4, (600, len(SYMBOLS))), axis=0)
    lines = []
    for i in range(600):
        for symbol in symbols:
            at = NS + number * PART_NS + i * 500_000_000 + SYMBOLS.index(symbol) * 1000
            price = 100.0 * np.exp(market[i] + own[i, SYMBOLS.index(symbol)])
            lines.append(orjson.dumps({"symbol": symbol, "time": at, "price": float(price)}))
    path = folder / name
    path.write_bytes(b"\n".join(lines))
    return path


def matrices(paths: Sequence[Path]) -> list[tuple[int, bytes, bytes]]:
    universe = {"name": "u", "symbols": list(SYMBOLS), "bar": "1s", "ready_n_eff": 5}
    found: list[Matrix] = list(sc.replay(paths, sc.Config(universe=[universe])))  # type: ignore[arg-type]
    return [(one.as_of_ns, one.corr.tobytes(), one.vol.tobytes()) for one in found]


def test_files_of_parts_and_symbols_in_any_order_are_one_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = b"\n".join(part(tmp_path, "x", number, SYMBOLS, 7).read_bytes() for number in range(4))
    (tmp_path / "whole.jsonl").write_bytes(whole)
    wanted = matrices([tmp_path / "whole.jsonl"])
    assert len(wanted) > 100
    # one file per symbol and part, named so that they do not sort by time
    paths = [
        part(tmp_path, f"{(7 * number + 3) % 5}{symbol}.jsonl", number, [symbol], 7)
        for number in range(4)
        for symbol in SYMBOLS
    ]
    for opened in (800, 2):
        monkeypatch.setattr(source, "OPEN_MAX", opened)
        assert matrices(paths) == wanted
        assert matrices(paths[::-1]) == wanted
