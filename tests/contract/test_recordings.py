"""Every recording of real markets, replayed whole under `auto`: what becomes of each record."""

from pathlib import Path

import pytest

from replay_data.draw_recordings import account, recordings
from tests.real_parts import ROOT

SHORT = ("raw/", "ticks/phemex")  # of which a run takes seconds


def assert_as_written_down(folder: Path, *, short: bool) -> None:
    table = (ROOT / "replay_data" / "recordings.md").read_text().splitlines()
    written = {line.split(" | ")[0].removeprefix("| "): line for line in table if "| " in line}
    found = dict(recordings(folder))
    chosen = {name: path for name, path in found.items() if name.startswith(SHORT) == short}
    assert len(chosen) > 5
    for name, path in chosen.items():
        one = account(path)
        assert one.row(name) == written[name]
        # each record and each tick is accounted for once
        assert one.applied + one.not_applied.total() == one.n_ticks
        assert one.n_ticks + one.silent.total() + one.refused.total() >= one.n_records


def test_the_table_of_recordings_names_them_all(market_data: Path) -> None:
    table = (ROOT / "replay_data" / "recordings.md").read_text()
    for name, _ in recordings(market_data):
        assert f"| {name} |" in table


def test_short_recordings_become_what_is_written_down(market_data: Path) -> None:
    pytest.importorskip("databento_dbn", reason="the extra databento is not installed")
    assert_as_written_down(market_data, short=True)


@pytest.mark.full
def test_long_recordings_become_what_is_written_down(market_data: Path) -> None:
    assert_as_written_down(market_data, short=False)
