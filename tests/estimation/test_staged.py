"""A fit after an alarm: what moves, what stays, and what it is made of."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from stream_calib.estimation.calibrated import dcc_params, dcc_report, garch_params, misfit
from stream_calib.estimation.calibration.model import calibrate
from stream_calib.estimation.calibration.staged import refit_target
from stream_calib.estimation.calibration.tilting import (
    FOLDS,
    MOVES_MIN,
    PLENTY,
    PRIOR_SHARES,
    _filled,
    _tilts,
    move_target,
    scaled_news,
)
from stream_calib.values import F64, DccParams, Fit, FitFailure, FitRequest
from tests.estimation.loops import excess
from tests.estimation.test_model import asked, returns_of
from tests.oracles.tilting import fill_hole, tilt_score

N = 6


@pytest.fixture(scope="module")
def old() -> Fit:
    answer = calibrate(asked(returns_of(N, 5, 1000)))
    assert isinstance(answer, Fit)
    return answer


def after(old: Fit, returns: F64, **arrays: F64) -> FitRequest:
    request = asked(returns)
    kept = {f"old.{name}": array for name, array in old.arrays.items()}
    settings: Mapping[str, Any] = {**request.settings, "kind": "target", "drop_share": 0.1}
    return FitRequest("dcc", 9, "alarm", 10**18, settings, {**request.arrays, **kept, **arrays})


def drawn_target(rng: np.random.Generator, rows: int, n: int) -> F64:
    out: F64 = np.atleast_2d(np.corrcoef(rng.standard_normal((rows, n)).T))
    return out


def fused(rows: int, seed: int, r: float = 0.9) -> F64:
    """Returns of symbols that all move together, at the volatility of ``returns_of``."""
    rng = np.random.default_rng(seed)
    common, own = rng.standard_normal((rows, 1)), rng.standard_normal((rows, N))
    z: F64 = np.sqrt(r) * common + np.sqrt(1.0 - r) * own
    return 1e-3 * z


def moved(old: Fit, returns: F64, **arrays: F64) -> Fit:
    answer = refit_target(after(old, returns, **arrays))
    assert isinstance(answer, Fit), answer
    return answer


def test_only_the_target_moves_and_calibrate_does_the_same(old: Fit) -> None:
    request = after(old, fused(120, 1))
    found, same = moved(old, fused(120, 1)), calibrate(request)
    assert isinstance(same, Fit)
    assert {k: v.tobytes() for k, v in same.arrays.items()} == {
        k: v.tobytes() for k, v in found.arrays.items()
    }
    for name in ("dcc", "dcc_se", "kind", "garch", "garch_se", "asymmetry"):
        assert found.arrays[name].tobytes() == old.arrays[name].tobytes()
    assert found.arrays["request"][0] == 9.0
    assert misfit(found, N) == ""
    assert np.array_equal(garch_params(found).beta, garch_params(old).beta)


def test_symbols_that_fuse_get_a_target_nearer_to_what_they_do(old: Fit) -> None:
    truth = np.full((N, N), 0.9) + 0.1 * np.eye(N)
    before = excess(dcc_params(old).target, truth)
    after_ = excess(dcc_params(moved(old, fused(120, 2))).target, truth)
    # from 90 rows: three quarters of the way, in nats
    assert after_ < 0.25 * before


def test_the_report_says_what_was_done(old: Fit) -> None:
    returns = fused(100, 3)
    found = moved(old, returns)
    report: Any = dcc_report(found, after(old, returns), "ABCDEF")
    assert report["reason"] == "alarm"
    assert report["window"]["bars"] == 100
    facts = report["diagnostics"]
    plenty = min(1.0, PLENTY * N / (100 - 10))  # ten rows are nearest to the change
    left = 1.0 - facts["target.loosened"]
    shares = [facts["target.prior_rows"] / (N * plenty * left * share) for share in PRIOR_SHARES]
    assert min(abs(share - 1.0) for share in shares) <= 1e-12  # rounding
    assert facts["target.fused"] > 0.3
    assert facts["target.gain_per_bar"] > 0.0
    assert found.arrays["counts"].tolist() == [100.0] * N


def test_a_symbol_without_news_keeps_its_regression_on_the_others(old: Fit) -> None:
    returns = fused(120, 4)
    returns[:, 2] = np.nan
    returns[: MOVES_MIN - 1, 2] = 1e-3  # seen a few times
    target, before = dcc_params(moved(old, returns)).target, dcc_params(old).target
    rest = [0, 1, 3, 4, 5]

    def slope(corr: F64) -> F64:
        out: F64 = np.linalg.solve(corr[np.ix_(rest, rest)], corr[rest, 2]).astype(np.float64)
        return out

    # up to the scale of the symbol's own variance, which is one again
    one, other = slope(target), slope(before)
    # solving 5 equations twice
    assert np.allclose(one / np.linalg.norm(one), other / np.linalg.norm(other), atol=1e-9)


def test_symbols_that_the_old_fit_left_out_stay_out(old: Fit) -> None:
    whole = dcc_params(old).target
    whole[1], whole[:, 1] = np.nan, np.nan
    arrays = {**old.arrays, "target": whole[np.triu_indices(N)]}
    target = dcc_params(moved(Fit("dcc", arrays), fused(120, 5))).target
    assert np.isnan(target[1]).all()
    assert np.isfinite(np.delete(np.delete(target, 1, 0), 1, 1)).all()


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_missing_the_target_is_positive_definite(old: Fit, seed: int) -> None:
    rng = np.random.default_rng(seed)
    returns = fused(60, seed)
    returns[rng.random(returns.shape) < 0.5] = np.nan
    found = moved(old, returns)
    assert misfit(found, N) == ""
    assert np.linalg.eigvalsh(dcc_params(found).target)[0] > 1e-4


def test_a_known_variance_standardises_from_the_first_row(old: Fit) -> None:
    returns = fused(60, 7)
    loud = moved(old, 30.0 * returns, variance=np.full(N, 900e-6))
    plain = moved(old, returns, variance=np.full(N, 1e-6))
    # volatility comes back to its own level as 30 times louder returns are taken in: the
    # targets are not the same, but alike
    assert np.abs(dcc_params(loud).target - dcc_params(plain).target).max() < 0.1


def test_too_few_rows_and_a_broken_old_fit_are_said_to_be_so(old: Fit) -> None:
    few = refit_target(after(old, fused(15, 8)))
    assert isinstance(few, FitFailure)
    assert (few.code, few.number) == ("too_few", 9)
    broken = Fit("dcc", {**old.arrays, "dcc": np.array([0.5, 0.7, 0.0])})
    answer = refit_target(after(broken, fused(100, 8)))
    assert isinstance(answer, FitFailure)
    assert answer.code == "invalid"


def test_the_score_of_a_tilt_is_that_of_its_matrix() -> None:
    rng = np.random.default_rng(10)
    old_target = drawn_target(rng, 30, 5)
    rows = rng.standard_normal((12, 5))
    tilts = _tilts(old_target, _filled(old_target, rows), FOLDS)
    for fusing, loosening in ((0.0, 0.0), (0.3, 0.2), (0.0, 0.6), (0.7, 0.0)):
        expected = tilt_score(tilts.at(fusing, loosening), rows)
        # both sum twelve logarithms of quadratic forms
        assert abs(tilts.score(fusing, loosening) - expected) <= 1e-9


def test_holes_are_filled_by_what_the_old_target_expects() -> None:
    rng = np.random.default_rng(11)
    old_target = drawn_target(rng, 30, 4)
    news = rng.standard_normal((25, 4))
    news[3, [0, 2]] = np.nan
    rows = _filled(old_target, news)
    mean, spread = fill_hole(old_target, news[3])
    assert np.allclose(rows.filled[3], mean, atol=1e-10)  # two ways to invert four numbers
    expected = np.nan_to_num(rows.filled).T @ np.nan_to_num(rows.filled) + spread
    assert np.allclose(rows.moments.sum(axis=0), expected, atol=1e-10)
    assert rows.moments.shape == (FOLDS, 4, 4)


def test_symbols_in_another_order_give_the_target_in_that_order() -> None:
    rng = np.random.default_rng(12)
    params = DccParams(0.02, 0.95, drawn_target(rng, 60, N))
    z = rng.standard_normal((80, N))
    order = rng.permutation(N)
    found = move_target(params, z, 8)
    turned = DccParams(0.02, 0.95, params.target[np.ix_(order, order)])
    other = move_target(turned, np.ascontiguousarray(z[:, order]), 8)
    assert (found.fused, found.loosened, found.prior_rows) == (
        other.fused,
        other.loosened,
        other.prior_rows,
    )
    # matrix products in another order of the sums
    assert np.allclose(found.target[np.ix_(order, order)], other.target, atol=1e-12)


def test_news_are_scaled_by_their_own_recursion_in_cdcc_alone() -> None:
    z = np.random.default_rng(13).standard_normal((9, 3))
    params = DccParams(0.1, 0.8, np.eye(3))
    q = np.ones(3)
    for row, found in zip(z, scaled_news(z, params), strict=True):
        assert np.allclose(found, row * np.sqrt(q), atol=1e-14)  # one multiplication
        q = 0.1 + (0.1 * row * row + 0.8) * q
    assert scaled_news(z, DccParams(0.1, 0.8, np.eye(3), "dcc")) is z


def test_a_symbol_that_stands_still_at_first_keeps_its_place_beside_the_others(old: Fit) -> None:
    returns = fused(60, 3)
    returns[:25, 2] = 0.0  # as in a halt: observed, and no move
    target = dcc_params(moved(old, returns)).target
    assert np.isfinite(target).all()
    assert np.linalg.eigvalsh(target)[0] > 0.0
