"""Whoever waits for the kernels to be compiled is told so."""

import time

import pytest

from stream_calib.cli import run


def test_a_slow_load_says_what_it_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "SLOW_LOAD_S", 0.0)
    # loaded already here: the timer, due at once, may lose against nothing at all
    deadline_s = time.monotonic() + 60
    err = ""
    while not err and time.monotonic() < deadline_s:
        run.load_kernels(fits=True)
        time.sleep(0.01)
        err = capsys.readouterr().err
    assert err.splitlines()[0] == run.COMPILING


def test_a_quick_load_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    run.load_kernels(fits=True)  # whatever it took the first time
    capsys.readouterr()
    told: list[str] = []
    assert run.load_kernels(fits=True, say=told.append) < run.SLOW_LOAD_S
    assert (told, capsys.readouterr().err) == ([], "")
