"""Full fits: asked for, installed or given up, and what is said of them."""

from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from stream_calib.values import NO_TIME, Fit, FitFailure, Step
from tests.engine.driver import SECOND
from tests.engine.fits import made_up
from tests.engine.schedule import (
    Run,
    bits_of,
    dense_run,
    details,
    events_of,
    last_matrix,
    read_dense,
)

DCC = {"bar": "1s", "window_bars": 40, "first_fit_bars": 20, "refit_bars": 10}


def asked_run(symbols: str = "ABC", n: int = 25, late: str = "when_ready") -> Run:
    """A run that waits for its first fit."""
    run = dense_run(symbols, n, universe__dcc=DCC, refit__late=late)
    assert run.engine.pending_fit() is not None
    return run


def test_a_fit_is_asked_for_when_there_is_enough_history() -> None:
    run = dense_run("ABC", 20, universe__dcc=DCC)
    assert run.engine.pending_fit() is None
    read_dense(run, 20, 21)  # the first bar has no return
    request = run.engine.pending_fit()
    assert request is not None
    assert (request.number, request.reason) == (1, "first")
    assert str(request.as_of_ns) == last_matrix(run)["as_of_ns"]
    assert request.arrays["returns"].shape == (20, 3)
    assert details(run, "refit_requested") == [{"model": "dcc", "number": 1, "reason": "first"}]


def test_a_fit_that_is_installed_raises_the_model_version_and_is_announced() -> None:
    run = asked_run()
    as_of_ns = last_matrix(run)["as_of_ns"]
    run.take(Step(installs=(made_up(1, "ABC"),)))
    (installed,) = [event for event in events_of(run) if event["type"] == "refit_installed"]
    assert installed["details"] == {"model": "dcc", "model_version": 2, "reason": "first"}
    assert installed["time_ns"] == as_of_ns
    read_dense(run, 25, 26)
    assert {matrix["estimator"] for matrix in matrices_of(run)[-2:]} == {"ewma", "dcc"}
    assert {matrix["model_version"] for matrix in matrices_of(run)[-2:]} == {2}


def test_the_model_in_force_is_as_old_as_its_bars_before_a_restart_and_after() -> None:
    run = asked_run()
    assert run.engine.model() == (1, NO_TIME)
    request = run.engine.pending_fit()
    assert request is not None
    run.take(Step(installs=(made_up(1, "ABC"),)))
    read_dense(run, 25, 26)
    assert run.engine.model() == (2, request.as_of_ns)
    run.restore()
    assert run.engine.model() == (2, request.as_of_ns)


def test_a_calibration_says_what_came_into_force() -> None:
    run = asked_run()
    fit = made_up(1, "ABC")
    run.take(Step(installs=(fit,)))
    (record,) = run.outputs["calibrations"]
    assert record.key == b"u|2"
    told = orjson.loads(record.value)
    assert (told["model"], told["model_version"], told["reason"]) == ("dcc", 2, "first")
    assert told["correlation"]["a"] == {"value": fit.arrays["dcc"][0], "se": 0.01}
    assert told["window"]["bars"] == 20
    assert set(told["garch"]) == {"A", "B", "C"}
    assert told["diagnostics"] == {"mean": 0.5}


def test_a_fit_that_nobody_asked_for_is_refused() -> None:
    run = asked_run()
    before = {name: b for name, b in run.bits().items() if name != "engine.facts"}
    run.take(Step(installs=(made_up(2, "ABC"),)))
    assert details(run, "refit_rejected") == [{"model": "dcc", "reason": "it was not asked for"}]
    assert {name: b for name, b in run.bits().items() if name != "engine.facts"} == before
    assert run.engine.pending_fit() is not None


def damaged(number: int, **arrays: Any) -> Fit:
    return Fit("dcc", {**made_up(number, "ABC").arrays, **arrays})


