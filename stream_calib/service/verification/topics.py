"""All output topics of a service, universe by universe, and files of outputs."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stream_calib.adapters.kafka import Walk, describe_topics, list_partitions, open_walks
from stream_calib.client.recorded import records_in
from stream_calib.config import KafkaConfig
from stream_calib.errors import MissingTopicError
from stream_calib.service.verification.chain import Chain
from stream_calib.service.verification.cursor import Cursor
from stream_calib.service.verification.findings import Book, Finding, Journal, Where
from stream_calib.service.verification.ledger import Ledger
from stream_calib.service.verification.plain import (
    CalibrationStream,
    FitStream,
    RejectStream,
    UniverseStream,
)
from stream_calib.service.verification.report import Report, concluded
from stream_calib.service.verification.streams import EventStream, MatrixStream, Stream
from stream_calib.values import Source

# in the order in which their ends are taken: what an entry names has to be seen
ROLES = ("journal", "universes", "fits", "correlations", "events", "rejects", "calibrations")
HANGING_MS = 60_000
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be looked at.

    ``topics`` are names by role, as ``service.wiring.topics_by_role`` gives them; those that do
    not exist are passed over with a note, but for the correlations. ``universes`` are names in the
    order of their partitions, empty where they are not known. Records before ``since_ms`` are
    left out. A transaction that is open for longer than ``hanging_ms`` at ``now_ms`` hangs.
    """

    topics: Mapping[str, str]
    universes: Sequence[str]
    now_ms: int
    since_ms: int | None = None
    hanging_ms: int = HANGING_MS
    matrices: bool = False


async def verify_topics(
    config: KafkaConfig, wanted: Wanted, on_progress: Progress = lambda _done, _of: None
) -> Report:
    """Read output topics to where they end now, and report what is wrong with them.

    Nothing is written, nobody is disturbed, a service may be running. Memory does not grow with
    the length of a topic, but for 300 bytes of each of the last 100,000 chunks.

    Parameters
    ----------
    config
        How to reach the broker.
    wanted
        What to look at.
    on_progress
        Told now and then how many offsets have been passed, and of how many.

    Raises
    ------
    MissingTopicError
        There is no topic of matrices.
    TransportError
        The broker does not answer in time.
    """
    there = await list_partitions(config)
    topics = {role: name for role, name in wanted.topics.items() if name in there}
    if "correlations" not in topics:
        raise MissingTopicError(f"Topic {wanted.topics['correlations']!r} does not exist")
    gone = [repr(name) for role, name in wanted.topics.items() if role not in topics]
    notes = [f"not there, and so not looked at: {', '.join(gone)}"] if gone else []
    settings = await describe_topics(config, set(topics.values()))
    book = Book()
    n = len(wanted.universes) or max(len(there[name]) for name in topics.values())
    for partition in range(n):
        name = wanted.universes[partition] if wanted.universes else None
        sources = {
            role: Source(topics[role], partition)
            for role in ROLES
            if role in topics and partition in there[topics[role]]
        }
        async with open_walks(config, [*sources.values()], wanted.since_ms) as walks:
            by_role = {role: walks[source] for role, source in sources.items()}
            one = _Universe(book, wanted, settings, by_role, name, on_progress)
            await one.verify()
            notes += one.notes
    return concluded(book, notes)


