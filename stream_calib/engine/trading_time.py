"""Calendars of a universe as its settings name them."""

from collections.abc import Mapping

import numpy as np

from stream_calib.config import Config, UniverseConfig
from stream_calib.config.tick_layer import DAYS, CalendarConfig
from stream_calib.errors import ConfigError
from stream_calib.estimation.calendar import ALWAYS_OPEN, Calendar
from stream_calib.estimation.trading_clock import TradingClock


def check_calendars(config: Config) -> None:
    """Refuse calendars that cannot be, naming the key."""
    for name, settings in config.calendar.items():
        try:
            _calendar(settings)
        except ValueError as error:
            message = f"calendar.{name}: {error}"
            raise ConfigError(message) from None


def trading_clock(config: Config, universe: UniverseConfig, gap_max_bars: int) -> TradingClock:
    """Return the clock of a universe; symbols without a calendar are always open."""
    named = [universe.calendars.get(symbol, universe.calendar) for symbol in universe.symbols]
    names = sorted({name for name in named if name is not None})
    calendars = [_calendar(config.calendar[name]) for name in names]
    if None in named or not names:
        calendars.insert(0, ALWAYS_OPEN)
    place: Mapping[str | None, int] = {
        name: len(calendars) - len(names) + i for i, name in enumerate(names)
    }
    group = np.array([place.get(name, 0) for name in named], dtype=np.int64)
    return TradingClock(calendars, group, universe.bar, gap_max_bars)


def _calendar(settings: CalendarConfig) -> Calendar:
    return Calendar(
        settings.zone,
        frozenset(DAYS.index(day) for day in settings.days),
        settings.sessions,
        frozenset(settings.holidays),
        dict(settings.half_days),
    )
