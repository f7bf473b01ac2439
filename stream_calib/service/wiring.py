"""Settings to objects: the only place that names concrete adapters."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from importlib.metadata import version

from stream_calib import ports
from stream_calib.adapters.embedded import EmbeddedLog, EmbeddedSink, EmbeddedSource
from stream_calib.adapters.http import Health, HttpServer
from stream_calib.adapters.kafka import KafkaSink, KafkaSource, TopicSpec, check_topics
from stream_calib.adapters.prometheus import PrometheusObserver
from stream_calib.config import Config, UniverseConfig
from stream_calib.errors import MissingTopicError
from stream_calib.service.loop import UniverseLoop, calm_collector, probe_stalls
from stream_calib.service.runner import Runner
from stream_calib.values import Effects
from stream_calib.wire.ticks import check_format

VERSION = version("stream-calib")
MATRIX_BYTES_MAX = 1_000_000  # a chunk of 900 kB with its key and headers
HISTORY_MS = 24 * 3_600_000  # the promised history of matrices

Sources = Callable[[UniverseConfig], ports.RecordSource]


class Service:
    """All universes of a configuration on one event loop, with the HTTP face.

    Parameters
    ----------
    config
        Settings.
    sources, sink
        Where ticks come from, per universe, and where results go.
    on_effects
        Called with a universe's name and what became durable.
    compile_s
        What importing the kernels took, for the metrics.
    check
        Awaited before anything is connected; raises when the outside is not ready.
    """

    def __init__(
        self,
        config: Config,
        sources: Sources,
        sink: ports.RecordSink,
        on_effects: Callable[[str, Effects], None] | None = None,
        compile_s: float = 0.0,
        check: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        check_format(config.input.format)
        self.observer = PrometheusObserver(version=VERSION)
        self.observer.compiled(compile_s)
        self.http = HttpServer(config.http, self.observer.render, self._health, VERSION)
        self._config = config
        self._check = check
        self._sink = sink
        self._sources = [sources(universe) for universe in config.universe]
        self._loops = [
            UniverseLoop(
                Runner(config, universe, VERSION, self.observer),
                source,
                sink,
                self.observer,
                config.input.max_records,
                on_effects,
            )
            for universe, source in zip(config.universe, self._sources, strict=True)
        ]
        self._started = False

    async def run(self, stop: asyncio.Event, on_start: Callable[[], None] | None = None) -> None:
        """Run until ``stop`` is set or every input is used up.

        Raises
        ------
        StreamCalibError
            What a user can do something about, in one sentence.
        """
        async with AsyncExitStack() as stack:
            if self._config.http.enabled:
                stack.push_async_callback(self.http.close)
                await self.http.start()
            if self._check is not None:
                await self._check()
            stack.push_async_callback(self._sink.close)
            await self._sink.start()
            for source in self._sources:
                stack.push_async_callback(source.close)
                await source.start()
            self._started = True
            if on_start is not None:
                on_start()
            with calm_collector():
                await self._run_loops(stop)

    async def _run_loops(self, stop: asyncio.Event) -> None:
        probe = asyncio.create_task(probe_stalls(self.observer))
        try:
            async with asyncio.TaskGroup() as group:
                for loop in self._loops:
                    group.create_task(loop.run(stop))
        except ExceptionGroup as group_error:
            raise group_error.exceptions[0] from None  # one universe's end is the service's end
        finally:
            probe.cancel()

    def _health(self) -> Health:
        reasons = [] if self._started else ["not connected yet"]
        for loop in self._loops:
            if not loop.has_sources:
                reasons.append(f"universe {loop.name}: no input partition yet")
            elif not loop.has_published:
                reasons.append(f"universe {loop.name}: no matrix yet")
        return Health(ready=not reasons, reasons=tuple(reasons))


def kafka_service(
    config: Config,
    on_effects: Callable[[str, Effects], None] | None = None,
    compile_s: float = 0.0,
) -> Service:
    """Build the service on Kafka."""

    def source(universe: UniverseConfig) -> KafkaSource:
        group = f"{config.app}.{universe.name}"
        return KafkaSource(config.kafka, config.topics_of(universe), group)

    async def check() -> None:
        specs = output_topics(config)
        counts = await check_topics(config.kafka, [spec.name for spec in specs])
        for spec in specs:
            if counts[spec.name] < spec.partitions:
                raise MissingTopicError(
                    f"Topic {spec.name!r} has {counts[spec.name]} of the {spec.partitions} "
                    "partitions that its universes need; `stream-calib topics create` adds them"
                )

    return Service(
        config,
        source,
        KafkaSink(config.kafka),
        on_effects,
        compile_s,
        check=check,
    )


def embedded_service(
    config: Config,
    log: EmbeddedLog,
    finished: Callable[[], bool],
    on_effects: Callable[[str, Effects], None] | None = None,
    compile_s: float = 0.0,
) -> Service:
    """Build the service on the in-process log; it ends when ``finished`` and all is read."""

    def source(universe: UniverseConfig) -> EmbeddedSource:
        return EmbeddedSource(log, config.topics_of(universe), finished)

    return Service(config, source, EmbeddedSink(log), on_effects, compile_s)


def output_topics(config: Config, replication: int = 1) -> list[TopicSpec]:
    """Return the output topics with the settings that readers rely on."""
    partitions = len(config.universe)
    settings: dict[str, dict[str, str]] = {
        "correlations": {
            "cleanup.policy": "compact,delete",
            "min.compaction.lag.ms": str(HISTORY_MS),
            "max.message.bytes": str(MATRIX_BYTES_MAX),
        },
        "events": {"cleanup.policy": "delete"},
        "rejects": {"cleanup.policy": "delete"},
    }
    return [
        TopicSpec(f"{config.output.prefix}.{name}", partitions, replication, values)
        for name, values in settings.items()
    ]


def input_topics(config: Config, partitions: int, replication: int = 1) -> list[TopicSpec]:
    """Return the input topics of all universes."""
    names = sorted({topic for u in config.universe for topic in config.topics_of(u)})
    return [TopicSpec(name, partitions, replication, {}) for name in names]
