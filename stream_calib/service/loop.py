"""Poll, decode, advance, publish, for one universe; the event loop never computes."""

import asyncio
import gc
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

from stream_calib import ports
from stream_calib.service.runner import Runner
from stream_calib.values import Effects, Output, RecordBatch, Source

POLL_S = 0.2  # longest wait for the first record: how soon silence is noticed
MARK_EVERY_S = 1.0
STALL_PROBE_S = 0.1
COLLECT_AFTER = (50_000, 20, 100)


class _Polled(NamedTuple):
    batches: list[RecordBatch]
    discovered: tuple[Source, ...]
    exhausted: bool


class UniverseLoop:
    """Carries records from a source through a runner into a sink until told to stop.

    Parameters
    ----------
    runner
        Runs in this loop's own thread, one turn at a time.
    source, sink
        Started and closed by the caller.
    observer
        Told what happens.
    max_records
        Most records of one turn: keeps a turn in milliseconds.
    on_effects
        Called with the universe's name after effects became durable.
    """

    def __init__(
        self,
        runner: Runner,
        source: ports.RecordSource,
        sink: ports.RecordSink,
        observer: ports.Observer,
        max_records: int,
        on_effects: Callable[[str, Effects], None] | None = None,
    ) -> None:
        self.name = runner.universe.name
        self.has_sources = False
        self.has_published = False
        self._runner = runner
        self._source = source
        self._sink = sink
        self._observer = observer
        self._max_records = max_records
        self._on_effects = on_effects
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"universe-{self.name}")
        self._paused: frozenset[Source] = frozenset()
        self._marked_s = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set or a finite input is used up."""
        polling = asyncio.create_task(self._poll())
        try:
            while not stop.is_set():
                polled = await polling
                # read on while this turn computes; what is paused is then one turn behind
                polling = asyncio.create_task(self._poll())
                await self._turn(polled)
                if polled.exhausted:
                    break
            await self._mark()
        finally:
            polling.cancel()
            await asyncio.wait({polling})
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _poll(self) -> _Polled:
        # asked first: an exhausted source has nothing more to say after this turn
        exhausted = self._source.exhausted()
        discovered = await self._source.discover()
        self._source.pause(self._paused)
        batches = [] if exhausted else await self._source.poll(self._max_records, POLL_S)
        return _Polled(batches, discovered, exhausted)

    async def _turn(self, polled: _Polled) -> None:
        started_turn_s = time.monotonic()
        self.has_sources |= bool(polled.discovered)
        ends = self._source.ends()

        def compute() -> tuple[list[Effects], list[list[Output]]]:
            taken = self._runner.turn(
                polled.batches,
                polled.discovered,
                ends,
                started_turn_s,
                exhausted=polled.exhausted,
            )
            self._paused = self._runner.paused(ends)
            return taken, [self._runner.outputs(effects) for effects in taken]

        taken, encoded = await asyncio.get_running_loop().run_in_executor(self._thread, compute)
        outputs = [output for part in encoded for output in part]
        if outputs:
            started_s = time.monotonic()
            await self._sink.publish(outputs)
            done_s = time.monotonic()
            has_matrix = any(effects.matrices for effects in taken)
            since_close_s = done_s - started_turn_s if has_matrix else math.nan
            self._observer.published(self.name, outputs, done_s - started_s, since_close_s)
            self.has_published |= has_matrix
        if self._on_effects is not None:
            for effects in taken:
                self._on_effects(self.name, effects)
        if time.monotonic() - self._marked_s >= MARK_EVERY_S:
            await self._mark()

    async def _mark(self) -> None:
        self._marked_s = time.monotonic()
        progress = self._runner.progress(self._source.ends())
        self._observer.progressed(self.name, progress)
        await self._source.mark(progress.positions)


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
    while True:
        started_s = time.monotonic()
        await asyncio.sleep(STALL_PROBE_S)
        observer.stalled(max(0.0, time.monotonic() - started_s - STALL_PROBE_S))
