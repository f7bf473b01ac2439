"""What is particular to the online DCC: its targets, its clocks, new symbols, and what it claims.

The recursion is held against its papers in ``tests/kernels/test_dcc.py``, against other programs
in ``test_dcc_likelihood.py``.
"""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_calib.estimation.dcc import Dcc
from stream_calib.values import F64, DccParams, ReturnBlock
from tests.oracles import dcc as oracle

TARGET = np.array([[1.0, 0.6, 0.3], [0.6, 1.0, 0.1], [0.3, 0.1, 1.0]])
A, B = 0.05, 0.9


def dcc_of(model: Any = "cdcc", n_target: float = 0.0, clock: str = "observations") -> Dcc:
    less, g = 0.4 * TARGET, 0.02 if model == "adcc" else 0.0
    return Dcc(DccParams(A, B, TARGET, model, g, less), 3, n_target, clock)


def bars(z: F64, elapsed: F64) -> ReturnBlock:
    return ReturnBlock(np.arange(len(z)), z, np.where(np.isnan(z), 0.0, 1.0), elapsed)


def news(k: int, seed: int = 1) -> F64:
    return np.random.default_rng(seed).standard_normal((k, 3))


# before any news, and after


@pytest.mark.parametrize("model", ["dcc", "cdcc", "adcc"])
def test_it_begins_at_its_target_and_can_be_put_back_there(model: str) -> None:
    dcc = dcc_of(model)
    assert (dcc.correlation().corr == TARGET).all()
    dcc.update(news(50))
    assert np.abs(dcc.correlation().corr - TARGET).max() > 0.01
    dcc.reset_to_target()
    assert (dcc.correlation().corr == TARGET).all()
    assert (dcc.correlation().n_eff == 0.0).all()
    again = dcc_of(model)
    dcc.update(news(20, seed=2))
    again.update(news(20, seed=2))
    assert dcc.correlation().corr.tobytes() == again.correlation().corr.tobytes()


@pytest.mark.parametrize("model", ["dcc", "cdcc", "adcc"])
def test_it_begins_with_a_part_of_what_another_one_has_learned(model: str) -> None:
    old = dcc_of(model)
    old.update(news(50))
    learned = old.correlation().corr - TARGET
    other = 0.5 * TARGET + 0.5 * np.eye(3)
    for kept in (0.0, 0.5, 1.0):
        dcc = Dcc(DccParams(A, B, other, "dcc"), 3)
        dcc.begin_near(old, kept)
        # one sum and one product for each pair, in another order
        assert np.allclose(dcc.correlation().corr, other + kept * learned, rtol=0.0, atol=1e-15)
    same = dcc_of(model)
    same.begin_near(old, 1.0)
    for one in (same, old):
        one.update(news(40, seed=3))
    # Q is the same to rounding, and forgets even that
    assert np.allclose(same.correlation().corr, old.correlation().corr, rtol=0.0, atol=1e-15)


def test_what_it_begins_with_must_be_of_its_symbols_and_a_share() -> None:
    with pytest.raises(ValueError, match="old must be of 3 symbols"):
        dcc_of().begin_near(Dcc(DccParams(A, B, np.eye(2)), 2), 0.5)
    with pytest.raises(ValueError, match="kept from 0 to 1"):
        dcc_of().begin_near(dcc_of(), 1.5)


@pytest.mark.parametrize("model", ["dcc", "cdcc", "adcc"])
def test_the_correlations_of_the_next_row_alone_are_those_of_the_forecast(model: str) -> None:
    dcc = dcc_of(model)
    alike = np.full((1, 3), 1e9)  # all three move as one, up to the cap
    dcc.update(np.vstack([news(30), alike]))
    assert dcc.correlation().capped > 0
    assert dcc.next_corr().tobytes() == dcc.correlation().corr.tobytes()


def test_the_triangle_of_the_next_row_is_the_forecast_and_a_copy() -> None:
    dcc = dcc_of()
    dcc.update(news(30))
    triangle = dcc.next_triangle()
    assert (triangle == dcc.correlation().corr[np.triu_indices(3)]).all()
    triangle[:] = 0.0
    assert (dcc.next_triangle() != 0.0).all()


