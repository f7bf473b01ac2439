"""What every estimator promises; a new one enters ``ESTIMATORS``."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_calib.estimation.dcc import Dcc
from stream_calib.estimation.ewma import Ewma
from stream_calib.estimation.protocol import Estimator
from stream_calib.estimation.two_scale import TwoScale
from stream_calib.values import F64, I64, Correlation, DccParams, ReturnBlock

Make = partial[Any]


def on_two_markets(
    kind: Callable[..., Estimator], n: int, group: I64 | None = None, **settings: Any
) -> Estimator:
    """Make one with symbols in turn on one market and on the other, unless told otherwise."""
    group = np.arange(n) % 2 if group is None else group
    return kind(n, half_life_obs=50.0, group=group, **settings)


def with_targets(
    n: int, order: list[int] | None = None, model: Any = "dcc", clock: str = "observations"
) -> Dcc:
    """Make a DCC of symbols that have targets of their own."""
    loading = (0.2 + 0.1 * (np.arange(n) % 6))[np.arange(n) if order is None else order]
    target = np.multiply.outer(loading, loading)
    np.fill_diagonal(target, 1.0)
    less, g = 0.4 * target, 0.02 if model == "adcc" else 0.0
    return Dcc(DccParams(0.05, 0.9, target, model, g, less), n, n_target=500.0, clock=clock)


def in_order(make: Make, order: list[int]) -> Make:
    """Return what makes the estimator of symbols in another order."""
    if make.func is with_targets:
        return partial(make, order=order)
    markets = make.func is on_two_markets
    return partial(make, group=np.arange(len(order))[order] % 2) if markets else make


ESTIMATORS: dict[str, Make] = {
    "ewma, observations": partial(Ewma, half_life_obs=50.0),
    "ewma, time": partial(Ewma, half_life_obs=50.0, clock="time"),
    "two scales, observations": partial(TwoScale, half_life_obs=50.0, k=3),
    "two scales, time": partial(TwoScale, half_life_obs=50.0, k=2, clock="time"),
    "ewma, two markets": partial(on_two_markets, Ewma, clock="time"),
    "two scales, two markets": partial(on_two_markets, TwoScale, k=3, clock="time"),
    "dcc, observations": partial(with_targets, model="dcc"),
    "cdcc, observations": partial(with_targets, model="cdcc"),
    "adcc, observations": partial(with_targets, model="adcc"),
    "cdcc, time": partial(with_targets, model="cdcc", clock="time"),
    "adcc, time": partial(with_targets, model="adcc", clock="time"),
}
every_estimator = pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)
# what takes raw returns knows no scale; what takes standardised ones does, and has no markets yet
RAW = {name: make for name, make in ESTIMATORS.items() if make.func is not with_targets}
every_estimator_of_raw_returns = pytest.mark.parametrize("make", RAW.values(), ids=RAW)


def block(make: Make, n: int, k: int, seed: int) -> ReturnBlock:
    """Correlated, heavy-tailed returns with holes, uneven spans and gaps in time."""
    rng = np.random.default_rng(seed)
    common = rng.standard_t(5, (k, 1))
    returns = 0.01 * (common + rng.standard_t(5, (k, n))) * rng.uniform(0.5, 2.0, n)
    if make.func is with_targets:
        returns *= 50.0  # standardised, more or less
    returns[rng.random((k, n)) < 0.2] = np.nan
    exposure = np.where(np.isnan(returns), 0.0, rng.choice([1.0, 1.0, 1.0, 2.0], (k, n)))
    elapsed = rng.choice([0.5, 1.0, 1.0, 3.0], k)
    rows = ReturnBlock(np.arange(k, dtype=np.int64), returns, exposure, elapsed)
    return two_markets(rows) if make.func is on_two_markets else rows


def two_markets(rows: ReturnBlock) -> ReturnBlock:
    """Let two markets open and close in turn; half of the time both are open."""
    k = len(rows.time_ns)
    hour = np.arange(k) // 7 % 4
    is_open = np.stack([hour != 3, hour != 1], axis=1)  # in hours 0 and 2 both
    joint = (is_open[:, :, None] & is_open[:, None, :]) * rows.elapsed_bars[:, None, None]
    closed = ~is_open[:, np.arange(rows.returns.shape[1]) % 2]
    returns, exposure = np.where(closed, np.nan, rows.returns), np.where(closed, 0.0, rows.exposure)
    return ReturnBlock(rows.time_ns, returns, exposure, joint)


def columns(rows: ReturnBlock, which: list[int], factor: F64 | float = 1.0) -> ReturnBlock:
    """Choose symbols, each return times ``factor``."""
    returns = np.ascontiguousarray(rows.returns[:, which] * factor)
    exposure = np.ascontiguousarray(rows.exposure[:, which])
    return ReturnBlock(rows.time_ns, returns, exposure, rows.elapsed_bars)


def fed(make: Make, *blocks: ReturnBlock) -> Estimator:
    estimator: Estimator = make(blocks[0].returns.shape[1])
    for rows in blocks:
        estimator.update(rows)
    return estimator


def bits(known: Correlation) -> tuple[bytes, bytes, bytes, float, int]:
    arrays = (known.corr, known.vol, known.n_eff)
    corr, vol, n_eff = (array.tobytes() for array in arrays)
    return corr, vol, n_eff, known.kappa, known.capped


def state_bits(estimator: Estimator) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in estimator.state().items()}


sizes = st.integers(2, 8)
lengths = st.integers(0, 200)  # beyond 60 the fourth powers count too
seeds = st.integers(0, 2**32 - 1)


@every_estimator
@given(sizes, lengths, seeds, st.data())
def test_any_cut_of_the_input_gives_the_same_state(
    make: Make, n: int, k: int, seed: int, data: st.DataObject
) -> None:
    rows = block(make, n, k, seed)
    cuts = sorted(data.draw(st.lists(st.integers(0, k), max_size=4)))
    pieces = [rows.rows(start, stop) for start, stop in zip([0, *cuts], [*cuts, k], strict=True)]
    assert state_bits(fed(make, *pieces)) == state_bits(fed(make, rows))


@every_estimator
@given(sizes, lengths, seeds, st.data())
def test_saving_and_restoring_anywhere_changes_nothing(
    make: Make, n: int, k: int, seed: int, data: st.DataObject
) -> None:
    rows = block(make, n, k, seed)
    middle = data.draw(st.integers(0, k))
    saved = fed(make, rows.rows(0, middle))
    restored = type(saved).from_state(saved.state())
    restored.update(rows.rows(middle, k))
    whole = fed(make, rows)
    assert state_bits(restored) == state_bits(whole)
    assert bits(restored.correlation()) == bits(whole.correlation())


@every_estimator
def test_a_saved_state_is_a_copy(make: Make) -> None:
    estimator = fed(make, block(make, 4, 50, seed=1))
    before = state_bits(estimator)
    state = estimator.state()
    restored = type(estimator).from_state(state)
    for array in state.values():
        array[...] = 7.0
    restored.update(block(make, 4, 50, seed=2))
    assert state_bits(estimator) == before


@every_estimator
def test_the_blocks_of_this_suite_reach_every_part_of_the_state(make: Make) -> None:
    estimator = fed(make, block(make, 4, 200, seed=3))
    assert all(array.all() for array in estimator.state().values() if array.ndim == 2)
    assert estimator.correlation().kappa > 0.0


@every_estimator
@given(sizes, lengths, seeds, st.data())
def test_permuted_symbols_give_the_permuted_bits(
    make: Make, n: int, k: int, seed: int, data: st.DataObject
) -> None:
    rows = block(make, n, k, seed)
    order = data.draw(st.permutations(range(n)))
    known = fed(make, rows).correlation()
    permuted = Correlation(
        known.corr[np.ix_(order, order)],
        known.vol[order],
        known.n_eff[np.ix_(order, order)],
        known.kappa,
        known.capped,
    )
    assert bits(fed(in_order(make, order), columns(rows, order)).correlation()) == bits(permuted)


@every_estimator_of_raw_returns
@given(sizes, lengths, seeds, st.integers(-40, 40))
def test_a_power_of_two_on_one_symbol_changes_only_its_volatility(
    make: Make, n: int, k: int, seed: int, exponent: int
) -> None:
    rows = block(make, n, k, seed)
    factor = np.ones(n)
    factor[0] = 2.0**exponent
    known = fed(make, rows).correlation()
    scaled = fed(make, columns(rows, list(range(n)), factor)).correlation()
    expected = Correlation(known.corr, known.vol * factor, known.n_eff, known.kappa, known.capped)
    assert bits(scaled) == bits(expected)  # nothing is rounded on the way


@every_estimator_of_raw_returns
@given(sizes, lengths, seeds, st.floats(1e-6, 1e6))
def test_any_factor_on_one_symbol_changes_only_its_volatility(
    make: Make, n: int, k: int, seed: int, size: float
) -> None:
    rows = block(make, n, k, seed)
    factor = np.ones(n)
    factor[-1] = size
    known = fed(make, rows).correlation()
    scaled = fed(make, columns(rows, list(range(n)), factor)).correlation()
    # up to 200 products, each rounded another way
    np.testing.assert_allclose(scaled.corr, known.corr, rtol=0.0, atol=1e-13)
    np.testing.assert_allclose(scaled.vol, known.vol * factor, rtol=1e-13)
    assert scaled.n_eff.tobytes() == known.n_eff.tobytes()


@every_estimator
@given(sizes, lengths, lengths, seeds)
def test_longer_input_has_the_same_beginning(
    make: Make, n: int, k: int, more: int, seed: int
) -> None:
    rows = block(make, n, k + more, seed)
    estimator = fed(make, rows.rows(0, k))
    known = estimator.correlation()
    estimator.update(rows.rows(k, k + more))
    assert bits(known) == bits(fed(make, rows.rows(0, k)).correlation())


@every_estimator
@given(sizes, lengths, seeds)
def test_reading_changes_nothing(make: Make, n: int, k: int, seed: int) -> None:
    estimator = fed(make, block(make, n, k, seed))
    before, known = state_bits(estimator), estimator.correlation()
    known.corr[:] = known.n_eff[:] = known.vol[:] = 7.0
    assert state_bits(estimator) == before


@every_estimator
@given(sizes, lengths, seeds)
def test_a_correlation_is_symmetric_bounded_and_nan_only_where_unobserved(
    make: Make, n: int, k: int, seed: int
) -> None:
    known = fed(make, block(make, n, k, seed)).correlation()
    assert (np.diagonal(known.corr) == 1.0).all()
    for square in (known.corr, known.n_eff):
        assert square.tobytes() == square.T.tobytes()
    pairs = ~np.eye(n, dtype=bool)
    assert (np.isnan(known.corr[pairs]) == (known.n_eff[pairs] == 0.0)).all()
    assert (np.abs(known.corr[pairs & ~np.isnan(known.corr)]) < 1.0).all()
    assert (np.isnan(known.vol) == (np.diagonal(known.n_eff) == 0.0)).all()
    assert np.isfinite(known.n_eff).all()
    assert np.isfinite(known.kappa)


# variances and covariances of two scales need not fit: cleaning repairs what they leave
@pytest.mark.parametrize("make", [ESTIMATORS[name] for name in ESTIMATORS if "two" not in name])
@given(sizes, st.integers(1, 120), seeds)
def test_fully_observed_even_returns_give_a_positive_semidefinite_matrix(
    make: Make, n: int, k: int, seed: int
) -> None:
    estimator = make(n)
    estimator.update(np.random.default_rng(seed).standard_t(5, (k, n)))
    known = estimator.correlation()
    if known.capped == 0:  # a capped pair is for the repair
        # eigenvalues of a unit-diagonal matrix are good to about n ulps of the largest
        assert np.linalg.eigvalsh(known.corr).min() >= -1e-12


@every_estimator_of_raw_returns
@given(sizes, lengths, seeds)
def test_one_group_is_no_group_to_the_last_bit(make: Make, n: int, k: int, seed: int) -> None:
    if make.func is on_two_markets:
        make = partial(make.args[0], **({"half_life_obs": 50.0} | make.keywords))
    rows = block(make, n, k, seed)
    apart, together = fed(make, rows), fed(partial(make, group=np.zeros(n, np.int64)), rows)
    assert bits(together.correlation()) == bits(apart.correlation())
    each = fed(partial(make, group=np.arange(n)), rows)  # groups that are open at the same times
    assert bits(each.correlation()) == bits(apart.correlation())


@every_estimator
def test_a_block_of_another_width_is_refused(make: Make) -> None:
    for wrong in (block(make, 3, 5, seed=0), np.zeros((5, 3)), np.zeros(3), np.zeros((2, 2, 4))):
        with pytest.raises(ValueError, match="block is"):
            make(4).update(wrong)
