"""How DCC forecasts the next bar of real markets, beside EWMA and a correlation that stands still.

Everything is as the service does it: a full fit by ``calibrate`` from the window so far, state
rebuilt from that window, then bar by bar ``GarchVolatility`` and ``Dcc`` until the next fit.
All models get the same standardised returns and forecast the same bars of the same symbols.

``python -m replay_data.draw_models`` writes what comes of it to ``replay_data/models.md``.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from stream_calib.engine.publisher import REPAIRED_MIN
from stream_calib.estimation.calibrated import dcc_params, garch_params
from stream_calib.estimation.calibration.dcc import fit_dcc
from stream_calib.estimation.calibration.model import calibrate
from stream_calib.estimation.cleaning import repair_correlation
from stream_calib.estimation.dcc import Dcc
from stream_calib.estimation.ewma import Ewma
from stream_calib.estimation.garch import GarchVolatility
from stream_calib.estimation.shrinkage import shrink_target
from stream_calib.values import (
    F64,
    DccParams,
    Fit,
    FitFailure,
    FitRequest,
    ReturnBlock,
    eigenvalue_floor,
)
from tests.estimation.model_markets import Market

GRID = (10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)  # half-lives of which the best is chosen
STORM_SHARE = 0.05  # of weeks, or hours: the most volatile ones
VOL_HALF_LIFE_BARS = 20.0
CAP = 3.0
LOG_2PI = math.log(2.0 * math.pi)


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

    def __init__(
        self,
        fit: Fit,
        window: ReturnBlock,
        half_lives: Sequence[float],
        *,
        pairs: bool = False,
    ) -> None:
        n = window.returns.shape[1]
        params = dcc_params(fit)
        self.fitted = np.isfinite(np.diagonal(params.target))
        self.volatility = GarchVolatility(n, VOL_HALF_LIFE_BARS, CAP)
        self.volatility.install(garch_params(fit))
        self.dcc = Dcc(params, n, float(fit.arrays["bars"][0]), clock="time")
        self.ewmas = [Ewma(n, half_life, clock="time") for half_life in half_lives]
        self._target = params.target
        self._pairs: Dcc | None = None
        self.z = self.update(window)
        if pairs:
            self._pairs = self._fitted_by_pairs()

    def _fitted_by_pairs(self) -> Dcc:
        """The same model of the same z, its a and b by the composite likelihood of pairs."""
        z = self.z[:, self.fitted]
        z = np.ascontiguousarray(z[np.isfinite(z).any(axis=1)])
        found = fit_dcc(z, likelihood="composite", target=partial(shrink_target, method="qis"))
        n = len(self.fitted)
        target = np.full((n, n), np.nan)
        target[np.ix_(self.fitted, self.fitted)] = found.target
        dcc = Dcc(DccParams(found.a, found.b, target), n, clock="time")
        dcc.update(self.z)
        return dcc

    def update(self, block: ReturnBlock) -> F64:
        """Take bars in; return them standardised, as the models see them."""
        z = self.volatility.standardise(block)
        self.dcc.update(z)
        if self._pairs is not None:
            self._pairs.update(z)
        # each return counts as one over its own deviation, whatever time it spans
        seen = np.where(np.isnan(z.returns), 0.0, 1.0)
        for ewma in self.ewmas:
            ewma.update(ReturnBlock(z.time_ns, z.returns, seen, z.elapsed_bars))
        return z.returns

    def correlations(self) -> list[F64]:
        """Return the forecasts for the next bar: DCC, constant, each EWMA, DCC by pairs."""
        cut = np.ix_(self.fitted, self.fitted)
        known = [self.dcc.correlation().corr, self._target]
        known += [ewma.correlation().corr for ewma in self.ewmas]
        known += [] if self._pairs is None else [self._pairs.correlation().corr]
        return [np.ascontiguousarray(corr[cut]) for corr in known]


def request(window: ReturnBlock, first: int, number: int = 1) -> FitRequest:
    """Ask for a fit as the service does under its defaults."""
    settings = {
        "model": "cdcc",
        "likelihood": "auto",
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
            models = Models(answer, window, half_lives, pairs=market.pairs)
        if models is None:
            continue
        for bar in range(at, min(t, at + market.every)):
            forecast, moved = step(models, rows.rows(bar, bar + 1))
            if forecast is not None:
                done.append(forecast)
                activity.append(moved)
                bars.append(bar)
    observed, log_score, qlike, portfolio, least = map(np.array, zip(*done, strict=True))
    names = ["DCC", "constant", f"EWMA {half_lives[0]:g}", *market.half_lives]
    names += ["DCC, pairs"] if market.pairs else []
    return Walk(
        market,
        tuple(names),
        half_lives[0],
        rows.time_ns[bars],
        observed,
        log_score,
        qlike,
        portfolio,
        least,
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
    repaired = repair_correlation(corr, eigenvalue_floor(len(corr)), None, REPAIRED_MIN)
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
