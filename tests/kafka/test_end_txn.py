"""A request to commit that reaches the broker late, or twice, must not end another transaction.

Apache Kafka 4.1 tells the two apart only for clients that take a new epoch for each transaction;
the client library's version of the protocol does not.
"""

import asyncio
import struct
import uuid
from dataclasses import dataclass, field

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from stream_calib.adapters.kafka import TopicSpec, ensure_topics
from stream_calib.adapters.kafka.producing import abandon
from stream_calib.adapters.kafka.reading import read_kept
from stream_calib.config import KafkaConfig
from stream_calib.errors import OwnershipError, TransportError
from stream_calib.values import Output, Source
from tests.kafka import proxy as faults
from tests.kafka.commit_log import Universe
from tests.kafka.proxy import (
    ADD_PARTITIONS,
    END_TXN,
    INIT_PRODUCER_ID,
    PRODUCE,
    KafkaProxy,
)

LARGE = 600_000
DEADLINE_S = 60.0
HEAD = struct.Struct(">iih")  # of an answer to an end: correlation id, throttle time, error code
FENCED = {47, 90}  # INVALID_PRODUCER_EPOCH, PRODUCER_FENCED


@dataclass
class LateEnd:
    """The end of a transaction that is held until another one has records, and its answer."""

    goes_on: asyncio.Event = field(default_factory=asyncio.Event)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    error: int = -1

    async def held(self, exchange: faults.Exchange) -> None:
        """Bring an end to the broker when it is told to."""
        await self.goes_on.wait()
        _, _, self.error = HEAD.unpack_from(await exchange.apply())
        self.answered.set()

    async def cut(self, exchange: faults.Exchange) -> None:
        """Do that after hanging up, so that the client sends it again."""
        exchange.cut()
        await self.held(exchange)

    async def met(self, exchange: faults.Exchange) -> None:
        """Let records be written, then the end arrive; only then are they acknowledged."""
        answer = await exchange.apply()
        self.goes_on.set()
        await self.answered.wait()
        exchange.reply(answer)


async def test_unguarded_client_tears_a_transaction(proxy: KafkaProxy) -> None:
    """What the guard is for; when this fails, the broker or the library has learned."""
    topic = f"unguarded-{uuid.uuid4().hex[:8]}"
    config = KafkaConfig(bootstrap_servers=proxy.bootstrap)
    await ensure_topics(config, [TopicSpec(topic)])
    producer = AIOKafkaProducer(
        bootstrap_servers=proxy.bootstrap, transactional_id=topic, request_timeout_ms=1500
    )
    await producer.start()
    late = LateEnd()
    proxy.inject(END_TXN, late.held)
    async with asyncio.timeout(DEADLINE_S):
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"first", partition=0)
        await producer.commit_transaction()
        assert proxy.seen.count(END_TXN) >= 2
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"second", partition=0)
        late.goes_on.set()  # the late request arrives and commits what is there
        await late.answered.wait()
        with pytest.raises(KafkaError):  # there is nothing left to abort
            await producer.abort_transaction()
        await abandon(producer)
    kept = await read_kept(config, Source(topic, 0))
    assert [record.value for record in kept.records] == [b"first", b"second"]


async def late_end_meets_half_a_transaction(proxy: KafkaProxy, universe: Universe) -> int:
    """Return how often the producer was replaced between the first commit and the second.

    The end of the first is sent twice, for its connection is cut. The held one arrives when the
    second has written some outputs, and the last never get there; it has to be refused.
    """
    late, never = LateEnd(), asyncio.Event()
    log = universe.log(commit_timeout_s=8.0)
    await log.own()
    proxy.inject(END_TXN, late.cut)
    ends = proxy.seen.count(END_TXN)
    await log.commit(universe.outputs(0), universe.entry(0), {})
    assert proxy.seen.count(END_TXN) == ends + 2

    proxy.inject(PRODUCE, late.met, faults.hold(never))
    # too large to go into one request with the others
    large = [Output(universe.topics["correlations"], 0, b"", bytes(LARGE), ())] * 2
    with pytest.raises((TransportError, OwnershipError)):
        await log.commit([*universe.outputs(1), *large], universe.entry(1), {})
    assert late.error in FENCED
    await log.own()
    await log.close()
    return log.recycled


async def test_late_end_does_not_commit_half_of_the_next_transaction(
    proxy: KafkaProxy, universe: Universe
) -> None:
    assert await late_end_meets_half_a_transaction(proxy, universe) == 1
    await universe.assert_whole([0])


