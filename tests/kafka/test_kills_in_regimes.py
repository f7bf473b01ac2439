"""Kill -9 around alarms, targets, swaps and the way back: the same bytes."""

import asyncio
import dataclasses
import uuid
from pathlib import Path
from random import Random

import numpy as np
import orjson
import pytest

from stream_calib.adapters.kafka import TopicSpec, ensure_topics
from stream_calib.config import KafkaConfig
from stream_calib.values import F64
from tests.engine.driver import SECOND, START
from tests.engine.regimes import Regimes, names, regime_settings
from tests.estimation.truths import broken
from tests.kafka.killing import WHOLE, Published, Victim, tell
from tests.kafka.service import write

POINTS = (  # in the order in which they come
    "fit_asked",
    "fit_answered",
    "fit_taken",
    "event_drift_alarm",
    "event_refit_requested",
    "event_refit_shadowed",
    "event_refit_installed",
    "event_refit_rolled_back",
)
THEN = ("begin", "output", "journal", "end_txn", "commit", "snapshot_saved")
ROLES = ("correlations", "events", "rejects", "calibrations", "universes")
N, BEFORE, AFTER, SEED = 12, 1000, 250, 5
DCC = (
    "dcc = { bar = '1s', window_bars = 1500, first_fit_bars = 600, pooled_below_bars = 1000, "
    "refit_bars = 0 }"
)
CHAOS_ROUNDS = 4


def there_and_back() -> F64:
    """Returns whose correlations fuse until a model of that is installed, then are as before."""
    returns = 0.01 * broken("average_15", N, BEFORE, AFTER, "fusing", 0.4, "jump", SEED)
    planned = Regimes(regime_settings(N)).feed(returns)
    swap = planned.of("refit_installed")[1][0]
    return np.vstack([returns[: swap + 2], returns[700:900], returns[700:900]])


async def prices_in(bootstrap: str, returns: F64) -> tuple[str, int]:
    """Write one tick a second of each symbol into a topic; return its name and the last time."""
    topic = f"regime-ticks-{uuid.uuid4().hex[:12]}"
    await ensure_topics(KafkaConfig(bootstrap_servers=bootstrap), [TopicSpec(topic, 2)])
    prices = 100.0 * np.exp(np.vstack([np.zeros(N), np.cumsum(returns, axis=0)]))
    rows = []
    for t, row in enumerate(prices.tolist()):
        for i, (symbol, price) in enumerate(zip(names(N), row, strict=True)):
            time_ns = START + t * SECOND + i
            tick = orjson.dumps({"symbol": symbol, "time": time_ns, "price": price})
            rows.append((topic, i % 2, tick))
        if t % 97 == 0:
            rows.append((topic, 0, b'{"symbol": "broken'))
    await write(bootstrap, rows)
    return topic, time_ns


def kinds(published: Published) -> list[str]:
    return [orjson.loads(value or b"")["type"] for _, value, _ in published["events"]]


@pytest.mark.chaos
async def test_killed_around_alarms_and_swaps_it_publishes_the_same_bytes(
    kafka_bootstrap: str,
    tmp_path: Path,
    chaos_seed: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    random = Random(chaos_seed)
    seconds: list[float] = []
    topic, end_ns = await prices_in(kafka_bootstrap, there_and_back())
    alone = await Victim(
        kafka_bootstrap,
        tmp_path / "alone",
        [topic],
        names(N),
        extra=f"{DCC}\n[refit]\nlate = 'wait'",
        end_ns=end_ns,
        settled_s=6.0,
        max_records=600,
        keep=WHOLE,
    ).prepare()
    expected = await alone.finish(roles=ROLES)
    assert all(expected.values())
    seen = kinds(expected)
    for kind in ("drift_alarm", "refit_shadowed", "refit_installed", "refit_rolled_back"):
        assert kind in seen, seen
    kills = compared = 0
    for k in range(CHAOS_ROUNDS):
        prefix = f"kill-{uuid.uuid4().hex[:12]}"
        victim = await dataclasses.replace(
            alone, folder=tmp_path / str(k), prefix=prefix, recoveries=[], kills=0
        ).prepare()
        for point in POINTS:
            assert await asyncio.to_thread(victim.until_killed, f"{point}:1"), point
            if point != POINTS[-1] and random.random() < 0.5:  # there is more to commit
                await asyncio.to_thread(victim.until_killed, f"{random.choice(THEN)}:1")
        assert await victim.finish(expected, roles=ROLES) == expected, f"round {k}"
        assert await victim.repeated(ROLES) == expected, f"round {k}"
        kills, compared = kills + victim.kills, compared + victim.states_compared
        seconds += victim.recovery_s
    with capsys.disabled():
        figures = {"kills": kills, "states": compared, "recovery_s": seconds}
        tell("kills around alarms and swaps", chaos_seed, **figures)
    assert kills >= 30
    assert compared > 0
