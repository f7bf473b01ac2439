"""Capped returns: a bad tick is one at the cap, volatility is right, breaks are followed."""

import math
import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import stream_calib as sc
from stream_calib.estimation.ewma import Ewma
from stream_calib.estimation.protocol import Estimator
from stream_calib.estimation.two_scale import StampedBlock, TwoScale
from stream_calib.estimation.winsor import LEAST_DEGREES, Winsor, student_tail, tail_tables
from stream_calib.values import F64, ReturnBlock

ESTIMATORS: dict[str, Callable[[int], Estimator]] = {
    "ewma": partial(Ewma, half_life_obs=40.0, clock="time"),
    "two scales": partial(TwoScale, half_life_obs=80.0, k=4, clock="time"),
}
every_estimator = pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)
VARIANCE_OF_T = {"t8": 8, "t5": 5, "t4": 4, "t3": 3}


def block(returns: F64) -> ReturnBlock:
    """Even bars."""
    exposure = np.where(np.isnan(returns), 0.0, 1.0)
    return ReturnBlock(np.arange(len(returns)), returns, exposure, np.ones(len(returns)))


def uneven(n: int, k: int, seed: int) -> ReturnBlock:
    """Heavy tails with holes, standing prices, uneven spans and gaps."""
    rng = np.random.default_rng(seed)
    returns = 0.01 * rng.standard_t(3, (k, n)) * rng.uniform(0.5, 2.0, n)
    returns[rng.random((k, n)) < 0.15] = np.nan
    returns[rng.random((k, n)) < 0.1] = 0.0
    exposure = np.where(np.isnan(returns), 0.0, rng.choice([1.0, 1.0, 2.0], (k, n)))
    return ReturnBlock(np.arange(k), returns, exposure, rng.choice([0.5, 1.0, 1.0, 3.0], k))


def noise(law: str, k: int, n: int, seed: int) -> F64:
    """Independent draws of variance 1."""
    rng = np.random.default_rng(seed)
    if law in VARIANCE_OF_T:
        degrees = VARIANCE_OF_T[law]
        return rng.standard_t(degrees, (k, n)) * math.sqrt((degrees - 2) / degrees)
    draws = rng.standard_normal((k, n))
    if law == "half zeros":
        draws *= (rng.random((k, n)) < 0.5) * math.sqrt(2.0)
    if law == "rare ticks":
        draws = np.sign(draws) * (rng.random((k, n)) < 0.03) / math.sqrt(0.03)
    return draws


@every_estimator
@pytest.mark.parametrize("size", [50.0, -5000.0])
@pytest.mark.parametrize("span", [1.0, 3.0])
def test_after_a_bad_tick_all_numbers_are_those_of_a_return_at_the_cap(
    make: Callable[[int], Estimator], size: float, span: float
) -> None:
    rows = uneven(4, 400, seed=1)
    rows.returns[200, 1], rows.exposure[200, 1] = size * 0.01, span
    hit, spared = Winsor(4, 60.0, clock="time"), Winsor(4, 60.0, clock="time")
    one, other = make(4), make(4)
    capped = hit.transform(rows)
    assert 0.0 < abs(capped.returns[200, 1]) < 0.3 * math.sqrt(span)
    at_the_cap = rows.returns.copy()
    at_the_cap[200, 1] = capped.returns[200, 1]
    again = spared.transform(
        ReturnBlock(rows.time_ns, at_the_cap, rows.exposure, rows.elapsed_bars)
    )
    assert again.returns.tobytes() == capped.returns.tobytes()
    assert hit.capped.tolist() == spared.capped.tolist()
    assert hit.vol_scale() == spared.vol_scale()
    one.update(capped)
    other.update(again)
    assert states(hit) == states(spared)
    assert states(one) == states(other)


def states(part: Winsor | Estimator) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in part.state().items()}


