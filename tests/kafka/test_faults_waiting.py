"""A transaction on the input that its writer does not end: waited for, and told."""

import asyncio
import re
import signal
from pathlib import Path

import orjson
import pytest
from aiokafka import AIOKafkaProducer

from stream_calib.adapters.kafka.producing import abandon
from tests.kafka.killing import ROLES
from tests.kafka.living import asked, end_all, ended, start
from tests.kafka.service import write
from tests.kafka.test_faults_process import catches_up, half_fed, published, reaches
from tests.kafka.truth import through_an_engine

OPEN_MS = 30_000  # a broker's own time for it; longer than the service takes to say so


async def told(url: str, path: str, word: str) -> str:
    """Ask until the answer has a word in it; return all of it."""
    return (await asked(url, path, re.escape(word))).string


@pytest.mark.chaos
async def test_f37_transaction_of_a_stranger_on_the_input_is_waited_for_and_told(
    kafka_bootstrap: str, tmp_path: Path, chaos_seed: int
) -> None:
    victim, url, first, rest = await half_fed(kafka_bootstrap, tmp_path, chaos_seed)
    (topic,) = victim.topics
    live = await start(victim)
    try:
        await catches_up(live, victim)
        stranger = AIOKafkaProducer(
            bootstrap_servers=kafka_bootstrap,
            transactional_id=f"{topic}-stranger",
            transaction_timeout_ms=OPEN_MS,
        )
        await stranger.start()
        await stranger.begin_transaction()
        # a tick that would be in time, with a price of its own, and what would be a reject
        next_one = orjson.loads(rest[0][2])
        own = next_one | {"time": next_one["time"] - 1, "price": next_one["price"] + 0.01}
        for value in (orjson.dumps(own), b'{"symbol": "broken'):
            await stranger.send_and_wait(topic, value, partition=0)
        await write(kafka_bootstrap, rest)
        ready = await told(url, "/readyz", "does not end")
        assert repr(topic) in ready
        line = f'stream_calib_consumer_withheld_records{{partition="0",topic="{topic}"'
        metrics = await told(url, "/metrics", line)
        (found,) = [text for text in metrics.splitlines() if text.startswith(line)]
        assert float(found.rpartition(" ")[2]) == 2 + len(rest)
        await asyncio.to_thread(live.until_said, "input is held up")
        await asyncio.to_thread(live.until_said, "input goes on")  # the broker has aborted it
        expected, outcomes = await through_an_engine(victim, ROLES, flush=False)
        # and nothing of the stranger's
        assert (outcomes["applied"], outcomes["json"]) == (len(first) + len(rest), 0)
        assert await published(live, victim, reaches(expected)) == expected
        assert "does not end" not in await told(url, "/readyz", "")
        await abandon(stranger)
        done = await ended(live, signal.SIGTERM)
    finally:
        end_all()
    assert (done.code, done.sentence) == (0, "")
    assert done.said("input is held up")
    assert await victim.published() == expected == await victim.repeated(), f"seed {chaos_seed}"
