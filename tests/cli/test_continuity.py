"""What a subscriber makes of any log: which matrices it yields, and what it says is wrong."""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

import stream_calib as sc
from stream_calib.client.assembly import Chunk, Continuity
from stream_calib.client.problem import Fault

DAMAGED = b"damaged"


def chunk(sequence: int, number: int = 1, count: int = 1, value: bytes = b"", ident: str = ""):  # type: ignore[no-untyped-def]
    good = b"%d/%d" % (sequence, number)
    headers = {
        "ce_id": (ident or f"fx|ewma|{sequence}").encode(),
        "sequence": b"%d" % sequence,
        "chunk": b"%d/%d" % (number, count),
        "crc32": b"%08x" % zlib.crc32(good),
    }
    return Chunk("fx", "ewma", sequence, number, count, 0, value or good, headers)


def chunks(sequence: int, count: int, *numbers: int) -> list[Chunk]:
    return [chunk(sequence, number, count) for number in numbers or range(1, count + 1)]


class Seen(NamedTuple):
    """What came out: problems as (kind, expected, sequence), and matrices by sequence."""

    faults: list[tuple[str, int, int]]
    matrices: list[int]


def follow(records: Iterable[Chunk], first: int | None = None) -> Seen:
    seen = Seen([], [])
    continuity = Continuity(first)
    for record in records:
        faults, whole = continuity.add(record)
        seen.faults.extend(fault[:3] for fault in faults)
        if whole:
            # never mixed, never damaged, never in part
            assert [c.number for c in whole] == list(range(1, whole[0].count + 1))
            assert len({(c.sequence, c.count, c.headers["ce_id"]) for c in whole}) == 1
            assert DAMAGED not in [c.value for c in whole]
            seen.matrices.append(whole[0].sequence)
    return seen


@pytest.mark.parametrize("first", [None, 5])
@pytest.mark.parametrize("count", [1, 3])
def test_good_log_has_no_problem(first: int | None, count: int) -> None:
    log = [c for sequence in range(5, 20) for c in chunks(sequence, count)]
    assert follow(log, first) == ([], list(range(5, 20)))


def test_gap_is_told_before_the_matrix_after_it() -> None:
    continuity = Continuity()
    assert continuity.add(chunk(3)) == ([], [chunk(3)])
    assert continuity.add(chunk(7)) == ([Fault("gap", 4, 7, 0)], [chunk(7)])


def test_first_matrix_read_is_where_it_begins() -> None:
    assert follow(chunks(900, 3)) == ([], [900])


def test_rest_of_a_matrix_that_began_earlier_is_no_problem() -> None:
    log = [*chunks(4, 3, 3), *chunks(6, 4, 3, 4), *chunks(8, 3)]
    assert follow(log) == ([], [8])


def test_what_is_older_than_the_first_matrix_read_is_passed_over() -> None:
    log = [chunk(5, 1, 2, DAMAGED), chunk(3), chunk(4), *chunks(5, 2), chunk(4), chunk(6)]
    assert follow(log) == ([("torn", 5, 5)], [5, 6])


def test_history_that_begins_after_the_start_is_a_gap() -> None:
    assert follow([chunk(9), chunk(10)], first=5) == ([("gap", 5, 9)], [9, 10])
    assert follow([*chunks(9, 3, 2, 3), chunk(10)], first=5) == (
        [("gap", 5, 9), ("torn", 9, 9)],
        [10],
    )


def test_what_is_before_the_start_is_passed_over() -> None:
    log = [*chunks(3, 2), *chunks(4, 2, 2), chunk(3), *chunks(5, 2), chunk(4)]
    assert follow(log, first=5) == ([], [5])


def test_repeated_matrix_is_told_once_each_time() -> None:
    log = [*chunks(1, 3), *chunks(2, 3), *chunks(1, 3), *chunks(2, 3), *chunks(2, 3), *chunks(3, 3)]
    assert follow(log) == (
        [("duplicate", 3, 1), ("duplicate", 3, 2), ("duplicate", 3, 2)],
        [1, 2, 3],
    )


@pytest.mark.parametrize("kept", [(1,), (2,), (3,), (1, 2), (1, 3), (2, 3), (3, 2), (2, 1), (3, 1)])
def test_torn_matrix_is_told_once_and_is_no_gap(kept: tuple[int, ...]) -> None:
    log = [*chunks(1, 3), *chunks(2, 3, *kept), *chunks(3, 3)]
    assert follow(log) == ([("torn", 2, 2)], [1, 3])


@pytest.mark.parametrize("number", [1, 2, 3])
def test_damaged_chunk_tears_its_matrix(number: int) -> None:
    torn = [c if c.number != number else chunk(2, number, 3, DAMAGED) for c in chunks(2, 3)]
    assert follow([*chunks(1, 3), *torn, *chunks(3, 3)]) == ([("torn", 2, 2)], [1, 3])


def test_chunk_of_another_matrix_tears_it() -> None:
    stranger = chunk(2, 2, 3, ident="other")
    log = [chunk(1), chunk(2, 1, 3), stranger, chunk(2, 3, 3), chunk(3)]
    assert follow(log) == ([("torn", 2, 2)], [1, 3])
    log = [chunk(1), chunk(2, 1, 3), chunk(2, 2, 4), chunk(2, 3, 4), chunk(2, 4, 4), chunk(3)]
    assert follow(log) == ([("torn", 2, 2)], [1, 3])


def test_of_two_interleaved_matrices_the_later_is_whole() -> None:
    log = [chunk(1), chunk(2, 1, 2), chunk(3, 1, 2), chunk(2, 2, 2), chunk(3, 2, 2)]
    assert follow(log) == ([("torn", 2, 2)], [1, 3])


