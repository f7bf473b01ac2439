"""What the observer is told, counted and shown to a scraper."""

import importlib.metadata
import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence

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

from stream_calib.adapters.prometheus.family import Family
from stream_calib.adapters.prometheus.metrics import (
    ALTERNATIVES,
    COMMITS,
    FITS,
    METRICS,
    OUTCOMES,
    OWNERSHIP,
    PREFIX,
    REFUSALS,
    ROLES,
    SNAPSHOTS,
    USED,
)
from stream_calib.adapters.prometheus.standing import Standing
from stream_calib.config import pair_text
from stream_calib.values import (
    F64,
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

REFUSED = ("outlier", "spread")  # at the close of their bar, with a place in the rejects topic


def rendered(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """Return all metrics of a registry in the format that is asked for, and its content type."""
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # it compares versions that are none
        encode, content_type = choose_encoder("")
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
    pairs
        Pairs of symbols that are shown on their own, by universe: all of them are named.
    periods_s
        Publishing periods by universe and estimator; default is the bar of each matrix.
    """

    def __init__(
        self,
        version: str,
        registry: CollectorRegistry | None = None,
        clock: Callable[[], float] = time.time,
        pairs: Mapping[str, Sequence[tuple[str, str]]] | None = None,
        periods_s: Mapping[tuple[str, str], float] | None = None,
    ) -> None:
        # they double the series, and the library can only leave them out for the whole process
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry() if registry is None else registry
        self._clock = clock
        self._unpublished: dict[str, set[str]] = {}
        self._owns: dict[str, bool] = {}
        self._counter: dict[str, Family[Counter]] = {}
        self._gauge: dict[str, Family[Gauge]] = {}
        self._histogram: dict[str, Family[Histogram]] = {}
        self._standing = Standing(clock)
        self._pairs = {} if pairs is None else pairs
        self._periods_s = {} if periods_s is None else periods_s
        for row in METRICS:
            name = PREFIX + row.name
            if row.kind == "counter":
                counter = Counter(name, row.help, row.labels, registry=self.registry)
                self._counter[row.name] = Family(counter)
            elif row.kind == "gauge":
                gauge = Gauge(name, row.help, row.labels, registry=self.registry)
                self._gauge[row.name] = Family(gauge)
            elif row.kind == "histogram":
                histogram = Histogram(
                    name, row.help, row.labels, registry=self.registry, buckets=row.buckets
                )
                self._histogram[row.name] = Family(histogram)
        self.registry.register(self._standing)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        numba = importlib.metadata.version("numba")  # numba itself takes a second to import
        for universe in self._pairs:
            self._begin_ownership(universe)
            self._show_role(universe, "none")
        self._begin_viewers()
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
        if effects.bars_closed:
            self._histogram["bar_seconds"](universe).observe(seconds / effects.bars_closed)
        self._histogram["step_seconds"](universe, "advance").observe(seconds)
        self._count_outcomes(universe, effects.counts)
        for event in effects.events:
            self._count_event(universe, event)
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
        self._begin(universe)
        self._counter["recoveries_total"](universe).inc()
        self._histogram["recovery_seconds"](universe).observe(seconds)
        self._gauge["recovery_entries"](universe).set(entries)

    def committed(self, universe: str, seconds: float, outcome: str) -> None:
        """Count a commit."""
        self._counter["commits_total"](universe, outcome).inc()
        if outcome == "committed":
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
        if outcome == "fitted":
            self._gauge["refits_failing"](universe).set(0)
        elif outcome != "cancelled":  # which says nothing of the next one
            self._gauge["refits_failing"](universe).inc()

    def stalled(self, seconds: float) -> None:
        """Count how late the event loop woke up."""
        self._histogram["event_loop_lag_seconds"]().observe(seconds)

    def unlogged(self, lines: int) -> None:
        """Count lines of the log that were lost; called from any thread."""
        self._counter["log_lines_dropped_total"]().inc(lines)

    def owned(self, universe: str, role: str) -> None:
        """Show whether this process is the owner of the universe, and count when that changes."""
        owns = role == "owner"
        self._begin_ownership(universe)
        if owns != self._owns.get(universe, False):
            outcome = "gained" if owns else "lost"
            self._counter["ownership_changes_total"](universe, outcome).inc()
        self._owns[universe] = owns
        if not owns:
            self._forget(universe)
        self._show_role(universe, role)

    def fenced(self, universe: str) -> None:
        """Count that another process took the universe over."""
        self._counter["ownership_changes_total"](universe, "fenced").inc()

    def viewers(self, count: int) -> None:
        """Show how many look."""
        self._gauge["view_clients"]().set(count)

    def viewed(self, n_bytes: int, passed_over: int) -> None:
        """Count frames that were sent, and those passed over."""
        self._counter["view_frames_total"]("sent").inc()
        self._counter["view_frames_total"]("passed_over").inc(passed_over)
        self._counter["view_bytes_total"]().inc(n_bytes)

    def refused(self, reason: str) -> None:
        """Count who was turned away."""
        self._counter["http_refused_total"](reason).inc()

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return all metrics and their content type.

        Parameters
        ----------
        accept
            The Accept header of the request: OpenMetrics where it asks for it, else plain text.
        """
        return rendered(self.registry, accept)

    def _begin_ownership(self, universe: str) -> None:
        for outcome in OWNERSHIP:
            self._counter["ownership_changes_total"](universe, outcome)

    def _show_role(self, universe: str, role: str) -> None:
        for name in ROLES:
            self._gauge["role"](universe, name).set(name == role)

    def _forget(self, universe: str) -> None:
        # what was last known here is not so any more: another process goes on
        self._standing.progress.pop(universe, None)
        self._unpublished.pop(universe, None)
        for name, gauge in self._gauge.items():
            if name != "role":
                gauge.forget(universe)

    def _begin_viewers(self) -> None:
        for outcome in ("sent", "passed_over"):  # from 0 on, or a rate would miss the first
            self._counter["view_frames_total"](outcome)
        for reason in REFUSALS:
            self._counter["http_refused_total"](reason)

    def _begin(self, universe: str) -> None:
        # what is at 0 before it happens has its first increase seen
        closed = {
            "commits_total": COMMITS,
            "snapshots_total": SNAPSHOTS,
            "refits_total": FITS,
            "drift_alarms_total": ALTERNATIVES,
            "rejects_total": REFUSED,
        }
        for name, values in closed.items():
            for value in values:
                self._counter[name](universe, value)
        self._begin_ownership(universe)
        self._gauge["refits_failing"](universe).set(0)
        self._counter["restarts_total"](universe, "TransportError")
        for name in ("drift_refuted_total", "rejects_suppressed_total"):
            self._counter[name](universe)

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
            "drift_power_bars": math.inf if drift.power_bars is None else drift.power_bars,
        }
        for name, value in values.items():
            self._gauge[name](universe).set(math.nan if value is None else value)

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
            "publishing_period_seconds": self._periods_s.get(
                (matrix.universe, matrix.estimator), matrix.bar_ns / SECOND_NS
            ),
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
        places = {symbol: i for i, symbol in enumerate(matrix.symbols)}
        for first, second in self._pairs.get(matrix.universe, ()):
            corr = band = math.nan  # where one of them is not ready now
            if first in places and second in places:
                i, j = places[first], places[second]
                corr, band = float(matrix.corr[i, j]), float(matrix.band[i, j])
            labels = (matrix.universe, matrix.estimator, pair_text(first, second))
            self._gauge["pair_correlation"](*labels).set(corr)
            self._gauge["pair_standard_error"](*labels).set(band)


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
