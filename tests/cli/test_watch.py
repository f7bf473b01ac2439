"""`watch` on the output file of a replay: which matrices it shows, and what of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pandas as pd
import pytest

import stream_calib as sc
from stream_calib.cli.watch import Wanted
from stream_calib.values import Matrix
from stream_calib.wire.matrices import decode
from tests.cli.command import Done, is_one_sentence
from tests.client.test_matrix import random_matrix

Cli = Callable[..., Done]
FILE = ("watch", "out.jsonl")


@pytest.fixture
def replayed(cli: Cli, tmp_path: Path) -> list[Matrix]:
    """Return the matrices in out.jsonl, in the folder where commands run."""
    assert cli("replay", "ticks.jsonl", "-c", "settings.toml", "--out", "out.jsonl").code == 0
    return list(sc.read_matrices(tmp_path / "out.jsonl"))


def numbers(done: Done) -> list[int]:
    assert (done.code, done.err) == (0, "")
    return [int(line.split()[2].removeprefix("#")) for line in done.out.splitlines()]


def test_file_is_shown_from_its_first_matrix_to_its_last(cli: Cli, replayed: list[Matrix]) -> None:
    every = [m.sequence for m in replayed]
    assert len(every) > 20
    assert numbers(cli(*FILE)) == every
    assert numbers(cli(*FILE, "--count", 3)) == every[:3]
    begin = pd.Timestamp(replayed[7].as_of_ns, tz="Europe/Vienna").isoformat()
    assert numbers(cli(*FILE, "--start", begin)) == every[7:]
    assert numbers(cli(*FILE, "--start", 12, "--universe", "sim")) == every[11:]
    assert numbers(cli(*FILE, "--estimator", "dcc")) == []


def test_pairs_are_shown_with_their_bounds(cli: Cli, replayed: list[Matrix]) -> None:
    pair = ("SIM:TECH1", "SIM:BANK1")
    done = cli(*FILE, "--pairs", "~".join(pair), "--count", 1)
    found = replayed[0].pair(*pair)
    assert done.out.startswith(pd.Timestamp(replayed[0].as_of_ns).isoformat()[:19])
    assert done.out.endswith(
        f"Z  sim|ewma #1  SIM:TECH1~SIM:BANK1 {found.corr:+.3f} "
        f"[{found.lower:+.2f} {found.upper:+.2f}]\n"
    )
    done = cli(*FILE, "--pairs", "~".join(pair), "--count", 2, "--json")
    documents = [orjson.loads(line) for line in done.out.splitlines()]
    assert [d["sequence"] for d in documents] == [1, 2]
    assert documents[0]["as_of_ns"] == str(replayed[0].as_of_ns)
    (entry,) = documents[0]["pairs"]
    assert (entry["a"], entry["b"], entry["corr"], entry["upper"]) == (
        *pair,
        found.corr,
        found.upper,
    )


def test_some_symbols_are_a_smaller_matrix(cli: Cli, replayed: list[Matrix]) -> None:
    done = cli(*FILE, "--symbols", "SIM:TECH1,SIM:BANK1", "--json", "--count", 1)
    back = decode(done.out.encode())
    np.testing.assert_array_equal(back.corr, replayed[0].subset(["SIM:TECH1", "SIM:BANK1"]).corr)
    done = cli(*FILE, "--symbols", "SIM:TECH1,SIM:BANK1", "--count", 1, "--map")
    assert "2 symbols" in done.out
    assert "ENRG1" not in done.out


def test_symbol_that_no_matrix_has_is_told_once(cli: Cli, replayed: list[Matrix]) -> None:
    assert replayed
    for words in (("--pairs", "SIM:X~SIM:BANK1"), ("--symbols", "SIM:X,SIM:BANK1")):
        done = cli(*FILE, *words)
        assert (done.code, done.out) == (0, "")
        assert done.err == "stream-calib: universe 'sim' has no symbol 'SIM:X'\n"


def test_only_changes_are_shown(cli: Cli, replayed: list[Matrix]) -> None:
    change = 0.1
    shown = [replayed[0]]
    for m in replayed[1:]:
        if m.symbols != shown[-1].symbols or np.abs(m.corr - shown[-1].corr).max() >= change:
            shown.append(m)
    assert 2 < len(shown) < len(replayed)
    assert numbers(cli(*FILE, "--change", change)) == [m.sequence for m in shown]


def test_change_is_of_the_pairs_shown() -> None:
    a, b = random_matrix(1), random_matrix(2)
    apart = np.abs(a.corr - b.corr)
    for one, other in (("A", "B"), ("C", "D")):
        by = apart[a.symbols.index(one), a.symbols.index(other)]
        for change, is_shown in ((by * 0.99, True), (by * 1.01, False)):
            wanted = Wanted(None, [(one, other)], change)
            assert wanted.part_of(a) is a
            assert (wanted.part_of(b) is b) == is_shown


def test_what_changed_little_by_little_is_shown_in_the_end() -> None:
    m, wanted = random_matrix(1), Wanted(None, None, 0.1)
    drifting = [m.subset(m.symbols) for _ in range(30)]
    for i, part in enumerate(drifting):
        part.corr[:] = (1.0 - 0.01 * i) * part.corr + 0.01 * i * np.eye(5)
    largest = np.abs(m.corr - np.eye(5)).max()
    shown = [i for i, part in enumerate(drifting) if wanted.part_of(part) is not None]
    step = int(np.ceil(10 / largest - 1e-9))
    assert shown == [*range(0, 30, step)]


def test_pair_of_which_a_symbol_is_left_out_is_one_sentence(
    cli: Cli, replayed: list[Matrix]
) -> None:
    assert replayed
    words = ("--symbols", "SIM:TECH1,SIM:BANK1", "--pairs", "SIM:TECH1~SIM:ENRG1")
    for more in ((), ("--change", 0.1)):
        done = cli(*FILE, *words, *more)
        assert (done.code, done.out) == (4, "")
        assert is_one_sentence(done.err)
        assert "--pairs has 'SIM:ENRG1', which --symbols leaves out" in done.err


def test_start_that_cannot_be_understood_is_one_sentence(cli: Cli, replayed: list[Matrix]) -> None:
    assert replayed
    for start, said in (
        ("noon", "'noon' is not a time"),
        ("latest", "a file has no latest"),
        ("²", "'²' is not a time"),
        ("9" * 30, "is not a time"),
    ):
        done = cli(*FILE, "--start", start)
        assert (done.code, done.out) == (4, "")
        assert is_one_sentence(done.err)
        assert said in done.err
    done = cli("watch", "none.jsonl")
    assert done.code == 4
    assert done.err == "stream-calib: none.jsonl: cannot be read (No such file or directory)\n"
