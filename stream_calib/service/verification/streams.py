"""The records of one output topic in their order: what each says, and whether it can be so."""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from stream_calib.client.assembly import Assembly, Chunk, Continuity
from stream_calib.errors import InputError
from stream_calib.service.verification.findings import Book, Finding, Stretch, Where
from stream_calib.service.verification.matrices import reason_against
from stream_calib.wire.cloudevents import rfc3339
from stream_calib.wire.matrices import decode, read_head

COMPARED = 100_000  # chunks whose bytes are remembered, to compare those that come once more


class Placed(NamedTuple):
    """What a record is: chunk ``number`` of ``of`` of a sequence of ``name``."""

    name: str
    sequence: int
    number: int
    of: int


class Stream:
    """Judges the records of one topic and partition, one after the other.

    Parameters
    ----------
    book
        Where findings go.
    universe
        The only one that has something to say here; None is any.
    compacts
        The broker may drop records of a key for newer ones.
    """

    def __init__(self, book: Book, universe: str | None, *, compacts: bool = False) -> None:
        self.book, self.universe, self.compacts = book, universe, compacts
        self.n_found = 0  # in the record that was added last

    def add(self, record: Any) -> Placed | None:  # noqa: ANN401
        """Judge the next record; return what it is, where that has a sequence and is clear."""
        before = sum(self.book.counts.values())
        placed = self._add(record)
        self.n_found = sum(self.book.counts.values()) - before
        return placed

    def finish(self) -> None:
        """Judge what has begun and does not go on."""

    def has_excused(self, name: str) -> bool:
        """Tell whether sequences of this name were missing for a reason that is none."""
        return any(s.not_kept and s.name == name for s in self.book.stretches.values())

    def _add(self, record: Any) -> Placed | None:  # noqa: ANN401
        raise NotImplementedError

    def _tell(
        self,
        kind: str,
        where: Where,
        stretch: Stretch,
        words: str,
        first: int | None = None,
        last: int | None = None,
    ) -> Finding:
        name = stretch.universe, stretch.name
        return self.book.add(Finding(kind, where, *name, words, first, last), stretch)


