"""A topic read ahead a little, each record judged as it comes into sight."""

from collections import deque
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from stream_calib.service.verification.streams import Placed, Stream


class Seen(NamedTuple):
    """A record with what it is; ``is_told`` when something was found wrong with it."""

    record: Any
    placed: Placed | None
    is_told: bool


class Cursor:
    """The records of one topic in their order; each is judged as it comes into sight.

    Parameters
    ----------
    records
        Committed records.
    stream
        Judges them.
    """

    def __init__(self, records: AsyncIterator[Any], stream: Stream) -> None:
        self._records, self._stream = records, stream
        self._ahead: deque[Seen] = deque()
        self._is_at_end = False

    async def look(self, n: int) -> int:
        """Bring ``n`` records into sight, and return how many are."""
        while len(self._ahead) < n and not self._is_at_end:
            record = await anext(self._records, None)
            if record is None:
                self._is_at_end = True
                self._stream.finish()
            else:
                placed = self._stream.add(record)
                self._ahead.append(Seen(record, placed, self._stream.n_found > 0))
        return len(self._ahead)

    async def peek(self) -> Seen | None:
        """Return the next record, None at the end."""
        return self._ahead[0] if await self.look(1) else None

    def ahead(self, i: int) -> Seen:
        """Return one that is in sight."""
        return self._ahead[i]

    def has_excused(self, name: str) -> bool:
        """Tell whether sequences of this name were missing for a reason that is none."""
        return self._stream.has_excused(name)

    def pop(self) -> Seen:
        """Take the next record, which is in sight."""
        return self._ahead.popleft()
