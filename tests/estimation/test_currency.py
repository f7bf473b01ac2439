"""Correlations in another currency: those of converted prices, without converting a price."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stream_calib.config import parse_config
from stream_calib.estimation.currency import Currencies, currencies_of
from stream_calib.estimation.ewma import Ewma
from stream_calib.estimation.two_scale import TwoScale
from stream_calib.values import F64, ReturnBlock

SYMBOLS = ("SAP", "TOYOTA", "APPLE", "EURUSD", "USDJPY")
CURRENCY = {
    "base": "USD",
    "symbols": {"SAP": "EUR", "TOYOTA": "JPY"},
    "rates": {"EUR": "EURUSD", "JPY": "1/USDJPY"},
}


def currencies(of: tuple[str, ...] = SYMBOLS, **currency: object) -> Currencies:
    table = {"name": "u", "symbols": of, "currency": CURRENCY | currency}
    found = currencies_of(parse_config({"universe": [table]}).universe[0])
    assert found is not None
    return found


def returns(seed: int, rows: int = 300) -> F64:
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(5, 5)) * [1.0, 2.0, 1.5, 0.5, 0.7]
    return rng.normal(size=(rows, 5)) @ mix * 1e-3


def in_dollars(r: F64) -> F64:
    """Returns of prices that are multiplied by EURUSD, and divided by USDJPY."""
    out = r.copy()
    out[:, 0] += r[:, 3]
    out[:, 1] -= r[:, 4]
    return out


@pytest.mark.parametrize("seed", [1, 2])
def test_it_is_what_converted_prices_give(seed: int) -> None:
    r = returns(seed)
    quoted, converted = Ewma(5, half_life_obs=30.0), Ewma(5, half_life_obs=30.0)
    quoted.update(r)
    converted.update(in_dollars(r))
    known = quoted.correlation()
    found, expected = currencies().convert(known, known.vol), converted.correlation()
    # sums of four covariances of like size
    np.testing.assert_allclose(found.corr, expected.corr, rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(found.vol, expected.vol, rtol=1e-12)
    assert np.array_equal(found.corr, found.corr.T)
    assert np.abs(found.corr - known.corr).max() > 0.1


@pytest.mark.parametrize("seed", [3, 4])
def test_with_two_scales_it_is_within_a_part_of_the_band(seed: int) -> None:
    # variances are compared between scales and covariances are not: the same on average alone
    r = returns(seed, rows=3000)
    estimates = []
    for rows in (r, in_dollars(r)):
        estimator = TwoScale(5, 300.0, 5)
        times = np.arange(1, len(r) + 1, dtype=np.int64)
        estimator.update(ReturnBlock(times, rows, np.ones_like(rows), np.ones(len(r))))
        estimates.append(estimator.correlation())
    quoted, expected = estimates
    found = currencies().convert(quoted, quoted.vol)
    upper = np.triu_indices(5, 1)
    assert (np.abs(found.corr - expected.corr)[upper] < 0.5 * expected.band[upper]).all()
    ratio = found.band[upper] / expected.band[upper]
    assert (ratio > 0.9).all()
    assert (ratio < 2.0).all()  # the poorest of the pairs that a pair is made of


def test_what_is_hedged_keeps_the_return_of_its_own_currency() -> None:
    quoted = Ewma(5, half_life_obs=30.0)
    quoted.update(returns(4))
    known = quoted.correlation()
    found = currencies(hedged=["SAP"]).convert(known, known.vol)
    expected = currencies().convert(known, known.vol)
    assert abs(found.vol[0] - known.vol[0]) <= 1e-15
    assert abs(found.vol[1] - expected.vol[1]) <= 1e-15
    # only beside what is not converted either it is as it was
    np.testing.assert_allclose(found.corr[0, 2:], known.corr[0, 2:], rtol=0.0, atol=1e-14)
    assert abs(found.corr[0, 1] - known.corr[0, 1]) > 1e-3


def test_another_order_of_the_symbols_gives_the_same_bits() -> None:
    order = [3, 0, 4, 2, 1]
    r = returns(5)
    results = []
    for places in (range(5), order):
        estimator = Ewma(5, half_life_obs=30.0)
        estimator.update(r[:, list(places)])
        known = estimator.correlation()
        found = currencies(tuple(SYMBOLS[i] for i in places)).convert(known, known.vol)
        results.append(found)
    first, second = results
    assert first.corr[np.ix_(order, order)].tobytes() == second.corr.tobytes()
    assert first.vol[order].tobytes() == second.vol.tobytes()
    assert first.n_eff[np.ix_(order, order)].tobytes() == second.n_eff.tobytes()


def test_a_pair_rests_on_the_poorest_of_those_it_is_made_of() -> None:
    r = returns(6, rows=60)
    r[:50, 3] = np.nan  # EURUSD came late
    quoted = Ewma(5, half_life_obs=30.0)
    quoted.update(r)
    known = quoted.correlation()
    found = currencies().convert(known, known.vol)
    assert found.n_eff[0, 2] == known.n_eff[2, 3] < known.n_eff[0, 2]
    assert found.n_eff[1, 2] == known.n_eff[1, 2]
    band = (1.0 - found.corr**2) * np.sqrt((1.0 + known.kappa) / found.n_eff)
    sampled = (1.0 - known.corr**2) * np.sqrt((1.0 + known.kappa) / known.n_eff)
    mine = currencies().band(known, sampled, found.corr)
    upper = np.triu_indices(5, 1)
    np.testing.assert_allclose(mine[upper], band[upper], rtol=1e-12)


def test_where_a_rate_was_never_seen_nothing_is_known() -> None:
    r = returns(7, rows=60)
    r[:, 3] = np.nan
    quoted = Ewma(5, half_life_obs=30.0)
    quoted.update(r)
    known = quoted.correlation()
    found = currencies().convert(known, known.vol)
    assert np.isnan(found.corr[0, 1:]).all()
    assert (found.n_eff[0] == 0.0).all()
    assert np.isfinite(found.corr[1, 2])


def test_crosses_in_bitcoin_become_pairs_in_dollars(market_data: Path) -> None:
    path = market_data / "bars/binance_1m_close_40pairs_20210410_20210520.csv.gz"
    prices = pd.read_csv(path, index_col=0).tail(20 * 1440)
    coins = [
        name.removesuffix("_BTC")
        for name in prices.columns
        if name.endswith("_BTC") and name.replace("_BTC", "_USDT") in prices.columns
    ]
    if len(coins) < 2:
        pytest.skip("no coin is quoted in both")
    both = [f"{coin}_{quote}" for quote in ("BTC", "USDT") for coin in coins]
    r = np.diff(np.log(prices[[*both, "BTC_USDT"]].to_numpy()), axis=0)
    r = r[np.isfinite(r).all(axis=1)]
    n = len(coins)
    crosses = r[:, [*range(n), 2 * n]]
    names = (*(f"{coin}_BTC" for coin in coins), "BTC_USDT")
    settings = {
        "base": "USDT",
        "symbols": dict.fromkeys(names[:n], "BTC"),
        "rates": {"BTC": "BTC_USDT"},
    }
    # of returns of half an hour: a cross that trades rarely is minutes behind its dollar price
    long = [
        rows[: len(rows) // 30 * 30].reshape(-1, 30, rows.shape[1]).sum(axis=1)
        for rows in (crosses, r[:, n:])
    ]
    estimates = []
    for rows in long:
        estimator = Ewma(n + 1, half_life_obs=200.0)
        estimator.update(rows)
        estimates.append(estimator.correlation())
    quoted, dollars = estimates
    found = currencies(names, **settings).convert(quoted, quoted.vol)
    upper = np.triu_indices(n + 1, 1)
    # .014 at most, for which the triangles do not close; without the rate .28 on average
    assert np.abs(found.corr - dollars.corr)[upper].max() < 0.03
    assert np.abs(quoted.corr - dollars.corr)[upper].mean() > 0.2
