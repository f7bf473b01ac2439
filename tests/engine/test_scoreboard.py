"""What was published is judged by the bars that came after it, and by no other."""

from dataclasses import replace

import numpy as np
import pytest

from stream_calib.engine.scoreboard import BLOCK_BARS, Scoreboard
from stream_calib.estimation.scoring import judge
from stream_calib.values import Matrix, Step
from tests.engine.driver import SECOND
from tests.engine.schedule import P, dense_run
from tests.web.observations import matrix

BAR = 60 * SECOND


def of(as_of_ns: int, estimator: str = "ewma", corr: float = 0.5) -> Matrix:
    """Three symbols of one correlation, with the volatility of a second."""
    square = np.full((3, 3), corr)
    np.fill_diagonal(square, 1.0)
    return replace(matrix(estimator=estimator), as_of_ns=as_of_ns, corr=square)


def test_a_bar_is_held_against_the_newest_matrix_from_before_it() -> None:
    board = Scoreboard(("C", "A", "B"))
    returns = np.array([3e-3, -1e-3, 2e-3])  # in the order of the universe
    assert board.close(BAR, returns, BAR) == []
    for as_of_s, corr in ((30, 0.1), (60, 0.2)):
        board.publish(of(as_of_s * SECOND, corr=corr))
    board.publish(of(60 * SECOND, "dcc", 0.3))  # after the bar that it ends with was closed
    for as_of_s, corr in ((61, 0.6), (119, 0.7)):
        board.publish(of(as_of_s * SECOND, corr=corr))
    scores = {score.estimator: score for score in board.close(2 * BAR, returns, BAR)}
    own, vol = returns[[1, 2, 0]], np.full(3, 1e-4) * np.sqrt(60.0)
    for name, corr in (("ewma", 0.2), ("dcc", 0.3)):
        expected = judge(of(0, corr=corr).corr, vol, own, np.arange(3))
        assert expected is not None
        found = scores[name]
        assert (found.gain, found.qlike, found.surprise) == pytest.approx(expected, rel=1e-12)
    (second, *_) = board.close(3 * BAR, returns, BAR)
    expected = judge(of(0, corr=0.7).corr, vol, own, np.arange(3))
    assert expected is not None
    # the mean of two, of which the older one counts for a little less
    assert abs(second.gain - 0.5 * (scores["ewma"].gain + expected.gain)) < 2e-3 * abs(second.gain)


def test_bands_are_counted_once_a_block() -> None:
    board = Scoreboard(("A", "B", "C"))
    rng = np.random.default_rng(1)
    board.publish(of(0))
    counted = []
    for bar in range(1, 3 * BLOCK_BARS + 2):
        board.publish(of((bar - 1) * BAR))
        scores = board.close(bar * BAR, rng.normal(size=3) * 1e-3, BAR)
        counted += [(bar, score.pairs) for score in scores if score.pairs]
    assert [pairs for _, pairs in counted] == [3, 3, 3]
    assert np.diff([bar for bar, _ in counted]).tolist() == [BLOCK_BARS, BLOCK_BARS]


@pytest.mark.parametrize("total", [None, 0.6])
def test_bands_are_those_that_subscribers_are_told(total: float | None) -> None:
    board, rng = Scoreboard(("A", "B", "C")), np.random.default_rng(3)
    said = replace(of(0, corr=0.7), band=np.full((3, 3), 1e-6))  # of returns without correlation
    if total is not None:
        said = replace(said, band_total=np.full((3, 3), total))
    board.publish(said)
    found = [board.close(bar * BAR, rng.normal(size=3), BAR) for bar in range(1, BLOCK_BARS + 2)]
    (covered,) = [score.covered for scores in found for score in scores if score.pairs]
    # 60 bars say 0 +- .13: .7 is five deviations off, and one of .6 / (1 - .49) by atanh
    assert covered == (0 if total is None else 3)


def test_bands_of_the_truth_cover_where_bars_are_missing_too() -> None:
    n, corr = 6, 0.6
    truth = np.full((n, n), corr)
    np.fill_diagonal(truth, 1.0)
    names = tuple("ABCDEF")
    said = replace(
        of(0), symbols=names, corr=truth, band=np.full((n, n), 1e-6), vol=np.ones(n),
        horizon_ns=BAR, n_eff=np.full((n, n), 1e9), staleness_ns=np.zeros(n, np.int64),
    )  # fmt: skip
    board, rng = Scoreboard(names), np.random.default_rng(2)
    covered = pairs = 0
    for bar in range(1, 60 * BLOCK_BARS):
        board.publish(replace(said, as_of_ns=(bar - 1) * BAR))
        z = np.linalg.cholesky(truth) @ rng.normal(size=n)
        z[rng.random(n) < 0.3] = np.nan
        for score in board.close(bar * BAR, z, BAR):
            covered, pairs = covered + score.covered, pairs + score.pairs
    # 59 blocks of 15 pairs of one factor, which are some 8 times less than independent
    assert abs(covered / pairs - 0.95) < 4.0 * np.sqrt(0.95 * 0.05 * 8.0 / pairs)


def test_a_universe_scores_each_bar_and_publishes_the_same_without() -> None:
    dcc = {"bar": "2s", "window_bars": 40, "first_fit_bars": 20, "refit_bars": 0}
    run = dense_run("ABC", 60, universe__dcc=dcc)
    at, per_bar = run.engine.intake.positions()[P], len(run.log[P]) // 400
    effects = run.engine.advance(Step(batches=(run.ticks(P, at, 80 * per_bar + 1),)))
    scores = effects.scores
    assert len(scores) == 10
    assert all(np.isfinite(score[1:4]).all() for score in scores)
    assert not any("score" in name for name in run.engine.state())
