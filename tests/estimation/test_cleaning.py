"""The repair of a matrix: positive definite, no more than needed, and blind to order."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stream_calib.estimation.cleaning import (
    crisis_distance,
    decompose,
    nearest_correlation,
    repair_correlation,
)
from stream_calib.values import F64

FLOOR = 1e-4
# LAPACK's eigenvalues of an n x n matrix are good to a few n ulps of the largest, here below 60
EIGENVALUE_ERROR = 1e-12


def random_correlation(n: int, seed: int, noise: float) -> F64:
    """A one-factor matrix with noise in every entry: indefinite when there is much of it."""
    rng = np.random.default_rng(seed)
    loading = rng.uniform(0.3, 0.95, n)
    corr = np.outer(loading, loading) + noise * rng.normal(size=(n, n))
    corr = np.clip((corr + corr.T) / 2.0, -0.999, 0.999)
    np.fill_diagonal(corr, 1.0)
    return corr


matrices = st.builds(
    random_correlation, st.integers(2, 60), st.integers(0, 2**32 - 1), st.floats(0.0, 0.5)
)


@given(matrices)
def test_the_result_is_a_positive_definite_correlation_matrix(corr: F64) -> None:
    repaired = repair_correlation(corr, FLOOR)
    assert np.linalg.eigvalsh(repaired.corr)[0] >= FLOOR - EIGENVALUE_ERROR
    np.linalg.cholesky(repaired.corr)
    assert (np.diagonal(repaired.corr) == 1.0).all()
    assert repaired.corr.tobytes() == repaired.corr.T.tobytes()


@given(matrices)
def test_the_reported_eigenvalues_are_those_of_the_result(corr: F64) -> None:
    repaired = repair_correlation(corr, FLOOR)
    eigenvalues = np.linalg.eigvalsh(repaired.corr)
    assert abs(repaired.min_eigenvalue - eigenvalues[0]) < EIGENVALUE_ERROR
    assert abs(repaired.max_eigenvalue - eigenvalues[-1]) < EIGENVALUE_ERROR


@given(matrices)
def test_the_weight_of_the_identity_is_the_least_that_reaches_the_floor(corr: F64) -> None:
    least = np.linalg.eigvalsh(corr)[0]
    assume(least < FLOOR)
    repaired = repair_correlation(corr, FLOOR)
    assert abs(repaired.repair - (FLOOR - least) / (1.0 - least)) < EIGENVALUE_ERROR
    shrunk = (1.0 - repaired.repair) * corr + repaired.repair * np.eye(len(corr))
    np.testing.assert_allclose(repaired.corr, shrunk, rtol=0.0, atol=2.3e-16)  # one ulp of 1
    assert abs(repaired.min_eigenvalue - FLOOR) < EIGENVALUE_ERROR


@given(matrices)
def test_what_has_to_be_shrunk_is_lifted_and_nothing_else_is(corr: F64) -> None:
    lifted = repair_correlation(corr, FLOOR, None, 0.01)
    least = np.linalg.eigvalsh(corr)[0]
    if least >= FLOOR:
        assert lifted.corr.tobytes() == corr.tobytes()
    else:
        assert abs(np.linalg.eigvalsh(lifted.corr)[0] - 0.01) < EIGENVALUE_ERROR
        assert abs(lifted.min_eigenvalue - 0.01) < EIGENVALUE_ERROR


@given(matrices)
def test_a_matrix_above_the_floor_is_left_alone(corr: F64) -> None:
    assume(np.linalg.eigvalsh(corr)[0] >= FLOOR + EIGENVALUE_ERROR)
    before = corr.tobytes()
    repaired = repair_correlation(corr, FLOOR)
    assert repaired.corr.tobytes() == before
    assert repaired.repair == 0.0


@given(matrices)
def test_the_input_is_not_changed(corr: F64) -> None:
    before = corr.tobytes()
    repair_correlation(corr, FLOOR)
    assert corr.tobytes() == before


@given(matrices)
def test_a_second_repair_changes_next_to_nothing(corr: F64) -> None:
    once = repair_correlation(corr, FLOOR)
    assert repair_correlation(once.corr, FLOOR).repair < EIGENVALUE_ERROR


def test_the_identity_needs_no_repair() -> None:
    repaired = repair_correlation(np.eye(5), FLOOR)
    assert repaired.repair == 0.0
    assert (repaired.min_eigenvalue, repaired.max_eigenvalue) == (1.0, 1.0)


@pytest.mark.parametrize("floor", [1e-8, 1e-4, 0.3])
def test_a_matrix_of_ones_is_brought_to_the_floor(floor: float) -> None:
    repaired = repair_correlation(np.ones((4, 4)), floor)
    # its eigenvalues are 4 and 0 exactly, so the weight is the floor itself
    assert abs(repaired.repair - floor) < EIGENVALUE_ERROR
    assert abs(repaired.corr[0, 1] - (1.0 - floor)) < EIGENVALUE_ERROR


@given(matrices, st.data())
def test_a_canonical_order_hides_the_order_of_the_symbols(corr: F64, data: st.DataObject) -> None:
    n = len(corr)
    order = np.array(data.draw(st.permutations(range(n))))
    permuted = np.ascontiguousarray(corr[np.ix_(order, order)])
    one = repair_correlation(corr, FLOOR, np.arange(n))
    other = repair_correlation(permuted, FLOOR, np.argsort(order))
    assert one[1:] == other[1:]  # eigenvalues and weight, to the last bit
    assert other.corr.tobytes() == one.corr[np.ix_(order, order)].tobytes()


# the nearest correlation matrix


def by_its_dual(corr: F64, floor: float) -> F64:
    """Minimise |X - A| by the dual of Qi and Sun (2006): smooth, without constraints.

    X = f I + (A - f I + Diag y)_+ with y where 1/2 |(.)_+|^2 - (1 - f) sum y is least.
    """
    from scipy.optimize import minimize

    n = len(corr)
    shifted = corr - floor * np.eye(n)

    def lifted(y: F64) -> F64:
        values, vectors = np.linalg.eigh(shifted + np.diag(y))
        return np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T)

    def dual(y: F64) -> tuple[float, F64]:
        part = lifted(y)
        return 0.5 * float(np.sum(part**2)) - (1.0 - floor) * float(np.sum(y)), np.diag(part) - (
            1.0 - floor
        )

    found = minimize(dual, np.zeros(n), jac=True, method="BFGS", options={"gtol": 1e-10})
    return lifted(found.x) + floor * np.eye(n)


def test_the_nearest_correlation_matrix_of_the_paper_is_found() -> None:
    # Higham (2002), section 4, and NAG's documentation of g02aa: four decimals
    corr = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    nearest = nearest_correlation(corr, 1e-12)
    wanted = [[1.0, 0.7607, 0.1573], [0.7607, 1.0, 0.7607], [0.1573, 0.7607, 1.0]]
    np.testing.assert_allclose(nearest, wanted, rtol=0.0, atol=5e-5)


@pytest.mark.parametrize("floor", [1e-8, 0.05])
@pytest.mark.parametrize(("n", "seed"), [(3, 3), (8, 2), (15, 3)])
def test_the_nearest_correlation_matrix_equals_that_of_its_dual(
    n: int, seed: int, floor: float
) -> None:
    corr = random_correlation(n, seed, 0.4)
    assert np.linalg.eigvalsh(corr)[0] < floor  # there is something to find
    nearest = nearest_correlation(corr, floor)
    # both iterations stop at a change or a gradient of 1e-10, and converge linearly
    np.testing.assert_allclose(nearest, by_its_dual(corr, floor), rtol=0.0, atol=1e-6)


def test_the_nearest_correlation_matrix_is_no_further_than_what_others_find() -> None:
    from statsmodels.stats.correlation_tools import corr_nearest
    from statsmodels.tools.sm_exceptions import IterationLimitWarning

    corr = random_correlation(12, 4, 0.4)
    with warnings.catch_warnings():
        # it stops where nothing changes any more, and says that it did not converge
        warnings.simplefilter("ignore", IterationLimitWarning)
        theirs = corr_nearest(corr, n_fact=1000)
    ours = nearest_correlation(corr, 1e-8)
    distance = np.linalg.norm(ours - corr)
    # theirs is allowed eigenvalues of zero, ours keeps a floor of 1e-8 on each of 12
    assert distance <= np.linalg.norm(theirs - corr) + 12e-8
    np.testing.assert_allclose(ours, theirs, rtol=0.0, atol=1e-5)
    assert distance < np.linalg.norm(repair_correlation(corr, 1e-8).corr - corr)


@given(matrices)
@settings(max_examples=20)
def test_the_nearest_correlation_matrix_is_one_and_above_the_floor(corr: F64) -> None:
    before = corr.tobytes()
    nearest = nearest_correlation(corr, FLOOR)
    assert corr.tobytes() == before
    assert np.linalg.eigvalsh(nearest)[0] >= FLOOR - EIGENVALUE_ERROR
    assert (np.diagonal(nearest) == 1.0).all()
    assert nearest.tobytes() == np.ascontiguousarray(nearest.T).tobytes()


def test_a_correlation_matrix_is_its_own_nearest() -> None:
    corr = random_correlation(10, 5, 0.0)
    # eigenvectors put together again: n products
    np.testing.assert_allclose(nearest_correlation(corr, 1e-8), corr, rtol=0.0, atol=1e-13)


@given(st.integers(2, 10), st.integers(0, 2**32 - 1), st.data())
@settings(max_examples=10)
def test_a_canonical_order_hides_the_order_from_the_nearest_too(
    n: int, seed: int, data: st.DataObject
) -> None:
    corr = random_correlation(n, seed, 0.4)
    order = np.array(data.draw(st.permutations(range(n))))
    one = nearest_correlation(corr, FLOOR, np.arange(n))
    other = nearest_correlation(corr[np.ix_(order, order)], FLOOR, np.argsort(order))
    assert other.tobytes() == np.ascontiguousarray(one[np.ix_(order, order)]).tobytes()


# eigenvectors


def test_an_eigenvector_has_the_sign_of_its_largest_entry() -> None:
    corr = random_correlation(20, 6, 0.1)
    eigenvalues, vectors = decompose(corr)
    largest = np.abs(vectors).argmax(axis=0)
    assert (vectors[largest, np.arange(20)] > 0.0).all()
    np.testing.assert_allclose((vectors * eigenvalues) @ vectors.T, corr, rtol=0.0, atol=1e-13)


def test_the_number_of_blas_threads_outside_cannot_be_seen() -> None:
    from threadpoolctl import threadpool_limits

    corr = random_correlation(300, 7, 0.1)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads, "blas"):
            found.append([array.tobytes() for array in decompose(corr)])
    assert found[0] == found[1]


def test_bets_are_as_many_as_symbols_without_correlation_and_one_in_a_crisis() -> None:
    n = 6
    assert repair_correlation(np.eye(n), 1e-8).effective_bets == pytest.approx(n)
    fused = np.full((n, n), 1.0 - 1e-7)
    np.fill_diagonal(fused, 1.0)
    # eigenvalues n and n - 1 of about 1e-7: their entropy is of that size times ln
    assert repair_correlation(fused, 1e-9).effective_bets == pytest.approx(1.0, abs=1e-5)
    pair = np.array([[1.0, 0.6], [0.6, 1.0]])
    entropy = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2))
    assert repair_correlation(pair, 1e-8).effective_bets == pytest.approx(math.exp(entropy))


def test_distance_from_a_crisis_counts_hedges_as_moving_along() -> None:
    signs = np.array([1.0, -1.0, 1.0, 1.0, -1.0])
    crisis = np.outer(signs, signs)
    # sums of 25 numbers of size one, of whose difference the root is taken
    assert crisis_distance(crisis) == pytest.approx(0.0, abs=1e-7)
    assert crisis_distance(np.eye(5)) == pytest.approx(1.0)
    half = 0.5 * crisis + 0.5 * np.eye(5)
    assert crisis_distance(half) == pytest.approx(0.5)
    order = np.array([3, 1, 0, 4, 2])
    mixed = half + 0.0
    mixed[0, 1] = mixed[1, 0] = -0.3
    turned = mixed[np.ix_(order, order)]
    assert crisis_distance(turned, np.argsort(order)) == crisis_distance(mixed)
