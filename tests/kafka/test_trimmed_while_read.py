"""A journal that its owner trims while another process reads it."""

from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from stream_calib.adapters.kafka import KafkaSink, TopicSpec, ensure_topics, reading
from stream_calib.config import KafkaConfig
from stream_calib.errors import LostInputError
from stream_calib.values import Output, Source
from tests.real_parts import TopicMaker

N, PIECE = 100, 30


async def filled(config: KafkaConfig, topic: str) -> None:
    sink = KafkaSink(config)
    await sink.start()
    await sink.publish([Output(topic, 0, b"", b"%d" % k, ()) for k in range(N)])
    await sink.close()


def interrupted(
    monkeypatch: pytest.MonkeyPatch, config: KafkaConfig, topic: str, up_to: Sequence[int]
) -> None:
    """Read in pieces, after each of which the records up to the next of these are deleted."""
    advance, left = reading.advance, list(up_to)

    async def trimmed(
        consumer: Any, partition: TopicPartition, max_records: int
    ) -> tuple[Sequence[Any], int]:
        found = await advance(consumer, partition, min(max_records, PIECE))
        if left:
            admin = AIOKafkaAdminClient(bootstrap_servers=config.bootstrap_servers[0])
            await admin.start()
            await admin.delete_records({partition: RecordsToDelete(before_offset=left.pop(0))})
            await admin.close()
            # what the client has fetched already it would return all the same
            consumer.seek(partition, await consumer.position(partition))
        return found

    monkeypatch.setattr(reading, "advance", trimmed)


@pytest.mark.parametrize("up_to", [(50,), (50, 90), (N,)])
async def test_what_is_trimmed_meanwhile_is_left_out(
    kafka_bootstrap: str,
    new_topic: TopicMaker,
    monkeypatch: pytest.MonkeyPatch,
    up_to: tuple[int, ...],
) -> None:
    config, topic = KafkaConfig(bootstrap_servers=(kafka_bootstrap,)), await new_topic()
    await filled(config, topic)
    interrupted(monkeypatch, config, topic, up_to)
    kept = await reading.read_kept(config, Source(topic, 0))
    assert (kept.first, kept.after) == (up_to[-1], N)
    assert [int(record.value) for record in kept.records] == list(range(up_to[-1], N))


async def test_a_topic_that_is_made_anew_is_told(
    kafka_bootstrap: str, new_topic: TopicMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, topic = KafkaConfig(bootstrap_servers=(kafka_bootstrap,)), await new_topic()
    await filled(config, topic)
    advance = reading.advance

    async def anew(
        consumer: Any, partition: TopicPartition, max_records: int
    ) -> tuple[Sequence[Any], int]:
        monkeypatch.setattr(reading, "advance", advance)
        found = await advance(consumer, partition, PIECE)
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
        await admin.start()
        await admin.delete_topics([topic])
        while topic in await admin.list_topics():
            pass
        await admin.close()
        await ensure_topics(config, [TopicSpec(topic)])
        consumer.seek(partition, await consumer.position(partition))
        return found

    monkeypatch.setattr(reading, "advance", anew)
    with pytest.raises(LostInputError, match="made anew"):
        await reading.read_kept(config, Source(topic, 0))
