"""Poll, decode, advance, publish, for one universe; the event loop never computes."""

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from stream_calib import ports
from stream_calib.service.runner import Runner
from stream_calib.values import Effects, Output, RecordBatch

POLL_S = 0.2  # longest wait for the first record: how soon silence is noticed
MARK_EVERY_S = 1.0
STALL_PROBE_S = 0.1


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
        self._marked_s = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set or a finite input is used up."""
        try:
            while not stop.is_set():
                exhausted = self._source.exhausted()
                # an exhausted source has nothing more to say after this turn
                await self._turn([] if exhausted else await self._poll(), exhausted=exhausted)
                if exhausted:
                    break
            await self._mark()
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _poll(self) -> list[RecordBatch]:
        self._source.pause(self._runner.paused(self._source.ends()))
        return await self._source.poll(self._max_records, POLL_S)

    async def _turn(self, batches: list[RecordBatch], *, exhausted: bool) -> None:
        polled_s = time.monotonic()
        discovered = await self._source.discover()
        self.has_sources |= bool(discovered)
        ends = self._source.ends()

        def compute() -> tuple[list[Effects], list[list[Output]]]:
            taken = self._runner.turn(batches, discovered, ends, polled_s, exhausted=exhausted)
            return taken, [self._runner.outputs(effects) for effects in taken]

        taken, encoded = await asyncio.get_running_loop().run_in_executor(self._thread, compute)
        outputs = [output for part in encoded for output in part]
        if outputs:
            started_s = time.monotonic()
            await self._sink.publish(outputs)
            done_s = time.monotonic()
            has_matrix = any(effects.matrices for effects in taken)
            since_close_s = done_s - polled_s if has_matrix else math.nan
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


async def probe_stalls(observer: ports.Observer) -> None:
    """Tell the observer how late the event loop wakes up, for ever."""
    while True:
        started_s = time.monotonic()
        await asyncio.sleep(STALL_PROBE_S)
        observer.stalled(max(0.0, time.monotonic() - started_s - STALL_PROBE_S))
