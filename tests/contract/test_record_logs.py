"""What holds for every record log: written here, read there, the same bytes in the same order."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple, Protocol

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from stream_calib.adapters.embedded import EmbeddedLog, EmbeddedSink, EmbeddedSource
from stream_calib.adapters.kafka import KafkaSink, KafkaSource, TopicSpec, ensure_topics
from stream_calib.config import KafkaConfig
from stream_calib.errors import LostInputError, MissingTopicError, TransportError
from stream_calib.ports import RecordSink, RecordSource
from stream_calib.values import Output, RecordBatch, Source

DEADLINE_S = 60.0
Headers = tuple[tuple[str, bytes], ...]


class Written(NamedTuple):
    """A record as a stranger reads it."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int


class RecordLog(Protocol):
    """A kind of log, and a way past its adapters."""

    async def create(self, partitions: int = 1, topic: str | None = None) -> str: ...

    async def write(
        self, topic: str, *values: bytes | None, partition: int = 0, timestamp_ms: int | None = None
    ) -> None: ...

    async def read(self, topic: str, count: int) -> list[Written]: ...

    async def delete(self, topic: str, before: int) -> None: ...

    def source(self, *topics: str) -> RecordSource: ...

    def sink(self) -> RecordSink: ...


class Embedded:
    def __init__(self) -> None:
        self.log = EmbeddedLog()

    async def create(self, partitions: int = 1, topic: str | None = None) -> str:
        topic = topic or uuid.uuid4().hex
        self.log.create_topic(topic, partitions)
        return topic

    async def write(
        self, topic: str, *values: bytes | None, partition: int = 0, timestamp_ms: int | None = None
    ) -> None:
        for value in values:
            self.log.append(topic, partition, b"key", value, (), timestamp_ms)

    async def read(self, topic: str, count: int) -> list[Written]:
        return [
            Written(r.key, r.value, r.headers, r.timestamp_ms)
            for r in self.log.read(topic, 0, 0)[:count]
        ]

    async def delete(self, topic: str, before: int) -> None:
        self.log.trim(topic, 0, before)

    def source(self, *topics: str) -> RecordSource:
        return EmbeddedSource(self.log, topics)

    def sink(self) -> RecordSink:
        return EmbeddedSink(self.log)


class RealKafka:
    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.config = KafkaConfig(bootstrap_servers=bootstrap)

    async def create(self, partitions: int = 1, topic: str | None = None) -> str:
        topic = topic or f"contract-{uuid.uuid4().hex}"
        await ensure_topics(self.config, [TopicSpec(topic, partitions)], grow=True)
        return topic

    async def write(
        self, topic: str, *values: bytes | None, partition: int = 0, timestamp_ms: int | None = None
    ) -> None:
        async with AIOKafkaProducer(bootstrap_servers=self.bootstrap) as producer:
            for value in values:
                await producer.send(topic, value, b"key", partition, timestamp_ms)
            await producer.flush()

    async def read(self, topic: str, count: int) -> list[Written]:
        found: list[Written] = []
        partition = TopicPartition(topic, 0)
        async with AIOKafkaConsumer(bootstrap_servers=self.bootstrap) as consumer:
            consumer.assign([partition])
            consumer.seek(partition, 0)
            async with asyncio.timeout(DEADLINE_S):
                while len(found) < count:
                    r = await consumer.getone()
                    found.append(Written(r.key, r.value, tuple(r.headers), r.timestamp))
        return found

    async def delete(self, topic: str, before: int) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before)})
        await admin.close()

    def source(self, *topics: str) -> RecordSource:
        return KafkaSource(self.config, topics)

    def sink(self) -> RecordSink:
        return KafkaSink(self.config)


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def log(request: pytest.FixtureRequest) -> RecordLog:
    if request.param == "embedded":
        return Embedded()
    return RealKafka(request.getfixturevalue("kafka_bootstrap"))


@contextlib.asynccontextmanager
async def reading(log: RecordLog, *topics: str) -> AsyncIterator[RecordSource]:
    """A source that has started and knows its partitions."""
    source = log.source(*topics)
    await source.start()
    try:
        await source.discover()
        yield source
    finally:
        await source.close()


@contextlib.asynccontextmanager
async def writing(log: RecordLog) -> AsyncIterator[RecordSink]:
    sink = log.sink()
    await sink.start()
    try:
        yield sink
    finally:
        await sink.close()


