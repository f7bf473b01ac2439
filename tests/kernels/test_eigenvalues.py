"""Projections and ascending fits equal their oracles, in any cut."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from stream_calib.kernels.eigenvalues import fit_ascending, fold_projections
from stream_calib.values import F64
from tests.oracles import eigenvalues as oracle

DECAY = 0.9
seeds = st.integers(0, 2**32 - 1)


def rows_of(n: int, k: int, seed: int, holes: float) -> tuple[F64, F64]:
    rng = np.random.default_rng(seed)
    returns = rng.standard_normal((k, n))
    returns[rng.random((k, n)) < holes] = np.nan
    vectors = np.linalg.qr(rng.standard_normal((n, n)))[0]
    return returns, np.ascontiguousarray(vectors)


def folded(returns: F64, vectors: F64, sums: F64) -> None:
    decay = np.full(len(returns), DECAY)
    fold_projections(returns, vectors, np.sum(vectors**4, axis=0), decay, sums[0], sums[1])


@pytest.mark.parametrize("holes", [0.0, 0.3, 0.9])
@given(st.integers(2, 6), st.integers(0, 30), seeds)
@hypothesis_settings(max_examples=20)
def test_fold_equals_its_oracle(holes: float, n: int, k: int, seed: int) -> None:
    returns, vectors = rows_of(n, k, seed, holes)
    sums = np.zeros((2, n))
    folded(returns, vectors, sums)
    moments, exposures = oracle.fold_projections(returns, vectors, DECAY)
    # the share of pairs is a difference of two sums near 1, divided by as little as 1 - f_i
    slack = 1e-13 / (1.0 - np.sum(vectors**4, axis=0).max())
    np.testing.assert_allclose(sums[0], moments, rtol=0.0, atol=100.0 * slack + 1e-12)
    np.testing.assert_allclose(sums[1], exposures, rtol=0.0, atol=10.0 * slack)


@pytest.mark.parametrize("cut", [0, 1, 17, 40])
def test_any_cut_of_a_block_gives_the_same_bits(cut: int) -> None:
    returns, vectors = rows_of(5, 40, seed=1, holes=0.2)
    whole, parts = np.zeros((2, 5)), np.zeros((2, 5))
    folded(returns, vectors, whole)
    folded(returns[:cut], vectors, parts)
    folded(returns[cut:], vectors, parts)
    assert parts.tobytes() == whole.tobytes()


def test_a_direction_of_one_symbol_is_its_own_second_moment() -> None:
    returns, _ = rows_of(3, 200, seed=2, holes=0.4)
    sums = np.zeros((2, 3))
    folded(returns, np.eye(3), sums)
    weights = DECAY ** np.arange(200)[::-1]
    seen = ~np.isnan(returns)
    squares = weights @ np.where(seen, returns, 0.0) ** 2
    # 200 positive terms in another order
    np.testing.assert_allclose(sums[0], squares, rtol=1e-12)
    np.testing.assert_allclose(sums[1], weights @ seen, rtol=1e-12)


def test_holes_do_not_bias_the_variance_of_a_common_factor() -> None:
    n, rho, seed = 10, 0.6, 3
    rng = np.random.default_rng(seed)
    returns = np.sqrt(rho) * rng.standard_normal((20_000, 1))
    returns = returns + np.sqrt(1.0 - rho) * rng.standard_normal((20_000, n))
    returns[rng.random(returns.shape) < 0.5] = np.nan
    vectors = np.linalg.eigh(np.full((n, n), rho) + (1.0 - rho) * np.eye(n))[1]
    sums = np.zeros((2, n))
    fourth = np.sum(vectors**4, axis=0)
    vectors, decay = np.ascontiguousarray(vectors), np.ones(len(returns))
    fold_projections(returns, vectors, fourth, decay, sums[0], sums[1])
    # one row tells p^2 / q to about 9 times the variance 6.4 with half missing: 4 sd of the mean
    assert abs(sums[0, -1] / sums[1, -1] - (1.0 + (n - 1) * rho)) < 4.0 * 9.0 * 6.4 / 20_000**0.5
    np.testing.assert_allclose(sums[0, :-1] / sums[1, :-1], 1.0 - rho, atol=0.05)


@given(
    st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(0.01, 100.0)), min_size=1, max_size=25),
)
def test_ascending_fit_equals_its_oracle(pairs: list[tuple[float, float]]) -> None:
    values, weights = np.array(pairs).T.copy()
    out = np.full(len(values), 7.0)
    fit_ascending(values, weights, out)
    # weighted means of up to 25 numbers of at most 1e3
    np.testing.assert_allclose(out, oracle.fit_ascending(values, weights), rtol=0.0, atol=1e-9)
    assert (np.diff(out) >= 0.0).all()


def test_what_ascends_already_is_left_as_it_is() -> None:
    values = np.array([-1.0, 0.0, 0.5, 9.0])
    out = np.empty(4)
    fit_ascending(values, np.ones(4), out)
    assert out.tolist() == values.tolist()
