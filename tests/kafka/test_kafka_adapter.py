"""What only a real Kafka can do to its adapter: transactions, crashes, silence."""

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from deploy.kafka.broker import BRIEF, LocalBroker, free_port
from stream_calib.adapters.kafka import (
    KafkaSink,
    KafkaSource,
    TopicSpec,
    check_topics,
    ensure_topics,
    marking,
    sink,
    source,
)
from stream_calib.adapters.kafka.marking import PositionMarker
from stream_calib.config import KafkaConfig
from stream_calib.errors import ConfigError, LostInputError, MissingTopicError, TransportError
from stream_calib.values import Output, RecordBatch, Source
from tests.cli.command import spawn
from tests.contract.test_record_logs import (
    assert_contiguous,
    read_records,
    repeat_range,
    values_of,
)
from tests.kafka.living import Live, ended
from tests.kafka.test_faults_process import (
    names,
    published,
    reaches,
    reference,
    scene,
    tick_rows,
)
from tests.real_parts import ROOT, TopicMaker

DEADLINE_S = 30.0
SECOND_NS = 1_000_000_000


def config_of(bootstrap: str, connect_timeout_s: float = 10.0) -> KafkaConfig:
    return KafkaConfig(
        bootstrap_servers=bootstrap, connect_timeout=int(connect_timeout_s * SECOND_NS)
    )


@contextlib.asynccontextmanager
async def reading(config: KafkaConfig, *topics: str) -> AsyncIterator[KafkaSource]:
    reader = KafkaSource(config, topics)
    await reader.start()
    try:
        await reader.discover()
        yield reader
    finally:
        await reader.close()


@contextlib.asynccontextmanager
async def transactional(bootstrap: str) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, transactional_id=uuid.uuid4().hex, max_batch_size=1000
    )
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def send(producer: AIOKafkaProducer, topic: str, values: Iterable[int]) -> None:
    for value in values:
        await producer.send(topic, b"%d" % value, partition=0)
    await producer.flush()


async def read_to_end(
    reader: KafkaSource, here: Source, at_once: int = 1000, *earlier: RecordBatch
) -> list[RecordBatch]:
    """Continue after ``earlier`` until the reader is where its log ends; return all of it."""
    batches = list(earlier)
    async with asyncio.timeout(DEADLINE_S):
        while not batches or batches[-1].position_after < reader.ends()[here]:
            batches += await reader.poll(at_once, 0.2)
    assert_contiguous(batches)
    return batches


