"""Kafka as input and output log, and what an operator does to topics.

The client library hides most failures in its own log and retries for ever. Here every await has
a deadline, every failure is one TransportError sentence, and a client in doubt is thrown away.
"""

from stream_calib.adapters.kafka.ahead import KafkaWriteAheadLog
from stream_calib.adapters.kafka.commits import CommitSettings, KafkaCommitLog
from stream_calib.adapters.kafka.connection import client_options
from stream_calib.adapters.kafka.instances import Instance, host_name
from stream_calib.adapters.kafka.owning import GroupOwnership, GroupSettings
from stream_calib.adapters.kafka.reading import read_journal
from stream_calib.adapters.kafka.settings import (
    check_input_topics,
    check_output_topics,
    describe_topics,
    select_input_topics,
)
from stream_calib.adapters.kafka.sink import KafkaSink
from stream_calib.adapters.kafka.source import KafkaSource, is_compiled
from stream_calib.adapters.kafka.tails import (
    Ends,
    find_topics,
    read_ends,
    read_newest,
    read_tails,
)
from stream_calib.adapters.kafka.topics import (
    TopicSpec,
    check_topics,
    ensure_topics,
    list_partitions,
)
from stream_calib.adapters.kafka.walking import Extent, Walk, open_walks

__all__ = [
    "CommitSettings",
    "Ends",
    "Extent",
    "GroupOwnership",
    "GroupSettings",
    "Instance",
    "KafkaCommitLog",
    "KafkaSink",
    "KafkaSource",
    "KafkaWriteAheadLog",
    "TopicSpec",
    "Walk",
    "check_input_topics",
    "check_output_topics",
    "check_topics",
    "client_options",
    "describe_topics",
    "ensure_topics",
    "find_topics",
    "host_name",
    "is_compiled",
    "list_partitions",
    "open_walks",
    "read_ends",
    "read_journal",
    "read_newest",
    "read_tails",
    "select_input_topics",
]
