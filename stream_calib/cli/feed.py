"""``feed``: recorded or simulated ticks into a Kafka topic, at a set rate, or live ones."""

import asyncio
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream_calib.cli.feed_live import (
    Channel,
    Exchanges,
    ExchangeSettings,
    LiveOptions,
    LiveSymbols,
    MetricsPort,
    StaleS,
    feed_live,
)
from stream_calib.cli.options import Bootstrap, ClientConfig, client_settings
from stream_calib.cli.screen import progress_bar

if TYPE_CHECKING:
    from stream_calib.config import Config, KafkaConfig
    from stream_calib.service.speed import Speed, Timed
    from stream_calib.simulation import SimulatedTicks

BATCH_S = 0.02  # how finely the rate is kept
BATCH_RECORDS = 2000  # when there is none

Rate = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        help="Records per second, 0 for no limit; default: none for files, 1 per simulated "
        "symbol. Simulated ticks begin now, without a limit they end now.",
    ),
]
Pace = Annotated[
    str, typer.Option(metavar="N|max", help="Of files: so many times the pace of event time.")
]
Repeat = Annotated[
    bool,
    typer.Option(
        "--repeat",
        help="Simulate for ever: each --duration-s the correlations break, there and back.",
    ),
]
Partitions = Annotated[
    int,
    typer.Option(min=1, help="Spread symbols over so many partitions, or create as many."),
]


