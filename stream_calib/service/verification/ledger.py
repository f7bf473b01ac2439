"""Which records a journal entry published, found again in the topics, and whether they are those.

An entry says which sequences it published and how many records in all, and has a digest over
every one of them, topic by topic. Matrices and events are found by their sequences. Rejects,
calibrations and descriptions have none: of them as many have to come next as are left, and how
many of each is what makes the digest equal. A digest of 128 bits that is equal leaves no doubt.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from stream_calib.service.verification.cursor import Cursor, Seen
from stream_calib.service.verification.findings import Book, Finding, Journal, Where
from stream_calib.service.verification.streams import Placed
from stream_calib.values import JournalEntry
from stream_calib.wire.journal import TopicDigest, digest_topics

AHEAD = 64  # records among which those of an entry are looked for behind foreign ones
FEW = 16  # calibrations and descriptions of one entry
SKIPPED = 8  # foreign records that are looked behind, beyond those of entries that differ
SKIPPED_MOST = 2000
TELLS_ABSENCE = {"gap", "torn", "checksum", "undecodable"}
NUMBERED, UNNUMBERED = ("correlations", "events"), ("rejects", "calibrations", "universes")


class Absent(NamedTuple):
    """Sequences of an entry that are not where they should be; ``begins``: none came before."""

    role: str
    name: str
    first: int
    last: int
    begins: bool = False


class Taken(NamedTuple):
    """What of one topic belongs to an entry: digest, number, and what is absent."""

    digest: bytes | None
    n: int
    is_told: bool
    absent: list[Absent]
    newest: bytes  # time as text, which sorts as time does


class _Lacking(NamedTuple):
    where: Where
    number: int
    absent: list[Absent]


class Ledger:
    """Compares entries with the records of one universe.

    Parameters
    ----------
    book, journal
        Where findings and counts go.
    cursors
        By role, those topics that there are.
    may_be_gone
        Tells of a role whether the broker may have dropped records that were written at a time
        (ms), or reading began behind them.
    is_whole
        Topics and journal are read from their first record, and none of them was ever cut.
    """

    def __init__(
        self,
        book: Book,
        journal: Journal,
        cursors: Mapping[str, Cursor],
        may_be_gone: Callable[[str, int], bool],
        *,
        is_whole: bool,
    ) -> None:
        self._book, self._journal, self._cursors = book, journal, cursors
        self._may_be_gone = may_be_gone
        self._is_whole = self._is_placed = is_whole
        self._done: dict[str, int] = {}
        self._firsts: set[str] = set()  # names of which an entry has a record
        self._claimed: set[str] = set()  # roles of which one has
        self._loose: set[str] = set()  # names of which records of missing entries may come
        self._slack = Counter[str]()  # by role, records of entries that could not be compared
        self._left: dict[tuple[str, int], Where] = {}
        self._lacking: list[_Lacking] = []
        self._is_undescribed = True  # an entry with matrices may tell what the universe is
        self._doubtful: Finding | None = None

    async def compare(
        self, entry: JournalEntry, where: Where, written_ms: int, *, after_gap: bool
    ) -> None:
        """Find the records of the next entry, which was written at that time.

        With ``after_gap`` entries before it are missing, and with them what they published.
        """
        if self._doubtful is not None:  # now it is said that they were published
            self._book.add(self._doubtful, self._journal)
            self._doubtful = None
        if self._journal.entries == 1 and entry.number > 0:
            self._is_whole = self._is_placed = False
        has_matrices = any(name != "events" for name in entry.sequences)
        describes = has_matrices and (self._is_undescribed or bool(entry.changes))
        self._is_undescribed = (self._is_undescribed or bool(entry.changes)) and not has_matrices
        if after_gap:
            self._loose |= {*self._firsts, *entry.sequences}
            self._slack.update(dict.fromkeys(UNNUMBERED, SKIPPED_MOST))
        taken = [await self._take(role, entry) for role in NUMBERED]
        absent = [piece for t in taken for piece in t.absent]
        rest = entry.n_outputs - sum(t.n for t in taken)
        digests = {
            self._topic(role): t.digest
            for role, t in zip(NUMBERED, taken, strict=True)
            if t.digest is not None
        }
        if not absent and rest >= 0 and await self._match(entry, digests, rest):
            self._journal.equal += 1
            return
        is_told = any(t.is_told for t in taken) or await self._is_one_told(max(rest, 0))
        self._slack.update(dict.fromkeys(UNNUMBERED, max(rest, 0)))
        if not absent:
            if is_told:
                self._journal.told += 1
            else:
                gone = describes and self._may_be_gone("universes", written_ms)
                gone = gone and await self._is_described_later(taken[0].newest)
                self._judge_other(entry, where, rest, gone=gone)
        elif any(self._is_excused(piece, written_ms) for piece in absent):
            self._journal.not_kept += 1
        elif len(self._lacking) < SKIPPED_MOST:
            self._lacking.append(_Lacking(where, entry.number, absent))

    async def _is_described_later(self, newest: bytes) -> bool:
        # a description that was told again later may be compacted away
        seen = await self._cursors["universes"].peek() if "universes" in self._cursors else None
        return seen is not None and dict(seen.record.headers).get("ce_time", b"") > newest

    def _judge_other(self, entry: JournalEntry, where: Where, rest: int, *, gone: bool) -> None:
        if rest > 0 and (gone or not self._is_placed):
            self._journal.not_kept += 1
            return
        n, universe = entry.number, self._journal.universe
        words = f"the {entry.n_outputs} records that it published have another digest"
        found = Finding("digest", where, universe, "journal", words, n, n)
        if entry.emitted < n and rest > 0:
            self._doubtful = found
        else:
            self._book.add(found, self._journal)

    async def _is_one_told(self, rest: int) -> bool:
        for role in UNNUMBERED:
            if role in self._cursors and rest:
                cursor = self._cursors[role]
                n = await cursor.look(min(rest, SKIPPED_MOST))
                if any(cursor.ahead(i).is_told for i in range(min(n, rest))):
                    return True
        return False

    async def finish(self) -> None:
        """Judge what is left when the journal has ended."""
        self._journal.pending += self._doubtful is not None
        for role, cursor in self._cursors.items():
            while await cursor.look(1):
                seen = cursor.pop()
                if seen.placed is None and self._slack[role] > 0:
                    self._slack[role] -= 1
                else:
                    self._pass_over(role, seen)
        for lacking in self._lacking:
            untold = [piece for piece in lacking.absent if not self._is_told(piece)]
            if not untold:
                self._journal.told += 1
            elif self._journal.write_ahead and lacking.number == self._journal.last:
                self._journal.pending += 1
            else:
                for _, name, first, last, _ in untold:
                    words = f"entry {lacking.number} published {name} {first} to {last}"
                    self._tell("missing", lacking.where, name, words, first, last)
        for (name, n), where in self._left.items():
            if not self._is_told(Absent("", name, n, n)):
                words = "no journal entry has published it"
                self._tell("unclaimed", where, name, words, n, n)

    def _tell(
        self, kind: str, where: Where, name: str, words: str, first: int | None, last: int | None
    ) -> None:
        universe = self._journal.universe
        of = (
            self._book.stretch(*where[:2], universe, name) if kind == "unclaimed" else self._journal
        )
        self._book.add(Finding(kind, where, universe, name, words, first, last), of)

    def _is_excused(self, piece: Absent, written_ms: int) -> bool:
        cursor = self._cursors.get(piece.role)
        if cursor is None:
            return True  # that topic is not looked at
        if not piece.begins:
            return cursor.has_excused(piece.name)
        return self._may_be_gone(piece.role, written_ms)

    def _is_told(self, piece: Absent) -> bool:
        return any(
            f.name == piece.name
            and f.universe == self._journal.universe
            and f.kind in TELLS_ABSENCE
            and f.first is not None
            and f.last is not None
            and f.first <= piece.first <= piece.last <= f.last
            for f in self._book.findings
        )

    def _topic(self, role: str) -> str:
        return f"{self._journal.topic.removesuffix('journal')}{role}"

    def _is_past(self, placed: Placed) -> bool:
        return placed.sequence <= self._done.get(placed.name, -1)

    async def _take(self, role: str, entry: JournalEntry) -> Taken:
        cursor = self._cursors.get(role)
        is_events = role == "events"
        lasts = {
            name: last
            for name, (_, last) in entry.sequences.items()
            if (name == "events") == is_events
        }
        due = {name: (entry.sequences[name][0], 1) for name in lasts}
        digest, n, is_told, absent, newest = TopicDigest(), 0, False, [], b""
        while cursor is not None and any(due[name][0] <= lasts[name] for name in due):
            seen = await cursor.peek()
            if seen is None:
                break
            placed, record = seen.placed, seen.record
            if placed is not None and (placed.sequence, placed.number) == due.get(placed.name):
                cursor.pop()
                value = record.value or b""
                digest.add(record.partition, record.key or b"", value, record.headers)
                n, is_told = n + 1, is_told or seen.is_told
                newest = max(newest, dict(record.headers).get("ce_time", b""))
                due[placed.name] = _after(placed)
                self._firsts.add(placed.name)
                self._loose.discard(placed.name)
            elif self._is_before(placed, due) or await self._is_foreign(cursor, due):
                self._pass_over(role, cursor.pop())
            elif placed is not None and placed.sequence <= lasts.get(placed.name, -1):
                name, (first, _) = placed.name, due[placed.name]
                last, begins = max(first, placed.sequence - 1), name not in self._firsts
                absent.append(Absent(role, name, first, last, begins))
                due[name] = placed.sequence, placed.number
            else:
                break
        absent += [
            Absent(role, name, due[name][0], last, name not in self._firsts)
            for name, last in lasts.items()
            if due[name][0] <= last
        ]
        self._done |= lasts
        return Taken(digest.value() if n else None, n, is_told, absent, newest)

    def _is_before(self, placed: Placed | None, due: Mapping[str, tuple[int, int]]) -> bool:
        if placed is None:
            return True
        if placed.name in due:
            return (placed.sequence, placed.number) < due[placed.name]
        return self._is_past(placed)

    async def _is_foreign(self, cursor: Cursor, due: Mapping[str, tuple[int, int]]) -> bool:
        for i in range(1, AHEAD):
            if await cursor.look(i + 1) <= i:
                return False
            placed = cursor.ahead(i).placed
            if placed is not None and (placed.sequence, placed.number) == due.get(placed.name):
                return True
        return False

    def _pass_over(self, role: str, seen: Seen) -> None:
        placed = seen.placed
        if seen.is_told or (placed is not None and self._is_past(placed)):
            return  # the stream has told
        known = role in self._claimed if placed is None else placed.name in self._firsts
        is_loose = placed is not None and placed.name in self._loose
        if is_loose or not (self._is_whole or known):
            self._journal.before += 1
            return
        record = seen.record
        name = role if placed is None else placed.name
        where = Where(record.topic, record.partition, record.offset)
        if placed is None:
            self._tell("unclaimed", where, name, "no journal entry has published it", None, None)
        elif len(self._left) < SKIPPED_MOST:  # when all is read, more may be found wrong with it
            self._left.setdefault((name, placed.sequence), where)

    async def _match(self, entry: JournalEntry, digests: Mapping[str, bytes], rest: int) -> bool:
        if rest == 0:
            return digest_topics(digests) == entry.outputs_digest
        cursors = {role: self._cursors[role] for role in UNNUMBERED if role in self._cursors}
        most = min(SKIPPED_MOST, max(self._slack[role] for role in UNNUMBERED) + SKIPPED)
        for skips in _skips(cursors, most):
            prefixes = {
                role: await self._prefixes(cursor, skips[role], rest if role == "rejects" else FEW)
                for role, cursor in cursors.items()
            }
            for counts in _splits(rest, {role: len(found) - 1 for role, found in prefixes.items()}):
                found = {self._topic(role): prefixes[role][n] for role, n in counts.items() if n}
                if digest_topics({**digests, **found}) == entry.outputs_digest:
                    self._pass_on(cursors, skips, counts)
                    return True
        return False

    async def _prefixes(self, cursor: Cursor, skip: int, most: int) -> list[bytes]:
        # the digest after none, one, two, ... of the next records
        n = await cursor.look(skip + most)
        digest, found = TopicDigest(), [b""]
        for i in range(skip, min(n, skip + most)):
            record = cursor.ahead(i).record
            digest.add(record.partition, record.key or b"", record.value or b"", record.headers)
            found.append(digest.value())
        return found

    def _pass_on(
        self, cursors: Mapping[str, Cursor], skips: Mapping[str, int], counts: Mapping[str, int]
    ) -> None:
        for role, cursor in cursors.items():
            for _ in range(skips[role]):
                seen = cursor.pop()
                if self._slack[role] > 0:
                    self._slack[role] -= 1
                else:
                    self._pass_over(role, seen)
            for _ in range(counts.get(role, 0)):
                cursor.pop()
            if counts.get(role, 0):
                self._claimed.add(role)
                self._slack[role] = 0
        self._is_placed = True


def _after(placed: Placed) -> tuple[int, int]:
    if placed.number < placed.of:
        return placed.sequence, placed.number + 1
    return placed.sequence + 1, 1


def _skips(cursors: Mapping[str, Cursor], most: int) -> Iterator[dict[str, int]]:
    none = dict.fromkeys(cursors, 0)
    yield none
    for n in range(1, most + 1):
        for role in cursors:
            if role == "rejects" or n <= FEW:
                yield none | {role: n}


def _splits(rest: int, there: Mapping[str, int]) -> Iterator[dict[str, int]]:
    rejects = there.get("rejects", 0)
    calibrations = there.get("calibrations", 0)
    universes = there.get("universes", 0)
    for c in range(min(rest, calibrations) + 1):
        for u in range(min(rest - c, universes) + 1):
            if rest - c - u <= rejects:
                yield {"rejects": rest - c - u, "calibrations": c, "universes": u}
