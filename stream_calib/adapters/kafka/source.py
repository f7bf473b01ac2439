"""The input log: topics read by position, without a consumer group."""

import asyncio
import bisect
import math
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import OffsetOutOfRangeError
from aiokafka.record.default_records import DefaultRecordBatch

from stream_calib.adapters.kafka.connection import connect_s, within
from stream_calib.adapters.kafka.identity import TopicIds
from stream_calib.adapters.kafka.reading import (
    METADATA_S,
    READ_S,
    advance,
    out_of_range,
    start_consumer,
    stop_consumer,
)
from stream_calib.adapters.kafka.settings import select_input_topics
from stream_calib.adapters.kafka.topics import check_topics, list_partitions
from stream_calib.config import KafkaConfig
from stream_calib.errors import LostInputError, MissingTopicError, TransportError
from stream_calib.values import RecordBatch, Source

POLL_GRACE_S = 5.0  # what a poll may take beyond its own timeout


class KafkaSource:
    """Reads topics from their first record, committed records only.

    A batch without records says that nothing but markers of transactions or aborted records
    lies between two positions: they have to be passed to reach the end of the log.

    Parameters
    ----------
    config
        How to reach the broker.
    topics
        What to read, all partitions of it.
    matches
        Tells of any topic by its name whether it is to be read as well; None for no other.
        Compacted ones are left unread, with a warning, for they cannot be read again.
    """

    def __init__(
        self,
        config: KafkaConfig,
        topics: Sequence[str],
        matches: Callable[[str], bool] | None = None,
    ) -> None:
        self._config = config
        self._topics = tuple(topics)
        self._matches = matches
        self._unread: set[str] = set()  # what matches and cannot be read again
        self._consumer: Any = None
        self._counts: dict[str, int] = {}
        self._assigned: dict[Source, TopicPartition] = {}
        # What was returned so far. The client's own position also moves over records that are
        # lost on the way to us, when a poll fails or is cancelled.
        self._positions: dict[Source, int] = {}
        # What the broker said of ends: when it was asked, which a fetch may never answer, and with
        # fetches, whose word the client forgets at an assignment. And when anything about an end
        # was last said, with the client's mark of its fetch answer.
        self._said: dict[Source, int] = {}
        self._told_s: dict[Source, float] = {}
        self._marks: dict[Source, object] = {}
        self._paused: frozenset[Source] = frozenset()
        self._discover_at_s = 0.0
        self._stable: dict[Source, int] = {}  # how far a repetition is known to come
        self._ahead: dict[Source, _Ahead] = {}
        self._ids, self._reads = TopicIds(), False

    async def start(self) -> None:
        """Connect, and check that the topics exist."""
        if not is_compiled():
            message = "aiokafka lacks its compiled part and reads several times slower without it"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        self._counts = await check_topics(self._config, self._topics)
        self._consumer = await start_consumer(self._config)

    async def discover(self) -> tuple[Source, ...]:
        """Return the partitions that are new, some seconds after they were made."""
        now_s = asyncio.get_running_loop().time()
        if now_s < self._discover_at_s:
            return ()
        self._discover_at_s = now_s + METADATA_S
        if self._matches is not None:
            await self._match(self._matches)
        found = {
            Source(topic, partition)
            for topic in self._topics
            for partition in self._consumer.partitions_for_topic(topic)
            or range(self._counts[topic])
        }
        fresh = sorted(found - self._positions.keys())
        if not fresh:
            return ()
        bounds = await self._bounds(fresh)
        self._positions |= {source: first for source, (first, _) in bounds.items()}
        self._positions = dict(sorted(self._positions.items()))
        self._assign(self._positions)
        return tuple(fresh)

    def resume(self, positions: Mapping[Source, int]) -> None:
        """Let ``poll`` go on from these positions alone; ``discover`` names all other sources."""
        self._positions = dict(sorted(positions.items()))
        self._discover_at_s = 0.0
        self._ahead.clear()
        self._assign(self._positions)

    async def poll(self, max_records: int, timeout_s: float) -> list[RecordBatch]:
        """Return what was fetched; while the broker is away nothing comes, without an error.

        Raises
        ------
        LostInputError
            Records were deleted before they were read, or their topic was made anew.
        """
        self._reads = True
        await asyncio.sleep(0)  # full buffers answer at once, and the next fetch has to start
        consumer, positions, assigned = self._consumer, self._positions, self._assigned
        active = [assigned[source] for source in positions if source not in self._paused]
        if not active:
            await asyncio.sleep(timeout_s)
            return []
        async with within(timeout_s + POLL_GRACE_S, self._config, "reading"):
            for source, position in positions.items():
                if await consumer.position(assigned[source]) != position:
                    consumer.seek(assigned[source], position)
            _lighten(consumer)
            try:
                # By name, for the client throws away what it has fetched of a paused partition
                # when it comes across it.
                fetched = await consumer.getmany(
                    *active, timeout_ms=int(timeout_s * 1000), max_records=max_records
                )
            except OffsetOutOfRangeError as error:
                raise out_of_range(error) from error
            reached = {source: await consumer.position(assigned[source]) for source in positions}
        self._hear()
        batches = [
            _batch(source, positions[source], after, fetched.get(assigned[source], []))
            for source, after in reached.items()
            if after != positions[source]
        ]
        # what nobody can vouch for now is fetched once more
        if batches and not await self._ids.same(consumer, positions, [b.source for b in batches]):
            return []
        positions |= {batch.source: batch.position_after for batch in batches}
        return batches

    def pause(self, sources: frozenset[Source]) -> None:
        """Read from all sources but these from now on."""
        self._paused = sources
        for source, partition in self._assigned.items():
            (self._consumer.pause if source in sources else self._consumer.resume)(partition)

    def ends(self) -> Mapping[Source, int]:
        """Return the last stable offsets, as far as a reader of committed records can come.

        They are what fetches told, or ``bounds`` where it told of more: a client that is stuck
        hears no fetch, and would look as if it had read everything.
        """
        found = {}
        for source, position in self._positions.items():
            fetched = self._consumer.last_stable_offset(self._assigned[source])
            end = max(-1 if fetched is None else fetched, self._said.get(source, -1))
            if end >= 0:
                found[source] = max(end, position)
        return found

    def told_s(self) -> Mapping[Source, float]:
        """Return when each end was last told, by a fetch or by ``bounds``."""
        return {source: self._told_s.get(source, -math.inf) for source in self._positions}

    def withheld(self) -> Mapping[Source, int]:
        """Return how many positions lie beyond the last stable offset, as far as known."""
        found = {}
        for source, partition in self._assigned.items():
            stable = self._consumer.last_stable_offset(partition)
            end = self._consumer.highwater(partition)
            if stable is not None and end is not None and end > stable >= 0:
                found[source] = int(end - stable)
        return found

    def exhausted(self) -> bool:
        """Return False: a topic has no last record."""
        return False

    async def bounds(self, sources: Sequence[Source]) -> Mapping[Source, tuple[int, int]]:
        """Return the first offset that is kept and the last stable one, of those that exist.

        Raises
        ------
        TransportError
            The broker does not answer in time.
        """
        asked_s = asyncio.get_running_loop().time()
        partitions = await list_partitions(self._config)
        there = [s for s in sources if s.partition in partitions.get(s.topic, ())]
        # to a topic that was deleted nothing comes any more: that is news of its end
        self._told_s |= dict.fromkeys(set(sources).difference(there), asked_s)
        if not self._reads:  # what is there now will be held against what was read before
            await self._ids.note(self._consumer, {source.topic for source in there})
        return await self._bounds(there)

    async def read(self, source: Source, start: int, stop: int, max_records: int) -> RecordBatch:
        """Return the committed records of one source from position ``start`` on.

        At most ``max_records``, none at or beyond ``stop``. Ranges that follow each other are
        read as one, without asking the broker for each.

        Raises
        ------
        LostInputError
            ``start`` is not in the log any more, or ``stop`` not yet.
        """
        if start >= stop:
            return _batch(source, start, start, ())
        ahead = self._ahead.pop(source, None)
        async with within(READ_S, self._config, f"reading {source.topic} once more"):
            if stop > self._stable.get(source, -1):
                await self._check_kept(source, start, stop)
            if ahead is None or ahead.position != start:
                partition = self._assigned[source]
                if await self._consumer.position(partition) != start:
                    self._consumer.seek(partition, start)
                if source in self._paused:
                    self._consumer.resume(partition)
                count = min(max_records, stop - start)
                try:
                    found = await advance(self._consumer, partition, count)
                except LostInputError as error:
                    why = "records were deleted meanwhile, or the topic was made anew"
                    raise _lost(source, start, stop, why) from error
                ahead = _Ahead(start, *found)
        # Gaps have positions too, so that as many records as positions may go beyond the stop.
        # What does is kept for the next range, instead of being fetched once more.
        records, after = ahead.records, ahead.after
        if after > stop or len(records) > max_records:
            inside = bisect.bisect_left(records, stop, key=operator.attrgetter("offset"))
            n = min(inside, max_records)
            after = min(after, stop) if n == inside else records[n].offset
            self._ahead[source] = _Ahead(after, records[n:], ahead.after)
            records = records[:n]
        return _batch(source, start, after, records)

    async def close(self) -> None:
        """Let go within a few seconds."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await stop_consumer(consumer)

    async def _match(self, matches: Callable[[str], bool]) -> None:
        try:
            async with within(connect_s(self._config), self._config, "looking for topics"):
                names = await self._consumer.topics()
            known = {*self._topics, *self._unread}
            fresh = {name for name in names if name not in known and matches(name)}
            if not fresh:
                return
            counts = await check_topics(self._config, fresh)
            selected = await select_input_topics(self._config, fresh)
        except (MissingTopicError, TransportError):
            return  # one that is just being made, or deleted, or the broker is away: look later
        for sentence in selected.unread:
            warnings.warn(sentence, RuntimeWarning, stacklevel=2)
        self._unread |= fresh - selected.readable
        self._counts |= {name: counts[name] for name in selected.readable}
        self._topics += tuple(sorted(selected.readable))

    async def _check_kept(self, source: Source, start: int, stop: int) -> None:
        known = source in self._assigned
        if not known and not await self.bounds([source]):
            raise _lost(source, start, stop, "it does not exist any more")
        first, end = (await self._bounds([source]))[source]
        if start < first:
            raise _lost(source, start, stop, f"its first record is at {first}")
        if stop > end:
            raise _lost(source, start, stop, f"it ends at {end}")
        self._stable[source] = end
        if not known:
            positions = {s: await self._consumer.position(p) for s, p in self._assigned.items()}
            self._assign(positions | {source: start})

    async def _bounds(self, sources: Sequence[Source]) -> dict[Source, tuple[int, int]]:
        partitions = {source: TopicPartition(*source) for source in sources}
        if not partitions:
            return {}
        async with within(connect_s(self._config), self._config, "looking for the first records"):
            begins = await self._consumer.beginning_offsets(list(partitions.values()))
            asked_s = asyncio.get_running_loop().time()
            ends = await self._consumer.end_offsets(list(partitions.values()))
        for source, partition in partitions.items():
            self._said[source] = ends[partition]
            self._told_s[source] = max(asked_s, self._told_s.get(source, asked_s))
        return {source: (begins[p], ends[p]) for source, p in partitions.items()}

    def _hear(self) -> None:
        # The client notes the wall clock at each fetch answer of a partition: any change is one.
        # What it came with was fetched by now, and what is fetched later it says nothing of.
        now_s = asyncio.get_running_loop().time()
        for source, partition in self._assigned.items():
            mark = self._consumer.last_poll_timestamp(partition)
            if mark is not None and mark != self._marks.get(source):
                self._marks[source], self._told_s[source] = mark, now_s
                end = self._consumer.last_stable_offset(partition)
                self._said[source] = max(-1 if end is None else end, self._said.get(source, -1))

    def _assign(self, positions: Mapping[Source, int]) -> None:
        # An assignment replaces the one before, with its positions and pauses.
        self._assigned = {source: TopicPartition(*source) for source in positions}
        self._consumer.assign(list(self._assigned.values()))
        for source, partition in self._assigned.items():
            self._consumer.seek(partition, positions[source])
        self.pause(self._paused)


def is_compiled() -> bool:
    """Tell whether the client library has its compiled part."""
    module: str = DefaultRecordBatch.__module__
    return module.startswith("aiokafka.record._crecords")


def _lighten(consumer: Any) -> None:  # noqa: ANN401
    # The client copies each record into an object of eleven fields, three of which are read
    # here. Where it lets itself be told, it hands its own compiled record on: a quarter less
    # work for each. Where it does not, all is as before.
    fetcher = getattr(consumer, "_fetcher", None)
    for fetched in getattr(fetcher, "_records", {}).values():
        unpacking: Any = getattr(fetched, "_partition_records", None)
        if hasattr(unpacking, "_consumer_record"):
            unpacking._consumer_record = _as_it_is  # noqa: SLF001


def _as_it_is(_partition: TopicPartition, record: Any) -> Any:  # noqa: ANN401
    return record


class _Ahead(NamedTuple):
    # Records that were fetched beyond the range asked for: those from ``position`` on, after
    # which the client stands at ``after``.
    position: int
    records: Sequence[Any]
    after: int


def _lost(source: Source, start: int, stop: int, why: str) -> LostInputError:
    return LostInputError(
        f"Positions {start} to {stop} of topic {source.topic!r} partition {source.partition} are "
        f"needed again and no longer in the log: {why}"
    )


def _batch(source: Source, before: int, after: int, records: Sequence[Any]) -> RecordBatch:
    offsets = [record.offset for record in records]
    bounds = [before - 1, *offsets, after]
    if not all(map(operator.lt, bounds, bounds[1:])):
        message = f"Kafka returned records of {source.topic}-{source.partition} out of order"
        raise TransportError(message)
    return RecordBatch(
        source=source,
        position_before=before,
        position_after=after,
        offsets=offsets,
        timestamps_ms=[
            -1 if (time_ms := record.timestamp) is None or time_ms < 0 else time_ms
            for record in records
        ],
        values=[record.value for record in records],
    )
