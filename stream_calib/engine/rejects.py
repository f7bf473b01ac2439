"""Rejects of one source that wait for event time to pass them, capped per second of it."""

import hashlib
from bisect import insort
from collections.abc import Iterable
from typing import NamedTuple

from stream_calib.values import NO_TIME, REJECT_BYTES_MAX, SECOND_NS


class Original(NamedTuple):
    """A record's value cut to what is kept of it; length and SHA-256 are of the whole."""

    value: bytes | None
    length: int
    sha256: bytes

    @classmethod
    def of(cls, value: "bytes | Original | None") -> "Original":
        """Cut a value; what is cut already stays as it is."""
        if isinstance(value, Original):
            return value
        whole = b"" if value is None else value
        kept = None if value is None else whole[:REJECT_BYTES_MAX]
        return cls(kept, len(whole), hashlib.sha256(whole).digest())


class Waiting(NamedTuple):
    """A reject with its place: (time, offset, reason) among those of its source."""

    time_ns: int
    offset: int
    reason: str
    original: Original

    @property
    def place(self) -> tuple[int, int, str]:
        """What rejects of one source are ordered by.

        The reason decides between those of one record: in which order they came up depends on
        how the input was cut.
        """
        return self[:3]


class RejectQueue:
    """Of each second of event time, the first ``per_second`` rejects in their order.

    Which these are depends on the records of the source alone, neither on when they came nor
    on what other sources hold.

    Parameters
    ----------
    per_second
        Rejects kept per second of event time.

    Attributes
    ----------
    taken_second, taken
        The last second of which some were taken, NO_TIME before, and how many.
    """

    def __init__(self, per_second: int) -> None:
        self.taken_second = NO_TIME
        self.taken = 0
        self._per_second = per_second
        self._seconds: dict[int, list[Waiting]] = {}

    def add(self, time_ns: int, offset: int, reason: str, value: bytes | Original | None) -> bool:
        """Keep a reject; return whether one, this or another, had to make room for the cap."""
        second, place = time_ns // SECOND_NS, (time_ns, offset, reason)
        room = self._per_second - (self.taken if second == self.taken_second else 0)
        kept = self._seconds.get(second, [])
        in_order = not kept or place >= kept[-1][:3]
        if len(kept) >= room and in_order:
            return True
        reject = Waiting(time_ns, offset, reason, Original.of(value))
        if in_order:
            kept.append(reject)
        else:
            insort(kept, reject, key=_place)
        self._seconds[second] = kept
        if len(kept) > room:
            kept.pop()
            return True
        return False

    def take(self, before_ns: int) -> list[Waiting]:
        """Remove and return the rejects before a time, which never goes back, in order."""
        out: list[Waiting] = []
        for second in sorted(s for s in self._seconds if s * SECOND_NS < before_ns):
            waiting = self._seconds.pop(second)
            due = [reject for reject in waiting if reject.time_ns < before_ns]
            if len(due) < len(waiting):
                self._seconds[second] = waiting[len(due) :]
            if due:
                self.taken = len(due) + (self.taken if second == self.taken_second else 0)
                self.taken_second = second
                out += due
        return out

    def waiting(self) -> list[Waiting]:
        """Return all rejects that wait, in order."""
        return [reject for second in sorted(self._seconds) for reject in self._seconds[second]]

    def fill(self, waiting: Iterable[Waiting]) -> None:
        """Take back what ``waiting`` returned."""
        for reject in waiting:
            self.add(*reject)


def _place(reject: Waiting) -> tuple[int, int, str]:
    return reject.place
