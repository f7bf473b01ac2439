"""The Hayashi-Yoshida kernels equal the double sum, in any cut, and touch what they promise."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stream_calib.kernels.hayashi_yoshida import fold_ticks, read_covariance
from stream_calib.values import F64, I64, NO_TIME
from tests.oracles import hayashi_yoshida as oracle

COMPILED = hasattr(fold_ticks, "signatures")


class Ticks(NamedTuple):
    """Columns of length m, in time order."""

    time_ns: I64
    asset: I64
    log_price: F64

    def cut(self, start: int, stop: int) -> "Ticks":
        time_ns, asset, log_price = self
        return Ticks(time_ns[start:stop], asset[start:stop], log_price[start:stop])


class State(NamedTuple):
    """What the fold changes."""

    price: F64
    price_then: F64
    products: F64
    lagged: F64
    last_return: F64
    last_ns: I64
    pending: F64
    now_ns: I64

    @classmethod
    def empty(cls, n: int) -> "State":
        price, lagged, last_return = np.zeros((3, n))
        then, products = np.zeros((2, n, n))
        unseen = np.full(n, NO_TIME, dtype=np.int64)
        now = np.full(1, NO_TIME, dtype=np.int64)
        return cls(price, then, products, lagged, last_return, unseen, np.full(n, np.nan), now)


@st.composite
def ticks(draw: st.DrawFn, n: int, m_max: int = 25) -> Ticks:
    """Few ticks at few instants: simultaneous ones, repeated ones, assets with one or none."""
    m = draw(st.integers(0, m_max))
    steps = draw(arrays(np.int64, m, elements=st.sampled_from([0, 0, 0, 1, 2, 7])))
    asset = draw(arrays(np.int64, m, elements=st.integers(0, n - 1)))
    sizes = st.floats(-1.0, 1.0, allow_subnormal=False)
    return Ticks(np.cumsum(steps) + 10, asset, 4.0 + draw(arrays(np.float64, m, elements=sizes)))


half_lives = st.sampled_from([math.inf, 0.5, 3.0, 40.0])
sizes = st.integers(1, 5)


def folded(rows: Ticks, half_life_ns: float, state: State) -> State:
    fold_ticks(*rows, half_life_ns, *state)
    return state


def read(state: State, half_life_ns: float) -> tuple[F64, F64]:
    n = len(state.price)
    cov, lagged = np.full((n, n), 7.0), np.full(n, 7.0)
    read_covariance(half_life_ns, *state, cov, lagged)
    return cov, lagged


def state_bits(state: State) -> list[bytes]:
    return [array.tobytes() for array in state]


@given(sizes, half_lives, st.data())
def test_fold_equals_the_double_sum(n: int, half_life_ns: float, data: st.DataObject) -> None:
    rows = data.draw(ticks(n))
    cov, lagged = read(folded(rows, half_life_ns, State.empty(n)), half_life_ns)
    # prices of size 5 are given to 1e-15, and 25 returns of size 2 make up to 600 products
    atol = 1e-12
    wanted = oracle.covariance(*rows, n, half_life_ns)
    np.testing.assert_allclose(cov, wanted, rtol=0.0, atol=atol)
    wanted = oracle.lagged(*rows, n, half_life_ns)
    np.testing.assert_allclose(lagged, wanted, rtol=0.0, atol=atol)


@given(sizes, half_lives, st.data())
def test_any_cut_gives_the_same_bits(n: int, half_life_ns: float, data: st.DataObject) -> None:
    rows = data.draw(ticks(n))
    m = len(rows.time_ns)
    cuts = sorted(data.draw(st.lists(st.integers(0, m), max_size=4)))
    state = State.empty(n)
    for start, stop in zip([0, *cuts], [*cuts, m], strict=True):
        folded(rows.cut(start, stop), half_life_ns, state)
    assert state_bits(state) == state_bits(folded(rows, half_life_ns, State.empty(n)))


@given(sizes, half_lives, st.data())
def test_the_order_of_simultaneous_ticks_cannot_be_seen(
    n: int, half_life_ns: float, data: st.DataObject
) -> None:
    rows = data.draw(ticks(n))
    rank = np.array(data.draw(st.permutations(range(n))))
    order = np.lexsort((rank[rows.asset], rows.time_ns))  # keeps the order within an asset
    other = Ticks(rows.time_ns[order], rows.asset[order], rows.log_price[order])
    state = folded(rows, half_life_ns, State.empty(n))
    assert state_bits(folded(other, half_life_ns, State.empty(n))) == state_bits(state)


@given(sizes, half_lives, st.data())
def test_permuted_assets_give_the_permuted_bits(
    n: int, half_life_ns: float, data: st.DataObject
) -> None:
    rows = data.draw(ticks(n))
    order = np.array(data.draw(st.permutations(range(n))))
    place = np.argsort(order)
    other = rows._replace(asset=place[rows.asset])
    cov, lagged = read(folded(rows, half_life_ns, State.empty(n)), half_life_ns)
    found, found_lagged = read(folded(other, half_life_ns, State.empty(n)), half_life_ns)
    assert found.tobytes() == cov[np.ix_(order, order)].tobytes()
    assert found_lagged.tobytes() == lagged[order].tobytes()


@given(sizes, half_lives, st.data())
def test_nothing_but_the_promised_outputs_changes(
    n: int, half_life_ns: float, data: st.DataObject
) -> None:
    rows = data.draw(ticks(n))
    before = [column.copy() for column in rows]
    state = folded(rows, half_life_ns, State.empty(n))
    assert [c.tobytes() for c in rows] == [c.tobytes() for c in before]
    bits = state_bits(state)
    cov, lagged = read(state, half_life_ns)
    assert state_bits(state) == bits
    assert cov.tobytes() == cov.T.tobytes()
    assert not (cov == 7.0).any()  # what the outputs were filled with
    assert not (lagged == 7.0).any()


def test_many_assets_in_one_instant_equal_the_double_sum() -> None:
    rng = np.random.default_rng(3)
    m, n = 300, 40
    rows = Ticks(
        np.sort(rng.integers(0, 25, m)), rng.integers(0, n, m), 4.6 + 0.01 * rng.normal(size=m)
    )
    cov, _ = read(folded(rows, math.inf, State.empty(n)), math.inf)
    wanted = oracle.covariance(*rows, n)
    # criterion 9 of the methods: 1e-10 of the largest
    np.testing.assert_allclose(cov, wanted, rtol=0.0, atol=1e-10 * np.abs(wanted).max())


def arguments() -> list[Any]:
    rows = Ticks(np.arange(4), np.array([0, 1, 0, 1]), np.zeros(4))
    return [*rows, math.inf, *State.empty(2)]


def as_narrow(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32 if array.dtype == np.float64 else np.int32)


def as_strided(array: np.ndarray) -> np.ndarray:
    return np.repeat(array, 2, axis=-1)[..., ::2]


@pytest.mark.skipif(not COMPILED, reason="types are checked by the compiled code")
@pytest.mark.parametrize("spoil", [as_narrow, as_strided])
@pytest.mark.parametrize("index", [i for i in range(11) if i != 3])
def test_arrays_of_another_kind_are_refused(
    spoil: Callable[[np.ndarray], np.ndarray], index: int
) -> None:
    wrong = arguments()
    wrong[index] = spoil(wrong[index])
    with pytest.raises(TypeError, match="No matching definition"):
        fold_ticks(*wrong)
