"""Topics that grow, are cut, made anew or have dangerous settings: told, never silent."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError

from stream_calib.adapters.files.sink import _line
from stream_calib.adapters.kafka import TopicSpec, ensure_topics, read_journal
from stream_calib.config import KafkaConfig, load_config
from stream_calib.errors import ConfigError, RecoveryError
from stream_calib.service.kept import decode_journal
from stream_calib.service.topics import output_topics
from stream_calib.service.wiring import kafka_service
from stream_calib.values import JournalEntry, Output, Source
from stream_calib.wire.journal import encode_entry, link
from tests.cli.command import run_process
from tests.kafka.killing import DEADLINE_S, Published, Victim, read
from tests.kafka.living import Ended, ended, start
from tests.kafka.service import write
from tests.kafka.test_faults_process import (
    Row,
    begun,
    catches_up,
    completes,
    crashed,
    events,
    matrices,
    names,
    reference,
    refused,
    run_until,
    scene,
    sequences,
    settings,
    tick_rows,
)
from tests.kafka.test_faults_snapshots import kept


@contextlib.asynccontextmanager
async def administrator(bootstrap: str) -> AsyncIterator[Any]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def made_anew(
    bootstrap: str, topic: str, rows: Sequence[Row] = (), configs: Mapping[str, str] | None = None
) -> None:
    """Delete a topic of one partition, create it again and write these rows."""
    async with administrator(bootstrap) as admin:
        await admin.delete_topics([topic])
        code = TopicAlreadyExistsError.errno
        while code == TopicAlreadyExistsError.errno:
            answer = await admin.create_topics(
                [NewTopic(topic, 1, 1, topic_configs=dict(configs or {}))]
            )
            code = answer.topic_errors[0][1]
            await asyncio.sleep(0.1)
        assert code == 0
    await write(bootstrap, rows)


async def cut_before(bootstrap: str, topic: str, offset: int) -> None:
    async with administrator(bootstrap) as admin:
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(offset)})


async def configure(bootstrap: str, topic: str, configs: Mapping[str, str]) -> None:
    """Give a topic these settings, and its broker's for all others."""
    async with administrator(bootstrap) as admin:
        wanted = ConfigResource(ConfigResourceType.TOPIC, topic, configs=dict(configs))
        await admin.alter_configs([wanted])


async def written(bootstrap: str, topic: str) -> list[bytes | None]:
    """Return what a reader sees that does not care for transactions."""
    place, found = TopicPartition(topic, 0), []
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap) as consumer:
        consumer.assign([place])
        end = (await consumer.end_offsets([place]))[place]
        consumer.seek(place, (await consumer.beginning_offsets([place]))[place])
        while await consumer.position(place) < end:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += [record.value for record in records]
    return found


async def end_of(bootstrap: str, topic: str) -> int:
    """Return the position after all that was ever written, be it aborted."""
    place = TopicPartition(topic, 0)
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap) as consumer:
        return int((await consumer.end_offsets([place]))[place])


async def journal(victim: Victim) -> list[JournalEntry]:
    kafka = load_config(victim.config_file).kafka
    return list(
        decode_journal(await read_journal(kafka, f"{victim.prefix}.journal", 0), "u").values()
    )


async def taken_in(victim: Victim) -> dict[Source, tuple[int, int]]:
    """Return where each source was read to and how many records, without a hole or an overlap."""
    found: dict[Source, tuple[int, int]] = {}
    for wanted in (w for e in await journal(victim) for m in e.moves for w in m.ranges):
        position, n = found.get(wanted.source, (0, 0))
        assert wanted.position_before == position
        found[wanted.source] = (wanted.position_after, n + wanted.n_records)
    return found


def contiguous(found: Published) -> bool:
    return all(
        sequences(found[role]) == list(range(1, 1 + len(found[role])))
        for role in ("correlations", "events")
    )


