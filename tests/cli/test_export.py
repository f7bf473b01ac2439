"""`export`: what is in the files is what is in the matrices."""

import csv
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import stream_calib as sc
from stream_calib.adapters import exports
from stream_calib.adapters.exports import COLUMNS, open_export
from stream_calib.errors import InputError
from stream_calib.values import Matrix
from tests.cli.command import Done, is_one_sentence
from tests.web.observations import matrix

Cli = Callable[..., Done]


@pytest.fixture
def replayed(cli: Cli, tmp_path: Path) -> list[Matrix]:
    """Return the matrices in out.jsonl, in the folder where commands run."""
    assert cli("replay", "ticks.jsonl", "-c", "settings.toml", "--out", "out.jsonl").code == 0
    return list(sc.read_matrices(tmp_path / "out.jsonl"))


def long_form(matrices: list[Matrix]) -> list[tuple[Any, ...]]:
    return [
        (m.as_of_ns, m.universe, m.estimator, m.sequence, a, b, m.corr[i, j], m.band[i, j], e)
        for m in matrices
        for i, a in enumerate(m.symbols)
        for j, b in enumerate(m.symbols)
        if j > i
        for e in [m.n_eff[i, j]]
    ]


def test_every_pair_of_every_matrix_is_a_row(
    cli: Cli, replayed: list[Matrix], tmp_path: Path
) -> None:
    rows = long_form(replayed)
    for suffix in ("csv", "parquet"):
        done = cli("export", "out.jsonl", "--out", f"m.{suffix}")
        assert (done.code, done.err) == (0, "")
        assert done.out == f"m.{suffix}: {len(replayed)} matrices, {len(rows)} pairs\n"
    with (tmp_path / "m.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    assert tuple(header) == COLUMNS
    read = [
        (pd.Timestamp(t).value, u, e, int(n), a, b, *map(float, figures))
        for t, u, e, n, a, b, *figures in lines
    ]
    assert read == rows
    frame = pq.read_table(tmp_path / "m.parquet").to_pandas()
    assert tuple(frame.columns) == COLUMNS
    frame["as_of"] = frame["as_of"].astype("datetime64[ns, UTC]").astype("int64")
    assert [tuple(row) for row in frame.itertuples(index=False)] == rows


def test_arrays_are_stacked(cli: Cli, replayed: list[Matrix], tmp_path: Path) -> None:
    assert cli("export", "out.jsonl", "--out", "m.npz").code == 0
    with np.load(tmp_path / "m.npz", allow_pickle=False) as arrays:
        assert arrays["as_of_ns"].tolist() == [m.as_of_ns for m in replayed]
        assert arrays["sequence"].tolist() == [m.sequence for m in replayed]
        symbols = arrays["symbols"].tolist()
        for t, m in enumerate(replayed):
            at = [symbols.index(symbol) for symbol in m.symbols]
            for name in ("corr", "band", "n_eff"):
                np.testing.assert_array_equal(arrays[name][t][np.ix_(at, at)], getattr(m, name))
            assert np.isfinite(arrays["corr"][t]).sum() == len(at) ** 2
            np.testing.assert_array_equal(arrays["vol"][t][at], m.vol)
    first = (tmp_path / "m.npz").read_bytes()
    cli("export", "out.jsonl", "--out", "m.npz")
    assert (tmp_path / "m.npz").read_bytes() == first


def export(path: Path, matrices: list[Matrix], **options: Any) -> None:
    with open_export(path, **options) as target:
        for m in matrices:
            target.add(m)


def test_symbols_that_come_and_go_are_nan_in_arrays(tmp_path: Path) -> None:
    part = dataclasses.replace(matrix(sequence=8).subset(["C", "A"]))
    export(tmp_path / "m.npz", [part, matrix(sequence=9)])
    with np.load(tmp_path / "m.npz", allow_pickle=False) as arrays:
        assert arrays["symbols"].tolist() == ["C", "A", "B"]
        first = np.array([[1.0, 0.2, np.nan], [0.2, 1.0, np.nan], [np.nan] * 3])
        np.testing.assert_array_equal(arrays["corr"][0], first)
        np.testing.assert_array_equal(arrays["corr"][1, 2], [0.3, 0.5, 1.0])
        np.testing.assert_array_equal(arrays["vol"][0], [1e-4, 1e-4, np.nan])
    export(tmp_path / "m.npz", [part, matrix(sequence=9)], pairs=[("A", "B"), ("A", "C")])
    with np.load(tmp_path / "m.npz", allow_pickle=False) as arrays:
        assert (arrays["a"].tolist(), arrays["b"].tolist()) == (["A", "A"], ["B", "C"])
        np.testing.assert_array_equal(arrays["corr"], [[np.nan, 0.2], [0.5, 0.2]])
        assert arrays["n_eff"].shape == (2, 2)
        assert "vol" not in arrays


def test_only_what_is_asked_for_is_written(
    cli: Cli, replayed: list[Matrix], tmp_path: Path
) -> None:
    begin, end = replayed[5], replayed[9]
    when = [pd.Timestamp(m.as_of_ns, tz="UTC").isoformat() for m in (begin, end)]
    words = ["export", "out.jsonl", "--out", "m.parquet", "--start", when[0], "--until", when[1]]
    assert cli(*words, "--pairs", "SIM:TECH1~SIM:BANK1, SIM:ENRG1~SIM:TECH1").code == 0
    frame = pq.read_table(tmp_path / "m.parquet").to_pandas()
    assert frame["sequence"].tolist() == [m.sequence for m in replayed[5:9] for _ in range(2)]
    assert frame["a"].tolist()[:2] == ["SIM:TECH1", "SIM:ENRG1"]
    assert frame["corr"][0] == begin.pair("SIM:BANK1", "SIM:TECH1").corr
    assert cli(*words, "--symbols", "SIM:TECH1,SIM:BANK1").code == 0
    frame = pq.read_table(tmp_path / "m.parquet").to_pandas()
    assert frame["a"].unique().tolist() == ["SIM:TECH1"]
    assert len(frame) == 4
    words = ["export", "out.jsonl", "--out", "m.csv", "--universe", "sim", "--start", "12"]
    assert cli(*words, "--estimator", "ewma").code == 0
    assert len((tmp_path / "m.csv").read_text().splitlines()) == 1 + 3 * (len(replayed) - 11)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "m.xlsx"], "m.xlsx: the name has to end in .parquet, .csv, .npz"),
        (["--out", "no/m.csv"], "no/m.csv: cannot be written (No such file or directory)"),
        (["--out", "m.csv", "--pairs", "A"], "--pairs: 'A' is not a pair such as A~B"),
        (["--out", "m.csv", "--pairs", "A~B~C"], "--pairs: 'A~B~C' is not a pair"),
        (["--out", "m.csv", "--pairs", "A~A"], "--pairs: 'A~A' is not a pair"),
        (["--out", "m.csv", "--symbols", "A"], "--symbols: 'A' is not two different symbols"),
        (["--out", "m.csv", "--symbols", "A,,B"], "--symbols: 'A,,B' is not two"),
        (["--out", "m.csv", "--start", "noon"], "'noon' is not a time such as 2024-05-01T14"),
        (["--out", "m.csv", "--until", "2024-05-01"], "the time '2024-05-01' has no zone"),
        (["--out", "m.csv", "--start", "5"], "universe has to be given to start from sequence 5"),
        (["--out", "m.csv", "--universe", "x"], "m.csv: not written, for there is no such matrix"),
        (["--out", "m.npz", "--universe", "x"], "m.npz: not written, for there is no such matrix"),
        (["--out", "m.parquet", "--universe", "x"], "m.parquet: not written, for there is no"),
        (["--out", "out.jsonl"], "out.jsonl: it is an input file, and would be overwritten"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    cli: Cli, replayed: list[Matrix], tmp_path: Path, words: list[str], said: str
) -> None:
    assert replayed
    files = {path.name for path in tmp_path.iterdir()}
    done = cli("export", "out.jsonl", *words)
    assert (done.code, done.out) == (4, "")
    assert is_one_sentence(done.err), done.err
    assert said in done.err
    assert {path.name for path in tmp_path.iterdir()} == files


