"""``fit``: DCC-GARCH of recorded ticks."""

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from tests.cli.command import DEMO_TICKS, Done

SETTINGS = """
[[universe]]
name = "demo"
symbols = ["SIM:BANK1", "SIM:BANK2", "SIM:TECH1", "SIM:ENRG4"]
bar = "5s"
ewma.window = "20s"
dcc = { bar = "20s", first_fit_bars = 100, window_bars = 360 }
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "settings.toml"
    file.write_text(SETTINGS)
    return file


def test_a_fit_is_printed_with_its_standard_errors(cli: Callable[..., Done], config: Path) -> None:
    done = cli("fit", "--config", config, DEMO_TICKS)
    assert done.code == 0
    first, *rows = done.out.splitlines()
    assert first.startswith("demo: cdcc a 0.")
    assert " ± " in first
    assert "over 360 bars" in " ".join(done.out.split())
    assert {"SIM:BANK1", "SIM:BANK2", "SIM:TECH1", "SIM:ENRG4"} <= {
        row.split()[0] for row in rows if row.strip()
    }


def test_as_json_it_is_what_the_service_would_publish(
    cli: Callable[..., Done], config: Path
) -> None:
    done = cli("fit", "--config", config, "--json", DEMO_TICKS)
    assert done.code == 0
    report = orjson.loads(done.out)["demo"]
    assert report["reason"] == "manual"
    assert report["window"]["bars"] == 360
    assert 0.0 < report["correlation"]["a"]["value"] < 0.5
    # the truth jumps from .24 to .74 on average in the middle of the window, or nearly
    assert 0.0 < report["correlation"]["target_average"] < 0.7
    assert report["left_out"] == []
    assert set(report["garch"]) == {"SIM:BANK1", "SIM:BANK2", "SIM:TECH1", "SIM:ENRG4"}
    assert report["correlation"]["loglik"] < 0.0


def test_ticks_that_do_not_last_are_told_in_a_sentence(
    cli: Callable[..., Done], tmp_path: Path, config: Path
) -> None:
    ticks = tmp_path / "few.jsonl"
    rows = [
        orjson.dumps({"symbol": symbol, "time": 1741098600 + k, "price": 100.0 + k % 3})
        for k in range(60)
        for symbol in ("SIM:BANK1", "SIM:BANK2")
    ]
    ticks.write_bytes(b"\n".join(rows))
    done = cli("fit", "--config", config, ticks)
    assert done.code == 4
    assert "universe 'demo' cannot be fitted: 0 symbols have 50 usable returns" in done.err


def test_without_the_model_there_is_nothing_to_fit(
    cli: Callable[..., Done], tmp_path: Path, config: Path
) -> None:
    config.write_text(SETTINGS.replace("dcc = { ", "dcc = { enabled = false, "))
    done = cli("fit", "--config", config, DEMO_TICKS)
    assert done.code == 4
    assert "no universe has dcc.enabled" in done.err
