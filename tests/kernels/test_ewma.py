"""The EWMA kernels equal their direct sums, in any cut, and touch only what they promise."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stream_calib.kernels.ewma import Z2_MAX, fold_returns, read_correlation
from stream_calib.values import F64, I64, Correlation
from tests.kernels.spoiling import Spoil, as_float32, as_strided, refuses
from tests.oracles import ewma as oracle

COMPILED = hasattr(fold_returns, "signatures")
CAP = 1.0 - 1e-6


class Rows(NamedTuple):
    """Arguments of the fold: returns and exposures (k, n), groups (n,), decays (k, G, G)."""

    returns: F64
    exposure: F64
    group: I64
    decay_seen: F64
    decay_unseen: F64

    def cut(self, start: int, stop: int) -> "Rows":
        rows = Rows._make(column[start:stop] for column in self)
        return rows._replace(group=self.group)


def one_group(returns: F64, exposure: F64, decay_seen: F64, decay_unseen: F64) -> Rows:
    group = np.zeros(returns.shape[1], np.int64)
    seen, unseen = (np.ascontiguousarray(d[:, None, None]) for d in (decay_seen, decay_unseen))
    return Rows(returns, exposure, group, seen, unseen)


class State(NamedTuple):
    """What the fold changes."""

    products: F64
    squares_i: F64
    squares_j: F64
    exposures: F64
    exposures2: F64
    fourth: F64

    @classmethod
    def empty(cls, n: int) -> "State":
        a, b, c, e, e2 = np.zeros((5, n * (n + 1) // 2))
        return cls(a, b, c, e, e2, np.zeros((2, n)))

    def square(self, name: str) -> F64:
        n = self.fourth.shape[1]
        full = np.zeros((n, n))
        upper = np.triu_indices(n)
        mirror = {"squares_i": "squares_j", "squares_j": "squares_i"}.get(name, name)
        full.T[upper] = getattr(self, mirror)
        full[upper] = getattr(self, name)
        return full


def folded(rows: Rows, state: State | None = None) -> State:
    state = State.empty(rows.returns.shape[1]) if state is None else state
    fold_returns(*rows, *state)
    return state


def read(state: State, cap: float = CAP) -> Correlation:
    n = state.fourth.shape[1]
    corr, n_eff, vol = np.full((n, n), -7.0), np.full((n, n), -7.0), np.full(n, -7.0)
    a, b, c, e, e2, _ = state
    capped = read_correlation(a, b, c, e, e2, cap, corr, n_eff, vol)
    return Correlation(corr, vol, n_eff, kappa=0.0, capped=capped)


@st.composite
def blocks(draw: st.DrawFn, k_max: int = 12, n_max: int = 8) -> Rows:
    """Few rows with any pattern of missing returns, uneven exposures, decays and gaps."""
    k, n = draw(st.integers(0, k_max)), draw(st.integers(2, n_max))
    sizes = st.floats(-5.0, 5.0, allow_subnormal=False) | st.just(np.nan)
    returns = draw(arrays(np.float64, (k, n), elements=sizes))
    spans = st.sampled_from([0.0, 0.25, 1.0, 1.0, 1.0, 2.0, 3600.0])
    exposure = draw(arrays(np.float64, (k, n), elements=spans))
    usual = draw(arrays(np.bool_, k))  # rows in which all are observed over the same span
    returns[usual] = np.nan_to_num(returns[usual], nan=0.5)
    exposure[usual] = draw(st.sampled_from([1.0, 2.5]))
    elapsed = draw(arrays(np.float64, k, elements=st.sampled_from([0.1, 1.0, 1.0, 7.0, 900.0])))
    half_life, timed = draw(st.sampled_from([0.5, 23.0, 1800.0])), draw(st.booleans())
    if draw(st.booleans()):
        decay = np.exp2(-elapsed / half_life)
        return one_group(returns, exposure, decay, decay if timed else np.ones(k))
    group = draw(arrays(np.int64, n, elements=st.integers(0, 2)))
    steps = arrays(np.float64, (k, 3, 3), elements=st.sampled_from([0.0, 0.0, 0.4, 1.0, 9.0]))
    joint = draw(steps)
    joint[draw(arrays(np.bool_, k))] = 1.0  # rows in which all are open
    joint = np.ascontiguousarray(np.minimum(joint, joint.transpose(0, 2, 1)))
    decay = np.exp2(-joint / half_life)
    return Rows(returns, exposure, group, decay, decay if timed else np.ones_like(decay))


def long_block(n: int, k: int, seed: int, missing: float = 0.2, *, timed: bool = True) -> Rows:
    """Rows enough for the fourth powers to count."""
    rng = np.random.default_rng(seed)
    returns = rng.standard_t(6, (k, n))
    returns[rng.random((k, n)) < missing] = np.nan
    exposure = np.where(np.isnan(returns), 0.0, rng.integers(1, 4, (k, n)))
    decay = np.exp2(-rng.choice([1.0, 1.0, 5.0], k) / 60.0)
    return one_group(returns, exposure, decay, decay if timed else np.ones(k))


def assert_equal_sums(rows: Rows) -> None:
    state, sums = folded(rows), oracle.fold_returns(*rows)
    magnitude = oracle.fold_returns(np.abs(rows.returns), *rows[1:])
    for name in State._fields[:5]:
        # both round each of k terms once or twice; products may cancel, so the error is measured
        # against the sum without signs
        np.testing.assert_allclose(
            state.square(name) - getattr(sums, name),
            0.0,
            atol=1e-12 * max(1e-300, getattr(magnitude, name).max()),
        )
    # z^4 divides by sums that are themselves right to 1e-13
    np.testing.assert_allclose(state.fourth, sums.fourth, rtol=1e-11, atol=0.0)


@given(blocks())
def test_fold_equals_the_direct_weighted_sums(rows: Rows) -> None:
    assert_equal_sums(rows)


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("n", [2, 5, 8])
def test_fold_equals_the_direct_weighted_sums_once_fourth_powers_count(n: int, timed: bool) -> None:
    rows = long_block(n, k=120, seed=n, timed=timed)
    assert folded(rows).fourth.min() > 0.0
    assert_equal_sums(rows)


@given(blocks(), st.sampled_from([CAP, 1.0 / np.sqrt(3.0)]))
def test_read_equals_its_oracle(rows: Rows, cap: float) -> None:
    state = folded(rows)
    a, b, c, e, e2 = (state.square(name) for name in State._fields[:5])
    sums = oracle.Sums(a, b, c, e, e2, state.fourth)
    got, wanted = read(state, cap), oracle.read_correlation(sums, cap)
    # the same handful of operations in another order
    np.testing.assert_allclose(got.corr, wanted.corr, rtol=1e-14, atol=0.0)
    np.testing.assert_allclose(got.n_eff, wanted.n_eff, rtol=1e-14, atol=0.0)
    np.testing.assert_allclose(got.vol, wanted.vol, rtol=1e-14, atol=0.0)
    assert got.capped == wanted.capped


@given(blocks(), st.data())
def test_any_cut_of_a_block_gives_the_same_bits(rows: Rows, data: st.DataObject) -> None:
    k = len(rows.returns)
    middle = data.draw(st.integers(0, k))
    state = folded(rows.cut(middle, k), folded(rows.cut(0, middle)))
    assert_same_bits(state, folded(rows))


@pytest.mark.parametrize("n", [2, 8])
def test_single_rows_give_the_bits_of_one_block(n: int) -> None:
    rows = long_block(n, k=150, seed=10 + n)
    state = State.empty(n)
    for t in range(len(rows.returns)):
        folded(rows.cut(t, t + 1), state)
    assert_same_bits(state, folded(rows))


def assert_same_bits(one: State, other: State) -> None:
    assert [a.tobytes() for a in one] == [a.tobytes() for a in other]


@given(blocks())
def test_nothing_but_the_promised_outputs_changes(rows: Rows) -> None:
    before = [column.copy() for column in rows]
    state = folded(rows)
    assert [c.tobytes() for c in rows] == [c.tobytes() for c in before]
    sums_before = [array.copy() for array in state]
    read(state)
    assert_same_bits(state, State(*sums_before))


@given(blocks())
def test_reading_overwrites_every_output(rows: Rows) -> None:
    known = read(folded(rows))
    for array in (known.corr, known.n_eff, known.vol):
        assert not (array == -7.0).any()  # what the arrays were filled with


def test_a_variance_that_faded_to_nothing_stops_nothing() -> None:
    rows = 20_000  # long enough at this decay for 1e-8 to pass below the least number
    returns = np.zeros((rows, 2))
    returns[0] = 1e-4
    decay = np.full(rows, np.exp2(-1.0 / 12.0))
    state = folded(one_group(returns, np.ones_like(returns), decay, np.ones(rows)))
    assert np.isnan(read(state).corr[0, 1])


def test_a_pair_forgotten_to_nothing_reads_as_never_observed() -> None:
    rows = 60  # here the squares of the exposures are gone, the exposures not yet
    returns = np.full((rows, 2), np.nan)
    returns[:, 0] = 1.0
    returns[0] = 2.0
    exposure = np.where(np.isnan(returns), 0.0, 1.0)
    decay = np.full(rows, np.exp2(-10.0))  # ten half-lives in each row
    known = read(folded(one_group(returns, exposure, decay, decay)))
    assert np.isnan(known.corr[0, 1])
    assert np.isnan(known.vol[1])
    assert (known.n_eff[:, 1] == 0.0).all()
    assert known.vol[0] == 1.0


def test_a_move_after_standing_still_counts_as_a_bounded_fourth_power() -> None:
    quiet, still = 100, 8_000
    returns = np.zeros((quiet + still + 1, 2))
    returns[:quiet] = 1e-4
    returns[-1] = 1e-2
    decay = np.full(len(returns), np.exp2(-1.0 / 12.0))
    state = folded(one_group(returns, np.ones_like(returns), decay, np.ones(len(returns))))
    # the older terms have faded below half an ulp; n_eff has settled
    one = np.exp2(-1.0 / 12.0)
    n_eff = (1 + one) / (1 - one)
    factor = (1 - 2 / n_eff) * (1 - 4 / n_eff)
    np.testing.assert_allclose(state.fourth[0], Z2_MAX**2 * factor, rtol=1e-12)


def fold_arguments() -> list[Any]:
    return [*long_block(3, k=4, seed=0), *State.empty(3)]


def read_arguments() -> list[F64]:
    return [*State.empty(3)[:5], np.zeros((3, 3)), np.zeros((3, 3)), np.zeros(3)]


def call_read(*arguments: Any) -> None:
    a, b, c, e, e2, corr, n_eff, vol = arguments
    read_correlation(a, b, c, e, e2, CAP, corr, n_eff, vol)


@pytest.mark.skipif(not COMPILED, reason="types are checked by the compiled code")
@pytest.mark.parametrize("spoil", [as_float32, as_strided])
@pytest.mark.parametrize(
    ("call", "arguments", "index"),
    [
        *((fold_returns, fold_arguments, index) for index in range(11)),
        *((call_read, read_arguments, index) for index in range(6)),
    ],
)
def test_arrays_of_another_kind_are_refused(
    spoil: Spoil,
    call: Callable[..., None],
    arguments: Callable[[], list[F64]],
    index: int,
) -> None:
    refuses(call, arguments(), index, spoil)
