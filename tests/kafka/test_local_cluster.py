"""Three local nodes are one Kafka: any one of them may die, and partitions change their leader."""

import asyncio
import uuid
from collections import Counter

import pytest

from deploy.kafka.broker import answers
from deploy.kafka.leadership import Administrator, another
from stream_calib.adapters.kafka import TopicSpec, ensure_topics
from stream_calib.config import KafkaConfig
from tests.kafka.proxy import FETCH, PRODUCE, counted, cut_before
from tests.kafka.test_local_broker import read_committed, write
from tests.kafka.three import REPLICATION, Three

# Three nodes take ten seconds to start, and nothing in `make test` but these would need them.
pytestmark = pytest.mark.chaos


async def topic_on(three: Three) -> str:
    topic = f"three-{uuid.uuid4().hex[:12]}"
    config = KafkaConfig(bootstrap_servers=three.bootstrap)
    await ensure_topics(config, [TopicSpec(topic, 2, REPLICATION)])
    return topic


async def until_led(admin: Administrator, topic: str, partition: int, node: int) -> None:
    async with asyncio.timeout(30.0):
        while admin.places(topic)[partition].leader != node:  # noqa: ASYNC110  the nodes tell nobody
            await asyncio.sleep(0.05)


async def test_what_was_committed_survives_the_death_of_any_one_node(three: Three) -> None:
    topic = await topic_on(three)
    written: list[bytes] = []
    for k, node in three.cluster.nodes.items():
        node.kill()
        assert node.pid is None
        values = [b"without node %d" % k]
        async with asyncio.timeout(60.0):
            await write(three.bootstrap, topic, values)
        written += values
        node.start()
        assert answers(node.bootstrap)
        three.cluster.wait_until_whole([topic])
    assert await read_committed(three.bootstrap, topic) == written


async def test_leader_moves_where_it_is_told_to(three: Three) -> None:
    topic = await topic_on(three)
    three.cluster.wait_until_whole([topic])
    with three.cluster.administrator() as admin:
        for _ in range(4):
            place = admin.places(topic)[0]
            node = another(place)
            assert node is not None
            assert admin.move_leader(topic, 0, node)
            await until_led(admin, topic, 0, node)
            assert set(admin.places(topic)[0].replicas) == set(place.replicas)
        assert not admin.move_leader(topic, 7, 1)  # there is no such partition
        assert admin.places(f"{topic}-none") == {}


async def test_coordinators_are_found_and_moved(three: Three) -> None:
    topic = await topic_on(three)
    await write(three.bootstrap, topic, [b"first"])
    with three.cluster.administrator() as admin:
        where, partition = admin.coordinator_of_transactions(f"{topic}-writer")
        three.cluster.wait_until_whole([where])
        before = admin.places(where)[partition]
        node = another(before)
        assert node is not None
        assert admin.move_leader(where, partition, node)
        await until_led(admin, where, partition, node)
    await write(three.bootstrap, topic, [b"second"])
    assert await read_committed(three.bootstrap, topic) == [b"first", b"second"]


async def test_frozen_node_is_replaced_and_comes_back(three: Three) -> None:
    topic = await topic_on(three)
    three.cluster.wait_until_whole([topic])
    node = three.cluster.nodes[three.leader(topic)]
    node.pause()
    try:
        assert not answers(node.bootstrap)
        async with asyncio.timeout(120.0):
            await write(three.bootstrap, topic, [b"elsewhere"])
    finally:
        node.resume()
    three.cluster.wait_until_whole([topic])
    assert await read_committed(three.bootstrap, topic) == [b"elsewhere"]


async def test_clients_go_through_the_proxies_and_nodes_do_not(three: Three) -> None:
    topic = await topic_on(three)
    before = three.seen(FETCH)
    await asyncio.sleep(1.0)  # replicas fetch all the time
    assert three.seen(FETCH) == before
    await write(three.bootstrap, topic, [b"through"])
    assert await read_committed(three.bootstrap, topic) == [b"through"]
    assert three.seen(FETCH) > before


async def test_what_no_request_has_met_is_forgotten_when_all_is_healed(three: Three) -> None:
    counts: Counter[str] = Counter()
    three.inject(PRODUCE, counted(cut_before, counts, "cut"))
    assert three.waiting() == 1
    three.heal()
    assert three.waiting() == 0
    await write(three.bootstrap, await topic_on(three), [b"whole"])
    assert not counts
