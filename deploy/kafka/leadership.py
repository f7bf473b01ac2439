"""Who leads a partition, and making another node lead it: a few requests of Kafka's protocol.

Starting Kafka's own tools takes seconds each time. A leader is moved by putting its node first
among the replicas, which moves no data, and electing the preferred one, which is the first.
"""

import contextlib
import itertools
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Self

METADATA, FIND_COORDINATOR, ELECT_LEADERS, REASSIGN = 3, 10, 43, 45
GROUP_TOPIC, TRANSACTION_TOPIC = "__consumer_offsets", "__transaction_state"
TIMEOUT_S = 5.0
KNOWN_S = 0.02  # between two looks at who leads
NO_ERROR, ELECTION_NOT_NEEDED, COORDINATOR_NOT_AVAILABLE = 0, 84, 15


class AdminError(Exception):
    """A node does not answer, or refuses; the message is one sentence for a person."""


class Place(NamedTuple):
    """Where one partition lies: its leader, -1 for none; all replicas; those in sync."""

    leader: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]


class Administrator:
    """Asks the nodes of a cluster, the first that answers, one request at a time.

    Parameters
    ----------
    bootstrap
        Addresses of the nodes, ``host:port,host:port``.
    """

    def __init__(self, bootstrap: str) -> None:
        self._addresses = [address.rpartition(":") for address in bootstrap.split(",")]
        self._numbers = itertools.count(1)
        self._connection: socket.socket | None = None

    def places(self, topic: str) -> dict[int, Place]:
        """Return where each partition of a topic lies; none where there is no such topic."""
        reply = _Reader(self._ask(METADATA, 1, struct.pack(">i", 1) + _text(topic)))
        for _ in range(reply.int32()):  # nodes: id, host, port, rack
            reply.int32(), reply.text(), reply.int32(), reply.text()
        reply.int32()  # the controller
        found: dict[int, Place] = {}
        for _ in range(reply.int32()):
            reply.int16(), reply.text()
            reply.skip(1)
            for _ in range(reply.int32()):
                reply.int16()
                partition, leader = reply.int32(), reply.int32()
                found[partition] = Place(leader, reply.int32s(), reply.int32s())
        return found

    def coordinator_of_group(self, group: str) -> tuple[str, int]:
        """Return the partition whose leader coordinates a group; it is made when first asked."""
        return self._coordinator(group, 0, GROUP_TOPIC)

    def coordinator_of_transactions(self, transactional_id: str) -> tuple[str, int]:
        """Return the partition whose leader coordinates a producer's transactions."""
        return self._coordinator(transactional_id, 1, TRANSACTION_TOPIC)

    def move_leader(self, topic: str, partition: int, node: int) -> bool:
        """Make a replica lead; return whether it then does, which takes a moment to be known.

        False where it cannot now, such as one that is not in sync, or where it led before.

        Raises
        ------
        AdminError
            No node answers.
        """
        place = self.places(topic).get(partition)
        if place is None or node == place.leader or node not in place.in_sync:
            return False
        order = [node, *(replica for replica in place.replicas if replica != node)]
        if not (self._put_first(topic, partition, order) and self._elect(topic, partition)):
            return False
        deadline_s = time.monotonic() + TIMEOUT_S
        while (now := self.places(topic).get(partition)) is None or now.leader != node:
            if time.monotonic() > deadline_s:
                return False
            time.sleep(KNOWN_S)
        return True

    def close(self) -> None:
        """Hang up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _put_first(self, topic: str, partition: int, order: Sequence[int]) -> bool:
        body = struct.pack(">i", int(TIMEOUT_S * 1000)) + _count(1) + _short_text(topic)
        body += _count(1) + struct.pack(">i", partition)
        body += _count(len(order)) + b"".join(struct.pack(">i", n) for n in order)
        reply = _Reader(self._ask(REASSIGN, 0, body + b"\0\0\0", flexible=True))
        reply.skip(1 + 4)  # tags of the head, throttle time
        if reply.int16() != NO_ERROR:
            return False
        reply.short_text()
        errors: list[int] = []
        for _ in range(reply.count()):
            reply.short_text()
            for _ in range(reply.count()):
                reply.int32()
                errors.append(reply.int16())
                reply.short_text(), reply.count()  # the message, no tags
            reply.count()
        return errors == [NO_ERROR]

    def _elect(self, topic: str, partition: int) -> bool:
        body = struct.pack(">bi", 0, 1) + _text(topic) + struct.pack(">ii", 1, partition)
        reply = _Reader(self._ask(ELECT_LEADERS, 1, body + struct.pack(">i", 3000)))
        reply.int32()
        if reply.int16() not in {NO_ERROR, ELECTION_NOT_NEEDED}:
            return False
        errors: list[int] = []
        for _ in range(reply.int32()):
            reply.text()
            for _ in range(reply.int32()):
                reply.int32()
                errors.append(reply.int16())
                reply.text()
        # An election of which there was no need is none: who leads is looked up afterwards.
        return set(errors) <= {NO_ERROR, ELECTION_NOT_NEEDED}

    def _coordinator(self, key: str, kind: int, topic: str) -> tuple[str, int]:
        reply = _Reader(self._ask(FIND_COORDINATOR, 1, _text(key) + struct.pack(">b", kind)))
        reply.int32()
        error = reply.int16()
        if error not in {NO_ERROR, COORDINATOR_NOT_AVAILABLE}:
            raise AdminError(f"Kafka does not say who coordinates {key!r} (error {error}).")
        count = len(self.places(topic))
        if not count:
            raise AdminError(f"Kafka has no topic {topic} yet.")
        return topic, _java_hash(key) % count

    def _ask(self, api: int, version: int, body: bytes, *, flexible: bool = False) -> bytes:
        # Each node is tried once: what a request changes it may change twice.
        number = next(self._numbers)
        head = struct.pack(">hhi", api, version, number) + _text("administrator")
        request = head + (b"\0" if flexible else b"") + body
        for _ in range(1 + len(self._addresses)):
            with contextlib.suppress(OSError, struct.error):
                connection = self._connect()
                connection.sendall(struct.pack(">i", len(request)) + request)
                (size,) = struct.unpack(">i", _exactly(connection, 4))
                answer = _exactly(connection, size)
                if struct.unpack_from(">i", answer) == (number,):
                    return answer[4:]
            self.close()
            self._addresses.append(self._addresses.pop(0))
        raise AdminError("No node of the cluster answers.")

    def _connect(self) -> socket.socket:
        if self._connection is None:
            host, _, port = self._addresses[0]
            self._connection = socket.create_connection((host, int(port)), TIMEOUT_S)
        return self._connection


def another(place: Place, among: Sequence[int] = ()) -> int | None:
    """Return a replica in sync that does not lead, of these nodes if named; the next in order."""
    others = [n for n in sorted(place.in_sync) if n != place.leader and (not among or n in among)]
    later = [n for n in others if n > place.leader]
    return next(iter(later or others), None)


def leaders(places: Mapping[int, Place]) -> dict[int, int]:
    """Return who leads, by partition."""
    return {partition: place.leader for partition, place in places.items()}


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def skip(self, n: int) -> None:
        self._at += n

    def int16(self) -> int:
        return self._number(">h")

    def int32(self) -> int:
        return self._number(">i")

    def int32s(self) -> tuple[int, ...]:
        return tuple(self.int32() for _ in range(self.int32()))

    def text(self) -> str:
        size = self.int16()
        start, self._at = self._at, self._at + max(size, 0)
        return self._data[start : self._at].decode()

    def count(self) -> int:
        """Return how many follow: written as one more, in seven bits a byte; none as zero."""
        number = shift = 0
        while True:
            (byte,) = self._data[self._at : self._at + 1]
            self._at += 1
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return max(number - 1, 0)

    def short_text(self) -> str:
        size = self.count()
        start, self._at = self._at, self._at + size
        return self._data[start : self._at].decode()

    def _number(self, form: str) -> int:
        (number,) = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return int(number)


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def _count(n: int) -> bytes:
    # Newer requests count from one, in seven bits a byte: all of ours fit into one or two.
    n += 1
    return bytes([n]) if n < 128 else bytes([n & 127 | 128, n >> 7])


def _short_text(text: str) -> bytes:
    return _count(len(text)) + text.encode()


def _java_hash(text: str) -> int:
    # How Kafka picks a coordinator's partition.
    number = 0
    for (unit,) in struct.iter_unpack(">H", text.encode("utf-16-be")):
        number = (31 * number + unit) & 0xFFFFFFFF
    return number & 0x7FFFFFFF


def _exactly(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = connection.recv(size - len(found))
        if not part:
            raise OSError
        found += part
    return found
