"""What a drift detector says."""

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
