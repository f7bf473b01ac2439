"""Shrinkage equals its papers and other programs; targets are correlation matrices for any data."""

from typing import Literal, TypeAlias

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import stream_calib as sc
from stream_calib.estimation.cleaning import Spectrum, compose_correlation, decompose
from stream_calib.estimation.shrinkage import (
    TARGET_FLOOR,
    FourthMoment,
    clip_correlation,
    clip_eigenvalues,
    ledoit_wolf,
    ledoit_wolf_weight,
    quadratic_inverse_eigenvalues,
    shrink_target,
)
from stream_calib.values import F64
from tests.estimation.cleaning_study import market_truth, spectrum_truth
from tests.oracles import shrinkage as oracle

Method: TypeAlias = Literal["qis", "ledoit_wolf", "none"]
METHODS: tuple[Method, ...] = ("qis", "ledoit_wolf", "none")
seeds = st.integers(0, 2**32 - 1)


def sample(n: int, t: int, seed: int, holes: float = 0.0) -> F64:
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((t, n)) @ np.linalg.cholesky(market_truth(n, rng)).T
    z[rng.random((t, n)) < holes] = np.nan
    return z


@pytest.mark.parametrize(("n", "t"), [(2, 10), (10, 30), (50, 40), (50, 200), (100, 1000)])
def test_linear_shrinkage_equals_scikit_learn(n: int, t: int) -> None:
    from sklearn.covariance import LedoitWolf

    x = sample(n, t, seed=n + t) * np.linspace(0.5, 2.0, n)
    known = LedoitWolf(assume_centered=True).fit(x)
    shrunk = ledoit_wolf(x)
    # both are sums of the same products in another order
    np.testing.assert_allclose(shrunk.weight, known.shrinkage_, rtol=1e-12)
    np.testing.assert_allclose(shrunk.cov, known.covariance_, rtol=1e-12, atol=1e-12)


def test_a_sample_of_the_identity_is_shrunk_nearly_all_the_way() -> None:
    x = np.random.default_rng(5).standard_normal((200, 50))
    assert ledoit_wolf(x).weight > 0.95


@given(st.integers(2, 6), st.integers(2, 40), seeds)
@hypothesis_settings(max_examples=25)
def test_streamed_weight_equals_the_weighted_sums(n: int, t: int, seed: int) -> None:
    x = sample(n, t, seed)
    weights: F64 = np.power(0.9, np.arange(t)[::-1], dtype=np.float64)
    weights /= weights.sum()
    streamed = FourthMoment(0.9)
    streamed.update(x)
    cov = (x.T * weights) @ x
    # a difference of sums of up to 40 terms, over a distance that is seldom below a tenth
    wanted = oracle.ledoit_wolf_weight(x, weights)
    np.testing.assert_allclose(streamed.weight(cov), wanted, rtol=1e-9, atol=1e-12)


def test_streamed_weight_without_decay_equals_scikit_learn() -> None:
    from sklearn.covariance import ledoit_wolf as known

    x = sample(20, 60, seed=6)
    streamed = FourthMoment(1.0)
    streamed.update(x)
    weight = known(x, assume_centered=True)[1]
    np.testing.assert_allclose(streamed.weight(x.T @ x / 60), weight, rtol=1e-12)


def test_streamed_weight_without_data_is_one_and_empty_rows_are_nothing() -> None:
    streamed, other = FourthMoment(0.9), FourthMoment(0.9)
    streamed.update(np.full((3, 4), np.nan))
    assert streamed.weight(np.eye(4)) == 1.0
    assert streamed.state()["sums"].tobytes() == other.state()["sums"].tobytes()


def test_a_row_with_half_its_symbols_counts_as_long_as_a_whole_one() -> None:
    streamed, other = FourthMoment(0.9), FourthMoment(0.9)
    streamed.update(np.array([[2.0, np.nan, 2.0, np.nan]]))
    other.update(np.full((1, 4), 2.0))
    assert streamed.state()["sums"].tobytes() == other.state()["sums"].tobytes()


