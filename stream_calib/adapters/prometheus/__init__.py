"""Metrics for Prometheus."""

from stream_calib.adapters.prometheus.feeding import FeedMetrics
from stream_calib.adapters.prometheus.metrics import METRICS, PREFIX, Metric
from stream_calib.adapters.prometheus.observer import (
    LABEL_VALUES_MAX,
    OTHER,
    OUTCOMES,
    PrometheusObserver,
    median_off_diagonal,
)

__all__ = [
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