class _Universe:
    """The partition of one universe in all topics."""

    def __init__(
        self,
        book: Book,
        wanted: Wanted,
        settings: Mapping[str, Mapping[str, str]],
        walks: Mapping[str, Walk],
        name: str | None,
        on_progress: Progress,
    ) -> None:
        self.notes: list[str] = []
        self._book, self._wanted, self._walks, self._name = book, wanted, walks, name
        self._settings = {role: settings[walk.source.topic] for role, walk in walks.items()}
        self._on_progress = on_progress
        self._passed: dict[str, int] = {}
        self._total = sum(w.extent.stop - w.extent.start for w in walks.values())

    async def verify(self) -> None:
        """Read all of it."""
        self._judge_open()
        known = await self._drain("universes", self._stream("universes", UniverseStream))
        fits = await self._drain("fits", self._stream("fits", FitStream))
        if self._name is None:
            self._name = await self._find_name(known)
        streams: dict[str, Stream] = {
            "correlations": MatrixStream(
                self._book,
                self._name,
                known.symbols,
                matrices=self._wanted.matrices,
                compacts=self._compacts("correlations"),
            ),
            "events": self._stream("events", EventStream),
            "rejects": self._stream("rejects", RejectStream),
            "calibrations": self._stream("calibrations", CalibrationStream),
        }
        cursors = {
            role: Cursor(self._read(role), stream)
            for role, stream in streams.items()
            if role in self._walks
        }
        if "universes" in self._walks:  # once more, now for the digests
            cursors["universes"] = Cursor(self._read("universes"), _Judged(self._book))
        if "journal" not in self._walks or self._name is None:
            for cursor in cursors.values():
                while await cursor.look(1):
                    cursor.pop()
            return
        await self._follow(cursors, fits)

    async def _follow(self, cursors: Mapping[str, Cursor], fits: FitStream) -> None:
        walk = self._walks["journal"]
        assert self._name is not None
        journal = Journal(*walk.source, universe=self._name)
        self._book.journals.append(journal)
        whole = all(w.extent.first == w.extent.start == 0 for w in self._walks.values())
        ledger = Ledger(self._book, journal, cursors, self._may_be_gone, is_whole=whole)
        chain = Chain(self._book, journal)
        async for record in self._read("journal"):
            entry = chain.add(record)
            if entry is None:
                continue
            where = Where(record.topic, record.partition, record.offset)
            gap = chain.after_gap
            await ledger.compare(entry, where, record.timestamp, after_gap=gap)
            hashes = {hash_ for move in entry.moves for hash_ in move.installs} - fits.whole
            if hashes and "fits" in self._walks and not self._may_be_gone("fits", record.timestamp):
                n, words = entry.number, f"fit {min(hashes)} is not on its topic, or not whole"
                self._book.add(Finding("fit", where, self._name, "journal", words, n, n), journal)
        await ledger.finish()

    def _stream(self, role: str, kind: Callable[..., Any]) -> Any:  # noqa: ANN401
        return kind(self._book, self._name, compacts=role in self._walks and self._compacts(role))

    async def _drain(self, role: str, stream: Any) -> Any:  # noqa: ANN401
        if role in self._walks:
            async for record in self._read(role):
                stream.add(record)
            stream.finish()
            self._walks[role].rewind()
        return stream

    async def _find_name(self, known: UniverseStream) -> str | None:
        # of the first record that says whose it is
        names = [s.universe for s in self._book.stretches.values() if s.name == known.name]
        if names:
            return names[-1]
        for role in ("journal", "correlations", "events"):
            if role in self._walks:
                async for record in self._walks[role]:
                    self._walks[role].rewind()
                    return (record.key or b"").decode(errors="replace").partition("|")[0]
        return None

    async def _read(self, role: str) -> AsyncIterator[Any]:
        walk = self._walks[role]
        async for record in walk:
            self._passed[role] = record.offset + 1 - walk.extent.start
            self._on_progress(sum(self._passed.values()), self._total)
            yield record

    def _compacts(self, role: str) -> bool:
        return "compact" in self._settings[role]["cleanup.policy"]

    def _may_be_gone(self, role: str, written_ms: int) -> bool:
        walk = self._walks.get(role)
        if walk is None:
            return True
        if walk.extent.first > 0 or walk.extent.start > 0:
            return True
        # deletion takes from the beginning, which moves; compaction leaves no such trace
        age_ms = self._wanted.now_ms - written_ms
        return self._compacts(role) and age_ms > int(self._settings[role]["min.compaction.lag.ms"])

    def _judge_open(self) -> None:
        for role, walk in self._walks.items():
            extent = walk.extent
            if extent.stop == extent.end:
                continue
            (topic, partition), since_ms = walk.source, extent.open_since_ms
            n = extent.end - extent.stop
            age_ms = self._wanted.now_ms - (since_ms or self._wanted.now_ms)
            if age_ms <= self._wanted.hanging_ms:
                words = f"{topic}-{partition}: a transaction is under way ({n} offsets)"
                self.notes.append(words)
                continue
            words = f"open for {age_ms / 1000:.0f} s, {n} offsets behind it are not seen"
            stretch = self._book.stretch(topic, partition, self._name or "?", role)
            where = Where(topic, partition, extent.stop)
            found = Finding("open_transaction", where, stretch.universe, role, words)
            self._book.add(found, stretch)


class _Judged(Stream):
    # What was found when they were read first is not told again.
    def __init__(self, book: Book) -> None:
        super().__init__(book, None)
        self._told = {finding.where for finding in book.findings}

    def add(self, record: Any) -> None:  # noqa: ANN401
        self.n_found = Where(record.topic, record.partition, record.offset) in self._told


def verify_files(paths: Iterable[Path], *, matrices: bool = False) -> Report:
    """Report what is wrong with output files of ``replay``, which have no journal.

    Raises
    ------
    InputError
        A file cannot be read, or a line is no output of ``replay``.
    """
    book = Book()
    for path in paths:
        universes = UniverseStream(book, None)
        for record in records_in(path, _is_of("stream_calib.universe.v1")):
            universes.add(record)
        streams: dict[str, Stream] = {
            "stream_calib.matrix.v1": MatrixStream(
                book, None, universes.symbols, matrices=matrices
            ),
            "stream_calib.event.v1": EventStream(book, None),
            "stream_calib.calibration.v1": CalibrationStream(book, None),
        }
        rejects = RejectStream(book, None)
        for record in records_in(path, lambda _headers: True):
            type_ = dict(record.headers).get("ce_type", b"").decode()
            if type_ != "stream_calib.universe.v1":
                streams.get(type_, rejects).add(record)
        for stream in streams.values():
            stream.finish()
    return concluded(book, [])


def _is_of(type_: str) -> Callable[[Mapping[str, str]], bool]:
    return lambda headers: headers.get("ce_type") == type_