@pytest.mark.parametrize("n", [2, 10])
@pytest.mark.parametrize(
    ("law", "bound"),
    [("normal", 0.02), ("t8", 0.02), ("t5", 0.02), ("t4", 0.05), ("half zeros", 0.02)],
)
def test_volatility_of_capped_returns_is_rescaled_to_that_of_all(
    law: str, bound: float, n: int
) -> None:
    seed, half_life = 2, 60.0
    rows = noise(law, 60_000 // n + 6000, n, seed)
    winsor, ewma = Winsor(n, half_life), Ewma(n, 2000.0)
    variances = []
    for start in range(0, len(rows), 200):
        ewma.update(winsor.transform(block(rows[start : start + 200])))
        if start >= 20 * half_life:
            variances.append((ewma.correlation().vol * winsor.vol_scale()) ** 2)
    bias = math.sqrt(float(np.mean(variances))) - 1.0
    sys.stdout.write(f"seed {seed}, {law}, {n} symbols: volatility off by {bias:+.4f}\n")
    # the mean of 50,000 squares of these laws alone scatters by .3 % (t5: .7 %)
    assert abs(bias) < bound


@pytest.mark.full
@pytest.mark.parametrize("half_life", [20.0, 240.0])
@pytest.mark.parametrize("n", [2, 10, 100])
@pytest.mark.parametrize(
    ("law", "bound"),
    [("normal", 0.02), ("t8", 0.02), ("t5", 0.02), ("t4", 0.05), ("rare ticks", 0.02)],
)
def test_volatility_is_right_whatever_the_half_life_and_the_number_of_symbols(
    law: str, bound: float, n: int, half_life: float
) -> None:
    warm = int(20 * half_life)
    biases = []
    for seed in range(6):
        rows = noise(law, 12_000 + warm, n, seed)
        winsor, squares = Winsor(n, half_life), []
        for start in range(0, len(rows), 100):
            capped = winsor.transform(block(rows[start : start + 100])).returns
            if start >= warm:
                squares.append(np.mean(capped**2) * winsor.vol_scale() ** 2)
        biases.append(math.sqrt(float(np.mean(squares))) - 1.0)
    sys.stdout.write(f"{law}, {n} symbols, half-life {half_life}: {np.mean(biases):+.4f}\n")
    assert abs(np.mean(biases)) < bound


def rmse(make: Callable[[int], Estimator], rows: F64, rho: F64, *, robust: bool) -> float:
    """Error of ten correlations that move, read every 25 bars."""
    n = rows.shape[1]
    estimator, winsor = make(n), Winsor(n, 20.0, clock="time")
    first, second = np.arange(0, n, 2), np.arange(1, n, 2)
    errors = []
    for start in range(0, len(rows), 25):
        bars = block(rows[start : start + 25])
        estimator.update(winsor.transform(bars) if robust else bars)
        if start > 500:
            errors.append(estimator.correlation().corr[first, second] - rho[start + 24])
    return float(np.sqrt(np.mean(np.square(errors))))


def moving_pairs(k: int, seed: int) -> tuple[F64, F64, F64, F64]:
    """Truth (k, 10), and normal, t5 and spoilt normal returns (k, 20).

    Fisher's z is an AR(1) of persistence .995 and deviation .3 about that of .4; of the spoilt
    returns .2 % are of 15 standard deviations.
    """
    rng = np.random.default_rng(seed)
    z = np.empty((k, 10))
    z[0] = 0.3 * rng.standard_normal(10)
    shocks = 0.3 * math.sqrt(1.0 - 0.995**2) * rng.standard_normal((k, 10))
    for t in range(1, k):
        z[t] = 0.995 * z[t - 1] + shocks[t]
    rho = np.tanh(z + math.atanh(0.4))
    one, other = rng.standard_normal((2, k, 10))
    normal = np.stack([one, rho * one + np.sqrt(1.0 - rho**2) * other], axis=2)
    heavy = normal * np.sqrt(3.0 / rng.chisquare(5, (k, 10)))[:, :, None]
    spoilt = normal.reshape(k, 20).copy()
    bad = rng.random((k, 20)) < 0.002
    spoilt[bad] = 15.0 * np.sign(spoilt[bad])
    return rho, normal.reshape(k, 20), heavy.reshape(k, 20), spoilt


@every_estimator
def test_bad_ticks_hardly_change_the_error_of_correlations(
    make: Callable[[int], Estimator],
) -> None:
    rho, normal, heavy, spoilt = moving_pairs(20_000, seed=3)
    errors = {
        (name, robust): rmse(make, rows, rho, robust=robust)
        for name, rows in (("normal", normal), ("t5", heavy), ("spoilt", spoilt))
        for robust in (False, True)
    }
    sys.stdout.write(f"seed 3: {errors}\n")
    assert errors["spoilt", True] <= 1.03 * errors["normal", True]
    assert errors["spoilt", False] > 1.15 * errors["normal", False]  # what capping is for
    assert errors["normal", True] <= 1.003 * errors["normal", False]  # costs nothing
    assert errors["t5", True] < 0.99 * errors["t5", False]


@pytest.mark.parametrize("law", ["normal", "t5"])
@pytest.mark.parametrize("factor", [math.sqrt(10.0), 1e6])
def test_a_break_of_volatility_is_followed_as_fast_as_without_capping(
    factor: float, law: str
) -> None:
    half_life = 60
    rows = noise(law, 26 * half_life, 20, seed=4)
    rows[20 * half_life :] *= factor
    winsor = Winsor(20, half_life)
    before = winsor.transform(block(rows[: 20 * half_life]))
    assert before.returns.shape == (20 * half_life, 20)
    calm = winsor.vol_scale()
    scales, middle = [], []
    for t in range(20 * half_life, len(rows)):
        winsor.transform(block(rows[t : t + 1]))
        scales.append(winsor.vol_scale())
        sums = winsor.state()["sums"]
        middle.append(np.median(sums[0] / sums[1]) * (scales[-1] / factor) ** 2)
    # an uncapped sum is at 1 - 2^-1 after one half-life and at .8 after 2.3
    assert middle[int(1.6 * half_life)] > 0.5
    assert middle[3 * half_life] > 0.75
    assert max(scales) < calm + 0.06  # the break does not pass for heavy tails


def test_a_peg_and_its_end_are_not_capped() -> None:
    rows = np.zeros((400, 2))
    rows[:, 1] = noise("normal", 400, 1, seed=5)[:, 0]
    rows[300:, 0] = 1e-3 * noise("normal", 100, 1, seed=6)[:, 0]
    winsor = Winsor(2, 30.0)
    capped = winsor.transform(block(rows))
    assert capped.returns[300:320, 0].tobytes() == rows[300:320, 0].tobytes()
    assert winsor.capped[0] <= 3  # of 80


@pytest.mark.parametrize("clock", ["observations", "time"])
def test_a_price_that_stood_still_goes_on_at_its_old_size(clock: str) -> None:
    rows = noise("normal", 2000, 1, seed=7)
    rows[500:1500] = 0.0
    winsor = Winsor(1, 30.0, clock=clock)
    winsor.transform(block(rows[:1500]))
    winsor.transform(block(rows[1500:]))
    assert winsor.capped[0] < 10  # of 500, about 1.5 by chance


def test_a_scale_that_was_far_too_small_is_left_behind_in_a_few_bars() -> None:
    rows = noise("normal", 600, 1, seed=8)
    rows[:300] *= 1e-9
    winsor = Winsor(1, 100.0)
    out = winsor.transform(block(rows)).returns
    whole = np.flatnonzero(out[300:, 0] == rows[300:, 0])
    assert whole[0] <= 40  # each cap beyond the second doubles: 2^30 is 1e9


def test_nothing_is_capped_before_twenty_observations() -> None:
    rows = np.ones((60, 1))
    rows[10] = rows[18] = rows[40] = 1e3
    out = Winsor(1, 1000.0).transform(block(rows)).returns[:, 0]
    assert out[10] == out[18] == 1e3
    rows[10] = rows[18] = 1.0
    out = Winsor(1, 1000.0).transform(block(rows)).returns[:, 0]
    assert 3.0 <= out[40] < 3.02


def test_a_stamped_block_stays_one_and_only_its_returns_change() -> None:
    rows = uneven(3, 300, seed=9)
    age = np.where(np.isnan(rows.returns), np.nan, 0.5)
    stamped = StampedBlock(rows.time_ns, rows.returns, rows.exposure, rows.elapsed_bars, age)
    before = rows.returns.tobytes()
    winsor = Winsor(3, 30.0)
    got = winsor.transform(stamped)
    assert type(got) is StampedBlock
    for name in ("time_ns", "exposure", "elapsed_bars", "age"):
        assert getattr(got, name) is getattr(stamped, name)
    assert rows.returns.tobytes() == before
    assert (np.isnan(got.returns) == np.isnan(rows.returns)).all()
    assert (np.nan_to_num(np.abs(got.returns)) <= np.nan_to_num(np.abs(rows.returns))).all()
    changed = (got.returns != rows.returns) & ~np.isnan(rows.returns)
    assert winsor.capped.tolist() == changed.sum(axis=0).tolist()
    assert winsor.capped.sum() > 0
    winsor.transform(stamped.rows(0, 0))
    assert winsor.capped.tolist() == [0, 0, 0]  # of the last call


sizes, seeds = st.integers(1, 6), st.integers(0, 2**32 - 1)
some = hypothesis_settings(max_examples=30)


@given(sizes, st.integers(0, 200), seeds, st.data())
@some
def test_any_cut_and_any_restart_give_the_same_bits(
    n: int, k: int, seed: int, data: st.DataObject
) -> None:
    rows, middle = uneven(n, k, seed), data.draw(st.integers(0, k))
    whole, cut = Winsor(n, 20.0, 2.0, "time"), Winsor(n, 20.0, 2.0, "time")
    wanted = whole.transform(rows).returns
    first = cut.transform(rows.rows(0, middle)).returns
    state = cut.state()
    cut = Winsor.from_state(state)
    for array in state.values():
        array[...] = 7.0  # what was saved is a copy
    second = cut.transform(rows.rows(middle, k)).returns
    assert np.concatenate([first, second]).tobytes() == wanted.tobytes()
    assert states(cut) == states(whole)
    assert cut.vol_scale() == whole.vol_scale()


@given(sizes, st.integers(0, 200), seeds, st.data())
@some
def test_permuted_symbols_give_the_permuted_bits(
    n: int, k: int, seed: int, data: st.DataObject
) -> None:
    rows, order = uneven(n, k, seed), data.draw(st.permutations(range(n)))
    turned = ReturnBlock(
        rows.time_ns,
        np.ascontiguousarray(rows.returns[:, order]),
        np.ascontiguousarray(rows.exposure[:, order]),
        rows.elapsed_bars,
    )
    one, other = Winsor(n, 20.0), Winsor(n, 20.0)
    wanted = np.ascontiguousarray(one.transform(rows).returns[:, order])
    assert other.transform(turned).returns.tobytes() == wanted.tobytes()
    assert other.vol_scale() == one.vol_scale()
    assert other.capped.tolist() == one.capped[order].tolist()


@given(sizes, st.integers(0, 200), seeds, st.integers(-40, 40))
@some
def test_a_power_of_two_on_one_symbol_is_handed_on(
    n: int, k: int, seed: int, exponent: int
) -> None:
    rows, factor = uneven(n, k, seed), np.ones(n)
    factor[0] = 4.0**exponent
    scaled = ReturnBlock(rows.time_ns, rows.returns * factor, rows.exposure, rows.elapsed_bars)
    wanted = Winsor(n, 20.0).transform(rows).returns * factor
    assert Winsor(n, 20.0).transform(scaled).returns.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("limit", [2.0, 3.0, 10.0])
def test_tail_tables_are_those_of_student_and_normal_laws(limit: float) -> None:
    from scipy import stats

    prior, tails = tail_tables(limit)
    assert (np.diff(tails[0, :-1]) > 0.0).all()
    assert (np.diff(tails[1, :-1]) > 0.0).all()
    assert prior[2] / prior[0] == pytest.approx(2.0 * stats.norm.sf(limit), rel=1e-12)
    for degrees in (96.0, 6.0, LEAST_DEGREES):
        scale = math.sqrt(degrees / (degrees - 2.0))
        outer, _ = student_tail(limit, degrees)
        # Simpson's rule with 2,000 steps
        assert outer == pytest.approx(2.0 * stats.t.sf(limit * scale, degrees), rel=1e-6)
    # E[max(z^2 - c^2, 0)] of t with three degrees, in closed form
    cut = math.atan(limit)
    beyond = 2.0 / math.pi * (math.pi / 2 - cut + math.sin(cut) * math.cos(cut))
    shares = 2.0 / math.pi * (math.pi / 2 - cut - math.sin(cut) * math.cos(cut))
    assert tails[0, -1] == pytest.approx(beyond - limit**2 * shares, rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((0, 50.0), "n must"),
        ((2, 9.0), "half_life_obs"),
        ((2, math.nan), "half_life_obs"),
        ((2, 50.0, 1.9), "limit"),
        ((2, 50.0, math.nan), "limit"),
        ((2, 50.0, 3.0, "ticks"), "clock"),
    ],
)
def test_unusable_settings_are_refused_by_name(arguments: tuple[int, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Winsor(*arguments)


def test_a_block_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="block is"):
        Winsor(3, 50.0).transform(block(np.zeros((5, 2))))


def test_it_has_a_public_name() -> None:
    assert sc.Winsor is Winsor
