"""The local broker is a real one: it answers, it keeps transactions apart, it survives a crash."""

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from deploy.kafka.broker import LocalBroker, UnavailableError, answers, find_java, free_port
from deploy.kafka.cluster import LocalCluster
from deploy.kafka.jars import BrokerError
from deploy.kafka.leadership import _java_hash
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


@pytest.mark.parametrize("obeys", [True, False])
def test_stop_tells_whether_it_had_to_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, obeys: bool
) -> None:
    if not obeys:
        monkeypatch.setattr("deploy.kafka.broker.STOP_DEADLINE_S", 0.2)
    broker = LocalBroker(tmp_path)
    handler = "SIG_DFL" if obeys else "SIG_IGN"
    code = f"import signal as s, time; s.signal(s.SIGTERM, s.{handler}); print(flush=True)"
    words = [sys.executable, "-c", f"{code}; time.sleep(600)"]
    # looks like the broker of this folder
    words += ["kafka.Kafka", str(tmp_path.resolve() / "server.properties")]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (tmp_path / "broker.pid").write_text(str(process.pid))
        try:
            assert broker.pid == process.pid
            assert broker.stop() == obeys
            assert process.wait() == -(signal.SIGTERM if obeys else signal.SIGKILL)
        finally:
            process.kill()


def test_missing_java_is_said_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    find_java.cache_clear()
    with pytest.raises(UnavailableError, match="needs Java 17 or newer"):
        LocalBroker(tmp_path, free_port()).start()


def test_cluster_of_a_folder_keeps_its_ports_and_refuses_others(tmp_path: Path) -> None:
    first = LocalCluster(tmp_path)
    assert not list(tmp_path.iterdir())  # asking for it leaves nothing behind
    first._keep()
    again = LocalCluster(tmp_path)
    assert again.bootstrap == first.bootstrap
    assert len(set(again.bootstrap.split(","))) == 3
    with pytest.raises(BrokerError, match="other ports"):
        LocalCluster(tmp_path, [1, 2, 3])


@pytest.mark.parametrize(
    ("text", "number"), [("", 0), ("a", 97), ("group", 98629247), ("\u00e9", 233)]
)
def test_coordinator_is_found_as_kafka_finds_it(text: str, number: int) -> None:
    assert _java_hash(text) == number
