"""DCC over whole samples: published numbers of other programs, and what holds by algebra."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_calib.estimation.dcc import Dcc
from stream_calib.estimation.dcc_likelihood import dcc_filter, dcc_loglik, integrated_covariance
from stream_calib.values import F64, DccParams, GarchParams
from tests.estimation.dcc_samples import dow_sample, minstd_sample
from tests.oracles import dcc as oracle
from tests.oracles import dcc_likelihood as likelihood_oracle

UPPER_4 = np.triu_indices(4, 1)
UPPER_5 = np.triu_indices(5, 1)
MODELS = st.sampled_from(["dcc", "cdcc", "adcc"])
seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def minstd() -> F64:
    return minstd_sample()


def target_of(z: F64) -> F64:
    return oracle.normalised(z.T @ z / len(z))


# the sample and its values: the likelihood of the Oxford MFE Toolbox, run in Octave


def test_the_sample_is_the_one_that_was_published(minstd: F64) -> None:
    ends = [
        [1.08874316, 0.72829717, 3.00840863, 0.53369705],
        [-0.545491, -0.21428338, -0.9563483, -1.04186239],
    ]
    np.testing.assert_allclose(minstd[[0, -1]], ends, rtol=0.0, atol=1e-8)  # digits printed


def test_likelihoods_of_three_models_are_those_of_the_mfe_toolbox(minstd: F64) -> None:
    target = target_of(minstd)
    # digits printed; logL is wanted within 1e-6
    assert -dcc_loglik(minstd, 0.05, 0.93, target) == pytest.approx(10330.78014947, abs=1e-8)
    adcc = -dcc_loglik(minstd, 0.04, 0.92, target, g=0.02, model="adcc")
    assert adcc == pytest.approx(10345.87525559, abs=1e-8)
    # Aielli's target belongs to (a, b): the mean of z* z*', normalised
    own = oracle.aielli_target(minstd, 0.05, 0.93)
    cdcc = -dcc_loglik(minstd, 0.05, 0.93, own, model="cdcc")
    assert cdcc == pytest.approx(10335.936169, abs=1e-6)


def test_the_forecast_is_that_of_the_mfe_toolbox(minstd: F64) -> None:
    forecast = dcc_filter(minstd, 0.05, 0.93, target_of(minstd))[-1]
    wanted = [0.20556695, -0.14678602, -0.02019987, 0.42988731, 0.54052652, 0.61502659]
    np.testing.assert_allclose(forecast[UPPER_4], wanted, rtol=0.0, atol=1e-8)  # digits printed


# rmgarch 1.4-2 on five stocks of the Dow, whose estimates have 16 digits and whose marginals 9

DOW_A, DOW_B = 0.0108409458507285, 0.786948216873906
R_LAST = (
    "0.4598413037 0.3655782417 0.3755999005 0.3768380574 0.4453019823"
    " 0.4172089372 0.4238846855 0.3356018323 0.389209914 0.3740593047"
)
R_NEXT = (
    "0.4445962619 0.355695333 0.3564558918 0.3657874704 0.4543350994"
    " 0.4274994452 0.4339528611 0.3442472898 0.3954470216 0.3831330628"
)


def test_the_path_is_that_of_rmgarch_whose_target_is_a_covariance(market_data: Path) -> None:
    z, vol = dow_sample(market_data)
    first = [2.04858595, 2.517689, 1.86928423, 2.24640061, 2.5524634]
    np.testing.assert_allclose(vol[0], first, rtol=0.0, atol=2e-8)  # marginals of nine digits
    target = np.cov(z.T)
    own = [1.00499697, 0.99772452, 0.99997723, 0.99252608, 0.99750702]
    np.testing.assert_allclose(np.diagonal(target), own, rtol=0.0, atol=2e-8)
    path = dcc_filter(z, DOW_A, DOW_B, target)
    for got, wanted in ((path[-2], R_LAST), (path[-1], R_NEXT)):
        expected = np.array([float(word) for word in wanted.split()])
        # digits printed are 1e-10; nine digits of the marginals leave 2e-8 of the deviations
        np.testing.assert_allclose(got[UPPER_5], expected, rtol=0.0, atol=1.5e-8)


def test_the_path_is_that_of_rmgarch_to_the_last_digits() -> None:
    # residuals and deviations of rmgarch itself, which pymgarch keeps beside its source
    if (file := os.environ.get("STREAM_CALIB_RMGARCH")) is None:
        pytest.skip("STREAM_CALIB_RMGARCH names no rmgarch_fixtures.json of pymgarch's source")
    theirs = json.loads(Path(file).read_text())["dcc_norm"]
    z = np.array(theirs["resid"]) / np.array(theirs["sigma"])
    target = np.cov(z.T)
    np.testing.assert_allclose(target, theirs["Qbar"], rtol=0.0, atol=1e-12)
    path = dcc_filter(z, theirs["stage2"]["dcca1"], theirs["stage2"]["dccb1"], target)
    for got, wanted in ((path[-2], "Rlast"), (path[-1], "R1_forecast")):
        np.testing.assert_allclose(got, theirs[wanted], rtol=0.0, atol=1e-12)


def test_the_likelihood_of_rmgarch_has_a_row_of_ones_before_the_first(market_data: Path) -> None:
    z, vol = dow_sample(market_data)
    target, published = np.cov(z.T), -10111.2993183835
    scale = np.log(vol).sum()
    ours = dcc_loglik(z, DOW_A, DOW_B, target) - scale
    assert ours == pytest.approx(published, abs=0.02)
    assert abs(ours - published) > 0.01
    # where the difference is from: the program begins one row early, with ones
    padded = np.vstack([np.ones((1, 5)), z])
    before = likelihood_oracle.log_densities(padded[:1], oracle.normalised(target)[None]).sum()
    theirs = dcc_loglik(padded, DOW_A, DOW_B, target) - before - scale
    assert theirs == pytest.approx(published, abs=5e-5)  # nine digits of the marginals, 1000 rows


# traps that other packages fell into


def test_the_recursion_feeds_q_back_and_not_r(market_data: Path) -> None:
    z, _ = dow_sample(market_data)
    a, b, target = 0.05, 0.9, np.cov(z.T)
    q, r = target.copy(), target.copy()
    for row in z:
        news = (1.0 - a - b) * target + a * np.outer(row, row)
        q, r = news + b * q, oracle.normalised(news + b * r)
    ours = dcc_filter(z, a, b, target)[-1]
    np.testing.assert_allclose(ours, oracle.normalised(q), rtol=0.0, atol=1e-12)
    assert np.abs(ours - oracle.normalised(r)).max() > 1e-3


def test_correlations_return_to_the_target_where_an_integrated_dcc_stays() -> None:
    precise = pytest.importorskip("precise")
    rng = np.random.default_rng(1)
    common = rng.standard_normal((300, 1))
    away = np.sqrt(0.9) * common + np.sqrt(0.1) * rng.standard_normal((300, 2))
    z = np.vstack([away, np.zeros((100, 2))])  # no news at all: the past is all there is
    other = precise.DCCCovariance(r=0.05)
    other.partial_fit(z)
    path = dcc_filter(z, 0.05, 0.9, np.eye(2))
    assert path[300, 0, 1] > 0.3
    # of the news .9^100 is left beside S; there, all of it over all of it
    assert path[-1, 0, 1] == pytest.approx(0.0, abs=1e-3)
    assert other.correlation_[0, 1] > 0.8


def test_a_shock_is_no_part_of_the_forecast_that_it_is_weighed_against(minstd: F64) -> None:
    target = target_of(minstd)
    changed = minstd.copy()
    changed[1000] *= 5.0
    before, after = (dcc_filter(z, 0.05, 0.93, target) for z in (minstd, changed))
    assert (before[:1001] == after[:1001]).all()
    assert np.abs(before[1001] - after[1001]).max() > 0.01


# by algebra


@given(st.integers(2, 5), st.integers(0, 40), seeds, MODELS)
def test_without_news_and_memory_correlation_is_constant(
    n: int, t: int, seed: int, model: str
) -> None:
    rng = np.random.default_rng(seed)
    z, target = rng.standard_normal((t, n)), target_of(rng.standard_normal((3 * n, n)))
    path = dcc_filter(z, 0.0, 0.0, target, model=model)  # type: ignore[arg-type]
    np.testing.assert_allclose(path, np.broadcast_to(target, path.shape), rtol=0.0, atol=1e-15)
    wanted = likelihood_oracle.log_densities(z, path[:-1]).sum() if t else 0.0
    got = dcc_loglik(z, 0.0, 0.0, target, model=model)  # type: ignore[arg-type]
    assert got == pytest.approx(wanted, rel=1e-9)  # the target may be nearly singular


@given(st.integers(1, 5), st.integers(0, 60), seeds, MODELS, st.sampled_from([0.0, 0.2]))
def test_the_likelihood_is_the_sum_over_the_path(
    n: int, t: int, seed: int, model: str, missing: float
) -> None:
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((t, n))
    z[rng.random((t, n)) < missing] = np.nan
    # normal falls have mean squares of .5, with a few rows at most 16
    a, b, g = 0.04, 0.9, 0.003 if model == "adcc" else 0.0
    target = 0.5 * np.eye(n) + 0.5
    path = dcc_filter(z, a, b, target, g, model)  # type: ignore[arg-type]
    wanted = likelihood_oracle.log_densities(z, path[:-1]).sum() if t else 0.0
    got = dcc_loglik(z, a, b, target, g, model)  # type: ignore[arg-type]
    assert got == pytest.approx(wanted, rel=1e-11, abs=1e-11)  # well-conditioned, 60 rows


@given(st.integers(2, 4), seeds, MODELS, st.floats(0.1, 10.0))
def test_a_target_of_another_scale_is_news_of_another_scale(
    n: int, seed: int, model: str, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    z, target = rng.standard_normal((50, n)), target_of(rng.standard_normal((5 * n, n)))
    falls = np.minimum(z, 0.0)
    less, g = falls.T @ falls / 50, 0.01 if model == "adcc" else 0.0
    # Aielli's shocks have the scale of Q already
    other = z if model == "cdcc" else math.sqrt(scale) * z
    path = dcc_filter(z, 0.05, 0.9, target, g, model, less)  # type: ignore[arg-type]
    scaled = dcc_filter(other, 0.05, 0.9, scale * target, g, model, scale * less)  # type: ignore[arg-type]
    np.testing.assert_allclose(scaled, path, rtol=0.0, atol=1e-12)  # rounding of 50 rows


@given(st.integers(1, 5), st.integers(0, 60), seeds, MODELS, st.data())
def test_streaming_is_the_batch_in_any_cut(
    n: int, t: int, seed: int, model: str, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    z = rng.standard_t(5, (t, n))
    z[rng.random((t, n)) < 0.1] = np.nan
    target, less = 0.6 * np.eye(n) + 0.4, 0.3 * np.eye(n) + 0.2
    g = 0.02 if model == "adcc" else 0.0
    path = dcc_filter(z, 0.05, 0.9, target, g, model, less)  # type: ignore[arg-type]
    dcc = Dcc(DccParams(0.05, 0.9, target, model, g, less), n)  # type: ignore[arg-type]
    cuts = sorted(data.draw(st.lists(st.integers(0, t), max_size=4)))
    for start, stop in zip([0, *cuts], [*cuts, t], strict=True):
        np.testing.assert_allclose(dcc.correlation().corr, path[start], rtol=0.0, atol=1e-12)
        dcc.update(z[start:stop])
    np.testing.assert_allclose(dcc.correlation().corr, path[-1], rtol=0.0, atol=1e-12)


def test_a_long_sample_in_chunks_is_one_recursion(monkeypatch: pytest.MonkeyPatch) -> None:
    z = np.random.default_rng(3).standard_normal((50, 3))
    whole = dcc_filter(z, 0.05, 0.9, np.eye(3)), dcc_loglik(z, 0.05, 0.9, np.eye(3))
    monkeypatch.setattr("stream_calib.estimation.dcc_likelihood.CHUNK", 6 * 7)
    parts = dcc_filter(z, 0.05, 0.9, np.eye(3)), dcc_loglik(z, 0.05, 0.9, np.eye(3))
    assert parts[0].tobytes() == whole[0].tobytes()
    assert parts[1] == whole[1]


def test_asymmetry_is_the_mean_of_common_falls_where_both_are_observed() -> None:
    rng = np.random.default_rng(4)
    z = rng.standard_normal((200, 3))
    z[rng.random((200, 3)) < 0.3] = np.nan
    falls = np.minimum(z, 0.0)
    less = np.array([[np.nanmean(falls[:, i] * falls[:, j]) for j in range(3)] for i in range(3)])
    ours = dcc_filter(z, 0.05, 0.9, np.eye(3), 0.02, "adcc")
    given_ = dcc_filter(z, 0.05, 0.9, np.eye(3), 0.02, "adcc", less)
    np.testing.assert_allclose(ours, given_, rtol=0.0, atol=1e-14)  # sums in another order


def test_a_likelihood_of_an_indefinite_target_is_minus_infinity() -> None:
    target = np.array([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]])
    assert dcc_loglik(np.ones((5, 3)), 0.05, 0.9, target) == -math.inf


def test_a_table_is_asked_for() -> None:
    with pytest.raises(ValueError, match="z is"):
        dcc_filter(np.zeros(3), 0.05, 0.9, np.eye(3))


# what comes next


def garch_of(n: int, alpha: float, beta: float, omega: float = 0.02) -> GarchParams:
    zero, one = np.zeros(n), np.ones(n)
    return GarchParams(zero, omega * one, alpha * one, beta * one, zero, np.nan * one)


def test_a_horizon_of_one_row_is_the_next_covariance() -> None:
    corr = np.array([[1.0, 0.3], [0.3, 1.0]])
    got = integrated_covariance(garch_of(2, 0.1, 0.8), np.array([4.0, 9.0]), corr[None])
    np.testing.assert_allclose(got, [[4.0, 1.8], [1.8, 9.0]], rtol=1e-15)


def test_variances_over_a_horizon_return_to_their_mean() -> None:
    garch = garch_of(1, 0.1, 0.8)
    steps, first, mean = 30, 0.5, 0.2
    got = integrated_covariance(garch, np.array([first]), np.ones((steps, 1, 1)))
    wanted = steps * mean + (first - mean) * (1.0 - 0.9**steps) / (1.0 - 0.9)
    np.testing.assert_allclose(got, [[wanted]], rtol=1e-13)  # 30 sums


def test_shapes_over_a_horizon_have_to_fit() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        integrated_covariance(garch_of(2, 0.1, 0.8), np.ones(3), np.ones((4, 2, 2)))


@pytest.mark.full
@pytest.mark.parametrize("model", ["dcc", "cdcc"])
def test_covariance_over_a_horizon_is_that_of_simulated_paths(model: str) -> None:
    rng = np.random.default_rng(20)
    paths, steps, n, a, b = 400_000, 20, 3, 0.05, 0.93
    garch = garch_of(n, 0.05, 0.9)
    target = np.array([[1.0, 0.5, 0.2], [0.5, 1.0, -0.3], [0.2, -0.3, 1.0]])
    dcc = Dcc(DccParams(a, b, target, model), n)  # type: ignore[arg-type]
    dcc.update(np.array([[2.0, -1.5, 1.0], [1.0, 2.0, 2.5]]))
    h = np.array([0.8, 0.4, 0.2])
    wanted = integrated_covariance(garch, h, dcc.forecast(steps))
    state = dcc.state()
    root = np.sqrt(state["diagonal"])
    q = np.empty((paths, n, n))
    q[:] = dcc.correlation().corr * np.outer(root, root)
    h = np.broadcast_to(h, (paths, n)).copy()
    total, sums = np.zeros((paths, n)), np.zeros((n, n))
    for _ in range(steps):
        own = np.sqrt(np.diagonal(q, axis1=1, axis2=2))
        factor = np.linalg.cholesky(q / (own[:, :, None] * own[:, None, :]))
        z = np.einsum("pij,pj->pi", factor, rng.standard_normal((paths, n)))
        returns = np.sqrt(h) * z
        total += returns
        h = garch.omega + garch.alpha * returns**2 + garch.beta * h
        x = own * z if model == "cdcc" else z
        q = (1.0 - a - b) * target + b * q + a * x[:, :, None] * x[:, None, :]
    sums = total.T @ total / paths
    vol, simulated = np.sqrt(np.diagonal(wanted)), np.sqrt(np.diagonal(sums))
    # sampling: 1 / sqrt(2 * 400000) = .0011 of a deviation, .0016 of a correlation, both times
    # three; the rest of .01 is for the approximation
    np.testing.assert_allclose(simulated / vol, np.ones(n), rtol=0.0, atol=0.01)
    correlation = oracle.normalised(wanted), oracle.normalised(sums)
    np.testing.assert_allclose(*correlation, rtol=0.0, atol=0.01)