class Numbered(Stream):
    """Records with a sequence of their own: matrices and events."""

    ce_type = ""

    def __init__(self, book: Book, universe: str | None, *, compacts: bool = False) -> None:
        super().__init__(book, universe, compacts=compacts)
        self._places: dict[tuple[int, str, str], Continuity] = {}
        self._bytes: OrderedDict[tuple[str, str, int, int], bytes] = OrderedDict()
        self._keys: set[bytes] = set()
        self._newest: dict[tuple[int, str, str], tuple[int, bool]] = {}
        self._again: Finding | None = None

    def _read(self, record: Any) -> Chunk:  # noqa: ANN401
        raise NotImplementedError

    def _judge(self, whole: Sequence[Chunk], where: Where, stretch: Stretch) -> None:
        raise NotImplementedError

    def _add(self, record: Any) -> Placed | None:  # noqa: ANN401
        where = Where(record.topic, record.partition, record.offset)
        key = record.key or b""
        try:
            if record.value is None:
                universe, _, name = key.decode(errors="replace").partition("|")
                stretch = self.book.stretch(*where[:2], universe, name)
                self._tell("tombstone", where, stretch, f"it deletes the key {_text(key)}")
                return None
            chunk = self._read(record)
        except (InputError, ValueError):
            universe = key.decode(errors="replace").partition("|")[0]
            stretch = self.book.stretch(*where[:2], self.universe or universe, "?")
            stretch.records += 1
            self._tell("undecodable", where, stretch, f"the record of key {_text(key)} is none")
            return None
        stretch = self.book.stretch(*where[:2], chunk.universe, chunk.estimator)
        stretch.records += 1
        if self.universe is not None and chunk.universe != self.universe:
            words = f"it is of universe {chunk.universe!r}, here is that of {self.universe!r}"
            self._tell("stranger", where, stretch, words)
            return None
        is_new_key = key not in self._keys
        self._keys.add(key)
        self._follow(chunk, where, stretch, is_new_key=is_new_key)
        return Placed(chunk.estimator, chunk.sequence, chunk.number, chunk.count)

    def _follow(self, chunk: Chunk, where: Where, stretch: Stretch, *, is_new_key: bool) -> None:
        place = where.partition, chunk.universe, chunk.estimator
        if place not in self._places:
            self._places[place] = Continuity()
        same = self._compare(chunk)
        begins = place not in self._newest or self._newest[place][0] != chunk.sequence
        if begins:
            self._newest[place] = chunk.sequence, is_new_key
        faults, whole = self._places[place].add(chunk)
        kinds = {fault.kind for fault in faults}
        n = chunk.sequence
        if "duplicate" in kinds:
            words = "it came once more" if same is not None else "it came once more, long after"
            self._again = self._tell("repeated", where, stretch, words, n, n)
        elif not chunk.is_intact() and same is not True:
            self._tell("checksum", where, stretch, "its bytes are not those of its crc32", n, n)
        if same is False and self._again is not None and self._again.kind == "repeated":
            self.book.change(self._again, "conflict", stretch)
            self._again.words = "it came once more, with other bytes"
        if "duplicate" not in kinds and same is None:
            self._again = None
        for fault in faults:
            of = fault.expected, fault.sequence - (fault.kind == "gap")
            damaged = fault.sequence == n and not chunk.is_intact()
            if fault.kind == "duplicate" or (fault.kind == "torn" and damaged):
                continue
            # The newest of each key is kept: between two records of one key nothing can go, and
            # of one matrix the first chunks alone.
            excused = self._newest[place][1] if fault.kind == "gap" else is_new_key and begins
            if self.compacts and excused:
                stretch.not_kept += of[1] - of[0] + 1
            elif fault.kind == "gap":
                self._tell("gap", where, stretch, "missing before this record", *of)
            else:
                self._tell("torn", where, stretch, "of it a chunk is missing", *of)
        if whole:
            self._count(stretch, n)
            self._judge(whole, where, stretch)

    def _count(self, stretch: Stretch, sequence: int) -> None:
        stretch.first = sequence if stretch.first is None else stretch.first
        stretch.last = sequence
        stretch.count += 1

    def _compare(self, chunk: Chunk) -> bool | None:
        # None: not seen before, or too long ago.
        key = chunk.universe, chunk.estimator, chunk.sequence, chunk.number
        digest = hashlib.blake2b(chunk.value, digest_size=16).digest()
        known = self._bytes.get(key)
        if known is None:
            self._bytes[key] = digest
            if len(self._bytes) > COMPARED:
                self._bytes.popitem(last=False)
            return None
        return known == digest

    def _check_time(self, time_ns: int, where: Where, stretch: Stretch, n: int) -> None:
        if stretch.as_of_ns is not None and time_ns < stretch.as_of_ns:
            words = f"as of {rfc3339(time_ns)}, after one as of {rfc3339(stretch.as_of_ns)}"
            self._tell("order", where, stretch, words, n, n)
        else:
            stretch.as_of_ns = time_ns

    def _check_headers(
        self, chunk: Chunk, said: Mapping[str, object], where: Where, stretch: Stretch
    ) -> bool:
        for name, value in said.items():
            found = chunk.headers.get(name, b"").decode(errors="replace")
            if found != value:
                words = f"{name} is {found!r} where the value says {value!r}"
                self._tell("headers", where, stretch, words, chunk.sequence, chunk.sequence)
                return False
        return True

    def finish(self) -> None:
        """Judge matrices that have begun and do not go on."""
        for (partition, universe, name), place in self._places.items():
            for fault in place.finish():
                for (topic, *rest), stretch in self.book.stretches.items():
                    if tuple(rest) == (partition, universe, name):
                        where = Where(topic, partition, fault.offset)
                        of = fault.expected, fault.sequence - (fault.kind == "gap")
                        self._tell(fault.kind, where, stretch, "the topic ends within it", *of)


