"""Topics that match a pattern are read, those too that are made while the service runs."""

import asyncio
import time
import uuid
import warnings
from collections.abc import Sequence

import orjson
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from stream_calib.adapters.kafka import (
    KafkaSource,
    TopicSpec,
    check_topics,
    ensure_topics,
    read_journal,
)
from stream_calib.config import Config
from stream_calib.config.input import InputConfig
from stream_calib.service import topics, wiring
from stream_calib.service.kept import decode_journal
from stream_calib.service.replay import repeat_journal
from stream_calib.values import SECOND_NS, Source
from tests.kafka.service import running, settings, write

START = 1_700_000_000 * SECOND_NS
SYMBOLS = ("A", "B")
UNIVERSE = {"name": "u", "symbols": list(SYMBOLS), "ewma": {"half_life": "10s", "window": "1s"}}
Rows = list[tuple[str, int, bytes]]
GONE_S = 60.0  # the broker is asked every 5 s
FOUND_S = 60.0  # metadata are looked at every 3 s, on a machine that does other things


@pytest.fixture
def stem() -> str:
    return f"trades-{uuid.uuid4().hex[:10]}"


def configured(bootstrap: str, pattern: str) -> Config:
    config = settings(bootstrap, ["ticks"], UNIVERSE | {"ready_n_eff": 3.0}, idle_slack="1s")
    return config.model_copy(
        update={"input": InputConfig.model_validate({"topics_pattern": pattern})}
    )


def ticks(topic: str, first: int, n: int, symbols: Sequence[str] = SYMBOLS) -> Rows:
    """One tick of each symbol a second."""
    return [
        (topic, 0, orjson.dumps({"symbol": s, "time": START + k * SECOND_NS, "price": 100 + k % 7}))
        for k in range(first, first + n)
        for s in symbols
    ]


async def make(config: Config, *names: str, **options: str) -> None:
    specs = [TopicSpec(name, 1, 1, options) for name in names]
    await ensure_topics(config.kafka, specs)


async def published(config: Config) -> list[object]:
    """Read what was published, topic by topic."""
    roles = ("correlations", "events", "universes")
    source = KafkaSource(config.kafka, [f"{config.output.prefix}.{role}" for role in roles])
    await source.start()
    try:
        found: dict[str, list[object]] = {}
        for own in await source.discover():
            (_, end) = (await source.bounds([own]))[own]
            batch = await source.read(own, 0, end, 100_000)
            found[own.topic] = list(batch.values)
        return [found[topic] for topic in sorted(found)]
    finally:
        await source.close()


async def repeated(config: Config) -> list[object]:
    found: dict[str, list[object]] = {}
    async for _, outputs in repeat_journal(config, config.universe[0]):
        for output in outputs:
            found.setdefault(output.topic, []).append(output.value)
    return [found[topic] for topic in sorted(found)]


async def discovered(config: Config) -> list[Source]:
    topic = f"{config.output.prefix}.journal"
    entries = decode_journal(await read_journal(config.kafka, topic, 0), "u").values()
    return [s for entry in entries for move in entry.moves for s in move.discovered]


@pytest.mark.asyncio
async def test_topics_that_appear_later_are_found_journaled_and_repeated(
    kafka_bootstrap: str, stem: str
) -> None:
    config = configured(kafka_bootstrap, f"{stem}-[ab]")
    one, two, other = (f"{stem}-{name}" for name in ("a", "b", "c"))
    async with running(config) as service:  # nothing matches yet
        await make(config, one, other)
        await write(kafka_bootstrap, [*ticks(one, 0, 60), *ticks(other, 0, 5)])
        await service.until_seen(120)
        started_s = time.monotonic()
        await make(config, two)
        await write(kafka_bootstrap, ticks(two, 58, 30))
        await service.until_seen(180)
        assert time.monotonic() - started_s < FOUND_S
    assert await discovered(config) == [Source(one, 0), Source(two, 0)]
    assert service.matrices
    before = await published(config)
    assert await repeated(config) == before
    # and it goes on from there, not from the beginning
    async with running(config) as service:
        await write(kafka_bootstrap, ticks(one, 100, 20))
        await service.until_seen(40)
    assert await repeated(config) == await published(config)
    assert await discovered(config) == [Source(one, 0), Source(two, 0)]


@pytest.mark.asyncio
async def test_a_topic_that_is_deleted_holds_nothing_up(kafka_bootstrap: str, stem: str) -> None:
    config = configured(kafka_bootstrap, f"{stem}-[ab]")
    stays, goes = f"{stem}-a", f"{stem}-b"
    await make(config, stays, goes)
    async with running(config) as service:
        await write(kafka_bootstrap, [*ticks(goes, 0, 40), *ticks(stays, 0, 40)])
        await service.until_seen(160)
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
        await admin.start()
        await admin.delete_topics([goes])
        await admin.close()
        deadline_s, k = time.monotonic() + GONE_S, 40
        while service.matrices[-1].as_of_ns < START + 60 * SECOND_NS:
            assert time.monotonic() < deadline_s, service.outcomes
            await write(kafka_bootstrap, ticks(stays, k, 10))
            k += 10
            await asyncio.sleep(0.5)


@pytest.mark.asyncio
async def test_topics_of_our_own_and_of_kafka_never_match(kafka_bootstrap: str, stem: str) -> None:
    config = configured(kafka_bootstrap, "")
    pattern = f"{stem}-a|__.*|{config.output.prefix}.*"
    own = InputConfig.model_validate({"topics_pattern": pattern})
    config = config.model_copy(update={"input": own})
    await make(config, f"{stem}-a")
    await ensure_topics(config.kafka, topics.output_topics(config))
    mine = f"{config.output.prefix}.correlations"
    await check_topics(config.kafka, [mine])
    source = wiring.kafka_source(config, config.universe[0])
    await source.start()
    try:
        found = {own.topic for own in await source.discover()}
    finally:
        await source.close()
    assert f"{stem}-a" in found
    assert not [topic for topic in found if topic.startswith(("__", config.output.prefix))]


@pytest.mark.asyncio
async def test_a_compacted_topic_that_matches_is_left_unread_and_said(
    kafka_bootstrap: str, stem: str
) -> None:
    config = configured(kafka_bootstrap, f"{stem}-.*")
    good, bad = f"{stem}-good", f"{stem}-bad"
    await make(config, good)
    await make(config, bad, **{"cleanup.policy": "compact"})
    source = wiring.kafka_source(config, config.universe[0])
    await source.start()
    try:
        with pytest.warns(RuntimeWarning, match=f"{bad}' matches and is left unread"):
            assert await source.discover() == (Source(good, 0),)
        await asyncio.sleep(3.2)  # the next look says nothing anew
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert await source.discover() == ()
    finally:
        await source.close()
    await ensure_topics(config.kafka, topics.output_topics(config))
    assert any(bad in warning for warning in await topics.check_topics(config))


@pytest.mark.asyncio
async def test_a_pattern_that_nothing_matches_is_said(kafka_bootstrap: str, stem: str) -> None:
    config = configured(kafka_bootstrap, f"{stem}-.*")
    await ensure_topics(config.kafka, topics.output_topics(config))
    assert f"No topic matches '{stem}-.*' yet" in await topics.check_topics(config)
    assert await wiring.recent_records(config, 10) == []