async def gaps(victim: Victim) -> list[Any]:
    """Return the gaps on record, each told in an event too."""
    told = [event["type"] for event in events(await victim.published())]
    changes = [change for entry in await journal(victim) for change in entry.changes]
    found = [change.details["ranges"] for change in changes if change.kind == "gap"]
    assert told.count("gap_accepted") == len(found)
    return found


async def killed_scene(
    bootstrap: str, folder: Path, seed: int, crash: str = "commit:2", seconds: float = 60.0
) -> tuple[Victim, list[Row]]:
    """Return a service that was killed early, with nothing but its journal to go on from."""
    rows: list[Row] = []

    def all_rows(topic: str) -> list[Row]:
        rows.extend(tick_rows(topic, names(6), seed, seconds))
        return rows

    victim = await scene(bootstrap, folder, all_rows)
    settings(victim, "[snapshots]", "[snapshots]\nkeep = 100")  # the journal is not trimmed
    await crashed(victim, crash)
    for path in kept(victim):
        path.unlink()
    return victim, rows


async def half_read(bootstrap: str, folder: Path, seed: int) -> tuple[Victim, list[Row]]:
    """Return a service that has not run yet, and its input, of which 600 records are there.

    Silence closes no bar, and the journal is not trimmed.
    """
    victim, rows = await begun(bootstrap, folder, seed)
    settings(victim, '"1500ms"', '"60s"')
    settings(victim, "[snapshots]", "[snapshots]\nkeep = 100")
    return victim, rows


def names_the_loss(sentence: str, victim: Victim) -> bool:
    return all(
        word in sentence
        for word in (repr(victim.topics[0]), "partition 0", "position", "--accept-gap")
    )


