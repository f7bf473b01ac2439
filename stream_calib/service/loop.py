"""Poll, take in, commit, for one universe; the event loop never computes."""

import asyncio
import gc
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import structlog

from stream_calib import ports
from stream_calib.errors import OwnershipError, StreamCalibError, TransportError
from stream_calib.service.recovery import Parts, Recovered
from stream_calib.service.refits import Refits
from stream_calib.service.repetition import InThread
from stream_calib.service.session import Cut
from stream_calib.service.slicing import Polled, slices
from stream_calib.service.withholding import Withholding
from stream_calib.values import Effects, Progress, Snapshot, Source
from stream_calib.wire.snapshots import encode_snapshot, number_in, snapshot_name

FIRST_RECORDS = 64
TURN_BYTES = 4 * 2**20
TURN_S = 0.5
SLICE_BYTES = 512 * 2**20
POLL_S = 0.2  # longest wait for the first record: how soon silence is noticed
MARK_EVERY_S = 1.0
CATCH_UP_S = 0.1  # between two commits while there is more to read than a turn takes
STALL_PROBE_S = 0.1
LAST_SAVE_S = 10.0  # of one that has lost the universe; who is asked to stop has less
COLLECT_AFTER = (50_000, 20, 100)

OnEffects = Callable[[str, Effects], None]


def both(first: OnEffects, second: OnEffects | None) -> OnEffects:
    """Return what tells one and then the other, where there is another."""

    def note(universe: str, effects: Effects) -> None:
        first(universe, effects)
        if second is not None:
            second(universe, effects)

    return note