def test_writer_that_starts_again_makes_torn_matrices_whole() -> None:
    # it died in the middle of 2; then in 3, when 2 had been told to be torn already
    again = [*chunks(1, 2), *chunks(2, 2)]
    assert follow([chunk(1), chunk(2, 1, 2), *again]) == ([("duplicate", 2, 1)], [1, 2])
    log = [chunk(1), chunk(2, 2, 2), chunk(3, 1, 2), *chunks(2, 2), *chunks(3, 2), chunk(4)]
    assert follow(log) == ([("torn", 2, 2)], [1, 2, 3, 4])


def test_chunk_that_comes_twice_in_a_row_is_no_problem() -> None:
    log = [record for c in chunks(2, 3) for record in (c, c)]
    assert follow([chunk(1), *log[:5], chunk(3)]) == ([], [1, 2, 3])


def test_problem_says_what_where() -> None:
    where = {"universe": "fx", "estimator": "ewma", "topic": "t", "partition": 2, "offset": 40}
    texts = [
        str(sc.Problem(kind, expected=5, sequence=sequence, **where))  # type: ignore[arg-type]
        for kind, sequence in (("gap", 6), ("gap", 9), ("duplicate", 3), ("torn", 5))
    ]
    assert texts == [
        f"fx|ewma: {what} (topic 't' partition 2 offset 40)"
        for what in (
            "matrix 5 is missing",
            "matrices 5 to 8 are missing",
            "matrix 3 came once more",
            "matrix 5 has lost a part, or is damaged",
        )
    ]


@dataclass(frozen=True)
class Sent:
    """A matrix as it got into the log: which chunks, in order, and which of them is damaged."""

    sequence: int
    count: int
    kept: tuple[int, ...]
    damaged: int = 0

    def records(self) -> list[Chunk]:
        return [
            chunk(self.sequence, n, self.count, DAMAGED if n == self.damaged else b"")
            for n in self.kept
        ]

    @property
    def is_whole(self) -> bool:
        return len(self.kept) == self.count and not self.damaged

    @property
    def is_cut_short(self) -> bool:
        """Tell whether it could still become whole, as far as its records say."""
        begins = self.kept == tuple(range(1, len(self.kept) + 1))
        return begins and not self.damaged and len(self.kept) < self.count


@st.composite
def logs(draw: st.DrawFn) -> list[Sent]:
    """A log with matrices lost, torn and damaged, and with a writer that goes back at times."""
    log: list[Sent] = []
    base = draw(st.integers(1, 50))
    counts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=12))
    for i, count in enumerate(counts):
        numbers = range(1, count + 1)
        kept = tuple(n for n in numbers if draw(st.integers(0, 5)))
        damaged = draw(st.sampled_from([0, 0, 0, *kept]))
        log.append(Sent(base + i, count, kept, damaged))
        if draw(st.integers(0, 3)) == 0:
            back = draw(st.integers(0, i))
            log += [
                Sent(base + j, counts[j], tuple(range(1, counts[j] + 1)))
                for j in range(back, i + 1)
            ]
    return [sent for sent in log if sent.kept]


def expected(log: Sequence[Sent], first: int | None) -> Seen:
    """What should come out, reasoned by matrix rather than by record."""
    seen = Seen([], [])
    told = last = None if first is None else first - 1
    waiting: int | None = None

    def lose(sequence: int, kind: str) -> None:
        nonlocal told, first
        if told is None:
            first = sequence
        elif sequence > told + 1:
            seen.faults.append(("gap", told + 1, sequence))
        if kind == "torn" and (told is None or sequence > told):
            seen.faults.append(("torn", sequence, sequence))
        told = sequence if told is None else max(told, sequence)

    for sent in log:
        if first is not None and sent.sequence < first:
            continue
        if last is not None and sent.sequence <= last:
            seen.faults.append(("duplicate", last + 1, sent.sequence))
            continue
        if waiting is not None and sent.sequence > waiting:
            lose(waiting, "torn")
        waiting = None
        if sent.is_whole:
            lose(sent.sequence, "gap")
            seen.matrices.append(sent.sequence)
            last = sent.sequence
        elif sent.is_cut_short:
            waiting = sent.sequence
        elif sent.kept[0] == 1 or told is not None:
            lose(sent.sequence, "torn")
    return seen


@given(logs(), st.none() | st.integers(1, 60))
def test_any_log_gives_the_right_matrices_and_problems(log: list[Sent], first: int | None) -> None:
    right = expected(log, first)
    for kind in {fault[0] for fault in right.faults}:
        event(kind)
    assert follow([c for sent in log for c in sent.records()], first) == right


@given(
    st.lists(
        st.tuples(
            st.integers(1, 6), st.integers(1, 3), st.sampled_from([b"", b"", b"", DAMAGED])
        ).map(lambda x: chunk(x[0], min(x[1], 1 + x[0] % 3), 1 + x[0] % 3, x[2])),
        max_size=40,
    ),
    st.none() | st.integers(1, 8),
)
def test_whatever_is_in_the_log_nothing_is_hidden(log: list[Chunk], first: int | None) -> None:
    clean = [c for sequence in range(7, 12) for c in chunks(sequence, 3)]
    faults, matrices = follow([*log, *clean], first)
    assert matrices == sorted(set(matrices))
    assert matrices[-4:] == [8, 9, 10, 11]
    lost = [s for kind, a, b in faults if kind == "gap" for s in range(a, b)]
    lost += [sequence for kind, _, sequence in faults if kind == "torn"]
    assert len(lost) == len(set(lost))
    begin = min([*lost, *matrices]) if first is None else first
    assert {*range(begin, 12)} == {*lost, *matrices}
