"""How correlations of real ticks move with the clock they are taken on, and what moves them.

A part is the ticks of some symbols over one stretch of trading; a study joins parts. Times are
seconds since the part began. Estimates come in blocks of ten minutes, so that a bootstrap can
draw blocks.
"""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from stream_calib.estimation.ewma import CORRELATION_CAP
from stream_calib.estimation.hayashi_yoshida import HayashiYoshida
from stream_calib.estimation.two_scale import StampedBlock, TwoScale
from stream_calib.kernels.two_scale import SPAN_MIN, VARIANCE_MIN
from stream_calib.values import F64, I64

DAY_S = 23_400  # 09:30 to 16:00
OPEN_S = 34_200
BLOCK_S = 600
WINDOWS_S = (1, 2, 5, 10, 20, 30, 60, 120, 180, 300, 600)
CHANGE_S = (60, 120, 180, 300)  # over these windows an estimate should stand still
LAGS_S = (0.1, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0)
DRAWS = 1000
SEED = 20131007
STRAY_LOOK = 31
STRAY_MAD = 10.0
STRAY_MIN = 0.0015  # log price
US_SYMBOLS = ("SPY", "BAC", "IBM", "AIG")
ANONYMOUS_SYMBOLS = ("AAA", "BBB", "ETF")
US_DAYS = ("20131007", "20131008")


class Series(NamedTuple):
    """Ticks of one symbol: ascending times in seconds, log prices."""

    time_s: F64
    log_price: F64


Part = Sequence[Series]


class Blocks(NamedTuple):
    """Two-scale sums by block: A and E (b, n, n), what noise takes (b, 4, n) of ``own``."""

    products: F64
    overlaps: F64
    own: F64

    def joined(self, weight: F64) -> tuple[F64, F64, F64]:
        """Covariance rate, variance rate and shared span, blocks counted as ``weight`` says.

        ``weight`` (..., b); the equations of ``read_windows``.
        """
        a, e, own = (np.tensordot(weight, column, 1) for column in self)
        noisy = own[..., 2, :] / own[..., 3, :]
        span = np.diagonal(e, axis1=-2, axis2=-1)
        square = np.diagonal(a, axis1=-2, axis2=-1)
        left = span - noisy * own[..., 1, :]
        raw = square / span
        clean = np.maximum((square - noisy * own[..., 0, :]) / left, VARIANCE_MIN * raw)
        return a / e, np.where(left < SPAN_MIN * span, raw, clean), e / _outer(np.sqrt(span))

    def correlation(self, weight: F64) -> F64:
        cov, variance, _ = self.joined(weight)
        corr = cov / _outer(np.sqrt(variance))
        return np.clip(corr, -CORRELATION_CAP, CORRELATION_CAP)


class LeadLag(NamedTuple):
    """Of one pair: where the contrast is largest, its two sides, and their difference.

    ``peak_s`` > 0: the first leads by so much. ``ratio`` is the sum of squared contrasts where
    the first leads over that where the second does. ``z`` is the difference of the two sides
    in standard errors over blocks.
    """

    peak_s: float
    ratio: float
    z: float


class PairStudy(NamedTuple):
    """Of one pair: estimates by ``WINDOWS_S``, what they are worth, what moves them.

    ``error`` is the bootstrap's standard error of ``two_scale``. ``change`` and
    ``change_previous`` are the largest differences within ``CHANGE_S``. ``off`` is the largest
    distance from the value at 300 s, in its standard errors; ``z`` the largest in standard
    errors of that distance itself. ``cov_ratio`` and ``vol_ratio`` (2,) are covariance and
    volatilities by windows of 60 s over those by 300 s; ``shared`` is the part of windows of
    60 s that the two have in common.
    """

    name: str
    previous: F64
    two_scale: F64
    error: F64
    hayashi_yoshida: F64
    all_ticks: float
    change: float
    change_previous: float
    off: float
    z: float
    cov_ratio: float
    vol_ratio: F64
    shared: float
    lead_lag: LeadLag

    @property
    def leads(self) -> bool:
        """Whether one leads the other, beyond two standard errors."""
        return abs(self.lead_lag.z) > 2.0


