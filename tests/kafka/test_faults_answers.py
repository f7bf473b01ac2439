"""Answers that say "not now", and connections cut around what does not belong to a commit."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from stream_calib.values import Source
from tests.kafka import answers
from tests.kafka import proxy as faults
from tests.kafka.answers import (
    PASSING,
    PASSING_TO_READERS,
    REBALANCE_IN_PROGRESS,
    deny,
    refuse,
)
from tests.kafka.commit_log import Universe
from tests.kafka.killing import tell
from tests.kafka.living import start
from tests.kafka.proxy import (
    END_TXN,
    FIND_COORDINATOR,
    HEARTBEAT,
    INIT_PRODUCER_ID,
    JOIN_GROUP,
    OFFSET_COMMIT,
    PRODUCE,
    SYNC_GROUP,
    Exchange,
    Fault,
    KafkaProxy,
    counted,
)
from tests.kafka.service import write
from tests.kafka.test_faults_process import catches_up, ends_whole, half_fed, settings

DEADLINE_S = 120.0
BURST = 5
CLIENT = "victim"  # a name of its own: the test reads and writes through the proxy as well
HELD_UP_S = 4.0  # less than a mark of positions may take; a commit takes some hundredths
# One of each kind now, all of them in `make chaos`.
CASES = [
    pytest.param(api, code, marks=[pytest.mark.chaos] if code != codes[0] else [])
    for api, codes in PASSING.items()
    for code in codes
    if api != OFFSET_COMMIT
]


async def committed_anyway(proxy: KafkaProxy, universe: Universe, api: int, fault: Fault) -> int:
    """Commit three entries around a burst of answers; return how often the producer was replaced.

    Each of the burst was given, nothing was in doubt for it, and no connection was lost.
    """
    log, given = universe.log(), Counter[str]()
    burst = [counted(fault, given, "given")] * BURST
    async with asyncio.timeout(DEADLINE_S):
        if api == INIT_PRODUCER_ID:
            proxy.inject(api, *burst)
        assert await log.own() == []
        for number in range(3):
            if number == 1 and api != INIT_PRODUCER_ID:
                proxy.inject(api, *burst)
            await log.commit(universe.outputs(number), universe.entry(number), {})
        await log.close()
    assert given["given"] == BURST
    assert proxy.failures == []
    await universe.assert_whole(range(3))
    return log.recycled


@pytest.mark.parametrize(("api", "code"), CASES)
async def test_f33_burst_of_refusals_is_retried_and_never_shows(
    proxy: KafkaProxy, universe: Universe, api: int, code: int
) -> None:
    recycled = await committed_anyway(proxy, universe, api, refuse(code))
    # an end that was sent again replaces the producer, as any connection does that is cut
    assert recycled == (api == END_TXN)


async def test_f33_what_is_short_of_replicas_after_it_was_written_is_written_once(
    proxy: KafkaProxy, universe: Universe
) -> None:
    code = answers.NOT_ENOUGH_REPLICAS_AFTER_APPEND
    assert await committed_anyway(proxy, universe, PRODUCE, deny(code)) == 0


async def noted(universe: Universe, bootstrap: str) -> int:
    """Return the position that lag tools see."""
    place = TopicPartition(universe.topics["events"], 0)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        offsets = await admin.list_consumer_group_offsets(universe.settings().group)
        return offsets[place].offset if place in offsets else -1
    except GroupCoordinatorNotAvailableError:  # of the first group of a cluster
        return -1
    finally:
        await admin.close()


@pytest.mark.parametrize("api", [OFFSET_COMMIT, FIND_COORDINATOR])
@pytest.mark.parametrize(
    "fault",
    [
        faults.cut_after,
        faults.cut_before,
        pytest.param(faults.swallow, marks=pytest.mark.chaos),  # notes nothing for 5 s
    ],
)
async def test_f34_connection_cut_while_positions_are_noted_holds_nothing_up(
    proxy: KafkaProxy, universe: Universe, api: int, fault: Fault
) -> None:
    log, source = universe.log(), Source(universe.topics["events"], 0)
    await log.own()
    done: Counter[str] = Counter()
    proxy.inject(api, counted(fault, done, "done"))
    for number in range(3):
        async with asyncio.timeout(HELD_UP_S):
            await log.commit(universe.outputs(number), universe.entry(number), {source: number})
        await asyncio.sleep(0.2)  # positions are noted beside the commits
    async with asyncio.timeout(DEADLINE_S):
        while not done:  # noqa: ASYNC110  nobody else may ask before
            await asyncio.sleep(0.1)
        while await noted(universe, proxy.bootstrap) < 2:  # noqa: ASYNC110  the broker tells nobody
            await asyncio.sleep(0.2)
    await log.close()
    await universe.assert_whole(range(3))


@pytest.mark.parametrize("code", PASSING[OFFSET_COMMIT])
async def test_f33_positions_that_are_refused_for_a_while_are_noted_later(
    proxy: KafkaProxy, universe: Universe, code: int
) -> None:
    log, source = universe.log(), Source(universe.topics["events"], 0)
    await log.own()
    done: Counter[str] = Counter()
    proxy.inject(OFFSET_COMMIT, *[counted(refuse(code), done, "done")] * BURST)
    async with asyncio.timeout(DEADLINE_S):
        await log.commit(universe.outputs(0), universe.entry(0), {source: 7})
        while await noted(universe, proxy.bootstrap) < 7:  # noqa: ASYNC110  the broker tells nobody
            await asyncio.sleep(0.1)
    assert done["done"] == BURST
    assert log.mark_failures == 0
    await log.close()
    await universe.assert_whole([0])


async def met_by_the_service(proxy: KafkaProxy, api: int, codes: Sequence[int]) -> int:
    """Refuse what the service asks for next of a kind; return how often, once it has come to that.

    All its connections are cut before, so that it has to ask anew for what it knew.
    """
    given: Counter[str] = Counter()
    burst = [refuse(code) for code in itertools.islice(itertools.cycle(codes), BURST)]

    def refused(exchange: Exchange) -> Fault | None:
        is_meant = exchange.api == api and exchange.client.startswith(CLIENT)
        return counted(burst.pop(0), given, "given") if is_meant and burst else None

    proxy.chance = refused
    if api in {JOIN_GROUP, SYNC_GROUP}:  # nobody joins without being asked to
        proxy.inject(HEARTBEAT, refuse(REBALANCE_IN_PROGRESS))
    proxy.hang_up()
    async with asyncio.timeout(DEADLINE_S):
        while given["given"] < BURST:  # noqa: ASYNC110  the proxy tells nobody
            await asyncio.sleep(0.1)
    proxy.chance = lambda _: None
    assert proxy.waiting(HEARTBEAT) == 0
    return given["given"]


@pytest.mark.chaos
async def test_f33_bursts_of_refusals_do_not_show_where_a_service_reads_and_is_a_member(
    proxy: KafkaProxy, tmp_path: Path, chaos_seed: int
) -> None:
    victim, _, _, rest = await half_fed(proxy.bootstrap, tmp_path, chaos_seed)
    settings(victim, "[kafka]", f'[kafka]\nclient_id = "{CLIENT}"')
    settings(victim, "[http]", '[ownership]\nsession_timeout = "2s"\n[http]')  # signs of life
    live = await start(victim)
    await catches_up(live, victim)
    given: dict[str, int] = {}
    step = 1 + len(rest) // len(PASSING_TO_READERS)
    for k, (api, codes) in enumerate(PASSING_TO_READERS.items()):
        await write(proxy.bootstrap, rest[k * step : (k + 1) * step])
        given[f"refused of api {api}"] = await met_by_the_service(proxy, api, codes)
        await catches_up(live, victim)
    done = await ends_whole(live, victim)
    again = len(done.said("starting over from the journal"))
    tell("F33 refused where it reads", chaos_seed, faults=given, restarts=again)
