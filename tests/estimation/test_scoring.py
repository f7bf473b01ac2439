"""Scores of a forecast by the returns that came: against scipy, and on truths that are known."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from stream_calib.estimation.scoring import count_covered, judge
from stream_calib.values import F64


def random_corr(n: int, seed: int) -> F64:
    rng = np.random.default_rng(seed)
    loads = rng.normal(size=(n, 2 * n))
    cov = loads @ loads.T
    scale = np.sqrt(cov.diagonal())
    return np.asarray(cov / np.outer(scale, scale))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_scores_are_those_of_the_normal_law(seed: int) -> None:
    n = 6
    rng = np.random.default_rng(seed)
    corr, vol = random_corr(n, seed), rng.uniform(0.5, 2.0, n)
    returns = rng.normal(size=n) * vol
    returns[2] = np.nan
    found = judge(corr, vol, returns, np.arange(n))
    assert found is not None
    seen = np.isfinite(returns)
    cov = (corr * np.outer(vol, vol))[np.ix_(seen, seen)]
    own = returns[seen]
    logpdf = float(multivariate_normal(np.zeros(n - 1), cov).logpdf(own))
    diagonal = np.diag(cov.diagonal())
    alone = float(multivariate_normal(np.zeros(n - 1), diagonal).logpdf(own))
    assert abs(found.gain - (logpdf - alone)) <= 1e-10  # sums of a few logarithms
    square = float(own @ np.linalg.solve(cov, own))
    log_det = float(np.linalg.slogdet(cov)[1])
    assert abs(found.qlike - (log_det + square) / (n - 1)) <= 1e-10
    assert abs(found.surprise - square / (n - 1)) <= 1e-10


def test_one_symbol_alone_has_no_score() -> None:
    assert judge(np.eye(2), np.ones(2), np.array([1.0, np.nan]), np.arange(2)) is None


def test_the_order_of_the_symbols_does_not_show() -> None:
    rng = np.random.default_rng(4)
    corr, vol, returns = random_corr(9, 4), rng.uniform(0.5, 2.0, 9), rng.normal(size=9)
    turn = rng.permutation(9)
    # the canonical order in the places of each
    one = judge(corr, vol, returns, np.arange(9))
    other = judge(corr[np.ix_(turn, turn)], vol[turn], returns[turn], np.argsort(turn))
    assert one == other


def test_the_truth_gains_surprises_by_one_and_covers() -> None:
    n, rows, seed = 8, 4000, 5
    rng = np.random.default_rng(seed)
    corr = random_corr(n, seed)
    z = rng.multivariate_normal(np.zeros(n), corr, size=rows)
    found = [judge(corr, np.ones(n), row, np.arange(n)) for row in z]
    gain, _, surprise = np.mean([score for score in found if score is not None], axis=0)
    # its expectation is -ln|R| / 2, and squares have a standard error of sqrt(2 / (n rows))
    assert abs(gain + 0.5 * np.linalg.slogdet(corr)[1]) < 0.15
    assert abs(surprise - 1.0) < 4.0 * np.sqrt(2.0 / (n * rows))
    # an estimate of 200 rows, and blocks of 60 that came after it
    covered = pairs = 0
    for start in range(0, rows - 260, 260):
        past, later = z[start : start + 200], z[start + 200 : start + 260]
        said = np.atleast_2d(np.corrcoef(past.T))
        band = (1.0 - said**2) / np.sqrt(200.0)
        squares = np.tile((later**2).sum(axis=0)[:, None], n)
        rows_of = np.full((n, n), 60.0)
        inside, n_pairs = count_covered(said, band, later.T @ later, squares, rows_of)
        covered, pairs = covered + inside, pairs + n_pairs
    assert pairs == 15 * n * (n - 1) // 2
    assert 0.91 < covered / pairs < 0.98  # .95, and 420 pairs that are not independent


def test_a_band_that_is_too_narrow_and_a_correlation_that_is_wrong_do_not_cover() -> None:
    rng = np.random.default_rng(6)
    z = rng.multivariate_normal(np.zeros(2), [[1.0, 0.8], [0.8, 1.0]], size=60)
    rows, squares = np.full((2, 2), 60.0), np.tile((z**2).sum(axis=0)[:, None], 2)
    said = np.array([[1.0, 0.2], [0.2, 1.0]])
    assert count_covered(said, np.full((2, 2), 0.01), z.T @ z, squares, rows) == (0, 1)
    assert count_covered(said, np.full((2, 2), 0.9), z.T @ z, squares, rows) == (1, 1)
    assert count_covered(said, np.full((2, 2), 0.9), z.T @ z, squares, np.full((2, 2), 7.0)) == (
        0,
        0,
    )
