"""A leader has moved when the nodes say that another one leads, and not because they were asked."""

import struct
from collections.abc import Sequence

import pytest

from deploy.kafka import leadership
from deploy.kafka.leadership import Administrator

TOPIC, REPLICAS = "ticks", (1, 2, 3)
INVALID_REPLICA_ASSIGNMENT, PREFERRED_LEADER_NOT_AVAILABLE = 39, 80


def text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()


def short_text(value: str | None) -> bytes:
    return b"\0" if value is None else bytes([len(value) + 1]) + value.encode()


class Answering(Administrator):
    """Asks nodes of which every answer is given here."""

    def __init__(self, leads: Sequence[int], reassign: int = 0, elect: int = 0) -> None:
        super().__init__("")
        self.asked: list[int] = []
        self._leads, self._reassign, self._elected = list(leads), reassign, elect

    def _ask(self, api: int, version: int, body: bytes, *, flexible: bool = False) -> bytes:
        self.asked.append(api)
        if api == leadership.METADATA:
            leader = self._leads.pop(0) if len(self._leads) > 1 else self._leads[0]
            nodes = struct.pack(">i3i", 3, *REPLICAS)
            parts = struct.pack(">ihii", 1, 0, 0, leader) + nodes + nodes
            return struct.pack(">iii", 0, 1, 1) + b"\0\0" + text(TOPIC) + b"\0" + parts
        if api == leadership.REASSIGN:
            part = struct.pack(">ih", 0, self._reassign) + short_text("why") + b"\0"
            topic = short_text(TOPIC) + b"\x02" + part + b"\0"
            return b"\0" + struct.pack(">ih", 0, 0) + short_text(None) + b"\x02" + topic + b"\0"
        part = struct.pack(">ih", 0, self._elected) + struct.pack(">h", -1)
        return struct.pack(">ihi", 0, 0, 1) + text(TOPIC) + struct.pack(">i", 1) + part


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leadership, "TIMEOUT_S", 0.1)


@pytest.mark.parametrize("elect", [leadership.NO_ERROR, leadership.ELECTION_NOT_NEEDED])
def test_move_is_one_once_the_node_leads(elect: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # known at the third look
    monkeypatch.setattr(leadership, "TIMEOUT_S", 60.0)
    assert Answering([1, 1, 1, 2], elect=elect).move_leader(TOPIC, 0, 2)


@pytest.mark.parametrize("elect", [leadership.NO_ERROR, leadership.ELECTION_NOT_NEEDED])
def test_election_that_changed_nothing_is_no_move(elect: int) -> None:
    assert not Answering([1], elect=elect).move_leader(TOPIC, 0, 2)


def test_replicas_that_are_refused_are_no_move_and_nobody_is_elected() -> None:
    admin = Answering([1, 2], reassign=INVALID_REPLICA_ASSIGNMENT)
    assert not admin.move_leader(TOPIC, 0, 2)
    assert leadership.ELECT_LEADERS not in admin.asked


def test_election_that_is_refused_is_no_move() -> None:
    assert not Answering([1, 2], elect=PREFERRED_LEADER_NOT_AVAILABLE).move_leader(TOPIC, 0, 2)


def test_node_that_leads_already_is_not_moved_to() -> None:
    admin = Answering([2])
    assert not admin.move_leader(TOPIC, 0, 2)
    assert admin.asked == [leadership.METADATA]
