"""Returns of four real markets, and how a study walks through them."""

import gzip
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from stream_calib.config import Config
from stream_calib.service.replay import replay_effects
from stream_calib.values import F64, ReturnBlock

MINUTE_NS = 60_000_000_000
CRYPTO_FROM, CRYPTO_TO = "2021-04-26", "2021-05-21"  # after the exchange's maintenance


class Market(NamedTuple):
    """Returns of one market and how it is walked through.

    ``rows`` (t, n), NaN where not observed; a fit is made every ``every`` bars from the last
    ``window``, the first from ``first``; ``block`` bars are a week or an hour; ``crash`` is from
    and to, in UTC; ``half_lives`` are EWMAs beside the one that is chosen; ``pairs``: whether
    to fit by the composite likelihood too.
    """

    name: str
    symbols: tuple[str, ...]
    rows: ReturnBlock
    first: int
    window: int
    every: int
    block: int
    crash: tuple[str, str]
    half_lives: Mapping[str, float]
    pairs: bool

    def bars(self, start: int, stop: int) -> "Market":
        """Return the market cut to some of its bars."""
        return self._replace(rows=self.rows.rows(start, stop))


def markets(folder: Path) -> Iterator[Market]:
    """Read the four markets."""
    yield dow(folder)
    yield us_stocks(folder)
    yield currencies(folder)
    yield crypto(folder)


RISK_METRICS = {
    "EWMA .94": math.log(0.5) / math.log(0.94),
    "EWMA .97": math.log(0.5) / math.log(0.97),
}


def dow(folder: Path) -> Market:
    """30 Dow stocks, daily 1987 to 2009."""
    table = pd.read_csv(folder / "daily" / "R_dji30ret.csv.gz", index_col=0, parse_dates=True)
    crash = ("2008-09-01", "2009-02-04")
    return _daily("30 Dow stocks", table, table.to_numpy(np.float64), crash)


def us_stocks(folder: Path) -> Market:
    """20 US stocks, daily 1990 to 2022."""
    table = pd.read_csv(folder / "daily" / "skfolio_sp500_20.csv.gz", index_col=0, parse_dates=True)
    returns = table.transform(np.log).diff().iloc[1:]
    return _daily("20 US stocks", returns, returns.to_numpy(), ("2020-02-20", "2020-05-01"))


def currencies(folder: Path) -> Market:
    """23 currencies per euro, daily 2000 to 2012, with the krone's peg."""
    path = folder / "daily" / "R_stochvol_exrates_23fx_vs_EUR.csv.gz"
    returns = pd.read_csv(path, index_col=0, parse_dates=True).transform(np.log).diff().iloc[1:]
    return _daily("23 currencies", returns, returns.to_numpy(), ("2008-09-01", "2009-04-01"))


def crypto(folder: Path, start: str = CRYPTO_FROM, stop: str = CRYPTO_TO) -> Market:
    """40 pairs of coins, one minute, from when all are there to the day after the crash.

    The rows are those that the service keeps for its fits: through files, filter and sampling.
    """
    with tempfile.TemporaryDirectory() as own:
        path, symbols = crypto_ticks(folder, Path(own), start, stop)
        last = None
        for runner, _ in replay_effects([path], crypto_config(symbols, 1, 0), fitted=False):
            last = runner.engine
    window = last.window() if last is not None else None
    assert window is not None
    kept = window.arrays
    elapsed = kept["elapsed"]
    ages = np.cumsum(elapsed[::-1])[::-1] - elapsed
    time_ns = window.as_of_ns - MINUTE_NS * np.rint(ages).astype(np.int64)
    rows = ReturnBlock(time_ns, kept["returns"], kept["exposure"], elapsed)
    crash = ("2021-05-19T11:00", "2021-05-19T18:00")
    return Market(
        "40 crypto pairs",
        tuple(sorted(symbols)),
        rows,
        2000,
        2000,
        500,
        60,
        crash,
        {"EWMA 30": 30.0},
        pairs=True,
    )


def crypto_ticks(folder: Path, into: Path, start: str, stop: str) -> tuple[Path, tuple[str, ...]]:
    """Cut the table of one-minute closes; return the file and its symbols."""
    name = "binance_1m_close_40pairs_20210410_20210520.csv.gz"
    with gzip.open(folder / "bars" / name, "rt") as table:
        head, *lines = table.read().splitlines()
    from_ms, to_ms = (pd.Timestamp(text).value // 1_000_000 for text in (start, stop))
    kept = [line for line in lines if from_ms <= int(line.split(",", 1)[0]) < to_ms]
    path = into / "bars.csv"
    path.write_text("\n".join([head, *kept]) + "\n")
    return path, tuple(head.split(",")[1:])


def crypto_config(symbols: Sequence[str], first: int, every: int, window: int = 50_000) -> Config:
    """Settings of a service on these pairs; a matrix every minute where fits are made."""
    universe = {
        "name": "crypto",
        "symbols": list(symbols),
        "bar": "1m",
        "every": 1 if every else 1_000_000,
        "audit": False,
        "dcc": {
            "bar": "1m",
            "first_fit_bars": first if every else window,
            "window_bars": window,
            "refit_bars": every,
        },
    }
    return Config.model_validate({"universe": [universe]})


def _daily(name: str, table: pd.DataFrame, returns: F64, crash: tuple[str, str]) -> Market:
    returns = np.ascontiguousarray(returns)
    time_ns = np.asarray(table.index.as_unit("ns").asi8)  # type: ignore[attr-defined]
    seen = np.isfinite(returns).astype(np.float64)
    rows = ReturnBlock(time_ns, returns, seen, np.ones(len(returns)))
    names = tuple(str(symbol) for symbol in table)
    return Market(name, names, rows, 1000, 2000, 250, 5, crash, RISK_METRICS, pairs=True)
