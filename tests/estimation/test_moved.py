"""What an alarm says of the pairs and symbols that moved."""

import numpy as np
import pytest

from stream_calib.estimation.moved import TOGETHER_MIN, moved

SYMBOLS = ("D", "A", "C", "B")
ORDER = np.argsort(np.array(SYMBOLS))


def rows(corr: np.ndarray, k: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((k, len(corr))) @ np.linalg.cholesky(corr).T


def one_pair(r: float) -> np.ndarray:
    corr = np.eye(4)
    corr[0, 2] = corr[2, 0] = r
    return corr


def test_the_pair_that_moved_is_named_first_with_what_it_was_and_is() -> None:
    told = moved(rows(one_pair(0.9), 400), np.eye(4), SYMBOLS, ORDER)
    first = told["pairs"][0]  # type: ignore[index]
    assert first["symbols"] == ["C", "D"]
    assert first["before"] == 0.0
    # three standard errors of .9 from 400 rows
    assert first["after"] == pytest.approx(0.9, abs=3 * 0.19 / 20.0)
    assert first["delta"] == first["after"]
    assert first["se"] == pytest.approx((1 - first["after"] ** 2) / 20.0)
    assert {one["symbol"] for one in told["symbols"][:2]} == {"C", "D"}  # type: ignore[index]
    assert told["average_before"] == 0.0


def test_the_order_of_the_symbols_does_not_show() -> None:
    z, turned = rows(one_pair(0.5), 60), [2, 0, 3, 1]
    names = tuple(SYMBOLS[i] for i in turned)
    other = moved(z[:, turned], np.eye(4), names, np.argsort(np.array(names)))
    assert other == moved(z, np.eye(4), SYMBOLS, ORDER)


def test_a_pair_that_is_hardly_observed_is_left_out() -> None:
    z = rows(one_pair(0.9), 50)
    z[TOGETHER_MIN - 1 :, 0] = np.nan
    told = moved(z, np.eye(4), SYMBOLS, ORDER)
    assert all("D" not in pair["symbols"] for pair in told["pairs"])  # type: ignore[attr-defined]
    assert len(told["pairs"]) == 3  # type: ignore[arg-type]


def test_a_symbol_without_expectation_is_left_out() -> None:
    expected = np.eye(4)
    expected[1], expected[:, 1] = np.nan, np.nan
    told = moved(rows(np.eye(4), 50), expected, SYMBOLS, ORDER)
    assert all("A" not in pair["symbols"] for pair in told["pairs"])  # type: ignore[attr-defined]
