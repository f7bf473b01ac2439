"""The capping kernel equals its oracle, in any cut, and touches only what it promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from stream_calib.estimation.winsor import tail_tables
from stream_calib.kernels.winsor import cap_returns, read_rescale
from stream_calib.values import F64, I64
from tests.oracles import winsor as oracle

LIMIT = 2.0  # caps much of little data


class State:
    """What the fold changes."""

    def __init__(self, n: int) -> None:
        self.sums, self.score, self.pool = np.zeros((3, n)), np.zeros(n), np.zeros(3)

    def bits(self) -> tuple[bytes, bytes, bytes]:
        return self.sums.tobytes(), self.score.tobytes(), self.pool.tobytes()


def rows_of(n: int, k: int, seed: int, *, timed: bool) -> oracle.Rows:
    """Heavy tails, a burst, holes, standing prices, uneven spans and gaps in time."""
    rng = np.random.default_rng(seed)
    returns = rng.standard_t(3, (k, n))
    returns[k // 2 : k // 2 + 8] *= 100.0
    returns[rng.random((k, n)) < 0.1] = np.nan
    returns[rng.random((k, n)) < 0.1] = 0.0
    exposure = np.where(np.isnan(returns), 0.0, rng.integers(0, 4, (k, n)))
    elapsed = rng.choice([0.5, 1.0, 1.0, 3.0], k)
    seen = np.exp2(-elapsed / 40.0)
    return oracle.Rows(
        returns, exposure, seen, seen if timed else np.ones(k), np.exp2(-elapsed / 100.0)
    )


def folded(rows: oracle.Rows, state: State) -> tuple[F64, I64]:
    out, capped = np.full(rows.returns.shape, 7.0), np.zeros(rows.returns.shape[1], np.int64)
    cap_returns(*rows, LIMIT, *tail_tables(LIMIT), state.sums, state.score, state.pool, out, capped)
    return out, capped


@pytest.mark.parametrize("timed", [True, False])
@given(st.integers(1, 5), st.integers(0, 120), st.integers(0, 2**32 - 1))
@hypothesis_settings(max_examples=25)
def test_fold_equals_its_oracle(timed: bool, n: int, k: int, seed: int) -> None:
    rows, state = rows_of(n, k, seed, timed=timed), State(n)
    out, capped = folded(rows, state)
    wanted = oracle.cap_returns(rows, LIMIT, *tail_tables(LIMIT))
    assert capped.tolist() == wanted.capped.sum(axis=0).tolist()
    # sums of up to 120 positive terms, which pass through a root
    np.testing.assert_allclose(out, wanted.returns, rtol=1e-12)
    np.testing.assert_allclose(state.sums, wanted.sums, rtol=1e-12)
    np.testing.assert_allclose(state.pool, wanted.pool, rtol=1e-12)
    np.testing.assert_allclose(state.score, wanted.score, rtol=0.0, atol=1e-13)


def test_the_rows_of_this_suite_reach_every_part_of_the_fold() -> None:
    rows, state = rows_of(5, 120, seed=1, timed=True), State(5)
    _, capped = folded(rows, state)
    assert capped.min() > 2
    assert state.pool.min() > 0.0
    assert state.score.max() > oracle.CAPS_FREE


@pytest.mark.parametrize("cut", [0, 1, 59, 120])
def test_any_cut_of_a_block_gives_the_same_bits(cut: int) -> None:
    rows = rows_of(4, 120, seed=2, timed=True)
    one, other = State(4), State(4)
    whole, _ = folded(rows, one)
    parts = [folded(oracle.Rows(*(a[part] for a in rows)), other) for part in _parts(cut)]
    assert np.concatenate([out for out, _ in parts]).tobytes() == whole.tobytes()
    assert one.bits() == other.bits()


def test_input_is_left_as_it_was() -> None:
    rows = rows_of(3, 50, seed=3, timed=True)
    before = [array.tobytes() for array in rows]
    folded(rows, State(3))
    assert [array.tobytes() for array in rows] == before


@given(st.lists(st.floats(0.0, 1e6), min_size=3, max_size=3), st.sampled_from([2.0, 3.0, 10.0]))
def test_rescale_equals_its_oracle_and_is_bounded(counts: list[float], limit: float) -> None:
    outer, inner, counted = np.cumsum(counts)
    prior, tails = tail_tables(limit)
    pool = np.array([counted, inner, outer])
    got = read_rescale(pool, prior, tails)
    np.testing.assert_allclose(got, oracle.read_rescale(pool, prior, tails), rtol=1e-14)
    assert 1.0 <= got <= 1.0 / (1.0 - tails[0, -1])


def _parts(cut: int) -> list[slice]:
    return [slice(0, cut), slice(cut, None)]
