"""What holds for every commit log: outputs and journal entry together, and one owner at a time."""

import contextlib
import uuid
from collections.abc import AsyncIterator
from typing import Protocol

import pytest

from stream_calib.adapters.embedded import EmbeddedCommitLog, EmbeddedLog
from stream_calib.config import KafkaConfig
from stream_calib.errors import MissingTopicError, OwnershipError, TransportError
from stream_calib.ports import CommitLog
from stream_calib.values import Output, Source
from tests.kafka.commit_log import ROLES, Universe

N = 5


class Place(Protocol):
    """Topics of one universe, and a way past the commit log."""

    topics: dict[str, str]

    def log(self) -> CommitLog: ...

    async def read(self, role: str) -> list[bytes]: ...


class Embedded:
    def __init__(self, write_ahead: bool) -> None:
        self.embedded = EmbeddedLog(retention=1000)
        self.topics = {role: f"calib.{role}" for role in ROLES}
        self.write_ahead = write_ahead
        for role, topic in self.topics.items():
            self.embedded.create_topic(topic, keep=role in {"journal", "fits"})

    def log(self) -> CommitLog:
        return EmbeddedCommitLog(self.embedded, self.topics, write_ahead=self.write_ahead)

    async def read(self, role: str) -> list[bytes]:
        first, _ = self.embedded.bounds(self.topics[role], 0)
        return [r.value or b"" for r in self.embedded.read(self.topics[role], 0, first)]


class RealKafka:
    def __init__(self, universe: Universe, write_ahead: bool) -> None:
        self.universe = universe
        self.topics = dict(universe.topics)
        self.write_ahead = write_ahead

    def log(self) -> CommitLog:
        return self.universe.write_ahead_log() if self.write_ahead else self.universe.log()

    async def read(self, role: str) -> list[bytes]:
        return await self.universe.read(role)


@pytest.fixture(
    params=[
        ("embedded", False),
        ("embedded", True),
        pytest.param(("kafka", False), marks=pytest.mark.kafka),
        pytest.param(("kafka", True), marks=pytest.mark.kafka),
    ],
    ids=lambda param: f"{param[0]}-{'write_ahead' if param[1] else 'together'}",
)
async def place(request: pytest.FixtureRequest, broker: str | None) -> Place:
    kind, write_ahead = request.param
    if kind == "embedded":
        return Embedded(write_ahead)
    config = KafkaConfig(bootstrap_servers=broker or "")
    return RealKafka(await Universe.create(config), write_ahead)


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> str | None:
    # a fixture that is asked for by name cannot be asked for inside a running loop
    kind, _ = request.node.callspec.params["place"]
    address: str | None = request.getfixturevalue("kafka_bootstrap") if kind == "kafka" else None
    return address


@contextlib.asynccontextmanager
async def owned(place: Place) -> AsyncIterator[CommitLog]:
    log = place.log()
    try:
        await log.own()
        yield log
    finally:
        await log.close()


def outputs(place: Place, number: int) -> list[Output]:
    roles = ("correlations", "correlations", "events", "rejects")
    return [
        Output(place.topics[role], 0, b"k", b"%d.%d" % (number, i), (("h", b"\x00\xff"),))
        for i, role in enumerate(roles)
    ]


def entry(place: Place, number: int) -> Output:
    return Output(place.topics["journal"], 0, b"universe", b"entry %d" % number, ())


def fit(place: Place, name: str, chunk: int, n: int) -> Output:
    headers = (("chunk", b"%d/%d" % (chunk + 1, n)),)
    key, value = f"universe|{name}|{chunk}".encode(), f"{name} {chunk}".encode()
    return Output(place.topics["fits"], 0, key, value, headers)


async def commit(log: CommitLog, place: Place, number: int) -> int:
    positions = {Source(place.topics["events"], 0): number}
    return await log.commit(outputs(place, number), entry(place, number), positions)