async def test_end_that_is_only_slow_is_waited_for(proxy: KafkaProxy, universe: Universe) -> None:
    log = universe.log()
    await log.own()
    ends = proxy.seen.count(END_TXN)
    proxy.inject(END_TXN, faults.delay(4.0))
    for number in (0, 1):
        await log.commit(universe.outputs(number), universe.entry(number), {})
    assert proxy.seen.count(END_TXN) == ends + 2
    assert log.recycled == 0
    await log.close()
    await universe.assert_whole([0, 1])


@pytest.mark.parametrize("applied", [False, True])
async def test_end_beyond_the_deadline_is_doubt_that_the_journal_settles(
    proxy: KafkaProxy, universe: Universe, applied: bool
) -> None:
    late = LateEnd()
    log = universe.log(commit_timeout_s=5.0)
    await log.own()
    proxy.inject(END_TXN, faults.swallow if applied else late.held)
    with pytest.raises(TransportError, match="did not answer within 5 s while committing"):
        await log.commit(universe.outputs(0), universe.entry(0), {})
    with pytest.raises(TransportError, match="not owned"):
        await log.commit(universe.outputs(1), universe.entry(1), {})
    entries = await log.own()
    assert [entry.value for entry in entries] == ([b"0"] if applied else [])
    if not applied:  # it meets the next owner's
        proxy.inject(PRODUCE, late.met)
    for number in (1, 2):
        await log.commit(universe.outputs(number), universe.entry(number), {})
    await log.close()
    assert applied or late.error in FENCED
    await universe.assert_whole([0, 1, 2] if applied else [1, 2])


@pytest.mark.parametrize("fault", [faults.cut_after, faults.cut_before, faults.repeat])
async def test_end_that_is_sent_twice_commits_once(
    proxy: KafkaProxy, universe: Universe, fault: faults.Fault
) -> None:
    log = universe.log()
    await log.own()
    for number in range(4):
        if number == 1:
            proxy.inject(END_TXN, fault)
        positions = {Source(universe.topics["events"], 0): number}
        await log.commit(universe.outputs(number), universe.entry(number), positions)
    await log.close()
    if fault is not faults.repeat:  # what the network does the client need not notice
        assert log.recycled == 1
    await universe.assert_whole(range(4))


@pytest.mark.parametrize("api", [ADD_PARTITIONS, PRODUCE])
@pytest.mark.parametrize("fault", [faults.cut_after, faults.cut_before])
async def test_connection_cut_anywhere_in_a_transaction_changes_nothing(
    proxy: KafkaProxy, universe: Universe, api: int, fault: faults.Fault
) -> None:
    log = universe.log()
    await log.own()
    for number in range(3):
        if number == 1:
            proxy.inject(api, fault)
        positions = {Source(universe.topics["events"], 0): number}
        await log.commit(universe.outputs(number), universe.entry(number), positions)
    await log.close()
    assert log.recycled == 1
    await universe.assert_whole(range(3))


@pytest.mark.parametrize("fault", [faults.cut_after, faults.cut_before])
async def test_connection_cut_while_taking_over(
    proxy: KafkaProxy, universe: Universe, fault: faults.Fault
) -> None:
    log = universe.log()
    proxy.inject(INIT_PRODUCER_ID, fault)
    assert await log.own() == []
    await log.commit(universe.outputs(0), universe.entry(0), {})
    await log.close()
    await universe.assert_whole([0])


async def test_owner_that_was_replaced_notices_it_when_it_replaces_its_producer(
    proxy: KafkaProxy, universe: Universe
) -> None:
    """To replace it fences the new owner: only the journal tells who is right."""
    first, second = universe.log(), universe.log()
    await first.own()
    proxy.inject(END_TXN, faults.cut_after)
    await first.commit(universe.outputs(0), universe.entry(0), {})
    assert len(await second.own()) == 1
    await second.commit(universe.outputs(1), universe.entry(1), {})
    with pytest.raises(OwnershipError, match="taken over"):
        await first.commit(universe.outputs(9), universe.entry(9), {})
    with pytest.raises(OwnershipError, match="taken over"):
        await second.commit(universe.outputs(2), universe.entry(2), {})
    assert len(await second.own()) == 2
    await second.commit(universe.outputs(2), universe.entry(2), {})
    await first.close()
    await second.close()
    await universe.assert_whole([0, 1, 2])


async def test_fencing_by_a_code_that_the_library_does_not_know(
    proxy: KafkaProxy, universe: Universe
) -> None:
    log = universe.log()
    await log.own()

    def fence(answer: bytes) -> bytes:
        assert len(answer) == HEAD.size
        return answer[:8] + struct.pack(">h", 90)

    proxy.inject(END_TXN, faults.alter(fence))
    with pytest.raises(OwnershipError, match="taken over"):
        await log.commit(universe.outputs(0), universe.entry(0), {})
    await log.close()
