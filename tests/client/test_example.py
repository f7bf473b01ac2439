"""The notebook-style example runs, and what it shows is so."""

import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import stream_calib as sc
from tests.real_parts import ROOT


def test_the_example_runs_and_shows_the_break(capsys: pytest.CaptureFixture[str]) -> None:
    cells = runpy.run_path(str(ROOT / "examples" / "replay.py"))
    said = capsys.readouterr().out
    # what README says of the demo: +0.24 before, +0.74 after are true
    assert cells["before"] == pytest.approx(0.24, abs=0.1)
    assert cells["after"] == pytest.approx(0.74, abs=0.1)
    assert cells["hedged"] < cells["alone"]
    assert cells["pair"].lower < cells["pair"].corr < cells["pair"].upper
    assert len(cells["last"].symbols) == 12
    assert {m.estimator for m in cells["matrices"]} == {"ewma", "dcc"}
    assert all(isinstance(m, sc.Matrix) for m in cells["matrices"])
    assert "SIM:TECH3" in said


REAL = """
[[universe]]
name = "coins"
symbols = [{symbols}]
bar = "5m"
every = 288
[universe.ewma]
half_life = "2d"
window = "5m"
[universe.dcc]
enabled = false
"""


@pytest.mark.full
def test_on_real_coins_hedges_take_away_the_risk_that_they_say(
    market_data: Path, tmp_path: Path
) -> None:
    path = market_data / "bars" / "binance_5m_close_16pairs_20201201_20210717.csv.gz"
    names = ["ETH_USDT", "BTC_USDT", "LTC_USDT", "BCH_USDT"]
    closes = pd.read_csv(path, index_col=0, nrows=17_280)[names]  # 60 days
    closes.to_csv(tmp_path / "closes.csv")
    settings = tmp_path / "coins.toml"
    settings.write_text(REAL.format(symbols=", ".join(f'"{name}"' for name in names)))
    returns = closes.apply(np.log).diff()
    off, said, found = [], [], []
    for m in sc.replay(tmp_path / "closes.csv", settings):
        # a bar is stamped with its beginning: what the matrix does not know yet starts there
        begin_ms = m.as_of_ns // 10**6
        after = returns.loc[begin_ms + 1 : begin_ms + 86_400_000]
        if m.symbols != tuple(names) or len(after) < 200:
            continue
        weights = {"ETH_USDT": 1.0, **m.hedge_ratio("ETH_USDT", names[1:])}
        hedged = (after * pd.Series(weights)).sum(axis=1)
        off.append(hedged.std() / m.portfolio_vol(weights))
        said.append(m.portfolio_vol(weights) / m.portfolio_vol({"ETH_USDT": 1.0}))
        found.append(hedged.std() / after["ETH_USDT"].std())
    assert len(off) > 50
    # volatility moves from day to day by tens of percent, on which a hedge has no say
    assert 0.8 < np.median(off) < 1.2
    # what share of it is left does not: a day of 288 bars tells it within 6 %
    assert np.median(found) == pytest.approx(np.median(said), rel=0.1)
    assert np.median(found) < 0.7
