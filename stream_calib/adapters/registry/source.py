"""A record source whose records name their schemas: each batch comes with those that it needs."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import structlog

from stream_calib.adapters.registry.client import MISSING, SchemaRegistry
from stream_calib.errors import TransportError
from stream_calib.ports import RecordSource
from stream_calib.values import RecordBatch, Source, ValueSchema
from stream_calib.wire.ticks.frames import frame_of

WAIT_S = 1.0  # for a schema that is new: most registries answer in milliseconds
RETRY_S, RETRY_MAX_S = 1.0, 30.0


class FramedSource:
    """Looks schemas up before records are decoded, so that decoding is a function of the batch.

    A partition whose next record has a schema that cannot be had is not read on until it can;
    the others go on. In a repetition that is an error of transport.

    Parameters
    ----------
    inner
        Where records come from.
    registry
        Where schemas come from; closed with this source.
    rejects_missing
        Records whose schema the registry does not know go on as such, and are rejected.
    """

    def __init__(
        self, inner: RecordSource, registry: SchemaRegistry, *, rejects_missing: bool
    ) -> None:
        self._inner = inner
        self._registry = registry
        self._rejects_missing = rejects_missing
        self._known: dict[bytes, ValueSchema] = {}
        self._asked: dict[bytes, asyncio.Task[None]] = {}
        self._reasons: dict[bytes, str] = {}  # why what was asked for has not come
        self._held: dict[Source, RecordBatch] = {}
        self._paused: frozenset[Source] = frozenset()

    async def start(self) -> None:
        """Connect; the registry is asked when it is needed."""
        await self._inner.start()

    async def discover(self) -> tuple[Source, ...]:
        """Return sources that are new."""
        return await self._inner.discover()

    def resume(self, positions: Mapping[Source, int]) -> None:
        """Let ``poll`` go on from these positions."""
        self._held.clear()
        self._inner.resume(positions)

    async def poll(self, max_records: int, timeout_s: float) -> list[RecordBatch]:
        """Return what is there, as far as its schemas are known."""
        waiting = [self._held.pop(source) for source in sorted(self._held)]
        out = [part for batch in waiting if (part := self._split(batch)) is not None]
        if out:
            return out
        self._pause()
        batches = await self._inner.poll(max_records, timeout_s)
        fresh = [task for batch in batches for task in self._ask(batch)]
        if fresh:
            await asyncio.wait(fresh, timeout=WAIT_S)
        return [part for batch in batches if (part := self._split(batch)) is not None]

    def pause(self, sources: frozenset[Source]) -> None:
        """Read from all sources but these from now on."""
        self._paused = sources
        self._pause()

    def ends(self) -> Mapping[Source, int]:
        """Return the position after the last record known of each source."""
        return self._inner.ends()

    def told_s(self) -> Mapping[Source, float]:
        """Return when the end of each source was last told."""
        return self._inner.told_s()

    def withheld(self) -> Mapping[Source, int]:
        """Return how many positions lie behind transactions that are open."""
        return self._inner.withheld()

    def exhausted(self) -> bool:
        """Tell whether all was read."""
        return not self._held and self._inner.exhausted()

    async def bounds(self, sources: Sequence[Source]) -> Mapping[Source, tuple[int, int]]:
        """Return the first position and the one after the last.

        Raises
        ------
        TransportError
            The source within cannot tell, or a partition waits for a schema: whoever asks whether
            all is well hears what is not.
        """
        if self._held and self._reasons:
            raise TransportError(next(iter(self._reasons.values())))
        return await self._inner.bounds(sources)

    async def read(self, source: Source, start: int, stop: int, max_records: int) -> RecordBatch:
        """Return records once more, with their schemas.

        Raises
        ------
        LostInputError
            As the source within.
        TransportError
            The registry does not answer, or has lost a schema.
        """
        batch = await self._inner.read(source, start, stop, max_records)
        for frame in _frames(batch):
            if frame not in self._known:
                found = await self._registry.get(frame)
                if found == MISSING and not self._rejects_missing:
                    raise TransportError(self._missing(frame))
                self._known[frame] = found
        return self._with_schemas(batch)

    async def close(self) -> None:
        """Let go; never raises."""
        tasks = [*self._asked.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._asked.clear()
        await self._inner.close()
        await self._registry.close()

    def _pause(self) -> None:
        self._inner.pause(self._paused | self._held.keys())

    def _ask(self, batch: RecordBatch) -> list["asyncio.Task[None]"]:
        tasks = []
        for frame in _frames(batch):
            if frame not in self._known:
                if frame not in self._asked:
                    self._asked[frame] = asyncio.create_task(self._look(frame, batch.source))
                tasks.append(self._asked[frame])
        return tasks

    async def _look(self, frame: bytes, source: Source) -> None:
        log = structlog.get_logger().bind(topic=source.topic, partition=source.partition)
        wait_s = RETRY_S
        while True:
            try:
                found = await self._registry.get(frame)
                if found != MISSING or self._rejects_missing:
                    self._known[frame] = found
                    del self._asked[frame]
                    self._reasons.pop(frame, None)
                    return
                reason = self._missing(frame)
            except TransportError as error:
                reason = str(error)
            self._reasons[frame] = reason
            log.warning("waiting for a schema", reason=reason)
            await asyncio.sleep(wait_s)
            wait_s = min(2.0 * wait_s, RETRY_MAX_S)

    def _split(self, batch: RecordBatch) -> RecordBatch | None:
        """Return the part whose schemas are known; the rest waits, and None is for nothing."""
        if all(frame in self._known for frame in _frames(batch)):
            return self._with_schemas(batch)
        row = next(
            row
            for row, value in enumerate(batch.values)
            if (frame := frame_of(value)) and frame not in self._known
        )
        self._held[batch.source] = _rows(batch, row, len(batch.values))
        self._ask(batch)
        self._pause()
        return self._with_schemas(_rows(batch, 0, row)) if row else None

    def _with_schemas(self, batch: RecordBatch) -> RecordBatch:
        schemas = {frame: self._known[frame] for frame in _frames(batch)}
        return replace(batch, schemas=schemas) if schemas else batch

    def _missing(self, frame: bytes) -> str:
        return (
            f"The schema registry at {self._registry.url} knows no schema {frame[1:].hex()} (hex)"
        )


async def complete(
    batches: Sequence[RecordBatch], registry: SchemaRegistry
) -> tuple[RecordBatch, ...]:
    """Return the batches with the schemas that can be had now."""
    found: dict[bytes, ValueSchema] = {}
    for frame in {frame for batch in batches for frame in _frames(batch)}:
        with contextlib.suppress(TransportError):
            found[frame] = await registry.get(frame)
    return tuple(
        replace(batch, schemas={f: found[f] for f in _frames(batch) if f in found})
        for batch in batches
    )


def _frames(batch: RecordBatch) -> list[bytes]:
    return sorted({frame for value in batch.values if (frame := frame_of(value))})


def _rows(batch: RecordBatch, start: int, stop: int) -> RecordBatch:
    return RecordBatch(
        batch.source,
        batch.offsets[start] if start else batch.position_before,
        batch.offsets[stop] if stop < len(batch.values) else batch.position_after,
        batch.offsets[start:stop],
        batch.timestamps_ms[start:stop],
        batch.values[start:stop],
    )
