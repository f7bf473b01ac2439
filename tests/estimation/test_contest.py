"""Two models side by side: the ratio, its bound, and who wins."""

import math

import numpy as np
import pytest

from stream_calib.estimation.contest import MARGIN, Contest, fitness
from stream_calib.values import F64
from tests.oracles.contest import angular_log_density


def drawn(n: int, seed: int) -> tuple[F64, F64, F64]:
    """A row and two correlation matrices."""
    rng = np.random.default_rng(seed)
    out: list[F64] = []
    for _ in range(2):
        x = rng.standard_normal((3 * n, n)) + rng.standard_normal((3 * n, 1))
        out.append(np.atleast_2d(np.corrcoef(x.T)))
    return rng.standard_normal(n), out[0], out[1]


def equal(n: int, r: float) -> F64:
    return np.full((n, n), r) + (1.0 - r) * np.eye(n)


@pytest.mark.parametrize("seed", range(3))
def test_a_row_measures_as_in_the_textbook(seed: int) -> None:
    z, corr, _ = drawn(6, seed)
    z[seed] = np.nan
    found = fitness(z, corr)
    # two ways to a determinant of 5 symbols differ by rounding
    assert abs(found.angular - angular_log_density(z, corr)) <= 1e-11
    assert found.observed == 5


def test_the_ratio_is_the_sum_of_differences_and_forgets_how_long_rows_are() -> None:
    z, corr, other = drawn(5, 4)
    plain, scaled = Contest(1e9), Contest(1e9)
    for factor in (1.0, 3.0, 0.1):
        plain.update(z, corr, other)
        scaled.update(factor * z, corr, other)
    expected = 3.0 * (angular_log_density(z, other) - angular_log_density(z, corr))
    assert abs(plain.log_ratio - expected) <= 1e-10  # three sums of rounding
    assert abs(scaled.log_ratio - expected) <= 1e-10


def test_one_symbol_has_no_direction_and_nothing_no_row() -> None:
    contest = Contest()
    for z in (np.full(3, np.nan), np.array([np.nan, 5.0, np.nan])):
        contest.update(z, equal(3, 0.1), equal(3, 0.9))
    contest.update(np.zeros(3), equal(3, 0.1), equal(3, 0.9))
    assert (contest.rows, contest.log_ratio, contest.verdict) == (1, 0.0, "")


def test_a_forecast_that_is_not_definite_is_repaired_as_before_publication() -> None:
    broken = np.array([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]])
    found = fitness(np.array([1.0, 1.0, -1.0]), broken)
    assert math.isfinite(found.angular)
    assert math.isfinite(found.angular)


def test_the_right_model_is_beaten_once_in_twenty_times_at_most() -> None:
    n, runs, rows = 5, 200, 250
    rng = np.random.default_rng(6)
    corr, other = equal(n, 0.3), equal(n, 0.45)
    won = lost = 0
    for _ in range(runs):
        tails = rng.chisquare(4.0, rows) / 4.0
        z = rng.standard_normal((rows, n)) @ np.linalg.cholesky(corr).T / np.sqrt(tails)[:, None]
        contest = Contest()
        for row in z:
            contest.update(row, corr, other)
        won, lost = won + (contest.verdict == "won"), lost + (contest.verdict == "lost")
    # 5 % and two standard errors of the runs; and it does tell the two apart
    assert won <= 0.05 * runs + 2.0 * math.sqrt(0.05 * 0.95 * runs)
    assert lost > 0.9 * runs


def test_saved_and_restored_it_goes_on_to_the_last_bit() -> None:
    rng = np.random.default_rng(8)
    whole, parts = Contest(5.0), Contest(5.0)
    for row in rng.standard_normal((40, 3)):
        whole.update(row, equal(3, 0.0), equal(3, 0.4))
        parts.update(row, equal(3, 0.0), equal(3, 0.4))
        parts = Contest.from_state(parts.state())
    assert whole.state()["contest"].tobytes() == parts.state()["contest"].tobytes()


def test_the_order_of_the_symbols_does_not_show() -> None:
    z, corr, other = drawn(7, 9)
    z[2] = np.nan
    order = np.random.default_rng(1).permutation(7)
    one, two = Contest(order=np.arange(7)), Contest(order=np.argsort(order))
    one.update(z, corr, other)
    two.update(z[order], corr[np.ix_(order, order)], other[np.ix_(order, order)])
    assert one.log_ratio == two.log_ratio


def test_after_a_verdict_nothing_counts() -> None:
    contest = Contest()
    for _ in range(20):
        contest.update(np.array([1.0, -1.0]), equal(2, 0.0), equal(2, 0.9))
    assert contest.verdict == "lost"
    assert contest.log_ratio <= -MARGIN
    left = contest.rows
    contest.update(np.array([1.0, 1.0]), equal(2, 0.0), equal(2, 0.9))
    assert contest.rows == left < 20


def test_a_margin_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="margin"):
        Contest(0.0)
