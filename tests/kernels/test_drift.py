"""Ranks, chains and long-run variances against their definitions."""

from statistics import NormalDist

import numpy as np
import pytest

from stream_calib.kernels.drift import (
    fold_bets,
    long_run_variance,
    normal_quantile,
    rank_scores,
    unpack_rows,
)
from tests.oracles import drift as oracle

SLOPES = np.array([0.2, 0.8])


@pytest.mark.parametrize("p", [1e-9, 0.001, 0.02, 0.03, 0.5, 0.7, 0.98, 1.0 - 1e-9])
def test_the_quantile_is_that_of_the_normal_law(p: float) -> None:
    # Acklam states 1.15e-9 of the value; 1 - 1e-9 has lost digits of its own
    assert normal_quantile(p) == pytest.approx(NormalDist().inv_cdf(p), rel=1e-7, abs=1e-12)


@pytest.mark.parametrize("most", [7, 1000])
def test_ranks_are_those_among_the_last_scores(most: int) -> None:
    rng = np.random.default_rng(5)
    scores, uniforms = rng.integers(0, 6, (60, 2)).astype(np.float64), rng.random((60, 2))
    ordered, in_time, out = np.empty((2, most)), np.empty((2, most)), np.empty((60, 2))
    for t in range(60):
        rank_scores(scores[t], uniforms[t], t, ordered, in_time, out[t])
        kept = min(t + 1, most)
        last = scores[t + 1 - kept : t + 1]
        assert np.array_equal(ordered[:, :kept].T, np.sort(last, axis=0))
    expected = oracle.rank_path(scores, uniforms, most)
    # the quantile is known to 1.2e-9 of itself
    assert np.allclose(out, expected, rtol=3e-9, atol=1e-12)


def test_chains_are_sums_over_all_starts() -> None:
    rng = np.random.default_rng(6)
    normal, inflation = rng.standard_normal((40, 3)), np.array([1.0, 1.5, 3.0])
    expected = oracle.chain_path(normal, inflation, SLOPES)
    chains = np.zeros((3, 2))
    for t in range(40):
        mean = fold_bets(normal[t], inflation, SLOPES, chains)
        assert np.allclose(chains, expected[t], rtol=1e-12)  # rounding of 40 products
        assert mean == pytest.approx(expected[t].mean(), rel=1e-12)


def test_a_kind_without_a_rank_stands_still_and_no_chain_overflows() -> None:
    chains = np.ones((2, 2))
    for _ in range(200):
        fold_bets(np.array([np.nan, 7.0]), np.ones(2), SLOPES, chains)
    assert (chains[0] == 1.0).all()
    assert np.isfinite(chains).all()
    assert np.isfinite(fold_bets(np.array([7.0, 7.0]), np.ones(2), SLOPES, chains))


@pytest.mark.parametrize("lags", [1, 10, 400])
def test_the_long_run_variance_is_the_weighted_sum_of_autocorrelations(lags: int) -> None:
    x = np.cumsum(np.random.default_rng(7).standard_normal(300))
    expected = oracle.long_run_variance(x, lags)
    assert long_run_variance(x, lags) == pytest.approx(expected, rel=1e-10)  # order of sums
    assert long_run_variance(np.ones(30), lags) == 1.0


def test_rows_are_unpacked_above_the_diagonal() -> None:
    out = np.full((3, 3), -1.0)
    unpack_rows(np.arange(6.0), out)
    assert np.array_equal(out, [[0, 1, 2], [-1, 3, 4], [-1, -1, 5]])
