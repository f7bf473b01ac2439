"""The life of one universe: own, recover, run; on any doubt, from the beginning."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeVar

import structlog

from stream_calib import ports
from stream_calib.config import Config, UniverseConfig
from stream_calib.errors import ForbiddenError, OwnershipError, TransportError
from stream_calib.service.loop import OnEffects, UniverseLoop
from stream_calib.service.numerics import Build
from stream_calib.service.recovery import Parts, Recovery
from stream_calib.service.refits import Refits
from stream_calib.service.repetition import Allowed
from stream_calib.service.standby import Standby
from stream_calib.service.turn import Turn
from stream_calib.service.watchdog import Watchdog
from stream_calib.values import SECOND_NS

T = TypeVar("T")

BACK_OFF_S = (0.1, 0.5, 1.0, 2.0, 5.0)
PROBE_S = 5.0
SETTLED_S = 0.2


class Outside(NamedTuple):
    """What a universe is connected to.

    ``new_source`` and ``new_log`` make the input and the commit log, each for one attempt.
    ``fitter`` makes full fits; without one none is made. ``on_effects`` is called with the
    universe's name after effects became durable; ``at`` is told of named points. Without
    ``ownership`` the universe is this process's own.
    """

    new_source: Callable[[], ports.RecordSource]
    new_log: Callable[[], ports.CommitLog]
    snapshots: ports.SnapshotStore | None
    observer: ports.Observer
    watchdog: Watchdog
    on_effects: OnEffects | None = None
    fitter: ports.Fitter | None = None
    at: Callable[[str], None] = lambda _point: None
    ownership: ports.Ownership | None = None


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
        # its own, for it may hang: others look up names of hosts in the threads that all share
        self._saver = ThreadPoolExecutor(1, thread_name_prefix=f"saving-{self.name}")
        self._turn = Turn(
            config,
            universe,
            outside.ownership,
            self._new_parts,
            outside.observer,
            self._in_thread,
        )
        self._loop: UniverseLoop | None = None
        self._refits: Refits | None = None
        self._contact_s = 0.0
        self._out_of_contact = ""
        self._forbidden = False

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set or a finite input is used up.

        Raises
        ------
        StreamCalibError
            What a user can do something about, in one sentence.
        """
        attempt = 0
        try:
            while not stop.is_set():
                if not self._turn.is_ours:
                    self._out_of_contact, self._forbidden = "", False  # another one's to say
                standby = await self._turn.come(stop)
                if self._turn.has_waited:
                    self._allowed = Allowed()  # what was accepted was so when it was said
                if stop.is_set() or await self._lived(stop, standby):
                    break
                # what is forbidden is so until somebody allows it, however well it began
                attempt = attempt + 1 if self._loop is None or self._forbidden else 0
                self._loop = None
                if self._turn.is_ours:
                    pause_s = BACK_OFF_S[min(attempt, len(BACK_OFF_S) - 1)]
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), pause_s)
        finally:
            await self._turn.drop()
            for thread in (self._thread, self._saver):
                thread.shutdown(wait=False, cancel_futures=True)

    async def settle(self) -> None:
        """Wait until this process is at work here, or knows that another one is to be."""
        await self._turn.known.wait()
        while self._turn.is_ours and not self.running.is_set():  # it may be taken away meanwhile
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.running.wait(), SETTLED_S)

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
        if loop is None and not self._turn.is_ours:
            if not self._turn.knows:
                reasons.append("waiting to be given universes")
        elif loop is None:
            reasons.append("recovering" if self.running.is_set() else "not connected yet")
        elif not loop.has_sources:
            reasons.append("no input partition yet")
        elif not loop.has_published:
            reasons.append("no matrix yet")
        if loop is not None and loop.unheard:
            topic, partition = loop.unheard[0]
            more = f" and {n} more" if (n := len(loop.unheard) - 1) else ""
            reasons.append(
                f"nothing is heard of topic {topic!r} partition {partition}{more}; "
                "what depends on it waits"
            )
        if loop is not None and loop.withholding.reason:
            reasons.append(loop.withholding.reason)
        return reasons

    async def _lived(self, stop: asyncio.Event, standby: Standby | None) -> bool:
        """Tell whether all is done; after doubts, or a loss, another life has to begin."""
        snapshots = self._outside.snapshots
        if self._loop is None and not self._out_of_contact:
            self._contact_s = asyncio.get_running_loop().time()
        try:
            return await _to_its_end(self._live(stop, standby))
        except OwnershipError as error:
            await self._turn.note_fenced(error)
            return False
        except TransportError as error:
            silent_s = asyncio.get_running_loop().time() - self._contact_s
            is_start = not (self.running.is_set() or self._turn.has_waited)
            if is_start or silent_s > self._give_up_s:
                raise
            self._out_of_contact = str(error)
            self._forbidden = isinstance(error, ForbiddenError)
            self._log.warning("starting over from the journal", reason=str(error))
            self._outside.observer.restarted(self.name, type(error).__name__)
            return False
        finally:
            # until its next life is at work, which may be that of another process
            self._outside.watchdog.excused(self.name)
            if self._loop is not None and self._loop.has_committed:
                self._allowed = Allowed()  # what was accepted is on record
            if snapshots is not None:
                await self._in_thread(snapshots.close)

    async def _live(self, stop: asyncio.Event, standby: Standby | None) -> bool:
        clock = asyncio.get_running_loop().time
        outside = self._outside
        parts = self._new_parts() if standby is None else standby.parts
        warm = None if standby is None else standby.repetition
        source, log = parts.source, parts.log
        self._refits = refits = self._new_refits()
        aside: list[asyncio.Task[None]] = []
        over = asyncio.Event()
        try:
            started_s = clock()
            await self._open_snapshots()
            if standby is None:
                await source.start()
            recovery = Recovery(parts, self._allowed, self._in_thread, warm, outside.at)
            recovered = await recovery.run()
            outside.at("restore")
            seconds = clock() - started_s
            outside.observer.recovered(self.name, recovered.entries_repeated, seconds)
            session = recovered.session
            self._log.info(
                "recovered",
                entry=session.number,
                chain=session.chain,
                snapshot=recovered.snapshot_number,
                warm=recovered.was_warm,
                repeated=recovered.entries_repeated,
                states_compared=recovered.states_compared,
                seconds=round(seconds, 3),
            )
            self._loop = UniverseLoop(
                parts,
                recovered,
                self._in_thread,
                self._in_saver,
                outside.on_effects,
                self._progressed,
                refits,
                outside.at,
            )
            self._contact_s = clock()
            self._out_of_contact = ""
            self.running.set()
            outside.observer.owned(self.name, "owner")
            aside.append(asyncio.create_task(self._probe(source, self._loop)))
            ending = asyncio.create_task(self._end(stop, over))
            aside.append(ending)
            if refits is not None:
                aside.append(asyncio.create_task(_stop_with(refits, over)))
            await self._loop.run(over)
            if ending.done():
                ending.result()  # such as why this process may own nothing any more
            return stop.is_set() or not over.is_set()
        finally:
            for task in aside:
                task.cancel()
            if refits is not None:
                refits.stop()
            await log.close()
            await source.close()

    async def _open_snapshots(self) -> None:
        snapshots = self._outside.snapshots
        if snapshots is not None:
            await self._in_thread(snapshots.open)
            if snapshots.unusable:
                self._log.warning("no snapshots can be kept", reason=snapshots.unusable)

    def _new_parts(self) -> Parts:
        outside = self._outside
        return Parts(
            self._config,
            self._universe,
            outside.new_source(),
            outside.new_log(),
            outside.snapshots,
            outside.observer,
            self._build,
        )

    def _new_refits(self) -> Refits | None:
        outside = self._outside
        if outside.fitter is None or not self._universe.dcc.enabled:
            return None
        waits = self._config.refit.late == "wait"
        # nothing will be heard of the universe for as long as a fit may take
        on_wait = partial(outside.watchdog.excused, self.name) if waits else None
        return Refits(self.name, outside.fitter, outside.observer, on_wait, outside.at)

    async def _end(self, stop: asyncio.Event, over: asyncio.Event) -> None:
        try:
            await self._turn.passes(stop)
        finally:
            over.set()

    def _progressed(self, n_taken: int, lag: int) -> None:
        if not self._out_of_contact:
            self._outside.watchdog.progressed(self.name, n_taken, lag)

    async def _probe(self, source: ports.RecordSource, loop: UniverseLoop) -> None:
        # A reader that has lost its broker, or is stuck, says nothing: it is asked for what it
        # must ask for. What it learns of the ends shows how far it is behind.
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(PROBE_S)
            try:
                await source.bounds(sorted({*source.ends(), *loop.session.positions}))
            except TransportError as error:
                self._out_of_contact = str(error)
                self._outside.watchdog.excused(self.name)
            except Exception as error:
                # nobody says that the broker is away: the watchdog has to judge
                self._out_of_contact = ""
                self._log.warning("the ends of the input are not known", error=str(error))
            else:
                self._out_of_contact = ""
                self._contact_s = clock()

    def _in_thread(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _in_saver(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        return asyncio.get_running_loop().run_in_executor(self._saver, work)


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    try:
        return await work
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # nobody has told this task to end
        raise TransportError("Kafka's client gave up what it was asked for") from None


async def _stop_with(refits: Refits, stop: asyncio.Event) -> None:
    await stop.wait()
    refits.stop()
