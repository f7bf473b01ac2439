"""``doctor``: what it finds before anything is started."""

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from stream_calib.config import parse_duration
from tests.cli.command import DEMO_TICKS, Done, is_one_sentence

UNIVERSE = """
[[universe]]
name = "u"
symbols = ["A", "B", "C"]
"""
START_NS = 1_700_000_000_000_000_000


@pytest.fixture
def folder(cli: Callable[..., Done], tmp_path: Path) -> Path:
    rows = []
    for second in range(600):
        rows.append({"symbol": "A", "time": START_NS + second * 10**9, "price": 100.0})
        if second % 50 == 0:
            rows.append({"symbol": "B", "time": START_NS + second * 10**9 + 1, "price": 50.0})
    (tmp_path / "slow.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    (tmp_path / "u.toml").write_text(UNIVERSE)
    return tmp_path


def test_ticks_that_are_frequent_enough_are_nothing_to_complain_about(
    cli: Callable[..., Done], folder: Path
) -> None:
    names = ", ".join(f'"SIM:{kind}{i}"' for kind in ("BANK", "TECH", "ENRG") for i in range(1, 5))
    (folder / "demo.toml").write_text(UNIVERSE.replace('"A", "B", "C"', names))
    done = cli("doctor", "-c", "demo.toml", str(DEMO_TICKS))
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == "nothing to complain about"


def test_symbols_that_tick_too_seldom_are_named_with_a_window_that_would_do(
    cli: Callable[..., Done], folder: Path
) -> None:
    done = cli("doctor", "-c", "u.toml", "slow.jsonl")
    assert done.code == 0
    warnings = [line for line in done.out.splitlines() if line.startswith("warning")]
    assert len(warnings) == 3
    assert "no tick of C was seen" in warnings[0]
    assert "B tick less than three times in a window of 1m" in warnings[1]
    window = warnings[1].partition('ewma.window = "')[2].partition('"')[0]
    # B ticks every fifty seconds; its rate is told from the middle of the sample
    assert 140 <= parse_duration(window) / 1e9 <= 165
    assert "B tick less than three times in a DCC bar of 1m" in warnings[2]
    assert warnings[2].endswith('dcc.bar = "3m" would do')  # in whole bars of now


def test_a_broker_that_is_not_there_ends_it_as_it_would_run(
    cli: Callable[..., Done], folder: Path
) -> None:
    text = '[kafka]\nbootstrap_servers = "127.0.0.1:9"\nconnect_timeout = "300ms"\n'
    (folder / "away.toml").write_text(text + UNIVERSE)
    done = cli("doctor", "-c", "away.toml")
    assert done.code == 5
    assert is_one_sentence(done.err)


@pytest.mark.parametrize("verb", [("doctor", "slow.jsonl"), ("replay", "slow.jsonl"), ("run",)])
@pytest.mark.parametrize(
    "calendar",
    ['zone = "Mars/Base"\nsessions = ["09:30-16:00"]', 'sessions = ["09:30-16:00", "10:00-12:00"]'],
)
def test_a_calendar_that_cannot_be_is_refused_by_its_key(
    cli: Callable[..., Done], folder: Path, calendar: str, verb: tuple[str, ...]
) -> None:
    (folder / "bad.toml").write_text(f"[calendar.odd]\n{calendar}\n{UNIVERSE}calendar = 'odd'\n")
    done = cli(*verb, "-c", "bad.toml")
    assert done.code == 3
    assert "calendar.odd" in done.err
    assert is_one_sentence(done.err)
