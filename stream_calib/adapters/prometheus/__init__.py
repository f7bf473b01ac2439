"""Metrics for Prometheus."""

from stream_calib.adapters.prometheus.feeding import FeedMetrics
from stream_calib.adapters.prometheus.metrics import (
    FEED_METRICS,
    LABEL_VALUES,
    LABEL_VALUES_MAX,
    METRICS,
    OTHER,
    OUTCOMES,
    PREFIX,
    Metric,
)
from stream_calib.adapters.prometheus.observer import (
    PrometheusObserver,
    median_off_diagonal,
)

__all__ = [
    "FEED_METRICS",
    "LABEL_VALUES",
    "LABEL_VALUES_MAX",
    "METRICS",
    "OTHER",
    "OUTCOMES",
    "PREFIX",
    "FeedMetrics",
    "Metric",
    "PrometheusObserver",
    "median_off_diagonal",
]
