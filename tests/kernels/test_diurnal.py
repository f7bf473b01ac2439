"""The diurnal kernel equals days written out, in any cut, and touches only what it promises."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_calib.estimation.diurnal import parabolas
from stream_calib.kernels.diurnal import fold_days
from stream_calib.values import F64, I64
from tests.oracles import diurnal as oracle

COMPILED = hasattr(fold_days, "signatures")
BAR, BIN = 10, 20
HALF_LIFE = 5.0


def rows(n: int, n_days: int, n_bins: int, seed: int) -> tuple[F64, F64, I64, I64]:
    """Two bars per bin over some days, with holes, jumps, long spans and closed times."""
    rng = np.random.default_rng(seed)
    bars = 2 * n_bins
    day = np.repeat(np.cumsum(rng.integers(1, 4, n_days)), bars)
    place = np.tile(BAR * np.arange(1, bars + 1), n_days)
    returns = (
        rng.standard_t(4, (len(day), n))
        * np.exp(rng.standard_normal(n_days))[np.repeat(np.arange(n_days), bars), None]
    )
    returns[rng.random(returns.shape) < 0.2] = np.nan
    returns[rng.random(returns.shape) < 0.02] *= 30.0
    returns[day == day[-1]] = 0.0  # a day of stale prices
    exposure = np.where(np.isnan(returns), 0.0, rng.choice([1.0, 1.0, 2.0, 3.0], returns.shape))
    closed = rng.random(len(day)) < 0.1
    return returns, exposure, np.where(closed, -1, day), np.where(closed, 0, place)


def new_state(n: int, n_bins: int) -> list[Any]:
    days, sums = np.zeros((2, n)), np.zeros((4, n, n_bins))
    return [np.full(1, -1, np.int64), days, sums, np.ones((n, n_bins))]


def folded(
    data: tuple[F64, F64, I64, I64], n_bins: int, width: int, around: bool, state: list[Any]
) -> F64:
    smoother, first = parabolas(n_bins, width, around=around)
    share = np.full(n_bins, 1.0 / n_bins)
    out = np.full(data[0].shape, 7.0)
    decay = 0.5 ** (1.0 / HALF_LIFE)
    settings: tuple[Any, ...] = float(BAR), BIN, decay, 2.0, 10.0, smoother, first, share
    arguments: list[Any] = [*data, *settings, *state, out]
    fold_days(*arguments)
    return out


@pytest.mark.parametrize(
    ("n_days", "n_bins", "width"), [(4, 5, 5), (20, 9, 5), (14, 12, 7), (9, 3, 1)]
)
@pytest.mark.parametrize("around", [True, False])
@pytest.mark.parametrize("seed", [1, 2])
def test_factors_are_those_of_the_days_written_out(
    n_days: int, n_bins: int, width: int, around: bool, seed: int
) -> None:
    data = rows(3, n_days, n_bins, seed)
    out = folded(data, n_bins, width, around, new_state(3, n_bins))
    returns, exposure, day, place = data
    share = np.full(n_bins, 1.0 / n_bins)
    assert (out[day < 0] == 1.0).all()
    for i in range(3):
        spans = np.where(exposure[:, i] > 0, exposure[:, i], 1.0)
        middle = place - 0.5 * BAR * spans
        bin_of = np.clip(middle // BIN, 0, n_bins - 1).astype(np.int64)
        usable = (day >= 0) & (middle >= 0)
        for date in np.unique(day[day >= 0]):
            at = usable & (day < date)
            f = oracle.factors(
                returns[at, i],
                exposure[at, i],
                day[at],
                bin_of[at],
                share,
                HALF_LIFE,
                width,
                around,
            )
            own = day == date
            # fitted by least squares there, by weights worked out beforehand here
            np.testing.assert_allclose(out[own, i], f[bin_of[own]], rtol=1e-10)
    if n_days > 4:
        assert np.ptp(out) > 0.1


@given(st.integers(0, 2**32 - 1), st.integers(0, 160))
def test_any_cut_gives_the_same_bits(seed: int, cut: int) -> None:
    data = rows(3, 16, 5, seed)
    whole, pieces = new_state(3, 5), new_state(3, 5)
    out = folded(data, 5, 5, True, whole)
    parts = [
        folded(tuple(column[at] for column in data), 5, 5, True, pieces)  # type: ignore[arg-type]
        for at in (slice(None, cut), slice(cut, None))
    ]
    assert np.concatenate(parts).tobytes() == out.tobytes()
    assert [a.tobytes() for a in pieces] == [a.tobytes() for a in whole]


def test_nothing_but_the_promised_outputs_changes() -> None:
    data = rows(3, 16, 5, 9)
    before = [column.copy() for column in data]
    folded(data, 5, 5, False, new_state(3, 5))
    assert [c.tobytes() for c in data] == [c.tobytes() for c in before]


@pytest.mark.skipif(not COMPILED, reason="types are checked by the compiled code")
def test_arrays_of_another_kind_are_refused() -> None:
    returns, exposure, day, place = rows(3, 3, 5, 0)
    for wrong in ((returns.astype(np.float32), exposure), (returns, exposure.T.copy().T)):
        with pytest.raises(TypeError, match="No matching definition"):
            folded((*wrong, day, place), 5, 5, True, new_state(3, 5))
