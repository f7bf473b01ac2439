"""What only a real Kafka can do to commits: dead owners, dangerous settings, silence."""

import asyncio
import contextlib
import gc
import os
import signal
import sys
import textwrap
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import EndTxnRequest

from deploy.kafka.broker import LocalBroker
from stream_calib.adapters.kafka import (
    CommitSettings,
    KafkaCommitLog,
    KafkaWriteAheadLog,
    TopicSpec,
    check_input_topics,
    ensure_topics,
    marking,
)
from stream_calib.adapters.kafka.ending import EndTxnGuard
from stream_calib.config import KafkaConfig
from stream_calib.errors import ConfigError, MissingTopicError, OwnershipError, TransportError
from stream_calib.values import Output, Source
from tests.kafka.commit_log import Universe
from tests.kafka.killing import unfinished
from tests.kafka.test_kafka_adapter import committed_positions, config_of
from tests.real_parts import ROOT, TopicMaker

POINTS = ["begin", "flush", "output", "journal", "end_txn", "commit"]
ONE_RECORD = {"rejects": {"max.message.bytes": "70"}}  # of a producer in one request to a partition
DEADLINE_S = 60.0


@pytest.fixture
async def universe(kafka_bootstrap: str) -> Universe:
    return await Universe.create(config_of(kafka_bootstrap))


async def commit(log: KafkaCommitLog | KafkaWriteAheadLog, universe: Universe, number: int) -> int:
    positions = {Source(universe.topics["rejects"], 0): number}
    return await log.commit(universe.outputs(number), universe.entry(number), positions)


async def test_points_of_a_commit_come_in_order(universe: Universe) -> None:
    points: list[str] = []
    noted = asyncio.Event()  # which no commit waits for

    def at(point: str) -> None:
        if point == "positions":
            noted.set()
        else:
            points.append(point)

    log = universe.log(at)
    await log.own()
    assert points == ["own"]
    for number in range(2):
        points.clear()
        await commit(log, universe, number)
        assert points == POINTS
    await asyncio.wait_for(noted.wait(), DEADLINE_S)
    await log.close()
    points.clear()
    noted.clear()
    ahead = universe.write_ahead_log(at)
    await ahead.own()
    await commit(ahead, universe, 2)
    assert points == ["own", "journal", "output", "flush", "commit"]
    await asyncio.wait_for(noted.wait(), DEADLINE_S)
    await ahead.close()
    assert universe.topics["journal"] in ahead.warnings[0]  # one replica


