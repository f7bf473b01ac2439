"""``run``: the service on Kafka; ``warmup``: compile and leave."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Annotated

import structlog
import typer

from stream_calib.cli.options import Bootstrap, ConfigFile, overrides

if TYPE_CHECKING:
    from stream_calib.config import LogConfig
    from stream_calib.service.wiring import Service
    from stream_calib.values import Effects

STOP_S = 3.5  # after a signal: finish the turn; then cancel it
EXIT_S = 4.7  # then leave anyhow: recovery is the same as after a crash


def run(
    config: ConfigFile,
    bootstrap: Bootstrap = None,
    http_host: Annotated[str | None, typer.Option(help="Over http.host.")] = None,
    http_port: Annotated[int | None, typer.Option(help="Over http.port; 0 picks one.")] = None,
    log_level: Annotated[str | None, typer.Option(help="Over log.level.")] = None,
) -> None:
    """Run the service: ticks from Kafka in, correlation matrices to Kafka out."""
    from stream_calib.config import load_config

    settings = load_config(
        config,
        overrides(
            kafka__bootstrap_servers=bootstrap,
            http__host=http_host,
            http__port=http_port,
            log__level=log_level,
        ),
    )
    configure_logging(settings.log)
    log = structlog.get_logger("stream_calib")
    started_s = time.perf_counter()
    from stream_calib.service.wiring import kafka_service

    compile_s = time.perf_counter() - started_s
    log.info("kernels ready", seconds=round(compile_s, 2))

    def note(universe: str, effects: "Effects") -> None:
        for event in effects.events:
            log.info(event.type, universe=universe, **event.details)
        for matrix in effects.matrices:
            log.debug("matrix", universe=universe, sequence=matrix.sequence)

    async def serve() -> None:
        stop = asyncio.Event()
        stop_on_signals(stop)
        service = kafka_service(settings, note, compile_s)
        await service.run(stop, lambda: _announce(service))

    asyncio.run(serve())
    log.info("stopped")


def _announce(service: "Service") -> None:
    # before this, what the client has to say about an address is said in our own sentence
    logging.getLogger("aiokafka").setLevel(logging.WARNING)
    structlog.get_logger("stream_calib").info("running", http=service.http.url or "off")


def stop_on_signals(stop: asyncio.Event) -> None:
    """Set ``stop`` on SIGTERM and SIGINT; leave within five seconds whatever hangs."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()

    def ask() -> None:
        stop.set()
        if task is not None:
            loop.call_later(STOP_S, task.cancel)
        loop.call_later(EXIT_S, os._exit, 1)

    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, ask)


def configure_logging(config: "LogConfig") -> None:
    """Log to standard error: readable on a terminal, JSON lines elsewhere."""
    as_json = config.format == "json" or (config.format == "auto" and not sys.stderr.isatty())
    level = logging.getLevelNamesMapping()[config.level.upper()]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    )
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared)
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


def warmup() -> None:
    """Compile all kernels into the cache and print how long it took."""
    started_s = time.perf_counter()
    import stream_calib.engine.engine  # noqa: F401  importing compiles

    print(f"kernels ready after {time.perf_counter() - started_s:.1f} s")
