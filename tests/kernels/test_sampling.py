"""Sampling equals dictionaries of closes, in any cut, and touches only what it promises."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_calib.kernels.sampling import DIFF, LOG, SIMPLE, sample_bars
from stream_calib.values import F64, FACTOR, I8, I64, NO_TIME, OFFSET, RESET, TICK
from tests.kernels.spoiling import Spoil, as_float32, as_strided
from tests.oracles import sampling as oracle
from tests.oracles.sampling import Tick

COMPILED = hasattr(sample_bars, "signatures")
KINDS = {"tick": TICK, "factor": FACTOR, "offset": OFFSET, "reset": RESET}
CODES = {"log": LOG, "simple": SIMPLE, "diff": DIFF}


class Last(NamedTuple):
    """What is carried from bar to bar."""

    price: F64
    bar: I64
    time_ns: I64
    ident: I64

    @classmethod
    def nothing(cls, n: int) -> "Last":
        return cls(
            np.full(n, np.nan),
            np.full(n, -1, dtype=np.int64),
            np.full(n, NO_TIME, dtype=np.int64),
            np.zeros(n, dtype=np.int64),
        )


class Sampled(NamedTuple):
    """What one call gives."""

    returns: F64
    exposure: F64
    age: F64
    duplicates: int


class Case(NamedTuple):
    """A history of ticks in total order, and how to sample it."""

    n: int
    ticks: list[Tick]
    bar_ns: int
    stale_bars: int
    return_types: tuple[str, ...]

    def bar_of(self, tick: Tick) -> int:
        return tick.time_ns // self.bar_ns

    def bars(self) -> list[int]:
        return sorted({self.bar_of(tick) for tick in self.ticks})


def columns(ticks: list[Tick]) -> tuple[I64, I64, F64, I64, I8]:
    return (
        np.array([t.time_ns for t in ticks], dtype=np.int64),
        np.array([t.asset for t in ticks], dtype=np.int64),
        np.array([t.price for t in ticks], dtype=np.float64),
        np.array([t.ident for t in ticks], dtype=np.int64),
        np.array([KINDS[t.kind] for t in ticks], dtype=np.int8),
    )


def codes(case: Case) -> I64:
    return np.array([CODES[return_type] for return_type in case.return_types], np.int64)


def sampled(case: Case, bars: list[int], last: Last) -> Sampled:
    ticks = [tick for tick in case.ticks if case.bar_of(tick) in bars]
    shape = (len(bars), case.n)
    returns, exposure, age = (np.full(shape, 7.0) for _ in range(3))
    duplicates = sample_bars(
        *columns(ticks),
        np.array(bars, dtype=np.int64),
        case.bar_ns,
        case.stale_bars,
        codes(case),
        *last,
        returns,
        exposure,
        age,
    )
    return Sampled(returns, exposure, age, duplicates)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Few times, prices and ids, so that bars are shared and ticks repeat."""
    n, bar_ns = draw(st.integers(2, 5)), draw(st.integers(1, 10))
    tick = st.builds(
        Tick,
        st.integers(0, 40),
        st.integers(0, n - 1),
        st.sampled_from([99.5, 100.0, 101.25]) | st.floats(0.1, 1e6),
        st.integers(0, 1),
        st.just("tick"),
    )
    once = tick.map(lambda one: [one])
    twice = tick.map(lambda one: [one, one])
    other_id = tick.map(lambda one: [one, one._replace(ident=1 - one.ident)])
    how = st.sampled_from([("factor", 0.5), ("offset", -100.0), ("offset", 3.0), ("reset", 0.0)])
    control = st.builds(
        lambda one, how: [one._replace(kind=how[0], price=how[1], ident=0)], tick, how
    )
    runs = draw(st.lists(once | twice | other_id | control, max_size=25))
    ticks = [one for run in runs for one in run]
    ticks.sort(key=lambda tick: tick.time_ns)
    types = draw(st.tuples(*[st.sampled_from([*CODES])] * n))
    return Case(n, ticks, bar_ns, draw(st.integers(1, 6)), types)


def same(one: float, other: float) -> bool:
    return bool(one == other or (np.isnan(one) and np.isnan(other)))


