"""Which of the fits on a topic a version of a model is, and whose columns are whose."""

import base64
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import stream_calib as sc
from stream_calib.client.fits import is_of, published_fit
from stream_calib.errors import InputError
from stream_calib.estimation.calibrated import dcc_report
from stream_calib.values import Calibration, Fit, FitRequest, Output
from stream_calib.wire.calibrations import encode_calibration
from stream_calib.wire.fits import decode_fit, encode_fit
from tests.cli.command import Cli
from tests.client.test_recorded import write
from tests.engine.fits import made_up
from tests.real_parts import ROOT

SYMBOLS = ("X:A", "X:B", "X:C", "X:D")  # fits have them in the order of their names


def garched(number: int, symbols: tuple[str, ...] = SYMBOLS) -> Fit:
    """A fit in which every symbol has a volatility of its own."""
    fit = made_up(number, symbols)
    omega = 1e-6 * (1.0 + np.arange(len(symbols))) + 1e-9 * number
    garch = np.array([np.zeros(4), omega, omega * 0 + 0.05, omega * 0 + 0.9, omega * 0])
    return Fit(fit.model, {**fit.arrays, "garch": np.vstack([garch, np.full(4, np.nan)])})


def calibration(fit: Fit, version: int, symbols: tuple[str, ...] = SYMBOLS) -> Output:
    number = int(fit.arrays["request"][0])
    request = FitRequest("dcc", number, "schedule", 5, {"from_ns": 1}, {})
    report = dcc_report(fit, request, symbols)
    return encode_calibration(Calibration("fx", version, 5, "dcc", report), "calib.calibrations", 0)


def facts(fit: Fit, version: int = 2, symbols: tuple[str, ...] = SYMBOLS) -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads(calibration(fit, version, symbols).value)
    return document


@given(st.integers(1, 60), st.integers(1, 60))
def test_a_record_is_of_the_fit_with_the_same_numbers_alone(one: int, other: int) -> None:
    assume(one != other)
    said = facts(made_up(one, SYMBOLS))
    assert is_of(made_up(one, SYMBOLS), said)
    assert not is_of(made_up(other, SYMBOLS), said)


def test_a_fit_is_told_with_its_symbols_and_what_it_returns_to() -> None:
    fit = garched(1)
    # reports name the symbols in the order of the settings
    found = published_fit(fit, facts(fit, 7))
    assert (found.universe, found.model_version, found.time_ns) == ("fx", 7, 5)
    assert found.symbols == SYMBOLS
    np.testing.assert_array_equal(np.diagonal(found.long_run), np.ones(4))
    np.testing.assert_array_equal(found.long_run, found.params.target)


def test_symbols_that_a_fit_leaves_out_return_to_its_average() -> None:
    fit = garched(1)
    garch, target = fit.arrays["garch"].copy(), np.full((4, 4), np.nan)
    garch[:, [0, 3]] = np.nan
    target[np.ix_([1, 2], [1, 2])] = [[1.0, 0.6], [0.6, 1.0]]
    parts = {"garch": garch, "target": target[np.triu_indices(4)], "asymmetry": np.empty(0)}
    parts |= {"kind": np.zeros(1), "dcc": np.array([0.02, 0.9, 0.0])}
    some = Fit(fit.model, {**fit.arrays, **parts})
    found = published_fit(some, facts(some))
    assert found.symbols == SYMBOLS
    np.testing.assert_array_equal(found.long_run, np.where(np.eye(4) > 0, 1.0, 0.6))


async def test_fit_is_found_in_an_output_file(tmp_path: Path) -> None:
    records: list[Output] = []
    for number in (1, 2, 3):
        fit = garched(number)
        records += [*encode_fit(fit, "calib.fits", 0, "fx")[1], calibration(fit, number + 1)]
    path = tmp_path / "out.jsonl"
    path.write_bytes(await write(records))
    for version in (2, 3, 4):
        found = sc.read_fit(path, "fx", version)
        assert found.model_version == version
        np.testing.assert_array_equal(found.garch.omega, garched(version - 1).arrays["garch"][1])
    with pytest.raises(InputError, match=r"out.jsonl: model version 5 of universe 'fx' is not the"):
        sc.read_fit(str(path), "fx", 5)
    path.write_bytes(await write(records[1:]))
    with pytest.raises(InputError, match=r"the fit of model version 2 of universe 'fx' is not th"):
        sc.read_fit(path, "fx", 2)


@pytest.mark.full
def test_every_version_of_a_replay_is_of_one_fit_and_forecasts_return_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ticks, settings = ROOT / "replay_data" / "demo_ticks.jsonl.zst", ROOT / "examples" / "demo.toml"
    cli = Cli(tmp_path, monkeypatch)
    assert cli(capsys, "replay", ticks, "-c", settings, "--out", "out.jsonl").code == 0
    path = tmp_path / "out.jsonl"
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    said = [line["value"] for line in lines if line["topic"].endswith(".calibrations")]
    fits = [
        decode_fit([base64.b64decode(line["value"])], line["headers"]["hash"])
        for line in lines
        if line["topic"].endswith(".fits")
    ]
    assert [s["reason"] for s in said] == ["first", "schedule", "drift", "drift"]
    assert len(fits) > len(said)  # of some targets nothing came
    matrices = {m.model_version: m for m in sc.read_matrices(path, estimator="dcc")}
    for document in said:
        assert sum(is_of(fit, document) for fit in fits) == 1
        m = matrices[document["model_version"]]
        found = sc.read_fit(path, "demo", m.model_version)
        assert found.symbols == tuple(sorted(sc.load_config(settings).universe[0].symbols))
        places = [found.symbols.index(symbol) for symbol in m.symbols]
        mean = found.long_run[np.ix_(places, places)]
        gone = [np.abs(m.forecast(k, found) - mean).max() for k in (1, 10, 100, 1_000_000)]
        assert sorted(gone, reverse=True) == gone
        # a + b is at most .9999, e^-100 is left
        assert gone[-1] < 1e-12


def test_versions_are_told_by_what_was_written() -> None:
    fit = garched(3)
    name, outputs = encode_fit(fit, "calib.fits", 0, "fx")
    again = decode_fit([output.value for output in outputs], name)
    assert is_of(again, facts(fit))
    changed = dataclasses.replace(
        again, arrays={**again.arrays, "dcc": again.arrays["dcc"] * (1.0 + 1e-15)}
    )
    assert not is_of(changed, facts(fit))
