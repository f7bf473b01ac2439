"""The local broker is a real one: it answers, it keeps transactions apart, it survives a crash."""

import asyncio
import os
import uuid
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from deploy.kafka.broker import LocalBroker, UnavailableError, answers, find_java, free_port
from tests.real_parts import TopicMaker

DEADLINE_S = 30.0


async def read_committed(bootstrap: str, topic: str) -> list[bytes]:
    """Everything a read_committed reader finds from the start of partition 0 to its end."""
    partition = TopicPartition(topic, 0)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level="read_committed", enable_auto_commit=False
    )
    values: list[bytes] = []
    await consumer.start()
    try:
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        end = (await consumer.end_offsets([partition]))[partition]
        async with asyncio.timeout(DEADLINE_S):
            while await consumer.position(partition) < end:
                batch = await consumer.getmany(timeout_ms=500)
                values += [record.value for record in batch.get(partition, [])]
    finally:
        await consumer.stop()
    return values


async def write(bootstrap: str, topic: str, values: list[bytes], *, commit: bool = True) -> None:
    """Write the values in one transaction, and commit or abort it."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=f"{topic}-writer")
    await producer.start()
    try:
        await producer.begin_transaction()
        for value in values:
            await producer.send_and_wait(topic, value, partition=0)
        await (producer.commit_transaction() if commit else producer.abort_transaction())
    finally:
        await producer.stop()


def test_broker_answers(kafka_bootstrap: str) -> None:
    assert any(answers(address) for address in kafka_bootstrap.split(","))


async def test_only_committed_transactions_are_read(
    kafka_bootstrap: str, new_topic: TopicMaker
) -> None:
    topic = await new_topic()
    await write(kafka_bootstrap, topic, [b"kept 1", b"kept 2"])
    await write(kafka_bootstrap, topic, [b"dropped"], commit=False)
    assert await read_committed(kafka_bootstrap, topic) == [b"kept 1", b"kept 2"]


async def test_committed_data_survives_sigkill(own_broker: LocalBroker) -> None:
    address, topic = own_broker.bootstrap, f"kept-{uuid.uuid4().hex[:12]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()
    await write(address, topic, [b"before"])

    own_broker.kill()
    assert own_broker.pid is None
    assert not answers(address)

    own_broker.start()
    assert own_broker.bootstrap == address
    assert await read_committed(address, topic) == [b"before"]


def test_stop_spares_a_process_that_is_not_its_broker(tmp_path: Path) -> None:
    (tmp_path / "broker.pid").write_text(str(os.getpid()))
    broker = LocalBroker(tmp_path)
    assert broker.pid is None
    broker.stop()  # and we are still here


def test_missing_java_is_said_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    find_java.cache_clear()
    with pytest.raises(UnavailableError, match="needs Java 17 or newer"):
        LocalBroker(tmp_path, free_port()).start()
