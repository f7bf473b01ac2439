"""Eigenvalues measured on the next returns: state, holes, order, and what cleaning is worth."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from stream_calib.estimation.cleaning import repair_correlation
from stream_calib.estimation.eigenvalues import EigenvalueCleaner
from stream_calib.estimation.ewma import Ewma
from stream_calib.estimation.shrinkage import clip_correlation
from stream_calib.values import F64
from tests.engine.schedule import bits_of
from tests.estimation.cleaning_study import (
    RATIOS,
    Truth,
    dcc_path,
    factor_truth,
    losses_along,
    market_truth,
    prial,
    show,
    spectrum_truth,
)

seeds = st.integers(0, 2**32 - 1)


def returns_of(n: int, k: int, seed: int, holes: float = 0.0) -> F64:
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((k, n)) @ np.linalg.cholesky(market_truth(n, rng)).T
    z[rng.random((k, n)) < holes] = np.nan
    return z


def fed(z: F64, cuts: Callable[[int], int], cleaner: EigenvalueCleaner) -> EigenvalueCleaner:
    """Feed rows in blocks of at most ``cuts(bars left)``, each before the estimate has it."""
    estimate = Ewma(z.shape[1], half_life_obs=15.0, clock="time")
    t = 0
    while t < len(z):
        rows = z[t : t + cuts(cleaner.bars_left())]
        cleaner.update(rows, lambda: estimate.correlation().corr)
        estimate.update(rows)
        t += len(rows)
    return cleaner


@given(st.integers(2, 8), st.integers(1, 90), st.sampled_from([0.0, 0.3]), seeds)
@hypothesis_settings(max_examples=25)
def test_any_cut_gives_the_same_bits(n: int, k: int, holes: float, seed: int) -> None:
    z, rng = returns_of(n, k, seed, holes), np.random.default_rng(seed)
    one = fed(z, lambda _: 1, EigenvalueCleaner(n, 7))
    other = fed(z, lambda left: int(rng.integers(0, left + 1)), EigenvalueCleaner(n, 7))
    assert bits_of(one.state()) == bits_of(other.state())


@given(st.integers(2, 8), seeds, st.data())
@hypothesis_settings(max_examples=25)
def test_permuted_symbols_give_the_permuted_bits(n: int, seed: int, data: st.DataObject) -> None:
    z = returns_of(n, 60, seed, 0.1)
    turn = np.array(data.draw(st.permutations(range(n))))
    one = fed(z, lambda left: left, EigenvalueCleaner(n, 7, order=np.arange(n)))
    turned = np.ascontiguousarray(z[:, turn])
    other = fed(turned, lambda left: left, EigenvalueCleaner(n, 7, order=np.argsort(turn)))
    corr = market_truth(n, np.random.default_rng(seed))
    corr = (corr + corr.T) / 2.0
    square = np.ix_(turn, turn)
    cleaned = other.clean(np.ascontiguousarray(corr[square]), 20.0)
    assert cleaned.tobytes() == np.ascontiguousarray(one.clean(corr, 20.0)[square]).tobytes()
    assert bits_of(one.state())["moments"] == bits_of(other.state())["moments"]


@given(st.integers(2, 12), st.integers(0, 120), st.sampled_from([0.0, 0.5, 0.95]), seeds)
@hypothesis_settings(max_examples=40)
def test_what_is_cleaned_is_a_positive_definite_correlation_matrix(
    n: int, k: int, holes: float, seed: int
) -> None:
    z = returns_of(n, k + 1, seed, holes)
    cleaner = fed(z, lambda left: left, EigenvalueCleaner(n, 10, 50.0, 2.0))
    estimate = Ewma(n, half_life_obs=5.0)
    estimate.update(z)
    cleaned = cleaner.clean(estimate.correlation().corr, 10.0)  # pairs may be unknown
    assert np.isfinite(cleaned).all()
    assert cleaned.tobytes() == np.ascontiguousarray(cleaned.T).tobytes()
    assert (np.diagonal(cleaned) == 1.0).all()
    np.linalg.cholesky(repair_correlation(cleaned, 1e-8).corr)


def test_without_history_and_after_a_reset_it_clips() -> None:
    corr = market_truth(10, np.random.default_rng(1))
    cleaner = EigenvalueCleaner(10)
    clipped = clip_correlation(corr, 30.0).tobytes()
    # one division by the weight of the prior: the last bit may differ
    fresh = cleaner.clean(corr, 30.0)
    np.testing.assert_allclose(fresh, np.frombuffer(clipped).reshape(10, 10), atol=1e-14)
    fed(returns_of(10, 200, 1), lambda left: left, cleaner)
    assert np.abs(cleaner.clean(corr, 30.0) - fresh).max() > 0.01
    cleaner.reset()
    assert cleaner.clean(corr, 30.0).tobytes() == fresh.tobytes()
    assert bits_of(cleaner.state()) == bits_of(EigenvalueCleaner(10).state())


def test_measured_eigenvalues_are_those_of_the_truth_along_the_eigenvectors() -> None:
    corr, seed = market_truth(6, np.random.default_rng(2)), 3
    z = np.random.default_rng(seed).standard_normal((40_000, 6)) @ np.linalg.cholesky(corr).T
    cleaner = EigenvalueCleaner(6, 40_000, memory_bars=1e9)
    cleaner.update(z, corr)
    # the weights rise with the bar, which is worth three quarters of 40 000 squares: five
    # standard errors are 5 sqrt(2 / 30 000) of them; the prior weighs 50 / 20 000
    np.testing.assert_allclose(cleaner.clean(corr, 1e9), corr, rtol=0.0, atol=0.045)
    state = cleaner.state()
    moments = state["moments"] / state["exposures"]
    np.testing.assert_allclose(moments, np.linalg.eigvalsh(corr), rtol=0.041)


def test_the_estimate_is_looked_at_only_when_a_refresh_is_due() -> None:
    looked = 0

    def corr() -> F64:
        nonlocal looked
        looked += 1
        return np.eye(3)

    cleaner = EigenvalueCleaner(3, refresh_bars=4)
    for row in returns_of(3, 9, 4):
        cleaner.update(row, corr)
    assert looked == 3
    assert cleaner.bars_left() == 3


def test_a_block_past_the_refresh_is_refused_and_leaves_the_state_alone() -> None:
    cleaner = EigenvalueCleaner(3, refresh_bars=4)
    before = bits_of(cleaner.state())
    with pytest.raises(ValueError, match="5 bars reach past the refresh in 4"):
        cleaner.update(np.ones((5, 3)), np.eye(3))
    with pytest.raises(ValueError, match="a block is"):
        cleaner.update(np.ones((1, 2)), np.eye(3))
    assert bits_of(cleaner.state()) == before


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"n": 1}, "n must be"),
        ({"n": 3, "refresh_bars": 0}, "at least 1"),
        ({"n": 3, "memory_bars": 0.5}, "at least 1"),
        ({"n": 3, "prior_bars": float("nan")}, "at least 1"),
        ({"n": 3, "order": np.array([0, 1, 1])}, "permutation"),
        ({"n": 3, "order": np.array([0, 1])}, "permutation"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        EigenvalueCleaner(**settings)  # type: ignore[arg-type]


# criterion 10: what cleaning is worth where the truth is known

CASES = [(factor_truth, 94.0), (market_truth, 94.0), (spectrum_truth, 98.0)]
# what was measured (83.5 for a market at n_eff / n of 2), less a margin: against the oracle that
# knows the unit diagonal, of an estimate that knows it too
HARDER: dict[Truth, float] = {factor_truth: 88.0, market_truth: 80.0, spectrum_truth: 97.0}


def mean_prial(truth: Truth, n: int, ratio: float, runs: int) -> tuple[dict[str, float], ...]:
    memory = (ratio * n + 1.0) / 2.0  # its n_eff is 2 memory - 1
    drawn = [prial(truth, n, memory, 1000, seed) for seed in range(runs)]
    found = tuple(
        {name: float(np.mean([run[i][name] for run in drawn])) for name in drawn[0][i]}
        for i in (0, 1)
    )
    show(f"PRIAL {truth.__name__} n {n} n_eff/n {ratio}: of covariance, of correlation", *found)
    return found


@pytest.mark.parametrize(("truth", "wanted"), CASES)
def test_cleaning_takes_most_of_the_error_away(truth: Truth, wanted: float) -> None:
    found, harder = mean_prial(truth, 100, 0.7, 1)
    assert found["online"] >= wanted
    assert harder["online"] >= HARDER[truth]


def test_cleaning_follows_a_moving_truth() -> None:
    path = dcc_path(20, 0.05, 0.93, 1400, np.random.default_rng(2))
    losses = losses_along(path, 20.0, range(600, 1400), seed=3)
    show("QLIKE on DCC n 20 a .05 b .93 memory 20", losses)
    assert losses["online"] < min(losses["raw"], losses["clip"], losses["slow"])


def test_cleaning_does_no_harm_after_a_break() -> None:
    rng = np.random.default_rng(4)
    path = [market_truth(20, rng)] * 600 + [market_truth(20, rng)] * 200
    losses = losses_along(path, 20.0, range(600, 800), seed=5, reset_at=600)
    show("QLIKE after a break n 20 memory 20", losses)
    assert losses["online"] < min(losses["raw"], losses["clip"], losses["slow"])


@pytest.mark.full
@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize(("truth", "wanted"), CASES)
def test_criterion_of_improvement(truth: Truth, wanted: float, ratio: float) -> None:
    found, harder = mean_prial(truth, 100, ratio, 8)
    assert found["online"] >= wanted
    assert harder["online"] >= HARDER[truth]
    assert harder["online"] > harder["clip"]


@pytest.mark.full
@pytest.mark.parametrize("truth", [factor_truth, market_truth, spectrum_truth])
def test_cleaning_a_memory_of_a_thousand_bars_is_no_loss_on_the_covariance(truth: Truth) -> None:
    # of the correlation it is one where a common factor is strong: at 20 observations for each
    # symbol there is next to nothing to take away
    found, _ = mean_prial(truth, 100, 20.0, 8)
    assert found["online"] > 0.0


@pytest.mark.full
@pytest.mark.parametrize("memory", [16.0, 33.0, 100.0])
@pytest.mark.parametrize(("a", "b"), [(0.02, 0.97), (0.05, 0.93)])
@pytest.mark.parametrize("n", [20, 100])
def test_criterion_on_moving_truths(n: int, a: float, b: float, memory: float) -> None:
    path = dcc_path(n, a, b, 2500, np.random.default_rng(2))
    losses = losses_along(path, memory, range(1000, 2500), seed=3)
    show(f"QLIKE on DCC n {n} a {a} b {b} memory {memory}", losses)
    assert losses["online"] < losses["raw"]
    assert losses["online"] < losses["clip"]
    if memory > 16.0:  # cleaning does not make up for a memory that is far too short
        assert losses["online"] < losses["slow"]


@pytest.mark.full
@pytest.mark.parametrize("delay", [0, 30, 100])
@pytest.mark.parametrize("memory", [33.0, 100.0])
@pytest.mark.parametrize("truth", [factor_truth, market_truth, spectrum_truth])
@pytest.mark.parametrize("n", [20, 100])
def test_criterion_after_a_break(n: int, truth: Truth, memory: float, delay: int) -> None:
    rng = np.random.default_rng(4)
    path = [truth(n, rng)] * 1200 + [truth(n, rng)] * 200
    losses = losses_along(path, memory, range(1200, 1400), seed=5, reset_at=1200 + delay)
    show(f"QLIKE after a break n {n} {truth.__name__} memory {memory} alarm {delay}", losses)
    late = 1.06 if delay else 1.0  # until the alarm V is of before the break: 5 % at the most
    assert losses["online"] < late * losses["raw"]
    assert losses["online"] < late * losses["clip"]
