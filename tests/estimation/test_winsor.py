"""Capped returns: one bad tick is one return at the cap, and volatility stays what it is."""

import numpy as np
import pytest

from stream_calib.estimation.ewma import Ewma
from stream_calib.estimation.two_scale import TwoScale
from stream_calib.estimation.winsor import Winsor
from stream_calib.values import F64, ReturnBlock

RHO = 0.5


def block(returns: F64) -> ReturnBlock:
    exposure = np.where(np.isnan(returns), 0.0, 1.0)
    return ReturnBlock(np.arange(len(returns)), returns, exposure, np.ones(len(returns)))


def pair(rng: np.random.Generator, m: int, degrees: float | None = None) -> F64:
    """Two returns of unit variance and correlation one half, Gaussian or Student-t."""
    z = rng.standard_normal((m, 2))
    z[:, 1] = RHO * z[:, 0] + np.sqrt(1.0 - RHO * RHO) * z[:, 1]
    if degrees is not None:
        scale = np.sqrt((degrees - 2.0) / rng.chisquare(degrees, (m, 1)))
        z = z * scale
    return z


def estimator(kind: str) -> Ewma | TwoScale:
    return Ewma(2, 60.0) if kind == "ewma" else TwoScale(2, 240.0, k=4)


kinds = pytest.mark.parametrize("kind", ["ewma", "two scales"])


@kinds
@pytest.mark.parametrize("sigmas", [50.0, -50.0, 1e6])
def test_a_tick_far_beyond_the_cap_acts_as_one_at_the_cap(kind: str, sigmas: float) -> None:
    rng = np.random.default_rng(3)
    before, after = pair(rng, 500), pair(rng, 500)
    outputs = []
    for shock in (sigmas, 4.0 * np.sign(sigmas)):  # both beyond the cap of three
        winsor, own = Winsor(2, 60.0), estimator(kind)
        found = []
        for part in (before, np.array([[shock, 0.3]]), after):
            for row in part:
                own.update(winsor.transform(block(row[None, :])))
            known = own.correlation()
            found += [known.corr, known.vol * winsor.vol_scale(), known.n_eff]
        outputs.append(found)
    for one, other in zip(*outputs, strict=True):
        # the same bits, for how far beyond it was is never looked at
        np.testing.assert_array_equal(one, other)


def moving(rng: np.random.Generator, m: int) -> tuple[F64, F64]:
    """Returns whose correlation moves: Fisher's z an AR(1) of .995, deviation .3, and the path."""
    steps = 0.3 * np.sqrt(1.0 - 0.995**2) * rng.standard_normal(m)
    z = np.zeros(m)
    for t in range(1, m):
        z[t] = 0.995 * z[t - 1] + steps[t]
    rho = np.tanh(z + np.arctanh(0.4))
    noise = rng.standard_normal((m, 2))
    noise[:, 1] = rho * noise[:, 0] + np.sqrt(1.0 - rho * rho) * noise[:, 1]
    return noise, rho


@kinds
@pytest.mark.parametrize(
    "m", [30_000, pytest.param(400_000, marks=pytest.mark.full)], ids=["short", "long"]
)
def test_few_bad_ticks_change_the_error_of_correlations_by_three_per_cent_at_most(
    kind: str, m: int
) -> None:
    rng = np.random.default_rng(11)
    clean, rho = moving(rng, m)
    spoiled = clean.copy()
    bad = rng.random((m, 2)) < 0.002
    spoiled[bad] = 15.0 * rng.choice([-1.0, 1.0], int(bad.sum()))
    errors = {}
    for name, returns, capped in (
        ("clean", clean, False),
        ("capped", spoiled, True),
        ("as they are", spoiled, False),
    ):
        own: Ewma | TwoScale = Ewma(2, 25.0) if kind == "ewma" else TwoScale(2, 60.0, k=3)
        winsor, squares = Winsor(2, 60.0), []
        for start in range(0, m, 5):
            rows = block(np.ascontiguousarray(returns[start : start + 5]))
            own.update(winsor.transform(rows) if capped else rows)
            if start > 2000:
                squares.append((own.correlation().corr[0, 1] - rho[start + 4]) ** 2)
        errors[name] = float(np.sqrt(np.mean(squares)))
    assert errors["capped"] <= 1.03 * errors["clean"]
    assert errors["as they are"] > 1.08 * errors["clean"]


@pytest.mark.parametrize(
    ("degrees", "tolerance"), [(None, 0.02), (8.0, 0.02), (5.0, 0.02), (4.0, 0.05)]
)
def test_volatility_of_capped_returns_is_that_of_all(
    degrees: float | None, tolerance: float
) -> None:
    rng = np.random.default_rng(5)
    ratios = []
    for _ in range(4):
        returns = np.concatenate([pair(rng, 60_000, degrees) for _ in range(5)], axis=1)
        winsor = Winsor(10, 100.0)
        capped = winsor.transform(block(returns)).returns[5000:]
        # the true deviation is 1: that of a sample of t4 is off by as much as the tolerance
        ratios.append(np.sqrt((capped**2).mean()) * winsor.vol_scale())
    assert abs(np.mean(ratios) - 1.0) < tolerance


def test_a_break_of_volatility_is_followed_as_fast_as_without_a_cap() -> None:
    rng = np.random.default_rng(8)
    returns = np.concatenate([pair(rng, 2000), 10.0 * pair(rng, 600)])
    vols = []
    for winsor in (Winsor(2, 60.0), None):
        own = Ewma(2, 60.0)
        rows = block(returns)
        own.update(rows if winsor is None else winsor.transform(rows))
        vols.append(own.correlation().vol * (1.0 if winsor is None else winsor.vol_scale()))
    # 600 bars are ten half-lives
    np.testing.assert_allclose(vols[0], vols[1], rtol=0.05)
    np.testing.assert_allclose(vols[0], 10.0, rtol=0.25)


def test_a_price_that_stood_still_is_not_held_there() -> None:
    rng = np.random.default_rng(2)
    returns = np.zeros((1500, 2))
    returns[500:] = pair(rng, 1000)
    capped = Winsor(2, 60.0).transform(block(returns)).returns
    assert (np.abs(capped[500:]).mean(axis=0) > 0.7).all()
    assert (capped[:500] == 0.0).all()


def test_what_is_missing_stays_missing_and_says_nothing() -> None:
    rng = np.random.default_rng(4)
    returns = pair(rng, 400)
    holed = np.repeat(returns, 2, axis=0)
    holed[1::2] = np.nan
    one, other = Winsor(2, 60.0), Winsor(2, 60.0)
    whole = one.transform(block(returns)).returns
    elapsed = np.where(np.arange(800) % 2 == 0, 1.0, 0.0)
    rows = ReturnBlock(np.arange(800), holed, np.where(np.isnan(holed), 0.0, 1.0), elapsed)
    with_holes = other.transform(rows).returns
    assert with_holes[::2].tobytes() == whole.tobytes()
    assert np.isnan(with_holes[1::2]).all()