async def read_records(source: RecordSource, count: int, at_once: int = 1000) -> list[RecordBatch]:
    """Poll until ``count`` records have come, and check what holds for all batches."""
    batches: list[RecordBatch] = []
    async with asyncio.timeout(DEADLINE_S):
        while sum(len(batch.values) for batch in batches) < count:
            polled = await source.poll(at_once, 0.5)
            assert sum(len(batch.values) for batch in polled) <= at_once
            batches += polled
    assert_contiguous(batches)
    return batches


def assert_contiguous(batches: Sequence[RecordBatch]) -> None:
    after: dict[Source, int] = {}
    for batch in batches:
        assert len(batch.offsets) == len(batch.timestamps_ms) == len(batch.values)
        assert batch.position_before == after.get(batch.source, batch.position_before)
        bounds = [batch.position_before - 1, *batch.offsets, batch.position_after]
        assert bounds == sorted(set(bounds))
        after[batch.source] = batch.position_after


def values_of(batches: Sequence[RecordBatch], partition: int = 0) -> list[bytes | None]:
    return [v for batch in batches if batch.source.partition == partition for v in batch.values]


def output(topic: str, value: bytes, partition: int = 0, headers: Headers = ()) -> Output:
    return Output(topic, partition, b"key", value, headers)


async def test_published_bytes_are_read_in_order(log: RecordLog) -> None:
    topic = await log.create()
    values = [b"%d" % i for i in range(50)]
    async with writing(log) as sink, reading(log, topic) as source:
        await sink.publish([output(topic, value) for value in values[:20]])
        await sink.publish([output(topic, value) for value in values[20:]])
        assert values_of(await read_records(source, 50)) == values


async def test_key_and_binary_headers_are_written_as_given(log: RecordLog) -> None:
    topic = await log.create()
    headers = (("plain", b"text"), ("binary", bytes(range(256))), ("plain", b""))
    async with writing(log) as sink:
        await sink.publish([Output(topic, 0, b"\x00\xffkey", b"value", headers)])
    (written,) = await log.read(topic, 1)
    assert (written.key, written.value, written.headers) == (b"\x00\xffkey", b"value", headers)
    assert abs(written.timestamp_ms - time.time() * 1000) < 60_000


async def test_reading_starts_at_the_first_record(log: RecordLog) -> None:
    topic = await log.create()
    await log.write(topic, b"old", b"older")
    async with reading(log, topic) as source:
        (batch,) = await read_records(source, 2)
        assert (batch.source, batch.position_before) == (Source(topic, 0), 0)
        assert (batch.position_after, list(batch.offsets)) == (2, [0, 1])


async def test_batches_are_small_when_asked_and_contiguous(log: RecordLog) -> None:
    topic = await log.create()
    await log.write(topic, *(b"%d" % i for i in range(25)))
    async with reading(log, topic) as source:
        batches = await read_records(source, 25, at_once=10)
        assert [len(batch.values) for batch in batches] == [10, 10, 5]


async def test_partitions_are_sources_in_order(log: RecordLog) -> None:
    topic, other = await log.create(3), await log.create(1)
    source = log.source(topic, other)
    await source.start()
    try:
        expected = sorted([Source(topic, 0), Source(topic, 1), Source(topic, 2), Source(other, 0)])
        assert list(await source.discover()) == expected
        assert await source.discover() == ()
    finally:
        await source.close()


async def test_each_partition_keeps_its_own_order(log: RecordLog) -> None:
    topic = await log.create(2)
    outputs = [output(topic, b"%d" % i, partition=i % 2) for i in range(40)]
    async with writing(log) as sink, reading(log, topic) as source:
        await sink.publish(outputs)
        batches = await read_records(source, 40)
        for partition in (0, 1):
            expected = [o.value for o in outputs if o.partition == partition]
            assert values_of(batches, partition) == expected


async def test_empty_value_and_tombstone_are_not_the_same(log: RecordLog) -> None:
    topic = await log.create()
    await log.write(topic, b"", None, b"x")
    async with reading(log, topic) as source:
        assert values_of(await read_records(source, 3)) == [b"", None, b"x"]


async def test_timestamps_are_those_of_the_log(log: RecordLog) -> None:
    topic = await log.create()
    await log.write(topic, b"", timestamp_ms=1_400_000_000_123)
    async with reading(log, topic) as source:
        (batch,) = await read_records(source, 1)
        assert list(batch.timestamps_ms) == [1_400_000_000_123]


