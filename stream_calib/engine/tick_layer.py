"""From the ticks of bars that are complete to what is known about their correlations."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from stream_calib.config import Config, UniverseConfig
from stream_calib.config.sections import CALENDARS_MAX
from stream_calib.engine.arrays import Arrays, under, within
from stream_calib.engine.buffer import Taken, without_repeats
from stream_calib.engine.screening import Refused, Screen
from stream_calib.engine.trading_time import trading_clock
from stream_calib.estimation.audit import compare_correlations
from stream_calib.estimation.calendar import ALWAYS_OPEN, Calendar
from stream_calib.estimation.cleaning import repaired_band
from stream_calib.estimation.currency import currencies_of
from stream_calib.estimation.diurnal import Diurnal
from stream_calib.estimation.filtering import TickFilter
from stream_calib.estimation.hayashi_yoshida import LOG_PRICE_MAX, HayashiYoshida
from stream_calib.estimation.protocol import Layout
from stream_calib.estimation.quotes import QuoteTable
from stream_calib.estimation.sampling import Sampler, Ticks
from stream_calib.estimation.tracking import Tracking, band_total, choose_block_bars
from stream_calib.estimation.two_scale import TwoScale, TwoScaleCorrelation
from stream_calib.estimation.winsor import HALF_LIFE_MIN_OBS, Winsor
from stream_calib.values import F64, FACTOR, I64, NO_TIME, OFFSET, RESET, TICK, ReturnBlock

GAP_BARS_MIN = 10
UNITS_MAX = 1e50  # what no price is adjusted by in all
BAND_MAX = 1.0  # nothing within [-1, 1] has a larger standard error
JUMP_MIN = 0.2  # of a log price from one bar to the next
JUMP_UP, JUMP_DOWN = math.expm1(JUMP_MIN), math.expm1(-JUMP_MIN)
TRACKED_BLOCKS = 200.0  # half-life, in blocks, of what is known of how fast the truth moves
LAYOUTS: Mapping[str, Layout] = {
    "sampler": Sampler.LAYOUT,
    "ewma": TwoScale.LAYOUT,
    "audit": HayashiYoshida.LAYOUT._replace(
        by_symbol={**HayashiYoshida.LAYOUT.by_symbol, "units": np.array([[1.0], [0.0]])}
    ),
    **{f"screen.filter.{kind}": TickFilter.LAYOUT for kind in ("relative", "absolute")},
    **{f"screen.quotes.{kind}": QuoteTable.LAYOUT for kind in ("relative", "absolute")},
    "winsor": Winsor.LAYOUT,
    "tracking": Tracking.LAYOUT,
    **{f"diurnal.{g}": Diurnal.LAYOUT for g in range(CALENDARS_MAX)},
}
# what follows from the settings alone, as the number of symbols does
SETTINGS = (
    "layer.sampler.return_types",
    "layer.ewma.settings",
    "layer.ewma.group",
    "layer.audit.settings",
    "layer.winsor.settings",
    "layer.tracking.settings",
)
COMPARED = "layer.tracking.then"  # an earlier state of the estimator
WINDOWS = ("layer.ewma.windows", "layer.ewma.marks", "layer.ewma.position")


class Adjusted(NamedTuple):
    """A control record that took effect: which symbol, and what the event says about it."""

    time_ns: int
    asset: int
    details: Mapping[str, object]


class Jump(NamedTuple):
    """A price that was confirmed far from the one before: a split without its record, or news."""

    time_ns: int
    asset: int
    ratio: float


class Folded(NamedTuple):
    """What came of the ticks of some bars; ``first_ns`` is of the first one that was used.

    ``block`` are the returns without the pattern of the day, not capped.
    """

    block: ReturnBlock
    first_ns: int
    adjusted: list[Adjusted]
    refused: list[Refused]
    counts: Mapping[str, int]
    jumps: list[Jump]


class TickLayer:
    """Sampler, estimator and audit of one universe.

    Parameters
    ----------
    config, universe
        Settings; ``universe`` is one of ``config.universe``.
    """

    def __init__(self, config: Config, universe: UniverseConfig) -> None:
        n = len(universe.symbols)
        half_life, bar_ns = universe.ewma.half_life, universe.bar
        self.gap_bars = max(GAP_BARS_MIN, config.time.max_gap // bar_ns)
        types = tuple(universe.return_of(symbol) for symbol in universe.symbols)
        self._logs = np.array([type_ != "diff" for type_ in types])
        self._is_log = np.array([type_ == "log" for type_ in types])
        self._symbols = universe.symbols
        self._currencies = currencies_of(universe)
        self._screen = Screen(universe)
        self._sampler = Sampler(n, bar_ns, universe.stale_after_bars, types)
        self._clock = trading_clock(config, universe, self.gap_bars)
        k = universe.ewma.bars_per_window(bar_ns)
        self._winsor = (
            Winsor(n, max(HALF_LIFE_MIN_OBS, half_life / bar_ns / 4.0), universe.ewma.winsor)
            if universe.ewma.winsor
            else None
        )
        self._diurnal = [
            pattern_of_day(universe, calendar)
            for calendar in self._clock.calendars
            if universe.diurnal.enabled
        ]
        self._tracking = Tracking(
            n, half_life / bar_ns, choose_block_bars(half_life / bar_ns, k), TRACKED_BLOCKS
        )
        group = self._clock.group if len(self._clock.calendars) > 1 else None
        self._estimator = TwoScale(n, half_life / bar_ns, k, "time", group)
        self._audit = HayashiYoshida(n, float(half_life)) if universe.audit else None
        self._units = np.stack([np.ones(n), np.zeros(n)])  # by symbol: factor, offset since then
        self._has_sessions = any(calendar != ALWAYS_OPEN for calendar in self._clock.calendars)
        self._session = np.zeros(len(self._clock.calendars), dtype=np.int64)

    def elapsed(self, bars: I64, last_bar: int) -> F64:
        """Return the joint open time of each two calendars before each bar, in bars (k, g, g)."""
        before_ns = NO_TIME if last_bar < 0 else (last_bar + 1) * self._clock.bar_ns
        return self._clock.elapsed(before_ns, (bars + 1) * self._clock.bar_ns)

    def fold(self, ticks: Taken, bars: I64, elapsed: F64) -> Folded:
        """Take in the bars numbered ``bars``; ``elapsed`` is what ``elapsed`` returned for them."""
        n_ticks = len(ticks.price)
        if self._has_sessions:
            is_open = self._clock.open_mask(ticks.time_ns, ticks.asset)
            ticks = ticks.chosen(np.flatnonzero(is_open | (ticks.kind != TICK)))
        n_closed = n_ticks - len(ticks.price)
        n_open, ticks = len(ticks.price), without_repeats(ticks)
        self._sampler.duplicates += n_open - len(ticks.price)
        ticks, refused, counts = self._screen.take(ticks)
        counts["closed"] = n_closed
        adjusted = self._audit_ticks(ticks)
        block = self._sampler.sample(
            Ticks(ticks.time_ns, ticks.asset, ticks.price, ticks.ident, ticks.kind), bars, elapsed
        )
        block = self._clock.cut(block)
        jumps = self._jumps(block)
        for g, pattern in enumerate(self._diurnal):
            factor = np.where(self._clock.group == g, pattern.update(block), 1.0)
            block = replace(block, returns=block.returns / np.sqrt(factor))
        capped = block
        if self._winsor is not None:
            winsorised = self._winsor.transform(replace(block, elapsed_bars=_longest(elapsed)))
            capped = replace(block, returns=winsorised.returns)
        self._tracking.update(self._estimator, capped)
        used = ticks.time_ns[ticks.kind == TICK]
        first_ns = int(used[0]) if len(used) else NO_TIME
        return Folded(block, first_ns, adjusted, refused, counts, jumps)

    def _jumps(self, block: ReturnBlock) -> list[Jump]:
        # of returns that are shares of the price; of differences none is large in itself
        r = block.returns
        large = np.where(self._is_log, np.abs(r) >= JUMP_MIN, (r >= JUMP_UP) | (r <= JUMP_DOWN))
        return [
            Jump(int(block.time_ns[k]), i, _ratio(float(r[k, i]), log=bool(self._is_log[i])))
            for k, i in zip(*(at.tolist() for at in np.nonzero(large & self._logs)), strict=True)
        ]

    def correlation(self) -> TwoScaleCorrelation:
        """Return what is known by now of prices as they are quoted."""
        return self._estimator.correlation()

    def band(self, known: TwoScaleCorrelation, corr: F64, cut: tuple[Any, ...]) -> F64:
        """Return the standard errors of ``corr``, which is ``known`` at ``cut``, repaired."""
        if self._estimator.k == 1:
            band: F64 = (1.0 - corr * corr) * np.sqrt((1.0 + known.kappa) / known.n_eff[cut])
            return band
        sampling = np.minimum(known.band[cut], BAND_MAX)
        return np.minimum(repaired_band(sampling, known.corr[cut], corr), BAND_MAX)

    @property
    def two_scales(self) -> bool:
        """Whether variances are compared between windows and bars."""
        return self._estimator.k > 1

    def known(self, as_of_ns: int) -> tuple[TwoScaleCorrelation, F64]:
        """Return what is known in the base currency, if there is one, and the vol as quoted.

        Volatilities are those of this time of day, capped returns and all.
        """
        quoted = self._estimator.correlation()
        vol = quoted.vol if self._winsor is None else quoted.vol * self._winsor.vol_scale()
        vol = vol * self.pattern(as_of_ns)
        if self._currencies is None:
            return replace(quoted, vol=vol), vol
        return self._currencies.convert(quoted, vol), vol

    def pattern(self, as_of_ns: int) -> F64:
        """Return the volatility (n,) at this time of day in units of the day's."""
        scale = np.ones(len(self._clock.group))
        for g, pattern in enumerate(self._diurnal):
            factor = pattern.factor(np.array([as_of_ns]))[0]
            scale = scale * np.sqrt(np.where(self._clock.group == g, factor, 1.0))
        return scale

    def band_total(self, corr: F64, band: F64, cut: tuple[Any, ...]) -> F64 | None:
        """Return the standard errors with what the truth may have moved; None while not known."""
        error = self._tracking.tracking_error()
        if error is None:
            return None
        if self._currencies is not None:
            error = self._currencies.worst(error)
        return np.minimum(band_total(corr, band, error[cut]), BAND_MAX)

    def audit(self, corr: F64, places: I64, order: I64, vol: F64) -> Mapping[str, object] | None:
        """Compare correlations (m, m) of the symbols at ``places`` with those of the audit.

        It is taken to the base currency with ``vol`` (n,), as quoted. ``order`` (m,) is a
        canonical one.
        """
        if self._audit is None:
            return None
        other = self._audit.correlation()
        if self._currencies is not None:
            other, _ = self._currencies.correlation(other, vol)
        symbols = tuple(self._symbols[i] for i in places)
        found = compare_correlations(corr, other[np.ix_(places, places)], symbols, order)
        return None if found is None else {"estimator": "hayashi_yoshida", **found}

    def last_time_ns(self) -> I64:
        """Time of the last tick of each symbol."""
        return self._sampler.last_time_ns

    def take_duplicates(self) -> int:
        """Return how many ticks repeated their predecessor, and count anew."""
        duplicates, self._sampler.duplicates = self._sampler.duplicates, 0
        return duplicates

    def state(self) -> Arrays:
        """Return copies of all arrays that make up the state."""
        out = {**under("sampler", self._sampler.state()), **under("ewma", self._estimator.state())}
        out |= under("screen", self._screen.state())
        out |= under("tracking", self._tracking.state())
        if self._winsor is not None:
            out |= under("winsor", self._winsor.state())
        for g, pattern in enumerate(self._diurnal):
            out |= under(f"diurnal.{g}", pattern.state())
        if self._audit is not None:
            out |= under("audit", self._audit.state() | {"units": self._units.copy()})
        return out | {"session": self._session.copy()}

    @classmethod
    def from_state(
        cls, config: Config, universe: UniverseConfig, state: Mapping[str, npt.NDArray[Any]]
    ) -> Self:
        """Continue from what ``state`` returned under the same settings."""
        layer = cls(config, universe)
        layer._sampler = Sampler.from_state(within("sampler", state))
        layer._estimator = TwoScale.from_state(within("ewma", state))
        layer._screen = Screen.from_state(universe, within("screen", state))
        layer._tracking = Tracking.from_state(within("tracking", state))
        if layer._winsor is not None:
            layer._winsor = Winsor.from_state(within("winsor", state))
        layer._diurnal = [
            Diurnal.from_state(within(f"diurnal.{g}", state), pattern.calendar)
            for g, pattern in enumerate(layer._diurnal)
        ]
        if layer._audit is not None:
            layer._audit = HayashiYoshida.from_state(within("audit", state))
            layer._units[:] = state["audit.units"]
        layer._session[:] = state["session"]
        return layer

    def _audit_ticks(self, ticks: Taken) -> list[Adjusted]:
        adjusted = []
        start = 0
        controls = [(i, -1) for i in np.flatnonzero(ticks.kind != TICK).tolist()]
        for stop, group in sorted([*self._openings(ticks), *controls]):
            self._update_audit(ticks.rows(start, stop))
            start = stop
            time_ns = int(ticks.time_ns[stop])
            if group >= 0 and self._audit is not None:
                # overnight returns are none of the time that is estimated
                for asset in np.flatnonzero(self._clock.group == group).tolist():
                    self._audit.forget(asset, time_ns)
            elif group < 0:
                asset, kind, value = int(ticks.asset[stop]), ticks.kind[stop], ticks.price[stop]
                adjusted.append(self._adjust(time_ns, asset, kind, float(value)))
                start = stop + 1
        self._update_audit(ticks.rows(start, len(ticks.kind)))
        return adjusted

    def _openings(self, ticks: Taken) -> list[tuple[int, int]]:
        """Return the first tick of every session, and the group that it is of."""
        out: list[tuple[int, int]] = []
        for g, calendar in enumerate(self._clock.calendars):
            rows = np.flatnonzero((self._clock.group[ticks.asset] == g) & (ticks.kind == TICK))
            if calendar == ALWAYS_OPEN or not len(rows):
                continue
            session = calendar.session(ticks.time_ns[rows])
            begins = rows[np.diff(session, prepend=self._session[g]) != 0]
            self._session[g] = session[-1]
            out += [(row, g) for row in begins.tolist()]
        return out

    def _update_audit(self, ticks: Taken) -> None:
        if self._audit is None or not len(ticks.price):
            return
        factor, offset = self._units[:, ticks.asset]
        level = (ticks.price - offset) / factor
        logs = self._logs[ticks.asset]
        # below zero after a roll, or a difference of a size that is none
        usable = (np.abs(level) <= LOG_PRICE_MAX) & ~(logs & (level <= 0.0))
        level = np.log(level, out=level.copy(), where=logs & usable)
        self._audit.update(ticks.time_ns[usable], ticks.asset[usable], level[usable])

    def _adjust(self, time_ns: int, asset: int, kind: int, value: float) -> Adjusted:
        # the audit goes on in the units of its first price, in which nothing has to be redone
        with np.errstate(over="ignore", under="ignore"):
            if kind == FACTOR:
                self._units[:, asset] *= value
            elif kind == OFFSET:
                self._units[1, asset] += value
        factor, offset = self._units[:, asset]
        usable = 1.0 / UNITS_MAX < factor < UNITS_MAX and abs(offset) < UNITS_MAX
        if kind == RESET or not usable:
            self._units[:, asset] = 1.0, 0.0
            if self._audit is not None:
                self._audit.forget(asset, time_ns)
        names = {FACTOR: {"factor": value}, OFFSET: {"offset": value}}
        return Adjusted(time_ns, asset, names.get(kind, {"reset": True}))


def pattern_of_day(universe: UniverseConfig, calendar: Calendar) -> Diurnal:
    """Return the pattern of one calendar, smoothed over as many bins as its day has."""
    settings = universe.diurnal
    bins = -(-calendar.day_length_ns() // settings.bin)
    smooth = next(n for n in (7, 5, 1) if n <= bins)
    n = len(universe.symbols)
    return Diurnal(n, settings.bin, universe.bar, settings.half_life_days, calendar, smooth)


def _ratio(r: float, *, log: bool) -> float:
    return math.exp(min(r, 700.0)) if log else 1.0 + r


def _longest(elapsed: F64) -> F64:
    # of all calendars: the time in which anything was open
    longest: F64 = elapsed.max(axis=(1, 2))
    return longest
