"""How DCC forecasts the next bar of real markets, beside EWMA and a correlation that stands still.

Everything is as the service does it: a full fit by ``calibrate`` from the window so far, state
rebuilt from that window, then bar by bar ``GarchVolatility`` and ``Dcc`` until the next fit.
All models get the same standardised returns and forecast the same bars of the same symbols.

``python -m replay_data.draw_models`` writes what comes of it to ``replay_data/models.md``.
"""

import gzip
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from stream_calib.config import Config
from stream_calib.estimation.calibrated import dcc_params, garch_params
from stream_calib.estimation.calibration.model import calibrate
from stream_calib.estimation.cleaning import repair_correlation
from stream_calib.estimation.dcc import Dcc
from stream_calib.estimation.ewma import Ewma
from stream_calib.estimation.garch import GarchVolatility
from stream_calib.service.replay import replay_effects
from stream_calib.values import F64, Fit, FitFailure, FitRequest, ReturnBlock, eigenvalue_floor

GRID = (10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)  # half-lives of which the best is chosen
STORM_SHARE = 0.05  # of weeks, or hours: the most volatile ones
VOL_HALF_LIFE_BARS = 20.0
CAP = 3.0
MINUTE_NS = 60_000_000_000
CRYPTO_FROM, CRYPTO_TO = "2021-04-26", "2021-05-21"  # after the exchange's maintenance
LOG_2PI = math.log(2.0 * math.pi)


