"""A notebook without Kafka: recorded ticks through the whole engine, and what to do with it.

Run it cell by cell in an editor that knows ``# %%``, or as a whole: python examples/replay.py
"""

# %% The ticks and the settings

from pathlib import Path

import stream_calib as sc

HERE = Path(__file__).parent
TICKS = HERE.parent / "replay_data" / "demo_ticks.jsonl.zst"

config = sc.load_config(HERE / "demo.toml")
print(config.universe[0].symbols)

# %% Every matrix that the service would have published, ewma and dcc

matrices = list(sc.replay(TICKS, config))
ewma = [m for m in matrices if m.estimator == "ewma"]
last = ewma[-1]
print(f"{len(matrices)} matrices; the last is of {len(last.symbols)} symbols")

# %% As a DataFrame

banks = last.subset(["SIM:BANK1", "SIM:BANK2", "SIM:TECH3"])
print(banks.to_pandas().round(2))

# %% One pair, and how far it can be trusted

pair = last.pair("SIM:BANK1", "SIM:ENRG4")
print(f"{pair.corr:+.2f}, in [{pair.lower:+.2f}, {pair.upper:+.2f}] with 95 %")

# %% Beta, hedges and the risk of a portfolio, for the next hour

hedges = last.hedge_ratio("SIM:BANK1", ["SIM:BANK2", "SIM:TECH3"])
alone = last.portfolio_vol({"SIM:BANK1": 1.0}, "1h")
hedged = last.portfolio_vol({"SIM:BANK1": 1.0, **hedges}, "1h")
print(f"beta on BANK2 {last.beta('SIM:BANK1', 'SIM:BANK2'):.2f}")
print("hedges", {symbol: round(position, 2) for symbol, position in hedges.items()})
print(f"volatility of an hour {alone:.2%}, hedged {hedged:.2%}")

# %% How the regime broke in the middle

average = [m.regime.average_correlation for m in ewma]
before, after = average[int(0.4 * len(average))], average[-1]
print(f"average correlation {before:+.2f} before, {after:+.2f} after")
