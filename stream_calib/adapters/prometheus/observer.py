"""What the observer is told, counted and shown to a scraper."""

import importlib.metadata
import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from stream_calib.adapters.prometheus.metrics import METRICS, PREFIX
from stream_calib.values import (
    F64,
    NO_TIME,
    SECOND_NS,
    DriftStatus,
    Effects,
    Event,
    Matrix,
    Output,
    Progress,
    Score,
    TickBatch,
)

OTHER = "other"
ALTERNATIVES = ("fusing", "loosening", "rotation", "miscalibrated")
LABEL_VALUES_MAX = 1000  # per label of a metric; what comes after is counted as OTHER
USED = ("applied", "late", "unknown_symbol", "unused")
OUTCOMES = (*USED, "rejected")
REFUSED = ("outlier", "spread")  # at the close of their bar, with a place in the rejects topic

M = TypeVar("M", Counter, Gauge, Histogram)


def rendered(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """Return all metrics of a registry in the format that is asked for, and its content type."""
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class PrometheusObserver:
    """Counts what it is told, in a registry of its own.

    Parameters
    ----------
    version
        Version of the software, shown by ``build_info``.
    registry
        Where to register; default is a new registry, never the one of the whole process.
    clock
        Wall time in seconds, for the time of the last publication.
    """

    def __init__(
        self,
        version: str,
        registry: CollectorRegistry | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        # they double the series, and the library can only leave them out for the whole process
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry() if registry is None else registry
        self._clock = clock
        self._unpublished: dict[str, set[str]] = {}
        self._counter: dict[str, _Family[Counter]] = {}
        self._gauge: dict[str, _Family[Gauge]] = {}
        self._histogram: dict[str, _Family[Histogram]] = {}
        self._standing = _Standing()
        for row in METRICS:
            name = PREFIX + row.name
            if row.kind == "counter":
                counter = Counter(name, row.help, row.labels, registry=self.registry)
                self._counter[row.name] = _Family(counter)
            elif row.kind == "gauge":
                gauge = Gauge(name, row.help, row.labels, registry=self.registry)
                self._gauge[row.name] = _Family(gauge)
            elif row.kind == "histogram":
                histogram = Histogram(
                    name, row.help, row.labels, registry=self.registry, buckets=row.buckets
                )
                self._histogram[row.name] = _Family(histogram)
        self.registry.register(self._standing)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        numba = importlib.metadata.version("numba")  # numba itself takes a second to import
        self._gauge["build_info"](version, platform.python_version(), numba).set(1)

    def compiled(self, seconds: float) -> None:
        """Kernels were compiled or loaded from the cache."""
        self._gauge["compile_seconds"]().set(seconds)

    def decoded(self, universe: str, ticks: TickBatch, seconds: float) -> None:
        """Count a batch that was read and decoded."""
        topic, values = ticks.records.source.topic, ticks.records.values
        self._counter["records_total"](universe, topic).inc(len(values))
        size = sum(map(len, filter(None, values)))
        self._counter["record_bytes_total"](universe, topic).inc(size)
        for name, count in ticks.formats.items():
            self._counter["decoded_total"](universe, name).inc(count)
        silent = sum(ticks.silent.values())
        if silent:
            self._counter["decoded_total"](universe, "silent").inc(silent)
        for outcome in OUTCOMES:  # each begins at 0, or a rate would miss its first increase
            self._counter["ticks_total"](universe, topic, outcome)
        self._histogram["step_seconds"](universe, "decode").observe(seconds)

    def advanced(self, universe: str, effects: Effects, seconds: float) -> None:
        """Count what a step of the engine brought about."""
        self._counter["bars_total"](universe).inc(effects.bars_closed)
        self._histogram["step_seconds"](universe, "advance").observe(seconds)
        self._count_outcomes(universe, effects.counts)
        for event in effects.events:
            self._count_event(universe, event)
        for calibration in effects.calibrations:
            self._gauge["model_version"](universe).set(calibration.model_version)
        if effects.drift is not None:
            self._watch(universe, effects.drift)
        for score in effects.scores:
            self._score(universe, score)
        for matrix in effects.matrices:
            self._counter["matrices_total"](universe, matrix.estimator).inc()
        for matrix in {matrix.estimator: matrix for matrix in effects.matrices}.values():
            self._describe(matrix)
            self._unpublished.setdefault(universe, set()).add(matrix.estimator)

    def published(
        self, universe: str, outputs: Sequence[Output], seconds: float, close_to_publish_s: float
    ) -> None:
        """Count outputs that became durable; a ``close_to_publish_s`` that is NaN closed no bar."""
        for output in outputs:
            self._counter["published_records_total"](output.topic).inc()
            size = len(output.key) + len(output.value)
            self._counter["published_bytes_total"](output.topic).inc(size)
        self._histogram["step_seconds"](universe, "publish").observe(seconds)
        if not math.isnan(close_to_publish_s):
            self._histogram["bar_close_to_publish_seconds"](universe).observe(close_to_publish_s)
        now = self._clock()
        for estimator in self._unpublished.pop(universe, ()):
            self._gauge["last_matrix_timestamp_seconds"](universe, estimator).set(now)

    def progressed(self, universe: str, progress: Progress) -> None:
        """Keep where the universe stands, to be shown when asked."""
        self._standing.progress[universe] = progress

    def recovered(self, universe: str, entries: int, seconds: float) -> None:
        """Count a state that was built again."""
        self._counter["recoveries_total"](universe).inc()
        self._histogram["recovery_seconds"](universe).observe(seconds)
        self._gauge["recovery_entries"](universe).set(entries)

    def committed(self, universe: str, seconds: float, outcome: str) -> None:
        """Count a commit."""
        self._counter["commits_total"](universe, outcome).inc()
        self._histogram["commit_seconds"](universe).observe(seconds)

    def snapshotted(self, universe: str, n_bytes: int, seconds: float, outcome: str) -> None:
        """Count a snapshot."""
        self._counter["snapshots_total"](universe, outcome).inc()
        self._histogram["snapshot_seconds"](universe).observe(seconds)
        if outcome == "saved":
            self._gauge["snapshot_bytes"](universe).set(n_bytes)
            self._gauge["last_snapshot_timestamp_seconds"](universe).set(self._clock())

    def restarted(self, universe: str, reason: str) -> None:
        """Count a state that was thrown away."""
        self._counter["restarts_total"](universe, reason).inc()

    def refitted(self, universe: str, seconds: float, outcome: str) -> None:
        """Count a full fit that came back, or failed."""
        self._counter["refits_total"](universe, outcome).inc()
        self._histogram["refit_seconds"](universe).observe(seconds)

    def stalled(self, seconds: float) -> None:
        """Count how late the event loop woke up."""
        self._histogram["event_loop_lag_seconds"]().observe(seconds)

    def viewers(self, count: int) -> None:
        """Show how many look."""
        self._gauge["view_clients"]().set(count)
        for outcome in ("sent", "passed_over"):  # from 0 on, or a rate would miss the first
            self._counter["view_frames_total"](outcome)

    def viewed(self, n_bytes: int, passed_over: int) -> None:
        """Count frames that were sent, and those passed over."""
        self._counter["view_frames_total"]("sent").inc()
        self._counter["view_frames_total"]("passed_over").inc(passed_over)
        self._counter["view_bytes_total"]().inc(n_bytes)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return all metrics and their content type.

        Parameters
        ----------
        accept
            The Accept header of the request: OpenMetrics where it asks for it, else plain text.
        """
        return rendered(self.registry, accept)

    def _count_outcomes(self, universe: str, counts: Mapping[tuple[str, str], int]) -> None:
        duplicates = self._counter["duplicates_total"](universe)
        for (topic, outcome), count in counts.items():
            if outcome == "duplicate":
                duplicates.inc(count)
            elif outcome == "rejects_suppressed":
                self._counter["rejects_suppressed_total"](universe).inc(count)
            elif not topic:  # applied before, and not used at the close of their bar
                self._counter["set_aside_total"](universe, outcome).inc(count)
                if outcome in REFUSED:
                    self._counter["rejects_total"](universe, outcome).inc(count)
            elif outcome in USED:
                self._counter["ticks_total"](universe, topic, outcome).inc(count)
            else:
                self._counter["ticks_total"](universe, topic, "rejected").inc(count)
                self._counter["rejects_total"](universe, outcome).inc(count)

    def _count_event(self, universe: str, event: Event) -> None:
        self._counter["events_total"](universe, event.type).inc()
        if event.type == "drift_alarm":
            name = str(event.details["alternative"])
            self._counter["drift_alarms_total"](universe, name).inc()
        elif event.type == "drift_refuted":
            self._counter["drift_refuted_total"](universe).inc()

    def _watch(self, universe: str, drift: DriftStatus) -> None:
        values = {
            "drift_level_ratio": drift.level,
            "drift_watched_bars": drift.watched_bars,
            "drift_reference_bars": drift.reference_bars,
            "drift_arl0_target_bars": drift.arl0_bars,
            "drift_bars_per_alarm": drift.bars_per_alarm,
            "drift_false_alarms_per_day": drift.false_alarms_per_day,
            "drift_power_bars": drift.power_bars,
        }
        for name, value in values.items():
            self._gauge[name](universe).set(math.nan if value is None else value)
        self._counter["drift_refuted_total"](universe)
        for alternative in ALTERNATIVES:  # from 0 on, or a rate would miss the first
            self._counter["drift_alarms_total"](universe, alternative)

    def _score(self, universe: str, score: Score) -> None:
        name = score.estimator
        self._gauge["log_score_gain_nats"](universe, name).set(score.gain)
        self._gauge["qlike"](universe, name).set(score.qlike)
        self._gauge["surprise_ratio"](universe, name).set(score.surprise)
        pairs = self._counter["band_pairs_total"]
        pairs(universe, name, "covered").inc(score.covered)
        pairs(universe, name, "missed").inc(score.pairs - score.covered)

    def _describe(self, matrix: Matrix) -> None:
        values = {
            "last_matrix_event_timestamp_seconds": matrix.as_of_ns / SECOND_NS,
            "sequence": matrix.sequence,
            "average_correlation": matrix.regime.average_correlation,
            "top_eigenvalue_share": matrix.regime.top_eigenvalue_share,
            "min_eigenvalue": matrix.quality.min_eigenvalue,
            "repair_ratio": matrix.quality.repair,
            "effective_observations": median_off_diagonal(matrix.n_eff),
            "capped_pairs": matrix.quality.capped_pairs,
            "doubtful_variances": (matrix.quality.raw_variances or 0)
            + (matrix.quality.floored_variances or 0),
        }
        for name in ("effective_bets", "crisis_distance"):
            if (summary := getattr(matrix.regime, name)) is not None:
                values[name] = summary
        if matrix.audit is not None:
            values["audit_difference"] = float(str(matrix.audit["rms_difference"]))
        for name, value in values.items():
            self._gauge[name](matrix.universe, matrix.estimator).set(value)


def median_off_diagonal(square: F64) -> float:
    """Return the median of the pairs of a symmetric (n, n), NaN for n < 2.

    Exact below n = 128; from there on over 64 to 127 evenly spaced rows, so that a thousand symbols
    cost less than a millisecond on the way to the next bar.
    """
    n = len(square)
    if n < 2:
        return math.nan
    rows = np.arange(0, n, max(1, n // 64))
    return float(np.median(square[rows][rows[:, None] != np.arange(n)]))


class _Family(Generic[M]):
    # A metric and its children: looking one up here costs a fifth of the library's labels().

    def __init__(self, metric: M) -> None:
        self._metric: M = metric
        self._children: dict[tuple[str, ...], M] = {}
        self._seen: list[set[str]] = []

    def __call__(self, *values: str) -> M:
        child = self._children.get(values)
        if child is not None:
            return child
        if not values:
            child = self._metric
        else:
            bounded = tuple(self._bound(place, value) for place, value in enumerate(values))
            child = self._metric.labels(*bounded)
            if bounded != values:
                return child  # not kept: there is no end to what would be
        self._children[values] = child
        return child

    def _bound(self, place: int, value: str) -> str:
        while len(self._seen) <= place:
            self._seen.append(set())
        seen = self._seen[place]
        if len(seen) < LABEL_VALUES_MAX:
            seen.add(value)
        return value if value in seen else OTHER


class _Standing(Collector):
    # The last progress of each universe becomes series only when someone asks: it is told far more
    # often than it is read, and a partition that is not read any more leaves no series behind.

    def __init__(self) -> None:
        self.progress: dict[str, Progress] = {}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        families = {
            row.name: GaugeMetricFamily(PREFIX + row.name, row.help, labels=row.labels)
            for row in METRICS
            if row.kind == "standing"
        }
        for universe, progress in sorted(self.progress.items()):
            for name, labels, value in _standing_values(progress):
                families[name].add_metric((universe, *labels), value)
        yield from families.values()


def _standing_values(progress: Progress) -> Iterator[tuple[str, tuple[str, ...], float]]:
    for labels, position, end in _standing_positions(progress):
        yield "consumer_position", labels, position
        if end is not None:
            yield "consumer_end", labels, end
            yield "consumer_lag_records", labels, max(0, end - position)
    watermark_ns, newest_ns = progress.watermark_ns, progress.newest_ns
    if watermark_ns != NO_TIME:
        yield "watermark_timestamp_seconds", (), watermark_ns / SECOND_NS
    if newest_ns != NO_TIME:
        yield "newest_event_timestamp_seconds", (), newest_ns / SECOND_NS
    if NO_TIME not in (watermark_ns, newest_ns):
        yield "watermark_lag_seconds", (), max(0, newest_ns - watermark_ns) / SECOND_NS
    yield "universe_symbols", ("ready",), progress.symbols_ready
    yield "universe_symbols", ("pending",), progress.symbols_pending


def _standing_positions(
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
