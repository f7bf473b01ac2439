"""Poll, take in, commit, for one universe; the event loop never computes."""

import asyncio
import gc
import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import structlog

from stream_calib import ports
from stream_calib.errors import TransportError
from stream_calib.service.recovery import Parts, Recovered
from stream_calib.service.refits import Refits
from stream_calib.service.repetition import InThread
from stream_calib.service.session import Cut
from stream_calib.values import Effects, RecordBatch, Snapshot, Source
from stream_calib.wire.snapshots import encode_snapshot

FIRST_RECORDS = 64
TURN_BYTES = 4 * 2**20
TURN_S = 0.5
SLICE_BYTES = 512 * 2**20
POLL_S = 0.2  # longest wait for the first record: how soon silence is noticed
MARK_EVERY_S = 1.0
CATCH_UP_S = 0.1  # between two commits while there is more to read than a turn takes
STALL_PROBE_S = 0.1
COLLECT_AFTER = (50_000, 20, 100)

OnEffects = Callable[[str, Effects], None]


def both(first: OnEffects, second: OnEffects | None) -> OnEffects:
    """Return what tells one and then the other, where there is another."""

    def note(universe: str, effects: Effects) -> None:
        first(universe, effects)
        if second is not None:
            second(universe, effects)

    return note


class _Polled(NamedTuple):
    batches: list[RecordBatch]
    discovered: tuple[Source, ...] = ()
    exhausted: bool = False


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
        on_effects: OnEffects | None = None,
        on_progress: Callable[[int, int], None] | None = None,
        refits: Refits | None = None,
        at: Callable[[str], None] = lambda _point: None,
    ) -> None:
        self.name = parts.universe.name
        self.session = recovered.session
        self.has_sources = bool(recovered.session.positions)
        self.has_published = False
        self.has_committed = False
        self._source, self._log, self._store = parts.source, parts.log, parts.snapshots
        self._observer = parts.observer
        self._max_records = parts.config.input.max_records
        self._at_once = min(FIRST_RECORDS, self._max_records)
        self._slice_records = max(1, SLICE_BYTES // (30 * len(parts.universe.symbols) ** 2))
        self._left: deque[_Polled] = deque()
        self._keep = parts.config.snapshots.keep
        self._replay_cost_s = parts.config.snapshots.replay_cost / 1e9
        self._in_thread = in_thread
        self._on_effects = on_effects
        self._on_progress = on_progress
        self._refits = refits
        self._at = at
        recovered.session.runner.ask = None if refits is None else refits.ask
        self._paused: frozenset[Source] = frozenset()
        self._marked_s = -math.inf
        self._n_taken = 0
        self._lag = 0
        self._cut_at_s = -math.inf
        self._cost_s = math.inf  # what this start repeated or accepted the next one need not
        self._entry_positions = recovered.entry_positions
        self._snapshot_number = recovered.snapshot_number
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
                    self._left.extend(self._slices(polling.result()))
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
            await self._take(_Polled([]))

    async def _poll(self) -> _Polled:
        # asked first: an exhausted source has nothing more to say after this turn
        exhausted = self._source.exhausted()
        discovered = await self._source.discover()
        self._source.pause(self._paused)
        batches = [] if exhausted else await self._source.poll(self._at_once, POLL_S)
        return _Polled(batches, discovered, exhausted)

    def _slices(self, polled: _Polled) -> Iterator[_Polled]:
        # every record may bring a matrix, and of large ones not many fit into the memory
        head, tail = _Polled([], polled.discovered), _Polled([], (), polled.exhausted)
        pieces = [p for batch in polled.batches for p in _pieces(batch, self._slice_records)]
        if len(pieces) <= len(polled.batches):
            yield polled
            return
        if polled.discovered:
            yield head
        yield from (_Polled([piece]) for piece in pieces)
        if polled.exhausted:
            yield tail

    async def _take(self, polled: _Polled) -> None:
        session, ends = self.session, self._source.ends()
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
            )
            self._paused = session.runner.paused(ends)

        await self._in_thread(compute)
        now_s = asyncio.get_running_loop().time()
        self._cost_s += now_s - started_s
        n_records = sum(len(batch.values) for batch in polled.batches)
        self._n_taken += sum(b.position_after - b.position_before for b in polled.batches)
        self._adapt(n_records, now_s - started_s)
        self.has_sources |= bool(polled.discovered)
        self._lag = sum(max(0, end - session.positions.get(s, end)) for s, end in ends.items())
        if self._on_progress is not None:
            self._on_progress(self._n_taken, self._lag)
        if now_s - self._marked_s >= MARK_EVERY_S:
            self._marked_s = now_s
            self._observer.progressed(self.name, session.runner.progress(ends))

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
        position = await self._log.commit(cut.outputs, cut.entry, cut.positions)
        done_s = clock()
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
        started_s, name, n_bytes = loop.time(), f"{snapshot.number:020d}-{snapshot.chain}.snap", 0

        def write() -> list[str]:
            nonlocal n_bytes
            value = encode_snapshot(snapshot)
            n_bytes = len(value)
            store.save(name, value)
            return store.names()

        try:
            names = await loop.run_in_executor(None, write)
        except OSError as error:  # the stream goes on; the next start repeats more
            self._observer.snapshotted(self.name, n_bytes, loop.time() - started_s, "failed")
            structlog.get_logger().warning(
                "snapshot failed", universe=self.name, reason=error.strerror or str(error)
            )
            return
        self._snapshot_number = snapshot.number
        self._observer.snapshotted(self.name, n_bytes, loop.time() - started_s, "saved")
        if len(names) >= self._keep:
            await self._trim(int(names[-1].partition("-")[0]))

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
        self._observer.progressed(self.name, self.session.runner.progress(self._source.ends()))
        if self._saving is not None:
            await self._saving
        if self._store is not None and self._snapshot_number < self.session.number:
            await self._save(await self._in_thread(self.session.snapshot))


def _pieces(batch: RecordBatch, size: int) -> Iterator[RecordBatch]:
    n = len(batch.values)
    if n <= size:
        yield batch
        return
    for start in range(0, n, size):
        stop = min(n, start + size)
        yield RecordBatch(
            batch.source,
            batch.offsets[start] if start else batch.position_before,
            batch.offsets[stop] if stop < n else batch.position_after,
            batch.offsets[start:stop],
            batch.timestamps_ms[start:stop],
            batch.values[start:stop],
            batch.schemas,
        )


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


async def probe_stalls(observer: ports.Observer) -> None:
    """Tell the observer how late the event loop wakes up, for ever."""
    clock = asyncio.get_running_loop().time
    while True:
        started_s = clock()
        await asyncio.sleep(STALL_PROBE_S)
        observer.stalled(max(0.0, clock() - started_s - STALL_PROBE_S))
