"""From records to matrices: chunks put together, and what is missing, repeated or torn."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from stream_calib.client.problem import NO_PARTITION, Fault, Problem, warn
from stream_calib.client.start import ANYWHERE, Start
from stream_calib.errors import InputError
from stream_calib.values import Matrix
from stream_calib.wire.cloudevents import is_number, parse_rfc3339
from stream_calib.wire.matrices import join


@dataclass(frozen=True, slots=True)
class Chunk:
    """One record, or a part of one: the ``number``-th of ``count``, counted from 1."""

    universe: str
    estimator: str
    sequence: int
    number: int
    count: int
    offset: int
    value: bytes
    headers: Mapping[str, bytes]

    @property
    def as_of_ns(self) -> int:
        """Event time of its matrix."""
        try:
            return parse_rfc3339(self.headers["ce_time"].decode())
        except (KeyError, ValueError):
            raise InputError(f"matrix {self.sequence} of {self.universe} has no time") from None

    def is_intact(self) -> bool:
        """Tell whether its bytes are those that were sent."""
        return self.headers.get("crc32") == f"{zlib.crc32(self.value):08x}".encode()

    def continues(self, before: "Chunk") -> bool:
        """Tell whether it is the next one of the same matrix."""
        own = {"chunk", "crc32"}
        mine, others = (
            {k: v for k, v in c.headers.items() if k not in own} for c in (self, before)
        )
        return (self.number, self.count, mine) == (before.number + 1, before.count, others)


class Continuity:
    """Follows the sequence of one universe and estimator in one partition.

    A writer that starts again after a crash may send matrices again from some point on; what
    was torn can so become whole, and is then taken as long as it is newer than what was
    yielded. Compaction keeps the newest record of each key, so that of an old matrix the last
    chunks may be left: before the first matrix that is no problem.

    Parameters
    ----------
    first
        The sequence that is due first; None takes the first that comes.
    """

    def __init__(self, first: int | None = None) -> None:
        self._first = first
        self._yielded = None if first is None else first - 1
        self._told = self._yielded  # up to here all was yielded or told to be lost
        self._open: list[Chunk] = []
        self._repeated = (-1, 0)

    def add(self, chunk: Chunk) -> tuple[list[Fault], Sequence[Chunk]]:
        """Return what is wrong up to this record, and the matrix that it completes."""
        sequence = chunk.sequence
        if self._first is not None and sequence < self._first:
            return [], ()
        if self._yielded is not None and sequence <= self._yielded:
            return self._again(chunk), ()
        faults: list[Fault] = []
        if self._open and sequence > self._open[0].sequence:
            faults += self._torn(self._open[0])
        if chunk.number == 1:
            self._open = []  # from the start, also when it was there in part
        elif not self._open or sequence < self._open[0].sequence:
            is_rest = self._told is None  # of a matrix that began before the first one read
            return faults + ([] if is_rest else self._lost("torn", chunk)), ()
        elif self._open[-1].headers == chunk.headers:
            return faults, ()  # the same chunk twice
        elif not chunk.continues(self._open[-1]):
            return faults + self._torn(self._open[0]), ()
        self._open.append(chunk)
        if not chunk.is_intact():
            return faults + self._torn(self._open[0]), ()
        if chunk.number < chunk.count:
            return faults, ()
        whole, self._open = self._open, []
        faults += self._lost("gap", whole[0])
        self._yielded, self._repeated = sequence, (-1, 0)
        return faults, whole

    def finish(self) -> list[Fault]:
        """Return what is wrong when nothing more comes: a matrix may have begun."""
        return self._torn(self._open[0]) if self._open else []

    def _again(self, chunk: Chunk) -> list[Fault]:
        before, self._repeated = self._repeated, (chunk.sequence, chunk.number)
        if before[0] == chunk.sequence and before[1] < chunk.number:
            return []  # the rest of it
        assert self._yielded is not None
        return [Fault("duplicate", self._yielded + 1, chunk.sequence, chunk.offset)]

    def _torn(self, chunk: Chunk) -> list[Fault]:
        self._open = []
        return self._lost("torn", chunk)

    def _lost(self, kind: Literal["gap", "torn"], chunk: Chunk) -> list[Fault]:
        # What is missing before this matrix, and this one when it is torn; each is told once.
        told, sequence = self._told, chunk.sequence
        if told is not None and sequence <= told:
            return []
        self._told = sequence
        faults = []
        if told is None:
            self._first = sequence
        elif sequence > told + 1:
            faults.append(Fault("gap", told + 1, sequence, chunk.offset))
        if kind == "torn":
            faults.append(Fault("torn", sequence, sequence, chunk.offset))
        return faults


class Assembly:
    """Puts matrices together from the records of all partitions, in the order of each.

    Parameters
    ----------
    universe, estimator
        Only these; None is all.
    start
        What comes before is passed over.
    on_problem
        Told what is wrong, each thing once.
    """

    def __init__(
        self,
        universe: str | None = None,
        estimator: str | None = None,
        start: Start = ANYWHERE,
        on_problem: Callable[[Problem], None] = warn,
    ) -> None:
        self.universe, self.estimator, self.start = universe, estimator, start
        self._on_problem = on_problem
        self._names: set[str] = set()
        self._places: dict[tuple[int, str, str], Continuity] = {}

    def add(self, record: Any) -> Matrix | None:  # noqa: ANN401
        """Return the matrix that this record completes."""
        whole = self.take(record)
        return joined(whole) if whole else None

    def take(self, record: Any) -> Sequence[Chunk]:  # noqa: ANN401
        """Return the chunks of the matrix that this record completes."""
        chunk = self.read(record)
        # what is before a sequence is for the continuity, which may see it come again
        if chunk is None or (self.start.first is None and self.start.is_after(chunk)):
            return ()
        place = record.partition, chunk.universe, chunk.estimator
        if place not in self._places:
            self._places[place] = Continuity(self.start.first)
        faults, whole = self._places[place].add(chunk)
        for fault in faults:
            name = fault.kind, chunk.universe, chunk.estimator
            where = record.topic, record.partition, fault.offset
            self._on_problem(Problem(*name, fault.expected, fault.sequence, *where))
        return whole

    def read(self, record: Any) -> Chunk | None:  # noqa: ANN401
        """Return what the record says, None when it was not asked for."""
        if record.value is None:
            return None  # a deleted key
        headers = dict(record.headers)
        universe, estimator = [*(record.key or b"").decode(errors="replace").split("|"), ""][:2]
        number, _, count = headers.get("chunk", b"").partition(b"/")
        numbers = (headers.get("sequence", b""), number, count)
        if not (universe and estimator and all(map(is_number, numbers))):
            raise InputError(f"{_place(record)} is not a correlation matrix")
        if universe != (self.universe or universe) or estimator != (self.estimator or estimator):
            return None
        if self.start.first is not None and not self.estimator:
            self._names.add(estimator)
            if len(self._names) > 1:
                both = " and ".join(sorted(self._names))
                message = f"universe {universe!r} has the estimators {both}: name the one to follow"
                raise InputError(message)
        sequence, i, n = map(int, numbers)
        return Chunk(universe, estimator, sequence, i, n, record.offset, record.value, headers)

    def is_of_universe(self, record: Any) -> bool:  # noqa: ANN401
        """Tell whether a record is of the universe that is followed, of any estimator."""
        universe, _, _ = (record.key or b"").decode(errors="replace").partition("|")
        return record.value is not None and universe == (self.universe or universe)


class Newest:
    """Of the matrices that wait to be handed out, the newest of each universe and estimator."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], Sequence[Chunk]] = {}

    def put(self, whole: Sequence[Chunk]) -> None:
        """Let a matrix wait, in the place of an older one."""
        self._waiting[whole[0].universe, whole[0].estimator] = whole

    def pop(self) -> Sequence[Chunk]:
        """Take the one of those who have waited longest; empty where none waits."""
        first = next(iter(self._waiting), None)
        return () if first is None else self._waiting.pop(first)


def joined(whole: Sequence[Chunk]) -> Matrix:
    """Return the matrix of these chunks."""
    return join([(part.value, part.headers) for part in whole])


def _place(record: Any) -> str:  # noqa: ANN401
    if record.partition == NO_PARTITION:
        return f"{record.topic}: line {record.offset}"
    return f"record {record.offset} of topic {record.topic!r} partition {record.partition}"