def feed(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE", help="Recorded ticks, written as they are, merged by event time."
        ),
    ] = None,
    topic: Annotated[
        str | None,
        typer.Option(
            help="Write to this topic; default: one named as each file, with "
            "--simulated the first of --config."
        ),
    ] = None,
    simulated: Annotated[
        int | None,
        typer.Option(min=2, help="Simulate this many symbols instead; with --config, of those."),
    ] = None,
    exchange: Exchanges = None,
    live_symbols: LiveSymbols = None,
    channel: Channel = "trades",
    exchange_settings: ExchangeSettings = None,
    stale_s: StaleS = 60.0,
    metrics_port: MetricsPort = None,
    duration_s: Annotated[
        float | None,
        typer.Option(
            min=1.0, help="Seconds of event time to simulate, default 600, or to read live."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulation.")] = 1,
    repeat: Repeat = False,
    rate: Rate = None,
    speed: Pace = "max",
    partitions: Partitions = 1,
    create: Annotated[bool, typer.Option("--create", help="Create missing topics.")] = False,
    config: ClientConfig = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Write recorded, simulated or live ticks into Kafka."""
    from stream_calib.errors import InputError
    from stream_calib.service.speed import Speed, parse_speed

    if bool(files) + bool(simulated) + bool(exchange) != 1:
        message = "feed takes either files or --simulated or --exchange"
        raise InputError(message)
    pace = parse_speed(speed)
    if pace is not None and (rate or simulated):
        message = "--speed is the pace of files, and takes the place of --rate"
        raise InputError(message)
    if repeat and (not simulated or rate == 0.0):
        message = "--repeat is for --simulated ticks that come at a rate"
        raise InputError(message)
    settings = client_settings(config, bootstrap)
    if exchange:
        live = LiveOptions(exchange, live_symbols, channel, exchange_settings, stale_s, duration_s)
        feed_live(live, topic, settings, metrics_port, partitions if create else None)
        return
    if simulated:
        topic = topic or _first_topic(None if config is None else settings)
        symbols = None if config is None else _symbols(settings, simulated)
        rate = float(simulated) if rate is None else rate
        runs = _simulate(simulated, duration_s or 600.0, seed, rate, symbols, repeat=repeat)
        records = _simulated(runs, topic, partitions)
        if repeat:
            pace = Speed(1.0)  # a rate alone would leave event time within days
    else:
        from stream_calib.service.recorded import recorded

        records = recorded(files or [], topic, partitions, settings.input.format)
    _write(settings.kafka, records, rate if pace is None else pace, create, partitions)


def _write(
    kafka: "KafkaConfig",
    records: "Iterable[Timed]",
    pace: "float | Speed | None",
    create: bool,
    partitions: int,
) -> None:
    started_s, bar = time.monotonic(), progress_bar()
    advance = partial(bar.advance, bar.add_task("written"))
    try:
        with bar:
            asyncio.run(_feed(kafka, records, pace, create, partitions, advance))
    finally:
        if n := round(bar.tasks[0].completed):  # also when it is interrupted
            print(f"{n:,} records in {time.monotonic() - started_s:.1f} s")


def _first_topic(settings: "Config | None") -> str:
    from stream_calib.errors import InputError

    topics = () if settings is None else settings.topics_of(settings.universe[0])
    if not topics:
        message = "feed --simulated needs --topic or --config"
        raise InputError(message)
    return topics[0]


def _symbols(settings: "Config", n: int) -> list[str]:
    from stream_calib.errors import InputError

    symbols = list(dict.fromkeys(s for u in settings.universe for s in u.symbols))
    if n > len(symbols):
        message = f"--simulated {n}: the configuration has only {len(symbols)} symbols"
        raise InputError(message)
    return symbols[:n]


def _simulate(
    n: int,
    duration_s: float,
    seed: int,
    rate: float,
    symbols: list[str] | None,
    *,
    repeat: bool,
) -> "Iterable[SimulatedTicks]":
    from stream_calib.errors import InputError
    from stream_calib.simulation import simulate, simulate_for_ever

    # in event time too they come at this rate: ticks from the future would be turned away
    rate_hz = rate / n if rate else 1.0
    try:
        start_ns = 1000 * (time.time_ns() // 1000 - (0 if rate else round(duration_s * 1e6)))
        if not repeat:
            return [
                simulate(
                    n, duration_s, seed=seed, symbols=symbols, start_ns=start_ns, rate_hz=rate_hz
                )
            ]
        runs = simulate_for_ever(
            n, duration_s, seed=seed, symbols=symbols, start_ns=start_ns, rate_hz=rate_hz
        )
        return chain([next(runs)], runs)  # what cannot be simulated is said at once
    except (OverflowError, ValueError) as error:
        raise InputError(str(error)) from None


def _simulated(runs: "Iterable[SimulatedTicks]", topic: str, partitions: int) -> "Iterator[Timed]":
    import orjson

    from stream_calib.values import Output

    for run in runs:
        for time_ns, record in zip(run.time_ns.tolist(), run.records(), strict=True):
            key = str(record["symbol"]).encode()
            partition = zlib.crc32(key) % partitions
            yield time_ns, Output(topic, partition, key, orjson.dumps(record), ())


async def _feed(
    kafka: "KafkaConfig",
    records: "Iterable[Timed]",
    pace: "float | Speed | None",
    create: bool,
    partitions: int,
    on_written: Callable[[int], None],
) -> None:
    from stream_calib.adapters.kafka import KafkaSink, TopicSpec, ensure_topics
    from stream_calib.service.speed import batches

    sink = KafkaSink(kafka)
    known: set[str] = set()
    n, started_s = 0, time.monotonic()
    size, within_ns = BATCH_RECORDS, float("inf")
    rate = speed = None
    if isinstance(pace, float):
        rate, size = pace, max(1, round(pace * BATCH_S)) if pace else BATCH_RECORDS
    elif pace is not None:
        speed, within_ns = pace, pace.factor * BATCH_S * 1e9
    await sink.start()
    try:
        for time_ns, batch in batches(records, size, within_ns):
            new = {output.topic for output in batch} - known
            if create and new:
                await ensure_topics(kafka, [TopicSpec(name, partitions) for name in sorted(new)])
            known |= new
            if speed is not None:
                await asyncio.sleep(speed.wait_s(time_ns, time.monotonic()))
            await sink.publish(batch)
            on_written(len(batch))
            n += len(batch)
            if rate:
                await asyncio.sleep(max(0.0, started_s + n / rate - time.monotonic()))
    finally:
        await sink.close()