def study(
    parts: Sequence[Part], names: Sequence[str], lags_s: Sequence[float] = LAGS_S
) -> list[PairStudy]:
    """Study every pair of the symbols."""
    blocks = {w: two_scale_blocks(parts, w) for w in WINDOWS_S if w > 1}
    once = np.ones(len(blocks[60].products))
    weight = bootstrap_weights(len(once), SEED)
    found = {w: b.correlation(once) for w, b in blocks.items()}
    drawn = {w: b.correlation(weight) for w, b in blocks.items()}
    found[1] = previous_tick(parts, 1)  # with one bar per window there is one scale
    drawn[1] = np.full_like(drawn[60], np.nan)
    previous = np.array([previous_tick(parts, w) for w in WINDOWS_S])
    thinned = np.array([hayashi_yoshida(parts, w) for w in WINDOWS_S])
    all_ticks = hayashi_yoshida(parts)
    fine, coarse = blocks[60].joined(once), blocks[300].joined(once)
    vol_ratio = np.sqrt(fine[1] / coarse[1])
    at = [WINDOWS_S.index(w) for w in CHANGE_S]
    rows = []
    for i, j in itertools.combinations(range(len(names)), 2):
        values = np.array([found[w][i, j] for w in WINDOWS_S])
        draws = np.array([drawn[w][:, i, j] for w in WINDOWS_S])
        error = np.std(draws, axis=1)
        away = np.abs(values[at] - values[at[-1]])[:-1]
        rows.append(
            PairStudy(
                name=f"{names[i]}~{names[j]}",
                previous=previous[:, i, j],
                two_scale=values,
                error=error,
                hayashi_yoshida=thinned[:, i, j],
                all_ticks=float(all_ticks[i, j]),
                change=float(np.ptp(values[at])),
                change_previous=float(np.ptp(previous[at, i, j])),
                off=float(away.max() / error[at[-1]]),
                z=float((away / np.std(draws[at[:-1]] - draws[at[-1]], axis=1)).max()),
                cov_ratio=float(fine[0][i, j] / coarse[0][i, j]),
                vol_ratio=vol_ratio[[i, j]],
                shared=float(fine[2][i, j]),
                lead_lag=lead_lag([(part[i], part[j]) for part in parts], lags_s),
            )
        )
    return rows


def us_trades(folder: Path, day: str) -> list[Series]:
    """Read one day's trades of ``US_SYMBOLS``, without strays."""
    lean = folder / "ticks" / "lean" / "equity" / "usa" / "tick"
    return [_trades(lean / symbol.lower() / f"{day}_trade.zip") for symbol in US_SYMBOLS]


def us_mids(folder: Path) -> list[Series]:
    """Read the middle of the quotes at the end of each second of 7 October 2013.

    A quote stands until the next: seconds without a new one repeat the last.
    """
    second = folder / "ticks" / "lean" / "equity" / "usa" / "second"
    part = []
    for symbol in US_SYMBOLS:
        rows = pd.read_csv(second / symbol.lower() / "20131007_quote.zip", header=None)
        known_s = rows[0].to_numpy() / 1000.0 + 1.0 - OPEN_S
        mid = np.log((rows[4].to_numpy() + rows[9].to_numpy()) / 2e4)
        at_s = np.arange(1.0, DAY_S + 1.0)
        last = np.searchsorted(known_s, at_s, side="right") - 1
        part.append(Series(at_s - 1e-3, mid[last]))  # known within the second, not after it
    return part


def anonymous_trades(folder: Path) -> list[Series]:
    """Read the day of three symbols, AAA, BBB and ETF."""
    rows = pd.read_csv(folder / "ticks" / "R_sampleMultiTradeData_3sym.csv.gz")
    clock = pd.to_datetime(rows["ts_utc"], format="ISO8601") - pd.Timestamp("2014-09-17T09:30")
    time_s = np.asarray(clock.dt.total_seconds(), dtype=np.float64)
    part = []
    for symbol in ANONYMOUS_SYMBOLS:
        mine = (rows["SYMBOL"] == symbol).to_numpy()
        part.append(series(time_s[mine], rows["PRICE"].to_numpy()[mine]))
    return part


