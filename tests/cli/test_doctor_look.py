"""``doctor`` without a configuration: what it says of files, and that its settings run."""

import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

import stream_calib as sc
from tests.cli.command import DEMO_TICKS, Done, is_one_sentence

START_NS = 1_700_000_000_000_000_000
Cli = Callable[..., Done]


def lines(rows: Sequence[object]) -> bytes:
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def simulated(folder: Path, name: str = "ticks.jsonl", duration_s: float = 1800.0) -> Path:
    ticks = sc.simulate(4, duration_s, seed=5, rate_hz=1.0)
    (folder / name).write_bytes(lines([*ticks.records()]))
    return folder / name


def said(cli: Cli, *words: object) -> dict[str, Any]:
    done = cli("doctor", "--json", *words)
    assert (done.code, done.err) == (0, "")
    found: dict[str, Any] = orjson.loads(done.out)
    return found


def pasted(text: str) -> str:
    """Return what stands between the two lines that say where settings begin and end."""
    _, _, rest = text.partition("# >>> stream_calib.toml\n")
    settings, end, _ = rest.partition("# <<< stream_calib.toml")
    assert end
    return settings


def test_what_it_prints_to_be_pasted_loads_is_checked_and_replays(cli: Cli, tmp_path: Path) -> None:
    simulated(tmp_path)
    done = cli("doctor", "ticks.jsonl")
    assert (done.code, done.err) == (0, "")
    (tmp_path / "pasted.toml").write_text(pasted(done.out))
    checked = cli("config", "check", "-c", "pasted.toml")
    assert (checked.code, checked.err) == (0, "")
    looked = cli("doctor", "-c", "pasted.toml", "ticks.jsonl")
    assert looked.out.splitlines()[-1] == "nothing to complain about"
    replayed = cli("replay", "ticks.jsonl", "-c", "pasted.toml", "--json")
    summary = orjson.loads(replayed.out)
    # windows of a minute: ready after some 15 of the 30 minutes, a matrix each second from then on
    assert summary["matrices"] > 600
    # a print that is held until the next one is late where that is in the next bar
    assert set(summary["outcomes"]) <= {"applied", "confirmed_late"}


def test_the_demo_is_read_as_it_was_made(cli: Cli) -> None:
    found = said(cli, DEMO_TICKS, "--records", 60_000)
    (topic,) = found["topics"]
    assert (topic["records"], topic["ticks"], topic["refused"]) == (60_000, 60_000, {})
    assert topic["written"] == [
        {"format": "native", "kind": "trade", "unit": "ns", "ticks": 60_000}
    ]
    rates = [one["trades"]["rate_hz"] for one in found["symbols"].values()]
    # twelve symbols of two ticks a second; of 5000 arrivals each, 1.4 % a sigma
    np.testing.assert_allclose(rates, 2.0, rtol=0.06)
    recommended = found["recommended"]
    assert len(recommended["symbols"]) == 12
    assert (recommended["bar"], recommended["window"], recommended["k"]) == ("1s", "1m", 60)
    assert not recommended["sample_too_short"]


def test_settings_are_written_to_a_new_file_and_never_over_another(
    cli: Cli, tmp_path: Path
) -> None:
    simulated(tmp_path, duration_s=300.0)
    done = cli("doctor", "ticks.jsonl", "--write", "new.toml")
    assert done.code == 0
    assert (tmp_path / "new.toml").read_text() == pasted(done.out)
    (tmp_path / "mine.toml").write_text("mine")
    refused = cli("doctor", "ticks.jsonl", "--write", "mine.toml")
    assert refused.code == 4
    assert is_one_sentence(refused.err)
    assert "mine.toml" in refused.err
    assert (tmp_path / "mine.toml").read_text() == "mine"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"\x00\xff\x17\n" * 50, "none of 50 records is a tick, refused as: json"),
        (b'{"a": 1}\n' * 3, "none of 3 records is a tick, refused as: format"),
        (b"", "it holds no records"),
    ],
    ids=["garbage", "unknown", "empty"],
)
def test_a_file_without_ticks_is_one_sentence(
    cli: Cli, tmp_path: Path, value: bytes, words: str
) -> None:
    (tmp_path / "junk.jsonl").write_bytes(value)
    done = cli("doctor", "junk.jsonl")
    assert done.code == 4
    assert is_one_sentence(done.err)
    assert words in done.err


def test_messages_of_no_format_are_told_by_their_names_and_not_by_what_they_hold(
    cli: Cli, tmp_path: Path
) -> None:
    path = simulated(tmp_path, duration_s=120.0)
    secret = [{"account": "hunter2", "balance": 7}] * 3
    path.write_bytes(path.read_bytes() + lines(secret))
    done = cli("doctor", "ticks.jsonl")
    assert done.code == 0
    assert "No format knows 3 messages with: account, balance." in done.out
    assert "hunter2" not in done.out
    assert str(tmp_path) not in done.out


def test_one_symbol_makes_no_universe(cli: Cli, tmp_path: Path) -> None:
    rows = [{"symbol": "A", "time": START_NS + k * 10**9, "price": 100.0 + k} for k in range(50)]
    (tmp_path / "one.jsonl").write_bytes(lines(rows))
    done = cli("doctor", "one.jsonl")
    assert (done.code, done.err) == (0, "")
    assert "No settings are recommended: fewer than two symbols tick enough." in done.out
    refused = cli("doctor", "one.jsonl", "--write", "new.toml")
    assert refused.code == 4
    assert not (tmp_path / "new.toml").exists()


@pytest.mark.parametrize(
    "words",
    [(), ("ticks.jsonl", "--topic", "a"), ("-c", "settings.toml", "--json", "ticks.jsonl")],
)
def test_what_to_look_at_has_to_be_said_once(cli: Cli, words: tuple[str, ...]) -> None:
    done = cli("doctor", *words)
    assert done.code == 4
    assert is_one_sentence(done.err)


def test_a_broker_that_is_away_is_one_sentence(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_CALIB__KAFKA__CONNECT_TIMEOUT", "300ms")
    done = cli("doctor", "--topic", "ticks", "--bootstrap", "127.0.0.1:9")
    assert done.code == 5
    assert is_one_sentence(done.err)


def test_a_sample_too_short_for_its_windows_says_so_and_gives_what_publishes(
    cli: Cli, tmp_path: Path
) -> None:
    simulated(tmp_path, duration_s=60.0)
    found = said(cli, "ticks.jsonl")
    assert found["recommended"]["sample_too_short"]
    tree = tomllib.loads(found["config"])
    assert tree["universe"][0]["ewma"]["window"] == tree["universe"][0]["bar"]
    (tmp_path / "short.toml").write_text(found["config"])
    replayed = cli("replay", "ticks.jsonl", "-c", "short.toml", "--json")
    assert orjson.loads(replayed.out)["matrices"] > 0


def test_names_in_messages_are_shown_and_not_obeyed(cli: Cli, tmp_path: Path) -> None:
    name = "[bold]A[/]\x1b[2J"
    rows = [
        {"symbol": symbol, "time": START_NS + k * 10**9, "price": 10.0 + (7 * k) % 5}
        for k in range(60)
        for symbol in (name, "B")
    ]
    (tmp_path / "odd.jsonl").write_bytes(lines(rows))
    done = cli("doctor", "odd.jsonl")
    assert done.code == 0
    assert "\x1b" not in done.out
    assert "[bold]A[/]?[2J" in done.out
    assert {*tomllib.loads(pasted(done.out))["universe"][0]["symbols"]} == {name, "B"}
