"""``run``: the service on Kafka; ``warmup``: compile and leave."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

import typer

from stream_calib.cli.options import Bootstrap, ConfigFile, overrides

if TYPE_CHECKING:
    from stream_calib.config import Config, LogConfig
    from stream_calib.service.repetition import Allowed
    from stream_calib.service.wiring import Service
    from stream_calib.values import Effects

STOP_S = 2.0  # after a signal: finish the turn; then cancel it
EXIT_S = 4.5  # then leave anyhow: recovery is the same as after a crash


def run(
    config: ConfigFile,
    bootstrap: Bootstrap = None,
    http_host: Annotated[
        str | None, typer.Option(metavar="HOST", help="Wins over http.host.")
    ] = None,
    http_port: Annotated[
        int | None, typer.Option(metavar="PORT", help="Wins over http.port; 0 picks a free one.")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="Wins over log.level.")
    ] = None,
    genesis: Annotated[
        bool, typer.Option("--genesis", help="The journal is gone: begin anew, on purpose.")
    ] = False,
    reset_state: Annotated[
        bool, typer.Option("--reset-state", help="Begin afresh with settings that have changed.")
    ] = False,
    accept_gap: Annotated[
        bool, typer.Option("--accept-gap", help="Go on without input that is gone.")
    ] = False,
    accept_divergence: Annotated[
        bool,
        typer.Option("--accept-divergence", help="Go on though the past gives other bits now."),
    ] = False,
) -> None:
    """Run the service: ticks from Kafka in, matrices out.

    It goes on where the journal ends, with the same bits as if it had never stopped.

    It ends by itself on an error, within five seconds on SIGTERM or Ctrl-C, and at once when
    asked a second time.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # until the service listens itself
    from stream_calib.config import load_config

    flags = overrides(
        kafka__bootstrap_servers=bootstrap,
        http__host=http_host,
        http__port=http_port,
        log__level=log_level,
    )
    settings = load_config(config, flags)
    configure_logging(settings.log)
    compile_s = load_kernels()
    import structlog

    from stream_calib.service.repetition import Allowed

    allowed = Allowed(genesis, reset_state, accept_gap, accept_divergence)
    asyncio.run(_serve(settings, compile_s, allowed))
    structlog.get_logger().info("stopped")


async def _serve(settings: "Config", compile_s: float, allowed: "Allowed") -> None:
    import structlog

    from stream_calib.service.wiring import kafka_service

    log = structlog.get_logger()

    def note(universe: str, effects: "Effects") -> None:
        for event in effects.events:
            log.info(event.type, universe=universe, **event.details)
        for matrix in effects.matrices:
            log.debug("matrix", universe=universe, sequence=matrix.sequence)

    async with stopping_on_signals() as stop:
        service = kafka_service(settings, note, compile_s, allowed)
        await service.run(stop, lambda: _announce(service, compile_s))


def _announce(service: "Service", compile_s: float) -> None:
    import structlog

    http = service.http.url or "off"
    structlog.get_logger().info("running", http=http, kernels_s=round(compile_s, 2))


@contextlib.asynccontextmanager
async def stopping_on_signals() -> AsyncIterator[asyncio.Event]:
    """Yield an event that SIGTERM and SIGINT set; within five seconds of it the block has ended.

    The block is cancelled when it takes longer than it should. A second signal, or a block
    that hangs even then, ends the process where it stands.
    """
    loop, task, stop = asyncio.get_running_loop(), asyncio.current_task(), asyncio.Event()
    assert task is not None
    timers: list[asyncio.TimerHandle] = []

    def give_up() -> None:
        # asyncio complains about what is left open, which is meant here
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        task.cancel()

    def ask() -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()
        timers.append(loop.call_later(STOP_S, give_up))
        loop.call_later(EXIT_S, os._exit, 0)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask)
    try:
        yield stop
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
        import structlog

        structlog.get_logger().warning("stopped without waiting for Kafka any longer")
    finally:
        for timer in timers:
            timer.cancel()


def configure_logging(config: "LogConfig") -> None:
    """Log to standard error: readable on a terminal, JSON lines elsewhere."""
    import structlog

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


def load_kernels(*, fits: bool = False) -> float:
    """Compile the kernels, or load them from the cache; return the seconds it took.

    Those of full fits are needed by the process that makes them, which loads them itself.
    """
    started_s = time.perf_counter()
    import stream_calib.engine.engine
    import stream_calib.engine.state  # importing compiles

    if fits:
        import stream_calib.estimation.calibration.model  # noqa: F401

    return time.perf_counter() - started_s


def warmup() -> None:
    """Compile the kernels, so that later starts are fast."""
    print(f"kernels ready after {load_kernels(fits=True):.1f} s")
