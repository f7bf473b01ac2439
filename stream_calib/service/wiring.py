"""Settings to objects: the only place that names concrete adapters."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import NamedTuple

import structlog

from stream_calib import ports
from stream_calib.adapters.embedded import EmbeddedCommitLog, EmbeddedLog, EmbeddedSource
from stream_calib.adapters.http import Health, HttpServer, HttpThread, LiveView
from stream_calib.adapters.kafka import (
    CommitSettings,
    Ends,
    GroupOwnership,
    GroupSettings,
    Instance,
    KafkaCommitLog,
    KafkaSource,
    KafkaWriteAheadLog,
    find_topics,
    host_name,
    read_ends,
    read_newest,
    read_tails,
)
from stream_calib.adapters.prometheus import PrometheusObserver
from stream_calib.adapters.registry import FramedSource, SchemaRegistry, complete
from stream_calib.adapters.workers.process import ProcessFitter
from stream_calib.config import Config, UniverseConfig
from stream_calib.config.snapshots import is_here
from stream_calib.engine.trading_time import check_calendars
from stream_calib.errors import ConfigError
from stream_calib.service.crash import crash_points
from stream_calib.service.diagnosis import slow_symbols, tick_rates_hz
from stream_calib.service.loop import OnEffects, both, calm_collector, probe_stalls
from stream_calib.service.numerics import Build, numeric_fingerprint
from stream_calib.service.pacing import publishing_periods_s
from stream_calib.service.recall import ReadBack, Turns, recall
from stream_calib.service.repetition import Allowed
from stream_calib.service.stores import snapshot_store
from stream_calib.service.topics import (
    check_topics,
    matched_topics,
    named_topics,
    partition_of,
    topics_by_role,
)
from stream_calib.service.universe import Outside, UniverseService
from stream_calib.service.watchdog import Watchdog
from stream_calib.values import SECOND_NS, Progress, Published, RecordBatch
from stream_calib.wire.ticks import check_format

VERSION = version("stream-calib")
NOTHING = Allowed()
SAMPLE_RECORDS = 20_000  # of the input, to see how often symbols tick
HEAD_RECORDS, SAMPLE_RECORDS_MOST = 500, 1_000_000  # of a partition, and of all together


def _nothing(_point: str) -> None: ...


class Adapters(NamedTuple):
    """Where ticks come from, where results go and where states are kept, per universe.

    ``check`` is awaited before anything else is connected and returns what should be warned
    of. Without ``ownership`` every universe is this process's. ``at`` is told of named points,
    where a test may end the process; ``read_back``, which ``service/recall`` takes, is for the
    live view.
    """

    new_source: Callable[[UniverseConfig], ports.RecordSource]
    new_log: Callable[[UniverseConfig], ports.CommitLog]
    snapshots: Callable[[UniverseConfig], ports.SnapshotStore | None]
    check: Callable[[], Awaitable[Sequence[str]]] | None = None
    ownership: ports.Ownership | None = None
    at: Callable[[str], None] = _nothing
    read_back: ReadBack | None = None


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
        pairs = {universe.name: config.pairs_of(universe) for universe in config.universe}
        self.observer = _Watched(VERSION, pairs=pairs, periods_s=publishing_periods_s(config))
        self.observer.turns = Turns()
        self.observer.compiled(compile_s)
        self.observer.viewers(0)  # what is counted of them begins at 0
        view = _new_view(config, self.observer)
        self.http = HttpThread(
            lambda ask: HttpServer(
                config.http,
                self.observer.render,
                self._health,
                VERSION,
                self._demand_refit,
                view,
                ask,
                self.observer.refused,
            )
        )
        on_effects = on_effects if view is None else both(view.show, on_effects)
        self._config = config
        self._check, self._ownership = adapters.check, adapters.ownership
        self._view, self._read_back = view, adapters.read_back
        self._warnings: Sequence[str] = ()
        self.watchdog = Watchdog(config.delivery.watchdog_after / SECOND_NS)
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
                    self.watchdog,
                    on_effects,
                    self._fitter,
                    adapters.at,
                    adapters.ownership,
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
            if self._ownership is not None:
                stack.push_async_callback(self._ownership.close)
                await self._ownership.start()
            self.watchdog.start()
            stack.callback(self.watchdog.stop)
            with calm_collector():
                await self._run_universes(stop, on_start)

    async def _run_universes(
        self, stop: asyncio.Event, on_start: Callable[[], None] | None
    ) -> None:
        async def announce() -> None:
            for universe in self._universes:
                await universe.settle()
            for warning in self._warnings:
                structlog.get_logger().warning(warning)
            if on_start is not None:
                on_start()

        aside = [
            asyncio.create_task(probe_stalls(self.observer, self.watchdog.turned)),
            asyncio.create_task(announce()),
        ]
        if self._view is not None and self._read_back is not None:
            names = [universe.name for universe in self._universes]
            again = self.observer.turns.taken_over
            aside.append(asyncio.create_task(recall(names, self._read_back, self._view, again)))
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
        reasons = [f"universe {u.name}: {why}" for u in self._universes for why in u.unready()]
        reasons += (still := self.watchdog.standing())
        others = self.observer.turns.others
        aside = tuple(u.name for u in self._universes if u.name in others and not u.unready())
        return Health(not reasons, tuple(reasons), not still, standing_by=aside)


class _Watched(PrometheusObserver):
    # Tells the view, where there is one, how far event time has got, and what was taken over.
    viewer: ports.Viewer | None = None
    turns: Turns

    def owned(self, universe: str, role: str) -> None:
        super().owned(universe, role)
        if self.turns.take(universe, role) and self.viewer is not None:
            self.viewer.gained(universe)

    def progressed(self, universe: str, progress: Progress) -> None:
        super().progressed(universe, progress)
        if self.viewer is not None:
            self.viewer.progressed(universe, progress)


def _new_view(config: Config, observer: _Watched) -> LiveView | None:
    if not (config.http.enabled and config.http.view):
        return None
    names = [universe.name for universe in config.universe]
    observer.viewer = view = LiveView(names, observer, publishing_periods_s(config))
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

    ownership = group_ownership(config)

    def new_log(universe: UniverseConfig) -> ports.CommitLog:
        partition = config.universe.index(universe)
        return kafka_log(config, universe, at, partial(ownership.confirm, partition))

    async def check() -> Sequence[str]:
        warnings = await check_topics(config)
        batches = await recent_records(config, SAMPLE_RECORDS)
        for universe in config.universe:
            warnings += slow_symbols(universe, tick_rates_hz(config, universe, batches))
        return warnings

    def snapshots(universe: UniverseConfig) -> ports.SnapshotStore | None:
        return snapshot_store(config, universe, at)

    def read_back(universe: str, role: str, n: int, n_bytes: int) -> Awaitable[Sequence[Published]]:
        topic, partition = topics_by_role(config)[role], partition_of(config, universe)
        return read_newest(config.kafka, topic, partition, n, n_bytes)

    adapters = Adapters(new_source, new_log, snapshots, check, ownership, at, read_back)
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

    async def read_back(universe: str, role: str, n: int, _bytes: int) -> Sequence[Published]:
        return log.newest(topics_by_role(config)[role], partition_of(config, universe), n)

    adapters = Adapters(new_source, new_log, lambda _: None, read_back=read_back)
    return Service(config, adapters, on_effects, compile_s)


async def recent_records(config: Config, n: int) -> list[RecordBatch]:
    """Return about the last ``n`` records of the input topics."""
    names = named_topics(config)
    if config.input.topics_pattern is not None:
        names |= await matched_topics(config)
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


def kafka_log(
    config: Config,
    universe: UniverseConfig,
    at: Callable[[str], None] = _nothing,
    may_own: Callable[[], Awaitable[bool]] | None = None,
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
        return KafkaCommitLog(config.kafka, settings, at, may_own)
    return KafkaWriteAheadLog(config.kafka, settings, at, may_own)


def group_ownership(config: Config) -> GroupOwnership:
    """Build this process's membership among the owners of the journal."""
    own, journal = config.ownership, topics_by_role(config)["journal"]
    snapshots = config.snapshots
    folder = None if snapshots.folder is None else snapshots.folder / journal
    settings = GroupSettings(
        # of the journal, not of the app: two that write the same one must agree
        f"{config.output.prefix}.owners",
        journal,
        len(config.universe),
        host_name(),
        own.session_timeout / SECOND_NS,
        local=snapshots.enabled and (is_here(snapshots.url) if snapshots.url else bool(folder)),
    )
    return GroupOwnership(config.kafka, settings, Instance(folder, own.instance))
