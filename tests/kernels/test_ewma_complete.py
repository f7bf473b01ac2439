"""Complete bars: one triangle holds what five hold, to the last bit, up to the first hole."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stream_calib.kernels.ewma import fold_returns, read_correlation
from stream_calib.kernels.ewma_complete import fold_complete, read_complete
from stream_calib.values import F64, Correlation
from tests.kernels.spoiling import Spoil, as_float32, as_strided, refuses
from tests.oracles import ewma_complete as oracle

COMPILED = hasattr(fold_complete, "signatures")
CAP = 1.0 - 1e-6


class Rows(NamedTuple):
    """Arguments of the fold: returns and exposures (k, n), decays (k, 1, 1)."""

    returns: F64
    exposure: F64
    decay_seen: F64
    decay_unseen: F64

    def cut(self, start: int, stop: int) -> "Rows":
        return Rows._make(column[start:stop] for column in self)


class State(NamedTuple):
    """What the fold changes."""

    products: F64
    exposures: F64
    fourth: F64

    @classmethod
    def empty(cls, n: int) -> "State":
        return cls(np.zeros(n * (n + 1) // 2), np.zeros(2), np.zeros((2, n)))


def folded(rows: Rows, state: State | None = None) -> tuple[int, State]:
    state = State.empty(rows.returns.shape[1]) if state is None else state
    return fold_complete(*rows, *state), state


def folded_apart(rows: Rows) -> tuple[F64, F64, F64, F64, F64, F64]:
    n = rows.returns.shape[1]
    a, b, c, e, e2 = np.zeros((5, n * (n + 1) // 2))
    fourth = np.zeros((2, n))
    group = np.zeros(n, np.int64)
    fold_returns(rows[0], rows[1], group, rows[2], rows[3], a, b, c, e, e2, fourth)
    return a, b, c, e, e2, fourth


def read(state: State, cap: float = CAP) -> Correlation:
    n = state.fourth.shape[1]
    corr, n_eff, vol = np.full((n, n), -7.0), np.full((n, n), -7.0), np.full(n, -7.0)
    capped = read_complete(state.products, state.exposures, cap, corr, n_eff, vol)
    return Correlation(corr, vol, n_eff, kappa=0.0, capped=capped)


@st.composite
def blocks(draw: st.DrawFn, k_max: int = 12) -> Rows:
    """Complete rows, rows in which nobody is observed, and now and then one with a hole."""
    k, n = draw(st.integers(0, k_max)), draw(st.integers(2, 8))
    returns = draw(arrays(np.float64, (k, n), elements=st.floats(-5.0, 5.0, allow_subnormal=False)))
    spans = draw(arrays(np.float64, (k, 1), elements=st.sampled_from([0.0, 0.25, 1.0, 1.0, 2.0])))
    exposure = np.broadcast_to(spans, (k, n)).copy()
    returns[draw(arrays(np.bool_, k)) & (spans[:, 0] == 0.0)] = np.nan
    if k and draw(st.booleans()):
        t, i = draw(st.integers(0, k - 1)), draw(st.integers(0, n - 1))
        spoil = draw(st.sampled_from(["return", "exposure", "span"]))
        returns[t, i] = np.nan if spoil == "return" else returns[t, i]
        exposure[t, i] = {"return": exposure[t, i], "exposure": 0.0, "span": 3.0}[spoil]
    elapsed = draw(arrays(np.float64, k, elements=st.sampled_from([0.1, 1.0, 1.0, 7.0, 900.0])))
    decay = np.exp2(-elapsed / draw(st.sampled_from([0.5, 23.0, 1800.0])))[:, None, None]
    return Rows(returns, exposure, decay, decay if draw(st.booleans()) else np.ones(decay.shape))


def long_block(n: int, k: int, seed: int, *, timed: bool = True) -> Rows:
    """Rows enough for the fourth powers to count, without holes."""
    rng = np.random.default_rng(seed)
    returns = rng.standard_t(6, (k, 1)) + rng.standard_t(6, (k, n))
    returns[rng.random(k) < 0.1] = np.nan
    exposure = np.where(np.isnan(returns), 0.0, rng.integers(1, 4, (k, 1)))
    decay = np.exp2(-rng.choice([1.0, 1.0, 5.0], (k, 1, 1)) / 60.0)
    return Rows(returns, exposure, decay, decay if timed else np.ones(decay.shape))


def squared(packed: F64, n: int) -> F64:
    full = np.zeros((n, n))
    full.T[np.triu_indices(n)] = packed
    full[np.triu_indices(n)] = packed
    return full


def assert_equal_sums(rows: Rows) -> None:
    (done, state), sums = folded(rows), oracle.fold_complete(*rows)
    assert done == sums.rows
    n = rows.returns.shape[1]
    magnitude = oracle.fold_complete(np.abs(rows.returns), *rows[1:])
    # both round each of k terms once or twice; products may cancel, so the error is measured
    # against the sum without signs
    for got, wanted, size in (
        (squared(state.products, n), sums.products, magnitude.products),
        (state.exposures, sums.exposures, magnitude.exposures),
    ):
        np.testing.assert_allclose(got - wanted, 0.0, atol=1e-12 * max(1e-300, size.max()))
    # z^4 divides by sums that are themselves right to 1e-13
    np.testing.assert_allclose(state.fourth, sums.fourth, rtol=1e-11, atol=0.0)


@given(blocks())
def test_fold_equals_the_direct_weighted_sums_and_stops_at_the_first_hole(rows: Rows) -> None:
    assert_equal_sums(rows)


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("n", [2, 5, 8])
def test_fold_equals_the_direct_weighted_sums_once_fourth_powers_count(n: int, timed: bool) -> None:
    rows = long_block(n, k=120, seed=n, timed=timed)
    assert folded(rows)[1].fourth.min() > 0.0
    assert_equal_sums(rows)


def assert_the_bits_of_five_triangles(rows: Rows) -> None:
    done, state = folded(rows)
    n = rows.returns.shape[1]
    a, b, c, e, e2, fourth = folded_apart(rows.cut(0, done))
    assert state.products.tobytes() == a.tobytes()
    assert state.fourth.tobytes() == fourth.tobytes()
    squares = np.diagonal(squared(a, n))
    i, j = np.triu_indices(n)
    assert (b == squares[i]).all()
    assert (c == squares[j]).all()
    assert (e == state.exposures[0]).all()
    assert (e2 == state.exposures[1]).all()
    corr, n_eff, vol = np.empty((n, n)), np.empty((n, n)), np.empty(n)
    for cap in (CAP, 0.3):
        known = read(state, cap)
        assert known.capped == read_correlation(a, b, c, e, e2, cap, corr, n_eff, vol)
        assert known.corr.tobytes() == corr.tobytes()
        assert known.n_eff.tobytes() == n_eff.tobytes()
        assert known.vol.tobytes() == vol.tobytes()


@given(blocks())
def test_one_triangle_holds_the_bits_of_five(rows: Rows) -> None:
    assert_the_bits_of_five_triangles(rows)


@pytest.mark.parametrize("n", [2, 7, 33])
def test_one_triangle_holds_the_bits_of_five_once_fourth_powers_count(n: int) -> None:
    rows = long_block(n, k=400, seed=n)
    rows.returns[300:320] = 0.0  # what comes after them is bounded, or has no variance
    rows.decay_seen[310:315] = 0.0
    assert folded(rows)[1].fourth.min() > 0.0
    assert_the_bits_of_five_triangles(rows)


def test_a_move_after_standing_still_has_the_bits_of_five_triangles() -> None:
    rows = long_block(3, k=1500, seed=1)
    rows.returns[100:] *= 1e-6
    rows.returns[-1] = 1.0
    assert folded(rows)[1].fourth[0].min() > 1e7  # the bound on z^2, to the fourth
    assert_the_bits_of_five_triangles(rows)


@given(blocks(), st.sampled_from([CAP, 1.0 / np.sqrt(3.0)]))
def test_read_equals_its_oracle(rows: Rows, cap: float) -> None:
    done, state = folded(rows)
    n = rows.returns.shape[1]
    sums = oracle.Sums(done, squared(state.products, n), state.exposures, state.fourth)
    got, wanted = read(state, cap), oracle.read_complete(sums, cap)
    # the same handful of operations in another order
    np.testing.assert_allclose(got.corr, wanted.corr, rtol=1e-14, atol=0.0)
    np.testing.assert_allclose(got.n_eff, wanted.n_eff, rtol=1e-14, atol=0.0)
    np.testing.assert_allclose(got.vol, wanted.vol, rtol=1e-14, atol=0.0)
    assert got.capped == wanted.capped


@given(blocks(), st.data())
def test_any_cut_of_a_block_gives_the_same_bits(rows: Rows, data: st.DataObject) -> None:
    done, whole = folded(rows)
    middle = data.draw(st.integers(0, done))
    state = State.empty(rows.returns.shape[1])
    assert folded(rows.cut(0, middle), state)[0] == middle
    assert folded(rows.cut(middle, len(rows.returns)), state)[0] == done - middle
    assert [a.tobytes() for a in state] == [a.tobytes() for a in whole]


@given(blocks())
def test_reading_overwrites_every_output(rows: Rows) -> None:
    known = read(folded(rows)[1])
    for array in (known.corr, known.n_eff, known.vol):
        assert not (array == -7.0).any()  # what the arrays were filled with


def fold_arguments() -> list[Any]:
    return [*long_block(3, k=4, seed=0), *State.empty(3)]


def read_arguments() -> list[F64]:
    return [*State.empty(3)[:2], np.zeros((3, 3)), np.zeros((3, 3)), np.zeros(3)]


def call_read(*arguments: Any) -> None:
    a, e, corr, n_eff, vol = arguments
    read_complete(a, e, CAP, corr, n_eff, vol)


@pytest.mark.skipif(not COMPILED, reason="types are checked by the compiled code")
@pytest.mark.parametrize("spoil", [as_float32, as_strided])
@pytest.mark.parametrize(
    ("call", "arguments", "index"),
    [
        *((fold_complete, fold_arguments, index) for index in (0, 1, 4, 5, 6)),
        *((call_read, read_arguments, index) for index in range(5)),
    ],
)
def test_arrays_of_another_kind_are_refused(
    spoil: Spoil,
    call: Callable[..., None],
    arguments: Callable[[], list[F64]],
    index: int,
) -> None:
    refuses(call, arguments(), index, spoil)
