"""The composite likelihood equals 2 x 2 matrices bar by bar, its score their differences."""

from collections.abc import Callable

import numpy as np
import pytest

from stream_calib.kernels.composite import score_aielli_pairs, score_engle_pairs
from stream_calib.kernels.dcc_targets import pair_moments, star_returns
from stream_calib.values import F64, I64
from tests.oracles import composite as oracle

T, N = 120, 4
PAIRS = np.array([[0, 1], [2, 0], [1, 3]])
NO_BARS = np.empty((0, 3))


def panel(seed: int, gaps: float = 0.0) -> F64:
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((T, N)) + 0.7 * rng.standard_normal((T, 1))
    z[rng.random((T, N)) < gaps] = np.nan
    return z


def triple(square: F64) -> list[float]:
    return [square[0, 0], square[0, 1], square[1, 1]]


def engle(z: F64, news: F64, pairs: I64, theta: F64, bars: F64 = NO_BARS) -> F64:
    targets, asymmetries = moments_of(news, pairs, theta)
    out = np.empty((len(pairs), 4))
    score_engle_pairs(
        np.ascontiguousarray(z.T),
        np.ascontiguousarray(news.T),
        pairs,
        np.array([triple(c) for c in targets]),
        np.array([triple(m) for m in asymmetries]),
        theta,
        out,
        bars,
    )
    return out


def moments_of(news: F64, pairs: I64, theta: F64) -> tuple[list[F64], list[F64]]:
    found = [oracle.pair_moments(news[:, pair]) for pair in pairs]
    # without g the asymmetry must not enter
    return [m[0] for m in found], [m[1] if theta[2] else np.zeros((2, 2)) for m in found]


def aielli(z: F64, news: F64, pairs: I64, theta: F64, shift: float = 0.0) -> tuple[F64, F64]:
    out, target = np.empty((len(pairs), 4)), np.empty((len(pairs), 3))
    paths = np.empty((z.shape[1], 4, len(z)))
    by_symbol = np.ascontiguousarray(z.T), np.ascontiguousarray(news.T)
    score_aielli_pairs(*by_symbol, pairs, target, False, shift, theta, paths, out, NO_BARS)
    return out, target


@pytest.mark.parametrize("gaps", [0.0, 0.2])
@pytest.mark.parametrize("theta", [(0.05, 0.9, 0.0), (0.04, 0.85, 0.06), (0.0, 0.0, 0.0)])
def test_engle_equals_the_twin(theta: tuple[float, ...], gaps: float) -> None:
    z = panel(1, gaps)
    news = 0.9 * z
    point = np.array(theta)
    targets, asymmetries = moments_of(news, PAIRS, point)
    want = [
        oracle.pair_loglik(z[:, p], news[:, p], c, m, point, aielli=False).sum()
        for p, c, m in zip(PAIRS, targets, asymmetries, strict=True)
    ]
    # a sum of 120 terms near 1: rounding alone
    np.testing.assert_allclose(engle(z, news, PAIRS, point)[:, 0], want, rtol=1e-12)


@pytest.mark.parametrize("gaps", [0.0, 0.2])
def test_aielli_equals_the_twin_with_its_own_target(gaps: float) -> None:
    z = panel(2, gaps)
    news = 0.9 * z
    theta = np.array([0.06, 0.9, 0.0])
    out, target = aielli(z, news, PAIRS, theta)
    for row, pair in enumerate(PAIRS):
        corr = oracle.star_target(news[:, pair], *theta[:2])
        assert target[row, 0] == pytest.approx(corr[0, 1], rel=1e-13)  # rounding
        bars = oracle.pair_loglik(
            z[:, pair], news[:, pair], corr, np.zeros((2, 2)), theta, aielli=True
        )
        assert out[row, 0] == pytest.approx(bars.sum(), rel=1e-12)  # rounding


@pytest.mark.parametrize("gaps", [0.0, 0.2])
def test_the_score_is_the_derivative(gaps: float) -> None:
    z = panel(3, gaps)
    news = 0.95 * z
    step = 1e-6

    def slopes(value: Callable[[F64], F64], theta: F64, n: int) -> F64:
        columns = []
        for k in range(n):
            ends = [value(theta + s * step * np.eye(3)[k]) for s in (-1, 1)]
            columns.append((ends[1] - ends[0]) / (2 * step))
        return np.stack(columns, axis=1)

    theta = np.array([0.05, 0.85, 0.05])
    got = engle(z, news, PAIRS, theta)[:, 1:]
    want = slopes(lambda p: engle(z, news, PAIRS, p)[:, 0], theta, 3)
    # differences: truncation 1e-12 times third derivatives up to 1e6, rounding 1e-14 / 1e-6
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-5)
    got = aielli(z, news, PAIRS, theta)[0][:, 1:3]
    want = slopes(lambda p: aielli(z, news, PAIRS, p)[0][:, 0], theta, 2)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-5)