@pytest.mark.parametrize(
    ("fit", "reason"),
    [
        (damaged(1, dcc=np.array([0.1, 0.95, 0.0])), "not stationary"),
        (damaged(1, dcc=np.array([np.nan, 0.9, 0.0])), "numbers that are none"),
        (damaged(1, dcc=np.array([-0.1, 0.9, 0.0])), "not stationary"),
        (damaged(1, target=np.array([1.0, 0.99, -0.99, 1.0, 0.99, 1.0])), "positive definite"),
        (damaged(1, target=np.array([1.0, np.nan, 0.1, 1.0, 0.1, 1.0])), "numbers that are none"),
        (damaged(1, target=np.ones(1)), "other than 3 symbols"),
        (damaged(1, garch=np.full((6, 3), 0.9)), "a volatility is not stationary"),
        (Fit("dcc", {"request": np.ones(1)}), "not whole"),
        (damaged(1, garch=np.full((6, 3), -0.1)), "a volatility is not stationary"),
        (damaged(1, counts=np.full(3, np.nan)), "numbers that are none"),
        (damaged(1, kind=np.array([2.0]), dcc=np.array([0.1, 0.8, 0.5])), "needs its asymmetry"),
        (damaged(1, kind=np.array([0.0]), dcc=np.array([0.1, 0.8, 0.1])), "g must be"),
        (
            damaged(
                1,
                kind=np.array([2.0]),
                dcc=np.array([0.1, 0.8, 0.5]),
                asymmetry=np.array([0.5, 0.1, 0.1, 0.5, 0.1, 0.5]),
            ),
            "too much beside",
        ),
    ],
)
def test_a_fit_that_cannot_be_used_keeps_the_old_model(fit: Fit, reason: str) -> None:
    run = asked_run()
    run.take(Step(installs=(made_up(1, "ABC"),)))
    read_dense(run, 25, 35)
    request = run.engine.pending_fit()
    assert request is not None
    own = Fit(fit.model, {**fit.arrays, "request": np.array([float(request.number)])})
    run.take(Step(installs=(own,)))
    assert reason in details(run, "refit_rejected")[-1]["reason"]
    assert len(run.outputs["calibrations"]) == 1
    read_dense(run, 35, 36)
    assert matrices_of(run)[-1]["model_version"] == 2
    assert matrices_of(run)[-1]["estimator"] == "dcc"


def test_a_parameter_that_misses_its_bound_by_rounding_is_no_matter() -> None:
    run = asked_run()
    garch = made_up(1, "ABC").arrays["garch"].copy()
    garch[:, 0] = [0.0, 1e-6, 0.9999 + 1e-12, -8.8e-18, 0.0, np.nan]
    run.take(Step(installs=(damaged(1, garch=garch),)))
    assert details(run, "refit_rejected") == []


def test_what_no_fit_came_of_is_said_and_asked_for_again() -> None:
    run = asked_run()
    failure = FitFailure("dcc", 1, "timeout", "it took more than 60 s")
    run.take(Step(failures=(failure,)))
    told = {"model": "dcc", "code": "timeout", "reason": "it took more than 60 s"}
    assert details(run, "refit_failed") == [told]
    assert run.engine.pending_fit() is None
    read_dense(run, 25, 29)
    request = run.engine.pending_fit()
    assert request is not None
    assert (request.number, request.reason) == (2, "first")


def test_what_is_asked_for_is_kept_to_the_last_bit() -> None:
    run = asked_run()
    before = run.engine.pending_fit()
    run.restore(on_the_wire=True)
    after = run.engine.pending_fit()
    assert before is not None
    assert after is not None
    assert bits_of(after.arrays) == bits_of(before.arrays)
    assert replace(after, arrays={}) == replace(before, arrays={})


def test_no_bar_goes_ahead_of_a_fit_that_is_waited_for() -> None:
    run = asked_run(late="wait")
    held_ns = int(last_matrix(run)["as_of_ns"])
    read_dense(run, 25, 40)
    assert int(last_matrix(run)["as_of_ns"]) == held_ns
    run.take(Step(installs=(made_up(1, "ABC"),)))
    # on to where the next one is asked for
    assert int(last_matrix(run)["as_of_ns"]) == held_ns + 10 * SECOND
    assert int(details_time(run, "refit_installed")) == held_ns
    run.take(Step(failures=(FitFailure("dcc", 2, "crashed", "x"),)))
    assert int(last_matrix(run)["as_of_ns"]) > held_ns + 10 * SECOND


def test_a_fit_changes_no_correlation_of_the_other_estimator() -> None:
    plain, fitted = asked_run(), asked_run()
    fitted.take(Step(installs=(made_up(1, "ABC"),)))
    for run in (plain, fitted):
        read_dense(run, 25, 60)
    one, other = (
        [matrix["corr"] for matrix in matrices_of(run) if matrix["estimator"] == "ewma"]
        for run in (plain, fitted)
    )
    assert one == other


def matrices_of(run: Run) -> list[dict[str, Any]]:
    return [orjson.loads(output.value) for output in run.outputs["correlations"]]


def details_time(run: Run, type_: str) -> str:
    return str([event["time_ns"] for event in events_of(run) if event["type"] == type_][-1])


def test_a_refit_that_is_demanded_is_asked_for_at_the_next_bar() -> None:
    run = asked_run()
    run.take(Step(installs=(made_up(1, "ABC"),)))
    run.take(Step(refit=True))
    assert run.engine.pending_fit() is None
    run.restore(on_the_wire=True)
    read_dense(run, 25, 26)
    request = run.engine.pending_fit()
    assert request is not None
    assert (request.number, request.reason) == (2, "manual")
    run.take(Step(installs=(made_up(2, "ABC"),)))
    assert details(run, "refit_installed")[-1]["reason"] == "manual"
