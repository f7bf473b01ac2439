"""A client that hears nothing of what it reads, while the broker answers all else."""

import asyncio
import math
import struct
import uuid
from collections import Counter
from pathlib import Path

import pytest

from stream_calib.adapters.kafka import KafkaCommitLog, KafkaSource, TopicSpec, ensure_topics
from stream_calib.config import KafkaConfig
from stream_calib.errors import TransportError
from stream_calib.service.watchdog import EXIT_CODE
from stream_calib.values import Source
from tests.kafka.commit_log import Universe
from tests.kafka.living import asked, end_all, ended, start
from tests.kafka.proxy import (
    END_TXN,
    FETCH,
    FIND_COORDINATOR,
    HEARTBEAT,
    INIT_PRODUCER_ID,
    JOIN_GROUP,
    SYNC_GROUP,
    Exchange,
    Fault,
    KafkaProxy,
    counted,
    swallow,
)
from tests.kafka.service import write
from tests.kafka.test_faults_process import (
    HalfFed,
    catches_up,
    completes,
    ends_whole,
    half_fed,
    reference,
    settings,
)

DEADLINE_S = 180.0
SESSION_S = 2.0
ENDS_S = 15.0  # a deadline of 2 s, and what is let go of meanwhile takes some seconds at most
WATCHDOG_S = 12.0
OURS = KafkaConfig().client_id


class Starving:
    """Answers what our clients fetch with nothing, not even where the partitions end.

    One that is stuck asks for no more and would hear as little; all its other requests go over
    the same connection, which therefore has to go on.
    """

    def __init__(self, proxy: KafkaProxy) -> None:
        self.on = False
        self.starved = 0
        proxy.chance = self._chance

    def _chance(self, exchange: Exchange) -> Fault | None:
        is_ours = exchange.client == OURS  # a test reads through it as well
        if not (self.on and is_ours and exchange.api == FETCH):
            return None
        self.starved += 1
        return _nothing


async def _nothing(exchange: Exchange) -> None:
    answer = await exchange.apply()
    await asyncio.sleep(0.1)  # as long as a fetch waits
    version = struct.unpack_from(">h", exchange.request, 2)[0]
    session = struct.pack(">hi", 0, 0) if version >= 7 else b""
    exchange.reply(answer[:4] + struct.pack(">i", 0) + session + struct.pack(">i", 0))


async def test_an_end_that_no_fetch_brings_is_asked_for(proxy: KafkaProxy) -> None:
    config = KafkaConfig(bootstrap_servers=proxy.bootstrap)
    topic = f"contact-{uuid.uuid4().hex[:12]}"
    here, starving = Source(topic, 0), Starving(proxy)
    await ensure_topics(config, [TopicSpec(topic)])
    await write(proxy.bootstrap, [(topic, 0, b"a")] * 5)
    source = KafkaSource(config, [topic])
    await source.start()
    try:
        assert await source.discover() == (here,)
        async with asyncio.timeout(DEADLINE_S):
            n = 0
            while n < 5:
                n += sum(len(batch.values) for batch in await source.poll(100, 0.2))
            heard_s = source.told_s()[here]
            while source.told_s()[here] == heard_s:  # nothing comes, and that is told too
                assert await source.poll(100, 0.2) == []
            starving.on = True
            while not starving.starved:  # the fetch before it would bring what is written now
                assert await source.poll(100, 0.2) == []
            await write(proxy.bootstrap, [(topic, 0, b"b")] * 3)
            silent_s = source.told_s()[here]
            for _ in range(5):
                assert await source.poll(100, 0.2) == []
        # so it is in aiokafka 0.14: if it is told, nobody needs to ask
        assert source.told_s()[here] == silent_s > heard_s > -math.inf
        assert source.ends() == {here: 5}
        before_s = asyncio.get_running_loop().time()
        assert await source.bounds([here]) == {here: (0, 8)}
        assert source.ends() == {here: 8}
        assert before_s <= source.told_s()[here] <= asyncio.get_running_loop().time()
        starving.on = False
        async with asyncio.timeout(DEADLINE_S):
            while n < 8:
                n += sum(len(batch.values) for batch in await source.poll(100, 0.2))
        assert source.ends() == {here: 8}
    finally:
        await source.close()


def silence(proxy: KafkaProxy, api: int) -> Counter[str]:
    """Let no request of a kind be answered from now on; return how many were not."""
    unanswered: Counter[str] = Counter()
    fault = counted(swallow, unanswered, "swallowed")
    proxy.chance = lambda exchange: fault if exchange.api == api else None
    return unanswered


@pytest.mark.parametrize(
    "api", [pytest.param(FIND_COORDINATOR, marks=pytest.mark.chaos), INIT_PRODUCER_ID]
)
async def test_f73_a_coordinator_that_never_answers_holds_nobody_longer_than_the_deadline(
    proxy: KafkaProxy, universe: Universe, api: int
) -> None:
    before = universe.log()
    await before.own()
    await before.commit(universe.outputs(0), universe.entry(0), {})
    await before.close()
    hasty = universe.config.model_copy(update={"connect_timeout": 2_000_000_000})
    log = KafkaCommitLog(hasty, universe.settings(), lambda _: None)
    unanswered = silence(proxy, api)
    async with asyncio.timeout(ENDS_S):
        with pytest.raises(TransportError, match="did not answer within 2 s"):
            await log.own()
    async with asyncio.timeout(ENDS_S):
        await log.close()
    assert unanswered["swallowed"] > 0
    proxy.chance = lambda _: None
    after = universe.log()
    assert [entry.value for entry in await after.own()] == [b"0"]
    await after.commit(universe.outputs(1), universe.entry(1), {})
    await after.close()
    await universe.assert_whole([0, 1])


