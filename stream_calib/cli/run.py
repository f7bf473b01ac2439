"""``run``: the service on Kafka; ``warmup``: compile and leave."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Annotated, Any, TextIO, cast

import typer

from stream_calib.cli.ending import end_without_memory
from stream_calib.cli.options import Bootstrap, ConfigFile, overrides

if TYPE_CHECKING:
    from stream_calib.adapters.log_pipe import LogPipe
    from stream_calib.adapters.supervisor import Supervisor
    from stream_calib.config import Config, LogConfig
    from stream_calib.service.repetition import Allowed
    from stream_calib.service.wiring import Service
    from stream_calib.values import Effects

STOP_S = 2.0  # after a signal: finish the turn; then cancel it
SLOW_LOAD_S = 2.0  # from the cache it takes less
COMPILING = "loading the kernels; the first time they are compiled, which takes about a minute"
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
    pipe = configure_logging(settings.log)
    import structlog

    compile_s = load_kernels(say=structlog.get_logger().info)

    from stream_calib.service.repetition import Allowed

    allowed = Allowed(genesis, reset_state, accept_gap, accept_divergence)
    asyncio.run(_serve(settings, compile_s, allowed, pipe))
    structlog.get_logger().info("stopped")


async def _serve(settings: "Config", compile_s: float, allowed: "Allowed", pipe: "LogPipe") -> None:
    import structlog

    from stream_calib.adapters.supervisor import Supervisor
    from stream_calib.service.wiring import kafka_service

    log, supervisor = structlog.get_logger(), Supervisor.of()

    def note(universe: str, effects: "Effects") -> None:
        for event in effects.events:
            log.info(event.type, universe=universe, **event.details)
        for matrix in effects.matrices:
            log.debug("matrix", universe=universe, sequence=matrix.sequence)

    asyncio.get_running_loop().set_exception_handler(_end_on_memory)
    async with stopping_on_signals() as stop:
        service = kafka_service(settings, note, compile_s, allowed)
        pipe.watch(service.observer.unlogged)
        service.watchdog.alive = supervisor.alive

        def started() -> None:
            supervisor.ready()
            _announce(service, compile_s)

        telling = asyncio.create_task(_tell_stop(stop, supervisor))
        try:
            await service.run(stop, started)
        except Exception as error:
            _end_within(EXIT_S, getattr(error, "exit_code", 1))  # a save may hang, in a thread
            raise
        finally:
            telling.cancel()
            supervisor.close()


async def _tell_stop(stop: asyncio.Event, supervisor: "Supervisor") -> None:
    await stop.wait()
    supervisor.stopping()


def _end_on_memory(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # What is told here has been swallowed: a client that cannot read any more would try for ever.
    if isinstance(context.get("exception"), MemoryError):
        end_without_memory()
    loop.default_exception_handler(context)


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

    def hush() -> None:
        # asyncio complains about what is left open, which ends with the process
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)

    def give_up() -> None:
        hush()
        task.cancel()

    def ask() -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()
        timers.append(loop.call_later(STOP_S, give_up))
        _end_within(EXIT_S, 0)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask)
    try:
        yield stop
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
        import structlog

        structlog.get_logger().warning("stopped without waiting any longer")
    finally:
        hush()
        for timer in timers:
            timer.cancel()


def _end_within(seconds: float, code: int) -> None:
    # A thread, for what hangs may be waited for when the loop has ended.
    last = threading.Timer(seconds, os._exit, (code,))
    last.daemon = True
    last.start()


def configure_logging(config: "LogConfig") -> "LogPipe":
    """Log to standard error: readable on a terminal, JSON lines elsewhere.

    Returns
    -------
    pipe
        What lines go through, so that nobody waits for whoever reads them.
    """
    import structlog

    from stream_calib.adapters.log_pipe import LogPipe

    as_json = config.format == "json" or (config.format == "auto" and not sys.stderr.isatty())
    level = logging.getLevelNamesMapping()[config.level.upper()]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    )
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]

    def say_lost(lines: int) -> None:
        structlog.get_logger().warning("log lines dropped", lines=lines)

    def say_warning(message: Warning | str, *_: object) -> None:
        structlog.get_logger().warning(str(message))

    pipe = LogPipe(sys.stderr, told=say_lost)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", pipe)),
    )
    handler = logging.StreamHandler(pipe)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared)
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    warnings.showwarning = cast("Any", say_warning)
    return pipe


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def load_kernels(*, fits: bool = False, say: Callable[[str], object] = _say) -> float:
    """Compile the kernels, or load them from the cache; return the seconds it took.

    Those of full fits are needed by the process that makes them, which loads them itself. ``say``
    is told, from another thread, when it takes longer than from the cache.
    """
    started_s = time.perf_counter()
    timer = threading.Timer(SLOW_LOAD_S, say, [COMPILING])
    timer.daemon = True
    timer.start()
    try:
        import stream_calib.engine.engine
        import stream_calib.engine.state  # importing compiles

        if fits:
            import stream_calib.estimation.calibration.model  # noqa: F401
    finally:
        timer.cancel()
    return time.perf_counter() - started_s


def warmup() -> None:
    """Compile the kernels, so that later starts are fast."""
    print(f"kernels ready after {load_kernels(fits=True):.1f} s")
