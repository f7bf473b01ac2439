"""The notebook-style example runs, and what it shows is so."""

import runpy

import pytest

import stream_calib as sc
from tests.real_parts import ROOT


def test_the_example_runs_and_shows_the_break(capsys: pytest.CaptureFixture[str]) -> None:
    cells = runpy.run_path(str(ROOT / "examples" / "replay.py"))
    said = capsys.readouterr().out
    # what README says of the demo: +0.24 before, +0.74 after are true
    assert cells["before"] == pytest.approx(0.24, abs=0.1)
    assert cells["after"] == pytest.approx(0.74, abs=0.1)
    assert cells["hedged"] < cells["alone"]
    assert cells["pair"].lower < cells["pair"].corr < cells["pair"].upper
    assert len(cells["last"].symbols) == 12
    assert {m.estimator for m in cells["matrices"]} == {"ewma", "dcc"}
    assert all(isinstance(m, sc.Matrix) for m in cells["matrices"])
    assert "SIM:TECH3" in said
