"""Which topic goes by a name: one that was deleted and made anew has another id.

Its positions begin at 0 again. A reader that does not hear of it, because it stood still or left
a partition alone, would take what is at its next position for what comes next.
"""

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from typing import Any

import structlog
from aiokafka import TopicPartition
from aiokafka.client import ConnectionGroup
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

from stream_calib.errors import LostInputError, TransportError
from stream_calib.values import Source

LOOK_EVERY_S = 1.0
PAUSE_S = 0.1
ANSWER_S, ANSWERS, AGAIN_S = 2.0, 5, 0.2
METADATA, WITH_IDS = 3, 10  # of the library's own requests version 5 is the last


class _Id(AbstractType[bytes]):  # type: ignore[misc]
    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(16)


NO_ID = bytes(16)


class _Described(Response):  # type: ignore[misc]
    API_KEY = METADATA
    API_VERSION = WITH_IDS
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString()),
                ("port", Int32),
                ("rack", CompactString()),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString()),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString()),
                ("topic_id", _Id),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class _Describe(RequestStruct):  # type: ignore[misc]
    API_KEY = METADATA
    API_VERSION = WITH_IDS
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _Described
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(("topic_id", _Id), ("name", CompactString()), ("tags", TaggedFields)),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _DescribeTopics(Request[_Describe]):  # type: ignore[misc]
    API_KEY = METADATA

    def __init__(self, topics: Iterable[str]) -> None:
        no_tags: dict[int, bytes] = {}
        self._topics = [(NO_ID, topic, no_tags) for topic in sorted(topics)]

    def build(self, request_struct_class: type[_Describe]) -> _Describe:
        return request_struct_class(self._topics, False, False, False, {})  # noqa: FBT003


class TopicIds:
    """Tells when a name that is read from stands for another topic than before.

    What was fetched before a look that finds all as it was is of the topics as they were: a broker
    shows a new topic before it takes records for it. So it is looked at behind a fetch and before
    its records are handed on: once a second, and where a topic of it was not fetched or looked at
    for so long that somebody may have deleted it, made it anew and filled it beyond our position.
    """

    def __init__(self) -> None:
        self._ids: dict[str, bytes] = {}
        self._looked_s = -math.inf
        self._passed_s: dict[str, float] = {}
        self._told = True

    async def note(self, consumer: Any, topics: Iterable[str]) -> None:  # noqa: ANN401
        """Take down which topics these are now, as far as the broker tells.

        Raises
        ------
        TransportError
            No broker answers.
        """
        for _ in range(ANSWERS):
            found = await self._ask(consumer._client, set(topics), None)  # noqa: SLF001
            if found is not None:
                self._ids |= found
                return
            await asyncio.sleep(AGAIN_S)
        raise TransportError("Kafka did not say which topics go by the names of the input's")

    async def same(
        self,
        consumer: Any,  # noqa: ANN401
        positions: Mapping[Source, int],
        fetched_of: Sequence[Source],
    ) -> bool:
        """Tell whether what was fetched so far goes on from these positions; False: not known.

        Raises
        ------
        LostInputError
            A topic of which something was read is gone, and another one has its name.
        """
        now_s = asyncio.get_running_loop().time()
        fetched = {source.topic for source in fetched_of}
        passed_s = min(self._passed_s.get(topic, -math.inf) for topic in fetched)
        close = now_s - max(passed_s, self._looked_s) < PAUSE_S
        if not self._told or (close and now_s - self._looked_s < LOOK_EVERY_S):
            self._passed_s |= dict.fromkeys(fetched, now_s)
            return True
        # asked is who has just answered: its own view is as new as what it sent
        topics, client = {source.topic for source in positions}, consumer._client  # noqa: SLF001
        leader = client.cluster.leader_for_partition(TopicPartition(*fetched_of[-1]))
        found = await self._ask(client, topics, leader)
        if found is None:
            return False
        for source, position in sorted(positions.items()):
            known = self._ids.get(source.topic)
            if position and known is not None and found.get(source.topic, known) != known:
                raise LostInputError(
                    f"Topic {source.topic!r} was deleted and made anew while it was read: what is "
                    f"in partition {source.partition} from position {position} on does not "
                    "continue what was read; --accept-gap goes on with it"
                )
        self._ids |= found
        self._looked_s = now_s
        return True

    async def _ask(
        self,
        client: Any,  # noqa: ANN401
        topics: set[str],
        node: int | None,
    ) -> dict[str, bytes] | None:
        """Return the ids of those that exist; None without an answer."""
        if not self._told or not topics:
            return {}
        if node is None or node < 0:
            node = client.get_random_node()
        try:
            async with asyncio.timeout(ANSWER_S):
                # beside the fetch under way, behind which a broker would let it wait
                answer = await client.send(
                    node, _DescribeTopics(topics), group=ConnectionGroup.COORDINATION
                )
        except (NotImplementedError, IncompatibleBrokerVersion):
            self._told = False
            structlog.get_logger().warning(
                "the broker gives topics no ids: one that is made anew while it is read may not "
                "be noticed before the next start"
            )
            return {}
        except (KafkaError, OSError):  # a TimeoutError is one
            return None
        return {topic[1]: topic[2] for topic in answer.topics if not topic[0] and topic[2] != NO_ID}
