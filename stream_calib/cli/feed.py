"""``feed``: recorded or simulated ticks into a Kafka topic, at a set rate."""

import asyncio
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream_calib.cli.options import Bootstrap

if TYPE_CHECKING:
    from stream_calib.config import KafkaConfig
    from stream_calib.values import Output

BATCH_S = 0.02  # how finely the rate is kept


def feed(
    topic: Annotated[str | None, typer.Option(help="Topic; default: that of each file.")] = None,
    files: Annotated[
        list[Path] | None, typer.Argument(help="Recorded ticks, written as they are.")
    ] = None,
    simulated: Annotated[int, typer.Option(help="Simulate this many symbols instead.")] = 0,
    duration_s: Annotated[float, typer.Option(help="Seconds of event time to simulate.")] = 600.0,
    seed: Annotated[int, typer.Option(help="Seed of the simulation.")] = 1,
    rate: Annotated[float, typer.Option(help="Records per second; 0 is as fast as can be.")] = 0.0,
    partitions: Annotated[int, typer.Option(help="Spread symbols over so many.")] = 1,
    create: Annotated[bool, typer.Option(help="Create missing topics.")] = False,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="For [kafka].")] = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Feed ticks into Kafka; simulated ones begin now, in event time too."""
    from stream_calib.errors import InputError

    if bool(files) == bool(simulated):
        message = "feed takes either files or --simulated"
        raise InputError(message)
    if simulated and topic is None:
        message = "feed --simulated needs --topic"
        raise InputError(message)
    if files:
        records = _recorded(files, topic)
    else:
        records = _simulated(str(topic), simulated, duration_s, seed, partitions)
    n, seconds = asyncio.run(_feed(_kafka(config, bootstrap), records, rate, create, partitions))
    print(f"{n:,} records in {seconds:.1f} s")


def _kafka(config: Path | None, bootstrap: str | None) -> "KafkaConfig":
    from stream_calib.config import KafkaConfig, load_config

    kafka = load_config(config).kafka if config is not None else KafkaConfig()
    return kafka if bootstrap is None else kafka.model_copy(update={"bootstrap_servers": bootstrap})


def _recorded(files: list[Path], topic: str | None) -> "Iterator[Output]":
    from stream_calib.adapters.files import FileSource
    from stream_calib.values import Output

    source = FileSource(files)
    source.open()
    while not source.exhausted():
        for batch in source.read(1000):
            for value in batch.values:
                yield Output(topic or batch.source.topic, 0, b"", value or b"", ())


def _simulated(
    topic: str, n: int, duration_s: float, seed: int, partitions: int
) -> "Iterator[Output]":
    import orjson

    from stream_calib.errors import InputError
    from stream_calib.simulation import simulate
    from stream_calib.values import Output

    try:
        ticks = simulate(n, duration_s, seed=seed, start_ns=time.time_ns())
    except ValueError as error:
        raise InputError(str(error)) from None
    for record in ticks.records():
        key = str(record["symbol"]).encode()
        partition = zlib.crc32(key) % partitions
        yield Output(topic, partition, key, orjson.dumps(record), ())


async def _feed(
    kafka: "KafkaConfig", records: "Iterable[Output]", rate: float, create: bool, partitions: int
) -> tuple[int, float]:
    from stream_calib.adapters.kafka import KafkaSink, TopicSpec, ensure_topics

    sink = KafkaSink(kafka)
    known: set[str] = set()
    n, started_s = 0, time.monotonic()
    await sink.start()
    try:
        for batch in _batches(records, max(1, round(rate * BATCH_S)) if rate else 2000):
            new = {output.topic for output in batch} - known
            if create and new:
                await ensure_topics(kafka, [TopicSpec(name, partitions) for name in sorted(new)])
            known |= new
            await sink.publish(batch)
            n += len(batch)
            if rate:
                await asyncio.sleep(max(0.0, started_s + n / rate - time.monotonic()))
    finally:
        await sink.close()
    return n, time.monotonic() - started_s


def _batches(records: "Iterable[Output]", size: int) -> "Iterator[list[Output]]":
    batch: list[Output] = []
    for record in records:
        batch.append(record)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
