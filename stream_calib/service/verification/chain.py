"""Whether journal entries follow each other."""

from collections import deque
from typing import Any

from stream_calib.errors import InputError
from stream_calib.service.verification.findings import Book, Finding, Journal, Where
from stream_calib.values import JournalEntry, Source
from stream_calib.wire.journal import decode_entry

CHAINS = 10_000  # entries back, a process that did not know of the last ones may have gone on from


class Chain:
    """Follows the journal of one universe, one record after the other.

    Recovery ends at the first entry that does not fit; here what follows is looked at too: one
    that is damaged or foreign is told and left out, and the next has to follow those before it.

    Parameters
    ----------
    book
        Where findings go.
    journal
        What is counted.

    Attributes
    ----------
    after_gap
        Entries before the one that was added last are missing.
    """

    def __init__(self, book: Book, journal: Journal) -> None:
        self._book, self._journal = book, journal
        self.after_gap = False
        self._last: JournalEntry | None = None
        self._chains: deque[str] = deque(maxlen=CHAINS)
        self._positions: dict[Source, int] = {}
        self._sequences: dict[str, int] = {}

    def add(self, record: Any) -> JournalEntry | None:  # noqa: ANN401
        """Return the entry that a record holds, where it follows the last one."""
        where = Where(record.topic, record.partition, record.offset)
        try:
            entry = decode_entry(record.value or b"")
        except InputError as error:
            self._tell("undecodable", where, str(error))
            return None
        number = entry.number
        if entry.universe != self._journal.universe:
            self._tell("stranger", where, f"it is of universe {entry.universe!r}", number)
            return None
        last = self._last
        self.after_gap = False
        if last is not None and (number, entry.previous) != (last.number + 1, last.chain):
            if entry.emitted < number <= last.number and entry.previous in self._chains:
                return None  # written ahead by a process that was fenced; nothing was published
            if number <= last.number + 1:
                self._tell("journal_chain", where, f"it does not follow {last.number}", number)
                return None
            words = f"between {last.number} and {number} entries are missing"
            self._tell("journal_gap", where, words, last.number + 1, number - 1)
            self.after_gap = True
            self._positions.clear()
            self._sequences.clear()
        self._check(entry, where)
        self._last = entry
        self._chains.extend((entry.previous, entry.chain))
        journal = self._journal
        journal.first = number if journal.first is None else journal.first
        journal.last = number
        journal.entries += 1
        journal.write_ahead = entry.emitted < number
        return entry

    def _check(self, entry: JournalEntry, where: Where) -> None:
        for change in entry.changes:
            if change.kind == "genesis":
                self._positions.clear()
                self._sequences = {}
            elif change.kind == "retire":
                sources: Any = change.details.get("sources", ())
                for source in sources:
                    self._positions.pop(Source(*source), None)
        for move in entry.moves:
            for source in move.discovered:
                self._positions.pop(source, None)
            for r in move.ranges:
                before = self._positions.get(r.source, r.position_before)
                if before != r.position_before or r.position_after < r.position_before:
                    topic, partition = r.source
                    words = f"{topic}-{partition}: on from {r.position_before}, read up to {before}"
                    self._tell("positions", where, words, entry.number)
                self._positions[r.source] = r.position_after
        for name, (first, last) in entry.sequences.items():
            due = self._sequences.get(name, first - 1) + 1
            if first != due or last < first:
                words = f"{name} {first} to {last}, where {due} is due"
                self._tell("sequences", where, words, entry.number)
            self._sequences[name] = last

    def _tell(
        self, kind: str, where: Where, words: str, first: int | None = None, last: int | None = None
    ) -> None:
        last = first if last is None else last
        finding = Finding(kind, where, self._journal.universe, "journal", words, first, last)
        self._book.add(finding, self._journal)
