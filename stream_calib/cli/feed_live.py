"""``feed --exchange``: trades or best quotes of live exchanges into a Kafka topic."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

if TYPE_CHECKING:
    from stream_calib.config import Config
    from stream_calib.service.feeding import Feeding
    from stream_calib.values import FeedCounts

TELL_S = 10.0


Exchanges = Annotated[
    list[str] | None,
    typer.Option(help="Read this exchange live instead, by the name that ccxt has for it."),
]
LiveSymbols = Annotated[
    str | None,
    typer.Option(
        "--symbols",
        metavar="A/B,C/D",
        help="What to read live; kraken:A/B is of that exchange alone.",
    ),
]
Channel = Annotated[
    Literal["trades", "bbo"], typer.Option(help="Read trades, or best bids and offers, live.")
]
ExchangeSettings = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Settings of ccxt, a TOML file with a table an exchange."),
]
StaleS = Annotated[
    float, typer.Option(min=1.0, help="Connect anew when an exchange is silent for so long.")
]
MetricsPort = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="Serve metrics of a live feed on this port."),
]


class LiveOptions(NamedTuple):
    """What to read live, and how."""

    exchanges: Sequence[str]
    symbols: str | None
    channel: Literal["trades", "bbo"]
    settings: Path | None
    stale_s: float
    duration_s: float | None


def feed_live(
    options: LiveOptions,
    topic: str | None,
    settings: "Config",
    metrics_port: int | None,
    create: int | None,
) -> None:
    """Read until interrupted, or for as long as asked; then write what is left and say the counts.

    Parameters
    ----------
    options
        What to read.
    topic
        Where to write; it has to be named.
    settings
        How to reach Kafka, and who may see the metrics.
    metrics_port
        Where these are served; None: nowhere.
    create
        Partitions of the topic, if it is to be made.

    Raises
    ------
    InputError
        There is no such exchange, symbol, or channel.
    TransportError
        An exchange or Kafka cannot be reached at the start, or ticks are left at the end.
    """
    from stream_calib.errors import InputError

    if topic is None or options.symbols is None:
        message = "feed --exchange needs --symbols and --topic"
        raise InputError(message)
    wanted = _wanted(options.exchanges, options.symbols)
    of_ccxt = _of_ccxt(options.settings, options.exchanges)
    asyncio.run(_feed_live(options, wanted, of_ccxt, topic, settings, metrics_port, create))


async def _feed_live(
    options: LiveOptions,
    wanted: Mapping[str, Sequence[str]],
    of_ccxt: Mapping[str, dict[str, Any]],
    topic: str,
    settings: "Config",
    metrics_port: int | None,
    create: int | None,
) -> None:
    from stream_calib.adapters.exchanges import ExchangeFeed
    from stream_calib.adapters.kafka import KafkaSink, TopicSpec, check_topics, ensure_topics
    from stream_calib.cli.run import stopping_on_signals
    from stream_calib.service.feeding import Feeding, FeedPace
    from stream_calib.values import FeedCounts

    async with stopping_on_signals() as stop:
        counts = {name: FeedCounts() for name in wanted}
        feeds = [
            ExchangeFeed(name, symbols, options.channel, counts[name], of_ccxt.get(name))
            for name, symbols in wanted.items()
        ]
        if create is not None:
            await ensure_topics(settings.kafka, [TopicSpec(topic, create)])
        partitions = (await check_topics(settings.kafka, [topic]))[topic]
        sink = KafkaSink(settings.kafka)
        await sink.start()
        started_s = time.monotonic()
        try:
            await asyncio.gather(*(feed.start() for feed in feeds))
            feeding = Feeding(
                feeds, counts, sink, topic, partitions, _say, FeedPace(stale_s=options.stale_s)
            )
            async with _served(metrics_port, settings, feeding, counts):
                telling = asyncio.create_task(_tell(counts, feeding))
                if options.duration_s is not None:
                    asyncio.get_running_loop().call_later(options.duration_s, stop.set)
                try:
                    await feeding.run(stop)
                finally:
                    telling.cancel()
                    for name, of_one in counts.items():
                        print(_line(name, of_one))
                    total = sum(of_one.written for of_one in counts.values())
                    print(f"{total:,} records in {time.monotonic() - started_s:.1f} s")
        finally:
            await sink.close()


@contextlib.asynccontextmanager
async def _served(
    port: int | None, settings: "Config", feeding: "Feeding", counts: "Mapping[str, FeedCounts]"
) -> AsyncIterator[None]:
    if port is None:
        yield
        return
    from importlib.metadata import version

    from stream_calib.adapters.http import Health, HttpServer
    from stream_calib.adapters.prometheus import FeedMetrics

    def health() -> Health:
        troubles = feeding.troubles()
        return Health(ready=not troubles, reasons=troubles)

    metrics = FeedMetrics(counts, lambda: feeding.waiting)
    server = HttpServer(
        settings.http.model_copy(update={"port": port}),
        metrics.render,
        health,
        version("stream-calib"),
        lambda _: None,
    )
    await server.start()
    _say(f"metrics at {server.url}/metrics")
    try:
        yield
    finally:
        await server.close()


async def _tell(counts: "Mapping[str, FeedCounts]", feeding: "Feeding") -> None:
    while True:
        await asyncio.sleep(TELL_S)
        for name, of_one in counts.items():
            waiting = f", {feeding.waiting:,} wait" if feeding.waiting else ""
            _say(_line(name, of_one) + waiting)


def _line(name: str, counts: "FeedCounts") -> str:
    told = {
        "written": counts.written,
        "repeated": counts.repeated,
        "late": counts.late,
        "missed": counts.missed,
        "unpriced": counts.unpriced,
        "overrun": counts.overrun,
        "garbled": counts.garbled,
        "reconnects": counts.reconnects.total(),
        "not written": counts.unwritten,
    }
    words = [f"{n:,} {what}" for what, n in told.items() if n or what == "written"]
    return f"{name}: {', '.join(words)}"


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def _wanted(exchanges: Sequence[str], symbols: str) -> dict[str, list[str]]:
    # a symbol after "kraken:" is of that exchange alone
    from stream_calib.errors import InputError

    wanted: dict[str, list[str]] = {name: [] for name in exchanges}
    for symbol in filter(None, map(str.strip, symbols.split(","))):
        first, colon, rest = symbol.partition(":")
        for name in [first] if colon and first in wanted else wanted:
            wanted[name].append(rest if colon and first in wanted else symbol)
    for name, own in wanted.items():
        if not own:
            message = f"--symbols names none for {name}"
            raise InputError(message)
    return wanted


def _of_ccxt(path: Path | None, exchanges: Sequence[str]) -> dict[str, dict[str, Any]]:
    import tomllib

    from stream_calib.errors import InputError

    if path is None:
        return {}
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        message = f"{path}: {error}"
        raise InputError(message) from None
    for name, section in found.items():
        if name not in exchanges or not isinstance(section, dict):
            message = f"{path}: {name} is not a table of one of the exchanges"
            raise InputError(message)
    return found