class UniverseLoop:
    """Carries records from a source through a session into a commit log until told to stop.

    While a commit is under way the next records are taken in; what they bring about waits for
    the commit after it. After any doubt about a commit this object is of no use any more.

    Parameters
    ----------
    parts
        The universe.
    recovered
        Where it stands.
    in_thread
        Runs a function in the thread that computes.
    in_saver
        Runs a function in the thread that saves.
    on_effects
        Called with the universe's name after effects became durable.
    on_progress
        Called after every turn with how far reading has got and the lag that is known.
    refits
        Where the fits come from that the engine asks for.
    at
        Told of named points, where a test may end the process.
    """

    def __init__(
        self,
        parts: Parts,
        recovered: Recovered,
        in_thread: InThread[Any],
        in_saver: InThread[Any],
        on_effects: OnEffects | None = None,
        on_progress: Callable[[int, int], None] | None = None,
        refits: Refits | None = None,
        at: Callable[[str], None] = lambda _point: None,
    ) -> None:
        self.name = parts.universe.name
        self.session = recovered.session
        self.has_sources = bool(recovered.session.positions)
        numbers = recovered.session.runner.engine.sequences()
        self.has_published = any(n for name, n in numbers.items() if name != "events")
        self.has_committed = False
        self._source, self._log, self._store = parts.source, parts.log, parts.snapshots
        self._observer = parts.observer
        self._max_records = parts.config.input.max_records
        self._at_once = min(FIRST_RECORDS, self._max_records)
        self._slice_records = max(1, SLICE_BYTES // (30 * len(parts.universe.symbols) ** 2))
        self._left: deque[Polled] = deque()
        self._keep = parts.config.snapshots.keep
        self._replay_cost_s = parts.config.snapshots.replay_cost / 1e9
        self._in_thread, self._in_saver = in_thread, in_saver
        self._on_effects = on_effects
        self._on_progress = on_progress
        self._refits = refits
        self._at = at
        recovered.session.runner.ask = None if refits is None else refits.ask
        self._paused: frozenset[Source] = frozenset()
        self._marked_s = -math.inf
        self._n_taken = 0
        self._lag = 0
        self.withholding = Withholding(self.name)
        self._cut_at_s = -math.inf
        self._cost_s = math.inf  # what this start repeated or accepted the next one need not
        self._unsaved_s = recovered.repeated_s  # what no snapshot holds took so long
        self._cut_unsaved_s = 0.0  # and what the one that is being saved holds of it
        self._entry_positions = recovered.entry_positions
        self._snapshot_number = recovered.snapshot_number
        self._refused = list(recovered.refused)
        self._committing: asyncio.Task[None] | None = None
        self._saving: asyncio.Task[None] | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set or a finite input is used up; commit and save at the end.

        Raises
        ------
        TransportError, OwnershipError
            What was not committed is lost with this object, not with the input.
        """
        polling = asyncio.create_task(self._poll())
        try:
            exhausted = False
            while not stop.is_set() and (self._held or not exhausted):
                await self._commit_when_due()
                if self._held:
                    await self._take_fit()
                elif self._left and self._committing is not None:
                    await asyncio.wait({self._committing})  # room for what is left
                elif not self._left:
                    waiting = {polling} if self._committing is None else {polling, self._committing}
                    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                    if not polling.done():
                        continue
                    self._left.extend(slices(polling.result(), self._slice_records))
                    # read on while this turn computes; what is paused is then one turn behind
                    polling = asyncio.create_task(self._poll())
                while self._has_room:
                    polled = self._left.popleft()
                    await self._take(polled)
                    exhausted = polled.exhausted
            await self._finish()
        finally:
            tasks = [t for t in (polling, self._committing, self._saving) if t is not None]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    @property
    def unheard(self) -> tuple[Source, ...]:
        """The sources of whose end nothing was heard for long, which the watermark waits for."""
        return self.session.runner.unheard

    @property
    def _held(self) -> bool:
        return self._refits is not None and self._refits.awaited

    @property
    def _has_room(self) -> bool:
        return bool(self._left) and not self._held and self.session.pending_bytes <= TURN_BYTES

    async def _take_fit(self) -> None:
        """Wait for a fit, or for a commit that ends meanwhile; take the fit in."""
        assert self._refits is not None
        ready = asyncio.create_task(self._refits.ready())
        tasks = {ready} if self._committing is None else {ready, self._committing}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if ready.done():
            await self._take(Polled([]))

    async def _poll(self) -> Polled:
        # asked first: an exhausted source has nothing more to say after this turn
        exhausted = self._source.exhausted()
        discovered = await self._source.discover()
        self._source.pause(self._paused)
        batches = [] if exhausted else await self._source.poll(self._at_once, POLL_S)
        return Polled(batches, discovered, exhausted)

    async def _take(self, polled: Polled) -> None:
        session, ends, told_s = self.session, self._source.ends(), self._source.told_s()
        answers = () if self._refits is None else self._refits.take()
        refit = self._refits is not None and self._refits.take_demand()
        for batch in polled.batches:
            expected = session.positions.get(batch.source, batch.position_before)
            if batch.position_before != expected:
                raise TransportError(
                    f"Records of {batch.source.topic}-{batch.source.partition} were read from "
                    f"position {batch.position_before}, not from {expected}"
                )
        started_s = asyncio.get_running_loop().time()

        def compute() -> None:
            session.take(
                polled.batches,
                polled.discovered,
                ends,
                started_s,
                exhausted=polled.exhausted,
                answers=answers,
                refit=refit,
                told_s=told_s,
            )
            self._paused = session.runner.paused(ends)

        await self._in_thread(compute)
        now_s = asyncio.get_running_loop().time()
        self._cost_s += now_s - started_s
        self._unsaved_s += now_s - started_s
        n_records = sum(len(batch.values) for batch in polled.batches)
        self._n_taken += sum(b.position_after - b.position_before for b in polled.batches)
        self._adapt(n_records, now_s - started_s)
        self.has_sources |= bool(polled.discovered)
        self._lag = sum(max(0, end - session.positions.get(s, end)) for s, end in ends.items())
        if self._on_progress is not None:
            self._on_progress(self._n_taken, self._lag)
        if now_s - self._marked_s >= MARK_EVERY_S:
            self._marked_s = now_s
            self._observer.progressed(self.name, self._progress(ends))

    def _progress(self, ends: Mapping[Source, int]) -> Progress:
        replay_s = math.nan if self._store is None else self._unsaved_s
        withheld = self._source.withheld()
        self.withholding.look(ends, withheld, asyncio.get_running_loop().time())
        return self.session.runner.progress(ends, replay_s, withheld)

    def _adapt(self, n_records: int, seconds: float) -> None:
        # a turn is as long as what its records bring, which nobody knows before
        if self.session.pending_bytes > TURN_BYTES or seconds > TURN_S:
            self._at_once = max(1, min(self._at_once, n_records) // 2)
        elif n_records >= self._at_once:
            self._at_once = min(2 * self._at_once, self._max_records)

    async def _commit_when_due(self) -> None:
        if self._committing is not None and (self._committing.done() or self.session.full):
            committing, self._committing = self._committing, None
            await committing
        now_s = asyncio.get_running_loop().time()
        if self._committing is None and self.session.due(now_s) and not self._catching_up(now_s):
            self._cut_at_s = now_s
            cut = await self._cut(now_s, snapshot=self._snapshot_due())
            self._committing = asyncio.create_task(self._commit(cut))

    def _catching_up(self, now_s: float) -> bool:
        """Tell whether reading on is more urgent than publishing what is old already."""
        behind = self._lag > self._max_records and self.session.pending_bytes <= TURN_BYTES
        # while a fit is awaited there is nothing that reading on could bring
        return (
            behind
            and not self._held
            and not self.session.full
            and now_s - self._cut_at_s < CATCH_UP_S
        )

    async def _cut(self, now_s: float, *, snapshot: bool) -> Cut:
        if not snapshot:
            return self.session.cut(now_s)
        self._cut_unsaved_s = self._unsaved_s
        cut: Cut = await self._in_thread(lambda: self.session.cut(now_s, snapshot=True))
        return cut

    def _snapshot_due(self) -> bool:
        saving = self._saving is not None and not self._saving.done()
        return self._store is not None and not saving and self._cost_s >= self._replay_cost_s

    async def _commit(self, cut: Cut) -> None:
        clock = asyncio.get_running_loop().time
        started_s = clock()
        for effects in cut.effects:
            for event in effects.events:
                self._at(f"event_{event.type}")
        try:
            position = await self._log.commit(cut.outputs, cut.entry, cut.positions)
        except StreamCalibError as error:
            outcome = "fenced" if isinstance(error, OwnershipError) else "failed"
            self._observer.committed(self.name, clock() - started_s, outcome)
            raise
        done_s = clock()
        if cut.snapshot is not None:  # the journal is cut off behind none but these
            self._entry_positions[cut.number] = position
        self.has_committed = True
        self._observer.committed(self.name, done_s - started_s, "committed")
        if cut.outputs:
            self._observer.published(
                self.name, cut.outputs, done_s - started_s, done_s - cut.closed_at_s
            )
            self.has_published |= any(effects.matrices for effects in cut.effects)
        if self._on_effects is not None:
            for effects in cut.effects:
                self._on_effects(self.name, effects)
        if cut.snapshot is not None:
            self._cost_s = 0.0
            self._saving = asyncio.create_task(self._save(cut.snapshot))

    async def _save(self, snapshot: Snapshot) -> None:
        store, loop = self._store, asyncio.get_running_loop()
        assert store is not None
        started_s, name, n_bytes = loop.time(), snapshot_name(snapshot.number, snapshot.chain), 0

        def write() -> list[str]:
            nonlocal n_bytes
            value = encode_snapshot(snapshot)
            n_bytes = len(value)
            while self._refused:  # what is saved was committed: this process was the owner
                store.delete(self._refused.pop())
            store.save(name, value)
            try:
                return store.names()
            except OSError:  # it is saved, and what is older stays for now
                return []

        try:
            names = await self._in_saver(write)
        # the stream goes on, with no disk, memory or thread for it; the next start repeats more
        except (OSError, MemoryError, RuntimeError) as error:
            self._observer.snapshotted(self.name, n_bytes, loop.time() - started_s, "failed")
            reason = getattr(error, "strerror", None) or str(error) or "no memory"
            structlog.get_logger().warning("snapshot failed", universe=self.name, reason=reason)
            return
        self._snapshot_number = snapshot.number
        self._unsaved_s -= self._cut_unsaved_s
        self._observer.snapshotted(self.name, n_bytes, loop.time() - started_s, "saved")
        if len(names) >= self._keep:
            await self._trim(number_in(names[-1]))

    async def _trim(self, oldest: int) -> None:
        position = self._entry_positions.get(oldest)
        if position is not None:
            await self._log.trim(position)
            for number in [n for n in self._entry_positions if n < oldest]:
                del self._entry_positions[number]

    async def _finish(self) -> None:
        """Commit what was taken in and save the state, so that the next start repeats nothing."""
        if self._committing is not None:
            committing, self._committing = self._committing, None
            await committing
        loop = asyncio.get_running_loop()
        if self.session.pending:
            await self._commit(await self._cut(loop.time(), snapshot=False))
        self._observer.progressed(self.name, self._progress(self._source.ends()))
        try:
            async with asyncio.timeout(LAST_SAVE_S):
                if self._saving is not None:
                    await self._saving
                if self._store is not None and self._snapshot_number < self.session.number:
                    self._cut_unsaved_s = self._unsaved_s
                    await self._save(await self._in_thread(self.session.snapshot))
        except (TimeoutError, asyncio.CancelledError) as error:
            structlog.get_logger().warning("snapshot not waited for", universe=self.name)
            if isinstance(error, asyncio.CancelledError):
                raise


@contextmanager
def calm_collector() -> Iterator[None]:
    """Let the garbage collector look rarely, and not at what was there before.

    Records make hundreds of thousands of short-lived objects a second and no cycles; looking
    at them at the usual rate costs a fifth of the throughput (``tests/bench/``).
    """
    usual = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()


async def probe_stalls(observer: ports.Observer, turned: Callable[[], None]) -> None:
    """Tell the observer how late the event loop wakes up, and that it does, for ever."""
    clock = asyncio.get_running_loop().time
    while True:
        started_s = clock()
        await asyncio.sleep(STALL_PROBE_S)
        turned()
        observer.stalled(max(0.0, clock() - started_s - STALL_PROBE_S))
