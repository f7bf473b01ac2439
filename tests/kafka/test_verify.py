"""``verify`` on a real broker: what a service wrote is well, and each damage is told, alone."""

import asyncio
import contextlib
import time
import uuid
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from stream_calib.adapters.kafka import ensure_topics
from stream_calib.config import Config, load_config
from stream_calib.service.topics import output_topics, topics_by_role
from stream_calib.service.verification import Report, Wanted, verify_topics
from stream_calib.values import JournalEntry, Output
from stream_calib.wire.cloudevents import headers
from stream_calib.wire.journal import encode_entry, link
from tests.cli.command import Done
from tests.cli.forking import run_forked
from tests.kafka.killing import Record, Victim, read, ticks_in

SEED = 11
DEADLINE_S = 60.0


class Written(NamedTuple):
    """What a service has published, and its settings."""

    config: Config
    file: Path
    bootstrap: str
    records: dict[str, list[Record]]

    def topic(self, role: str) -> str:
        return topics_by_role(self.config)[role]

    async def report(self, **changes: Any) -> Report:
        wanted = Wanted(
            topics=topics_by_role(self.config),
            universes=[u.name for u in self.config.universe],
            now_ms=time.time_ns() // 1_000_000,
            matrices=True,
        )
        return await verify_topics(self.config.kafka, replace(wanted, **changes))

    async def put(self, role: str, records: Sequence[Record]) -> None:
        """Replace a topic by one with these records, as one brought back from elsewhere."""
        topic = self.topic(role)
        async with administrator(self.bootstrap) as admin:
            await admin.delete_topics([topic])
            deadline_s = time.monotonic() + DEADLINE_S
            while topic in await admin.list_topics():
                assert time.monotonic() < deadline_s
                await asyncio.sleep(0.05)
        await ensure_topics(self.config.kafka, output_topics(self.config))
        await self.add(role, records)

    async def add(self, role: str, records: Sequence[Record]) -> None:
        async with AIOKafkaProducer(bootstrap_servers=self.bootstrap) as producer:
            await send(producer, self.topic(role), records)


