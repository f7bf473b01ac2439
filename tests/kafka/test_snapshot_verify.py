"""``snapshot verify`` against the journal on a real broker, beside a service that owns it."""

import asyncio
import contextlib
import dataclasses
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete

from stream_calib.adapters.snapshots import SnapshotFolder
from stream_calib.values import JournalEntry, Output
from stream_calib.wire.journal import encode_entry, link
from stream_calib.wire.snapshots import digest_state, encode_snapshot
from tests.cli.command import Done, is_one_sentence
from tests.cli.forking import run_forked
from tests.cli.test_snapshot import saved

PARTITION = 1  # of universe "sim", the second one
SETTINGS = """
[kafka]
bootstrap_servers = "{bootstrap}"
[output]
prefix = "{prefix}"
[[universe]]
name = "first"
symbols = ["A", "B"]
[[universe]]
name = "sim"
symbols = ["A", "B"]
"""


def entries(n: int, universe: str = "sim", fork: int = 10**9) -> list[JournalEntry]:
    """Return a journal; from entry ``fork`` on it takes another course."""
    journal: list[JournalEntry] = []
    for number in range(n):
        state = digest_state(saved(number).arrays) if number % 2 else ""
        entry = JournalEntry(
            universe,
            number,
            n_outputs=int(number >= fork),
            state_digest=state,
            previous=journal[-1].chain if journal else "",
        )
        journal.append(link(entry))
    return journal


class Place:
    """A configuration, the folder of its second universe, and its journal."""

    def __init__(self, folder: Path, bootstrap: str, prefix: str) -> None:
        self.bootstrap, self.topic = bootstrap, f"{prefix}.journal"
        self.settings = folder / "settings.toml"
        self.settings.write_text(SETTINGS.format(bootstrap=bootstrap, prefix=prefix))
        self.store = SnapshotFolder(folder / "snapshots" / self.topic / "sim", keep=9)
        self.store.open()

    def save(self, entry: JournalEntry, **changes: Any) -> Path:
        """Save the state after this entry."""
        snapshot = dataclasses.replace(saved(entry.number), chain=entry.chain, **changes)
        name = f"{entry.number:020d}-{entry.chain}.snap"
        self.store.save(name, encode_snapshot(snapshot))
        return self.store.folder / name

    @contextlib.asynccontextmanager
    async def owner(self) -> AsyncIterator[AIOKafkaProducer]:
        """The transactional producer of whoever runs the universe."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.bootstrap, transactional_id=f"{self.topic}.sim"
        )
        await producer.start()
        try:
            yield producer
        finally:
            await producer.stop()

    async def commit(self, producer: AIOKafkaProducer, journal: Sequence[JournalEntry]) -> None:
        async with producer.transaction():
            for entry in journal:
                await self.send(producer, encode_entry(entry, self.topic, PARTITION))

    async def send(self, producer: AIOKafkaProducer, output: Output) -> None:
        await producer.send_and_wait(
            output.topic,
            output.value,
            output.key,
            partition=output.partition,
            headers=list(output.headers),
        )

    async def verify(self, *words: object) -> Done:
        config = ("--config", self.settings)
        return await asyncio.to_thread(run_forked, "snapshot", "verify", *config, *words)


@pytest.fixture
async def place(tmp_path: Path, kafka_bootstrap: str) -> AsyncIterator[Place]:
    here = Place(tmp_path, kafka_bootstrap, f"verify-{uuid.uuid4().hex[:12]}")
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(here.topic, 2, 1)])
    yield here
    await admin.delete_topics([here.topic])
    await admin.close()


async def test_snapshots_of_entries_in_the_journal_are_good(place: Place) -> None:
    journal = entries(8)
    async with place.owner() as producer:
        await place.commit(producer, journal[:4])
        await place.commit(producer, journal[4:])
        files = [place.save(journal[number]) for number in (7, 4, 1)]
        done = await place.verify()
        assert done == Done(0, "".join(f"{file}: good\n" for file in files), "")
        assert (await place.verify(files[0])).out == f"{files[0]}: good\n"
        # nobody was fenced
        await place.commit(producer, [link(JournalEntry("sim", 8, previous=journal[-1].chain))])


async def test_snapshot_off_the_journal_is_named_with_the_reason(place: Place) -> None:
    journal, other = entries(12), entries(8, fork=5)
    async with place.owner() as producer:
        await place.commit(producer, journal[:8])
        await producer.begin_transaction()  # what is not committed is not in the journal
        await place.send(producer, encode_entry(journal[8], place.topic, PARTITION))
        ahead, good = place.save(journal[8]), place.save(journal[7])
        off = place.save(other[6])
        wrong = place.save(journal[3], arrays=saved(99).arrays)
        done = await place.verify()
        await producer.abort_transaction()
    assert (done.code, done.out) == (8, f"{good}: good\n")
    assert done.err.splitlines() == [
        f"stream-calib: {ahead}: it is of a commit that did not take place",
        f"stream-calib: {off}: it is of another course of the journal",
        f"stream-calib: {wrong}: its state is not the one in the journal",
    ]
    assert (await place.verify("--offline")).code == 0


async def test_snapshot_older_than_the_journal_that_is_kept(place: Place) -> None:
    journal = entries(8)
    async with place.owner() as producer:
        await place.commit(producer, journal)
    admin = AIOKafkaAdminClient(bootstrap_servers=place.bootstrap)
    await admin.start()
    trimmed = {TopicPartition(place.topic, PARTITION): RecordsToDelete(before_offset=3)}
    await admin.delete_records(trimmed)
    await admin.close()
    old, oldest_kept = place.save(journal[2]), place.save(journal[3])
    done = await place.verify()
    assert (done.code, done.out) == (8, f"{oldest_kept}: good\n")
    assert done.err == (f"stream-calib: {old}: it is older than the journal that is kept\n")


async def test_journal_that_is_empty_or_missing_is_told(place: Place) -> None:
    file = place.save(entries(1)[0])
    done = await place.verify()
    assert (done.code, done.err) == (8, f"stream-calib: {file}: the journal is empty\n")
    text = place.settings.read_text()
    place.settings.write_text(text.replace('prefix = "', 'prefix = "elsewhere-'))
    done = await place.verify(file)
    assert done.code == 6
    assert is_one_sentence(done.err), done.err
    done = await place.verify("--bootstrap", "127.0.0.1:1", file)
    assert done.code == 5
    assert is_one_sentence(done.err), done.err


async def test_snapshot_of_a_universe_that_is_not_configured(place: Place) -> None:
    stranger = entries(1, "other")[0]
    file = place.save(stranger, universe="other")
    done = await place.verify(file)
    assert done.code == 8
    assert done.err == (
        f"stream-calib: {file}: it is of universe 'other', which the configuration does not name\n"
    )
