"""What is found wrong in a log, and what was looked at."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

FINDINGS_KEPT = 1000  # of each kind; beyond, they are counted

KINDS = {
    "gap": "sequences that are missing between two that are there",
    "repeated": "a sequence that came once more, the same bytes",
    "conflict": "a sequence that came once more with other bytes",
    "torn": "a matrix of which a chunk is missing",
    "checksum": "a record whose bytes are not those that its checksum is of",
    "undecodable": "a record that is none of what the topic is for",
    "headers": "headers or key that say something else than the value",
    "order": "a time that goes back",
    "symbols": "symbols other than those that the universe was told to have",
    "matrix": "numbers that are no correlation matrix",
    "tombstone": "a record that deletes a key, which the service never writes",
    "stranger": "a record of another universe than the one its partition is for",
    "unclaimed": "a record that no journal entry is known to have published",
    "missing": "records that a journal entry says were published and that are not there",
    "digest": "records that are not those whose digest the journal entry has",
    "journal_gap": "journal entries that are missing",
    "journal_chain": "a journal entry that does not follow the one before",
    "positions": "a journal entry that does not read on where the last one ended",
    "sequences": "a journal entry that does not count on where the last one ended",
    "fit": "a fit that an entry installs and that is not on its topic, or damaged there",
    "open_transaction": "a transaction that hangs open: committed records behind it stay unseen",
}


class Where(NamedTuple):
    """A record; in a file ``partition`` is -1 and ``offset`` the line."""

    topic: str
    partition: int
    offset: int


@dataclass(slots=True)
class Finding:
    """One thing that is wrong.

    ``first`` and ``last`` are sequences, or entries of the journal, where it is about such.
    """

    kind: str
    where: Where
    universe: str
    name: str
    words: str
    first: int | None = None
    last: int | None = None


@dataclass(slots=True)
class Stretch:
    """What was read of one universe and estimator, or of another topic, in one partition."""

    topic: str
    partition: int
    universe: str
    name: str
    records: int = 0
    first: int | None = None
    last: int | None = None
    count: int = 0
    not_kept: int = 0
    as_of_ns: int | None = None
    findings: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Journal:
    """What the journal of one universe says, and how far it could be compared."""

    topic: str
    partition: int
    universe: str
    first: int | None = None
    last: int | None = None
    entries: int = 0
    equal: int = 0  # the digest of the records is the entry's
    not_kept: int = 0  # of entries whose records, or the place of whose records, are gone
    told: int = 0  # not compared, for what is wrong with their records was found already
    pending: int = 0  # written ahead: the records are still to come
    before: int = 0  # records of before the journal
    write_ahead: bool = False
    findings: Counter[str] = field(default_factory=Counter)


class Book:
    """Takes down findings; of one kind at most so many, so that memory is bounded."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.counts: Counter[str] = Counter()
        self.stretches: dict[tuple[str, int, str, str], Stretch] = {}
        self.journals: list[Journal] = []

    def stretch(self, topic: str, partition: int, universe: str, name: str) -> Stretch:
        """Return the one that is counted under this name."""
        key = topic, partition, universe, name
        if key not in self.stretches:
            self.stretches[key] = Stretch(*key)
        return self.stretches[key]

    def add(self, finding: Finding, of: Stretch | Journal) -> Finding:
        """Take one down."""
        assert finding.kind in KINDS
        self.counts[finding.kind] += 1
        of.findings[finding.kind] += 1
        if self.counts[finding.kind] <= FINDINGS_KEPT:
            self.findings.append(finding)
        return finding

    def change(self, finding: Finding, kind: str, of: Stretch | Journal) -> None:
        """Make another kind of one that was taken down."""
        for counts in (self.counts, of.findings):
            counts[finding.kind] -= 1
            counts[kind] += 1
        finding.kind = kind
