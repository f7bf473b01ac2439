"""Settings to objects: the only place that names concrete adapters."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import structlog

from stream_calib import ports
from stream_calib.adapters.embedded import EmbeddedCommitLog, EmbeddedLog, EmbeddedSource
from stream_calib.adapters.http import Health, HttpServer, LiveView
from stream_calib.adapters.kafka import (
    CommitSettings,
    Ends,
    KafkaCommitLog,
    KafkaSource,
    KafkaWriteAheadLog,
    TopicSpec,
    check_input_topics,
    check_output_topics,
    find_topics,
    list_partitions,
    read_ends,
    read_tails,
    select_input_topics,
)
from stream_calib.adapters.prometheus import PrometheusObserver
from stream_calib.adapters.registry import FramedSource, SchemaRegistry, complete
from stream_calib.adapters.snapshots import SnapshotFolder
from stream_calib.adapters.workers.process import ProcessFitter
from stream_calib.config import Config, UniverseConfig
from stream_calib.engine.trading_time import check_calendars
from stream_calib.errors import ConfigError
from stream_calib.service.crash import crash_points
from stream_calib.service.diagnosis import slow_symbols, tick_rates_hz
from stream_calib.service.loop import OnEffects, both, calm_collector, probe_stalls
from stream_calib.service.numerics import Build, numeric_fingerprint
from stream_calib.service.repetition import Allowed
from stream_calib.service.universe import Outside, UniverseService
from stream_calib.service.watchdog import Watchdog
from stream_calib.values import SECOND_NS, Progress, RecordBatch
from stream_calib.wire.ticks import check_format

VERSION = version("stream-calib")
NOTHING = Allowed()
MATRIX_BYTES_MAX = 1_000_000  # a chunk of 900 kB with its key and headers
JOURNAL_BYTES_MAX = 4 * 2**20
SAMPLE_RECORDS = 20_000  # of the input, to see how often symbols tick
HEAD_RECORDS, SAMPLE_RECORDS_MOST = 500, 1_000_000  # of a partition, and of all together
HISTORY_MS = 24 * 3_600_000  # the promised history of matrices
ROLES = ("correlations", "events", "rejects", "calibrations", "universes", "journal", "fits")


def _nothing(_point: str) -> None: ...


class Adapters(NamedTuple):
    """Where ticks come from, where results go and where states are kept, per universe.

    ``check`` is awaited before anything else is connected and returns what should be warned
    of; ``at`` is told of named points, where a test may end the process.
    """

    new_source: Callable[[UniverseConfig], ports.RecordSource]
    new_log: Callable[[UniverseConfig], ports.CommitLog]
    snapshots: Callable[[UniverseConfig], ports.SnapshotStore | None]
    check: Callable[[], Awaitable[Sequence[str]]] | None = None
    at: Callable[[str], None] = _nothing


class Service:
    """All universes of a configuration on one event loop, with the HTTP face.

    Parameters
    ----------
    config
        Settings.
    adapters
        What it is connected to.
    on_effects
        Called with a universe's name and what became durable.
    compile_s
        What importing the kernels took, for the metrics.
    allowed
        What the user has accepted.
    """

    def __init__(
        self,
        config: Config,
        adapters: Adapters,
        on_effects: OnEffects | None = None,
        compile_s: float = 0.0,
        allowed: Allowed = NOTHING,
    ) -> None:
        check_format(config.input.format)
        check_calendars(config)
        self.observer = _Watched(version=VERSION)
        self.observer.compiled(compile_s)
        view = _new_view(config, self.observer)
        self.http = HttpServer(
            config.http, self.observer.render, self._health, VERSION, self._demand_refit, view
        )
        on_effects = on_effects if view is None else both(view.show, on_effects)
        self._config = config
        self._check = adapters.check
        self._warnings: Sequence[str] = ()
        self._watchdog = Watchdog(config.delivery.watchdog_after / SECOND_NS)
        self._fitter = ProcessFitter(
            timeout_s=config.refit.timeout / SECOND_NS, memory_bytes=config.refit.memory_mb * 2**20
        )
        build = Build(VERSION, numeric_fingerprint())
        self._universes = [
            UniverseService(
                config,
                universe,
                Outside(
                    lambda u=universe: adapters.new_source(u),  # type: ignore[misc]
                    lambda u=universe: adapters.new_log(u),  # type: ignore[misc]
                    adapters.snapshots(universe),
                    self.observer,
                    self._watchdog,
                    on_effects,
                    self._fitter,
                    adapters.at,
                ),
                build,
                allowed,
            )
            for universe in config.universe
        ]

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
            stack.push_async_callback(self._fitter.close)
            self._warnings = await self._check() if self._check is not None else ()
            self._watchdog.start()
            stack.callback(self._watchdog.stop)
            with calm_collector():
                await self._run_universes(stop, on_start)

    async def _run_universes(
        self, stop: asyncio.Event, on_start: Callable[[], None] | None
    ) -> None:
        async def announce() -> None:
            for universe in self._universes:
                await universe.running.wait()
            for warning in self._warnings:
                structlog.get_logger().warning(warning)
            if on_start is not None:
                on_start()

        aside = [
            asyncio.create_task(probe_stalls(self.observer)),
            asyncio.create_task(announce()),
        ]
        try:
            async with asyncio.TaskGroup() as group:
                for universe in self._universes:
                    group.create_task(universe.run(stop))
        except ExceptionGroup as group_error:
            raise group_error.exceptions[0] from None  # one universe's end is the service's end
        finally:
            for task in aside:
                task.cancel()

    def _demand_refit(self, name: str) -> bool | None:
        universe = next((u for u in self._universes if u.name == name), None)
        return None if universe is None else universe.demand_refit()

    def _health(self) -> Health:
        reasons = [
            f"universe {u.name}: {reason}" for u in self._universes for reason in u.unready()
        ]
        return Health(ready=not reasons, reasons=tuple(reasons))


class _Watched(PrometheusObserver):
    # Tells the view, where there is one, how far event time has got.
    viewer: ports.Viewer | None = None

    def progressed(self, universe: str, progress: Progress) -> None:
        super().progressed(universe, progress)
        if self.viewer is not None:
            self.viewer.progressed(universe, progress)


def _new_view(config: Config, observer: _Watched) -> LiveView | None:
    if not (config.http.enabled and config.http.view):
        return None
    view = LiveView([universe.name for universe in config.universe], observer)
    observer.viewer = view
    return view


def kafka_service(
    config: Config,
    on_effects: OnEffects | None = None,
    compile_s: float = 0.0,
    allowed: Allowed = NOTHING,
) -> Service:
    """Build the service on Kafka."""
    at = crash_points()

    def new_source(universe: UniverseConfig) -> ports.RecordSource:
        return kafka_source(config, universe)

    def new_log(universe: UniverseConfig) -> ports.CommitLog:
        return kafka_log(config, universe, at)

    async def check() -> Sequence[str]:
        warnings = await check_topics(config)
        batches = await recent_records(config, SAMPLE_RECORDS)
        for universe in config.universe:
            warnings += slow_symbols(universe, tick_rates_hz(config, universe, batches))
        return warnings

    def snapshots(universe: UniverseConfig) -> ports.SnapshotStore | None:
        folder = snapshot_folder(config, universe)
        return None if folder is None else SnapshotFolder(folder, config.snapshots.keep, at)

    adapters = Adapters(new_source, new_log, snapshots, check, at)
    return Service(config, adapters, on_effects, compile_s, allowed)


def embedded_service(
    config: Config,
    log: EmbeddedLog,
    finished: Callable[[], bool],
    on_effects: OnEffects | None = None,
    compile_s: float = 0.0,
) -> Service:
    """Build the service on the in-process log; it ends when ``finished`` and all is read."""

    def new_source(universe: UniverseConfig) -> ports.RecordSource:
        return with_schemas(config, EmbeddedSource(log, config.topics_of(universe), finished))

    def new_log(universe: UniverseConfig) -> ports.CommitLog:
        return EmbeddedCommitLog(log, topics_by_role(config), config.universe.index(universe))

    adapters = Adapters(new_source, new_log, lambda _: None)
    return Service(config, adapters, on_effects, compile_s)


async def check_topics(config: Config) -> list[str]:
    """Refuse topics that are missing or would lose records; return what should be warned of."""
    last = len(config.universe) - 1
    checked = await check_output_topics(config.kafka, topics_by_role(config), last)
    named = _named_topics(config)
    warnings = [*checked.warnings, *await check_input_topics(config.kafka, named)]
    if config.input.topics_pattern is None:
        return warnings
    matched = await _matched_topics(config)
    if not named and not matched:
        return [*warnings, f"No topic matches {config.input.topics_pattern!r} yet"]
    selected = await select_input_topics(config.kafka, matched)
    return [*warnings, *selected.unread, *selected.warnings]


async def recent_records(config: Config, n: int) -> list[RecordBatch]:
    """Return about the last ``n`` records of the input topics."""
    names = _named_topics(config)
    if config.input.topics_pattern is not None:
        names |= await _matched_topics(config)
    return await _completed(config, await read_tails(config.kafka, sorted(names), n))


async def topic_ends(config: Config, patterns: Sequence[str], n: int) -> Ends:
    """Return the last ``n`` records of each partition of topics, and some of its first ones."""
    wanted = await find_topics(config.kafka, patterns)
    heads, tails = await read_ends(config.kafka, wanted, n, HEAD_RECORDS, SAMPLE_RECORDS_MOST)
    return Ends(await _completed(config, heads), await _completed(config, tails))


async def _completed(config: Config, batches: Sequence[RecordBatch]) -> list[RecordBatch]:
    registry = _registry(config)
    if registry is None:
        return [*batches]
    try:
        return [*await complete(batches, registry)]
    finally:
        await registry.close()


def kafka_source(config: Config, universe: UniverseConfig) -> ports.RecordSource:
    """Build the source of a universe on Kafka, with the topics that match, now and later."""
    matches = None if config.input.topics_pattern is None else partial(config.reads, universe)
    return with_schemas(config, KafkaSource(config.kafka, config.topics_of(universe), matches))


def with_schemas(config: Config, source: ports.RecordSource) -> ports.RecordSource:
    """Let records come with their schemas, where there is a registry.

    Raises
    ------
    ConfigError
        The extra that reads Avro is not installed.
    """
    registry = _registry(config)
    if registry is None:
        return source
    return FramedSource(source, registry, rejects_missing=config.input.missing_schemas == "reject")


def _registry(config: Config) -> SchemaRegistry | None:
    own = config.input
    if own.schema_registry is None:
        return None
    if find_spec("fastavro") is None:
        message = "input.schema_registry needs an extra: pip install 'stream-calib[avro]'"
        raise ConfigError(message)
    secret = own.schema_registry_password
    password = None if secret is None else secret.get_secret_value()
    return SchemaRegistry(own.schema_registry, own.schema_registry_username, password)


def _named_topics(config: Config) -> set[str]:
    return {topic for u in config.universe for topic in config.topics_of(u)}


async def _matched_topics(config: Config) -> set[str]:
    there = await list_partitions(config.kafka)
    matched = {t for t in there if any(config.reads(u, t) for u in config.universe)}
    return matched - _named_topics(config)


def kafka_log(
    config: Config, universe: UniverseConfig, at: Callable[[str], None] = _nothing
) -> ports.CommitLog:
    """Build the commit log of a universe on Kafka; until it owns, it can only be read."""
    settings = CommitSettings(
        # of the journal, not of the app: whoever writes there fences whoever wrote before
        f"{config.output.prefix}.{universe.name}",
        f"{config.app}.{universe.name}",
        topics_by_role(config),
        config.universe.index(universe),
        config.delivery.transaction_timeout / SECOND_NS,
    )
    if config.delivery.mode == "exactly_once":
        return KafkaCommitLog(config.kafka, settings, at)
    return KafkaWriteAheadLog(config.kafka, settings, at)


def topics_by_role(config: Config) -> dict[str, str]:
    """Return the name of every topic that the service writes."""
    return {role: f"{config.output.prefix}.{role}" for role in ROLES}


def snapshot_folder(config: Config, universe: UniverseConfig) -> Path | None:
    """Return where the snapshots of ``universe`` are kept, or None for nowhere."""
    folder = config.snapshots.folder
    if folder is None or not config.snapshots.enabled:
        return None
    return folder / f"{config.output.prefix}.journal" / universe.name


def output_topics(config: Config, replication: int = 1) -> list[TopicSpec]:
    """Return the topics that the service writes, with the settings that it relies on."""
    partitions = len(config.universe)
    for_ever = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
    settings: dict[str, dict[str, str]] = {
        "correlations": {
            "cleanup.policy": "compact,delete",
            "min.compaction.lag.ms": str(HISTORY_MS),
            "max.message.bytes": str(MATRIX_BYTES_MAX),
        },
        "events": {"cleanup.policy": "delete"},
        "rejects": {"cleanup.policy": "delete"},
        "calibrations": {"cleanup.policy": "compact"},
        "universes": {"cleanup.policy": "compact"},
        "journal": for_ever | {"max.message.bytes": str(JOURNAL_BYTES_MAX)},
        "fits": for_ever | {"max.message.bytes": str(MATRIX_BYTES_MAX)},
    }
    names = topics_by_role(config)
    return [TopicSpec(names[role], partitions, replication, settings[role]) for role in ROLES]


def input_topics(config: Config, partitions: int, replication: int = 1) -> list[TopicSpec]:
    """Return the input topics of all universes that are named."""
    names = sorted(_named_topics(config))
    return [TopicSpec(name, partitions, replication, {}) for name in names]