def test_a_target_may_be_a_covariance() -> None:
    covariance = TARGET * np.outer([1.1, 0.9, 1.0], [1.1, 0.9, 1.0])
    dcc = Dcc(DccParams(A, B, covariance, "dcc"), 3)
    np.testing.assert_allclose(dcc.correlation().corr, TARGET, rtol=0.0, atol=1e-15)
    dcc.update(news(30))
    expected = oracle.full_path(news(30), A, B, covariance)[-1]
    np.testing.assert_allclose(dcc.correlation().corr, expected, rtol=0.0, atol=1e-13)
    dcc.reset_to_target()
    np.testing.assert_allclose(dcc.correlation().corr, TARGET, rtol=0.0, atol=1e-15)


# time


def test_a_row_without_news_is_as_much_time_as_a_gap_of_one_bar() -> None:
    empty, gap, blind = dcc_of(clock="time"), dcc_of(clock="time"), dcc_of()
    empty.update(np.vstack([news(20), np.full((2, 3), np.nan), news(1)]))
    gap.update(bars(np.vstack([news(20), news(1)]), np.append(np.ones(20), 3.0)))
    blind.update(bars(np.vstack([news(20), news(1)]), np.append(np.ones(20), 3.0)))
    expected = gap.correlation().corr
    # two steps of (a + b), or one of (a + b)^2: rounding
    np.testing.assert_allclose(empty.correlation().corr, expected, rtol=0.0, atol=1e-14)
    assert np.abs(blind.correlation().corr - expected).max() > 1e-3


def test_after_a_long_gap_only_the_last_row_is_news() -> None:
    late, fresh = dcc_of(clock="time"), dcc_of(clock="time")
    late.update(news(20))
    row = news(1, seed=9)
    late.update(bars(row, np.array([2000.0])))
    fresh.update(row)
    # .95^2000 is 1e-45
    np.testing.assert_allclose(
        late.correlation().corr, fresh.correlation().corr, rtol=0.0, atol=1e-14
    )


@given(st.integers(0, 2**32 - 1))
def test_in_time_a_pair_that_is_not_observed_returns_to_its_target(seed: int) -> None:
    dcc = dcc_of(clock="time")
    dcc.update(3.0 * news(10, seed))
    z = news(600, seed + 1)
    z[:, 0] = np.nan
    dcc.update(z)
    # .95^600 is 4e-14, and the correlation was off by up to one
    np.testing.assert_allclose(dcc.correlation().corr[0], TARGET[0], rtol=0.0, atol=1e-12)


def test_time_of_several_markets_is_refused() -> None:
    block = bars(news(4), np.ones((4, 2, 2)))
    dcc_of().update(block)  # which counts observations alone
    with pytest.raises(ValueError, match="elapsed_bars"):
        dcc_of(clock="time").update(block)


# new symbols


def test_a_new_symbol_has_the_average_target_and_starts_there() -> None:
    dcc = dcc_of("adcc", n_target=1000.0)
    dcc.update(news(40))
    known, state = dcc.correlation(), dcc.state()
    wide = {"settings": state["settings"]}
    upper = np.triu_indices(4)
    for name, fill in Dcc.LAYOUT.by_symbol.items():
        wide[name] = np.full((*state[name].shape[:-1], 4), fill)
        wide[name][..., :3] = state[name]
    for name, fill in Dcc.LAYOUT.by_triangle.items():
        square = np.full((4, 4), fill)
        square[np.triu_indices(3)] = state[name]
        wide[name] = square[upper]
    grown = Dcc.from_state(wide)
    now = grown.correlation()
    assert (now.corr[:3, :3] == known.corr).all()
    mean = math.fsum([0.6, 0.3, 0.1]) / 3.0
    assert (now.corr[3, :3] == mean).all()
    assert (now.n_eff[3] == 0.0).all()
    saved = grown.state()
    assert all(np.isfinite(array).all() for array in saved.values())
    assert saved["settings"][0] == 4
    # what normal returns of that correlation have: for none, (1 / 2 pi); for one, a half
    square = np.empty((4, 4))
    square[upper] = saved["asymmetry"]
    rng = np.random.default_rng(3)
    x = rng.standard_normal(1_000_000)
    y = mean * x + math.sqrt(1.0 - mean**2) * rng.standard_normal(1_000_000)
    falls = np.minimum(x, 0.0) * np.minimum(y, 0.0)
    # sampling: the deviation of a product over a thousand, four times
    assert square[0, 3] == pytest.approx(falls.mean(), abs=4e-3 * falls.std())
    assert square[3, 3] == pytest.approx(0.5, abs=1e-15)
    grown.update(np.random.default_rng(4).standard_normal((5, 4)))
    assert (grown.correlation().n_eff[3] > 0.0).all()


