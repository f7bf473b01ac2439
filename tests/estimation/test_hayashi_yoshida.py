"""Hayashi-Yoshida: published figures, no bias from asynchrony, decay, and what is refused."""

import math
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stream_calib as sc
from stream_calib.estimation.hayashi_yoshida import HayashiYoshida, hayashi_yoshida
from stream_calib.values import F64, I64
from tests.oracles import hayashi_yoshida as oracle

SECOND_NS = 1_000_000_000
seeds = st.integers(0, 2**32 - 1)


class Ticks(NamedTuple):
    """Columns of length m, in time order."""

    time_ns: I64
    asset: I64
    log_price: F64

    def cut(self, start: int, stop: int) -> "Ticks":
        time_ns, asset, log_price = self
        return Ticks(time_ns[start:stop], asset[start:stop], log_price[start:stop])


def ticks(n: int, m: int, seed: int) -> Ticks:
    """Correlated ticks, many of them simultaneous; the last asset ticks once, if at all."""
    rng = np.random.default_rng(seed)
    time_ns = 1_700_000_000 * SECOND_NS + np.cumsum(rng.integers(0, 3, m)) * 1_000_000
    asset = rng.integers(0, n, m)
    asset[np.flatnonzero(asset == n - 1)[1:]] = 0
    common = np.cumsum(rng.normal(size=m)) * 1e-4
    return Ticks(time_ns, asset, 4.6 + common + 1e-4 * rng.normal(size=m))


def poisson_ticks(
    rng: np.random.Generator, mean_s: tuple[float, float], day_s: float, rho: float, noise: float
) -> Ticks:
    """Two Brownian prices of variance 1 a day, each seen at its own Poisson times, with noise."""
    times = []
    for mean in mean_s:
        arrivals = np.cumsum(rng.exponential(mean, round(1.2 * day_s / mean) + 50))
        times.append(arrivals[arrivals < day_s])
    time_s = np.concatenate(times)
    asset = np.repeat([0, 1], [len(column) for column in times])
    order = np.argsort(time_s)
    time_s, asset = time_s[order], asset[order]
    steps = np.diff(time_s, prepend=0.0) / day_s
    first = rng.normal(size=len(steps))
    second = rho * first + math.sqrt(1 - rho**2) * rng.normal(size=len(steps))
    paths = np.cumsum(np.column_stack([first, second]) * np.sqrt(steps)[:, None], axis=0)
    log_price = paths[np.arange(len(asset)), asset] + noise * rng.normal(size=len(asset))
    return Ticks((time_s * SECOND_NS).astype(np.int64), asset, log_price)


def previous_tick_returns(rows: Ticks, i: int, at_ns: I64) -> F64:
    mine = rows.asset == i
    last = np.searchsorted(rows.time_ns[mine], at_ns, side="right") - 1
    return np.diff(rows.log_price[mine][np.maximum(last, 0)])  # at rest before its first tick


def previous_tick_correlation(rows: Ticks, bar_s: int) -> float:
    edges = np.arange(rows.time_ns[0], rows.time_ns[-1], bar_s * SECOND_NS)[1:]
    a, b = (previous_tick_returns(rows, i, edges) for i in (0, 1))
    return float((a @ b) / math.sqrt((a @ a) * (b @ b)))


def fed(n: int, *pieces: Ticks, half_life_ns: float | None = None) -> HayashiYoshida:
    estimator = HayashiYoshida(n, half_life_ns)
    for piece in pieces:
        estimator.update(*piece)
    return estimator


def state_bits(estimator: HayashiYoshida) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in estimator.state().items()}


