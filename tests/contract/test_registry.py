"""Schemas from a registry: asked for once, awaited, never guessed, and the same in a repetition."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from stream_calib.adapters.embedded import EmbeddedLog, EmbeddedSource
from stream_calib.adapters.registry import MISSING, FramedSource, SchemaRegistry
from stream_calib.adapters.registry import source as adapter
from stream_calib.config import parse_config
from stream_calib.errors import ConfigError, TransportError
from stream_calib.service import wiring
from stream_calib.values import RecordBatch, Source
from stream_calib.wire.ticks import decode
from tests.contract.registries import Registry, running_registry
from tests.wire.avro import DECIMAL_TICK, TICK, frame, framed

TIME_US = 1_700_000_000_123_456
P, Q = Source("t", 0), Source("t", 1)
SECRET = "hunter2-and-more"


@pytest_asyncio.fixture
async def registry() -> AsyncIterator[Registry]:
    async with running_registry() as running:
        running.add(1, TICK)
        yield running


@pytest.fixture
def log() -> EmbeddedLog:
    log = EmbeddedLog()
    log.create_topic("t", 2)
    return log


def write(log: EmbeddedLog, source: Source, *values: bytes) -> None:
    for value in values:
        log.append(source.topic, source.partition, None, value, (), 0)


def tick(price: float, id_: int = 1) -> bytes:
    return framed(id_, TICK, {"symbol": "A", "time": TIME_US, "price": price})


@asynccontextmanager
async def reading(
    log: EmbeddedLog, registry: Registry, *, rejects: bool = False
) -> AsyncIterator[FramedSource]:
    inner = EmbeddedSource(log, ["t"], lambda: True)
    source = FramedSource(inner, SchemaRegistry(registry.url), rejects_missing=rejects)
    await source.start()
    await source.discover()
    try:
        yield source
    finally:
        await source.close()


def prices(batches: list[RecordBatch]) -> dict[Source, list[float]]:
    found: dict[Source, list[float]] = {}
    for batch in batches:
        found.setdefault(batch.source, []).extend(decode(batch, "auto", {"A": 0}).price.tolist())
    return found


async def poll(source: FramedSource, n: int) -> list[RecordBatch]:
    """Poll until ``n`` records have come; batches of a source are contiguous."""
    batches: list[RecordBatch] = []
    async with asyncio.timeout(20):
        while sum(len(batch.values) for batch in batches) < n:
            batches += await source.poll(100, 0.05)
    at: dict[Source, int] = {}
    for batch in batches:
        assert at.get(batch.source, batch.position_before) == batch.position_before
        at[batch.source] = batch.position_after
    return batches


@pytest.mark.asyncio
async def test_records_come_with_their_schemas_which_are_asked_for_once(
    log: EmbeddedLog, registry: Registry
) -> None:
    registry.add(2, DECIMAL_TICK)
    write(log, P, *(tick(float(k)) for k in range(1, 40)), b'{"symbol":"A"}')
    async with reading(log, registry) as source:
        found = await poll(source, 40)
        assert prices(found) == {P: [float(k) for k in range(1, 40)]}
        write(log, Q, tick(1.0), tick(2.0))
        assert prices(await poll(source, 2)) == {Q: [1.0, 2.0]}
    assert registry.asked == ["/schemas/ids/1"]


@pytest.mark.asyncio
async def test_a_partition_waits_for_its_schema_and_the_others_go_on(
    log: EmbeddedLog, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "RETRY_S", 0.05)
    monkeypatch.setattr(adapter, "WAIT_S", 0.1)
    write(log, P, tick(1.0), tick(2.0, 9), tick(3.0))
    write(log, Q, tick(4.0), tick(5.0))
    async with reading(log, registry) as source:
        found = await poll(source, 3)
        assert prices(found) == {P: [1.0], Q: [4.0, 5.0]}
        write(log, Q, tick(6.0))
        write(log, P, tick(7.0))
        assert prices(await poll(source, 1)) == {Q: [6.0]}
        assert not source.exhausted()
        assert source.ends()[P] == 4  # it is seen to be behind
        with pytest.raises(TransportError, match="knows no schema 00000009"):
            await source.bounds([P, Q])  # which is what readiness asks for
        registry.add(9, TICK)
        assert prices(await poll(source, 3)) == {P: [2.0, 3.0, 7.0]}
        assert await source.bounds([P]) == {P: (0, 4)}
        assert source.exhausted()


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [500, 503, 429])
async def test_a_registry_that_is_ill_is_waited_for(
    log: EmbeddedLog, registry: Registry, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "RETRY_S", 0.05)
    monkeypatch.setattr(adapter, "WAIT_S", 0.1)
    registry.status = status
    write(log, P, tick(1.0))
    async with reading(log, registry, rejects=True) as source:
        for _ in range(3):
            assert await source.poll(100, 0.05) == []
        registry.status = 200
        assert prices(await poll(source, 1)) == {P: [1.0]}


@pytest.mark.asyncio
async def test_a_record_of_no_schema_is_rejected_where_that_is_wanted(
    log: EmbeddedLog, registry: Registry
) -> None:
    write(log, P, tick(1.0), b"\0garbage", tick(2.0))
    async with reading(log, registry, rejects=True) as source:
        (batch,) = await poll(source, 3)
        ticks = decode(batch, "auto", {"A": 0})
        assert ticks.price.tolist() == [1.0, 2.0]
        assert [(m.row, m.reason) for m in ticks.malformed] == [(1, "schema")]
        # and it stays so for as long as this source lives
        registry.add(int.from_bytes(b"garb", "big"), TICK)
        again = await source.read(P, 0, 3, 100)
        assert again.schemas == batch.schemas


@pytest.mark.asyncio
async def test_a_repetition_has_the_same_schemas_or_is_an_error(
    log: EmbeddedLog, registry: Registry
) -> None:
    write(log, P, *(tick(float(k)) for k in range(1, 6)), tick(9.0, 9))
    async with reading(log, registry) as source:
        batch = await source.read(P, 0, 5, 100)
        assert prices([batch]) == {P: [1.0, 2.0, 3.0, 4.0, 5.0]}
        with pytest.raises(TransportError, match=r"knows no schema 00000009 \(hex\)"):
            await source.read(P, 5, 6, 100)
        registry.status = 500
        with pytest.raises(TransportError, match="answered 500"):
            await source.read(P, 5, 6, 100)


@pytest.mark.asyncio
async def test_what_was_held_is_read_anew_after_a_resume(
    log: EmbeddedLog, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "RETRY_S", 0.05)
    monkeypatch.setattr(adapter, "WAIT_S", 0.1)
    write(log, P, tick(1.0), tick(2.0, 9))
    async with reading(log, registry) as source:
        assert prices(await poll(source, 1)) == {P: [1.0]}
        registry.add(9, TICK)
        source.resume({P: 0})
        assert prices(await poll(source, 2)) == {P: [1.0, 2.0]}


# the registry


@pytest.mark.asyncio
async def test_schemas_that_refer_to_others_come_whole(registry: Registry) -> None:
    def refers(subject: str, name: str = "x", version: int = 1) -> dict[str, object]:
        return {"name": name, "subject": subject, "version": version}

    registry.add(5, "own", references=[refers("a/1"), refers("b")])
    registry.subjects[("a/1", 1)] = {"schema": '"a"', "references": [refers("b")]}
    registry.subjects[("b", 1)] = {
        "schema": '"b"',
        "references": [refers("a/1")],
    }  # round it goes
    client = SchemaRegistry(registry.url)
    found = await client.get(frame(5))
    assert found.texts == ('"b"', '"a"', '"own"')
    registry.add(6, "own", references=[refers("gone", version=3)])
    with pytest.raises(TransportError, match="does not know version 3 of 'gone'"):
        await client.get(frame(6))
    await client.close()


@pytest.mark.asyncio
async def test_a_guid_is_asked_for_as_one(registry: Registry) -> None:
    guid = "00010203-0405-0607-0809-0a0b0c0d0e0f"
    registry.guids[guid] = {"schema": '"string"', "schemaType": "AVRO"}
    client = SchemaRegistry(f"{registry.url}/")
    assert (await client.get(b"\1" + bytes(range(16)))).texts == ('"string"',)
    assert await client.get(b"\1" + bytes(16)) == MISSING
    await client.close()


@pytest.mark.asyncio
async def test_a_login_is_sent_and_never_said(registry: Registry) -> None:
    registry.login = ("me", SECRET)
    client = SchemaRegistry(registry.url, "me", SECRET)
    assert (await client.get(frame(1))).kind == "AVRO"
    await client.close()
    wrong = SchemaRegistry(registry.url, "me", f"{SECRET}x")
    with pytest.raises(TransportError, match="answered 401") as caught:
        await wrong.get(frame(1))
    await wrong.close()
    assert SECRET not in str(caught.value)


@pytest.mark.asyncio
async def test_what_is_no_registry_is_told(registry: Registry) -> None:
    registry.ids[3] = {"nothing": 1}
    client = SchemaRegistry(registry.url)
    with pytest.raises(TransportError, match="is no schema registry"):
        await client.get(frame(3))
    registry.status = 404  # a page of some other server
    with pytest.raises(TransportError, match="is no schema registry"):
        await client.get(frame(4))
    await client.close()
    nobody = SchemaRegistry("http://127.0.0.1:1")
    with pytest.raises(TransportError, match="cannot be reached"):
        await nobody.get(frame(1))
    await nobody.close()


def test_without_the_extra_one_sentence_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse_config(
        {
            "input": {"schema_registry": "http://127.0.0.1:1"},
            "universe": [{"name": "u", "symbols": ["A", "B"]}],
        }
    )
    monkeypatch.setattr(wiring, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'stream-calib\[avro\]'"):
        wiring.kafka_source(config, config.universe[0])
