"""The repair of a matrix: positive definite, no more than needed, and blind to order."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stream_calib.estimation.cleaning import repair_correlation
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
