"""The DCC kernels equal their papers' recursions, in any cut, and touch only what they promise."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_calib.kernels.dcc import fold_shocks, pool_kappa, read_correlation, unfold_triangles
from stream_calib.kernels.dcc_likelihood import log_densities
from stream_calib.values import F64
from tests.oracles import dcc as oracle
from tests.oracles import dcc_likelihood as likelihood_oracle

# R and the root of Q_ii are rounded a few times a row, and b forgets: hundreds of ulps at most
CLOSE = 1e-12


class Case(NamedTuple):
    """A sample and the parameters of a model that stays positive definite."""

    z: F64
    a: float
    b: float
    g: float
    model: str
    target: F64
    asymmetry: F64


def correlation(rng: np.random.Generator, n: int) -> F64:
    factor = rng.standard_normal((n, n + 2)) + rng.standard_normal(n + 2)
    return oracle.normalised(factor @ factor.T)


def case(n: int, t: int, seed: int, missing: float = 0.0) -> Case:
    rng = np.random.default_rng(seed)
    model = str(rng.choice(["dcc", "cdcc", "adcc"]))
    memory = rng.uniform(0.0, 0.995)
    a = memory * rng.choice([0.0, 0.02, 0.1, 0.5])
    target = correlation(rng, n)
    g, asymmetry = 0.0, np.zeros((n, n))
    if model == "adcc":
        falls = np.minimum(rng.standard_normal((40, n)), 0.0)
        asymmetry = falls.T @ falls / 40
        most = np.linalg.eigvals(np.linalg.solve(target, asymmetry)).real.max()
        g = 0.9 * (1.0 - memory) / most
    z = rng.standard_t(5, (t, n)) @ np.linalg.cholesky(target).T
    z[rng.random((t, n)) < missing] = np.nan
    return Case(z, a, memory - a, g, model, target, asymmetry)


class State(NamedTuple):
    """What the fold changes."""

    corr: F64
    diagonal: F64
    news: F64
    fourth: F64

    def bits(self) -> list[bytes]:
        return [array.tobytes() for array in self]


def begin(target: F64) -> State:
    n = len(target)
    corr = oracle.normalised(target)[np.triu_indices(n)]
    return State(corr, np.diagonal(target).copy(), np.zeros(n), np.zeros((2, n)))


def fold(
    own: Case, state: State, z: F64, pull: F64 | None = None, unseen: float = 1.0, out: bool = True
) -> F64:
    upper = np.triu_indices(len(own.target))
    target, asymmetry = own.target[upper], own.asymmetry[upper]
    pull = np.empty(0) if pull is None else pull
    path = np.empty((len(z) if out else 0, len(target)))
    scaled = own.model == "cdcc"
    weights = (own.a, own.b, own.g, unseen, 0.99)
    fold_shocks(z, pull, scaled, *weights, target, asymmetry, *state, path)
    return path


def square(packed: F64, n: int) -> F64:
    out = np.empty((len(packed), n, n))
    unfold_triangles(packed, out)
    return out


sizes, lengths = st.integers(1, 6), st.integers(0, 60)
seeds = st.integers(0, 2**32 - 1)
shares = st.sampled_from([0.0, 0.2, 0.8])


@given(sizes, lengths, seeds)
def test_fully_observed_rows_follow_the_recursion_of_whole_matrices(
    n: int, t: int, seed: int
) -> None:
    own = case(n, t, seed)
    path = square(fold(own, begin(own.target), own.z), n)
    expected = oracle.full_path(own.z, own.a, own.b, own.target, own.g, own.model, own.asymmetry)
    np.testing.assert_allclose(path, expected[1:], rtol=0.0, atol=CLOSE)


@given(sizes, lengths, seeds, shares, st.sampled_from([1.0, 0.9, 0.0]))
def test_rows_with_holes_and_gaps_follow_the_recursion_of_blocks(
    n: int, t: int, seed: int, missing: float, unseen: float
) -> None:
    own = case(n, t, seed, missing)
    pull = np.random.default_rng(seed).choice([1.0, 1.0, 0.7, 0.0], t)
    state = begin(own.target)
    path = square(fold(own, state, own.z, pull, unseen), n)
    expected = oracle.path(*own[:3], own.target, own.g, own.model, own.asymmetry, unseen, pull)
    np.testing.assert_allclose(path, expected[1:], rtol=0.0, atol=CLOSE)


@given(sizes, lengths, seeds, shares, st.data())
def test_one_row_at_a_time_is_one_block_to_the_last_bit(
    n: int, t: int, seed: int, missing: float, data: st.DataObject
) -> None:
    own = case(n, t, seed, missing)
    whole, apart = begin(own.target), begin(own.target)
    path = fold(own, whole, own.z)
    cut = data.draw(st.integers(0, t))
    pieces = [fold(own, apart, np.ascontiguousarray(own.z[:cut]))]
    pieces += [fold(own, apart, own.z[s : s + 1]) for s in range(cut, t)]
    assert apart.bits() == whole.bits()
    assert np.concatenate(pieces).tobytes() == path.tobytes()
    unread = begin(own.target)
    fold(own, unread, own.z, out=False)
    assert unread.bits() == whole.bits()


@given(sizes, lengths, seeds, shares, st.sampled_from([1.0, 0.9]), st.data())
def test_permuted_symbols_give_the_permuted_bits(
    n: int, t: int, seed: int, missing: float, unseen: float, data: st.DataObject
) -> None:
    own = case(n, t, seed, missing)
    # symmetric to the last bit, as targets are
    target, asymmetry = (0.5 * (m + m.T) for m in (own.target, own.asymmetry))
    own = own._replace(target=target, asymmetry=asymmetry)
    order = data.draw(st.permutations(range(n)))
    cut = np.ix_(order, order)
    turned = own._replace(target=target[cut], asymmetry=asymmetry[cut])
    pull = np.random.default_rng(seed).choice([1.0, 0.7], t)
    path = square(fold(own, begin(own.target), own.z, pull, unseen), n)
    z = np.ascontiguousarray(own.z[:, order])
    other = square(fold(turned, begin(turned.target), z, pull, unseen), n)
    expected = np.ascontiguousarray(path[:, order][:, :, order])
    assert other.tobytes() == expected.tobytes()


@given(st.integers(2, 8), st.integers(1, 80), seeds)
def test_what_is_fully_observed_is_positive_definite_in_every_row(
    n: int, t: int, seed: int
) -> None:
    own = case(n, t, seed)
    well = own._replace(target=0.5 * own.target + 0.5 * np.eye(n), g=0.4 * own.g)
    path = square(fold(well, begin(well.target), well.z), n)
    # R >= (1 - a - b - delta g) S / max Q_ii: 1e-3 times 1/2 over some hundreds, where the
    # least eigenvalue is rounded at 1e-15
    assert np.linalg.eigvalsh(path).min() > 0.0
    # of a target that is itself nearly singular no more is left than n ulps tell
    path = square(fold(own, begin(own.target), own.z), n)
    assert np.linalg.eigvalsh(path).min() > -1e-14 * n


@given(st.integers(2, 8), st.integers(1, 80), seeds)
def test_whatever_is_missing_correlations_stay_finite_and_within_one(
    n: int, t: int, seed: int
) -> None:
    own = case(n, t, seed, missing=0.4)
    own.z[np.random.default_rng(seed).random((t, n)) < 0.1] = np.inf  # not observed either
    for unseen in (1.0, 0.9):
        path = fold(own, begin(own.target), own.z, unseen=unseen)
        assert np.isfinite(path).all()
        assert np.abs(path).max() <= 1.0 + CLOSE  # but for rounding


def test_a_pair_of_which_one_is_missing_stands_still_to_the_last_bit() -> None:
    own = case(4, 30, seed=5)
    own.z[:, 1] = np.nan
    state = begin(own.target)
    path = square(fold(own, state, own.z), 4)
    assert (path[:, 1] == oracle.normalised(own.target)[1]).all()
    assert state.diagonal[1] == 1.0
    assert state.news[1] == 0.0
    assert state.fourth[1, 1] == 0.0
    keep = [0, 2, 3]
    less = own._replace(
        target=own.target[np.ix_(keep, keep)], asymmetry=own.asymmetry[np.ix_(keep, keep)]
    )
    apart = fold(less, begin(less.target), np.ascontiguousarray(own.z[:, keep]))
    assert (square(apart, 3) == path[:, keep][:, :, keep]).all()  # the others do not notice


def test_news_and_fourth_powers_are_counted_where_observed() -> None:
    own = Case(np.array([[1.0, np.nan], [2.0, 3.0]]), 0.1, 0.8, 0.0, "dcc", np.eye(2), np.eye(2))
    state = begin(own.target)
    fold(own, state, own.z)
    np.testing.assert_array_equal(state.news, [1.9, 1.0])
    np.testing.assert_allclose(state.fourth, [[0.99 + 16.0, 81.0], [1.99, 1.0]], rtol=1e-15)


@given(st.integers(1, 300), seeds)
def test_reading_mirrors_the_triangle_and_counts_what_is_held(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    full = np.triu(rng.uniform(-1.2, 1.2, (n, n)), 1)
    full = full + full.T
    rows, news = rng.uniform(0.0, 100.0, (2, n))
    worth = np.maximum(rows, news)
    corr, n_eff = np.empty((2, n, n))
    held = read_correlation(full[np.triu_indices(n)], rows, news, 0.9, corr, n_eff)
    expected = np.clip(full, -0.9, 0.9)
    np.fill_diagonal(expected, 1.0)
    assert (corr == expected).all()
    assert (n_eff == np.minimum.outer(worth, worth)).all()
    assert held == (np.abs(full[np.triu_indices(n)]) > 0.9).sum()


@given(st.integers(1, 300), seeds)
def test_kappa_is_pooled_and_no_order_shows(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    fourth = np.stack([rng.uniform(1.0, 1e4, n), rng.uniform(1.0, 700.0, n)])
    got = pool_kappa(fourth)
    powers, counts = fourth.sum(axis=1)
    # each is cut off at 1/1024, of at least one
    assert got == pytest.approx(powers / counts / 3.0 - 1.0, rel=0.002, abs=0.002)
    assert pool_kappa(np.ascontiguousarray(fourth[:, rng.permutation(n)])) == got
    assert pool_kappa(np.zeros((2, n))) == 0.0


@given(sizes, lengths, seeds, shares)
def test_densities_are_those_of_determinants_and_solves(
    n: int, t: int, seed: int, missing: float
) -> None:
    own = case(n, t, seed, missing)
    path = fold(own._replace(g=0.0, a=0.02, b=0.9), begin(own.target), own.z)
    out = np.empty(t)
    log_densities(own.z, path, out)
    corr = square(path, n)
    usable = np.array([np.linalg.eigvalsh(matrix).min() > 1e-6 for matrix in corr], dtype=bool)
    expected = likelihood_oracle.log_densities(own.z[usable], corr[usable])
    # a solve loses as many digits as the condition number has: six, of sixteen
    np.testing.assert_allclose(out[usable], expected, rtol=1e-8, atol=1e-8)


def test_an_indefinite_matrix_has_no_density() -> None:
    out = np.empty(2)
    log_densities(np.ones((2, 2)), np.array([[1.0, 1.1, 1.0], [1.0, 0.0, 1.0]]), out)
    assert out[0] == -np.inf
    assert out[1] == pytest.approx(-np.log(2.0 * np.pi) - 1.0, rel=1e-15)


def test_a_row_with_nothing_observed_has_density_one() -> None:
    out = np.empty(1)
    log_densities(np.full((1, 3), np.nan), np.ones((1, 6)), out)
    assert out[0] == 0.0
