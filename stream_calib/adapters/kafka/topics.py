"""Topics as an operator sees them: whether they exist, and creating those that do not."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from stream_calib.adapters.kafka.connection import (
    completes,
    connect_s,
    reachable,
    unseen,
    within,
)
from stream_calib.config import KafkaConfig
from stream_calib.errors import MissingTopicError, TransportError


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it is wanted; ``settings`` are the broker's, such as ``retention.ms``."""

    name: str
    partitions: int = 1
    replication: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)


async def check_topics(config: KafkaConfig, names: Iterable[str]) -> dict[str, int]:
    """Return the number of partitions of each of these topics.

    Raises
    ------
    MissingTopicError
        One of them does not exist.
    TransportError
        The broker cannot be reached, or a partition has no leader now.
    """
    async with admin_client(config, "looking for topics") as admin:
        found = {topic["topic"]: topic for topic in await admin.describe_topics()}
    counts = {}
    for name in sorted(set(names)):
        if name not in found or found[name]["error_code"]:
            message = f"Topic {name!r} does not exist{unseen(config)}"
            raise MissingTopicError(f"{message}; `stream-calib topics create` makes it")
        partitions = found[name]["partitions"]
        if any(partition["leader"] < 0 for partition in partitions):
            raise TransportError(f"Topic {name!r} has a partition without a leader")
        counts[name] = len(partitions)
    return counts


async def list_partitions(config: KafkaConfig) -> dict[str, set[int]]:
    """Return the partitions of every topic, those without a leader too.

    Raises
    ------
    TransportError
        The broker cannot be reached.
    """
    async with admin_client(config, "looking for topics") as admin:
        return {
            topic["topic"]: {partition["partition"] for partition in topic["partitions"]}
            for topic in await admin.describe_topics()
            if topic["error_code"] == 0
        }


async def ensure_topics(
    config: KafkaConfig, specs: Sequence[TopicSpec], *, grow: bool = False
) -> list[str]:
    """Create the topics that are missing and return their names.

    Parameters
    ----------
    config
        How to reach the broker.
    specs
        The topics wanted; those that exist keep their settings.
    grow
        Add partitions to topics that exist with too few of them.

    Raises
    ------
    TransportError
        The broker cannot be reached, or refuses.
    """
    async with admin_client(config, "creating topics") as admin:
        counts = await _partition_counts(admin)
        missing = [spec for spec in specs if spec.name not in counts]
        small = [spec for spec in specs if grow and spec.partitions > counts.get(spec.name, 2**31)]
        if missing:
            await _create(admin, missing)
        if small:
            wanted = {spec.name: NewPartitions(spec.partitions) for spec in small}
            await admin.create_partitions(wanted)
        # The broker says yes before it shows the topic to others.
        while any(counts.get(spec.name, 0) < spec.partitions for spec in [*missing, *small]):
            await asyncio.sleep(0.02)
            counts = await _partition_counts(admin)
    return [spec.name for spec in missing]


async def _create(admin: Any, specs: Sequence[TopicSpec]) -> None:  # noqa: ANN401
    response = await admin.create_topics(
        [
            NewTopic(s.name, s.partitions, s.replication, topic_configs=dict(s.settings))
            for s in specs
        ]
    )
    for name, code, *words in response.topic_errors:
        if code not in (0, TopicAlreadyExistsError.errno):
            reason = next((word for word in words if word), for_code(code).__name__)
            raise TransportError(f"Topic {name!r} cannot be created: {reason}")


@contextlib.asynccontextmanager
async def admin_client(config: KafkaConfig, doing: str) -> AsyncIterator[Any]:
    """Connect an administrator for a few requests, all within one deadline."""
    async with within(connect_s(config), config, doing):
        admin = AIOKafkaAdminClient(**await reachable(config))
        try:
            await admin.start()
            yield admin
        finally:
            await completes(admin.close())


async def _partition_counts(admin: Any) -> dict[str, int]:  # noqa: ANN401
    # Of all topics: asked for one by name, a broker with default settings would create it.
    # Only partitions with a leader count, the others cannot be read or written yet.
    return {
        topic["topic"]: sum(partition["leader"] >= 0 for partition in topic["partitions"])
        for topic in await admin.describe_topics()
        if topic["error_code"] == 0
    }
