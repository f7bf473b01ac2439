"""A model that is wrong from the beginning is noticed, a right one seldom blamed."""

from itertools import pairwise

import numpy as np
import pytest

from stream_calib.estimation.calibration.dcc import fit_dcc
from stream_calib.estimation.dcc_likelihood import dcc_filter
from stream_calib.estimation.miscalibration import Miscalibration
from stream_calib.kernels.drift import fold_wagers
from stream_calib.values import F64, Alarm, DccParams
from tests.estimation.truths import TRUTHS, factor_target, shocks, tilted, truth


def right_model(n: int, average: float = 0.3) -> DccParams:
    return DccParams(0.02, 0.97, factor_target(np.random.default_rng(4), n, average))


def rows_of(corr: F64, rows: int, seed: int, tails: float = np.inf) -> F64:
    normals = shocks(np.random.default_rng(seed), rows, len(corr), tails)
    return normals @ np.linalg.cholesky(corr).T


def test_wagers_are_chains_of_bets_with_mean_one() -> None:
    ratios = np.log(np.random.default_rng(1).random((30, 2)) * 2.0)
    stakes, chains, slow = np.array([0.1, 0.5]), np.zeros((2, 2)), np.zeros((2, 2))
    for row in ratios:
        mean = fold_wagers(row, stakes, chains)
        slow = (slow + 1.0) * (1.0 - stakes + stakes * np.exp(row)[:, None])
    assert np.allclose(chains, slow, rtol=1e-12)  # rounding of 30 products
    assert mean == pytest.approx(slow.mean(), rel=1e-12)
    for _ in range(3):
        assert np.isfinite(fold_wagers(np.array([900.0, -900.0]), stakes, chains))


@pytest.mark.parametrize("tails", [np.inf, 5.0])
def test_a_right_model_is_blamed_no_more_often_than_asked(tails: float) -> None:
    params = right_model(8)
    rows, arl0, alarms = 6000, 100.0, 0
    for seed in range(3):
        watch = Miscalibration(params, 8, arl0=arl0)
        z = rows_of(params.target, rows // 3, seed, tails)
        # in force is the truth, which neither alternative is: both are tilted
        other = Miscalibration(tilted_model(params), 8, arl0=arl0)
        alarms += len(watch.update(z, params.target)) + len(other.update(z, params.target))
    # 60 a watch are allowed; alarms are at most as scattered as Poisson's: three deviations
    assert alarms <= 120 + 3 * np.sqrt(120.0)


def tilted_model(params: DccParams) -> DccParams:
    return DccParams(params.a, params.b, tilted(params.target, "fusing", 0.2))


@pytest.mark.parametrize("tails", [np.inf, 5.0])
def test_a_wrong_model_is_noticed_and_the_beginning_found(tails: float) -> None:
    params = right_model(10)
    z = rows_of(params.target, 900, 8, tails)
    wrong = tilted(params.target, "loosening", 0.5)
    watch = Miscalibration(params, 10, arl0=5000.0)
    assert watch.update(z[:500], params.target) == []
    alarms = watch.update(z[500:], wrong)
    assert alarms, "no alarm in 400 rows of a model without correlations"
    first = alarms[0]
    assert first.alternative == "miscalibrated"
    assert first.level >= 1.0
    assert first.since_min <= first.since <= first.since_max
    assert first.since_min <= first.row - 500 <= first.since_max


def test_any_cut_saved_in_between_gives_the_same_bytes() -> None:
    params = right_model(6)
    z = rows_of(tilted(params.target, "fusing", 0.6), 300, 2)
    z[np.random.default_rng(3).random(z.shape) < 0.2] = np.nan
    path = dcc_filter(z, 0.02, 0.97, tilted(params.target, "loosening", 0.7))[:-1]
    whole = Miscalibration(params, 6, arl0=100.0)
    expected = whole.update(z, path)
    assert expected
    pieces, alarms = Miscalibration(params, 6, arl0=100.0), list[Alarm]()
    cuts = [0, 1, 30, 31, 200, 300]
    for i, j in pairwise(cuts):
        alarms += pieces.update(z[i:j], path[i:j])
        pieces = Miscalibration.from_state(pieces.state())
    assert alarms == expected
    one, other = whole.state(), pieces.state()
    assert {k: v.tobytes() for k, v in one.items()} == {k: v.tobytes() for k, v in other.items()}


def test_permuted_symbols_give_the_same_alarms_and_level() -> None:
    params, order = right_model(5), np.array([3, 1, 4, 0, 2])
    z = rows_of(params.target, 200, 2)
    wrong, cut = np.eye(5) * 0.5 + 0.5, np.ix_(order, order)
    there = Miscalibration(params, 5, arl0=20.0)
    turned = DccParams(0.02, 0.97, params.target[cut])
    here = Miscalibration(turned, 5, arl0=20.0, order=np.argsort(order))
    assert there.update(z, wrong) == here.update(z[:, order], wrong[cut])
    assert there.level == here.level


def test_indefinite_matrices_and_empty_rows_pass() -> None:
    watch = Miscalibration(right_model(3), 3)
    corr = np.array([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]])
    assert watch.update(np.array([[0.3, -0.2, 1.0]]), corr) == []
    assert watch.update(np.array([[np.nan] * 3, [0.0] * 3]), corr) == []
    assert np.isfinite(watch.level)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="are not of 3 symbols"):
        Miscalibration(right_model(3), 3).update(np.zeros((1, 3)), np.eye(4))
    with pytest.raises(ValueError, match="arl0"):
        Miscalibration(right_model(3), 3, arl0=0.0)


def false_alarms(name: str, runs: int, rows: int, arl0: float) -> int:
    found = 0
    for seed in range(runs):
        z = truth(name, 20, 1000 + rows, seed)
        params = fit_dcc(z[:1000]).params
        path = dcc_filter(z[1000:], params.a, params.b, params.target, model=params.model)[:-1]
        found += len(Miscalibration(params, 20, arl0=arl0).update(z[1000:], path))
    return found


@pytest.mark.full
@pytest.mark.parametrize("name", TRUTHS)
def test_a_fitted_model_is_seldom_blamed(name: str) -> None:
    alarms = false_alarms(name, 10, 4000, 1000.0)
    print(f"{name}: {alarms} alarms in 40000 rows, 40 are allowed")
    if name in {"average_15", "average_50", "average_80", "t5"}:
        assert alarms <= 40 + 3 * np.sqrt(40.0)