def test_a_target_may_leave_symbols_open() -> None:
    target = TARGET.copy()
    target[2, :] = target[:, 2] = np.nan
    known = Dcc(DccParams(A, B, target), 3, n_target=1000.0).correlation()
    assert (known.corr[2] == [0.6, 0.6, 1.0]).all()
    assert known.n_eff[0, 1] > 1000.0
    assert (known.n_eff[2] == 0.0).all()
    alone = Dcc(DccParams(A, B, np.full((2, 2), np.nan)), 2).correlation()
    assert (alone.corr == np.eye(2)).all()


# what it claims


def test_bands_are_those_of_the_target_or_of_the_news_whichever_is_better() -> None:
    assert (dcc_of().correlation().n_eff == 0.0).all()
    dcc = dcc_of(n_target=810.0)
    np.testing.assert_allclose(dcc.correlation().n_eff, 1000.0, rtol=1e-15)
    dcc.update(news(2000))
    np.testing.assert_allclose(dcc.correlation().n_eff, 1000.0, rtol=1e-15)
    blind = dcc_of()
    blind.update(news(2000))
    # 1 + .95 + .95^2 + ...
    np.testing.assert_allclose(blind.correlation().n_eff, 20.0, rtol=1e-12)
    blind.update(np.column_stack([news(100)[:, :2], np.full(100, np.nan)]))
    assert (blind.correlation().vol == 1.0).all()


def test_kappa_is_that_of_what_it_was_fed() -> None:
    rng = np.random.default_rng(7)
    normal, heavy = dcc_of(), dcc_of()
    normal.update(rng.standard_normal((5000, 3)))
    heavy.update(rng.standard_t(8, (5000, 3)) / math.sqrt(8.0 / 6.0))
    # 3 * 1443 fourth powers of variance 96: .05 of kappa, three times that
    assert normal.correlation().kappa < 0.15
    assert heavy.correlation().kappa > 0.2  # of .5, whose eighth moment does not exist


# forecasts


@pytest.mark.parametrize("model", ["dcc", "cdcc", "adcc"])
def test_forecasts_return_to_the_target_by_a_plus_b(model: str) -> None:
    dcc = dcc_of(model)
    dcc.update(news(30))
    path = dcc.forecast(400)
    assert (path[0] == dcc.correlation().corr).all()
    for k in (1, 7):
        away = (A + B) ** k * (path[0] - TARGET)
        np.testing.assert_allclose(path[k] - TARGET, away, rtol=0.0, atol=1e-15)
    np.testing.assert_allclose(path[-1], TARGET, rtol=0.0, atol=1e-8)  # .95^399 is 1.3e-9
    assert (np.diagonal(path, axis1=1, axis2=2) == 1.0).all()
    assert np.linalg.eigvalsh(path).min() > 0.0
    with pytest.raises(ValueError, match="steps"):
        dcc.forecast(0)


# what is refused


@pytest.mark.parametrize(
    ("params", "words"),
    [
        (DccParams(0.1, 0.9, TARGET), "together below 1"),
        (DccParams(-0.1, 0.9, TARGET), "at least 0"),
        (DccParams(math.nan, 0.9, TARGET), "at least 0"),
        (DccParams(A, B, TARGET, "cdcc", 0.01), "unless the model"),
        (DccParams(A, B, TARGET, "adcc", 0.01), "needs its asymmetry"),
        (DccParams(A, B, TARGET, "adcc", 0.2, 0.5 * TARGET), "too much"),
        (DccParams(A, B, TARGET, "bekk"), "model"),  # type: ignore[arg-type]
        (DccParams(A, B, np.eye(2)), "target is"),
        (DccParams(A, B, np.triu(TARGET)), "symmetric"),
        (DccParams(A, B, TARGET - np.eye(3)), "diagonal"),
        (DccParams(A, B, TARGET * np.inf), "infinite"),
    ],
)
def test_parameters_out_of_range_are_refused(params: DccParams, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Dcc(params, 3)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="clock"):
        dcc_of(clock="sun")
    with pytest.raises(ValueError, match="n_target"):
        dcc_of(n_target=-1.0)
