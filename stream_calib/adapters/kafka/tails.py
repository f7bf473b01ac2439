"""The last records of topics, and the first, for a look at what ticks there."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka import TopicPartition

from stream_calib.adapters.kafka.connection import connect_s, within
from stream_calib.adapters.kafka.reading import start_consumer, stop_consumer
from stream_calib.adapters.kafka.topics import list_partitions
from stream_calib.config import KafkaConfig
from stream_calib.errors import InputError, MissingTopicError
from stream_calib.values import Published, RecordBatch, Source

TAIL_S = 3.0  # what is there by then has to do
ENDS_S = 30.0  # where somebody waits for nothing else
STEP_MS = 200
WEIGHED = 16  # records


class Ends(NamedTuple):
    """The first records of partitions, and the last; where these meet they are all last ones."""

    heads: Sequence[RecordBatch]
    tails: Sequence[RecordBatch]


async def read_tails(config: KafkaConfig, topics: Sequence[str], n: int) -> list[RecordBatch]:
    """Return about the last ``n`` records of topics, spread evenly over their partitions.

    A topic that does not exist has none. What takes longer than a few seconds is left out.

    Raises
    ------
    TransportError
        The broker does not answer in time.
    """
    wanted = await _partitions_of(config, topics)
    if not wanted:
        return []
    consumer = await start_consumer(config)
    try:
        begins, ends = await _bounds(consumer, config, wanted)
        at = {p: max(begins[p], ends[p] - n // len(wanted)) for p in wanted}
        return await _between(consumer, config, at, ends, TAIL_S)
    finally:
        await stop_consumer(consumer)


async def read_newest(
    config: KafkaConfig, topic: str, partition: int, n: int, n_bytes: int
) -> list[Published]:
    """Return the last committed records of a partition: at most ``n``, of about ``n_bytes``.

    How many that are is judged by the weight of the last few. A partition that does not exist
    has none. What takes longer than 30 seconds is left out.

    Raises
    ------
    TransportError
        The broker does not answer in time.
    """
    wanted = TopicPartition(topic, partition)
    if partition not in (await list_partitions(config)).get(topic, ()):
        return []
    consumer = await start_consumer(config)
    try:
        begins, ends = await _bounds(consumer, config, [wanted])
        found: list[Published] = []
        until = ends[wanted]
        for count in (min(n, WEIGHED), n):  # the first ones tell how many are few enough
            weight = sum(len(record.value or b"") for record in found)
            most = count if not found else min(n, n_bytes * len(found) // max(1, weight))
            begin = max(begins[wanted], ends[wanted] - most)
            if begin < until:
                found = await _published(consumer, config, wanted, begin, until) + found
                until = begin
        return found
    finally:
        await stop_consumer(consumer)


async def find_topics(config: KafkaConfig, patterns: Sequence[str]) -> list[str]:
    """Return the topics of these names, or that match, in order.

    Parameters
    ----------
    config
        How to reach the broker.
    patterns
        Names; what is no name is a regular expression for whole names of topics that are not
        Kafka's own.

    Raises
    ------
    InputError
        A pattern is no regular expression.
    MissingTopicError
        There is no such topic.
    TransportError
        The broker does not answer in time.
    """
    there = await list_partitions(config)
    names: set[str] = set()
    for pattern in patterns:
        try:
            matches = re.compile(pattern).fullmatch
        except re.error as error:
            raise InputError(f"Topic {pattern!r} is no regular expression ({error})") from None
        found = {name for name in there if not name.startswith("__") and matches(name)}
        names |= {pattern} if pattern in there else found
        if not found and pattern not in there:
            raise MissingTopicError(f"Topic {pattern!r} does not exist, and no topic matches it")
    return sorted(names)


async def read_ends(
    config: KafkaConfig, topics: Sequence[str], n: int, n_first: int, most: int
) -> Ends:
    """Return the last ``n`` records of each partition, and its first ``n_first``.

    Of many partitions fewer, so that they are ``most`` together. Otherwise as ``read_tails``.

    Raises
    ------
    InputError
        There are no records.
    TransportError
        The broker does not answer in time.
    """
    wanted = await _partitions_of(config, topics)
    n = max(1, min(n, most // len(wanted)))
    consumer = await start_consumer(config)
    try:
        begins, ends = await _bounds(consumer, config, wanted)
        at = {p: max(begins[p], ends[p] - n) for p in wanted}
        tails = await _between(consumer, config, at, ends, ENDS_S)
        until = {p: min(begins[p] + n_first, at[p]) for p in wanted if at[p] > begins[p]}
        heads = await _between(consumer, config, {p: begins[p] for p in until}, until, TAIL_S)
    finally:
        await stop_consumer(consumer)
    if not tails:
        what = f"Topic {topics[0]!r} holds" if len(topics) == 1 else f"{len(topics)} topics hold"
        raise InputError(f"{what} no records that can be read")
    return Ends(heads, tails)


async def _published(
    consumer: Any,  # noqa: ANN401
    config: KafkaConfig,
    partition: TopicPartition,
    start: int,
    stop: int,
) -> list[Published]:
    found: list[Published] = []
    consumer.assign([partition])
    consumer.seek(partition, start)
    async with _reading(config, ENDS_S):
        while await consumer.position(partition) < stop:
            for records in (await consumer.getmany(timeout_ms=STEP_MS)).values():
                found += [
                    Published(r.topic, r.partition, r.offset, r.key, r.value, r.headers)
                    for r in records
                    if r.offset < stop
                ]
    return found


async def _partitions_of(config: KafkaConfig, topics: Sequence[str]) -> list[TopicPartition]:
    partitions = await list_partitions(config)
    return [TopicPartition(t, p) for t in sorted(set(topics)) for p in partitions.get(t, ())]


async def _bounds(
    consumer: Any,  # noqa: ANN401
    config: KafkaConfig,
    wanted: Sequence[TopicPartition],
) -> tuple[Mapping[TopicPartition, int], Mapping[TopicPartition, int]]:
    async with within(connect_s(config), config, "looking for the last records"):
        return await consumer.beginning_offsets(wanted), await consumer.end_offsets(wanted)


async def _between(
    consumer: Any,  # noqa: ANN401
    config: KafkaConfig,
    starts: Mapping[TopicPartition, int],
    stops: Mapping[TopicPartition, int],
    most_s: float,
) -> list[RecordBatch]:
    """Read partitions from one position up to another, as far as there is time."""
    at = dict(starts)
    out: list[RecordBatch] = []
    if not at:
        return out
    consumer.assign([*at])
    for partition, position in at.items():
        consumer.seek(partition, position)
    async with _reading(config, most_s):
        while waiting := [p for p in at if at[p] < stops[p]]:
            for p, records in (await consumer.getmany(*waiting, timeout_ms=STEP_MS)).items():
                own = [record for record in records if record.offset < stops[p]]
                if not own:
                    continue
                after = own[-1].offset + 1
                offsets = [record.offset for record in own]
                stamps = [record.timestamp for record in own]
                values = [record.value for record in own]
                source = Source(p.topic, p.partition)
                out.append(RecordBatch(source, at[p], after, offsets, stamps, values))
            at |= {p: await consumer.position(p) for p in waiting}
    return out


@contextlib.asynccontextmanager
async def _reading(config: KafkaConfig, most_s: float) -> AsyncIterator[None]:
    # what is there when the time is over has to do; what fails is told
    async with within(2.0 * most_s, config, "reading the last records"):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                yield
