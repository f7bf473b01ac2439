"""The two-scale kernels equal their direct sums, in any cut, and touch only what they promise."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stream_calib.kernels.two_scale import Z2_MAX, fold_windows, read_own
from stream_calib.kernels.two_scale_reading import read_windows
from stream_calib.values import F64, I64
from tests.kernels.spoiling import Spoil, as_float32, as_strided, refuses
from tests.oracles import two_scale as oracle
from tests.oracles.two_scale import Known, Rows, Sums

COMPILED = hasattr(fold_windows, "signatures")
CAP = 1.0 - 1e-6


class State(NamedTuple):
    """What the fold changes."""

    position: F64
    windows: F64
    marks: F64
    sums: F64
    own: F64
    fourth: F64

    @classmethod
    def empty(cls, n: int, k: int, n_groups: int = 1) -> "State":
        triangles = np.zeros((3, n * (n + 1) // 2))
        windows, marks = np.zeros((2, k, n)), np.zeros((2, n))
        position = np.zeros(n_groups + 1)
        return cls(position, windows, marks, triangles, np.zeros((4, n)), np.zeros((2, n)))

    def squares(self) -> Sums:
        n = self.own.shape[1]
        full = np.zeros((3, n, n))
        upper = np.triu_indices(n)
        for square, triangle in zip(full, self.sums, strict=True):
            square.T[upper] = square[upper] = triangle
        products, overlaps, overlaps2 = full
        return Sums(products, overlaps, overlaps2, self.own, self.fourth)


def cut(rows: Rows, start: int, stop: int) -> Rows:
    cut_rows = Rows._make(column[start:stop] for column in rows)
    return cut_rows._replace(group=rows.group, decay_empty=rows.decay_empty)


def folded(rows: Rows, k: int, state: State | None = None) -> State:
    n, n_groups = rows.returns.shape[1], rows.empty.shape[1]
    state = State.empty(n, k, n_groups) if state is None else state
    fold_windows(*rows, *state)
    return state


def read(state: State, k: int, cap: float = CAP, kappa: float = 0.5) -> Known:
    n = state.own.shape[1]
    corr, n_eff, band = np.full((3, n, n), -7.0)
    vol = np.full(n, -7.0)
    facts = np.full((7, n), -7.0)
    raw, floored = read_own(state.sums, state.own, float(k), facts)
    capped = read_windows(state.sums, facts, k, kappa, cap, corr, n_eff, band, vol)
    return Known(corr, n_eff, band, vol, capped, raw, floored)


def with_decays(
    returns: F64,
    exposure: F64,
    age: F64,
    elapsed: F64,
    k: int,
    half_life: float,
    timed: bool,
    group: I64 | None = None,
) -> Rows:
    """``elapsed`` is (m,), or (m, G, G) with groups."""
    joint = elapsed[:, None, None] if group is None else elapsed
    empty = np.clip(np.rint(joint) - 1.0, 0.0, k)

    def decays(bars: F64) -> F64:
        seen = np.exp2(-bars / half_life)
        return np.stack([seen, seen if timed else np.ones_like(seen)], axis=1)

    return Rows(
        returns,
        exposure,
        age,
        np.zeros(returns.shape[1], np.int64) if group is None else group,
        np.where(joint > 0.0, empty, -1.0).astype(np.int64),
        joint.max(axis=(1, 2)),
        decays(joint - empty),
        decays(np.ones(1)),
    )


@st.composite
def blocks(draw: st.DrawFn, m_max: int = 12, n_max: int = 6) -> tuple[Rows, int]:
    """Few rows with any pattern of missing ticks, spans that need not fit, and gaps."""
    m, n, k = draw(st.integers(0, m_max)), draw(st.integers(2, n_max)), draw(st.integers(2, 5))
    sizes = st.floats(-5.0, 5.0, allow_subnormal=False) | st.just(np.nan)
    returns = draw(arrays(np.float64, (m, n), elements=sizes))
    spans = st.sampled_from([0.0, 1.0, 1.0, 1.0, 2.0, 7.0])
    exposure = draw(arrays(np.float64, (m, n), elements=spans))
    ages = st.sampled_from([0.0, 0.125, 0.5, 0.9375, np.nan])
    age = draw(arrays(np.float64, (m, n), elements=ages))
    usual = draw(arrays(np.bool_, m))  # rows in which all have ticked
    returns[usual] = np.nan_to_num(returns[usual], nan=0.5)
    age[usual] = np.nan_to_num(age[usual], nan=0.25)
    exposure[usual] = 1.0
    elapsed = draw(
        arrays(np.float64, m, elements=st.sampled_from([0.5, 1.0, 1.0, 1.0, 2.0, 7.0, 900.0]))
    )
    half_life, timed = draw(st.sampled_from([0.5, 23.0, 1800.0])), draw(st.booleans())
    if draw(st.booleans()):
        return with_decays(returns, exposure, age, elapsed, k, half_life, timed), k
    group = draw(arrays(np.int64, n, elements=st.integers(0, 2)))
    shares = draw(arrays(np.float64, (m, 3, 3), elements=st.sampled_from([0.0, 0.0, 0.5, 1.0])))
    shares[draw(arrays(np.bool_, m))] = 1.0  # rows before which all were open
    own = np.maximum(
        shares.diagonal(axis1=1, axis2=2), 1.0 * (shares.max(axis=(1, 2)) == 0)[:, None]
    )
    joint = np.minimum(shares, shares.transpose(0, 2, 1))
    joint = np.minimum(joint, np.minimum(own[:, :, None], own[:, None, :]))  # none is open longer
    joint[:, range(3), range(3)] = own
    return with_decays(
        returns, exposure, age, joint * elapsed[:, None, None], k, half_life, timed, group
    ), k


def long_block(n: int, m: int, k: int, seed: int, *, timed: bool = True) -> Rows:
    """Ticks of a random walk with noise: rows enough for the fourth powers to count."""
    rng = np.random.default_rng(seed)
    elapsed = rng.choice([1.0, 1.0, 1.0, 3.0], m)
    bars = np.cumsum(elapsed)
    walk = np.cumsum(rng.standard_t(6, (m, 1)) + rng.standard_t(6, (m, n)), axis=0)
    price = walk + 0.5 * rng.standard_normal((m, n))
    returns, exposure = np.full((m, n), np.nan), np.zeros((m, n))
    age = np.where(rng.random((m, n)) < np.linspace(1.0, 0.4, n), rng.random((m, n)), np.nan)
    for i in range(n):
        ticks = np.flatnonzero(~np.isnan(age[:, i]))
        returns[ticks[1:], i] = np.diff(price[ticks, i])
        exposure[ticks[1:], i] = np.diff(bars[ticks])
    return with_decays(returns, exposure, age, elapsed, k, 60.0, timed)


def assert_equal_sums(rows: Rows, k: int) -> None:
    state, sums = folded(rows, k).squares(), oracle.fold_windows(rows, k)
    magnitude = oracle.fold_windows(rows._replace(returns=np.abs(rows.returns)), k)
    for name in ("products", "overlaps", "overlaps2", "own"):
        # both round each term once or twice; products may cancel, so the error is measured
        # against the sum without signs; spans are differences of times up to a few thousand
        np.testing.assert_allclose(
            getattr(state, name) - getattr(sums, name),
            0.0,
            atol=1e-11 * max(1e-300, getattr(magnitude, name).max()),
        )
    # z^4 divides by variances that are differences of sums
    np.testing.assert_allclose(state.fourth, sums.fourth, rtol=1e-9, atol=1e-300)


@given(blocks())
def test_fold_equals_the_direct_weighted_sums(case: tuple[Rows, int]) -> None:
    assert_equal_sums(*case)


@pytest.mark.parametrize(("n", "k", "timed"), [(2, 2, False), (3, 4, True)])
def test_fold_equals_the_direct_weighted_sums_once_fourth_powers_count(
    n: int, k: int, timed: bool
) -> None:
    rows = long_block(n, m=150, k=k, seed=n, timed=timed)
    assert folded(rows, k).fourth[1].max() > 0.0
    assert_equal_sums(rows, k)


@given(blocks(), st.sampled_from([CAP, 1.0 / np.sqrt(3.0)]))
def test_read_equals_its_oracle(case: tuple[Rows, int], cap: float) -> None:
    rows, k = case
    assert_equal_reading(folded(rows, k), k, cap)


@pytest.mark.parametrize("seed", range(6))
def test_read_equals_its_oracle_on_long_input(seed: int) -> None:
    k = 2 + seed
    assert_equal_reading(folded(long_block(6, m=300, k=k, seed=seed), k), k, CAP)


def assert_equal_reading(state: State, k: int, cap: float) -> None:
    got, wanted = read(state, k, cap), oracle.read_windows(state.squares(), k, 0.5, cap)
    # the same few operations in another order; a band is a difference of larger terms
    np.testing.assert_allclose(got.corr, wanted.corr, rtol=1e-13, atol=0.0)
    np.testing.assert_allclose(got.n_eff, wanted.n_eff, rtol=1e-13, atol=0.0)
    np.testing.assert_allclose(got.vol, wanted.vol, rtol=1e-13, atol=0.0)
    np.testing.assert_allclose(got.band, wanted.band, rtol=1e-7, atol=0.0)
    assert (got.capped, got.raw, got.floored) == (wanted.capped, wanted.raw, wanted.floored)


@given(blocks(), st.data())
def test_any_cut_of_a_block_gives_the_same_bits(
    case: tuple[Rows, int], data: st.DataObject
) -> None:
    rows, k = case
    m = len(rows.returns)
    middle = data.draw(st.integers(0, m))
    state = folded(cut(rows, middle, m), k, folded(cut(rows, 0, middle), k))
    assert_same_bits(state, folded(rows, k))


def test_single_rows_give_the_bits_of_one_block() -> None:
    rows = long_block(5, m=200, k=4, seed=20)
    state = State.empty(5, 4)
    for t in range(len(rows.returns)):
        folded(cut(rows, t, t + 1), 4, state)
    assert_same_bits(state, folded(rows, 4))


@given(blocks(), st.data())
def test_permuted_symbols_give_the_permuted_sums(
    case: tuple[Rows, int], data: st.DataObject
) -> None:
    rows, k = case
    order = data.draw(st.permutations(range(rows.returns.shape[1])))
    returns, exposure, age = (np.ascontiguousarray(column[:, order]) for column in rows[:3])
    group = rows.group[order]
    moved = rows._replace(returns=returns, exposure=exposure, age=age, group=group)
    permuted = folded(moved, k).squares()
    straight = folded(rows, k).squares()
    for name in ("products", "overlaps", "overlaps2"):
        square = getattr(straight, name)[np.ix_(order, order)]
        assert getattr(permuted, name).tobytes() == square.tobytes()
    assert permuted.own.tobytes() == straight.own[:, order].tobytes()
    assert permuted.fourth.tobytes() == straight.fourth[:, order].tobytes()


def test_bars_left_out_are_bars_without_a_tick() -> None:
    rows = long_block(4, m=150, k=5, seed=21)
    at = np.cumsum(rows.empty[:, 0, 0] + 1) - 1
    returns, age = (np.full((at[-1] + 1, 4), np.nan) for _ in range(2))
    exposure = np.zeros_like(returns)
    returns[at], exposure[at], age[at] = rows.returns, rows.exposure, rows.age
    written = with_decays(returns, exposure, age, np.ones(len(age)), 5, 60.0, timed=True)
    assert_same_bits(folded(written, 5), folded(rows, 5))


def assert_same_bits(one: State, other: State) -> None:
    assert [a.tobytes() for a in one] == [a.tobytes() for a in other]


@given(blocks())
def test_nothing_but_the_promised_outputs_changes(case: tuple[Rows, int]) -> None:
    rows, k = case
    before = [column.copy() for column in rows]
    state = folded(rows, k)
    assert [c.tobytes() for c in rows] == [c.tobytes() for c in before]
    sums_before = [array.copy() for array in state]
    read(state, k)
    assert_same_bits(state, State(*sums_before))


@given(blocks())
def test_reading_overwrites_every_output(case: tuple[Rows, int]) -> None:
    rows, k = case
    known = read(folded(rows, k), k)
    for array in (known.corr, known.n_eff, known.band, known.vol):
        assert not (array == -7.0).any()  # what the arrays were filled with


def even(returns: F64, k: int, half_life: float, timed: bool) -> Rows:
    exposure, age = np.where(np.isnan(returns), 0.0, 1.0), np.where(np.isnan(returns), np.nan, 0.0)
    return with_decays(returns, exposure, age, np.ones(len(returns)), k, half_life, timed)


def test_a_variance_that_faded_to_nothing_stops_nothing() -> None:
    returns = np.zeros((20_000, 2))  # long enough for 1e-8 to pass below the least number
    returns[0] = 1e-4
    known = read(folded(even(returns, 4, 12.0, timed=False), 4), 4)
    assert np.isnan(known.corr[0, 1])


def test_a_pair_forgotten_to_nothing_reads_as_never_observed() -> None:
    returns = np.full((70, 2), np.nan)
    returns[:, 0] = np.arange(70) % 3
    returns[:4] = np.random.default_rng(22).normal(size=(4, 2))
    known = read(folded(even(returns, 3, 0.1, timed=True), 3), 3)  # ten half-lives in a bar
    assert np.isnan(known.corr[0, 1])
    assert np.isnan(known.vol[1])
    assert (known.n_eff[:, 1] == 0.0).all()
    assert known.vol[0] > 0.0


def test_a_move_after_standing_still_counts_as_a_bounded_fourth_power() -> None:
    returns = np.zeros((8_101, 2))
    returns[:100] = 1e-4 * np.random.default_rng(23).normal(size=(100, 2))
    returns[-1] = 1e-2
    state = folded(even(returns, 2, 40.0, timed=True), 2)
    # the older terms have faded, n_eff has settled
    assert 0.9 * Z2_MAX**2 < state.fourth[0, 0] <= Z2_MAX**2


def fold_arguments() -> list[Any]:
    return [*long_block(3, m=4, k=3, seed=0), *State.empty(3, 3)]


def read_arguments() -> list[Any]:
    state = State.empty(3, 3)
    return [state.sums, np.zeros((7, 3)), *np.zeros((3, 3, 3)), np.zeros(3)]


def call_read(*arguments: Any) -> None:
    sums, facts, corr, n_eff, band, vol = arguments
    read_windows(sums, facts, 3, 0.0, CAP, corr, n_eff, band, vol)


def own_arguments() -> list[Any]:
    state = State.empty(3, 3)
    return [state.sums, state.own, np.zeros((7, 3))]


def call_read_own(*arguments: Any) -> None:
    sums, own, facts = arguments
    read_own(sums, own, 3.0, facts)


@pytest.mark.skipif(not COMPILED, reason="types are checked by the compiled code")
@pytest.mark.parametrize("spoil", [as_float32, as_strided])
@pytest.mark.parametrize(
    ("call", "arguments", "index"),
    [
        *((fold_windows, fold_arguments, index) for index in range(14)),
        *((call_read, read_arguments, index) for index in range(6)),
        *((call_read_own, own_arguments, index) for index in range(3)),
    ],
)
def test_arrays_of_another_kind_are_refused(
    spoil: Spoil,
    call: Callable[..., None],
    arguments: Callable[[], list[Any]],
    index: int,
) -> None:
    refuses(call, arguments(), index, spoil)