@pytest.mark.parametrize(("n", "t"), [(5, 5), (10, 30), (50, 60), (50, 500), (30, 20), (60, 11)])
def test_quadratic_inverse_shrinkage_equals_its_paper(n: int, t: int) -> None:
    x = sample(n, t, seed=n * t)
    cov = x.T @ x / t
    eigenvalues, vectors = decompose(cov)
    values = quadratic_inverse_eigenvalues(eigenvalues, t)
    # the smallest eigenvalue of n = t is itself known only to n ulps over it
    wanted = oracle.quadratic_inverse(cov, t)
    np.testing.assert_allclose((vectors * values) @ vectors.T, wanted, rtol=0.0, atol=1e-10)


@pytest.mark.parametrize("t", [60, 100, 400])
def test_quadratic_inverse_shrinkage_keeps_the_trace_and_improves_on_the_sample(t: int) -> None:
    rng = np.random.default_rng(t)
    truth = spectrum_truth(80, rng)
    x = rng.standard_normal((t, 80)) @ np.linalg.cholesky(truth).T
    cov = x.T @ x / t
    eigenvalues, vectors = decompose(cov)
    values = quadratic_inverse_eigenvalues(eigenvalues, t)
    assert abs(values.sum() - np.trace(cov)) < 1e-11  # 80 values, rescaled once
    cleaned = (vectors * values) @ vectors.T
    assert np.sum((cleaned - truth) ** 2) < np.sum((cov - truth) ** 2)


@pytest.mark.parametrize(("n", "n_obs"), [(10, 5.0), (50, 33.3), (50, 400.0)])
def test_clipping_equals_its_oracle(n: int, n_obs: float) -> None:
    corr = shrink_target(sample(n, 4 * n, seed=n), "none")
    # eigenvalues of a well conditioned matrix, to n ulps of the largest
    wanted = oracle.clip(corr, n_obs)
    np.testing.assert_allclose(clip_correlation(corr, n_obs), wanted, rtol=0.0, atol=1e-12)


def test_clipping_noise_alone_leaves_little_but_the_identity() -> None:
    z = np.random.default_rng(7).standard_normal((400, 100))
    corr = shrink_target(z, "none")
    assert np.linalg.norm(clip_correlation(corr, 400.0) - np.eye(100)) < 0.3 * np.linalg.norm(
        corr - np.eye(100)
    )


def test_clipping_keeps_the_factors_and_the_trace() -> None:
    eigenvalues = np.sort(np.append(np.linspace(0.1, 1.9, 46), [5.0, 8.0, 10.0, 31.0]))
    clipped = clip_eigenvalues(eigenvalues, 200.0)
    assert clipped[-4:].tolist() == [5.0, 8.0, 10.0, 31.0]
    assert len(set(clipped[:-4].tolist())) == 1 or clipped[-5] == eigenvalues[-5]
    assert abs(clipped.sum() - eigenvalues.sum()) < 1e-12


@given(
    st.sampled_from(METHODS),
    st.integers(2, 30),
    st.integers(5, 80),
    st.sampled_from([0.0, 0.1, 0.3]),
    seeds,
)
@hypothesis_settings(max_examples=60)
def test_a_target_is_a_positive_definite_correlation_matrix(
    method: Method, n: int, t: int, holes: float, seed: int
) -> None:
    z = sample(n, t + 30 * (holes > 0.0), seed, holes)
    before = z.tobytes()
    target = shrink_target(z, method)
    assert z.tobytes() == before
    assert np.isfinite(target).all()
    assert target.tobytes() == np.ascontiguousarray(target.T).tobytes()
    assert (np.diagonal(target) == 1.0).all()
    assert np.linalg.eigvalsh(target)[0] >= TARGET_FLOOR * (1.0 - 1e-6)
    np.linalg.cholesky(target)


