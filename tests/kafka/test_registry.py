"""Avro on a real Kafka with a registry beside it: read, waited for, and repeated to the byte."""

import asyncio
import uuid

import pytest
from pydantic import SecretStr

from stream_calib.config import Config
from stream_calib.config.input import InputConfig
from stream_calib.service import wiring
from stream_calib.service.diagnosis import tick_rates_hz
from stream_calib.service.replay import repeat_journal
from stream_calib.values import SECOND_NS
from tests.contract.registries import running_registry
from tests.kafka.service import create, running, settings, write
from tests.wire.avro import DEBEZIUM, TICK, framed

START_US = 1_700_000_000_000_000
UNIVERSE = {"name": "u", "symbols": ["A", "B"], "ready_n_eff": 3.0}
UNIVERSE |= {"ewma": {"half_life": "10s", "window": "1s"}}


def configured(bootstrap: str, topic: str, url: str) -> Config:
    config = settings(bootstrap, [topic], UNIVERSE, idle_slack="1s")
    own = InputConfig(
        topics=(topic,),
        schema_registry=url,
        schema_registry_username="me",
        schema_registry_password=SecretStr("secret"),
    )
    return config.model_copy(update={"input": own})


def ticks(first: int, n: int, id_: int) -> list[bytes]:
    """One tick of each symbol a second: bare, or as a change of a database."""
    rows = [
        {"symbol": s, "time": START_US + k * SECOND_NS // 1000, "price": 100.0 + k % 7}
        for k in range(first, first + n)
        for s in ("A", "B")
    ]
    if id_ == 1:
        return [framed(1, TICK, row) for row in rows]
    return [
        framed(id_, DEBEZIUM, {"before": None, "after": row, "op": "c", "ts_ms": None})
        for row in rows
    ]


@pytest.mark.asyncio
async def test_avro_is_read_once_its_schema_is_there_and_repeated(kafka_bootstrap: str) -> None:
    topic = f"avro-{uuid.uuid4().hex[:10]}"
    await create(kafka_bootstrap, [topic])
    async with running_registry() as registry:
        registry.login = ("me", "secret")
        registry.add(1, TICK)
        config = configured(kafka_bootstrap, topic, registry.url)
        async with running(config) as service:
            values = [*ticks(0, 40, 1), *ticks(40, 40, 2)]
            await write(kafka_bootstrap, [(topic, 0, value) for value in values])
            await service.until_seen(80)
            await asyncio.sleep(1.5)
            assert service.outcomes["applied"] == 80  # the rest waits and is not rejected
            registry.add(2, DEBEZIUM)
            await service.until_seen(160)
            assert service.outcomes["applied"] == 160
        (sample,) = await wiring.recent_records(config, 1000)
        rates_hz = tick_rates_hz(config, config.universe[0], [sample])
        assert (rates_hz > 0.5).all()  # what doctor and the start of the service look at
        n_asked = len(registry.asked)
        entries = [entry async for entry, _ in repeat_journal(config, config.universe[0])]
        assert sum(r.n_records for e in entries for m in e.moves for r in m.ranges) == 160
        assert len(registry.asked) == n_asked + 2  # a repetition asks anew, once for each
    assert service.matrices
