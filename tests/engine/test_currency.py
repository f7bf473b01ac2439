"""Matrices in a base currency: those of the prices in it, whatever they are quoted in."""

from collections.abc import Mapping, Sequence
from random import Random

import numpy as np

from stream_calib.estimation.currency import currencies_of
from stream_calib.simulation import simulate
from stream_calib.values import Matrix, Source, Step
from stream_calib.wire.matrices import decode, to_json
from tests.engine.driver import SECOND, START, Driver, settings, tick
from tests.engine.fits import made_up
from tests.engine.schedule import dense_run, read_dense

T = Source("t", 0)
SYMBOLS = ("A", "B", "EURUSD")
IN_DOLLARS = {"base": "USD", "symbols": {"A": "EUR"}, "rates": {"EUR": "EURUSD"}}


def prices(seed: int = 3) -> list[tuple[float, Mapping[str, float]]]:
    found = simulate(3, 120.0, seed=seed, rate_hz=4.0)
    last = {SYMBOLS[i]: 100.0 for i in range(3)}
    out: list[tuple[float, Mapping[str, float]]] = []
    since_s = (found.time_ns - found.time_ns[0]) / SECOND
    for second in range(120):
        inside = (since_s >= second) & (since_s < second + 1)
        for i, price in zip(
            found.asset[inside].tolist(), found.price[inside].tolist(), strict=True
        ):
            last[SYMBOLS[i]] = price
        out.append((second + 0.5, dict(last)))
    return out


def matrices(rows: Sequence[tuple[float, Mapping[str, float]]], **changes: object) -> list[Matrix]:
    config = settings(SYMBOLS, **changes)
    log = [tick(symbol, at, row[symbol]) for at, row in rows for symbol in row]
    return Driver(config).run({T: log}, Random(1)).matrices


def test_they_are_the_matrices_of_converted_prices() -> None:
    rows = prices()
    converted = [(at, {**row, "A": row["A"] * row["EURUSD"]}) for at, row in rows]
    found = matrices(rows, universe__currency=IN_DOLLARS)
    expected = matrices(converted)
    assert len(found) == len(expected) > 50
    for mine, theirs in zip(found, expected, strict=True):
        # rounding of prices that were multiplied
        np.testing.assert_allclose(mine.corr, theirs.corr, rtol=0.0, atol=1e-9)
        np.testing.assert_allclose(mine.vol, theirs.vol, rtol=1e-9)
        np.testing.assert_allclose(mine.n_eff, theirs.n_eff, rtol=1e-12)
        # kurtosis alone is that of the prices as they are quoted
        np.testing.assert_allclose(mine.band, theirs.band, rtol=0.5)
        assert (mine.base_currency, theirs.base_currency) == ("USD", None)


def test_a_matrix_says_its_currency_on_the_wire_and_only_where_it_has_one() -> None:
    rows = prices()
    mine, theirs = matrices(rows, universe__currency=IN_DOLLARS)[-1], matrices(rows)[-1]
    assert decode(to_json(mine)).base_currency == "USD"
    assert b"base_currency" not in to_json(theirs)


def test_a_symbol_waits_for_its_rate() -> None:
    rows: list[tuple[float, Mapping[str, float]]] = [
        (at, {s: p for s, p in row.items() if s != "EURUSD" or at > 60.0}) for at, row in prices()
    ]
    found = matrices(rows, universe__currency=IN_DOLLARS)
    assert found[0].as_of_ns > START + 60 * SECOND  # of A and B alone one is in euros
    assert set(found[-1].symbols) == set(SYMBOLS)
    assert matrices(rows)[0].symbols == ("A", "B")


def test_forecasts_of_the_model_are_converted_as_what_is_known_of_the_day_is() -> None:
    dcc = {"bar": "1s", "window_bars": 40, "first_fit_bars": 20, "refit_bars": 0}
    currency = {"base": "USD", "symbols": {"A": "EUR"}, "rates": {"EUR": "1/C"}}
    both = []
    for own in (None, currency):
        run = dense_run("ABC", 25, universe__dcc=dcc, universe__currency=own)
        run.take(Step(installs=(made_up(1, "ABC"),)))
        read_dense(run, 25, 40)
        found = [decode(output.value) for output in run.outputs["correlations"]]
        both.append(([matrix for matrix in found if matrix.estimator == "dcc"], run))
    (quoted, _), (converted, run) = both
    assert len(quoted) == len(converted) > 10
    turn = currencies_of(run.universe)
    assert turn is not None
    for before, after in zip(quoted, converted, strict=True):
        corr, vol = turn.correlation(before.corr, before.vol)
        np.testing.assert_allclose(after.corr, corr, rtol=0.0, atol=1e-12)  # digits of JSON
        np.testing.assert_allclose(after.vol, vol, rtol=1e-12)
        off = ~np.eye(3, dtype=bool)
        assert (after.band[off] > 0.0).all()
        # of the pair that is not converted nothing changes
        assert abs(after.band[1, 2] - before.band[1, 2]) <= 1e-5
