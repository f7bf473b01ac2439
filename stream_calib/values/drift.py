"""What a drift detector says."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Alarm:
    """Correlations no longer follow the model that the detector was given.

    Attributes
    ----------
    alternative
        What it looks like: ``fusing``, ``loosening``, ``rotation``; or ``miscalibrated``, where a
        plain model predicts better than the one in force.
    row
        Rows seen since the reference was installed, at the alarm, from 1.
    since, since_min, since_max
        The change began about so many rows ago, at least 1, and within what interval.
    level
        The statistic over its threshold, at least 1.
    """

    alternative: str
    row: int
    since: int
    since_min: int
    since_max: int
    level: float


@dataclass(frozen=True, slots=True)
class DriftStatus:
    """How far the watch for drift is.

    Attributes
    ----------
    level
        The statistic over its threshold.
    arl0_bars
        Bars from one false alarm to the next, as asked for: exact for exchangeable scores.
    false_alarms_per_day
        The chance of at least one on a day without a break, open for 24 hours.
    power_bars
        Expected delay of an alarm when correlations fuse by 35 %; None: not within sight.
    reference_bars
        Bars that the present ones are compared with.
    watched_bars, alarms, refuted
        Bars and alarms by alternative since the beginning, and how many of these no model
        confirmed.
    """

    level: float
    arl0_bars: float
    false_alarms_per_day: float
    power_bars: float | None
    reference_bars: int
    watched_bars: int
    alarms: Mapping[str, int]
    refuted: int

    @property
    def bars_per_alarm(self) -> float | None:
        """Bars watched per alarm, true ones among them: false ones are rarer. None before any."""
        n_alarms = sum(self.alarms.values())
        return self.watched_bars / n_alarms if n_alarms else None
