"""Settings of the tick layer: windows, filter, calendars, the pattern of the day."""

import datetime
import re
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

from stream_calib.config.durations import UNITS_NS, PositiveNs

ReturnType = Literal["log", "simple", "diff"]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SESSION = re.compile(r"(\d\d):(\d\d)-(\d\d):(\d\d)")


class Section(BaseModel):
    """A part of the tree: frozen, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _clock(text: object) -> object:
    if isinstance(text, str) and re.fullmatch(r"\d\d:\d\d", text):
        return datetime.time.fromisoformat(text)
    return text


def _session(text: object) -> object:
    found = _SESSION.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return text
    return tuple(datetime.time.fromisoformat(part) for part in str(text).split("-"))


def _session_text(session: tuple[datetime.time, datetime.time]) -> str:
    return "-".join(f"{clock:%H:%M}" for clock in session)


ClockTime = Annotated[
    datetime.time, BeforeValidator(_clock), PlainSerializer(lambda clock: f"{clock:%H:%M}")
]
Session = Annotated[
    tuple[datetime.time, datetime.time], BeforeValidator(_session), PlainSerializer(_session_text)
]


class EwmaConfig(Section):
    """The exponentially weighted estimator.

    ``window`` is the length of the returns whose products are taken, at least a bar; ``winsor``
    is where a return is capped, in standard deviations, 0 for nowhere.
    """

    half_life: PositiveNs = UNITS_NS["m"] * 30
    window: PositiveNs = UNITS_NS["m"]
    winsor: float = 3.0

    @model_validator(mode="after")
    def _winsor_is_a_limit(self) -> "EwmaConfig":
        if self.winsor and not 2.0 <= self.winsor <= 10.0:
            message = f"winsor must be 0 for none, or from 2 to 10, not {self.winsor:g}"
            raise ValueError(message)
        return self

    def bars_per_window(self, bar_ns: int) -> int:
        """Bars in a window: one where the bar is as long."""
        return max(1, -(-self.window // bar_ns))


class FilterConfig(Section):
    """Which prints are held until the next one confirms them, and which quotes are too wide."""

    enabled: bool = True
    sigmas: Annotated[float, Field(ge=3.0)] = 8.0
    spread_max: Annotated[float, Field(ge=2.0)] = 50.0


class DiurnalConfig(Section):
    """The pattern of volatility within a session, from days gone by."""

    enabled: bool = False
    bin: PositiveNs = UNITS_NS["m"] * 5
    half_life_days: Annotated[float, Field(gt=0.0)] = 20.0


class CalendarConfig(Section):
    """Sessions of a market by its own clock, as "09:30-16:00" of a trade date."""

    zone: str = "UTC"
    days: Annotated[tuple[Day, ...], Field(min_length=1)] = DAYS[:5]
    sessions: Annotated[tuple[Session, ...], Field(min_length=1)]
    holidays: tuple[datetime.date, ...] = ()
    half_days: dict[datetime.date, ClockTime] = Field(default_factory=dict)
