"""From any ticks to decoded bytes: what is published is finite, symmetric and can be inverted."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_calib.engine.membership import Membership
from stream_calib.estimation.cleaning import Repaired, repair_correlation
from stream_calib.estimation.ewma import Ewma
from stream_calib.estimation.protocol import Estimator
from stream_calib.estimation.sampling import Sampler, Ticks
from stream_calib.estimation.two_scale import StampedBlock, TwoScale
from stream_calib.values import (
    F64,
    JSON_MAX_SYMBOLS,
    Correlation,
    Matrix,
    ReturnBlock,
    eigenvalue_floor,
)
from stream_calib.wire.cloudevents import JSON_TYPE
from stream_calib.wire.matrices import PACKED_TYPE, encode, join
from tests.golden.values import matrix

BAR_NS = 1_000_000_000
# LAPACK's eigenvalues are good to a few n ulps of the largest, which is n at most
ULPS = 2.3e-16

ESTIMATORS: dict[str, Callable[[int], Estimator]] = {
    "ewma": partial(Ewma, half_life_obs=20.0, clock="time"),
    "two scales of 3 bars": partial(TwoScale, half_life_obs=20.0, k=3, clock="time"),
    "two scales of 12 bars": partial(TwoScale, half_life_obs=200.0, k=12, clock="time"),
}
every_estimator = pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)


def published(known: Correlation, threshold: float) -> tuple[Correlation, Repaired, F64] | None:
    """As the engine does it: the symbols that are ready, repaired, sent and received."""
    n = len(known.corr)
    membership = Membership(tuple(f"S{i:04}" for i in range(n)), threshold)
    membership.update(known)
    chosen = np.flatnonzero(membership.ready)
    if len(chosen) < 2:
        return None
    cut = np.ix_(chosen, chosen)
    repaired = repair_correlation(known.corr[cut], eigenvalue_floor(len(chosen)))
    ready = Correlation(known.corr[cut], known.vol[chosen], known.n_eff[cut], known.kappa, 0)
    return ready, repaired, sent_and_received(ready, repaired).corr


def sent_and_received(ready: Correlation, repaired: Repaired) -> Matrix:
    corr, n_eff = repaired.corr, ready.n_eff
    band = (1.0 - corr * corr) * np.sqrt((1.0 + ready.kappa) / n_eff)
    value = replace(matrix(len(corr)), corr=corr, vol=ready.vol, n_eff=n_eff, band=band)
    records = encode(value, "calib.correlations", 0)
    kind = JSON_TYPE if len(corr) <= JSON_MAX_SYMBOLS else PACKED_TYPE
    assert {dict(record.headers)["content-type"] for record in records} == {kind.encode()}
    return join([(record.value, dict(record.headers)) for record in records])


def assert_sound(ready: Correlation, repaired: Repaired, decoded: F64) -> None:
    n = len(decoded)
    for corr in (repaired.corr, decoded):
        assert np.isfinite(corr).all()
        assert corr.tobytes() == corr.T.tobytes()
        assert (np.diagonal(corr) == 1.0).all()
        assert np.abs(corr[~np.eye(n, dtype=bool)]).max() < 1.0
        np.linalg.cholesky(corr)
    floor, slack = eigenvalue_floor(n), 10.0 * n * n * ULPS
    assert np.linalg.eigvalsh(repaired.corr)[0] >= floor - slack
    assert np.isfinite(ready.vol).all()
    assert (ready.vol > 0.0).all()


@st.composite
def any_ticks(draw: st.DrawFn) -> tuple[int, Ticks]:
    """Ticks of 2 to 8 symbols in total order, as intake hands them on whatever came first.

    Some symbols are silent, one stands still, one copies another, one ticks with it the other
    way, prices jump by decades, and nothing ticks for a while.
    """
    n = draw(st.integers(2, 8))
    m = draw(st.integers(0, 600))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    time_ns = rng.integers(0, max(1, m // 4) * BAR_NS, m)
    time_ns[time_ns > draw(st.integers(0, m // 4 + 1)) * BAR_NS] += 500 * BAR_NS  # a gap
    asset = rng.choice(n, m, p=rng.dirichlet(np.full(n, 0.5)))
    time_ns = np.sort(time_ns)  # equal times in whatever order
    path = np.cumsum(rng.standard_t(3, m)) * draw(st.sampled_from([1e-9, 1e-4, 1e-2]))
    own = draw(st.sampled_from([0.0, 1e-6, 1e-2])) * rng.standard_normal(m)
    log_price = np.where(asset == 1, -path, path) + own
    log_price[rng.random(m) < 0.01] += draw(st.sampled_from([0.0, 20.0]))
    if draw(st.booleans()):
        log_price[asset == 0] = 0.0
    ticks = Ticks(time_ns, asset, np.exp(log_price), np.zeros(m, np.int64))
    return n, ticks


def bars_of(n: int, ticks: Ticks) -> ReturnBlock:
    bars = np.unique(ticks.time_ns // BAR_NS)
    sampler = Sampler(n, BAR_NS, stale_bars=60, return_type="log")
    elapsed = np.minimum(np.diff(bars, prepend=bars[:1] - 1).astype(np.float64), 100.0)
    return sampler.sample(ticks, bars, elapsed)


def stamped(block: ReturnBlock, n: int, ticks: Ticks) -> StampedBlock:
    """The same bars with the age of the last tick in each."""
    bars, row = np.unique(ticks.time_ns // BAR_NS, return_inverse=True)
    age = np.full((len(bars), n), np.nan)
    age[row, ticks.asset] = (bars[row] + 1) - ticks.time_ns / BAR_NS  # of several the last
    return StampedBlock(block.time_ns, block.returns, block.exposure, block.elapsed_bars, age)


@every_estimator
@given(any_ticks(), st.booleans(), st.sampled_from([2.0, 10.0, 30.0]))
def test_whatever_the_ticks_what_is_published_is_sound(
    make: Callable[[int], Estimator], drawn: tuple[int, Ticks], stamps: bool, threshold: float
) -> None:
    n, ticks = drawn
    block = bars_of(n, ticks)
    estimator = make(n)
    estimator.update(stamped(block, n, ticks) if stamps else block)
    sent = published(estimator.correlation(), threshold)
    if sent is not None:
        assert_sound(*sent)


def test_ticks_such_as_these_are_published_repaired_and_left_alone() -> None:
    # what the property above is worth: its ticks reach the parts of the way
    seen = {"published": 0, "repaired": 0, "capped": 0, "still": 0}

    @settings(derandomize=True)
    @given(any_ticks())
    def watch(drawn: tuple[int, Ticks]) -> None:
        n, ticks = drawn
        estimator = TwoScale(n, 200.0, 12, "time")
        estimator.update(stamped(bars_of(n, ticks), n, ticks))
        known = estimator.correlation()
        sent = published(known, 2.0)
        seen["published"] += sent is not None
        seen["repaired"] += sent is not None and sent[1].repair > 0.0
        seen["capped"] += known.capped > 0
        seen["still"] += bool((known.vol == 0.0).any())

    watch()
    assert min(seen.values()) > 5, seen


SIZES = [10, 50, 200, 201, 500]


@pytest.mark.parametrize(
    "n", [*SIZES, *(pytest.param(n, marks=pytest.mark.full) for n in (1000, 1500))]
)
@every_estimator
def test_a_universe_of_any_size_can_be_inverted_as_decoded(
    make: Callable[[int], Estimator], n: int
) -> None:
    rng = np.random.default_rng(n)
    m = 150  # far fewer bars than symbols: there is no positive definite estimate
    path = rng.standard_normal((m, 3)) @ rng.standard_normal((3, n)) + rng.standard_normal((m, n))
    path = np.cumsum(path, axis=0) * 1e-4
    ticked = rng.random((m, n)) < 0.8
    returns, exposure = np.full((m, n), np.nan), np.zeros((m, n))
    for i in range(n):
        bars = np.flatnonzero(ticked[:, i])
        returns[bars[1:], i] = np.diff(path[bars, i])
        exposure[bars[1:], i] = np.diff(bars)
    age = np.where(ticked, rng.random((m, n)), np.nan)
    estimator = make(n)
    estimator.update(StampedBlock(np.arange(m), returns, exposure, np.ones(m), age))
    sent = published(estimator.correlation(), 3.0)
    assert sent is not None
    ready, repaired, decoded = sent
    assert len(decoded) == n
    assert n < m // 3 or repaired.repair > 0.0
    assert_sound(ready, repaired, decoded)
