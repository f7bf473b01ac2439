"""``replay``: the same bytes, an honest summary, and one sentence when it cannot."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest

import stream_calib as sc
from stream_calib.wire.matrices import decode
from tests.cli.command import (
    COMMAND,
    DEADLINE_S,
    DEMO_TICKS,
    Done,
    but_loading,
    environment,
    is_one_sentence,
    run_process,
    spawn,
)

WITH_CONFIG = ("-c", "settings.toml")


@pytest.fixture
def folder(cli: Callable[..., Done], tmp_path: Path) -> Path:
    return tmp_path


def test_same_input_gives_the_same_bytes(cli: Callable[..., Done], folder: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        assert cli("replay", "ticks.jsonl", *WITH_CONFIG, "--out", name).code == 0
    first = (folder / "a.jsonl").read_bytes()
    assert first == (folder / "b.jsonl").read_bytes()
    assert len(first.splitlines()) > 30


def test_records_are_written_as_documented(cli: Callable[..., Done], folder: Path) -> None:
    (folder / "bad.jsonl").write_bytes(b"no tick\n" + (folder / "ticks.jsonl").read_bytes())
    assert cli("replay", "bad.jsonl", *WITH_CONFIG, "--out", "out.jsonl").code == 0
    lines = [orjson.loads(line) for line in (folder / "out.jsonl").read_bytes().splitlines()]
    assert {tuple(line) for line in lines} == {("topic", "key", "headers", "value")}
    topics = [line["topic"] for line in lines]
    roles = {"correlations", "events", "rejects", "universes"}
    assert set(topics) == {f"calib.{role}" for role in roles}
    assert topics.index("calib.universes") + 1 == topics.index("calib.correlations")
    matrix = lines[topics.index("calib.correlations")]
    assert matrix["key"] == "sim|ewma"
    assert matrix["headers"]["ce_type"] == "stream_calib.matrix.v1"
    assert matrix["value"]["universe"] == "sim"
    reject = lines[topics.index("calib.rejects")]
    assert (reject["key"], reject["headers"]["reason"]) == ("bad.jsonl-0-0", "json")


def test_library_gives_the_same_matrices(cli: Callable[..., Done], folder: Path) -> None:
    cli("replay", "ticks.jsonl", *WITH_CONFIG, "--out", "out.jsonl")
    lines = map(orjson.loads, (folder / "out.jsonl").read_bytes().splitlines())
    written = [
        decode(orjson.dumps(line["value"]))
        for line in lines
        if line["topic"] == "calib.correlations"
    ]
    replayed = list(sc.replay("ticks.jsonl", "settings.toml"))
    assert [m.sequence for m in written] == [m.sequence for m in replayed]
    for ours, theirs in zip(written, replayed, strict=True):
        assert ours.symbols == theirs.symbols
        np.testing.assert_array_equal(ours.corr, theirs.corr)
        np.testing.assert_array_equal(ours.vol, theirs.vol)
        assert ours.as_of_ns == theirs.as_of_ns


def test_summary_counts_what_became_of_the_records(cli: Callable[..., Done], folder: Path) -> None:
    n = len((folder / "ticks.jsonl").read_bytes().splitlines())
    done = cli("replay", "ticks.jsonl", *WITH_CONFIG)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{n:,} records in ")
    assert "\nsim: " in done.out
    (applied,) = (line.split()[1] for line in done.out.splitlines() if "applied" in line)
    assert applied == f"{n:,}"
    summary = orjson.loads(cli("replay", "ticks.jsonl", *WITH_CONFIG, "--json").out)
    assert summary["records"] == summary["outcomes"]["applied"] == n
    assert summary["universes"]["sim"]["matrices"] == summary["matrices"] > 0


def test_output_can_go_down_a_pipe(cli: Callable[..., Done], folder: Path) -> None:
    cli("replay", "ticks.jsonl", *WITH_CONFIG, "--out", "out.jsonl")
    done = run_process("replay", "ticks.jsonl", *WITH_CONFIG, "--out", "-", cwd=folder)
    assert done.code == 0
    assert done.out == (folder / "out.jsonl").read_text()
    assert " records in " in done.err


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            b"\x00\xff garbage\n\nmore { garbage\n" * 50,
            "no tick was applied, most often because of",
        ),
        (b"", "the files hold no records"),
        (b'{"symbol":"NO:SUCH","time":1700000000,"price":1}\n' * 9, "no tick is of one of its"),
        (
            b'{"symbol":"SIM:BANK1","time":1700000000,"price":1}\n',
            "two symbols have ready_n_eff 20",
        ),
    ],
)
def test_nothing_published_is_no_error_and_is_explained(
    cli: Callable[..., Done], folder: Path, content: bytes, reason: str
) -> None:
    (folder / "odd.jsonl").write_bytes(content)
    done = cli("replay", "odd.jsonl", *WITH_CONFIG)
    assert done.code == 0
    assert "sim: 0 matrices" in done.out
    assert is_one_sentence(done.err)
    assert "universe 'sim' published nothing: " in done.err
    assert reason in done.err


def test_two_universes_are_told_apart(cli: Callable[..., Done], folder: Path) -> None:
    text = (folder / "settings.toml").read_text()
    other = text.replace('"sim"', '"other"').replace("SIM:", "NO:")
    (folder / "two.toml").write_text(text + other)
    done = cli("replay", "ticks.jsonl", "-c", "two.toml", "--json")
    summary = orjson.loads(done.out)
    assert summary["universes"]["sim"]["outcomes"] == {"applied": summary["records"]}
    assert summary["universes"]["other"]["outcomes"] == {"unknown_symbol": summary["records"]}
    assert "universe 'other' published nothing: no tick is of one of its symbols" in done.err
    assert "'sim'" not in done.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["missing.jsonl"], 4, "missing.jsonl: cannot be read (No such file or directory)"),
        (["*.parquet"], 4, "*.parquet: "),
        (["."], 4, "."),
        (["ticks.jsonl", "--out", "no/such/folder"], 4, "no/such/folder: cannot be written"),
        (["ticks.jsonl", "--out", "."], 4, ".: cannot be written"),
        (["ticks.jsonl", "--out", "./ticks.jsonl"], 4, "ticks.jsonl: it is an input file"),
        (["ticks.jsonl", "--out", "/dev/full"], 4, "No space left on device"),
        (["ticks.jsonl", "-c", "missing.toml"], 3, "missing.toml: cannot read the configuration"),
        (["ticks.jsonl", "-c", "ticks.jsonl"], 3, "ticks.jsonl: not valid TOML"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(
    cli: Callable[..., Done], folder: Path, words: list[str], code: int, said: str
) -> None:
    done = cli("replay", *WITH_CONFIG, *words)
    assert (done.code, done.out) == (code, "")
    assert is_one_sentence(done.err), done.err
    assert said in done.err
    assert (folder / "ticks.jsonl").stat().st_size > 0


def test_input_that_cannot_be_read_leaves_the_output_alone(
    cli: Callable[..., Done], folder: Path
) -> None:
    (folder / "out.jsonl").write_text("precious")
    assert cli("replay", "missing.jsonl", *WITH_CONFIG, "--out", "out.jsonl").code == 4
    assert (folder / "out.jsonl").read_text() == "precious"


def test_file_that_is_cut_off_is_one_sentence(cli: Callable[..., Done], folder: Path) -> None:
    (folder / "cut.jsonl.zst").write_bytes(DEMO_TICKS.read_bytes()[:50_000])
    done = cli("replay", "cut.jsonl.zst", *WITH_CONFIG)
    assert done.code == 4
    assert is_one_sentence(done.err)
    assert "it is cut off" in done.err


@pytest.mark.parametrize(
    "words",
    [["--out", "-"], *(pytest.param(more, marks=pytest.mark.full) for more in (["--json"], []))],
)
def test_reader_that_leaves_ends_it_quietly(folder: Path, words: list[str]) -> None:
    with spawn("replay", "ticks.jsonl", *WITH_CONFIG, *words, cwd=folder) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert but_loading(process.stderr.read()) == ""
        assert process.wait(DEADLINE_S) == 1


@pytest.mark.parametrize("redirection", ["> /dev/full", ">&-"])
def test_standard_output_that_takes_nothing(folder: Path, redirection: str) -> None:
    command = " ".join([*COMMAND, "config", "check", *WITH_CONFIG, redirection])
    done = subprocess.run(
        command,
        shell=True,
        check=False,
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
    )
    if redirection == ">&-":
        assert (done.returncode, done.stderr) == (0, "")
    else:
        assert done.returncode == 4
        assert is_one_sentence(done.stderr)
        assert "No space left on device" in done.stderr


ONE_SCALE = """
[[universe]]
name = "demo"
symbols = [{symbols}]
bar = "20s"
audit = false
filter.enabled = false
ewma = {{ half_life = "12m", window = "20s", winsor = 0.0 }}
"""


def test_with_one_bar_per_window_the_demo_has_the_numbers_of_the_estimator_of_bars_alone(
    folder: Path,
) -> None:
    # kept when bars were all there was; every byte but the fingerprint of the settings was alike
    kept = orjson.loads((Path(__file__).parent / "one_scale.json").read_bytes())
    symbols = ", ".join(f'"{symbol}"' for symbol in kept[0]["symbols"])
    (folder / "one.toml").write_text(ONE_SCALE.format(symbols=symbols))
    by_sequence = {m.sequence: m for m in sc.replay(DEMO_TICKS, folder / "one.toml")}
    assert len(by_sequence) == kept[-1]["sequence"]
    for document in kept:
        matrix = by_sequence[document["sequence"]]
        upper = np.triu_indices(len(document["symbols"]), 1)
        assert matrix.as_of_ns == int(document["as_of_ns"])
        # another processor may fuse a product into a sum
        np.testing.assert_allclose(matrix.corr[upper], document["corr"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(matrix.vol, document["vol"], rtol=1e-12)
        np.testing.assert_allclose(matrix.n_eff[upper], document["n_eff"], atol=0.051)
        np.testing.assert_allclose(matrix.band[upper], document["band"], atol=0.51e-5)


def test_speed_changes_when_matrices_are_written_and_nothing_else(
    cli: Callable[..., Done], folder: Path
) -> None:
    cli("replay", "ticks.jsonl", *WITH_CONFIG, "--out", "max.jsonl")
    times = [matrix.as_of_ns for matrix in sc.replay("ticks.jsonl", "settings.toml")]
    speed = f"{(times[-1] - times[0]) / 1e9 / 2:.3f}"  # two seconds for all of them
    started_s = time.monotonic()
    words = ("--out", "paced.jsonl", "--speed", speed)
    assert cli("replay", "ticks.jsonl", *WITH_CONFIG, *words).code == 0
    assert time.monotonic() - started_s >= 1.9
    assert (folder / "paced.jsonl").read_bytes() == (folder / "max.jsonl").read_bytes()
    done = cli("replay", "ticks.jsonl", *WITH_CONFIG, "--speed", "fast")
    assert (done.code, done.out) == (4, "")
    assert is_one_sentence(done.err)
    assert "--speed fast: give max" in done.err
