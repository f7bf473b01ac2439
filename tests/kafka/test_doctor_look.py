"""``doctor --topic`` on a real broker: what it says of mixed topics, and its settings run."""

import asyncio
import re
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from stream_calib.config import load_config
from tests.cli.command import Done, is_one_sentence, run_process
from tests.kafka.service import running, write
from tests.real_parts import TopicMaker

START_MS = 1_720_000_000_000


def a_mixture(seed: int) -> list[tuple[int, bytes]]:
    """Three symbols in three formats, each second or so, in an hour; garbage between them."""
    rng = np.random.default_rng(seed)
    common = rng.normal(0.0, 1e-4, 3600).cumsum()
    rows: list[tuple[int, bytes]] = []
    own = {name: rng.normal(0.0, 1e-4, 3600).cumsum() + common for name in "ABC"}
    for k in range(3600):
        at_ms = START_MS + 1000 * k + int(rng.integers(0, 900))
        a, b, c = (round(100.0 * float(np.exp(path[k])), 4) for path in own.values())
        feed = {"exchange": "KRAKEN", "symbol": "A-USD", "side": "buy", "amount": 1.0, "price": a,
                "id": str(k + 1), "type": None, "timestamp": at_ms / 1000,
                "receipt_timestamp": at_ms / 1000 + 0.05}  # fmt: skip
        raw = {"e": "trade", "E": at_ms, "s": "BUSDT", "t": k + 1, "p": str(b), "q": "1",
               "T": at_ms, "m": False}  # fmt: skip
        native = {"symbol": "C", "time": at_ms * 1_000_000, "price": c}
        rows += [(k % 2, orjson.dumps(message)) for message in (feed, raw, native)]
        if k % 10 == 0:
            rows.append((k // 10 % 2, b"\xff garbage"))
    return rows


async def doctor(*words: object) -> Done:
    return await asyncio.to_thread(run_process, "doctor", *words)


async def test_a_mixed_topic_is_told_as_it_is_and_the_settings_publish(
    kafka_bootstrap: str, new_topic: TopicMaker, tmp_path: Path
) -> None:
    topic = await new_topic("mixed", partitions=2)
    rows = a_mixture(seed=1)
    await write(kafka_bootstrap, [(topic, partition, value) for partition, value in rows])
    done = await doctor(
        "--topic", topic[:-3] + "...", "--bootstrap", kafka_bootstrap, "--json",
        "--write", tmp_path / "pasted.toml",
    )  # fmt: skip
    assert done.code == 0, done.err
    found: dict[str, Any] = orjson.loads(done.out)
    (told,) = found["topics"]
    assert (told["topic"], told["partitions"]) == (topic, 2)
    assert (told["records"], told["ticks"]) == (len(rows), 3 * 3600)
    assert {(w["format"], w["kind"], w["unit"]): w["ticks"] for w in told["written"]} == {
        ("cryptofeed", "trade", "s"): 3600,
        ("binance", "trade", "ms"): 3600,
        ("native", "trade", "ns"): 3600,
    }
    assert told["refused"] == {"json": 360}
    for name in ("KRAKEN:A-USD", "BINANCE:BUSDT", "C"):
        assert found["symbols"][name]["trades"]["rate_hz"] == pytest.approx(1.0, rel=0.001)
    receipt = next(s for s in found["clock_skew"] if s["against"] == "receipt")
    # times in seconds as floats hold microseconds
    assert receipt["median_s"] == pytest.approx(-0.05, abs=1e-5)
    assert {*found["recommended"]["symbols"]} == {"KRAKEN:A-USD", "BINANCE:BUSDT", "C"}
    config = load_config(
        tmp_path / "pasted.toml",
        {
            "app": f"test-{uuid.uuid4().hex[:12]}",
            "output.prefix": f"out-{uuid.uuid4().hex[:12]}",
            "http.port": 0,
        },
    )
    assert config.kafka.bootstrap_servers == kafka_bootstrap
    async with running(config) as service:
        await service.until_seen(len(rows))
        assert service.outcomes["malformed"] + service.outcomes["json"] == 360
        async with asyncio.timeout(60.0):
            while not service.matrices:
                service.changed.clear()
                await service.changed.wait()
    assert len(service.matrices[-1].symbols) > 1


async def test_the_newest_records_are_looked_at_and_the_first_tell_how_far_they_go_back(
    kafka_bootstrap: str, new_topic: TopicMaker
) -> None:
    topic = await new_topic("long")
    rows = a_mixture(seed=2)
    await write(kafka_bootstrap, [(topic, 0, value) for _, value in rows])
    words = ("--topic", topic, "--bootstrap", kafka_bootstrap, "--records", 1000, "--json")
    found = orjson.loads((await doctor(*words)).out)
    assert found["topics"][0]["records"] == 1000
    assert int(found["topics"][0]["first_ns"]) > (START_MS + 3_000_000) * 1_000_000
    # five minutes alone would be too short for windows of a minute
    assert not found["recommended"]["sample_too_short"]
    assert found["recommended"]["window"] == "1m"


@pytest.mark.full
async def test_what_is_not_there_is_one_sentence(
    kafka_bootstrap: str, new_topic: TopicMaker
) -> None:
    empty = await new_topic("empty")
    cases = {
        empty: (4, "holds no records"),
        "no-such-topic": (6, "does not exist"),
        "no(such": (4, "no regular expression"),
    }
    for name, (code, words) in cases.items():
        done = await doctor("--topic", name, "--bootstrap", kafka_bootstrap)
        assert done.code == code
        assert is_one_sentence(done.err)
        assert words in done.err
        assert not re.search(r"password|/", done.err)
