"""A topic that is deleted and made anew while it is read, in all ways a reader may miss it."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable

import pytest
import structlog
from aiokafka import AIOKafkaProducer

from stream_calib.adapters.kafka import KafkaSource, TopicSpec, ensure_topics, identity
from stream_calib.config import KafkaConfig
from stream_calib.errors import LostInputError
from stream_calib.values import RecordBatch, Source
from tests.kafka.service import write
from tests.kafka.test_faults_log import made_anew

DEADLINE_S = 60.0  # far above what a poll takes on a busy machine


def rows(topic: str, first: int, n: int) -> list[tuple[str, int, bytes]]:
    return [(topic, 0, b"%d" % k) for k in range(first, first + n)]


@contextlib.asynccontextmanager
async def reading(
    bootstrap: str, monkeypatch: pytest.MonkeyPatch, n: int
) -> AsyncIterator[tuple[KafkaSource, Source]]:
    """A source that has read ``n`` records, leaves its partition alone, and looks at each poll."""
    monkeypatch.setattr(identity, "LOOK_EVERY_S", 0.0)
    config, topic = KafkaConfig(bootstrap_servers=bootstrap), f"anew-{uuid.uuid4().hex[:12]}"
    await ensure_topics(config, [TopicSpec(topic)])
    await write(bootstrap, rows(topic, 0, n))
    source, here = KafkaSource(config, [topic]), Source(topic, 0)
    await source.start()
    try:
        assert await source.discover() == (here,)
        assert [v for b in await polled(source, n) for v in b.values] == [
            b"%d" % k for k in range(n)
        ]
        source.pause(frozenset({here}))
        await source.poll(1, 0.3)  # the fetch under way is over
        yield source, here
    finally:
        await source.close()


def at_each_look(source: KafkaSource, do: Callable[[identity._DescribeTopics], object]) -> None:
    """Do something with each request for ids before it is sent."""
    client = source._consumer._client
    send = client.send

    async def told(node: int, request: object, **options: object) -> object:
        if isinstance(request, identity._DescribeTopics):
            do(request)
        return await send(node, request, **options)

    client.send = told


async def polled(source: KafkaSource, n: int) -> list[RecordBatch]:
    found: list[RecordBatch] = []
    async with asyncio.timeout(DEADLINE_S):
        while sum(len(batch.values) for batch in found) < n:
            found += await source.poll(1000, 0.2)
    return found


async def test_nothing_is_handed_on_of_a_topic_that_took_the_place_of_another(
    kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reading(kafka_bootstrap, monkeypatch, 10) as (source, here):
        await made_anew(kafka_bootstrap, here.topic, rows(here.topic, 1000, 20))
        source.pause(frozenset())
        for _ in range(2):
            with pytest.raises(LostInputError, match=f"^Topic '{here.topic}' .* position 10 on "):
                await polled(source, 1)


async def test_a_topic_of_which_nothing_was_read_may_be_made_anew(
    kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reading(kafka_bootstrap, monkeypatch, 0) as (source, here):
        await made_anew(kafka_bootstrap, here.topic, rows(here.topic, 0, 5))
        source.pause(frozenset())
        assert [len(batch.values) for batch in await polled(source, 5)] == [5]
        await made_anew(kafka_bootstrap, here.topic, rows(here.topic, 0, 20))
        with pytest.raises(LostInputError):
            await polled(source, 1)


async def test_a_topic_made_anew_between_recovery_and_the_first_poll_is_noticed(
    kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reading(kafka_bootstrap, monkeypatch, 10) as (_, here):
        later = KafkaSource(KafkaConfig(bootstrap_servers=kafka_bootstrap), [here.topic])
        await later.start()
        try:
            assert await later.bounds([here]) == {here: (0, 10)}
            await made_anew(kafka_bootstrap, here.topic, rows(here.topic, 1000, 20))
            later.resume({here: 10})
            with pytest.raises(LostInputError, match="made anew"):
                await polled(later, 1)
        finally:
            await later.close()


async def test_what_no_broker_vouches_for_is_fetched_once_more(
    kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reading(kafka_bootstrap, monkeypatch, 10) as (source, here):
        asked = 0

        def cut(_request: identity._DescribeTopics) -> None:
            nonlocal asked
            asked += 1
            if asked <= 3:
                raise OSError

        at_each_look(source, cut)
        await write(kafka_bootstrap, rows(here.topic, 10, 5))
        source.pause(frozenset())
        found = await polled(source, 5)
        assert [v for batch in found for v in batch.values] == [b"%d" % k for k in range(10, 15)]
        assert asked > 3


async def test_a_broker_that_gives_no_ids_is_warned_of_once_and_read_all_the_same(
    kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reading(kafka_bootstrap, monkeypatch, 10) as (source, here):
        at_each_look(source, lambda request: request.prepare({identity.METADATA: (0, 9)}))
        await write(kafka_bootstrap, rows(here.topic, 10, 5))
        source.pause(frozenset())
        with structlog.testing.capture_logs() as lines:
            await polled(source, 5)
            await write(kafka_bootstrap, rows(here.topic, 15, 5))
            await polled(source, 5)
        assert ["no ids" in line["event"] for line in lines] == [True]


@pytest.mark.parametrize(("pause_s", "n"), [(60.0, 0), (0.0, 5)])
async def test_ids_are_asked_for_after_a_pause_and_not_at_each_poll(
    kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch, pause_s: float, n: int
) -> None:
    async with reading(kafka_bootstrap, monkeypatch, 10) as (source, here):
        monkeypatch.setattr(identity, "LOOK_EVERY_S", 60.0)
        monkeypatch.setattr(identity, "PAUSE_S", pause_s)
        asked = list[identity._DescribeTopics]()
        at_each_look(source, asked.append)
        source.pause(frozenset())
        for k in range(10, 15):
            await write(kafka_bootstrap, rows(here.topic, k, 1))
            await polled(source, 1)
        assert len(asked) == n


async def test_a_busy_topic_does_not_vouch_for_another_one(
    kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = f"busy-{uuid.uuid4().hex[:12]}"
    config = KafkaConfig(bootstrap_servers=kafka_bootstrap)
    await ensure_topics(config, [TopicSpec(busy)])
    async with reading(kafka_bootstrap, monkeypatch, 10) as (_, here):
        source = KafkaSource(config, [busy, here.topic])
        await source.start()
        monkeypatch.setattr(identity, "LOOK_EVERY_S", 3600.0)
        over = asyncio.Event()

        async def feed() -> None:
            async with AIOKafkaProducer(bootstrap_servers=kafka_bootstrap) as producer:
                while not over.is_set():
                    await producer.send_and_wait(busy, b"0")
                    await asyncio.sleep(0.01)

        async def until_read() -> None:
            while not any(batch.source == here for batch in await source.poll(1000, 0.2)):
                pass

        await source.discover()
        feeding = asyncio.create_task(feed())
        try:
            await polled(source, 30)
            await made_anew(kafka_bootstrap, here.topic, rows(here.topic, 1000, 20))
            with pytest.raises(LostInputError, match=f"^Topic '{here.topic}' .* position 10 on "):
                await until_read()
        finally:
            over.set()
            await feeding
            await source.close()