async def test_a_record_of_almost_a_mebibyte_passes(log: RecordLog) -> None:
    topic = await log.create()
    values = [bytes([i]) * 1_000_000 for i in range(3)]
    async with writing(log) as sink, reading(log, topic) as source:
        await sink.publish([output(topic, value) for value in values])
        assert values_of(await read_records(source, 3)) == values


async def test_ends_are_reached(log: RecordLog) -> None:
    topic = await log.create(2)
    await log.write(topic, *[b""] * 30)
    async with reading(log, topic) as source:
        assert source.ends() == {Source(topic, 0): 30, Source(topic, 1): 0}
        batches = await read_records(source, 30, at_once=7)
        assert batches[-1].position_after == source.ends()[Source(topic, 0)] == 30
        await log.write(topic, b"")
        (batch,) = await read_records(source, 1)
        assert batch.position_after == source.ends()[Source(topic, 0)] == 31
        assert not source.exhausted()


async def test_poll_gives_up_after_its_timeout(log: RecordLog) -> None:
    topic = await log.create()
    async with reading(log, topic) as source:
        started_s = time.monotonic()
        assert await source.poll(10, 0.3) == []
        assert 0.2 < time.monotonic() - started_s < 2.0
        source.pause(frozenset({Source(topic, 0)}))
        assert await source.poll(10, 0.1) == []


async def test_poll_returns_as_soon_as_a_record_comes(log: RecordLog) -> None:
    topic = await log.create()
    async with writing(log) as sink, reading(log, topic) as source:
        await sink.publish([output(topic, b"first")])
        await read_records(source, 1)
        poll = asyncio.create_task(source.poll(10, DEADLINE_S))
        await asyncio.sleep(0.05)
        started_s = time.monotonic()
        await sink.publish([output(topic, b"second")])
        assert values_of(await poll) == [b"second"]
        assert time.monotonic() - started_s < DEADLINE_S / 4


async def test_poll_without_patience_returns_what_is_there(log: RecordLog) -> None:
    topic = await log.create()
    await log.write(topic, b"x")
    async with reading(log, topic) as source, asyncio.timeout(DEADLINE_S):
        while not (batches := await source.poll(10, 0.0)):
            pass
        assert values_of(batches) == [b"x"]


async def test_paused_sources_wait_and_lose_nothing(log: RecordLog) -> None:
    topic = await log.create(2)
    for partition in (0, 1):
        await log.write(topic, *(b"%d" % i for i in range(100)), partition=partition)
    async with reading(log, topic) as source:
        batches: list[RecordBatch] = []
        async with asyncio.timeout(DEADLINE_S):
            turn = 0
            while sum(len(batch.values) for batch in batches) < 200:
                paused = Source(topic, turn % 2)
                source.pause(frozenset({paused}))
                polled = await source.poll(30, 0.1)
                assert paused not in {batch.source for batch in polled}
                batches += polled
                turn += 1
        assert_contiguous(batches)
        for partition in (0, 1):
            assert values_of(batches, partition) == [b"%d" % i for i in range(100)]


async def test_pausing_is_absolute(log: RecordLog) -> None:
    topic = await log.create(2)
    await log.write(topic, b"0", partition=0)
    await log.write(topic, b"1", partition=1)
    async with reading(log, topic) as source:
        source.pause(frozenset({Source(topic, 0)}))
        assert values_of(await read_records(source, 1), 1) == [b"1"]
        source.pause(frozenset())
        assert values_of(await read_records(source, 1), 0) == [b"0"]


async def test_partition_added_later_is_discovered_and_read_from_its_start(log: RecordLog) -> None:
    topic = await log.create()
    await log.write(topic, b"0")
    async with reading(log, topic) as source:
        first = await read_records(source, 1)
        await log.create(2, topic)
        await log.write(topic, b"1", partition=1)
        await log.write(topic, b"more")
        async with asyncio.timeout(DEADLINE_S):
            new: tuple[Source, ...] = ()
            while not new:
                await asyncio.sleep(0.1)
                new = await source.discover()
        assert new == (Source(topic, 1),)
        batches = first + await read_records(source, 2)
        assert_contiguous(batches)
        assert values_of(batches, 0) == [b"0", b"more"]
        assert values_of(batches, 1) == [b"1"]