class MatrixStream(Numbered):
    """The correlations topic.

    Parameters
    ----------
    symbols
        Of each ``universe_id`` that was told; empty where nothing is known of them.
    matrices
        Look at the numbers too.
    """

    def __init__(
        self,
        book: Book,
        universe: str | None,
        symbols: Mapping[str, Sequence[str]],
        *,
        matrices: bool = False,
        compacts: bool = False,
    ) -> None:
        super().__init__(book, universe, compacts=compacts)
        self._assembly = Assembly()
        self._symbols, self._matrices = symbols, matrices

    def _read(self, record: Any) -> Chunk:  # noqa: ANN401
        chunk = self._assembly.read(record)
        assert chunk is not None
        return chunk

    def _judge(self, whole: Sequence[Chunk], where: Where, stretch: Stretch) -> None:
        chunk, n = whole[0], whole[0].sequence
        content_type = chunk.headers.get("content-type", b"").decode(errors="replace")
        try:
            head = read_head(chunk.value, content_type)
            universe, estimator = head["universe"], head["estimator"]
            as_of_ns = int(head["as_of_ns"])
            id_, number = f"{universe}|{estimator}|{head['sequence']}", head["sequence"]
            names = {*head["symbols"], *head["pending"]}
            identity = head["universe_id"]
        except (InputError, KeyError, TypeError, ValueError) as error:
            self._tell("undecodable", where, stretch, str(error), n, n)
            return
        said = {
            "sequence": str(number),
            "ce_id": id_,
            "ce_source": f"/stream-calib/{universe}",
            "ce_type": "stream_calib.matrix.v1",
            "ce_time": rfc3339(as_of_ns),
        }
        if (universe, estimator) != (chunk.universe, chunk.estimator):
            words = f"the key is of {chunk.universe}|{chunk.estimator}, the value of {id_}"
            self._tell("headers", where, stretch, words, n, n)
        elif self._check_headers(chunk, said, where, stretch):
            self._check_time(as_of_ns, where, stretch, n)
        if self._symbols and names != {*self._symbols.get(identity, ())}:
            told = "was never told" if identity not in self._symbols else "has others"
            words = f"its universe_id {identity} {told}"
            self._tell("symbols", where, stretch, words, n, n)
        if self._matrices:
            try:
                matrix = decode(b"".join(part.value for part in whole), content_type)
                words = reason_against(matrix)
            except InputError as error:
                words = str(error)
            if words:
                self._tell("matrix", where, stretch, words, n, n)


class EventStream(Numbered):
    """The events topic."""

    def _read(self, record: Any) -> Chunk:  # noqa: ANN401
        headers = dict(record.headers)
        universe = (record.key or b"").decode()
        sequence = int(headers.get("sequence", b"none"))
        return Chunk(universe, "events", sequence, 1, 1, record.offset, record.value, headers)

    def _judge(self, whole: Sequence[Chunk], where: Where, stretch: Stretch) -> None:
        chunk, n = whole[0], whole[0].sequence
        try:
            value = orjson.loads(chunk.value)
            number, universe = value["sequence"], value["universe"]
            said = {
                "sequence": str(number),
                "ce_id": f"{universe}|events|{number}",
                "ce_source": f"/stream-calib/{chunk.universe}",
                "ce_type": "stream_calib.event.v1",
                "ce_time": rfc3339(int(value["time_ns"])),
            }
        except (KeyError, TypeError, ValueError) as error:
            self._tell("undecodable", where, stretch, f"not an event ({error})", n, n)
            return
        self._check_headers(chunk, said, where, stretch)


def _text(key: bytes) -> str:
    return repr(key.decode(errors="replace"))