async def listening(url: str) -> None:
    """Wait until something listens there."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                _, writer = await asyncio.open_connection(host, int(port))
            except OSError:
                await asyncio.sleep(0.1)
            else:
                writer.close()
                return


async def in_a_group(bootstrap: str, folder: Path, seed: int) -> HalfFed:
    """Prepare a service that is taken for dead soon."""
    fed = await half_fed(bootstrap, folder, seed)
    settings(fed.victim, "[http]", f'[ownership]\nsession_timeout = "{SESSION_S:g}s"\n[http]')
    return fed


@pytest.mark.chaos
@pytest.mark.parametrize("api", [JOIN_GROUP, SYNC_GROUP])
async def test_f73_a_group_that_does_not_answer_who_joins_is_told_and_waited_for(
    proxy: KafkaProxy, tmp_path: Path, chaos_seed: int, api: int
) -> None:
    victim, url, _, rest = await in_a_group(proxy.bootstrap, tmp_path, chaos_seed)
    unanswered = silence(proxy, api)
    live = await start(victim)
    await listening(url)
    await asked(url, "/readyz", "waiting to be given universes")
    async with asyncio.timeout(DEADLINE_S):
        while not unanswered:  # noqa: ASYNC110  the proxy tells nobody
            await asyncio.sleep(0.1)
    await asyncio.sleep(SESSION_S)
    await asked(url, "/readyz", "waiting to be given universes")
    await asked(url, "/healthz", '"alive":true')
    proxy.chance = lambda _: None
    await write(proxy.bootstrap, rest)
    # what was not answered is given up by the library after its 40 s
    done = await ends_whole(live, victim)
    assert len(done.said("recovered")) == 1


@pytest.mark.chaos
async def test_f73_signs_of_life_that_are_not_answered_stop_no_owner_that_is_alone(
    proxy: KafkaProxy, tmp_path: Path, chaos_seed: int
) -> None:
    victim, url, _, rest = await in_a_group(proxy.bootstrap, tmp_path, chaos_seed)
    third = len(rest) // 3
    live = await start(victim)
    await catches_up(live, victim)
    joins = proxy.seen.count(JOIN_GROUP)
    unanswered = silence(proxy, HEARTBEAT)
    async with asyncio.timeout(DEADLINE_S):
        while not unanswered:  # noqa: ASYNC110  the proxy tells nobody
            await asyncio.sleep(0.1)
    await asyncio.sleep(2.0 * SESSION_S)  # dead for the broker: there is one sign in 40 s
    await write(proxy.bootstrap, rest[:third])
    await catches_up(live, victim)
    # who has to own anew asks the group first, and says what it waits for
    proxy.inject(END_TXN, swallow)
    await write(proxy.bootstrap, rest[third : 2 * third])
    await asked(url, "/readyz", r"did not answer within 5 s while asking the group of owners")
    assert proxy.seen.count(JOIN_GROUP) == joins
    proxy.chance = lambda _: None
    await write(proxy.bootstrap, rest[2 * third :])
    done = await ends_whole(live, victim)
    assert proxy.seen.count(JOIN_GROUP) > joins  # it was told that it is no member any more
    assert len(done.said("recovered")) == 2


@pytest.mark.chaos
async def test_f72_a_client_that_hears_nothing_is_seen_to_lag_and_ended(
    proxy: KafkaProxy, tmp_path: Path, chaos_seed: int
) -> None:
    starving = Starving(proxy)
    victim, url, _, rest = await half_fed(proxy.bootstrap, tmp_path, chaos_seed)
    own = f'commit_interval = "200ms"\nwatchdog_after = "{WATCHDOG_S:g}s"'
    settings(victim, 'commit_interval = "200ms"', own)
    (topic,) = victim.topics
    live = await start(victim)
    try:
        # caught up, so that where it ends is all that could tell
        await catches_up(live, victim)
        lag = r'stream_calib_consumer_lag_records\{partition="0",topic="[^"]*".*\} '
        await asked(url, "/metrics", lag + r"0\.0")
        starving.on = True
        await asyncio.sleep(1.0)  # no fetch is under way that could bring more
        await write(proxy.bootstrap, rest)
        shown = (await asked(url, "/metrics", lag + r"[1-9].*"))[0]
        assert float(shown.rpartition(" ")[2]) == len(rest), f"seed {chaos_seed}"
        assert topic in shown
        # for half of the watchdog's limit; then it is not alive either, and is ended
        await asked(url, "/readyz", rf"made no progress for {WATCHDOG_S / 2:g} s")
        done = await ended(live)
        assert done.code == EXIT_CODE, done
        assert f"{len(rest)} records to read and made no progress" in done.sentence
        starving.on = False
        expected = await reference(victim, flush=False)
        await completes(victim, expected)
        assert await victim.repeated() == expected, f"seed {chaos_seed}"
    finally:
        starving.on = False
        end_all()
