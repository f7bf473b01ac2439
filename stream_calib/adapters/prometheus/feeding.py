"""Metrics of ``stream-calib feed`` from live exchanges, read from its counts at each scrape."""

import math
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from stream_calib.adapters.prometheus.metrics import FEED_METRICS, FEED_OUTCOMES, PREFIX
from stream_calib.adapters.prometheus.observer import rendered
from stream_calib.values import FeedCounts


class FeedMetrics:
    """Shows counts, in a registry of their own.

    Parameters
    ----------
    counts
        By exchange.
    waiting
        Says how many ticks wait to be written.
    """

    def __init__(self, counts: Mapping[str, FeedCounts], waiting: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Counts(counts, waiting))

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return all metrics and their content type.

        Parameters
        ----------
        accept
            The Accept header of the request: OpenMetrics where it asks for it, else plain text.
        """
        return rendered(self.registry, accept)


class _Counts(Collector):
    def __init__(self, counts: Mapping[str, FeedCounts], waiting: Callable[[], int]) -> None:
        self._counts = counts
        self._waiting = waiting

    def collect(self) -> Iterator[Metric]:
        kinds = {"counter": CounterMetricFamily, "standing": GaugeMetricFamily}
        families = {
            row.name.removeprefix("feed_"): kinds[row.kind](
                PREFIX + row.name, row.help, labels=row.labels
            )
            for row in FEED_METRICS
        }
        for exchange, counts in self._counts.items():
            for what in ("messages", "garbled", "late", "gaps", "missed"):
                families[f"{what}_total"].add_metric((exchange,), getattr(counts, what))
            for outcome in FEED_OUTCOMES:
                families["ticks_total"].add_metric((exchange, outcome), getattr(counts, outcome))
            for reason, n in list(counts.reconnects.items()):
                families["reconnects_total"].add_metric((exchange, reason), n)
            if not math.isnan(counts.lag_s):
                families["lag_seconds"].add_metric((exchange,), counts.lag_s)
        families["waiting_ticks"].add_metric((), self._waiting())
        yield from families.values()
