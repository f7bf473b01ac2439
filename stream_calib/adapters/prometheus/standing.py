"""Where each universe stands, read when somebody asks."""

import math
from collections.abc import Callable, Iterator

from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from stream_calib.adapters.prometheus.metrics import LABEL_VALUES_MAX, METRICS, OTHER, PREFIX
from stream_calib.values import NO_TIME, SECOND_NS, Progress

AGE_MAX_S = 86_400.0  # a replay of recordings is decades behind the clock on the wall


class Standing(Collector):
    """The last progress of each universe.

    It becomes series only when someone asks: it is told far more often than it is read, and a
    partition that is not read any more leaves no series behind.

    Parameters
    ----------
    clock
        Wall time in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.progress: dict[str, Progress] = {}
        self._clock = clock

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the families of ``METRICS`` that are standing."""
        families = {
            row.name: GaugeMetricFamily(PREFIX + row.name, row.help, labels=row.labels)
            for row in METRICS
            if row.kind == "standing"
        }
        now_s = self._clock()
        for universe, progress in sorted(self.progress.items()):
            for name, labels, value in _values(progress, now_s):
                families[name].add_metric((universe, *labels), value)
        yield from families.values()


def _values(progress: Progress, now_s: float) -> Iterator[tuple[str, tuple[str, ...], float]]:
    for labels, position, end in _positions(progress):
        yield "consumer_position", labels, position
        if end is not None:
            yield "consumer_end", labels, end
            yield "consumer_lag_records", labels, max(0, end - position)
    sources, withheld = sorted(progress.positions), progress.withheld
    for source in sources[:LABEL_VALUES_MAX]:
        labels = (source.topic, str(source.partition))
        yield "consumer_withheld_records", labels, withheld.get(source, 0)
    if surplus := sources[LABEL_VALUES_MAX:]:
        n = sum(withheld.get(source, 0) for source in surplus)
        yield "consumer_withheld_records", (OTHER, OTHER), n
    watermark_ns, newest_ns = progress.watermark_ns, progress.newest_ns
    fitted_ns = progress.fitted_ns
    if watermark_ns != NO_TIME:
        yield "watermark_timestamp_seconds", (), watermark_ns / SECOND_NS
        age_s = now_s - watermark_ns / SECOND_NS
        yield "watermark_age_seconds", (), min(max(age_s, 0.0), AGE_MAX_S)
    if newest_ns != NO_TIME:
        yield "newest_event_timestamp_seconds", (), newest_ns / SECOND_NS
    if NO_TIME not in (watermark_ns, newest_ns):
        yield "watermark_lag_seconds", (), max(0, newest_ns - watermark_ns) / SECOND_NS
    if NO_TIME not in (fitted_ns, newest_ns):
        yield "model_age_seconds", (), max(0, newest_ns - fitted_ns) / SECOND_NS
    yield "model_version", (), progress.model_version
    if not math.isnan(progress.replay_s):
        yield "snapshot_distance_seconds", (), progress.replay_s
    yield "universe_symbols", ("ready",), progress.symbols_ready
    yield "universe_symbols", ("pending",), progress.symbols_pending


def _positions(
    progress: Progress,
) -> Iterator[tuple[tuple[str, str], int, int | None]]:
    positions, ends = dict(progress.positions), dict(progress.ends)
    sources = sorted(positions)
    for source in sources[:LABEL_VALUES_MAX]:
        yield (source.topic, str(source.partition)), positions[source], ends.get(source)
    surplus = [source for source in sources[LABEL_VALUES_MAX:] if source in ends]
    if surplus:  # summed, because lag must not hide
        position = sum(positions[source] for source in surplus)
        yield (OTHER, OTHER), position, sum(ends[source] for source in surplus)
