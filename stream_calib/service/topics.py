"""Which topics a service reads and writes, and whether they are fit for it."""

from stream_calib.adapters.kafka import (
    TopicSpec,
    check_input_topics,
    check_output_topics,
    list_partitions,
    select_input_topics,
)
from stream_calib.config import Config

MATRIX_BYTES_MAX = 1_000_000  # a chunk of 900 kB with its key and headers
JOURNAL_BYTES_MAX = 4 * 2**20
HISTORY_MS = 24 * 3_600_000  # the promised history of matrices
ROLES = ("correlations", "events", "rejects", "calibrations", "universes", "journal", "fits")


def partition_of(config: Config, universe: str) -> int:
    """Return the partition that a universe has of every topic that the service writes."""
    return [u.name for u in config.universe].index(universe)


def topics_by_role(config: Config) -> dict[str, str]:
    """Return the name of every topic that the service writes."""
    return {role: f"{config.output.prefix}.{role}" for role in ROLES}


def output_topics(config: Config, replication: int = 1) -> list[TopicSpec]:
    """Return the topics that the service writes, with the settings that it relies on."""
    partitions = len(config.universe)
    for_ever = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
    settings: dict[str, dict[str, str]] = {
        "correlations": {
            "cleanup.policy": "compact,delete",
            "min.compaction.lag.ms": str(HISTORY_MS),
            "max.message.bytes": str(MATRIX_BYTES_MAX),
        },
        "events": {"cleanup.policy": "delete"},
        "rejects": {"cleanup.policy": "delete"},
        "calibrations": {"cleanup.policy": "compact"},
        "universes": {"cleanup.policy": "compact"},
        "journal": for_ever | {"max.message.bytes": str(JOURNAL_BYTES_MAX)},
        "fits": for_ever | {"max.message.bytes": str(MATRIX_BYTES_MAX)},
    }
    names = topics_by_role(config)
    return [TopicSpec(names[role], partitions, replication, settings[role]) for role in ROLES]


def input_topics(config: Config, partitions: int, replication: int = 1) -> list[TopicSpec]:
    """Return the input topics of all universes that are named."""
    names = sorted(named_topics(config))
    return [TopicSpec(name, partitions, replication, {}) for name in names]


async def check_topics(config: Config) -> list[str]:
    """Refuse topics that are missing or would lose records; return what should be warned of."""
    last = len(config.universe) - 1
    checked = await check_output_topics(config.kafka, topics_by_role(config), last)
    named = named_topics(config)
    warnings = [*checked.warnings, *await check_input_topics(config.kafka, named)]
    if config.input.topics_pattern is None:
        return warnings
    matched = await matched_topics(config)
    if not named and not matched:
        return [*warnings, f"No topic matches {config.input.topics_pattern!r} yet"]
    selected = await select_input_topics(config.kafka, matched)
    return [*warnings, *selected.unread, *selected.warnings]


def named_topics(config: Config) -> set[str]:
    """Return the input topics of all universes that are named."""
    return {topic for u in config.universe for topic in config.topics_of(u)}


async def matched_topics(config: Config) -> set[str]:
    """Return the input topics that are there and match, and are not named."""
    there = await list_partitions(config.kafka)
    matched = {t for t in there if any(config.reads(u, t) for u in config.universe)}
    return matched - named_topics(config)
