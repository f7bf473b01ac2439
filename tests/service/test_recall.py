"""What was published before a start is read back as it is in the topics."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
import structlog

from stream_calib.adapters.http import LiveView
from stream_calib.errors import InputError, TransportError
from stream_calib.service.recall import EVENTS, MATRICES, RECALLED_BYTES, Turns, recall, recalled
from stream_calib.service.runner import unobserved
from stream_calib.values import SECOND_NS, Event, Matrix, Output, Published
from stream_calib.wire.events import decode_event, encode_event
from stream_calib.wire.matrices import encode
from tests.web.showing import blocks, matrix_of


def published(outputs: Sequence[Output], first: int = 0) -> list[Published]:
    return [
        Published(o.topic, o.partition, first + k, o.key, o.value, o.headers)
        for k, o in enumerate(outputs)
    ]


def matrices(n: int, count: int) -> list[Matrix]:
    return [
        matrix_of(blocks(n, 3, 0.5 + 0.01 * k), k, estimator)
        for k in range(1, count + 1)
        for estimator in ("ewma", "dcc")
    ]


class Viewer:
    def __init__(self) -> None:
        self.told: list[tuple[str, Sequence[Matrix], Sequence[Event]]] = []

    def gained(self, *_: Any) -> None: ...

    def recall(self, universe: str, matrices: Sequence[Matrix], events: Sequence[Event]) -> None:
        self.told.append((universe, matrices, events))

    def show(self, *_: Any) -> None: ...

    def progressed(self, *_: Any) -> None: ...


@pytest.mark.parametrize("n", [3, 700], ids=["JSON", "chunks"])
def test_matrices_come_back_in_order(n: int) -> None:
    known = matrices(n, 3)
    records = published([o for m in known for o in encode(m, "calib.correlations", 0)])
    if n > 200:
        records = records[1:]  # whose first chunk is out of reach is left out
        known = known[1:]
    found = recalled("fx", records, ())
    assert [(m.estimator, m.sequence) for m in found.matrices] == [
        (m.estimator, m.sequence) for m in known
    ]
    for own, other in zip(found.matrices, known, strict=True):
        np.testing.assert_allclose(own.corr, other.corr, atol=6e-8)  # float32 in chunks


def test_events_come_back_and_deleted_keys_are_nothing() -> None:
    events = [Event("fx", k, "gap", k * SECOND_NS, {"seconds": 3}) for k in range(3)]
    records = published([encode_event(e, "calib.events", 0) for e in events])
    gone = records[0]._replace(value=None)
    assert recalled("fx", [gone], [gone, *records]).events == events


FOREIGN = [b"", b"[]", b"{}", b'{"universe": "fx", "sequence": "x"}']


@pytest.mark.parametrize("value", FOREIGN)
def test_what_is_no_event_is_one_sentence(value: bytes) -> None:
    with pytest.raises(InputError, match="not an event"):
        decode_event(value)


@pytest.mark.parametrize("value", FOREIGN)
def test_a_foreign_record_is_passed_over_and_its_neighbours_come_back(value: bytes) -> None:
    event = Event("fx", 3, "gap", SECOND_NS, {"seconds": 3})
    events, known = [encode_event(event, "calib.events", 0)], matrices(3, 2)
    records = [published([o for m in known for o in encode(m, "c", 0)]), published(events)]
    other = encode_event(replace(event, universe="other"), "calib.events", 0)
    for k, own in enumerate(records):
        own.insert(len(own) // 2, own[0]._replace(value=value, headers=()))
        own.append(published([other] if k else encode(matrix_of(blocks(3, 1)), "c", 0))[0])
    found = recalled("fx", *records)
    assert [(m.estimator, m.sequence) for m in found.matrices][: len(known)] == [
        (m.estimator, m.sequence) for m in known
    ]
    assert found.events == [event]


async def test_an_alarm_is_found_behind_thousands_of_symbols_that_came_and_went() -> None:
    alarm = Event("fx", 0, "drift_alarm", 0, {"alternative": "fusing"})
    pending = [Event("fx", k, "symbol_pending", k, {"symbol": "A"}) for k in range(1, 10_000)]
    records = published([encode_event(e, "calib.events", 0) for e in (alarm, *pending)])

    async def read_back(_: str, role: str, n: int, n_bytes: int) -> list[Published]:
        assert sum(len(record.value or b"") for record in records) < n_bytes
        return records[-n:] if role == "events" else []

    view = LiveView(["fx"], unobserved())
    await recall(["fx"], read_back, view)
    assert [orjson.loads(event)["sequence"] for event in view.events("fx", -1) or ()] == [0]


async def test_a_topic_that_cannot_be_read_is_told_of_and_the_next_universe_is_shown() -> None:
    outputs = [o for m in matrices(3, 2) for o in encode(m, "calib.correlations", 0)]
    asked = []

    async def read_back(universe: str, role: str, n: int, n_bytes: int) -> list[Published]:
        asked.append((universe, role, n, n_bytes))
        if universe == "away":
            raise TransportError("the broker does not answer")
        return published(outputs) if role == "correlations" else []

    viewer = Viewer()
    with structlog.testing.capture_logs() as logs:
        await recall(["away", "fx"], read_back, viewer)
    assert [entry["reason"] for entry in logs] == ["the broker does not answer"]
    assert [(name, len(found)) for name, found, _ in viewer.told] == [("fx", 4)]
    assert asked == [
        ("away", "correlations", MATRICES, RECALLED_BYTES),
        ("fx", "correlations", MATRICES, RECALLED_BYTES),
        ("fx", "events", EVENTS, RECALLED_BYTES),
    ]


def test_a_universe_that_comes_from_another_process_is_taken_over_once() -> None:
    turns = Turns()
    assert not turns.take("alone", "owner")  # whose past is read back at the start
    for role in ("none", "standby"):
        assert not turns.take("fx", role)
    assert turns.others == {"fx"}
    assert turns.take("fx", "owner")
    assert not turns.take("fx", "owner")  # as after a restart from the journal
    assert (turns.others, turns.taken_over.qsize()) == (set(), 1)


async def test_what_is_taken_over_is_read_again() -> None:
    asked: asyncio.Queue[str] = asyncio.Queue()

    async def read_back(universe: str, role: str, *_: int) -> list[Published]:
        if role == "correlations":
            asked.put_nowait(universe)
        return []

    turns, viewer = Turns(), Viewer()
    task = asyncio.create_task(recall(["fx", "rates"], read_back, viewer, turns.taken_over))
    async with asyncio.timeout(60):
        assert [await asked.get(), await asked.get()] == ["fx", "rates"]
        turns.take("rates", "standby")
        turns.take("rates", "owner")
        assert await asked.get() == "rates"
    assert not task.done()
    task.cancel()