class Market(NamedTuple):
    """Returns of one market and how it is walked through.

    ``rows`` (t, n), NaN where not observed; a fit is made every ``every`` bars from the last
    ``window``, the first from ``first``; ``block`` bars are a week or an hour; ``crash`` is from
    and to, in UTC; ``half_lives`` are EWMAs beside the one that is chosen.
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

    def bars(self, start: int, stop: int) -> "Market":
        """Return the market cut to some of its bars."""
        return self._replace(rows=self.rows.rows(start, stop))


class Forecasts(NamedTuple):
    """Of one bar: what each of the models said, and how it came out.

    ``log_score``, ``qlike`` (models, 2) raw and repaired, NaN where a raw matrix is not positive
    definite; ``portfolio`` and ``least`` (models,): the minimum-variance portfolio's return and
    the least eigenvalue of the raw matrix.
    """

    observed: int
    log_score: F64
    qlike: F64
    portfolio: F64
    least: F64


class Walk(NamedTuple):
    """A market walked through: forecasts of m bars by the models that are named.

    Arrays as in ``Forecasts`` with the bars in front; ``activity`` (m,) is the average absolute
    return, which marks storms; ``answers`` are the fits, with the bar each was made at.
    """

    market: Market
    models: tuple[str, ...]
    half_life: float
    time_ns: np.ndarray
    observed: np.ndarray
    log_score: F64
    qlike: F64
    portfolio: F64
    least: F64
    activity: F64
    answers: Sequence[tuple[int, Fit | FitFailure]]

    @property
    def floor(self) -> float:
        """Least eigenvalue of what is published."""
        return eigenvalue_floor(len(self.market.symbols))

    @property
    def crash(self) -> np.ndarray:
        """Which bars are in the crash that is named."""
        start, stop = (pd.Timestamp(text).value for text in self.market.crash)
        inside: np.ndarray = (self.time_ns >= start) & (self.time_ns < stop)
        return inside

    @property
    def storm(self) -> np.ndarray:
        """Which bars are in the most volatile weeks, or hours."""
        block = np.arange(len(self.activity)) // self.market.block
        level = np.bincount(block, self.activity) / np.bincount(block)
        stormy: np.ndarray = (level >= np.quantile(level, 1.0 - STORM_SHARE))[block]
        return stormy


class Models:
    """The models in force between two fits, rebuilt from the window of the last one."""

    def __init__(self, fit: Fit, window: ReturnBlock, half_lives: Sequence[float]) -> None:
        n = window.returns.shape[1]
        params = dcc_params(fit)
        self.fitted = np.isfinite(np.diagonal(params.target))
        self.volatility = GarchVolatility(n, VOL_HALF_LIFE_BARS, CAP)
        self.volatility.install(garch_params(fit))
        self.dcc = Dcc(params, n, float(fit.arrays["bars"][0]), clock="time")
        self.ewmas = [Ewma(n, half_life, clock="time") for half_life in half_lives]
        self._target = params.target
        self.z = self.update(window)

    def update(self, block: ReturnBlock) -> F64:
        """Take bars in; return them standardised, as the models see them."""
        z = self.volatility.standardise(block)
        self.dcc.update(z)
        # each return counts as one over its own deviation, whatever time it spans
        seen = np.where(np.isnan(z.returns), 0.0, 1.0)
        for ewma in self.ewmas:
            ewma.update(ReturnBlock(z.time_ns, z.returns, seen, z.elapsed_bars))
        return z.returns

    def correlations(self) -> list[F64]:
        """Return the forecasts for the next bar: DCC, constant, each EWMA."""
        cut = np.ix_(self.fitted, self.fitted)
        known = [self.dcc.correlation().corr, self._target]
        known += [ewma.correlation().corr for ewma in self.ewmas]
        return [np.ascontiguousarray(corr[cut]) for corr in known]


def request(window: ReturnBlock, first: int, number: int = 1) -> FitRequest:
    """Ask for a fit as the service does under its defaults."""
    settings = {
        "model": "cdcc",
        "leverage": False,
        "target": "qis",
        "winsor": CAP,
        "vol_half_life_bars": VOL_HALF_LIFE_BARS,
        "first_fit_bars": min(first, len(window.returns)),
        "pooled_below_bars": 1000,
        "from_ns": int(window.time_ns[0]),
    }
    arrays = {
        "returns": window.returns,
        "exposure": window.exposure,
        "elapsed": window.elapsed_bars,
    }
    return FitRequest("dcc", number, "schedule", int(window.time_ns[-1]), settings, arrays)


def walk(market: Market, grid: Sequence[float] = GRID) -> Walk:
    """Walk through a market from its first fit on; a fit that fails leaves the last in force."""
    rows, t = market.rows, len(market.rows.returns)
    answers: list[tuple[int, Fit | FitFailure]] = []
    models: Models | None = None
    half_lives: list[float] = []
    done: list[Forecasts] = []
    activity, bars = [], []
    for at in range(market.first, t, market.every):
        window = rows.rows(max(0, at - market.window), at)
        answer = calibrate(request(window, market.first, len(answers) + 1))
        answers.append((at, answer))
        if isinstance(answer, Fit):
            if models is None:
                chosen = best_half_life(Models(answer, window, ()), grid)
                half_lives = [chosen, *market.half_lives.values()]
            models = Models(answer, window, half_lives)
        if models is None:
            continue
        for bar in range(at, min(t, at + market.every)):
            forecast, moved = step(models, rows.rows(bar, bar + 1))
            if forecast is not None:
                done.append(forecast)
                activity.append(moved)
                bars.append(bar)
    columns = [np.array(column) for column in zip(*done, strict=True)]
    names = ("DCC", "constant", f"EWMA {half_lives[0]:g}", *market.half_lives)
    return Walk(
        market,
        names,
        half_lives[0],
        rows.time_ns[bars],
        *columns,  # type: ignore[arg-type]
        np.array(activity),
        answers,
    )


def step(models: Models, row: ReturnBlock) -> tuple[Forecasts | None, float]:
    """Forecast one bar by all models, score it, take it in; None if less than two are observed."""
    before = models.volatility.variance()[models.fitted]
    forecasts = models.correlations()
    capped = models.update(row)[0][models.fitted]
    own = np.flatnonzero(np.isfinite(capped))
    if len(own) < 2:
        return None, 0.0
    exposure = row.exposure[0][models.fitted]
    deviation = np.sqrt(exposure[own] * before[own])
    plain = row.returns[0][models.fitted][own] / deviation
    scored = [score(corr, own, plain, capped[own]) for corr in forecasts]
    log_score, qlike, portfolio, least = (np.array(column) for column in zip(*scored, strict=True))
    moved = float(np.mean(np.abs(row.returns[0][models.fitted][own])))
    return Forecasts(len(own), log_score, qlike, portfolio, least), moved


def score(
    corr: F64, own: np.ndarray, plain: F64, capped: F64
) -> tuple[tuple[float, float], tuple[float, float], float, float]:
    """Score one forecast on the symbols ``own`` that are observed.

        log score = -(n ln 2 pi + ln |R| + z' R^-1 z) / 2,   QLIKE = ln |R| + c' R^-1 c

    of ``plain`` z, as they came, without the ln of the deviations, which all models share; and
    of ``capped`` c, as the models see them. Raw, then repaired as it would be published.
    """
    repaired = repair_correlation(corr, eigenvalue_floor(len(corr)))
    least = repaired.min_eigenvalue if repaired.repair == 0.0 else _least(corr)
    cut = np.ix_(own, own)
    good = _scores(repaired.corr[cut], plain, capped)
    raw = good
    if repaired.repair > 0.0:
        raw = _scores(corr[cut], plain, capped)
    weight = np.linalg.solve(repaired.corr[cut], np.ones(len(own)))
    return (raw[0], good[0]), (raw[1], good[1]), float(capped @ weight / weight.sum()), least


def best_half_life(models: Models, grid: Sequence[float]) -> float:
    """Choose by QLIKE on the second half of the first window."""
    if len(grid) == 1:
        return grid[0]
    z = models.z[:, models.fitted]
    n, half = z.shape[1], len(z) // 2
    totals = []
    for half_life in grid:
        ewma = Ewma(n, half_life, clock="time")
        ewma.update(z[:half])
        total = 0.0
        for row in z[half:]:
            own = np.flatnonzero(np.isfinite(row))
            if len(own) >= 2:
                corr = ewma.correlation().corr
                total += score(corr, own, row[own], row[own])[1][1]
            ewma.update(row)
        totals.append(total)
    return grid[int(np.argmin(totals))]


def newey_west(difference: F64) -> tuple[float, float]:
    """Return the mean of a series and its t-statistic.

    Newey and West (1987), Econometrica 55, with Bartlett weights up to lag t^(1/3).
    """
    t = len(difference)
    mean = float(np.mean(difference))
    off = difference - mean
    lags = math.ceil(t ** (1.0 / 3.0))
    variance = float(off @ off) / t
    for lag in range(1, lags + 1):
        variance += 2.0 * (1.0 - lag / (lags + 1.0)) * float(off[lag:] @ off[:-lag]) / t
    return mean, mean / math.sqrt(max(variance, 1e-300) / t)


# markets


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
    returns = np.log(table).diff().iloc[1:]
    return _daily("20 US stocks", returns, returns.to_numpy(), ("2020-02-20", "2020-05-01"))


def currencies(folder: Path) -> Market:
    """23 currencies per euro, daily 2000 to 2012, with the krone's peg."""
    path = folder / "daily" / "R_stochvol_exrates_23fx_vs_EUR.csv.gz"
    returns = np.log(pd.read_csv(path, index_col=0, parse_dates=True)).diff().iloc[1:]
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
    return Market("40 crypto pairs", symbols, rows, 2000, 2000, 500, 60, crash, {"EWMA 30": 30.0})


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
    return Market(name, names, rows, 1000, 2000, 250, 5, crash, RISK_METRICS)


def _scores(corr: F64, plain: F64, capped: F64) -> tuple[float, float]:
    try:
        factor = np.linalg.cholesky(corr)
    except np.linalg.LinAlgError:
        return math.nan, math.nan
    white = np.linalg.solve(factor, np.array([plain, capped]).T)
    log_det = 2.0 * float(np.log(np.diagonal(factor)).sum())
    squares = (white * white).sum(axis=0)
    log_score = -0.5 * (len(plain) * LOG_2PI + log_det + float(squares[0]))
    return log_score, log_det + float(squares[1])


def _least(corr: F64) -> float:
    return float(np.linalg.eigvalsh(corr)[0])
