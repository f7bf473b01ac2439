"""Settings of topics that would endanger what is written there, or what is read again."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code

from stream_calib.adapters.kafka.connection import FORBIDDEN
from stream_calib.adapters.kafka.topics import admin_client, check_topics
from stream_calib.config import KafkaConfig
from stream_calib.errors import ConfigError, ForbiddenError, MissingTopicError, TransportError

JOURNAL_BYTES = 1_000_000  # an entry is a kilobyte, one after a long recovery may be far more
COMPACTED = "compaction removes records that have to be read again after a crash"
KEPT_ROLES = ("journal", "fits")  # what recovery reads: only the service itself may delete there
REMEDY = "`kafka-configs --alter` changes it, `stream-calib topics create` makes topics that fit"


class CheckedTopics(NamedTuple):
    """Topics that can be trusted: what is to be said about them, and their limits by name."""

    warnings: tuple[str, ...]
    max_bytes: Mapping[str, int]


class _Topic(NamedTuple):
    settings: Mapping[str, str]
    replicas: int


async def check_output_topics(
    config: KafkaConfig, topics: Mapping[str, str], partition: int
) -> CheckedTopics:
    """Judge the topics that a universe writes to.

    Parameters
    ----------
    config
        How to reach the broker.
    topics
        Names by role; the roles "journal" and "fits" are those that recovery reads.
    partition
        The partition of the universe.

    Raises
    ------
    MissingTopicError
        One does not exist, or has too few partitions.
    ConfigError
        One has a setting with which records could be lost.
    """
    counts = await check_topics(config, topics.values())
    for name in topics.values():
        if counts[name] <= partition:
            raise MissingTopicError(
                f"Topic {name!r} has {counts[name]} of the {partition + 1} partitions that its "
                "universes need; `stream-calib topics create` adds them"
            )
    found = await _describe(config, set(topics.values()))
    for role, name in topics.items():
        settings = found[name].settings
        _refuse_unclean(name, settings)
        if role in KEPT_ROLES:
            _refuse_deletion(name, settings)
        if role == "journal" and int(settings["max.message.bytes"]) < JOURNAL_BYTES:
            why = f"a journal entry can take up to {JOURNAL_BYTES} bytes"
            raise _refused(name, settings, "max.message.bytes", why)
    return CheckedTopics(
        tuple(_warnings(found)),
        {name: int(topic.settings["max.message.bytes"]) for name, topic in found.items()},
    )


async def check_input_topics(config: KafkaConfig, names: Iterable[str]) -> tuple[str, ...]:
    """Judge the topics that are read again after a crash; return warnings.

    Raises
    ------
    MissingTopicError
        One does not exist.
    ConfigError
        Its records could be gone, one by one, when they are needed again.
    """
    wanted = set(names)
    await check_topics(config, wanted)
    found = await _describe(config, wanted)
    for name, topic in found.items():
        if "compact" in topic.settings["cleanup.policy"]:
            raise _refused(name, topic.settings, "cleanup.policy", COMPACTED)
    return tuple(_warnings(found))


class Selected(NamedTuple):
    """Topics that can be read again after a crash, why others cannot, and other warnings."""

    readable: frozenset[str]
    unread: tuple[str, ...]
    warnings: tuple[str, ...]


async def select_input_topics(config: KafkaConfig, names: Iterable[str]) -> Selected:
    """Judge topics that were not named but match.

    Raises
    ------
    TransportError
        The broker cannot be reached.
    """
    found = await _describe(config, set(names))
    lossy = {n for n, topic in found.items() if "compact" in topic.settings["cleanup.policy"]}
    readable = {name: topic for name, topic in found.items() if name not in lossy}
    unread = [f"Topic {name!r} matches and is left unread: {COMPACTED}" for name in sorted(lossy)]
    return Selected(frozenset(readable), tuple(unread), tuple(_warnings(readable)))


async def describe_topics(
    config: KafkaConfig, names: Iterable[str]
) -> dict[str, Mapping[str, str]]:
    """Return the settings of topics that exist, by name.

    Raises
    ------
    TransportError
        The broker cannot be reached, or does not say.
    """
    return {name: topic.settings for name, topic in (await _describe(config, set(names))).items()}


def _refuse_unclean(name: str, settings: Mapping[str, str]) -> None:
    if settings.get("unclean.leader.election.enable") == "true":
        why = "a replica that lags may become leader and records that were committed are lost"
        raise _refused(name, settings, "unclean.leader.election.enable", why)


def _refuse_deletion(name: str, settings: Mapping[str, str]) -> None:
    if settings["cleanup.policy"] != "delete":
        why = "recovery needs every record of it, so that it has to be delete alone"
        raise _refused(name, settings, "cleanup.policy", why)
    for setting in ("retention.ms", "retention.bytes"):
        if settings[setting] != "-1":
            why = "recovery needs what the broker would delete, so that it has to be -1"
            raise _refused(name, settings, setting, why)


def _refused(name: str, settings: Mapping[str, str], setting: str, why: str) -> ConfigError:
    return ConfigError(f"Topic {name!r} has {setting}={settings[setting]}: {why}; {REMEDY}")


def _warnings(topics: Mapping[str, _Topic]) -> Iterable[str]:
    lone = sorted(name for name, topic in topics.items() if topic.replicas == 1)
    if lone:
        names = ", ".join(map(repr, lone))
        yield f"One replica: the loss of one disk is the loss of {names}"


async def _describe(config: KafkaConfig, names: Iterable[str]) -> dict[str, _Topic]:
    wanted = [ConfigResource(ConfigResourceType.TOPIC, name) for name in sorted(names)]
    async with admin_client(config, "reading the settings of topics") as admin:
        replicas = {
            topic["topic"]: min((len(p["replicas"]) for p in topic["partitions"]), default=1)
            for topic in await admin.describe_topics()
        }
        answers = await admin.describe_configs(wanted)
    found = {}
    for resource in (resource for answer in answers for resource in answer.resources):
        code, words, _type, name, entries = resource
        if code:
            forbidden = for_code(code) in FORBIDDEN
            reason = (
                "DescribeConfigs is not allowed" if forbidden else words or for_code(code).__name__
            )
            raise (ForbiddenError if forbidden else TransportError)(
                f"The settings of topic {name!r} cannot be read: {reason}"
            )
        found[name] = _Topic(_values(entries), replicas[name])
    return found


def _values(entries: Iterable[Any]) -> dict[str, str]:
    return {setting: value for setting, value, *_ in entries}
