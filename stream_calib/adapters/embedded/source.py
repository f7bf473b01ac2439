"""The in-process log as an input log."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence

from stream_calib.adapters.embedded.log import EmbeddedLog, EmbeddedRecord
from stream_calib.errors import LostInputError, MissingTopicError
from stream_calib.values import RecordBatch, Source


class EmbeddedSource:
    """Reads an EmbeddedLog as KafkaSource reads Kafka.

    Parameters
    ----------
    log
        Where records are.
    topics
        What to read, all partitions of it.
    finished
        Tells whether the last record was appended; None for a log without end.
    """

    def __init__(
        self,
        log: EmbeddedLog,
        topics: Sequence[str],
        finished: Callable[[], bool] | None = None,
    ) -> None:
        self._log = log
        self._topics = tuple(topics)
        self._finished = finished
        self._positions: dict[Source, int] = {}
        self._paused: frozenset[Source] = frozenset()

    async def start(self) -> None:
        """Check that the topics exist."""
        for topic in self._topics:
            self._log.partitions(topic)

    async def discover(self) -> tuple[Source, ...]:
        """Return the partitions that are new."""
        new = tuple(source for source in self._sources() if source not in self._positions)
        self._positions |= {source: self._log.bounds(*source)[0] for source in new}
        self._positions = dict(sorted(self._positions.items()))
        return new

    async def poll(self, max_records: int, timeout_s: float) -> list[RecordBatch]:
        """Return what is there; wait for an append when nothing is."""
        await asyncio.sleep(0)  # a full log answers at once: let the writers run
        batches = self._read(max_records)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not batches:
                    await self._log.wait()
                    batches = self._read(max_records)
        return batches

    def pause(self, sources: frozenset[Source]) -> None:
        """Read from all sources but these from now on."""
        self._paused = sources

    def ends(self) -> Mapping[Source, int]:
        """Return the position after the last record of each source."""
        return {source: self._log.bounds(*source)[1] for source in self._positions}

    def told_s(self) -> Mapping[Source, float]:
        """Return nothing: ``ends`` is always of the moment."""
        return {}

    def withheld(self) -> Mapping[Source, int]:
        """Return nothing: what is here may be read."""
        return {}

    def exhausted(self) -> bool:
        """Tell whether the writers are finished and all of it was read."""
        return (
            self._finished is not None
            and self._finished()
            and all(
                self._positions.get(source, first) == end
                for source in self._sources()
                for first, end in [self._log.bounds(*source)]
            )
        )

    async def bounds(self, sources: Sequence[Source]) -> Mapping[Source, tuple[int, int]]:
        """Return the first offset that is kept and the one after the last record."""
        there = [source for source in sources if self._exists(source)]
        return {source: self._log.bounds(*source) for source in there}

    async def read(self, source: Source, start: int, stop: int, max_records: int) -> RecordBatch:
        """Return the records of one source from position ``start`` on.

        Raises
        ------
        LostInputError
            ``start`` is not in the log any more, or ``stop`` not yet.
        """
        await asyncio.sleep(0)
        first, end = self._log.bounds(*source) if self._exists(source) else (0, 0)
        if start < first or stop > end:
            raise LostInputError(
                f"Positions {start} to {stop} of topic {source.topic!r} partition "
                f"{source.partition} are needed again and no longer in the log: it holds {first} "
                f"to {end}"
            )
        records = self._log.read(*source, start, min(max_records, stop - start))
        return _batch(source, start, records)

    def resume(self, positions: Mapping[Source, int]) -> None:
        """Let ``poll`` go on from these positions alone; ``discover`` names all other sources."""
        self._positions = dict(sorted(positions.items()))

    async def close(self) -> None:
        """Let go; nothing is held."""

    def _sources(self) -> list[Source]:
        return sorted(
            Source(topic, partition)
            for topic in set(self._topics)
            for partition in range(self._log.partitions(topic))
        )

    def _exists(self, source: Source) -> bool:
        try:
            return 0 <= source.partition < self._log.partitions(source.topic)
        except MissingTopicError:
            return False

    def _read(self, max_records: int) -> list[RecordBatch]:
        batches = []
        for source, position in self._positions.items():
            if source in self._paused or max_records <= 0:
                continue
            records = self._log.read(*source, position, max_records)
            if records:
                max_records -= len(records)
                batches.append(_batch(source, position, records))
        self._positions |= {batch.source: batch.position_after for batch in batches}
        return batches


def _batch(source: Source, before: int, records: Sequence[EmbeddedRecord]) -> RecordBatch:
    return RecordBatch(
        source=source,
        position_before=before,
        position_after=records[-1].offset + 1 if records else before,
        offsets=[record.offset for record in records],
        timestamps_ms=[record.timestamp_ms for record in records],
        values=[record.value for record in records],
    )
