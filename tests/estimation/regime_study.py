"""The loop on real markets and on simulated paths, beside models that are refitted by schedule.

One fit by ``calibrate`` at the beginning, whose volatilities and dynamics all keep; what differs
is the target and when it moves. All get the same standardised returns and forecast the same bars,
so that a difference is one of correlations.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np

from stream_calib.estimation.calibrated import dcc_params, garch_params
from stream_calib.estimation.calibration.model import calibrate
from stream_calib.estimation.calibration.tilting import part_of, scaled_news
from stream_calib.estimation.dcc import Dcc
from stream_calib.estimation.drift import DriftDetector
from stream_calib.estimation.ewma import Ewma
from stream_calib.estimation.garch import GarchVolatility
from stream_calib.estimation.shrinkage import shrink_target
from stream_calib.values import F64, DccParams, Fit, ReturnBlock
from tests.estimation.loops import Happened, Loop, LoopSettings, Watch
from tests.estimation.model_markets import Market
from tests.estimation.model_study import CAP, VOL_HALF_LIFE_BARS, request, score

EWMA_BARS = 160.0  # half-life: the least of those that were best in models.md
DRAWS = 1000  # of the bootstrap


class Rival(Protocol):
    """Forecasts the next row and takes it in."""

    def corr(self) -> F64:
        """Return the forecast (n, n)."""
        ...

    def update(self, z: F64) -> None:
        """Take a row in."""
        ...


class Scheduled:
    """A DCC whose target is estimated anew from the last rows, every so many rows; 0: never.

    The state goes on from the rows of the window, as after a refit of the service.
    """

    def __init__(self, params: DccParams, rows: F64, every: int, window: int) -> None:
        self._every, self._count = every, 0
        self._rows: deque[F64] = deque(rows, maxlen=window)
        self._params = params
        self._dcc = Dcc(params, len(params.target), clock="time")
        self._dcc.update(rows)

    def corr(self) -> F64:
        """Return the forecast."""
        return self._dcc.correlation().corr

    def update(self, z: F64) -> None:
        """Take a row in; refit when it is time."""
        self._rows.append(z)
        self._count += 1
        if not self._every or self._count % self._every:
            self._dcc.update(z[None, :])
            return
        rows = np.array(self._rows)
        news = scaled_news(rows, self._params)
        try:
            target = shrink_target(news[np.isfinite(news).any(axis=1)], "qis")
        except ValueError:  # a symbol that did not move in all the window
            self._dcc.update(z[None, :])
            return
        self._params = replace(self._params, target=target)
        self._dcc = Dcc(self._params, len(target), clock="time")
        self._dcc.update(rows)


class Weighted:
    """An EWMA of the same rows."""

    def __init__(self, rows: F64, half_life: float) -> None:
        self._ewma = Ewma(rows.shape[1], half_life)
        self._ewma.update(rows)

    def corr(self) -> F64:
        """Return the forecast."""
        return self._ewma.correlation().corr

    def update(self, z: F64) -> None:
        """Take a row in."""
        self._ewma.update(z[None, :])


class Watched:
    """The loop, its alarms from a detector that begins after the window, as in the service."""

    def __init__(self, params: DccParams, rows: F64, arl0: float, inflation: F64 | None) -> None:
        self.loop = Loop(params, LoopSettings(), clock="time")
        self.watch = Watch(self.loop, arl0, inflation)
        self.loop.serving.update(rows)

    def corr(self) -> F64:
        """Return the forecast."""
        return self.loop.corr()

    def update(self, z: F64) -> None:
        """Take a row in."""
        self.loop.update(z, self.watch(self.loop.row, z))


class Compared(NamedTuple):
    """Scores (m, models) of m bars, the loop first, and what the loop did.

    ``portfolio`` are the minimum-variance portfolios' returns; ``happened`` counts rows from 1,
    ``time_ns`` is that of every row, ``bars`` are the rows that were scored.
    """

    models: tuple[str, ...]
    symbols: int
    log_score: F64
    portfolio: F64
    time_ns: np.ndarray
    bars: np.ndarray
    happened: Sequence[Happened]
    named: Sequence[tuple[int, str]]


def compare(market: Market, arl0: float, schedule: dict[str, int]) -> Compared:
    """Walk through a market: one fit from the first window, then bar by bar to the end."""
    rows, first = market.rows, market.first
    answer = calibrate(request(rows.rows(0, first), first))
    assert isinstance(answer, Fit), answer
    params = dcc_params(answer)
    known = np.flatnonzero(np.isfinite(np.diagonal(params.target)))
    params = part_of(params, known)
    n = rows.returns.shape[1]
    volatility = GarchVolatility(n, VOL_HALF_LIFE_BARS, CAP)
    volatility.install(garch_params(answer))
    window = volatility.standardise(rows.rows(0, first)).returns[:, known]
    window = np.ascontiguousarray(window)
    watched = Watched(params, window, arl0, answer.arrays["dependence"])
    rivals = _rivals(params, window, market.window, schedule)
    found, bars = [], []
    for bar in range(first, len(rows.returns)):
        row = rows.rows(bar, bar + 1)
        capped, plain = _standardised(volatility, row, known)
        own = np.flatnonzero(np.isfinite(capped))
        models: list[Rival] = [watched, *rivals.values()]
        if len(own) >= 2:
            scored = [score(model.corr(), own, plain[own], capped[own]) for model in models]
            found.append([(log_score[1], portfolio) for log_score, _, portfolio, _ in scored])
            bars.append(bar)
        for model in models:
            model.update(capped)
    scores = np.array(found)
    named = [(t + 1, alarm.alternative) for t, alarm in watched.watch.alarms]
    names = ("loop", *rivals)
    return Compared(
        names,
        len(known),
        scores[:, :, 0],
        scores[:, :, 1],
        rows.time_ns[first:],
        np.array(bars) - first,
        watched.loop.happened,
        named,
    )


def _standardised(
    volatility: GarchVolatility, row: ReturnBlock, known: np.ndarray
) -> tuple[F64, F64]:
    before = volatility.variance()[known]
    capped: F64 = np.ascontiguousarray(volatility.standardise(row).returns[0][known])
    with np.errstate(invalid="ignore", divide="ignore"):
        plain: F64 = row.returns[0][known] / np.sqrt(row.exposure[0][known] * before)
    return capped, plain


def _rivals(
    params: DccParams, window: F64, length: int, schedule: dict[str, int]
) -> dict[str, Rival]:
    out: dict[str, Rival] = {
        name: Scheduled(params, window, every, length) for name, every in schedule.items()
    }
    out[f"EWMA {EWMA_BARS:g}"] = Weighted(window, EWMA_BARS)
    return out


def simulated(
    draw: Callable[[int], tuple[DccParams, F64, F64]], paths: int, schedule: dict[str, int]
) -> tuple[tuple[str, ...], F64]:
    """Compare on simulated paths: params, rows of the window and those that follow.

    Returns the names of the models and the mean log score of each on each path.
    """
    means: list[F64] = []
    names: tuple[str, ...] = ()
    for path in range(paths):
        params, window, z = draw(path)
        before = DriftDetector(params, len(params.target), arl0=np.inf)
        before.update(window)
        watched = Watched(params, window, 5000.0, before.dependence())
        rivals = _rivals(params, window, len(window), schedule)
        models: list[Rival] = [watched, *rivals.values()]
        names = ("loop", *rivals)
        own, total = np.arange(z.shape[1]), np.zeros(len(models))
        for row in z:
            total += [score(model.corr(), own, row, row)[0][1] for model in models]
            for model in models:
                model.update(row)
        means.append(total / len(z))
    return names, np.array(means)


def interval(differences: F64, block: int, seed: int = 0) -> tuple[float, float, float]:
    """Return the mean of a series and its 95 % interval by a bootstrap of moving blocks.

    Kuensch (1989), Annals of Statistics 17; whole blocks round the circle, so that the ends
    count like the middle.
    """
    t = len(differences)
    rng = np.random.Generator(np.random.Philox(key=seed))
    sums = np.cumsum(np.concatenate([[0.0], differences, differences[: block - 1]]))
    blocks = (sums[block:] - sums[:-block]) / block
    picked = rng.integers(0, t, (DRAWS, math.ceil(t / block)))
    means = blocks[picked].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(np.mean(differences)), float(low), float(high)
