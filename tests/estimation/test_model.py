"""One full fit as the service makes it."""

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from stream_calib.estimation.calibrated import dcc_params, dcc_report, garch_params, misfit
from stream_calib.estimation.calibration.model import calibrate
from stream_calib.values import F64, Fit, FitFailure, FitRequest
from tests.estimation.test_dcc_band import cdcc_truth
from tests.real_parts import ROOT

SETTINGS: dict[str, Any] = {
    "model": "cdcc",
    "likelihood": "auto",
    "leverage": False,
    "target": "qis",
    "winsor": 3.0,
    "vol_half_life_bars": 20.0,
    "first_fit_bars": 250,
    "pooled_below_bars": 1000,
    "from_ns": 0,
}


def returns_of(n: int, seed: int, rows: int = 1200) -> F64:
    """Returns with GARCH(1,1) volatility and correlation by cDCC (.05, .93)."""
    z, _ = cdcc_truth(0.05, 0.93, n, seed)
    variance, out = np.full(n, 1e-6), []
    for row in z[:rows]:
        r = np.sqrt(variance) * row
        out.append(r)
        variance = 1e-6 * 0.05 + 0.08 * r * r + 0.87 * variance
    return np.array(out)


def asked(returns: F64, **settings: Any) -> FitRequest:
    exposure = np.where(np.isnan(returns), 0.0, 1.0)
    arrays = {"returns": returns, "exposure": exposure, "elapsed": np.ones(len(returns))}
    return FitRequest("dcc", 7, "first", 10**18, SETTINGS | settings, arrays)


def fitted(returns: F64, **settings: Any) -> Fit:
    answer = calibrate(asked(returns, **settings))
    assert isinstance(answer, Fit), answer
    return answer


def test_the_truth_is_found_again() -> None:
    found = fitted(returns_of(4, 3))
    dcc, garch = dcc_params(found), garch_params(found)
    # errors of a few standard errors of 1200 rows, as the report itself says
    report = dcc_report(found, asked(returns_of(4, 3)), "ABCD")
    errors: Any = report["correlation"]
    assert abs(dcc.a - 0.05) <= 4.0 * errors["a"]["se"]
    assert abs(dcc.b - 0.93) <= 4.0 * errors["b"]["se"]
    assert np.abs(garch.alpha - 0.08).max() <= 0.06
    assert misfit(found, 4) == ""


def test_the_same_window_gives_the_same_bytes() -> None:
    one, other = (fitted(returns_of(5, 1)) for _ in range(2))
    assert {k: a.tobytes() for k, a in one.arrays.items()} == {
        k: a.tobytes() for k, a in other.arrays.items()
    }


def test_few_symbols_are_fitted_by_the_full_likelihood_and_many_pair_by_pair() -> None:
    returns = returns_of(3, 2)
    auto, full, pairs = (
        fitted(returns, likelihood=name).arrays["dcc"].tolist()
        for name in ("auto", "full", "composite")
    )
    assert auto == full != pairs


def test_short_histories_share_their_volatility_parameters() -> None:
    garch = garch_params(fitted(returns_of(4, 4, rows=600)))
    assert len(set(garch.alpha.tolist())) == len(set(garch.beta.tolist())) == 1


def test_a_symbol_with_too_few_returns_is_left_out_and_stays_nan() -> None:
    returns = returns_of(4, 5)
    returns[:-50, 2] = np.nan
    found = fitted(returns)
    target = dcc_params(found).target
    assert np.isnan(target[2]).all()
    assert np.isfinite(np.delete(np.delete(target, 2, 0), 2, 1)).all()
    assert np.isnan(garch_params(found).alpha[2])
    assert dcc_report(found, asked(returns), "ABCD")["left_out"] == ["C"]


def test_a_price_that_stands_still_harms_no_other() -> None:
    returns = returns_of(4, 6)
    returns[:, 1] = 0.0
    found = fitted(returns)
    assert np.isnan(garch_params(found).alpha[1])
    assert np.isnan(dcc_params(found).target[1, 0])
    assert np.isfinite(garch_params(found).alpha[[0, 2, 3]]).all()


def test_without_dynamics_correlation_is_constant() -> None:
    rng = np.random.default_rng(8)
    common = rng.standard_normal((1200, 1))
    found = fitted(1e-3 * (common + rng.standard_normal((1200, 4))))
    dcc = dcc_params(found)
    report: Any = dcc_report(found, asked(np.zeros((1, 4))), "ABCD")
    assert dcc.a <= 0.02
    assert report["correlation"]["model"] in {"cdcc", "constant"}
    assert report["correlation"]["target_average"] == pytest.approx(0.5, abs=0.08)  # 3 of .027