@pytest.mark.usefixtures("replayed")
@pytest.mark.parametrize("suffix", ["csv", "parquet", "npz"])
def test_export_that_fails_leaves_what_was_there(cli: Cli, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m.{suffix}"
    path.write_text("before")
    with (tmp_path / "out.jsonl").open("a") as file:
        file.write("and then this\n")
    done = cli("export", "out.jsonl", "--out", path.name)
    assert done.code == 4
    assert "is no output record of replay" in done.err
    assert path.read_text() == "before"
    assert not list(tmp_path.glob("*.part"))


def test_symbol_that_no_matrix_has_is_told(cli: Cli, replayed: list[Matrix]) -> None:
    assert replayed
    done = cli("export", "out.jsonl", "--out", "m.csv", "--symbols", "SIM:BANK1,SIM:TECH1,SIM:X")
    assert done.code == 0
    assert done.err == "stream-calib: universe 'sim' has no symbol 'SIM:X'\n"


def test_arrays_are_of_one_universe_and_estimator(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^arrays are of one of fx\|ewma and fx\|dcc: name its"):
        export(tmp_path / "m.npz", [matrix(), matrix(estimator="dcc")])
    assert not list(tmp_path.iterdir())


def test_parquet_goes_out_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "GROUP_ROWS", 10)
    export(tmp_path / "m.parquet", [matrix(sequence=i) for i in range(1, 11)])
    file = pq.ParquetFile(tmp_path / "m.parquet")
    groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert groups == [12, 12, 6]
    assert file.read()["sequence"].to_pylist() == [i for i in range(1, 11) for _ in range(3)]
    file.close()


def test_without_pyarrow_one_sentence_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'stream-calib\[arrow\]'$"):
        export(tmp_path / "m.parquet", [matrix()])
    assert not list(tmp_path.iterdir())
