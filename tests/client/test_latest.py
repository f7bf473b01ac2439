"""A reader who wants the newest alone: what it gets, and that nothing wrong is hidden from it."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

import stream_calib as sc
from stream_calib.client.assembly import Assembly, Newest
from stream_calib.client.connection import Ends
from stream_calib.client.problem import Problem
from stream_calib.client.subscription import _newest
from stream_calib.errors import InputError, TransportError
from stream_calib.wire.matrices import encode
from tests.cli.test_client import wide
from tests.web.observations import matrix

PARTITION = TopicPartition("calib.correlations", 0)
Name = tuple[str, str, int]
WIDE = {sequence: encode(wide(sequence), *PARTITION) for sequence in range(1, 6)}


class FakeLog:
    """Records of which some have arrived; they are fetched in pieces."""

    def __init__(self, records: Sequence[Any], pieces: Sequence[int]) -> None:
        self.records, self.pieces = records, list(pieces)
        self.position = self.arrived = 0
        self.is_away = False

    async def ends(self, seconds: float) -> Ends:
        if self.is_away:
            message = "nobody answers"
            raise TransportError(message)
        return {PARTITION: self.arrived}

    async def is_behind(self, ends: Ends) -> bool:
        return self.position < ends[PARTITION]

    async def poll(self, timeout_ms: int = 0) -> list[Any]:
        if self.position == self.arrived and not self.is_away:
            self.arrived = min(len(self.records), self.arrived + 1)  # what is waited for comes
        piece = self.pieces.pop() if self.pieces else 1
        upto = min(self.arrived, self.position + piece)
        found, self.position = self.records[self.position : upto], upto
        return list(found)


@st.composite
def logs(draw: st.DrawFn) -> list[Any]:
    """Matrices of three kinds with gaps, repetitions, lost and damaged chunks."""
    numbers = dict.fromkeys([("fx", "ewma"), ("fx", "dcc"), ("wide", "ewma")], 1)
    log: list[Any] = []
    for _ in range(draw(st.integers(1, 15))):
        name = draw(st.sampled_from(sorted(numbers)))
        number = numbers[name]
        if name == ("wide", "ewma"):
            outputs = [o for o in WIDE[(number - 1) % 5 + 1] if draw(st.integers(0, 5))]
            if number > 5:
                continue
        else:
            outputs = list(encode(matrix(name[0], number, name[1]), *PARTITION))
        for output in outputs:
            value = output.value if draw(st.integers(0, 7)) else b"damaged"
            where = {"topic": PARTITION.topic, "partition": 0, "offset": len(log)}
            headers = output.headers
            log.append(SimpleNamespace(key=output.key, value=value, headers=headers, **where))
        numbers[name] = max(1, number + draw(st.sampled_from([1, 1, 1, 1, 2, 0, -1])))
    return log


def seen(problem: Problem) -> tuple[Any, ...]:
    return (problem.kind, problem.estimator, problem.expected, problem.sequence, problem.offset)


def name_of(m: Any) -> Name:
    return m.universe, m.estimator, m.sequence


@given(logs(), st.lists(st.integers(0, 6)), st.lists(st.integers(1, 4)), st.booleans())
def test_newest_at_each_asking_and_every_problem(
    log: list[Any], arrivals: list[int], pieces: list[int], is_away: bool
) -> None:
    everything: list[tuple[Any, ...]] = []
    assembly = Assembly(on_problem=lambda problem: everything.append(seen(problem)))
    wholes = [(i, name_of(m)) for i, r in enumerate(log) if (m := assembly.add(r)) is not None]

    told: list[tuple[Any, ...]] = []
    fake = FakeLog(log, pieces)
    mine = Assembly(on_problem=lambda problem: told.append(seen(problem)))
    got: list[Name] = []

    async def run() -> None:
        matrices = _newest(fake, mine, None)  # type: ignore[arg-type]
        lengths = list(arrivals)
        while any(i >= fake.position for i, _ in wholes) or unread(got):
            if lengths:
                fake.arrived = min(len(log), fake.arrived + lengths.pop())
            fake.is_away = is_away and fake.arrived > fake.position
            if fake.is_away:
                fake.is_away = bool(unread(got))  # or it would wait for ever
            m = await anext(matrices)
            fake.is_away = False
            got.append(name_of(m))
            newest = [n for i, n in wholes if i < fake.position and n[:2] == got[-1][:2]]
            assert got[-1] == newest[-1]
        while fake.position < len(log):
            for record in await fake.poll():
                mine.take(record)  # what comes after the last whole one
        await matrices.aclose()

    def unread(got: list[Name]) -> set[Name]:
        last = {n[:2]: n for i, n in wholes if i < fake.position}
        return set(last.values()) - set(got)

    asyncio.run(run())
    assert told == everything
    for pair in {n[:2] for _, n in wholes}:
        sequences = [n[2] for n in got if n[:2] == pair]
        assert sequences == sorted(set(sequences))
        assert sequences[-1] == max(n[2] for _, n in wholes if n[:2] == pair)


def test_who_has_waited_longest_is_next() -> None:
    newest, assembly = Newest(), Assembly()

    def put(*name: Any) -> None:
        (output,) = encode(matrix(*name), *PARTITION)
        where = {"topic": PARTITION.topic, "partition": 0, "offset": 0}
        record = SimpleNamespace(
            key=output.key, value=output.value, headers=output.headers, **where
        )
        newest.put(assembly.take(record))

    put("a", 1)
    put("b", 1)
    put("a", 2)
    assert [(c.universe, c.sequence) for c in newest.pop()] == [("a", 2)]
    put("a", 3)
    assert [(c.universe, c.sequence) for c in newest.pop()] == [("b", 1)]
    assert [(c.universe, c.sequence) for c in newest.pop()] == [("a", 3)]
    assert newest.pop() == ()


async def test_only_is_one_of_two_words() -> None:
    with pytest.raises(InputError, match=r"^only is 'all' or 'latest', not 'newest'$"):
        await anext(sc.subscribe(only="newest"))  # type: ignore[arg-type]
