"""Where a subscriber begins: now, at the beginning, at a sequence, at a time."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol, Self

from stream_calib.errors import InputError
from stream_calib.wire.cloudevents import rfc3339

Reset = Literal["latest", "earliest"]
Given = Reset | int | datetime
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Placed(Protocol):
    """What has a place in the order of matrices."""

    @property
    def sequence(self) -> int:
        """Number of its matrix."""

    @property
    def as_of_ns(self) -> int:
        """Event time of its matrix."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where to begin: ``first`` is a sequence, ``since_ns`` an event time; at most one of them."""

    reset: Reset = "earliest"
    first: int | None = None
    since_ns: int | None = None

    @classmethod
    def of(cls, given: Given, universe: str | None) -> Self:
        """Understand what a caller gave.

        Raises
        ------
        InputError
            It is a sequence and no ``universe`` is named, a time without a zone, or neither.
        """
        if given in {"latest", "earliest"}:
            return cls(reset=given)  # type: ignore[arg-type]
        if isinstance(given, datetime):
            return cls(since_ns=time_ns_of(given))
        if isinstance(given, bool) or not isinstance(given, int):
            message = f"start is 'latest', 'earliest', a sequence or a time, not {given!r}"
            raise InputError(message)
        if universe is None:
            message = f"universe has to be given to start from sequence {given}"
            raise InputError(message)
        return cls(first=max(given, 1))  # the first matrix ever is 1

    @property
    def is_searched(self) -> bool:
        """Whether the place has to be looked for in the log."""
        return self.first is not None or self.since_ns is not None

    def is_after(self, placed: Placed) -> bool:
        """Tell whether a matrix comes before the start."""
        if self.first is not None:
            return placed.sequence < self.first
        return self.since_ns is not None and placed.as_of_ns < self.since_ns

    def __str__(self) -> str:
        if self.first is not None:
            return f"sequence {self.first}"
        return self.reset if self.since_ns is None else rfc3339(self.since_ns)


ANYWHERE = Start()


def time_ns_of(moment: datetime) -> int:
    """Return a time in nanoseconds; a Timestamp of pandas keeps all its digits.

    Raises
    ------
    InputError
        It has no zone.
    """
    if moment.tzinfo is None:
        message = f"the time {moment} has no zone: write {moment.isoformat()}+00:00 for UTC"
        raise InputError(message)
    nanosecond: int = getattr(moment, "nanosecond", 0)  # pandas
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000 + nanosecond
