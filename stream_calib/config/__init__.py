"""The settings tree: what can be set, and where it is read from."""

from stream_calib.config.durations import format_duration, parse_duration
from stream_calib.config.loading import ENV_SECRETS, load_config, parse_config
from stream_calib.config.metrics import pair_text
from stream_calib.config.sections import (
    Config,
    DeliveryConfig,
    HttpConfig,
    KafkaConfig,
    LogConfig,
    UniverseConfig,
    identity_of,
)
from stream_calib.config.snapshots import SnapshotConfig, without_secrets

__all__ = [
    "ENV_SECRETS",
    "Config",
    "DeliveryConfig",
    "HttpConfig",
    "KafkaConfig",
    "LogConfig",
    "SnapshotConfig",
    "UniverseConfig",
    "format_duration",
    "identity_of",
    "load_config",
    "pair_text",
    "parse_config",
    "parse_duration",
    "without_secrets",
]
