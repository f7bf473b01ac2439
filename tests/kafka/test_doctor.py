"""What is said about ticks that are on the broker, before the service begins."""

import asyncio
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import orjson
import pytest
import structlog

from stream_calib.adapters.kafka import read_tails
from stream_calib.config import KafkaConfig
from tests.kafka.service import running, settings, write
from tests.real_parts import TopicMaker

START_NS = 1_700_000_000_000_000_000


def slow(n: int) -> list[bytes]:
    """Ticks of A each second and of B each minute."""
    times = sorted([*((k, "A") for k in range(n)), *((k, "B") for k in range(0, n, 60))])
    return [
        orjson.dumps({"symbol": symbol, "time": START_NS + k * 10**9, "price": 100.0})
        for k, symbol in times
    ]


@contextmanager
def every_log() -> Iterator[list[MutableMapping[str, Any]]]:
    """What is logged, though others in this process may have set a level."""
    before = structlog.get_config()
    structlog.reset_defaults()
    try:
        with structlog.testing.capture_logs() as logs:
            yield logs
    finally:
        structlog.configure(**before)


async def test_the_tail_of_topics_is_read_from_all_partitions(
    kafka_bootstrap: str, new_topic: TopicMaker
) -> None:
    one, two = await new_topic("one"), await new_topic("two")
    rows = [(topic, 0, b"%d" % k) for topic in (one, two) for k in range(100)]
    await write(kafka_bootstrap, rows)
    config = KafkaConfig(bootstrap_servers=kafka_bootstrap)
    tails = await read_tails(config, [two, one, "no-such-topic"], 40)
    by_topic: dict[str, list[bytes | None]] = {one: [], two: []}
    for batch in tails:
        by_topic[batch.source.topic] += batch.values
    expected = [b"%d" % k for k in range(80, 100)]
    assert by_topic == {one: expected, two: expected}
    assert await read_tails(config, ["no-such-topic"], 40) == []


@pytest.mark.parametrize("fits", [True, False])
async def test_a_window_too_short_for_the_slowest_symbol_is_told_at_start(
    kafka_bootstrap: str, new_topic: TopicMaker, *, fits: bool
) -> None:
    topic = await new_topic("ticks")
    await write(kafka_bootstrap, [(topic, 0, value) for value in slow(3000)])
    window = {"half_life": "4h", "window": "6m" if fits else "1m"}
    universe = {"name": "u", "symbols": ["A", "B"], "ewma": window}
    with every_log() as logs:
        async with running(settings(kafka_bootstrap, [topic], universe)):
            await asyncio.sleep(0.2)
    told = [str(line["event"]) for line in logs if "three times in a window" in str(line["event"])]
    assert len(told) == (0 if fits else 1)
    assert fits or 'ewma.window = "' in told[0]
