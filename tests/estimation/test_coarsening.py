"""Returns of coarse bars are those between the last prices of each."""

from random import Random

import numpy as np
import pytest

from stream_calib.estimation.coarsening import Coarsener
from stream_calib.estimation.sampling import Sampler, Ticks
from stream_calib.values import ReturnBlock

SECOND = 1_000_000_000
N, K = 3, 10


def ticks(seed: int, n: int = 400) -> Ticks:
    rng = np.random.default_rng(seed)
    time_ns = np.sort(rng.integers(0, 300 * SECOND, n))
    asset = rng.integers(0, N, n)
    price = 100.0 + rng.normal(0.0, 1.0, n)
    return Ticks(time_ns, asset, price, np.zeros(n, np.int64))


def sampled(bar_ns: int, all_ticks: Ticks, return_type: str) -> ReturnBlock:
    bars = np.unique(all_ticks.time_ns // bar_ns)
    elapsed = np.diff(bars, prepend=bars[0] - 1).astype(np.float64)
    return Sampler(N, bar_ns, 10**6, return_type).sample(all_ticks, bars, elapsed)


@pytest.mark.parametrize("return_type", ["log", "simple", "diff"])
@pytest.mark.parametrize("seed", range(5))
def test_fine_returns_add_up_to_those_of_the_coarse_bars(seed: int, return_type: str) -> None:
    given = ticks(seed)
    fine, coarse = (sampled(bar, given, return_type) for bar in (SECOND, K * SECOND))
    coarsener = Coarsener(N, K, np.full(N, return_type == "simple"))
    random = Random(seed)
    number = (fine.time_ns - 1) // (K * SECOND)
    rows = []
    for bar in np.unique(number):
        inside = np.flatnonzero(number == bar)
        start = inside[0]
        while start <= inside[-1]:  # in any cut
            stop = min(inside[-1] + 1, start + random.randint(1, 4))
            coarsener.add(fine.rows(start, stop))
            if random.random() < 0.3:
                coarsener = Coarsener.from_state(K, coarsener.simple, coarsener.state())
            start = stop
        rows.append(coarsener.close())
    got = np.array([row.returns for row in rows])
    spans = np.array([row.exposure for row in rows])
    begun = np.isfinite(coarse.returns)
    # sums of tens of returns, each rounded to the last digit of its size
    np.testing.assert_allclose(got[begun], coarse.returns[begun], rtol=0.0, atol=1e-12)
    # the time between last prices, to the fine bar: within one coarse bar of counting these
    assert (np.abs(spans - coarse.exposure)[begun] < 1.0).all()
    # of the first bar of a symbol, what there is from its first price on
    assert (spans[~begun] < 1.0).all()
    passed = sum(row.elapsed_bars for row in rows) * K
    assert passed == pytest.approx(fine.elapsed_bars.sum(), rel=1e-12)  # tenths are rounded


def test_a_coarse_bar_without_returns_lets_only_time_pass() -> None:
    coarsener = Coarsener(2, 5, np.zeros(2, dtype=bool))
    nothing = ReturnBlock(np.arange(2), np.full((2, 2), np.nan), np.zeros((2, 2)), np.ones(2))
    coarsener.add(nothing)
    assert not coarsener.close().observed
    one = ReturnBlock(np.arange(1), np.array([[0.5, np.nan]]), np.array([[5.0, 0.0]]), np.ones(1))
    coarsener.add(one)
    row = coarsener.close()
    assert row.observed
    assert row.elapsed_bars == pytest.approx(3 / 5)
    assert row.exposure.tolist() == [1.0, 0.0]
    assert row.returns[0] == 0.5
    assert np.isnan(row.returns[1])