async def test_cancelled_polls_lose_nothing(log: RecordLog) -> None:
    topic = await log.create()
    values = [b"%d" % i for i in range(300)]
    async with writing(log) as sink, reading(log, topic) as source:
        batches: list[RecordBatch] = []
        for start in range(0, 300, 10):
            await sink.publish([output(topic, value) for value in values[start : start + 10]])
            poll = asyncio.create_task(source.poll(7, 1.0))
            await asyncio.sleep(start / 1e5)
            poll.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                batches += await poll
        missing = 300 - sum(len(batch.values) for batch in batches)
        batches += await read_records(source, missing)
        assert_contiguous(batches)
        assert values_of(batches) == values


async def repeat_range(
    source: RecordSource, here: Source, start: int, stop: int, at_once: int = 1000
) -> list[RecordBatch]:
    """Read a range once more, as recovery does, and check what holds for every part of it."""
    batches: list[RecordBatch] = []
    position = start
    async with asyncio.timeout(DEADLINE_S):
        while position < stop:
            batch = await source.read(here, position, stop, at_once)
            assert (batch.source, batch.position_before) == (here, position)
            assert position < batch.position_after <= stop
            assert len(batch.values) <= at_once
            position = batch.position_after
            batches.append(batch)
    assert_contiguous(batches)
    return batches


async def test_ranges_are_read_again_and_polling_goes_on_behind_them(log: RecordLog) -> None:
    topic = await log.create(3)
    for partition in (0, 1, 2):
        await log.write(topic, *(b"%d" % i for i in range(100)), partition=partition)
    a, b, c = (Source(topic, partition) for partition in (0, 1, 2))
    source = log.source(topic)
    await source.start()
    try:
        found: dict[Source, list[bytes | None]] = {a: [], b: []}
        for start in range(0, 60, 6):
            for here in (a, b):
                for batch in await repeat_range(source, here, start, start + 6, 4):
                    found[here] += batch.values
        assert found[a] == found[b] == [b"%d" % i for i in range(60)]
        assert (await source.read(a, 60, 60, 10)).position_after == 60
        source.resume({a: 60, b: 40})
        assert await source.discover() == (c,)
        assert await source.discover() == ()
        batches = await read_records(source, 200, at_once=30)
        assert values_of(batches, 0) == [b"%d" % i for i in range(60, 100)]
        assert values_of(batches, 1) == [b"%d" % i for i in range(40, 100)]
        assert values_of(batches, 2) == [b"%d" % i for i in range(100)]
        assert source.ends() == {a: 100, b: 100, c: 100}
    finally:
        await source.close()


async def test_the_same_source_can_start_over(log: RecordLog) -> None:
    topic = await log.create(2)
    await log.write(topic, *(b"%d" % i for i in range(20)))
    a, b = Source(topic, 0), Source(topic, 1)
    async with reading(log, topic) as source:
        source.pause(frozenset({a}))
        assert await source.poll(10, 0.1) == []
        source.pause(frozenset())
        await read_records(source, 20)
        source.pause(frozenset({a}))
        (batch,) = await repeat_range(source, a, 3, 8)
        assert batch.values == [b"%d" % i for i in range(3, 8)]
        source.pause(frozenset())
        source.resume({a: 8})
        assert await source.discover() == (b,)
        assert values_of(await read_records(source, 12)) == [b"%d" % i for i in range(8, 20)]


async def test_bounds_are_what_is_kept(log: RecordLog) -> None:
    topic, empty = await log.create(), await log.create()
    await log.write(topic, *[b"x"] * 10)
    await log.delete(topic, 4)
    async with reading(log, topic, empty) as source:
        nowhere = [Source(topic, 1), Source("no-such-topic", 0)]
        bounds = await source.bounds([Source(topic, 0), Source(empty, 0), *nowhere])
        assert bounds == {Source(topic, 0): (4, 10), Source(empty, 0): (0, 0)}


async def test_range_that_is_not_there_is_named(log: RecordLog) -> None:
    topic = await log.create()
    here = Source(topic, 0)
    await log.write(topic, *[b"x"] * 10)
    await log.delete(topic, 4)
    async with reading(log, topic) as source:
        where = f"of topic '{topic}' partition 0 are needed again and no longer in the log"
        for start, stop in [(0, 6), (3, 4), (8, 11), (20, 21)]:
            with pytest.raises(LostInputError, match=f"^Positions {start} to {stop} {where}"):
                await source.read(here, start, stop, 100)
        for lost in (Source(topic, 7), Source("no-such-topic", 0)):
            with pytest.raises(LostInputError, match=f"Positions 0 to 1 of topic '{lost.topic}'"):
                await source.read(lost, 0, 1, 100)
        assert (await repeat_range(source, here, 4, 10))[-1].position_after == 10
        await log.delete(topic, 10)
        with pytest.raises(LostInputError, match=f"^Positions 4 to 10 {where}"):
            await source.read(here, 4, 10, 100)
        source.resume({here: 5})
        with pytest.raises(LostInputError, match="Position 5 of topic"):
            await read_records(source, 1)