def hfhd_ticks() -> Ticks:
    """The ticks of the doctest of ``hfhd.hf.hayashi_yoshida`` (hfhd 0.1.4).

    NumPy's legacy generator, seed 0: 10,000 steps of correlation 0.5, half of the observations
    of each series drawn without replacement. pandas' ``sample`` draws as ``choice`` does. About
    a quarter of the times is in both series: simultaneous ticks.
    """
    legacy = np.random.RandomState(0)
    n = 10_000
    steps = legacy.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], n) / n**0.5
    log_price = np.cumsum(steps, axis=0)
    rows = [np.sort(legacy.choice(n, n // 2, replace=False)) for _ in range(2)]
    time_ns = np.concatenate(rows)
    prices = np.concatenate([log_price[rows[i], i] for i in range(2)])
    order = np.argsort(time_ns, kind="stable")
    return Ticks(time_ns[order], np.repeat([0, 1], n // 2)[order], prices[order])


def test_the_published_case_of_hfhd_is_reproduced() -> None:
    rows = hfhd_ticks()
    assert (rows.time_ns[1:] == rows.time_ns[:-1]).sum() > 2000
    cov = sc.hayashi_yoshida(*rows, n=2)
    # as printed there, three digits; and re-derived from it by hand, five and six
    np.testing.assert_allclose(cov, [[0.983, 0.512], [0.512, 0.990]], rtol=0.0, atol=5e-4)
    np.testing.assert_allclose(cov[0, 1], 0.51218, rtol=0.0, atol=5e-6)
    np.testing.assert_allclose(np.diagonal(cov), [0.982696, 0.990150], rtol=0.0, atol=5e-7)
    assert round(cov[0, 1] / math.sqrt(cov[0, 0] * cov[1, 1]), 3) == 0.519


def test_on_the_same_ticks_previous_tick_returns_lose_most_of_the_correlation() -> None:
    rows = hfhd_ticks()
    instants = np.unique(rows.time_ns)
    a, b = (previous_tick_returns(rows, i, instants) for i in (0, 1))
    # where HY finds .519 of the true .5; pandas' ffill on the union of the times gives .1756 too
    assert abs((a @ b) / math.sqrt((a @ a) * (b @ b)) - 0.1756) < 5e-4


@pytest.mark.parametrize("mean_s", [(2.0, 3.0), (10.0, 20.0), (2.0, 20.0)])
def test_covariance_is_unbiased_on_asynchronous_ticks(mean_s: tuple[float, float]) -> None:
    rho, runs, rng = 0.6, 150, np.random.default_rng(20240607)
    found, bars = [], []
    for _ in range(runs):
        rows = poisson_ticks(rng, mean_s, 7200.0, rho, noise=0.0)
        found.append(hayashi_yoshida(*rows, n=2)[0, 1])
        bars.append(previous_tick_correlation(rows, 5))
    error = np.std(found) / math.sqrt(runs)
    # about 5 standard errors; the first interval of each asset is unobserved: 1e-3 of the day
    assert abs(np.mean(found) - rho) < 5.0 * error + 2.0 * mean_s[1] / 7200.0
    assert np.mean(bars) < rho - 20.0 * np.std(bars) / math.sqrt(runs)  # the Epps effect


def test_correlation_is_not_lowered_by_noise() -> None:
    # scenario C of the methods, 4.4: 2 s and 3 s, noise variance 1e-4 of the day's
    rho, runs, rng = 0.6, 40, np.random.default_rng(7)
    found, raw = [], []
    for _ in range(runs):
        estimator = fed(2, poisson_ticks(rng, (2.0, 3.0), 23_400.0, rho, noise=0.01))
        cov = estimator.covariance()
        found.append(estimator.correlation()[0, 1])
        raw.append(cov[0, 1] / math.sqrt(cov[0, 0] * cov[1, 1]))
    rmse = math.sqrt(np.mean(np.square(np.array(found) - rho)))
    # the table has bias .002 and RMSE .034, of raw variances -.394; 40 runs know the RMSE to 11 %
    assert abs(np.mean(found) - rho) < 0.002 + 4.0 * 0.034 / math.sqrt(runs)
    assert rmse < 1.5 * 0.034
    assert abs(np.mean(raw) - (rho - 0.394)) < 0.01


@given(st.integers(1, 6), st.integers(0, 60), st.floats(1e5, 1e9), seeds)
def test_decay_equals_the_weighted_double_sum(
    n: int, m: int, half_life_ns: float, seed: int
) -> None:
    rows = ticks(n, m, seed)
    found = fed(n, rows, half_life_ns=half_life_ns).covariance()
    wanted = oracle.covariance(*rows, n, half_life_ns)
    # prices are given to 1e-15, returns are 1e-4; a weight of age a is exact to a ulps
    np.testing.assert_allclose(
        found, wanted, rtol=0.0, atol=1e-10 * max(1e-8, wanted.max(initial=0))
    )


@given(st.integers(1, 6), st.integers(0, 60), seeds, st.booleans(), st.data())
def test_any_cut_and_any_restoration_give_the_same_bits(
    n: int, m: int, seed: int, fading: bool, data: st.DataObject
) -> None:
    rows, half_life_ns = ticks(n, m, seed), 5e6 if fading else None
    middle = data.draw(st.integers(0, m))
    begun = fed(n, rows.cut(0, middle), half_life_ns=half_life_ns)
    restored = HayashiYoshida.from_state(begun.state())
    restored.update(*rows.cut(middle, m))
    begun.covariance()  # reading in the middle of an instant changes nothing
    begun.correlation()
    begun.update(*rows.cut(middle, m))
    whole = fed(n, rows, half_life_ns=half_life_ns)
    assert state_bits(begun) == state_bits(whole)
    assert state_bits(restored) == state_bits(whole)
    assert restored.covariance().tobytes() == whole.covariance().tobytes()
    assert restored.correlation().tobytes() == whole.correlation().tobytes()


def test_single_ticks_give_the_bits_of_one_block() -> None:
    rows, estimator = ticks(5, 200, seed=1), HayashiYoshida(5, 1e7)
    for time_ns, asset, log_price in zip(*rows, strict=True):
        estimator.update(time_ns, asset, log_price)
    assert state_bits(estimator) == state_bits(fed(5, rows, half_life_ns=1e7))


def test_a_saved_state_is_a_copy() -> None:
    estimator = fed(4, ticks(4, 100, seed=2))
    before, state = state_bits(estimator), estimator.state()
    restored = HayashiYoshida.from_state(state)
    for array in state.values():
        array[...] = 7
    assert state_bits(estimator) == before == state_bits(restored)


@given(st.integers(2, 6), st.integers(0, 60), seeds, st.data())
def test_permuted_assets_give_the_permuted_bits(
    n: int, m: int, seed: int, data: st.DataObject
) -> None:
    rows = ticks(n, m, seed)
    order = np.array(data.draw(st.permutations(range(n))))
    known = fed(n, rows)
    permuted = fed(n, rows._replace(asset=np.argsort(order)[rows.asset]))
    where = np.ix_(order, order)
    assert permuted.covariance().tobytes() == known.covariance()[where].tobytes()
    assert permuted.correlation().tobytes() == known.correlation()[where].tobytes()


def test_another_level_of_prices_changes_nothing() -> None:
    rows = ticks(3, 200, seed=4)
    moved = rows._replace(log_price=rows.log_price + 2.0 * rows.asset)
    # a log price of 8 is given to 1e-15, and a return to 1e-11 of itself
    known = fed(3, rows).correlation()
    np.testing.assert_allclose(fed(3, moved).correlation(), known, rtol=1e-8)


def test_assets_of_few_ticks_have_no_covariance_and_no_correlation() -> None:
    estimator = HayashiYoshida(3)
    assert (estimator.covariance() == 0.0).all()
    # asset 2 never ticks, asset 1 once, in the middle of a return of asset 0
    estimator.update([0, 5, 10], [0, 1, 0], [1.0, 3.0, 1.1])
    np.testing.assert_allclose(estimator.covariance(), np.diag([0.01, 0.0, 0.0]), atol=1e-16)
    corr = estimator.correlation()
    assert (np.diagonal(corr) == 1.0).all()
    assert np.isnan(corr[~np.eye(3, dtype=bool)]).all()


def test_intervals_that_only_touch_do_not_overlap() -> None:
    # asset 0 moves over (0, 1], asset 1 over (1, 2]
    cov = hayashi_yoshida([0, 1, 1, 2], [0, 0, 1, 1], [0.0, 1.0, 0.0, 1.0], n=2)
    assert cov.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_of_several_ticks_of_one_instant_the_last_counts() -> None:
    cov = hayashi_yoshida([0, 0, 3, 3, 3], [0, 1, 0, 1, 0], [0.0, 0.0, 9.0, 2.0, 1.0], n=2)
    assert cov.tolist() == [[1.0, 2.0], [2.0, 4.0]]


def test_what_lies_a_half_life_back_counts_half() -> None:
    estimator = HayashiYoshida(2, half_life_ns=100)
    estimator.update([0, 0, 10, 10], [0, 1, 0, 1], [0.0, 0.0, 1.0, 2.0])
    assert estimator.covariance().tolist() == [[1.0, 2.0], [2.0, 4.0]]
    estimator.update(110, 0, 1.0)  # the price has not moved
    assert estimator.covariance().tolist() == [[0.5, 1.0], [1.0, 2.0]]


@pytest.mark.parametrize(
    ("time_ns", "asset", "log_price", "words"),
    [
        ([2, 1], [0, 1], [0.0, 0.0], "time order"),
        ([9], [0], [0.0], "time order"),
        ([20], [2], [0.0], r"asset must be in \[0, 2\), not 2 to 2"),
        ([20], [-1], [0.0], r"asset must be in \[0, 2\), not -1 to -1"),
        ([20], [0], [np.nan], "log_price must be finite"),
        ([20, 21], [0, 1], [0.0, -np.inf], "log_price must be finite"),
        ([20], [0], [1e101], "within 1e100"),
        ([20.0], [0], [0.0], "time_ns must be integers"),
        ([20], [0.0], [0.0], "asset must be integers"),
        (np.array([20], np.uint64), [0], [0.0], "time_ns must be integers"),
        ([20, 21], [0], [0.0, 0.0], "columns of one length"),
        ([[20, 21]], [[0, 1]], [[0.0, 0.0]], "columns of one length"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence_and_changes_nothing(
    time_ns: object, asset: object, log_price: object, words: str
) -> None:
    estimator = HayashiYoshida(2)
    estimator.update([5, 10], [0, 1], [1.0, 1.0])
    before = state_bits(estimator)
    with pytest.raises(ValueError, match=words) as caught:
        estimator.update(time_ns, asset, log_price)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert state_bits(estimator) == before


def test_the_least_time_stands_for_none_and_is_refused() -> None:
    with pytest.raises(ValueError, match="stands for no time"):
        hayashi_yoshida([-(2**63)], [0], [0.0], n=1)


@pytest.mark.parametrize("n", [0, -1])
def test_no_assets_are_refused(n: int) -> None:
    with pytest.raises(ValueError, match="n must be at least 1"):
        hayashi_yoshida([], [], [], n)


@pytest.mark.parametrize("half_life_ns", [0.0, -1.0, np.nan])
def test_a_half_life_that_is_not_positive_is_refused(half_life_ns: float) -> None:
    with pytest.raises(ValueError, match="half_life_ns must be positive"):
        HayashiYoshida(2, half_life_ns)


def test_columns_of_other_kinds_are_taken() -> None:
    rows = ticks(3, 50, seed=5)
    known = hayashi_yoshida(*rows, n=3).tobytes()
    for column in rows:
        column.flags.writeable = False  # as pandas hands out
    assert hayashi_yoshida(*rows, n=3).tobytes() == known
    narrow = rows.asset.astype(np.int32)
    assert hayashi_yoshida(rows.time_ns, narrow, rows.log_price, n=3).tobytes() == known
    times, assets, prices = (column.tolist() for column in rows)
    assert hayashi_yoshida(times, assets, prices, n=3).tobytes() == known
    assert (hayashi_yoshida([], [], [], n=3) == 0.0).all()