def test_a_shift_moves_every_target() -> None:
    z = panel(4)
    theta = np.array([0.05, 0.9, 0.0])
    shifted, target = aielli(z, z, PAIRS, theta, 0.01)
    for row, pair in enumerate(PAIRS):
        corr = np.array([[1.0, target[row, 0] + 0.01], [target[row, 0] + 0.01, 1.0]])
        bars = oracle.pair_loglik(
            z[:, pair], z[:, pair], corr, np.zeros((2, 2)), theta, aielli=True
        )
        assert shifted[row, 0] == pytest.approx(bars.sum(), rel=1e-12)  # rounding


def test_swapping_the_symbols_of_a_pair_changes_no_bit() -> None:
    z = panel(5, 0.1)
    theta = np.array([0.05, 0.85, 0.05])
    swapped = np.ascontiguousarray(PAIRS[::-1, ::-1])
    np.testing.assert_array_equal(engle(z, z, swapped, theta), engle(z, z, PAIRS, theta)[::-1])
    both = aielli(z, z, swapped, theta)[0], aielli(z, z, PAIRS, theta)[0][::-1]
    np.testing.assert_array_equal(*both)


def test_scores_by_bar_sum_to_the_scores() -> None:
    z = panel(6, 0.1)
    theta = np.array([0.05, 0.85, 0.05])
    bars = np.zeros((T, 3))
    out = engle(z, z, PAIRS, theta, bars)
    np.testing.assert_allclose(bars.sum(axis=0), out[:, 1:].sum(axis=0), rtol=1e-10)  # rounding


def test_two_equal_series_have_a_finite_likelihood() -> None:
    z = panel(7)
    z[:, 1] = z[:, 0]
    theta = np.array([0.05, 0.9, 0.0])
    assert np.isfinite(engle(z, z, PAIRS[:1], theta)).all()
    assert np.isfinite(aielli(z, z, PAIRS[:1], theta)[0]).all()


@pytest.mark.parametrize("gaps", [0.0, 0.3])
def test_moments_are_means_over_common_bars(gaps: float) -> None:
    z = panel(8, gaps)
    out = np.empty((len(PAIRS), 7))
    pair_moments(np.ascontiguousarray(z.T), PAIRS, 0.0, 0.0, False, out)
    for row, pair in zip(out, PAIRS, strict=True):
        square, down, count = oracle.pair_moments(z[:, pair])
        np.testing.assert_allclose(row[:3], triple(square), rtol=1e-13)  # rounding
        np.testing.assert_allclose(row[3:6], triple(down), rtol=1e-13)
        assert row[6] == count
    pair_moments(np.ascontiguousarray(z.T), PAIRS, 0.05, 0.9, True, out)
    for row, pair in zip(out, PAIRS, strict=True):
        corr = oracle.star_target(z[:, pair], 0.05, 0.9)
        assert row[1] / np.sqrt(row[0] * row[2]) == pytest.approx(corr[0, 1], rel=1e-13)


def test_star_returns_stand_still_over_gaps() -> None:
    z = panel(9)
    z[40:60, 0] = np.nan
    out = np.empty((N, T))
    star_returns(np.ascontiguousarray(z.T), 0.05, 0.9, out)
    short = np.empty((N, T - 20))
    star_returns(np.ascontiguousarray(np.delete(z, np.s_[40:60], axis=0).T), 0.05, 0.9, short)
    np.testing.assert_array_equal(np.delete(out[0], np.s_[40:60]), short[0])
    assert np.isnan(out[0, 40:60]).all()


def test_gaps_of_one_symbol_do_not_show_in_pairs_of_others() -> None:
    z = panel(10)
    theta = np.array([0.05, 0.9, 0.0])
    pairs = np.array([[0, 1], [0, 2], [0, 3]])
    whole = aielli(z, z, pairs, theta)[0]
    z[::3, 1] = np.nan
    np.testing.assert_array_equal(aielli(z, z, pairs, theta)[0][1:], whole[1:])
