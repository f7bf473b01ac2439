"""The life of one universe: own, recover, run; on any doubt, from the beginning."""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, TypeVar

import structlog

from stream_calib import ports
from stream_calib.config import Config, UniverseConfig
from stream_calib.errors import MissingTopicError, TransportError
from stream_calib.service.loop import OnEffects, UniverseLoop
from stream_calib.service.numerics import Build
from stream_calib.service.recovery import Parts, Recovery
from stream_calib.service.refits import Refits
from stream_calib.service.repetition import Allowed
from stream_calib.service.watchdog import Watchdog
from stream_calib.values import SECOND_NS

T = TypeVar("T")

BACK_OFF_S = (0.1, 0.5, 1.0, 2.0, 5.0)
PROBE_S = 5.0


class Outside(NamedTuple):
    """What a universe is connected to.

    ``new_source`` and ``new_log`` make the input and the commit log, each for one attempt.
    ``fitter`` makes full fits; without one none is made. ``on_effects`` is called with the
    universe's name after effects became durable; ``at`` is told of named points.
    """

    new_source: Callable[[], ports.RecordSource]
    new_log: Callable[[], ports.CommitLog]
    snapshots: ports.SnapshotStore | None
    observer: ports.Observer
    watchdog: Watchdog
    on_effects: OnEffects | None = None
    fitter: ports.Fitter | None = None
    at: Callable[[str], None] = lambda _point: None


class UniverseService:
    """Runs one universe; whatever goes wrong with the outside, memory is thrown away.

    It is built again from the journal, which alone says what has been committed. A crash of
    the process leads through the same steps.

    Parameters
    ----------
    config, universe
        Settings.
    outside
        What it is connected to.
    build
        What computes.
    allowed
        What the user has accepted.
    """

    def __init__(
        self,
        config: Config,
        universe: UniverseConfig,
        outside: Outside,
        build: Build,
        allowed: Allowed,
    ) -> None:
        self.name = universe.name
        self.running = asyncio.Event()
        self._config, self._universe = config, universe
        self._outside = outside
        self._build = build
        self._allowed = allowed
        self._give_up_s = config.delivery.give_up_after / SECOND_NS
        self._log = structlog.get_logger().bind(universe=self.name)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"universe-{self.name}")
        self._loop: UniverseLoop | None = None
        self._refits: Refits | None = None
        self._contact_s = 0.0
        self._out_of_contact = ""

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set or a finite input is used up.

        Raises
        ------
        StreamCalibError
            What a user can do something about, in one sentence.
        """
        snapshots = self._outside.snapshots
        self._contact_s = asyncio.get_running_loop().time()
        try:
            if snapshots is not None:
                await self._in_thread(snapshots.open)
                if snapshots.unusable:
                    self._log.warning("no snapshots can be kept", reason=snapshots.unusable)
            attempt = 0
            while not await self._lived(stop):
                pause_s = BACK_OFF_S[min(attempt, len(BACK_OFF_S) - 1)]
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), pause_s)
                attempt = 0 if self._loop is not None else attempt + 1
                self._loop = None
                if stop.is_set():
                    break
        finally:
            if snapshots is not None:
                await self._in_thread(snapshots.close)  # waits for a save under way
            self._thread.shutdown(wait=False, cancel_futures=True)

    def demand_refit(self) -> bool:
        """Have a full fit made as soon as a bar closes; False where none can be by now."""
        if self._refits is None or self._loop is None:
            return False
        self._refits.demand()
        return True

    def unready(self) -> list[str]:
        """Return why this universe is not at work as it should, in words; empty when it is."""
        loop, reasons = self._loop, []
        if self._out_of_contact:
            reasons.append(self._out_of_contact)
        if loop is None:
            reasons.append("recovering" if self.running.is_set() else "not connected yet")
        elif not loop.has_sources:
            reasons.append("no input partition yet")
        elif not loop.has_published:
            reasons.append("no matrix yet")
        return reasons

    async def _lived(self, stop: asyncio.Event) -> bool:
        """Tell whether a life ended as it should; after doubts another one has to begin."""
        try:
            await self._live(stop)
        except MissingTopicError:
            raise
        except TransportError as error:
            silent_s = asyncio.get_running_loop().time() - self._contact_s
            if not self.running.is_set() or silent_s > self._give_up_s:
                raise
            if self._loop is not None and self._loop.has_committed:
                self._allowed = Allowed()  # what was accepted is on record
            self._out_of_contact = str(error)
            self._log.warning("starting over from the journal", reason=str(error))
            self._outside.observer.restarted(self.name, type(error).__name__)
            self._outside.watchdog.excused(self.name)
            return False
        return True

    async def _live(self, stop: asyncio.Event) -> None:
        clock = asyncio.get_running_loop().time
        outside = self._outside
        source, log = outside.new_source(), outside.new_log()
        self._refits = refits = self._new_refits()
        aside: list[asyncio.Task[None]] = []
        try:
            started_s = clock()
            await source.start()
            parts = Parts(
                self._config,
                self._universe,
                source,
                log,
                outside.snapshots,
                outside.observer,
                self._build,
            )
            recovered = await Recovery(parts, self._allowed, self._in_thread).run()
            outside.at("restore")
            seconds = clock() - started_s
            outside.observer.recovered(self.name, recovered.entries_repeated, seconds)
            session = recovered.session
            self._log.info(
                "recovered",
                entry=session.number,
                chain=session.chain,
                snapshot=recovered.snapshot_number,
                repeated=recovered.entries_repeated,
                seconds=round(seconds, 3),
            )
            self._loop = UniverseLoop(
                parts,
                recovered,
                self._in_thread,
                outside.on_effects,
                self._progressed,
                refits,
                outside.at,
            )
            self._contact_s = clock()
            self._out_of_contact = ""
            self.running.set()
            aside.append(asyncio.create_task(self._probe(source)))
            if refits is not None:
                aside.append(asyncio.create_task(_stop_with(refits, stop)))
            await self._loop.run(stop)
        finally:
            for task in aside:
                task.cancel()
            if refits is not None:
                refits.stop()
            await log.close()
            await source.close()

    def _new_refits(self) -> Refits | None:
        outside = self._outside
        if outside.fitter is None or not self._universe.dcc.enabled:
            return None
        waits = self._config.refit.late == "wait"
        # nothing will be heard of the universe for as long as a fit may take
        on_wait = partial(outside.watchdog.excused, self.name) if waits else None
        return Refits(self.name, outside.fitter, outside.observer, on_wait, outside.at)

    def _progressed(self, n_taken: int, lag: int) -> None:
        if not self._out_of_contact:
            self._outside.watchdog.progressed(self.name, n_taken, lag)

    async def _probe(self, source: ports.RecordSource) -> None:
        # A reader that has lost its broker says nothing: it is asked for what it must ask for.
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(PROBE_S)
            try:
                await source.bounds(sorted(source.ends()))
            except TransportError as error:
                self._out_of_contact = str(error)
                self._outside.watchdog.excused(self.name)
            else:
                self._out_of_contact = ""
                self._contact_s = clock()

    def _in_thread(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        return asyncio.get_running_loop().run_in_executor(self._thread, work)


async def _stop_with(refits: Refits, stop: asyncio.Event) -> None:
    await stop.wait()
    refits.stop()
