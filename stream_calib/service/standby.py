"""One universe repeated while another process owns it, so that taking over takes no time."""

import asyncio
from collections import deque
from typing import Any

from stream_calib.errors import RecoveryError
from stream_calib.ports import JournalRecord
from stream_calib.service.kept import decode_journal, installed_fits, newest_snapshot
from stream_calib.service.recovery import Parts, new_repetition
from stream_calib.service.repetition import Allowed, InThread, Repetition
from stream_calib.values import Fit, JournalEntry

FOLLOW_S = 0.2  # between two looks, while the owner commits nothing
BEGIN_S = 2.0
FITS_S = 5.0  # a fit becomes visible with its entry, but not at the same instant


class Standby:
    """Repeats the journal of a universe as it grows; publishes nothing and owns nothing.

    After an error this object is of no use any more.

    Parameters
    ----------
    parts
        The universe; its source is started.
    in_thread
        Runs a function in the thread that computes.

    Attributes
    ----------
    parts
        What a takeover goes on with.
    repetition
        How far it has come; None until there is a state to begin with.
    """

    def __init__(self, parts: Parts, in_thread: InThread[Any]) -> None:
        self.parts = parts
        self.repetition: Repetition | None = None
        self._in_thread = in_thread
        self._name = parts.universe.name
        self._last: JournalEntry | None = None
        self._todo: deque[JournalEntry] = deque()

    async def follow(self, until: asyncio.Event) -> None:
        """Keep up until told to stop, which is heard between two entries.

        Raises
        ------
        RecoveryError
            There is no state to begin with, or it cannot be repeated: as a start would say it.
        TransportError
            The outside did not answer.
        """
        clock = asyncio.get_running_loop().time
        kept: list[JournalRecord] = []
        began_s = clock()
        while not until.is_set():
            if self.repetition is not None:
                await self._repeat(until)
            records = await self.parts.log.follow(FOLLOW_S)
            if self.repetition is not None:
                self._take(decode_journal(records, self._name, self._last))
                continue
            kept += records
            # an owner may commit without a pause
            if kept and (not records or clock() - began_s > BEGIN_S):
                await self._begin(decode_journal(kept, self._name))

    async def _begin(self, journal: dict[int, JournalEntry]) -> None:
        entries, store = list(journal.values()), self.parts.snapshots
        repetition = new_repetition(self.parts, Allowed(), self._in_thread)
        if store is not None:
            snapshot = await self._in_thread(
                lambda: newest_snapshot(store, self._name, entries, _pass_over)
            )
            if snapshot is not None:
                repetition.restore(snapshot)
        if repetition.number < 0 and entries[0].number != 0:
            raise RecoveryError(
                f"The journal of universe {self._name!r} begins at entry {entries[0].number}, and "
                "no snapshot that fits it can be read here"
            )
        self.repetition = repetition
        self._take(journal)

    def _take(self, journal: dict[int, JournalEntry]) -> None:
        for entry in journal.values():
            self._todo.append(entry)
            self._last = entry

    async def _repeat(self, until: asyncio.Event) -> None:
        repetition, last = self.repetition, self._last
        assert repetition is not None
        while self._todo and not until.is_set():
            entry = self._todo[0]
            if last is not None and entry.number > last.emitted:
                return  # its outputs may not be written: whoever owns next has to have them
            if entry.number > repetition.number:
                await repetition.repeat(entry, await self._fits(entry))
            self._todo.popleft()

    async def _fits(self, entry: JournalEntry) -> dict[str, Fit]:
        clock = asyncio.get_running_loop().time
        deadline_s = clock() + FITS_S
        while True:
            try:
                return await installed_fits([entry], self.parts.log, self._name)
            except RecoveryError:
                if clock() > deadline_s:
                    raise
            await asyncio.sleep(FOLLOW_S)


def _pass_over(_name: str, _reason: str) -> None:
    """Leave a snapshot that is no good to its owner."""