async def test_cancelled_repetitions_lose_nothing(log: RecordLog) -> None:
    topic = await log.create()
    here = Source(topic, 0)
    values = [b"%d" % i for i in range(300)]
    await log.write(topic, *values)
    async with reading(log, topic) as source:
        found: list[bytes | None] = []
        position = 0
        while position < 300:
            stop = min(position + 10, 300)
            read = asyncio.create_task(source.read(here, position, stop, 7))
            await asyncio.sleep(position / 1e5)
            read.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await read
            batch = await source.read(here, position, stop, 10)
            found += batch.values
            position = batch.position_after
        assert found == values


async def test_missing_topic_is_named_with_the_remedy(log: RecordLog) -> None:
    source = log.source("no-such-topic")
    with pytest.raises(MissingTopicError, match=r"'no-such-topic'.*stream-calib topics create"):
        await source.start()
    await source.close()
    async with writing(log) as sink:
        with pytest.raises(MissingTopicError, match=r"'no-such-topic'.*stream-calib topics create"):
            await sink.publish([output("no-such-topic", b"")])


async def test_missing_partition_is_named_and_the_sink_goes_on(log: RecordLog) -> None:
    topic = await log.create()
    async with writing(log) as sink, reading(log, topic) as source:
        with pytest.raises(TransportError, match=f"'{topic}' has no partition 7, only 1"):
            await sink.publish([output(topic, b"lost"), output(topic, b"lost", partition=7)])
        await sink.publish([output(topic, b"kept")])
        assert values_of(await read_records(source, 1)) == [b"kept"]


async def test_a_sink_notices_new_partitions(log: RecordLog) -> None:
    topic = await log.create()
    async with writing(log) as sink:
        await sink.publish([output(topic, b"0")])
        await log.create(2, topic)
        await sink.publish([output(topic, b"1", partition=1)])
    async with reading(log, topic) as source:
        assert values_of(await read_records(source, 2), 1) == [b"1"]


async def test_closing_twice_is_harmless(log: RecordLog) -> None:
    topic = await log.create()
    await log.write(topic, b"x")
    async with reading(log, topic) as source, writing(log) as sink:
        await sink.publish([output(topic, b"")])
        await sink.publish([])
        await sink.close()
        await source.close()
    never_started: list[Any] = [log.source(topic), log.sink()]
    for adapter in never_started:
        await adapter.close()


async def test_embedded_log_ends_when_its_writers_are_finished() -> None:
    log = EmbeddedLog()
    log.create_topic("t", 2)
    log.append("t", 1, None, b"x")
    finished = False
    source = EmbeddedSource(log, ["t"], lambda: finished)
    await source.start()
    await source.discover()
    assert not source.exhausted()
    finished = True
    assert not source.exhausted()
    assert values_of(await source.poll(10, 0), 1) == [b"x"]
    assert source.exhausted()


async def test_embedded_log_forgets_what_it_need_not_keep() -> None:
    log = EmbeddedLog(retention=10)
    log.create_topic("t")
    source = EmbeddedSource(log, ["t"])
    await source.discover()
    for i in range(100):
        assert log.append("t", 0, None, b"%d" % i) == i
    first, end = log.bounds("t", 0)
    assert end == 100
    assert 10 <= end - first <= 20
    assert log.read("t", 0, first)[0].value == b"%d" % first
    with pytest.raises(LostInputError, match="Position 0 of topic 't' partition 0 is no longer"):
        await source.poll(10, 0)
    log.create_topic("kept", keep=True)
    for _ in range(100):
        log.append("kept", 0, None, b"")
    log.trim("kept", 0, 90)
    assert log.bounds("kept", 0) == (90, 100)
    log.trim("kept", 0, 50)
    log.trim("kept", 0, 200)
    assert log.bounds("kept", 0) == (100, 100)
    assert log.append("kept", 0, None, b"") == 100
    late = EmbeddedSource(log, ["t"])
    await late.discover()
    assert (await late.poll(1, 0))[0].position_before == first