def series(time_s: F64, price: F64) -> Series:
    """Restrict to trading hours, drop strays, keep the last tick of each instant."""
    inside = (time_s >= 0.0) & (time_s < DAY_S)
    time_s, log_price = time_s[inside], np.log(price[inside])
    kept = ~is_stray(log_price)
    time_s, log_price = time_s[kept], log_price[kept]
    last = np.append(time_s[1:] != time_s[:-1], True)
    return Series(time_s[last], log_price[last])


def is_stray(log_price: F64) -> np.ndarray:
    """Mark ticks far from the median of those before: ten typical distances, and 15 bp."""
    before = pd.Series(log_price).rolling(STRAY_LOOK).median().shift(1).to_numpy()
    distance = np.nan_to_num(np.abs(log_price - before))
    far: np.ndarray = distance > max(STRAY_MIN, STRAY_MAD * float(np.median(distance)))
    return far


def bar_of(window_s: float) -> float:
    """Return the fine clock of a window: a tenth of it, between one and five seconds."""
    return float(np.clip(window_s // 10, 1.0, 5.0))


def sampled(part: Part, bar_s: float, day_s: float = DAY_S) -> StampedBlock:
    """Last ticks of bars: returns, bars spanned, ages."""
    m, n = round(day_s / bar_s), len(part)
    ends = bar_s * np.arange(1, m + 1)
    returns, exposure, age = np.full((m, n), np.nan), np.zeros((m, n)), np.full((m, n), np.nan)
    for i, (time_s, log_price) in enumerate(part):
        last = np.searchsorted(time_s, ends) - 1
        bars = np.flatnonzero(np.diff(last, prepend=-1) > 0)
        tick = last[bars]
        returns[bars[1:], i] = np.diff(log_price[tick])
        exposure[bars[1:], i] = np.diff(bars)
        age[bars, i] = (ends[bars] - time_s[tick]) / bar_s
    return StampedBlock(np.arange(m), returns, exposure, np.ones(m), age)


def two_scale_blocks(parts: Sequence[Part], window_s: int) -> Blocks:
    """Run each part through ``TwoScale`` and note what every block adds to the sums."""
    bar_s = bar_of(window_s)
    k, rows = round(window_s / bar_s), round(BLOCK_S / bar_s)
    sums, own = [], []
    for part in parts:
        two_scale = TwoScale(len(part), math.inf, k, "time")
        block = sampled(part, bar_s)
        before = two_scale.state()
        for start in range(0, len(block.returns), rows):
            two_scale.update(block.rows(start, start + rows))
            after = two_scale.state()
            sums.append(after["sums"] - before["sums"])
            own.append(after["own"] - before["own"])
            before = after
    n = len(parts[0])
    upper = np.triu_indices(n)
    squares = np.zeros((2, len(sums), n, n))
    for square, row in zip(squares, (0, 1), strict=True):
        square[:, upper[0], upper[1]] = square[:, upper[1], upper[0]] = np.array(sums)[:, row]
    return Blocks(squares[0], squares[1], np.array(own))


def previous_tick(parts: Sequence[Part], interval_s: int) -> F64:
    """Realised correlation of previous-tick returns on a regular grid."""
    grid = np.arange(0, DAY_S + 1, interval_s)
    returns = [
        np.array([np.diff(p[np.searchsorted(t, grid, "right").clip(1) - 1]) for t, p in part])
        for part in parts
    ]
    cov = sum(r @ r.T for r in returns)
    return np.asarray(cov / _outer(np.sqrt(np.diagonal(cov))))


def hayashi_yoshida(parts: Sequence[Part], interval_s: int | None = None) -> F64:
    """HY correlation of all ticks, or of the last tick of each interval, at its own time."""
    n = len(parts[0])
    cov, variance = np.zeros((n, n)), np.zeros(n)
    for part in parts:
        thin = part if interval_s is None else [_thinned(one, interval_s) for one in part]
        estimator = HayashiYoshida(n)
        estimator.update(*_merged(thin))
        cov += estimator.covariance()
        # variances that independent noise does not inflate, as in HayashiYoshida.correlation
        returns = [np.diff(one.log_price) for one in thin]
        variance += [r @ r + 2.0 * (r[1:] @ r[:-1]) for r in returns]
    corr = cov / _outer(np.sqrt(variance))
    np.fill_diagonal(corr, 1.0)
    return np.asarray(corr)


def lead_lag(parts: Sequence[tuple[Series, Series]], lags_s: Sequence[float] = LAGS_S) -> LeadLag:
    """Compare the covariances of one series with the other shifted back and forth.

    References
    ----------
    Hoffmann, Rosenbaum and Yoshida (2013), Estimation of the lead-lag parameter from
    non-synchronous data, Bernoulli 19(2), 426-461: the contrast |HY| over shifts and its
    largest place. Huth and Abergel (2014), High frequency lead/lag relationships, Journal of
    Empirical Finance 26, 41-58: the ratio of its two sides.
    """
    # ticks closer than the shortest lag say nothing about it and cost time
    parts = [(_thinned(one, lags_s[0]), _thinned(other, lags_s[0])) for one, other in parts]
    shifts = np.array(sorted({sign * lag for lag in (0.0, *lags_s) for sign in (1.0, -1.0)}))
    blocks = np.array(
        [
            np.concatenate([_covariance_blocks(one, other, shift) for one, other in parts])
            for shift in shifts
        ]
    )
    contrast = blocks.sum(axis=1)
    sides = [blocks[shifts > 0.0], blocks[shifts < 0.0]]
    apart = sides[0].sum(axis=0) - sides[1].sum(axis=0)
    squares = [float((side.sum(axis=1) ** 2).sum()) for side in sides]
    return LeadLag(
        float(shifts[np.abs(contrast).argmax()]),
        squares[0] / squares[1],
        float(apart.sum() / (apart.std() * math.sqrt(len(apart)))),
    )


def bootstrap_weights(blocks: int, seed: int) -> F64:
    """How often each block is drawn, in ``DRAWS`` draws of as many blocks as there are."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(blocks, np.full(blocks, 1.0 / blocks), DRAWS).astype(np.float64)


def _trades(path: Path) -> Series:
    rows = pd.read_csv(path, header=None, usecols=[0, 1])
    return series(rows[0].to_numpy() / 1000.0 - OPEN_S, rows[1].to_numpy() / 1e4)


def _outer(scale: F64) -> F64:
    return scale[..., :, None] * scale[..., None, :]


def _thinned(one: Series, interval_s: float) -> Series:
    bars = (one.time_s // interval_s).astype(np.int64)
    last = np.append(bars[1:] != bars[:-1], True)
    return Series(one.time_s[last], one.log_price[last])


def _merged(part: Part, shift_s: float = 0.0) -> tuple[I64, I64, F64]:
    # the last symbol's ticks come ``shift_s`` earlier; an hour more keeps all times positive
    times = [one.time_s + 3600.0 for one in part]
    times[-1] = times[-1] - shift_s
    time_ns = np.rint(np.concatenate(times) * 1e9).astype(np.int64)
    asset = np.repeat(np.arange(len(part)), [len(one.time_s) for one in part])
    order = np.argsort(time_ns, kind="stable")
    log_price = np.concatenate([one.log_price for one in part])
    return time_ns[order], asset[order], log_price[order]


def _covariance_blocks(one: Series, other: Series, shift_s: float) -> F64:
    rows = _merged((one, other), shift_s)
    cuts = np.searchsorted(rows[0], (3600 + BLOCK_S * np.arange(1, DAY_S // BLOCK_S)) * 10**9)
    estimator, known = HayashiYoshida(2), [0.0]
    for piece in zip(*(np.split(column, cuts) for column in rows), strict=True):
        estimator.update(*piece)
        known.append(float(estimator.covariance()[0, 1]))
    return np.diff(known)