@pytest.mark.chaos
async def test_f40_partitions_are_added_while_it_is_dead_and_while_it_runs(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    victim, rows = await killed_scene(kafka_bootstrap, tmp_path, seed)
    kafka, (topic,) = KafkaConfig(bootstrap_servers=kafka_bootstrap), victim.topics
    await ensure_topics(kafka, [TopicSpec(topic, 2)], grow=True)
    await write(kafka_bootstrap, [(topic, 1, value) for _, _, value in rows[::3]])
    live = await start(victim)
    await asyncio.to_thread(live.until_said, "running")
    await ensure_topics(kafka, [TopicSpec(topic, 3)], grow=True)
    await write(kafka_bootstrap, [(topic, 2, value) for _, _, value in rows[::2]])
    written = [len(rows), len(rows[::3]), len(rows[::2])]
    wanted = {Source(topic, k): (n, n) for k, n in enumerate(written)}
    while len(await taken_in(victim)) < 3:
        assert live.process.poll() is None
        await asyncio.sleep(0.1)
    live.process.kill()
    await ended(live)
    live = await start(victim)
    while await taken_in(victim) != wanted:
        assert live.process.poll() is None, f"seed {seed}"
        await asyncio.sleep(0.1)
    assert (await ended(live, signal.SIGTERM)).code == 0

    # all that was published comes out of the journal once more, byte for byte
    out = tmp_path / "again.jsonl"
    words = ("replay", "--journal", "--config", victim.config_file, "--out", out)
    done = await asyncio.to_thread(run_process, *words)
    assert (done.code, done.err) == (0, ""), done
    lines = out.read_bytes().splitlines(keepends=True)
    found = await victim.published()
    assert contiguous(found)
    for role, records in found.items():
        name = f"{victim.prefix}.{role}"
        again = [line for line in lines if orjson.loads(line)["topic"] == name]
        published = [_line(Output(name, 0, k or b"", v or b"", h)) for k, v, h in records]
        assert again == published, f"seed {seed}"


def reached(found: Published, end_ns: int) -> bool:
    return bool(found["correlations"]) and matrices(found)[-1].as_of_ns > end_ns


async def ended_when_changed(victim: Victim, change: Coroutine[Any, Any, None]) -> Ended:
    """Change the input of a service that has read all of it, and stands still meanwhile."""
    live = await start(victim)
    await catches_up(live, victim)
    live.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(0.5)  # the answer to a fetch that is under way is an empty one
    await change
    live.process.send_signal(signal.SIGCONT)
    done = await ended(live)
    assert done.code == 8, done
    return done


@pytest.mark.chaos
async def test_f41_input_topic_is_made_anew_with_fewer_records(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    victim, rows = await killed_scene(kafka_bootstrap, tmp_path, seed, seconds=120.0)
    await made_anew(kafka_bootstrap, victim.topics[0], rows[:10])
    assert names_the_loss(await refused(victim, 8), victim)
    before = await victim.published()
    await write(kafka_bootstrap, rows[1500:])
    await crashed(victim, "snapshot_saved:1", "--accept-gap")
    found, _ = await run_until(
        victim, lambda found: len(found["correlations"]) > len(before["correlations"]) + 20
    )
    assert contiguous(found), f"seed {seed}"
    assert await gaps(victim)


@pytest.mark.chaos
async def test_f41_input_topic_is_made_anew_with_as_many_other_records(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    victim, rows = await killed_scene(kafka_bootstrap, tmp_path, seed)
    other = tick_rows(victim.topics[0], names(6), seed + 1, 90.0)
    await made_anew(kafka_bootstrap, victim.topics[0], other[: len(rows)])
    sentence = await refused(victim, 8)
    assert names_the_loss(sentence, victim), f"seed {seed}: {sentence}"
    assert "does not hold the records any more that were read" in sentence


async def test_f41_input_topic_is_made_anew_while_it_runs(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    victim, _ = await half_read(kafka_bootstrap, tmp_path, seed)
    expected = await reference(victim, flush=False)
    other = tick_rows(victim.topics[0], names(6), seed + 1)[:900]
    done = await ended_when_changed(victim, made_anew(kafka_bootstrap, victim.topics[0], other))
    assert names_the_loss(done.sentence, victim), done.sentence
    assert "made anew while it was read" in done.sentence
    assert "position 600" in done.sentence
    assert await victim.published() == expected, f"seed {seed}"  # nothing of the other topic
    assert names_the_loss(await refused(victim, 8), victim)
    end = orjson.loads(other[-1][2])["time"] - 3_000_000_000
    found, _ = await run_until(victim, lambda found: reached(found, end), "--accept-gap")
    assert contiguous(found), f"seed {seed}"
    n = len(expected["correlations"])
    assert found["correlations"][:n] == expected["correlations"]
    assert await gaps(victim)


async def test_f42_input_is_cut_below_what_has_to_be_read_again(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    victim, rows = await killed_scene(kafka_bootstrap, tmp_path, seed)
    before = await victim.published()
    await cut_before(kafka_bootstrap, victim.topics[0], 500)
    assert names_the_loss(await refused(victim, 8), victim)
    await crashed(victim, "snapshot_saved:1", "--accept-gap")
    ticks = [orjson.loads(value) for _, _, value in rows]
    later = [tick | {"time": tick["time"] + 60_000_000_000} for tick in ticks]
    await write(kafka_bootstrap, [(victim.topics[0], 0, orjson.dumps(tick)) for tick in later])
    end = later[-1]["time"] - 3_000_000_000
    found, _ = await run_until(victim, lambda found: reached(found, end))
    assert contiguous(found), f"seed {seed}"
    assert found["correlations"][: len(before["correlations"])] == before["correlations"]
    assert await gaps(victim)


@pytest.mark.chaos
async def test_f42_input_is_cut_above_where_a_clean_stop_left_it(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    victim, rows = await half_read(kafka_bootstrap, tmp_path, seed)
    await completes(victim, await reference(victim, flush=False))
    await write(kafka_bootstrap, rows[600:])
    await cut_before(kafka_bootstrap, victim.topics[0], 700)
    assert names_the_loss(await refused(victim, 8), victim)
    # nothing was repeated without its input: what comes after needs no flag a second time
    await crashed(victim, "commit:2", "--accept-gap")
    end = orjson.loads(rows[-1][2])["time"] - 3_000_000_000
    found, _ = await run_until(victim, lambda found: reached(found, end))
    assert contiguous(found), f"seed {seed}"
    assert await gaps(victim) == [[[victim.topics[0], 0, 600, 700]]]


async def test_f42_input_is_cut_while_it_runs(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    victim, rows = await half_read(kafka_bootstrap, tmp_path, seed)

    async def cut() -> None:
        await write(kafka_bootstrap, rows[600:])
        await cut_before(kafka_bootstrap, victim.topics[0], 900)

    done = await ended_when_changed(victim, cut())
    assert names_the_loss(done.sentence.lower(), victim), done.sentence
    end = orjson.loads(rows[-1][2])["time"] - 3_000_000_000
    found, _ = await run_until(victim, lambda found: reached(found, end), "--accept-gap")
    assert contiguous(found), f"seed {seed}"
    assert await gaps(victim)


async def test_f43_journal_ends_in_markers_and_aborted_records(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    victim, _ = await killed_scene(kafka_bootstrap, tmp_path, seed, "journal:2")
    await crashed(victim, "journal:1")
    topic = f"{victim.prefix}.journal"
    dead = link(JournalEntry("u", 99))
    async with AIOKafkaProducer(
        bootstrap_servers=kafka_bootstrap, transactional_id=f"{topic}-dead"
    ) as producer:
        await producer.begin_transaction()
        await producer.send_and_wait(topic, encode_entry(dead, topic, 0).value, partition=0)
        await producer.send_and_wait(topic, b"garbage", partition=0)
        await producer.abort_transaction()
    await crashed(victim, "journal:1")
    places = await read_journal(KafkaConfig(bootstrap_servers=kafka_bootstrap), topic, 0)
    end = await end_of(kafka_bootstrap, topic)
    assert end >= places[-1].position + 7  # entries that nobody sees, and markers
    expected = await reference(victim)
    await completes(victim, expected)
    assert await victim.published() == expected, f"seed {seed}"
    assert await victim.repeated() == expected


@pytest.mark.chaos
async def test_f43_journal_was_compacted(kafka_bootstrap: str, tmp_path: Path, seed: int) -> None:
    victim, rows = await half_read(kafka_bootstrap, tmp_path, seed)
    await completes(victim, await reference(victim, flush=False))
    last = (await journal(victim))[-1]
    assert last.number > 3
    (spec,) = [s for s in output_topics(load_config(victim.config_file)) if "journal" in s.name]
    await configure(kafka_bootstrap, spec.name, COMPACTING)
    deadline_s = time.monotonic() + DEADLINE_S
    async with AIOKafkaProducer(
        bootstrap_servers=kafka_bootstrap, transactional_id=f"{spec.name}-dead"
    ) as producer:
        while await journal(victim) != [last]:  # all have the same key
            assert time.monotonic() < deadline_s
            await producer.begin_transaction()  # of whose segments the last is never compacted
            await producer.send_and_wait(spec.name, b"garbage", key=b"dead", partition=0)
            await producer.abort_transaction()
            await asyncio.sleep(0.5)
    await configure(kafka_bootstrap, spec.name, spec.settings)
    snapshots = {path: path.read_bytes() for path in kept(victim)}
    for path in snapshots:
        path.unlink()
    sentence = await refused(victim, 8)
    assert f"begins at entry {last.number}, and no snapshot that fits it is left" in sentence
    for path, value in snapshots.items():
        path.write_bytes(value)
    await write(kafka_bootstrap, rows[600:])
    done = await completes(victim, await reference(victim, flush=False))
    (recovered,) = done.said("recovered")
    assert (recovered["entry"], recovered["snapshot"]) == (last.number, last.number)
    assert last.number < (await journal(victim))[-1].number


@pytest.mark.chaos
async def test_f45_record_larger_than_its_topic_takes(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    victim = await scene(kafka_bootstrap, tmp_path, lambda t: tick_rows(t, names(6), seed))
    await made_anew(
        kafka_bootstrap,
        f"{victim.prefix}.correlations",
        configs={"cleanup.policy": "compact,delete", "max.message.bytes": "300"},  # no matrix
    )
    sentence = await refused(victim, 3)
    assert f"{victim.prefix}.correlations" in sentence
    assert "max.message.bytes" in sentence
    found = await victim.published()
    assert found["correlations"] == []
    assert await end_of(kafka_bootstrap, f"{victim.prefix}.correlations") == 0
    # refused before anything of its transaction was written, to any topic
    found["journal"] = await read(kafka_bootstrap, f"{victim.prefix}.journal")
    for role, records in found.items():
        values = [value for _, value, _ in records]
        assert await written(kafka_bootstrap, f"{victim.prefix}.{role}") == values, role
    assert found["journal"]
    # with a larger limit it goes on where it was
    await made_anew(kafka_bootstrap, f"{victim.prefix}.correlations")
    await completes(victim, await reference(victim))


@pytest.mark.chaos
async def test_journal_topic_is_made_anew_while_outputs_and_snapshots_exist(
    kafka_bootstrap: str, tmp_path: Path, seed: int
) -> None:
    victim = await scene(kafka_bootstrap, tmp_path, lambda t: tick_rows(t, names(6), seed))
    expected = await reference(victim)
    await completes(victim, expected)
    (spec,) = [s for s in output_topics(load_config(victim.config_file)) if "journal" in s.name]
    await made_anew(kafka_bootstrap, spec.name, configs=spec.settings)
    sentence = await refused(victim, 8)
    assert "there are snapshots of it" in sentence
    assert "--genesis" in sentence
    for path in kept(victim):
        path.unlink()
    with pytest.raises(RecoveryError, match="there are records that it published"):
        await kafka_service(load_config(victim.config_file)).run(asyncio.Event())
    n = len(expected["correlations"])
    found, _ = await run_until(
        victim, lambda found: len(found["correlations"]) == 2 * n, "--genesis"
    )
    assert contiguous(found), f"seed {seed}"
    assert found["correlations"][:n] == expected["correlations"]
    for old, new in zip(matrices(found)[:n], matrices(found)[n:], strict=True):
        assert (old.as_of_ns, old.corr.tobytes()) == (new.as_of_ns, new.corr.tobytes())


COMPACTING = {
    "cleanup.policy": "compact",
    "segment.ms": "100",
    "segment.bytes": "1048576",
    "min.cleanable.dirty.ratio": "0.001",
    "max.compaction.lag.ms": "100",
}
KEPT = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
DANGERS = {
    "journal-compacted": ("journal", "cleanup.policy", "compact"),
    "journal-compacted-too": ("journal", "cleanup.policy", "compact,delete"),
    "journal-for-a-week": ("journal", "retention.ms", "604800000"),
    "journal-up-to-a-size": ("journal", "retention.bytes", "1000000"),
    "fits-for-a-week": ("fits", "retention.ms", "604800000"),
    "journal-of-small-entries": ("journal", "max.message.bytes", "10000"),
    "journal-unclean": ("journal", "unclean.leader.election.enable", "true"),
    "outputs-unclean": ("correlations", "unclean.leader.election.enable", "true"),
    "input-compacted": ("input", "cleanup.policy", "compact"),
}


@pytest.mark.parametrize("danger", DANGERS)
async def test_dangerous_setting_of_a_topic_is_refused(
    kafka_bootstrap: str, tmp_path: Path, danger: str
) -> None:
    role, key, value = DANGERS[danger]
    victim = await scene(kafka_bootstrap, tmp_path, lambda t: [(t, 0, b"{}")])
    topic = victim.topics[0] if role == "input" else f"{victim.prefix}.{role}"
    configs = KEPT if role in {"journal", "fits"} else {}
    await made_anew(kafka_bootstrap, topic, configs=configs | {key: value})
    if danger in {"journal-compacted", "input-compacted"}:
        sentence = await refused(victim, 3)
    else:
        service = kafka_service(load_config(victim.config_file))
        with pytest.raises(ConfigError) as caught:
            await asyncio.wait_for(service.run(asyncio.Event()), DEADLINE_S)
        sentence = str(caught.value)
    assert f"{topic!r} has {key}={value}" in sentence
