"""For tests of the command line: a configuration, a few ticks, and a way to run commands."""

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

import stream_calib as sc
from tests.cli.command import Cli, Done

CONFIG = """
[[universe]]
name = "sim"
symbols = ["SIM:BANK1", "SIM:TECH1", "SIM:ENRG1"]
bar = "1s"
[universe.ewma]
half_life = "1m"
window = "1s"
"""


@pytest.fixture
def cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """Run a command inside this process, in a folder with settings.toml and ticks.jsonl."""
    (tmp_path / "settings.toml").write_text(CONFIG)
    ticks = sc.simulate(3, 60.0, seed=7, rate_hz=5.0)
    lines = (orjson.dumps(tick, option=orjson.OPT_APPEND_NEWLINE) for tick in ticks.records())
    (tmp_path / "ticks.jsonl").write_bytes(b"".join(lines))
    here = Cli(tmp_path, monkeypatch)
    return lambda *words: here(capsys, *words)
