"""``simulate``: the ticks of a seed, in the form that the file's name asks for."""

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest
import zstandard

import stream_calib as sc
from tests.cli.command import DEMO_TICKS, Done, is_one_sentence

SMALL = ("--symbols", 3, "--duration-s", 30)


def test_demo_seed_gives_the_ticks_in_replay_data(cli: Callable[..., Done], tmp_path: Path) -> None:
    metadata = orjson.loads(DEMO_TICKS.with_name("demo_metadata.json").read_bytes())
    arguments = metadata["arguments"]
    done = cli(
        *("simulate", "--out", "ticks.jsonl", "--truth", "truth.json"),
        *("--seed", arguments["seed"], "--symbols", arguments["n_assets"]),
        *("--rate", arguments["rate_hz"], "--duration-s", arguments["duration_s"]),
    )
    assert done == Done(0, f"{metadata['ticks']:,} ticks of 12 symbols in ticks.jsonl\n", "")
    lines = (tmp_path / "ticks.jsonl").read_bytes()
    assert hashlib.sha256(lines).hexdigest() == metadata["sha256_uncompressed"]
    truth = orjson.loads((tmp_path / "truth.json").read_bytes())
    assert truth["symbols"] == metadata["symbols"]
    assert truth["path_corr"] == [metadata["corr_before"], metadata["corr_after"]]
    assert truth["path_time_ns"][1] == str(metadata["break_time_ns"])


def test_library_gives_the_same_ticks(cli: Callable[..., Done], tmp_path: Path) -> None:
    cli("simulate", "--out", "ticks.jsonl", *SMALL, "--seed", 5, "--noise", 1e-4)
    ticks = sc.simulate(3, 30.0, seed=5, noise=1e-4)
    written = [orjson.loads(line) for line in (tmp_path / "ticks.jsonl").read_bytes().splitlines()]
    assert written == list(ticks.records())
    np.testing.assert_array_equal([tick["price"] for tick in written], ticks.price)


def test_compression_follows_the_name_and_repeats(cli: Callable[..., Done], tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.jsonl.gz", "b.jsonl.gz", "a.jsonl.zst", "b.jsonl.zst"):
        assert cli("simulate", "--out", name, *SMALL).code == 0
    plain, a_gz, b_gz, a_zst, b_zst = (
        (tmp_path / name).read_bytes()
        for name in ("a.jsonl", "a.jsonl.gz", "b.jsonl.gz", "a.jsonl.zst", "b.jsonl.zst")
    )
    assert a_gz == b_gz
    assert a_zst == b_zst
    assert gzip.decompress(a_gz) == plain
    assert zstandard.ZstdDecompressor().decompressobj().decompress(a_zst) == plain


@pytest.mark.parametrize(
    "words", [["--symbols", 1], ["--seed", -1], ["--rate", 0], ["--noise", -1]]
)
def test_number_out_of_range_is_wrong_usage(cli: Callable[..., Done], words: list[object]) -> None:
    assert cli("simulate", "--out", "x.jsonl", *words).code == 2


@pytest.mark.parametrize("words", [["--duration-s", "inf"], ["--noise", "nan"], ["--rate", "inf"]])
def test_number_that_is_none_is_one_sentence(cli: Callable[..., Done], words: list[str]) -> None:
    done = cli("simulate", "--out", "x.jsonl", *words)
    assert done.code in {2, 4}
    if done.code == 4:
        assert is_one_sentence(done.err)


def test_file_that_cannot_be_written_is_one_sentence(cli: Callable[..., Done]) -> None:
    done = cli("simulate", "--out", "no/such/x.jsonl", *SMALL)
    assert (done.code, done.out) == (4, "")
    assert is_one_sentence(done.err)
    assert "no/such/x.jsonl: cannot be written (No such file or directory)" in done.err