async def test_positions_are_seen_by_lag_tools(
    universe: Universe, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MARK_S", "LAST_MARK_S"):  # a stop waits for them no longer than a second
        monkeypatch.setattr(marking, name, DEADLINE_S)
    bootstrap = str(universe.config.bootstrap_servers)
    here = Source(universe.topics["rejects"], 0)
    for log in (universe.log(), universe.write_ahead_log()):
        await log.own()
        for number in (3, 5):
            await commit(log, universe, number)
        await log.close()
        assert await committed_positions(bootstrap, f"app.{universe.name}") == {here: 5}


async def test_end_of_each_transaction_is_counted(universe: Universe) -> None:
    """The guard sees what the library sends; with another library this fails."""
    log = universe.log()
    await log.own()
    for number in range(3):
        await commit(log, universe, number)
        assert log._guard is not None
        assert (log._guard.ends, log._guard.failures) == (1, 0)
        assert log._guard.is_safe
    assert log.recycled == 0
    await log.close()


async def test_end_that_was_not_seen_is_not_trusted(
    universe: Universe, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def blind(guard: EndTxnGuard, node: int, request: object, *, group: int = 0) -> object:
        return await guard._send(node, request, group=group)

    monkeypatch.setattr(EndTxnGuard, "_watched", blind)
    log = universe.log()
    await log.own()
    for number in range(3):
        await commit(log, universe, number)
    assert log.recycled == 2
    await log.close()
    await universe.assert_whole(range(3))


@pytest.mark.parametrize(("point", "kind"), [("flush", ProduceRequest), ("end_txn", EndTxnRequest)])
async def test_request_is_with_the_network_at_its_point(
    universe: Universe, point: str, kind: Any
) -> None:
    written: list[bool] = []

    def at(reached: str) -> None:
        if reached == point:
            connections = log._producer.client._conns.values()
            open_ = [request for c in connections for _, request, _ in c._requests]
            written.append(any(r.API_KEY == kind.API_KEY for r in open_))

    log = universe.log(at)
    await log.own()
    await commit(log, universe, 0)
    await log.close()
    assert written == [True]


# What is in the log of a transaction that a kill leaves open: correlations, events, entries.
# "output" stands between two requests; what is on its way at "flush" and "end_txn" may arrive.
LEFT_S = 30.0  # the transaction itself would be open for much longer
LEFT = {"begin": (0, 0, 0), "output": (1, 0, 0), "journal": (2, 1, 1), "commit": (0, 0, 0)}


async def left_open(universe: Universe) -> tuple[int, ...]:
    topics = [universe.topics[role] for role in ("correlations", "events", "journal")]
    found = await unfinished(str(universe.config.bootstrap_servers), topics)
    return tuple(found[topic] for topic in topics)


@pytest.mark.parametrize("point", ["own", *POINTS])
async def test_owner_killed_at_any_point_leaves_all_or_nothing(
    kafka_bootstrap: str, point: str
) -> None:
    universe = await Universe.create(config_of(kafka_bootstrap), ONE_RECORD)
    program = f"""
        import asyncio, os, signal
        from stream_calib.config import KafkaConfig
        from tests.kafka.commit_log import Universe

        def at(point):
            if point == {point!r} and armed:
                os.kill(os.getpid(), signal.SIGKILL)

        async def main():
            config = KafkaConfig(bootstrap_servers={universe.config.bootstrap_servers!r})
            universe = Universe(config, {dict(universe.topics)!r})
            universe.name = {universe.name!r}
            log = universe.log(at, transaction_timeout_s=120.0)
            if {point!r} == "own":
                armed.append(1)
            await log.own()
            await log.commit(universe.outputs(0), universe.entry(0), {{}})
            armed.append(1)
            await log.commit(universe.outputs(1), universe.entry(1), {{}})

        armed = []
        asyncio.run(main())
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(program), cwd=ROOT
    )
    async with asyncio.timeout(DEADLINE_S):
        assert await process.wait() == -signal.SIGKILL
    if point in LEFT:
        # the broker says yes to an end before it has written it to all of the topics
        deadline_s = time.monotonic() + LEFT_S
        while (left := await left_open(universe)) != LEFT[point]:
            assert time.monotonic() < deadline_s, left
            await asyncio.sleep(0.1)
    log = universe.log()
    started_s = time.monotonic()
    there = [record.value for record in await log.own()]
    assert time.monotonic() - started_s < 40.0  # nobody waits for a dead owner's transaction
    done = {"own": [0], "end_txn": [1, 2], "commit": [2]}.get(point, [1])
    assert len(there) in done
    assert await log.has_outputs() == bool(there)
    await log.commit(universe.outputs(2), universe.entry(2), {})
    await log.close()
    await universe.assert_whole([*range(len(there)), 2])


async def test_aborted_outputs_are_none(universe: Universe) -> None:
    class StopError(Exception): ...

    def at(point: str) -> None:
        if point == "journal":
            raise StopError

    log = universe.log(at)
    await log.own()
    with pytest.raises(TransportError, match="failed while committing: StopError"):
        await commit(log, universe, 0)
    assert await log.own() == []
    assert not await log.has_outputs()  # though their offsets are taken
    await log.close()


async def test_cancelled_commit_is_doubt(universe: Universe) -> None:
    log = universe.log()
    await log.own()
    for delay_s in (0.0, 0.005, 0.02):
        before = len(await log.own())
        doing = asyncio.create_task(commit(log, universe, before))
        await asyncio.sleep(delay_s)
        doing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await doing
        if not doing.cancelled():
            continue
        with pytest.raises(TransportError, match="not owned"):
            await commit(log, universe, 99)
    numbers = [int(record.value) for record in await log.own()]
    await log.close()
    await universe.assert_whole(numbers)


async def test_write_ahead_ends_the_transaction_of_another_mode(universe: Universe) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=universe.config.bootstrap_servers,
        transactional_id=f"app.{universe.name}",
    )
    await producer.start()
    await producer.begin_transaction()
    await producer.send_and_wait(universe.topics["journal"], b"open", partition=0)
    log = universe.write_ahead_log()
    assert await log.own() == []
    assert [await commit(log, universe, number) for number in range(2)] == [2, 3]
    await log.close()
    await producer.stop()
    await universe.assert_whole([0, 1])


async def test_record_that_is_too_large_is_refused_before_anything_is_written(
    kafka_bootstrap: str,
) -> None:
    universe = await Universe.create(
        config_of(kafka_bootstrap), {"events": {"max.message.bytes": "10000"}}
    )
    topics, points = universe.topics, list[str]()
    for log in (universe.log(points.append), universe.write_ahead_log(points.append)):
        await log.own()
        points.clear()
        for role, size, limit in [("events", 10_000, 10_000), ("journal", 3_000_000, 1_048_588)]:
            large = Output(topics[role], 0, b"", bytes(size), ())
            words = rf"of 1?\d+ bytes is too large for topic '{topics[role]}', which takes {limit}"
            with pytest.raises(ConfigError, match=words):
                await log.commit([*universe.outputs(0), large], universe.entry(0), {})
            with pytest.raises(ConfigError, match="too large"):
                await log.emit([large])
        assert points == []  # nothing was begun
        # many that fit are never put into one batch that does not
        fits = [Output(topics["events"], 0, b"", bytes(4000), ())] * 20
        await log.commit(fits, universe.entry(0), {})
        await log.close()
    assert await universe.read("journal") == [b"0", b"0"]
    assert await universe.read("correlations") == []


@pytest.mark.parametrize(
    ("role", "settings", "words"),
    [
        ("journal", {"cleanup.policy": "compact"}, "cleanup.policy=compact"),
        ("journal", {"cleanup.policy": "compact,delete"}, "cleanup.policy=compact,delete"),
        ("journal", {"retention.ms": "604800000"}, "retention.ms=604800000"),
        ("journal", {"retention.bytes": "1000000"}, "retention.bytes=1000000"),
        ("journal", {"max.message.bytes": "100000"}, "max.message.bytes=100000"),
        ("fits", {"cleanup.policy": "compact"}, "cleanup.policy=compact"),
        ("fits", {"retention.ms": "1000"}, "retention.ms=1000"),
        *(
            (
                role,
                {"unclean.leader.election.enable": "true"},
                "unclean.leader.election.enable=true",
            )
            for role in ("journal", "fits", "correlations", "events", "rejects")
        ),
    ],
)
async def test_dangerous_setting_is_refused(
    kafka_bootstrap: str, role: str, settings: Mapping[str, str], words: str
) -> None:
    universe = await Universe.create(config_of(kafka_bootstrap), {role: settings})
    topic = universe.topics[role]
    for log in (universe.log(), universe.write_ahead_log()):
        with pytest.raises(ConfigError, match=f"^Topic '{topic}' has {words}: .*kafka-configs"):
            await log.own()


async def test_universe_without_its_partition_is_refused(universe: Universe) -> None:
    settings = CommitSettings("id", "group", universe.topics, 1)
    for log in (
        KafkaCommitLog(universe.config, settings),
        KafkaWriteAheadLog(universe.config, settings),
    ):
        with pytest.raises(MissingTopicError, match=r"has 1 of the 2 partitions .* topics create"):
            await log.own()


async def test_compacted_input_is_refused(kafka_bootstrap: str, new_topic: TopicMaker) -> None:
    config = config_of(kafka_bootstrap)
    safe = await new_topic()
    (warning,) = await check_input_topics(config, [safe])
    assert warning == f"One replica: the loss of one disk is the loss of '{safe}'"
    for policy in ("compact", "compact,delete"):
        topic = await new_topic(configs={"cleanup.policy": policy})
        with pytest.raises(ConfigError, match=f"^Topic '{topic}' has cleanup.policy={policy}: "):
            await check_input_topics(config, [safe, topic])
    with pytest.raises(MissingTopicError):
        await check_input_topics(config, ["no-such-topic"])


async def test_two_owners_that_do_not_know_of_each_other_stop(universe: Universe) -> None:
    for make in (universe.log, universe.write_ahead_log):
        first, second = make(), make()
        await first.own()
        await second.own()
        await commit(second, universe, 0)
        with pytest.raises(OwnershipError, match="taken over"):
            await commit(first, universe, 1)
        await first.close()
        await second.close()


async def test_commit_is_refused_whose_transaction_took_too_long(universe: Universe) -> None:
    """It is given up before, unless the process stands still: here it hears the refusal."""
    bootstrap, journal = str(universe.config.bootstrap_servers), universe.topics["journal"]
    left_open: list[int] = []

    async def until_aborted() -> None:
        async with asyncio.timeout(DEADLINE_S):
            while (n := (await unfinished(bootstrap, [journal]))[journal]) > 0:
                left_open.append(n)
                await asyncio.sleep(0.1)

    def at(point: str) -> None:
        if point == "journal" and armed:
            with ThreadPoolExecutor(1) as others:
                others.submit(asyncio.run, until_aborted()).result()

    armed = False
    log = universe.log(at, transaction_timeout_s=5.0)
    log._deadline_s = DEADLINE_S
    await log.own()
    await commit(log, universe, 0)
    armed = True
    with pytest.raises(OwnershipError, match="stopped for longer than its transaction may take"):
        await commit(log, universe, 1)
    assert left_open[0] == 1
    assert log._guard is not None
    assert log._guard.ends == 1  # which the broker refused
    armed = False
    assert [record.value for record in await log.own()] == [b"0"]
    await commit(log, universe, 1)
    await log.close()
    await universe.assert_whole([0, 1])


async def test_failed_trim_is_counted(universe: Universe) -> None:
    log = universe.log()
    await log.own()
    await log.trim(1000)  # beyond the end
    assert log.trim_failures == 1
    await log.close()


def stands_still(pid: int) -> bool:
    """Whether a process, all its threads, is stopped, dead or gone."""
    try:
        stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return all(stat.rpartition(")")[2].split()[0] in "TtZX" for stat in stats)


@pytest.mark.parametrize(
    ("sign", "point"),
    [
        pytest.param(signal.SIGKILL, "begin", marks=pytest.mark.chaos),
        pytest.param(signal.SIGKILL, "flush", marks=pytest.mark.chaos),
        (signal.SIGKILL, "end_txn"),
        (signal.SIGSTOP, "end_txn"),
    ],
)
async def test_broker_that_is_gone_in_a_commit_is_doubt_and_hangs_nobody(
    own_broker: LocalBroker, caplog: pytest.LogCaptureFixture, sign: signal.Signals, point: str
) -> None:
    config = KafkaConfig(bootstrap_servers=own_broker.bootstrap, connect_timeout=4_000_000_000)
    universe = await Universe.create(config_of(own_broker.bootstrap, DEADLINE_S))
    universe.config = config
    armed = False

    # The request to end is sent to a frozen broker, lest it is answered before the signal acts.
    signs = {point: sign} | ({"journal": signal.SIGSTOP} if point == "end_txn" else {})

    def at(reached: str) -> None:
        if armed and reached in signs:
            assert own_broker.pid is not None
            os.kill(own_broker.pid, signs.pop(reached))  # once, however often it is tried again
            while not stands_still(own_broker.pid):  # it may answer until then
                time.sleep(0.001)

    log = universe.log(at, commit_timeout_s=4.0)
    await log.own()
    await commit(log, universe, 0)
    armed = True
    try:
        async with asyncio.timeout(DEADLINE_S):
            started_s = time.monotonic()
            with pytest.raises(TransportError, match=f"Kafka at {own_broker.bootstrap} "):
                await commit(log, universe, 1)
            assert time.monotonic() - started_s < 4.0 + 16.0  # not the library's 60 s
            with pytest.raises(TransportError, match=f"Kafka at {own_broker.bootstrap} "):
                await log.own()
            await log.trim(1)
            assert log.trim_failures == 1
            await log.close()
        gc.collect()
        await asyncio.sleep(0)
        assert caplog.records == []  # such as of exceptions that nobody took
        assert asyncio.all_tasks() == {asyncio.current_task()}
    finally:
        if sign == signal.SIGSTOP:
            os.kill(own_broker.pid or -1, signal.SIGCONT)
        else:
            await asyncio.to_thread(own_broker.kill)
            await asyncio.to_thread(own_broker.start)
    armed = False
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                there = [int(record.value) for record in await log.own()]
                break
            except TransportError:
                await asyncio.sleep(0.2)  # it is not up yet
        assert there in ([0], [0, 1])
        await commit(log, universe, 2)
        await log.close()
    await universe.assert_whole([*there, 2])


@pytest.mark.chaos
async def test_write_ahead_keeps_the_entry_when_the_broker_goes_before_the_outputs(
    own_broker: LocalBroker,
) -> None:
    config = KafkaConfig(bootstrap_servers=own_broker.bootstrap, connect_timeout=2_000_000_000)
    universe = await Universe.create(config)

    def at(point: str) -> None:
        if point == "journal":
            own_broker.kill()

    log = universe.write_ahead_log(at, commit_timeout_s=2.0)
    await log.own()
    with pytest.raises(TransportError):
        await commit(log, universe, 0)
    await asyncio.to_thread(own_broker.start)
    again = universe.write_ahead_log()
    async with asyncio.timeout(DEADLINE_S):
        assert [record.value for record in await again.own()] == [b"0"]
        await again.emit(universe.outputs(0))
    await again.close()
    await universe.assert_whole([0])


async def test_commits_of_several_universes_do_not_meet(kafka_bootstrap: str) -> None:
    config = config_of(kafka_bootstrap)
    universe = await Universe.create(config)
    await ensure_topics(
        config, [TopicSpec(topic, 3) for topic in universe.topics.values()], grow=True
    )
    logs = [
        KafkaCommitLog(config, CommitSettings(f"{universe.name}.{k}", "g", universe.topics, k))
        for k in range(3)
    ]
    await asyncio.gather(*(log.own() for log in logs))
    for number in range(5):
        await asyncio.gather(
            *(
                log.commit([], Output(universe.topics["journal"], k, b"", b"%d" % number, ()), {})
                for k, log in enumerate(logs)
            )
        )
    for log in logs:
        assert [record.value for record in await log.own()] == [b"%d" % n for n in range(5)]
        assert not await log.has_outputs()
        await log.close()