@pytest.mark.parametrize("model", ["dcc", "cdcc", "adcc"])
@pytest.mark.parametrize("target", ["qis", "ledoit_wolf", "none"])
def test_every_model_and_target_gives_a_fit_that_can_be_used(model: str, target: str) -> None:
    returns = returns_of(4, 9)
    returns[np.random.default_rng(9).random(returns.shape) < 0.05] = np.nan
    found = fitted(returns, model=model, target=target, leverage=True)
    assert misfit(found, 4) == ""
    assert dcc_params(found).model in {model, "dcc"}


def test_what_cannot_be_fitted_is_told_in_a_sentence() -> None:
    answer = calibrate(asked(np.full((300, 3), np.nan)))
    assert isinstance(answer, FitFailure)
    assert (answer.number, answer.code) == (7, "too_few")
    assert "0 symbols have 125 usable returns" in answer.reason


def test_of_two_that_never_meet_the_one_seen_less_is_left_out() -> None:
    returns = returns_of(4, 10)
    returns[:700, 1] = np.nan
    returns[700:, 3] = np.nan
    target = dcc_params(fitted(returns)).target
    assert np.isnan(target[1]).all()
    assert np.isfinite(target[np.ix_([0, 2, 3], [0, 2, 3])]).all()


def test_returns_of_an_absurd_size_harm_no_other() -> None:
    returns = returns_of(4, 11)
    returns[:, 0] *= 1e200
    target = dcc_params(fitted(returns)).target
    assert np.isfinite(target[1:, 1:]).all()


def test_a_short_history_has_a_pooled_volatility_beside_long_ones() -> None:
    returns = returns_of(4, 12)
    returns[:600, 2:] = np.nan
    garch = garch_params(fitted(returns))
    assert len(set(garch.alpha.tolist())) == 3
    assert garch.alpha[2] == garch.alpha[3]


def test_twins_have_no_say_in_the_dynamics_of_others() -> None:
    returns = returns_of(4, 13)
    returns[:, 3] = returns[:, 2]
    found = fitted(returns)
    dcc = dcc_params(found)
    assert misfit(found, 4) == ""
    assert dcc.a + dcc.b <= 0.9995


@pytest.mark.parametrize("likelihood", ["full", pytest.param("composite", marks=pytest.mark.full)])
def test_the_number_of_blas_threads_does_not_show(likelihood: str) -> None:
    code = (
        "import hashlib; from tests.estimation.test_model import fitted, returns_of\n"
        f"found = fitted(returns_of(12, 14), likelihood={likelihood!r}).arrays\n"
        "text = b''.join(found[name].tobytes() for name in sorted(found))\n"
        "print(hashlib.sha256(text).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"OPENBLAS_NUM_THREADS": str(n), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for n in (1, 2)
    }
    assert len(digests) == 1


def test_a_volatility_without_news_is_constant_and_no_trend() -> None:
    # 300 rows of noise: half of the most likely alphas are 0, and then omega and beta draw a line
    noise = 0.01 * np.random.default_rng(5).standard_normal((300, 12))
    garch = garch_params(fitted(noise, pooled_below_bars=300, first_fit_bars=300))
    still = garch.alpha == 0.0
    assert still.sum() >= 3
    long_run = garch.omega / (1.0 - garch.alpha - garch.beta)
    assert long_run[still] == pytest.approx(np.mean(noise**2, axis=0)[still], rel=1e-12)
    # an alpha that is estimated may be low, and the level still a matter of 300 rows
    assert (np.abs(np.log(long_run / 1e-4)) < np.log(2.0)).all()


def test_a_request_that_makes_no_sense_has_an_answer_too() -> None:
    answer = calibrate(asked(np.full((300, 0), np.nan)))
    assert isinstance(answer, FitFailure)
    assert answer.reason


def test_dependence_is_measured_for_whoever_watches() -> None:
    returns = returns_of(4, 9)
    watched, alone = (fitted(returns, watched=watched).arrays for watched in (True, False))
    assert np.isfinite(watched["dependence"]).all()
    assert np.isnan(alone["dependence"]).all()
    for name in watched.keys() - {"dependence"}:
        assert watched[name].tobytes() == alone[name].tobytes()


def test_a_fit_by_name_says_so() -> None:
    returns = returns_of(3, 9)
    assert fitted(returns, by_name=True).arrays["by_name"].tolist() == [1.0]
    assert "by_name" not in fitted(returns).arrays