async def test_commits_are_there_in_order_and_the_journal_is_read_back(place: Place) -> None:
    async with owned(place) as log:
        assert log.write_ahead == place.log().write_ahead
        positions = [await commit(log, place, number) for number in range(N)]
        assert positions == sorted(set(positions))
        expected = [(p, b"entry %d" % n) for n, p in enumerate(positions)]
        assert await place.read("correlations") == [
            b"%d.%d" % (n, i) for n in range(N) for i in (0, 1)
        ]
        assert await place.read("events") == [b"%d.2" % n for n in range(N)]
        assert await place.read("rejects") == [b"%d.3" % n for n in range(N)]
        # the same owner again, and another
        assert list(await log.own()) == expected
        await commit(log, place, N)
    async with owned(place) as log:
        assert list(await log.own())[:N] == expected


async def test_nothing_was_ever_published_until_something_is(place: Place) -> None:
    async with owned(place) as log:
        assert not await log.has_outputs()
        await log.commit([], entry(place, 0), {})
        assert not await log.has_outputs()
        await log.emit([Output(place.topics["events"], 0, b"", b"event", ())])
        assert await log.has_outputs()


async def test_emitted_outputs_have_no_entry(place: Place) -> None:
    async with owned(place) as log:
        await commit(log, place, 0)
        await log.emit(outputs(place, 1))
        await log.emit([])
        await commit(log, place, 2)
        assert [found.value for found in await log.own()] == [b"entry 0", b"entry 2"]
        assert await place.read("events") == [b"0.2", b"1.2", b"2.2"]


async def test_earlier_owner_is_refused(place: Place) -> None:
    async with owned(place) as first:
        await commit(first, place, 0)
        async with owned(place) as second:
            await commit(second, place, 1)
            with pytest.raises(OwnershipError):
                await commit(first, place, 9)
            with pytest.raises(TransportError, match="not owned"):
                await commit(first, place, 9)
            with pytest.raises(TransportError, match="not owned"):
                await first.emit(outputs(place, 9))
            entries = await place.read("journal")
            await first.trim(1)
            assert await place.read("journal") == entries
            assert b"9.2" not in await place.read("events")


async def test_nothing_is_written_without_owning(place: Place) -> None:
    log = place.log()
    with pytest.raises(TransportError, match="not owned"):
        await commit(log, place, 0)
    await log.close()
    async with owned(place) as log:
        await commit(log, place, 1)
    with pytest.raises(TransportError, match="not owned"):
        await commit(log, place, 2)
    assert await place.read("journal") == [b"entry 1"]


async def test_trimmed_journal_begins_later_and_goes_on(place: Place) -> None:
    async with owned(place) as log:
        positions = [await commit(log, place, number) for number in range(N)]
        await log.trim(positions[3])
        await log.trim(positions[1])  # is not there any more
        await commit(log, place, N)
        found = await log.own()
        assert found[0].position == positions[3]
        assert [record.value for record in found] == [b"entry 3", b"entry 4", b"entry 5"]
        await commit(log, place, N + 1)
        assert await log.has_outputs()


async def test_whole_fits_are_returned_in_order(place: Place) -> None:
    async with owned(place) as log:
        chunks = [fit(place, "two", 0, 2), fit(place, "two", 1, 2), fit(place, "torn", 0, 2)]
        await log.commit([*chunks, fit(place, "one", 0, 1)], entry(place, 0), {})
        await log.commit([fit(place, "two", 0, 2), *chunks[:2]], entry(place, 1), {})
        assert await log.fits(["two", "torn", "nowhere"]) == {"two": [b"two 0", b"two 1"]}
        assert await log.fits(["one", "two"]) == {"one": [b"one 0"], "two": [b"two 0", b"two 1"]}
        assert await log.fits([]) == {}


async def test_missing_topic_is_named_with_the_remedy(place: Place) -> None:
    place.topics["fits"] = f"no-such-{uuid.uuid4().hex[:6]}"
    if isinstance(place, RealKafka):
        place = RealKafka(Universe(place.universe.config, place.topics), place.write_ahead)
    log = place.log()
    with pytest.raises(MissingTopicError, match=r"'no-such-.*stream-calib topics create"):
        await log.own()
    await log.close()
    await log.close()
