"""An in-process log with the behaviour of Kafka's: for the demo, for tests, for notebooks."""

from stream_calib.adapters.embedded.commits import EmbeddedCommitLog
from stream_calib.adapters.embedded.log import EmbeddedLog, EmbeddedRecord
from stream_calib.adapters.embedded.sink import EmbeddedSink
from stream_calib.adapters.embedded.source import EmbeddedSource

__all__ = [
    "EmbeddedCommitLog",
    "EmbeddedLog",
    "EmbeddedRecord",
    "EmbeddedSink",
    "EmbeddedSource",
]