@given(st.sampled_from(METHODS), st.integers(2, 20), st.booleans(), seeds, st.data())
@hypothesis_settings(max_examples=40)
def test_permuted_columns_give_the_permuted_bits(
    method: Method, n: int, holed: bool, seed: int, data: st.DataObject
) -> None:
    z = sample(n, 60, seed, 0.2 * holed)
    turn = np.array(data.draw(st.permutations(range(n))))
    one = shrink_target(z, method, np.arange(n))
    other = shrink_target(z[:, turn], method, np.argsort(turn))
    assert other.tobytes() == np.ascontiguousarray(one[np.ix_(turn, turn)]).tobytes()


def test_a_target_without_shrinkage_is_the_sample() -> None:
    z = sample(5, 300, seed=8)
    moments = z.T @ z
    scale = np.sqrt(np.diag(moments))
    # one division and one product of 300 terms
    np.testing.assert_allclose(
        shrink_target(z, "none"), moments / np.outer(scale, scale), rtol=0.0, atol=1e-13
    )


def test_a_shrunk_target_does_not_depend_on_the_units_of_a_column() -> None:
    z = sample(8, 100, seed=9)
    other = shrink_target(z * np.geomspace(1e-4, 1e4, 8))
    np.testing.assert_allclose(other, shrink_target(z), rtol=0.0, atol=1e-12)  # one root, one ratio


def test_a_pair_is_estimated_from_the_rows_that_have_both() -> None:
    z = sample(3, 400, seed=10)
    z[:200, 0] = np.nan
    both = z[200:, :2]
    scale = np.sqrt(np.sum(both**2, axis=0))
    wanted = float(both[:, 0] @ both[:, 1] / scale[0] / scale[1])
    assert abs(shrink_target(z, "none")[0, 1] - wanted) < 1e-13


@pytest.mark.parametrize("n", [20, 60])
@pytest.mark.parametrize("rows", [1.0, 1.2, 2.0, 5.0])
@pytest.mark.parametrize("holes", [0.0, 0.05, 0.3])
def test_shrunk_targets_are_nearer_to_the_truth_than_the_sample(
    n: int, rows: float, holes: float
) -> None:
    rng = np.random.default_rng(11)
    truth = spectrum_truth(n, rng)
    losses = dict.fromkeys(METHODS, 0.0)
    for _ in range(10):
        z = rng.standard_normal((int(rows * n), n)) @ np.linalg.cholesky(truth).T
        z[rng.random(z.shape) < holes] = np.nan
        for method in METHODS:
            losses[method] += float(np.sum((sc.shrink_target(z, method) - truth) ** 2))
    assert losses["qis"] < 0.8 * losses["none"]
    assert losses["ledoit_wolf"] < losses["none"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda z: z[:, :1], "n of at least 2"),
        (lambda z: z[0], "n of at least 2"),
        (lambda z: np.where(z > 1.0, np.inf, z), "infinities"),
        (lambda z: z * [1.0, 0.0, 1.0], r"never moved: columns \[1\]"),
        (lambda z: np.where([True, False, False], np.nan, z), r"never moved: columns \[0\]"),
        (
            lambda z: np.where(
                (np.arange(len(z)) % 2 == 0)[:, None], z * [1, 1, np.nan], z * [np.nan, 1, 1]
            ),
            "never observed together",
        ),
    ],
)
def test_what_no_target_can_be_made_of_is_refused(spoil, said) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=said):
        shrink_target(spoil(sample(3, 40, seed=12)))


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="method must be"):
        shrink_target(np.ones((3, 3)), "median")  # type: ignore[arg-type]


@pytest.mark.parametrize("decay", [0.0, -0.1, 1.1, float("nan")])
def test_a_decay_outside_zero_to_one_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="decay must be"):
        FourthMoment(decay)


def test_composing_a_decomposed_correlation_gives_it_back() -> None:
    corr = market_truth(30, np.random.default_rng(13))
    back = compose_correlation(Spectrum(*decompose(corr)))
    np.testing.assert_allclose(back, corr, rtol=0.0, atol=1e-13)  # 30 products per entry


def test_weight_is_one_for_a_multiple_of_the_identity() -> None:
    assert ledoit_wolf_weight(3.0 * np.eye(4), 1.0, 0.01) == 1.0
