"""Commit logs on topics of their own, and what a stranger reads of them."""

import uuid
from collections.abc import Callable, Mapping, Sequence

from stream_calib.adapters.kafka import (
    CommitSettings,
    KafkaCommitLog,
    KafkaWriteAheadLog,
    TopicSpec,
    ensure_topics,
)
from stream_calib.adapters.kafka.reading import read_kept
from stream_calib.config import KafkaConfig
from stream_calib.values import Output, Source

ROLES = ("correlations", "events", "rejects", "journal", "fits")
KEPT = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}


class Universe:
    """Topics of one universe, with records that can be told apart."""

    def __init__(self, config: KafkaConfig, topics: Mapping[str, str]) -> None:
        self.config = config
        self.topics = topics
        self.name = uuid.uuid4().hex[:8]

    @classmethod
    async def create(
        cls, config: KafkaConfig, settings: Mapping[str, Mapping[str, str]] | None = None
    ) -> "Universe":
        """Make the topics, with these settings by role on top of the ones needed."""
        prefix = f"calib-{uuid.uuid4().hex[:8]}"
        topics = {role: f"{prefix}.{role}" for role in ROLES}
        wanted = {role: dict(KEPT) if role in ("journal", "fits") else {} for role in ROLES}
        for role, more in (settings or {}).items():
            wanted[role] |= more
        await ensure_topics(config, [TopicSpec(topics[r], 1, 1, wanted[r]) for r in ROLES])
        return cls(config, topics)

    def settings(self, **more: float) -> CommitSettings:
        return CommitSettings(f"app.{self.name}", f"app.{self.name}", self.topics, 0, **more)

    def log(self, at: Callable[[str], None] = lambda _: None, **more: float) -> KafkaCommitLog:
        return KafkaCommitLog(self.config, self.settings(**more), at)

    def write_ahead_log(
        self, at: Callable[[str], None] = lambda _: None, **more: float
    ) -> KafkaWriteAheadLog:
        return KafkaWriteAheadLog(self.config, self.settings(**more), at)

    def outputs(self, number: int) -> list[Output]:
        """Two matrices and an event that belong to one commit."""
        roles = ("correlations", "correlations", "events")
        return [
            Output(self.topics[role], 0, b"key", b"%d.%d" % (number, i), ())
            for i, role in enumerate(roles)
        ]

    def entry(self, number: int) -> Output:
        return Output(self.topics["journal"], 0, b"key", b"%d" % number, ())

    async def read(self, role: str) -> list[bytes]:
        """What a reader of committed records sees."""
        kept = await read_kept(self.config, Source(self.topics[role], 0))
        return [record.value for record in kept.records]

    async def assert_whole(self, numbers: Sequence[int]) -> None:
        """Exactly these commits are there, once, in order, and with all that is theirs."""
        assert await self.read("journal") == [b"%d" % n for n in numbers]
        matrices = [b"%d.%d" % (n, i) for n in numbers for i in (0, 1)]
        assert await self.read("correlations") == matrices
        assert await self.read("events") == [b"%d.2" % n for n in numbers]