@given(cases())
def test_sampling_equals_its_oracle(case: Case) -> None:
    bars, last = case.bars(), Last.nothing(case.n)
    got = sampled(case, bars, last)
    wanted = oracle.sample_bars(case.ticks, case.bar_ns, case.stale_bars, case.return_types)
    for k, bar in enumerate(bars):
        for i in range(case.n):
            assert got.exposure[k, i] == wanted.spans.get((bar, i), 0)
            r = wanted.returns.get((bar, i), np.nan)
            # one logarithm, by two libraries that are each right to an ulp of it
            np.testing.assert_allclose(got.returns[k, i], r, rtol=4e-16, atol=0.0)
            assert same(got.age[k, i], wanted.ages.get((bar, i), np.nan))
    assert got.duplicates == wanted.duplicates
    assert {
        i: (last.bar[i], last.price[i]) for i in range(case.n) if last.bar[i] >= 0
    } == wanted.last


@given(cases(), st.data())
def test_any_cut_between_bars_gives_the_same_bits(case: Case, data: st.DataObject) -> None:
    bars = case.bars()
    middle = data.draw(st.integers(0, len(bars)))
    whole, last = Last.nothing(case.n), Last.nothing(case.n)
    uncut = sampled(case, bars, whole)
    first, second = sampled(case, bars[:middle], last), sampled(case, bars[middle:], last)
    assert np.vstack([first.returns, second.returns]).tobytes() == uncut.returns.tobytes()
    assert np.vstack([first.exposure, second.exposure]).tobytes() == uncut.exposure.tobytes()
    assert np.vstack([first.age, second.age]).tobytes() == uncut.age.tobytes()
    assert first.duplicates + second.duplicates == uncut.duplicates
    assert [column.tobytes() for column in last] == [column.tobytes() for column in whole]


@given(cases(), st.data())
def test_bars_without_ticks_change_nothing_but_their_own_rows(
    case: Case, data: st.DataObject
) -> None:
    extra = data.draw(st.sets(st.integers(0, 60 // case.bar_ns)))
    bars = sorted({*case.bars(), *extra})
    wide = sampled(case, bars, Last.nothing(case.n))
    narrow = sampled(case, case.bars(), Last.nothing(case.n))
    ticked = np.isin(bars, case.bars())
    assert wide.returns[ticked].tobytes() == narrow.returns.tobytes()
    assert wide.exposure[ticked].tobytes() == narrow.exposure.tobytes()
    assert np.isnan(wide.returns[~ticked]).all()
    assert (wide.exposure[~ticked] == 0.0).all()


@given(cases())
def test_inputs_stay_as_they_were(case: Case) -> None:
    before = columns(case.ticks)
    inputs, bars = columns(case.ticks), np.array(case.bars(), dtype=np.int64)
    bars_before = bars.copy()
    out = np.empty((3, len(bars), case.n))
    sample_bars(
        *inputs, bars, case.bar_ns, case.stale_bars, codes(case), *Last.nothing(case.n), *out
    )
    assert [c.tobytes() for c in inputs] == [c.tobytes() for c in before]
    assert bars.tobytes() == bars_before.tobytes()


@given(cases())
def test_a_return_is_missing_exactly_where_its_exposure_is_zero(case: Case) -> None:
    got = sampled(case, case.bars(), Last.nothing(case.n))
    assert (np.isnan(got.returns) == (got.exposure == 0.0)).all()


@pytest.mark.parametrize("return_type", [*CODES])
def test_a_return_too_large_to_be_one_is_not_observed(return_type: str) -> None:
    prices = [1e-310, 1e300, 1e300 * (1 + 1e-12)]
    ticks = [Tick(t, 0, price, 0) for t, price in enumerate(prices)]
    case = Case(2, ticks, bar_ns=1, stale_bars=5, return_types=(return_type,) * 2)
    with np.errstate(over="ignore"):  # seen only where the kernel runs uncompiled
        got = sampled(case, case.bars(), Last.nothing(2))
    assert np.isnan(got.returns[1, 0])
    assert got.exposure[1, 0] == 0.0
    if return_type != "diff":  # the next return starts from the new price
        assert got.exposure[2, 0] == 1.0


@pytest.mark.skipif(not COMPILED, reason="types are checked by the compiled code")
@pytest.mark.parametrize("spoil", [as_float32, as_strided])
@pytest.mark.parametrize("index", range(14))
def test_arrays_of_another_kind_are_refused(spoil: Spoil, index: int) -> None:
    wrong: list[Any] = [*columns([Tick(0, 0, 1.0, 0)] * 3), np.arange(2)]
    wrong += [np.zeros(2, np.int64), *Last.nothing(2), *np.zeros((3, 2, 2))]
    wrong[index] = spoil(wrong[index])
    wrong[6:6] = [1, 1]
    with pytest.raises(TypeError, match="No matching definition"):
        sample_bars(*wrong)
