"""Metrics of ``stream-calib feed`` from live exchanges, read from its counts at each scrape."""

import math
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from stream_calib.adapters.prometheus.metrics import PREFIX
from stream_calib.adapters.prometheus.observer import rendered
from stream_calib.values import FeedCounts

OUTCOMES = ("written", "repeated", "unpriced", "overrun", "unwritten")


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
        self._registry = CollectorRegistry()
        self._registry.register(_Counts(counts, waiting))

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return all metrics and their content type.

        Parameters
        ----------
        accept
            The Accept header of the request: OpenMetrics where it asks for it, else plain text.
        """
        return rendered(self._registry, accept)


class _Counts(Collector):
    def __init__(self, counts: Mapping[str, FeedCounts], waiting: Callable[[], int]) -> None:
        self._counts = counts
        self._waiting = waiting

    def collect(self) -> Iterator[Metric]:
        plain = {
            "feed_messages_total": ("messages", "Messages of the websocket."),
            "feed_garbled_total": ("garbled", "Messages that could not be read."),
            "feed_late_total": ("late", "Trades after one with a higher id, written too."),
            "feed_gaps_total": ("gaps", "Jumps in trade ids that count up by one."),
            "feed_missed_total": ("missed", "Trade ids that such jumps left out."),
        }
        for name, (field, words) in plain.items():
            family = CounterMetricFamily(PREFIX + name, words, labels=["exchange"])
            for exchange, counts in self._counts.items():
                family.add_metric([exchange], getattr(counts, field))
            yield family
        ticks = CounterMetricFamily(
            PREFIX + "feed_ticks_total",
            "Ticks, by what became of them.",
            labels=["exchange", "outcome"],
        )
        reconnects = CounterMetricFamily(
            PREFIX + "feed_reconnects_total",
            "Connections that ended, by reason.",
            labels=["exchange", "reason"],
        )
        lag = GaugeMetricFamily(
            PREFIX + "feed_lag_seconds",
            "Age of the last tick when it came.",
            labels=["exchange"],
        )
        for exchange, counts in self._counts.items():
            for outcome in OUTCOMES:
                ticks.add_metric([exchange, outcome], getattr(counts, outcome))
            for reason, n in list(counts.reconnects.items()):
                reconnects.add_metric([exchange, reason], n)
            if not math.isnan(counts.lag_s):
                lag.add_metric([exchange], counts.lag_s)
        yield from (ticks, reconnects, lag)
        yield GaugeMetricFamily(
            PREFIX + "feed_waiting_ticks", "Ticks that wait to be written.", self._waiting()
        )
