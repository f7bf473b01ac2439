"""Positions noted in a consumer group, where lag tools look."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.commit import OffsetCommitRequest

from stream_calib.adapters.kafka.connection import completes, reachable, within
from stream_calib.config import KafkaConfig
from stream_calib.errors import TransportError
from stream_calib.values import Source

MARK_S = 5.0
LAST_MARK_S = 1.0  # for lag tools alone: a stop does not wait long for it
RETRY_S = 0.1


class PositionMarker:
    """Commits positions in the background, as a client outside the group.

    It has a connection of its own: a reader with a group id would fail with its group.

    Parameters
    ----------
    config
        How to reach the broker.
    group
        A group that never has members.
    at
        Called with "positions" when they are noted.

    Attributes
    ----------
    failures
        How many times positions could not be committed.
    """

    def __init__(
        self,
        config: KafkaConfig,
        group: str,
        at: Callable[[str], None] = lambda _point: None,
    ) -> None:
        self.failures = 0
        self._config = config
        self._group = group
        self._at = at
        self._wanted: dict[Source, int] = {}
        self._client: Any = None
        self._task: asyncio.Task[None] | None = None

    def mark(self, positions: Mapping[Source, int]) -> None:
        """Commit positions soon; a failure is counted, no more."""
        self._wanted |= positions
        if self._wanted and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._commit_all())

    async def close(self) -> None:
        """Let go within a few seconds."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=LAST_MARK_S)
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=LAST_MARK_S)
        await self._drop()

    async def _commit_all(self) -> None:
        while self._wanted:
            positions, self._wanted = self._wanted, {}
            try:
                async with within(MARK_S, self._config, "committing positions"):
                    await self._commit(positions)
            except (TransportError, AssertionError):  # the library asserts that it knows a broker
                self.failures += 1
                await self._drop()
            else:
                self._at("positions")

    async def _commit(self, positions: Mapping[Source, int]) -> None:
        while True:
            try:
                return await self._try_commit(positions)
            except KafkaError as error:  # the first group of a cluster waits for its coordinator
                if not error.retriable:
                    raise
            await asyncio.sleep(RETRY_S)

    async def _try_commit(self, positions: Mapping[Source, int]) -> None:
        if self._client is None:
            client = AIOKafkaClient(**await reachable(self._config))
            await client.bootstrap()
            self._client = client
        node = await self._client.coordinator_lookup(CoordinationType.GROUP, self._group)
        topics: dict[str, list[tuple[int, int, str]]] = {}
        for source, position in positions.items():
            topics.setdefault(source.topic, []).append((source.partition, position, ""))
        generation, retention = (
            OffsetCommitRequest.DEFAULT_GENERATION_ID,
            OffsetCommitRequest.DEFAULT_RETENTION_TIME,
        )
        request = OffsetCommitRequest(self._group, generation, "", retention, list(topics.items()))
        answer = await self._client.send(node, request, group=ConnectionGroup.COORDINATION)
        for _topic, partitions in answer.topics:
            for _partition, code in partitions:
                if code:
                    raise for_code(code)

    async def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await completes(client.close())
