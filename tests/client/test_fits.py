"""Which of the fits on a topic a version of a model is, and whose columns are whose."""

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
from stream_calib.service.replay import replay_effects
from stream_calib.values import Calibration, Fit, FitRequest, Matrix, Output
from stream_calib.wire.calibrations import encode_calibration
from stream_calib.wire.fits import decode_fit, encode_fit
from tests.engine.fits import made_up
from tests.real_parts import ROOT

SYMBOLS = ("X:C", "X:A", "X:D", "X:B")


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
    # in another order, as after a restart with the symbols listed anew
    assert is_of(made_up(one, SYMBOLS[::-1]), said)


def test_columns_are_named_by_their_volatilities() -> None:
    fit = garched(1)
    found = published_fit(fit, facts(fit, 7))
    assert (found.universe, found.model_version, found.time_ns) == ("fx", 7, 5)
    assert found.symbols == SYMBOLS
    np.testing.assert_array_equal(np.diagonal(found.long_run), np.ones(4))
    np.testing.assert_array_equal(found.long_run, found.params.target)
    # it is also what is said of the symbols when they come in another order
    assert published_fit(fit, facts(fit, 7), SYMBOLS).symbols == SYMBOLS
    with pytest.raises(InputError, match=r"^symbols are not those of 'fx' in the order"):
        published_fit(fit, facts(fit, 7), SYMBOLS[::-1])
    with pytest.raises(InputError, match=r"^symbols are not those of 'fx' in the order"):
        published_fit(fit, facts(fit, 7), ["X:Z", *SYMBOLS[1:]])


def test_symbols_of_the_same_volatility_have_to_be_named() -> None:
    fit = garched(1)
    garch = fit.arrays["garch"].copy()
    garch[:, 2] = garch[:, 0]
    alike = Fit(fit.model, {**fit.arrays, "garch": garch})
    with pytest.raises(InputError, match=r"^'X:C' and 'X:D' have the same volatility: give"):
        published_fit(alike, facts(alike))
    assert published_fit(alike, facts(alike), SYMBOLS).symbols == SYMBOLS


def test_symbols_that_a_fit_leaves_out_return_to_its_average() -> None:
    fit = garched(1)
    garch, target = fit.arrays["garch"].copy(), np.full((4, 4), np.nan)
    garch[:, [0, 3]] = np.nan
    target[np.ix_([1, 2], [1, 2])] = [[1.0, 0.6], [0.6, 1.0]]
    parts = {"garch": garch, "target": target[np.triu_indices(4)], "asymmetry": np.empty(0)}
    parts |= {"kind": np.zeros(1), "dcc": np.array([0.02, 0.9, 0.0])}
    some = Fit(fit.model, {**fit.arrays, **parts})
    found = published_fit(some, facts(some))
    assert sorted(found.symbols) == sorted(SYMBOLS)
    assert (found.symbols[1], found.symbols[2]) == ("X:A", "X:D")
    np.testing.assert_array_equal(found.long_run, np.where(np.eye(4) > 0, 1.0, 0.6))


@pytest.mark.full
def test_every_version_of_a_replay_is_of_one_fit_and_forecasts_return_to_it() -> None:
    config = sc.load_config(ROOT / "examples" / "demo.toml")
    matrices: dict[int, Matrix] = {}
    records: list[Output] = []
    for runner, effects in replay_effects([_demo_ticks()], config):
        records += [o for o in runner.outputs(effects) if o.topic.endswith("calibrations")]
        matrices |= {m.model_version: m for m in effects.matrices if m.estimator == "dcc"}
        kept = runner.fits
    said = [orjson.loads(record.value) for record in records]
    fits = [decode_fit([o.value], dict(o.headers)["hash"].decode()) for o in kept]
    assert [s["reason"] for s in said] == ["first", "schedule", "drift", "drift"]
    for document in said:
        (fit,) = [fit for fit in fits if is_of(fit, document)]
        found = published_fit(fit, document)
        assert found.symbols == config.universe[0].symbols
        m = matrices[found.model_version]
        mean = found.long_run[np.ix_(*[[found.symbols.index(s) for s in m.symbols]] * 2)]
        gone = [np.abs(m.forecast(k, found) - mean).max() for k in (1, 10, 100, 1_000_000)]
        assert sorted(gone, reverse=True) == gone
        # a + b is at most .9999, e^-100 is left
        assert gone[-1] < 1e-12


def _demo_ticks() -> Path:
    return ROOT / "replay_data" / "demo_ticks.jsonl.zst"


def test_versions_are_told_by_what_was_written() -> None:
    fit = garched(3)
    name, outputs = encode_fit(fit, "calib.fits", 0, "fx")
    again = decode_fit([output.value for output in outputs], name)
    assert is_of(again, facts(fit))
    changed = dataclasses.replace(
        again, arrays={**again.arrays, "dcc": again.arrays["dcc"] * (1.0 + 1e-15)}
    )
    assert not is_of(changed, facts(fit))