@contextlib.asynccontextmanager
async def administrator(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def send(producer: AIOKafkaProducer, topic: str, records: Sequence[Record]) -> None:
    for key, value, head in records:
        await producer.send_and_wait(topic, value, key, partition=0, headers=list(head))


def record_of(output: Output) -> Record:
    return output.key, output.value, tuple(output.headers)


def at(record: Record, name: str, text: str) -> Record:
    """Return a record with another header."""
    key, value, head = record
    return key, value, tuple((k, text.encode() if k == name else v) for k, v in head)


def saying(record: Record, value: bytes) -> Record:
    """Return a record with another value, and the checksum of it."""
    return at((record[0], value, record[2]), "crc32", f"{zlib.crc32(value):08x}")


def sequence(record: Record) -> int:
    return int(dict(record[2])["sequence"])


def kinds(report: Report) -> dict[str, int]:
    return dict(report.counts)


_written: dict[str, Written] = {}


@pytest.fixture
async def written(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Let a service publish, once for all tests; topics that a test has changed are put back."""
    if kafka_bootstrap not in _written:
        topic, symbols, end_ns = await ticks_in(kafka_bootstrap, SEED, n_symbols=6, seconds=240.0)
        folder = tmp_path_factory.mktemp("verify")
        victim = Victim(
            kafka_bootstrap, folder, [topic], symbols, end_ns=end_ns, max_records=5, keep=99
        )
        await victim.prepare()
        await victim.finish()
        config = load_config(victim.config_file)
        found = {
            role: await read(kafka_bootstrap, name) for role, name in topics_by_role(config).items()
        }
        _written[kafka_bootstrap] = Written(config, victim.config_file, kafka_bootstrap, found)
    return _written[kafka_bootstrap]


@pytest.fixture
async def changed(written: Written) -> AsyncIterator[Written]:
    """Give a test the topics to damage."""
    yield written
    for role, records in written.records.items():
        if await read(written.bootstrap, written.topic(role)) != records:
            await written.put(role, records)


async def test_what_a_service_has_published_is_well(written: Written) -> None:
    report = await written.report()
    assert kinds(report) == {}
    assert report.is_well
    journal = report.journals[0]
    assert journal.entries == len(written.records["journal"]) > 5
    assert (journal.equal, journal.not_kept, journal.told, journal.pending) == (
        journal.entries,
        0,
        0,
        0,
    )
    assert not journal.write_ahead
    by_name = {stretch.name: stretch for stretch in report.stretches}
    assert by_name["rejects"].records == len(written.records["rejects"]) > 5
    matrices = by_name["two_scale"] if "two_scale" in by_name else by_name["ewma"]
    assert matrices.records == len(written.records["correlations"]) == matrices.count
    assert (matrices.first, matrices.last) == (
        sequence(written.records["correlations"][0]),
        sequence(written.records["correlations"][-1]),
    )


async def verify(written: Written, *words: object) -> Done:
    return await asyncio.to_thread(run_forked, "verify", *words)


async def test_command_says_so_in_a_table_and_in_json(written: Written) -> None:
    done = await verify(written, "--config", written.file)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == "nothing is wrong"
    n = len(written.records["journal"])
    assert f"u: {n} of {n} entries have the digest of their records" in done.out
    done = await verify(written, "--config", written.file, "--json")
    document = orjson.loads(done.out)
    assert (done.code, document["ok"], document["findings"]) == (0, True, [])
    assert document["journals"][0]["equal"] == n
    prefix = written.config.output.prefix
    unnamed = await verify(
        written, "--bootstrap", written.bootstrap, "--prefix", prefix, "--json", "--matrices"
    )
    assert orjson.loads(unnamed.out)["journals"] == document["journals"]


Damage = Callable[[list[Record]], list[Record]]


def without(i: int) -> Damage:
    return lambda records: records[:i] + records[i + 1 :]


def forged(i: int) -> Damage:
    def change(records: list[Record]) -> list[Record]:
        document = orjson.loads(records[i][1] or b"")
        document["vol"][0] *= 1.0 + 1e-9
        return [*records[:i], saying(records[i], orjson.dumps(document)), *records[i + 1 :]]

    return change


def flipped(i: int) -> Damage:
    def change(records: list[Record]) -> list[Record]:
        key, value, head = records[i]
        damaged = bytearray(value or b"")
        damaged[len(damaged) // 2] ^= 1
        return [*records[:i], (key, bytes(damaged), head), *records[i + 1 :]]

    return change


def twice(i: int) -> Damage:
    return lambda records: [*records[: i + 3], records[i], *records[i + 3 :]]


def twice_otherwise(i: int) -> Damage:
    def change(records: list[Record]) -> list[Record]:
        again = saying(records[i], (records[i][1] or b"") + b" ")
        return [*records[: i + 3], again, *records[i + 3 :]]

    return change


def skipped(records: list[Record]) -> list[Record]:
    """Append a matrix whose sequence is ten too large."""
    last = records[-1]
    document = orjson.loads(last[1] or b"")
    document["sequence"] += 10
    n, name = document["sequence"], document["estimator"]
    record = at(at(last, "sequence", str(n)), "ce_id", f"u|{name}|{n}")
    return [*records, saying(record, orjson.dumps(document))]


def torn(records: list[Record]) -> list[Record]:
    """Append the first and the last of three chunks of a large matrix."""
    n = sequence(records[-1]) + 1
    name = (records[-1][0] or b"").decode().split("|")[1]
    chunks = []
    for i in (1, 3):
        value = b"SCM1" + bytes(900)
        head = headers(
            "matrix",
            f"u|{name}|{n}",
            "u",
            10**18,
            "application/vnd.stream-calib.tri-f32",
            value,
            sequence=str(n),
            chunk=f"{i}/3",
        )
        chunks.append((f"u|{name}|{i - 1}".encode(), value, head))
    return [*records, *chunks]


def of_another_time(i: int) -> Damage:
    return lambda records: [
        *records[:i],
        at(records[i], "ce_time", "2020-01-01T00:00:00.000000000Z"),
        *records[i + 1 :],
    ]


@pytest.mark.parametrize(
    ("role", "damage", "expected"),
    [
        ("correlations", without(20), "gap"),
        ("correlations", skipped, "gap"),
        ("correlations", forged(20), "digest"),
        ("correlations", flipped(20), "checksum"),
        ("correlations", twice(20), "repeated"),
        ("correlations", twice_otherwise(20), "conflict"),
        ("correlations", torn, "torn"),
        ("correlations", of_another_time(20), "headers"),
        ("correlations", lambda r: [*r, (r[0][0], None, ())], "tombstone"),
        ("correlations", lambda r: [*r, (b"nonsense", b"{}", ())], "undecodable"),
        ("correlations", lambda r: r[:-1], "missing"),
        ("rejects", without(3), "digest"),
        ("rejects", lambda r: [*r, r[3]], "unclaimed"),
        ("rejects", lambda r: [r[3], *r], "unclaimed"),
        ("rejects", flipped(3), "checksum"),
        ("universes", flipped(0), "checksum"),
        ("journal", without(-3), "journal_gap"),  # the first entries published events as well
        ("journal", twice(4), "journal_chain"),
        ("journal", lambda r: [*r, (b"u", b"{}", ())], "undecodable"),
    ],
)
async def test_damage_is_told_and_nothing_else(
    changed: Written, role: str, damage: Damage, expected: str
) -> None:
    records = changed.records[role]
    await changed.put(role, damage(list(records)))
    report = await changed.report()
    assert kinds(report) == {expected: 1}, report.findings
    assert [finding.kind for finding in report.findings] == [expected]


async def test_foreign_entry_is_told(changed: Written) -> None:
    """An entry that goes on from the last one, as a second writer would have written it."""
    value = orjson.loads(changed.records["journal"][-1][1] or b"")
    entry = link(
        JournalEntry(
            "u",
            value["number"] + 1,
            n_outputs=1,
            outputs_digest="00" * 16,
            emitted=value["number"] + 1,
            previous=value["chain"],
        )
    )
    await changed.add("journal", [record_of(encode_entry(entry, changed.topic("journal"), 0))])
    report = await changed.report()
    assert kinds(report) == {"digest": 1}
    assert report.findings[0].first == value["number"] + 1


async def test_what_was_aborted_is_not_seen_and_what_hangs_is_told(changed: Written) -> None:
    topic = changed.topic("correlations")
    producer = AIOKafkaProducer(
        bootstrap_servers=changed.bootstrap, transactional_id=f"test-{uuid.uuid4().hex}"
    )
    await producer.start()
    try:
        await producer.begin_transaction()
        await send(producer, topic, skipped(changed.records["correlations"])[-1:])
        await producer.abort_transaction()
        assert (await changed.report()).is_well
        await producer.begin_transaction()
        await send(producer, topic, skipped(changed.records["correlations"])[-1:])
        report = await changed.report()
        assert report.is_well
        assert [note for note in report.notes if "under way" in note] == list(report.notes) != []
        report = await changed.report(hanging_ms=100)
        assert kinds(report) == {"open_transaction": 1}
        done = await verify(changed, "--config", changed.file, "--hanging-after", "100ms")
        assert done.code == 11
        assert "kafka-transactions.sh abort" in done.out
    finally:
        await producer.abort_transaction()
        await producer.stop()


async def test_what_was_deleted_at_the_beginning_is_no_error(changed: Written) -> None:
    place = TopicPartition(changed.topic("journal"), 0)
    async with AIOKafkaConsumer(bootstrap_servers=changed.bootstrap) as consumer:
        end = (await consumer.end_offsets([place]))[place]
    async with administrator(changed.bootstrap) as admin:
        for role, before in (("correlations", 30), ("rejects", 5), ("journal", end // 2)):
            places = {TopicPartition(changed.topic(role), 0): RecordsToDelete(before)}
            await admin.delete_records(places)
    report = await changed.report()
    assert kinds(report) == {}, report.findings
    journal = report.journals[0]
    assert 0 < journal.not_kept < journal.entries
    assert journal.equal + journal.not_kept == journal.entries