async def committed_positions(bootstrap: str, group: str) -> dict[Source, int]:
    """What a lag tool sees of a group."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    committed = await admin.list_consumer_group_offsets(group)
    await admin.close()
    return {Source(*partition): found.offset for partition, found in committed.items()}


def outputs(topic: str, values: Iterable[int]) -> list[Output]:
    return [Output(topic, 0, b"key", b"%d" % value, ()) for value in values]


@pytest.mark.parametrize("at_once", [1, 3, 5, 1000])
async def test_end_is_reached_over_the_markers_of_transactions(
    kafka_bootstrap: str, new_topic: TopicMaker, at_once: int
) -> None:
    topic = await new_topic()
    here = Source(topic, 0)
    async with transactional(kafka_bootstrap) as producer:
        async with producer.transaction():
            await send(producer, topic, range(5))
        async with producer.transaction():
            await send(producer, topic, range(5, 10))
    async with reading(config_of(kafka_bootstrap), topic) as reader:
        assert reader.ends() == {here: 12}
        batches = await read_to_end(reader, here, at_once)
        assert values_of(batches) == [b"%d" % i for i in range(10)]
        assert batches[-1].position_after == reader.ends()[here] == 12


async def test_open_transaction_is_beyond_the_end_until_it_commits(
    kafka_bootstrap: str, new_topic: TopicMaker
) -> None:
    topic = await new_topic()
    here = Source(topic, 0)
    async with reading(config_of(kafka_bootstrap), topic) as reader:
        async with transactional(kafka_bootstrap) as producer:
            async with producer.transaction():
                await send(producer, topic, [0])
            await read_to_end(reader, here)
            await producer.begin_transaction()
            await send(producer, topic, [1, 2])
            assert await reader.poll(10, 0.5) == []
            assert reader.ends()[here] == 2
            await producer.commit_transaction()
        assert values_of(await read_to_end(reader, here)) == [b"1", b"2"]
        assert reader.ends()[here] == 5


@pytest.mark.parametrize("at_once", [7, 1000])
async def test_aborted_records_are_never_returned(
    kafka_bootstrap: str, new_topic: TopicMaker, at_once: int
) -> None:
    topic = await new_topic()
    here = Source(topic, 0)
    async with (
        transactional(kafka_bootstrap) as first,
        transactional(kafka_bootstrap) as second,
        reading(config_of(kafka_bootstrap), topic) as reader,
    ):
        for start in range(0, 400, 40):
            await first.begin_transaction()
            await second.begin_transaction()
            await send(first, topic, range(start, start + 10))
            await send(second, topic, range(1000, 1020))
            await send(first, topic, range(start + 10, start + 20))
            await second.abort_transaction()
            await first.commit_transaction()
            await first.begin_transaction()
            await send(first, topic, range(1000, 1010))
            await first.abort_transaction()
        kept = [b"%d" % i for start in range(0, 400, 40) for i in range(start, start + 20)]
        batches = await read_records(reader, len(kept), at_once)
        batches = await read_to_end(reader, here, at_once, *batches)
        assert values_of(batches) == kept
        assert values_of(await reader.poll(1000, 1.0)) == []


async def test_ranges_over_markers_and_aborted_records_are_repeated_exactly(
    kafka_bootstrap: str, new_topic: TopicMaker
) -> None:
    topic, other = await new_topic(), await new_topic()
    here, there = Source(topic, 0), Source(other, 0)
    for name in (topic, other):
        async with transactional(kafka_bootstrap) as producer:
            for start in range(0, 300, 10):
                async with producer.transaction():
                    await send(producer, name, range(start, start + 7))
                await producer.begin_transaction()
                await send(producer, name, range(1000, 1003))
                await producer.abort_transaction()
    config = config_of(kafka_bootstrap)
    async with reading(config, topic) as reader:
        first = await read_to_end(reader, here, 13)
    ranges = [(b.position_before, b.position_after, b.offsets, b.values) for b in first]
    assert len(ranges) > 10
    source = KafkaSource(config, [topic, other])
    await source.start()
    for at_once in (1, 5, 1000):
        for before, after, offsets, values in ranges:
            for place in (here, there):  # in turn, as recovery does
                batches = await repeat_range(source, place, before, after, at_once)
                assert values_of(batches) == values
                assert [offset for batch in batches for offset in batch.offsets] == list(offsets)
    end = ranges[-1][1]
    source.resume({here: ranges[3][0], there: end})
    batches = await read_to_end(source, here)
    assert values_of(batches) == [value for *_, values in ranges[3:] for value in values]
    assert {batch.source for batch in batches} == {here}
    await source.close()


async def test_repetition_fetches_ahead_instead_of_anew(
    kafka_bootstrap: str, new_topic: TopicMaker
) -> None:
    topic = await new_topic(partitions=4)
    writer = KafkaSink(config_of(kafka_bootstrap))
    await writer.publish([Output(topic, i % 4, b"", b"%d" % i * 20, ()) for i in range(40_000)])
    await writer.close()
    source = KafkaSource(config_of(kafka_bootstrap), [topic])
    await source.start()
    sent = 0
    send_request = source._consumer._client.send

    async def counted(*args: object, **options: object) -> object:
        nonlocal sent
        sent += 1
        return await send_request(*args, **options)

    source._consumer._client.send = counted
    for start in range(0, 10_000, 10):
        for partition in range(4):
            here = Source(topic, partition)
            batches = await repeat_range(source, here, start, start + 10)
            assert len(values_of(batches, partition)) == 10
    assert sent < 100  # of 4000 ranges
    await source.close()


async def test_records_deleted_unread_are_an_error_that_names_them(
    kafka_bootstrap: str, new_topic: TopicMaker
) -> None:
    topic = await new_topic()
    config = config_of(kafka_bootstrap)
    writer = KafkaSink(config)
    await writer.publish(outputs(topic, range(10)))
    async with reading(config, topic) as reader:
        reader.pause(frozenset({Source(topic, 0)}))
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
        await admin.start()
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(5)})
        await admin.close()
        reader.pause(frozenset())
        for _ in range(2):
            with pytest.raises(LostInputError, match=f"Position 0 of topic '{topic}' partition 0"):
                await read_records(reader, 1)
    async with reading(config, topic) as late:
        (batch,) = await read_records(late, 5)
        assert (batch.position_before, batch.position_after) == (5, 10)
    await writer.close()


async def test_marks_are_seen_by_lag_tools(
    kafka_bootstrap: str, new_topic: TopicMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MARK_S", "LAST_MARK_S"):
        monkeypatch.setattr(marking, name, DEADLINE_S)
    topic = await new_topic(partitions=2)
    group = f"group-{uuid.uuid4().hex}"
    marker = PositionMarker(config_of(kafka_bootstrap), group)
    marker.mark({})
    marker.mark({Source(topic, 0): 3, Source(topic, 1): 1})
    marker.mark({Source(topic, 0): 4})
    await marker.close()
    assert marker.failures == 0
    expected = {Source(topic, 0): 4, Source(topic, 1): 1}
    assert await committed_positions(kafka_bootstrap, group) == expected


async def test_topics_are_created_once_and_grown_when_asked(kafka_bootstrap: str) -> None:
    config = config_of(kafka_bootstrap)
    first, second = (f"made-{uuid.uuid4().hex}" for _ in range(2))
    specs = [TopicSpec(first, 2, 1, {"cleanup.policy": "compact"}), TopicSpec(second)]
    assert await ensure_topics(config, specs) == [first, second]
    assert await ensure_topics(config, specs) == []
    assert await check_topics(config, [second, first]) == {first: 2, second: 1}
    assert await ensure_topics(config, [TopicSpec(second, 3)]) == []
    assert await check_topics(config, [second]) == {second: 1}
    assert await ensure_topics(config, [TopicSpec(second, 3)], grow=True) == []
    assert await check_topics(config, [second]) == {second: 3}


async def test_topic_that_is_refused_is_named(kafka_bootstrap: str) -> None:
    config = config_of(kafka_bootstrap)
    with pytest.raises(TransportError, match=r"Topic 'three' cannot be created: .*replica"):
        await ensure_topics(config, [TopicSpec("three", 1, 9)])
    with pytest.raises(
        TransportError, match=r"Topic 'wrong' cannot be created: .*no\.such\.setting"
    ):
        await ensure_topics(config, [TopicSpec("wrong", 1, 1, {"no.such.setting": "1"})])


async def test_asking_for_a_topic_never_creates_it(tmp_path: Path) -> None:
    with LocalBroker(
        tmp_path, settings={"auto.create.topics.enable": "true"}, java_options=BRIEF
    ) as broker:
        config = config_of(broker.bootstrap)
        for _ in range(2):
            with pytest.raises(MissingTopicError):
                await KafkaSource(config, ["misspelt"]).start()
            with pytest.raises(MissingTopicError):
                await KafkaSink(config).publish(outputs("misspelt", [1]))


async def test_missing_compiled_part_is_a_warning(
    kafka_bootstrap: str, new_topic: TopicMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    class DefaultRecordBatch: ...

    monkeypatch.setattr(source, "DefaultRecordBatch", DefaultRecordBatch)
    reader = KafkaSource(config_of(kafka_bootstrap), [await new_topic()])
    with pytest.warns(RuntimeWarning, match="several times slower"):
        await reader.start()
    await reader.close()


@pytest.mark.chaos
async def test_f71_service_without_the_compiled_part_says_so_and_publishes_the_same_bytes(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    victim = await scene(kafka_bootstrap, tmp_path, lambda t: tick_rows(t, names(6), seed))
    expected = await reference(victim)
    without = {"AIOKAFKA_NO_EXTENSIONS": "1"}  # from nothing: it counts when it is imported
    words = ("run", "--config", victim.config_file)
    live = Live(await asyncio.to_thread(spawn, *words, cwd=victim.folder, env=without))
    await asyncio.to_thread(live.until_said, "running")
    await published(live, victim, reaches(expected))
    done = await ended(live, signal.SIGTERM)
    assert (done.code, done.sentence) == (0, "")
    warned = [entry for entry in done.log if "lacks its compiled part" in entry["event"]]
    assert [entry["level"] for entry in warned] == ["warning"]
    assert await victim.published() == expected, f"seed {seed}"


@contextlib.asynccontextmanager
async def listening(answer: bytes | None) -> AsyncIterator[str]:
    """Something that accepts connections and is no Kafka."""

    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        if answer is not None:
            await reader.read(1)
            writer.write(answer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server:
        yield f"{host}:{port}"
    for writer in writers:
        writer.close()
        await writer.wait_closed()


async def assert_unreachable(config: KafkaConfig, words: str) -> None:
    for adapter in (KafkaSource(config, ["t"]), KafkaSink(config)):
        started_s = time.monotonic()
        with pytest.raises(TransportError, match=words):
            await adapter.start()
        assert (
            time.monotonic() - started_s < config.connect_timeout / SECOND_NS + 8.0
        )  # not the library's 40 s
        await adapter.close()


async def test_unreachable_broker_is_named_in_one_sentence() -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    sentence = f"^Kafka at {nowhere} cannot be reached: Connection refused$"
    await assert_unreachable(config_of(nowhere), sentence)
    both = f"localhost:{free_port()},{nowhere}"
    await assert_unreachable(config_of(both), f"^Kafka at {both} cannot be reached: Connection ref")
    unknown = "no-such-host.invalid:9092"
    await assert_unreachable(config_of(unknown, 5.0), f"^Kafka at {unknown} cannot be reached: ")


async def test_what_is_no_kafka_is_given_up_in_time() -> None:
    for answer in (None, b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\0\0\x04abcd"):
        async with listening(answer) as place:
            await assert_unreachable(config_of(place, 1.0), f"^Kafka at {place} ")


async def test_address_that_is_none_is_an_error_of_the_configuration() -> None:
    for wrong in ("localhost:http", ("127.0.0.1:9092", "127.0.0.1:x")):
        with pytest.raises(ConfigError, match=r"^kafka\.bootstrap_servers: '.*host:port"):
            await KafkaSink(KafkaConfig(bootstrap_servers=wrong)).start()


def test_nothing_of_the_client_is_printed() -> None:
    program = f"""
        import asyncio
        from stream_calib.adapters.kafka import KafkaSink, KafkaSource
        from stream_calib.config import KafkaConfig
        from stream_calib.errors import TransportError

        async def main():
            config = KafkaConfig(bootstrap_servers="127.0.0.1:{free_port()}")
            for adapter in (KafkaSource(config, ["t"]), KafkaSink(config)):
                try:
                    await adapter.start()
                except TransportError as error:
                    print(error)
                await adapter.close()

        asyncio.run(main())
    """
    command = [sys.executable, "-X", "dev", "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    # on a busy machine the loop itself complains of steps that took long
    said = [line for line in done.stderr.splitlines() if not line.startswith("Executing <")]
    assert said == []
    assert [line.endswith("Connection refused") for line in done.stdout.splitlines()] == [True] * 2


@pytest.mark.chaos
async def test_crash_of_the_broker_leaves_no_gap_and_no_repetition(own_broker: LocalBroker) -> None:
    config = config_of(own_broker.bootstrap)
    topic = f"ticks-{uuid.uuid4().hex[:12]}"
    await ensure_topics(config, [TopicSpec(topic, 2)])
    writer = KafkaSink(config)
    async with reading(config, topic) as reader:
        batches: list[RecordBatch] = []
        for crash in range(3):
            for start in range(0, 200, 50):
                first = crash * 200 + start
                await writer.publish(
                    [Output(topic, i % 2, b"", b"%d" % i, ()) for i in range(first, first + 50)]
                )
            batches += await reader.poll(100, 1.0)  # some of it is buffered, some is not
            await asyncio.to_thread(own_broker.kill)
            batches += await reader.poll(30, 0.2)
            batches += await reader.poll(1000, 0.2)
            await asyncio.to_thread(own_broker.start)
        await writer.publish([Output(topic, 0, b"", b"end", ())])
        async with asyncio.timeout(DEADLINE_S):
            while len(values_of(batches, 0)) + len(values_of(batches, 1)) < 601:
                batches += await reader.poll(100, 0.5)
                assert await reader.discover() == ()
    await writer.close()
    assert_contiguous(batches)
    assert values_of(batches, 1) == [b"%d" % i for i in range(1, 600, 2)]
    assert values_of(batches, 0) == [*(b"%d" % i for i in range(0, 600, 2)), b"end"]


async def test_publishing_outlives_a_restart_of_the_broker(own_broker: LocalBroker) -> None:
    config = config_of(own_broker.bootstrap)
    topic = f"out-{uuid.uuid4().hex[:12]}"
    await ensure_topics(config, [TopicSpec(topic)])
    writer = KafkaSink(config)
    await writer.publish(outputs(topic, range(10)))
    await asyncio.to_thread(own_broker.kill)
    publish = asyncio.create_task(writer.publish(outputs(topic, range(10, 20))))
    await asyncio.sleep(0.5)
    await asyncio.to_thread(own_broker.start)
    await publish
    await writer.close()
    async with reading(config, topic) as reader:
        assert values_of(await read_records(reader, 20)) == [b"%d" % i for i in range(20)]


@pytest.mark.parametrize(
    "sign", [pytest.param(signal.SIGKILL, marks=pytest.mark.chaos), signal.SIGSTOP]
)
async def test_broker_that_is_gone_hangs_nobody(
    own_broker: LocalBroker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    sign: signal.Signals,
) -> None:
    monkeypatch.setattr(sink, "PUBLISH_S", 2.0)
    monkeypatch.setattr(marking, "MARK_S", 1.0)
    config = config_of(own_broker.bootstrap, 3.0)
    topic = f"t-{uuid.uuid4().hex[:12]}"
    await ensure_topics(config_of(own_broker.bootstrap, DEADLINE_S), [TopicSpec(topic)])
    writer = KafkaSink(config)
    await writer.publish(outputs(topic, range(10)))
    marker = PositionMarker(config, "group")
    reader = KafkaSource(config, [topic])
    await reader.start()
    await reader.discover()
    await read_records(reader, 10)
    assert own_broker.pid is not None
    os.kill(own_broker.pid, sign)
    try:
        async with asyncio.timeout(60):
            started_s = time.monotonic()
            assert await reader.poll(10, 0.5) == []
            marker.mark({Source(topic, 0): 10})
            assert await reader.poll(10, 0.5) == []
            assert time.monotonic() - started_s < 10.0  # not the library's 40 s
            with pytest.raises(TransportError, match=f"Kafka at {own_broker.bootstrap} did not"):
                await writer.publish(outputs(topic, range(10, 20)))
            with pytest.raises(TransportError, match=f"Kafka at {own_broker.bootstrap} "):
                await writer.publish(outputs(topic, range(20, 30)))
            assert marker.failures == 1
            with pytest.raises(TransportError, match=f"Kafka at {own_broker.bootstrap} "):
                await reader.bounds([Source(topic, 0)])
            with pytest.raises(TransportError, match=f"Kafka at {own_broker.bootstrap} "):
                await reader.read(Source(topic, 0), 0, 10, 100)
            await marker.close()
            await reader.close()
            await writer.close()
        del reader, writer, marker
        gc.collect()
        await asyncio.sleep(0)
        assert caplog.records == []  # such as of exceptions that nobody took
        assert asyncio.all_tasks() == {asyncio.current_task()}
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(own_broker.pid or -1, signal.SIGCONT)


async def test_record_too_large_is_an_error_and_the_sink_goes_on(
    kafka_bootstrap: str, new_topic: TopicMaker
) -> None:
    topic = await new_topic(configs={"max.message.bytes": "10000"})
    writer = KafkaSink(config_of(kafka_bootstrap))
    for size in (20_000, 3_000_000):
        with pytest.raises(TransportError, match="MessageSizeTooLargeError"):
            await writer.publish([Output(topic, 0, b"", bytes(size), ())])
    await writer.publish(outputs(topic, [1]))
    await writer.close()
    async with reading(config_of(kafka_bootstrap), topic) as reader:
        assert values_of(await read_records(reader, 1)) == [b"1"]


async def test_what_a_fetch_told_of_an_end_outlives_an_assignment(
    kafka_bootstrap: str, new_topic: TopicMaker
) -> None:
    topic = await new_topic()
    here = Source(topic, 0)
    async with transactional(kafka_bootstrap) as producer:
        async with producer.transaction():
            await send(producer, topic, range(4))
        async with reading(config_of(kafka_bootstrap), topic) as reader:
            await read_to_end(reader, here)
            async with producer.transaction():
                await send(producer, topic, range(4, 9))
            async with asyncio.timeout(DEADLINE_S):
                while not await reader.poll(1, 0.5):
                    pass
            assert reader.ends() == {here: 11}
            reader.resume({here: 6})  # as when a partition is discovered
            assert reader.ends() == {here: 11}
