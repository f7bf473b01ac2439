"""The reference: every exported name, its labels and their values, and its meaning.

Labels hold few values by design: never a symbol, and a pair only where the settings name it.
``deploy/metrics.md`` is written from here.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from stream_calib.values import BREAKS

PREFIX = "stream_calib_"
LABEL_VALUES_MAX = 1000  # per label of a metric; what comes after is counted as OTHER
OTHER = "other"
USED = ("applied", "late", "unknown_symbol", "unused")
OUTCOMES = (*USED, "rejected")
ALTERNATIVES = ("fusing", "loosening", "rotation", "miscalibrated")
COMMITS = ("committed", "failed", "fenced")
SNAPSHOTS = ("saved", "failed")
FITS = ("fitted", "timeout", "memory", "crashed", "invalid", "not_converged", "cancelled")
ROLES = ("owner", "standby", "none")
OWNERSHIP = ("gained", "lost", "fenced")
FEED_OUTCOMES = ("written", "repeated", "unpriced", "overrun", "unwritten")
REFUSALS = (
    *("malformed", "token", "foreign", "method", "too_large", "guessing", "slow", "crowd"),
    *("viewers", "message"),
)

_STALL_S = (1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_STEP_S = (5e-5, 1e-4, 2.5e-4, 5e-4, *_STALL_S)
_PUBLISH_S = (*_STALL_S, 10, 30, 60)
_SLOW_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metric(NamedTuple):
    """A row of the reference; ``standing`` ones are gauges read from the last ``Progress``."""

    name: str
    kind: Literal["counter", "gauge", "histogram", "standing"]
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


_U = ("universe",)
_UT = ("universe", "topic")
_UE = ("universe", "estimator")
_UTP = ("universe", "topic", "partition")
_UEP = ("universe", "estimator", "pair")

METRICS = (
    Metric("build_info", "gauge", ("version", "python", "numba"), "Always 1; versions in labels."),
    Metric("compile_seconds", "gauge", (), "Time to compile the kernels or load them from cache."),
    # what came in
    Metric("records_total", "counter", _UT, "Records read."),
    Metric("record_bytes_total", "counter", _UT, "Bytes of the values of the records read."),
    Metric("decoded_total", "counter", ("universe", "format"), "Records decoded, by format."),
    Metric("ticks_total", "counter", (*_UT, "outcome"), "Ticks, by what became of them."),
    Metric("duplicates_total", "counter", _U, "Applied ticks that repeat the one before."),
    Metric("rejects_total", "counter", ("universe", "reason"), "Ticks and records not usable."),
    Metric(
        "set_aside_total",
        "counter",
        ("universe", "reason"),
        "Applied ticks that no bar used: refuted, out of session, part of a crossed quote.",
    ),
    Metric(
        "rejects_suppressed_total", "counter", _U, "Rejects beyond the cap: counted, not published."
    ),
    # where it stands
    Metric("consumer_position", "standing", _UTP, "Position of the next record to be read."),
    Metric("consumer_end", "standing", _UTP, "Position after the last record of the log."),
    Metric("consumer_lag_records", "standing", _UTP, "Records in the log not read yet."),
    Metric(
        "consumer_withheld_records",
        "standing",
        _UTP,
        "Records that may not be read yet: a transaction before them is open.",
    ),
    Metric("watermark_timestamp_seconds", "standing", _U, "Event time: nothing older is awaited."),
    Metric("newest_event_timestamp_seconds", "standing", _U, "Newest event time seen."),
    Metric(
        "watermark_lag_seconds",
        "standing",
        _U,
        "Lag in event time: newest event time minus the watermark.",
    ),
    Metric(
        "watermark_age_seconds",
        "standing",
        _U,
        "The clock on the wall minus the watermark, from 0 to a day.",
    ),
    Metric("universe_symbols", "standing", ("universe", "state"), "Symbols ready and pending."),
    # how fast
    Metric("bars_total", "counter", _U, "Bars closed."),
    Metric(
        "step_seconds",
        "histogram",
        ("universe", "stage"),
        "Time of one batch in decode, advance, publish.",
        _STEP_S,
    ),
    Metric(
        "bar_seconds",
        "histogram",
        _U,
        "Time in the kernels for one bar: that of a step over the bars that it closed.",
        _STEP_S,
    ),
    Metric(
        "bar_close_to_publish_seconds",
        "histogram",
        _U,
        "From the poll that closed a bar until its matrix was durable.",
        _PUBLISH_S,
    ),
    Metric("event_loop_lag_seconds", "histogram", (), "How late the event loop woke up.", _STALL_S),
    # what went out
    Metric("matrices_total", "counter", _UE, "Matrices made."),
    Metric("published_records_total", "counter", ("topic",), "Records written."),
    Metric("published_bytes_total", "counter", ("topic",), "Bytes of their keys and values."),
    Metric("last_matrix_timestamp_seconds", "gauge", _UE, "Wall time of the last publication."),
    Metric("last_matrix_event_timestamp_seconds", "gauge", _UE, "Event time of the last matrix."),
    Metric("publishing_period_seconds", "gauge", _UE, "Event time from one matrix to the next."),
    Metric("sequence", "gauge", _UE, "Sequence number of the last matrix."),
    Metric("events_total", "counter", ("universe", "type"), "Events, such as a symbol ready."),
    # what is durable
    Metric(
        "commits_total", "counter", ("universe", "outcome"), "Commits of outputs with the journal."
    ),
    Metric("commit_seconds", "histogram", _U, "Time of one commit.", _PUBLISH_S),
    Metric(
        "snapshots_total",
        "counter",
        ("universe", "outcome"),
        "Snapshots of the state, or attempts.",
    ),
    Metric(
        "snapshot_seconds", "histogram", _U, "Time to write one, off the compute thread.", _SLOW_S
    ),
    Metric("snapshot_bytes", "gauge", _U, "Size of the last snapshot."),
    Metric("last_snapshot_timestamp_seconds", "gauge", _U, "Wall time of the last snapshot saved."),
    Metric(
        "snapshot_distance_seconds",
        "standing",
        _U,
        "About how long it takes to repeat what no snapshot holds.",
    ),
    Metric("recoveries_total", "counter", _U, "Times that the state was built again."),
    Metric("recovery_seconds", "histogram", _U, "From fencing to going on.", _SLOW_S),
    Metric("recovery_entries", "gauge", _U, "Journal entries that the last recovery repeated."),
    Metric(
        "restarts_total", "counter", ("universe", "reason"), "Times that memory was thrown away."
    ),
    # whose it is
    Metric(
        "role", "gauge", ("universe", "role"), "1 for what this process is: owner, standby, none."
    ),
    Metric(
        "ownership_changes_total",
        "counter",
        ("universe", "outcome"),
        "Times that a universe was gained, lost, or taken by another process (fenced).",
    ),
    # models
    Metric("refits_total", "counter", ("universe", "outcome"), "Full fits, and why they failed."),
    Metric("refit_seconds", "histogram", _U, "Time of one full fit, off the event loop.", _SLOW_S),
    Metric("refits_failing", "gauge", _U, "Fits that failed since the last one that succeeded."),
    Metric(
        "model_version", "standing", _U, "Number of the model in force; 1 before the first fit."
    ),
    Metric(
        "model_age_seconds",
        "standing",
        _U,
        "Newest event time minus the end of the bars that the model in force was fitted to.",
    ),
    Metric(
        "log_lines_dropped_total",
        "counter",
        (),
        "Lines of the log that standard error did not take: full, closed, or its disk is full.",
    ),
    # who looks
    Metric("view_clients", "gauge", (), "Viewers of the live view."),
    Metric(
        "view_frames_total", "counter", ("outcome",), "Matrices for viewers: sent, passed_over."
    ),
    Metric("view_bytes_total", "counter", (), "Bytes of the matrices sent to viewers."),
    Metric(
        "http_refused_total",
        "counter",
        ("reason",),
        "Requests and connections that the HTTP face turned away.",
    ),
    # the watch for drift
    Metric("drift_level_ratio", "gauge", _U, "Statistic over its threshold: an alarm at 1."),
    Metric("drift_alarms_total", "counter", ("universe", "alternative"), "Alarms, by their name."),
    Metric("drift_refuted_total", "counter", _U, "Alarms that no model confirmed."),
    Metric("drift_watched_bars", "gauge", _U, "Bars watched since the beginning."),
    Metric("drift_reference_bars", "gauge", _U, "Bars that the newest ones are compared with."),
    Metric("drift_arl0_target_bars", "gauge", _U, "Bars between false alarms, as asked for."),
    Metric("drift_bars_per_alarm", "gauge", _U, "Bars watched per alarm, true or false."),
    Metric("drift_false_alarms_per_day", "gauge", _U, "Chance of a false alarm on a quiet day."),
    Metric("drift_power_bars", "gauge", _U, "Expected delay when all fuse by 35 %; +Inf: never."),
    # how good it is
    Metric("log_score_gain_nats", "gauge", _UE, "Log score over no correlation, mean a DCC bar."),
    Metric("qlike", "gauge", _UE, "QLIKE loss of the next DCC bar per symbol, mean."),
    Metric("surprise_ratio", "gauge", _UE, "Squares of next returns over those predicted, mean."),
    Metric(
        "band_pairs_total",
        "counter",
        (*_UE, "outcome"),
        "Pairs whose correlation over the next block of bars lay in the 95 % band, or not.",
    ),
    Metric("average_correlation", "gauge", _UE, "Mean of all pairs of the last matrix."),
    Metric("top_eigenvalue_share", "gauge", _UE, "Part of the variance in its first factor, 0-1."),
    Metric("effective_bets", "gauge", _UE, "Uncorrelated positions that its spectrum is worth."),
    Metric("crisis_distance", "gauge", _UE, "Distance of its pairs from moving as one, 0 to 1."),
    Metric("min_eigenvalue", "gauge", _UE, "Its smallest eigenvalue."),
    Metric("repair_ratio", "gauge", _UE, "Shrinkage towards identity that made it definite, 0-1."),
    Metric(
        "effective_observations", "gauge", _UE, "Median over pairs of its effective observations."
    ),
    Metric("capped_pairs", "gauge", _UE, "Its pairs held inside (-1, 1)."),
    Metric(
        "doubtful_variances", "gauge", _UE, "Variances that keep their noise or are on the floor."
    ),
    Metric(
        "audit_difference",
        "gauge",
        _UE,
        "Its root mean square difference to the audit.",
    ),
    # pairs of metrics.pairs alone
    Metric("pair_correlation", "gauge", _UEP, "Correlation of a pair in the last matrix."),
    Metric("pair_standard_error", "gauge", _UEP, "Its standard error."),
)

_X = ("exchange",)

FEED_METRICS = (
    Metric("feed_messages_total", "counter", _X, "Messages of the websocket."),
    Metric("feed_garbled_total", "counter", _X, "Messages that could not be read."),
    Metric("feed_late_total", "counter", _X, "Trades after one with a higher id, written too."),
    Metric("feed_gaps_total", "counter", _X, "Jumps in trade ids that count up by one."),
    Metric("feed_missed_total", "counter", _X, "Trade ids that such jumps left out."),
    Metric(
        "feed_ticks_total", "counter", ("exchange", "outcome"), "Ticks, by what became of them."
    ),
    Metric(
        "feed_reconnects_total",
        "counter",
        ("exchange", "reason"),
        "Connections that ended, by reason.",
    ),
    Metric("feed_lag_seconds", "standing", _X, "Age of the last tick when it came."),
    Metric("feed_waiting_ticks", "standing", (), "Ticks that wait to be written."),
)

# of a label, or of that of one metric: the only values, or what they are
LABEL_VALUES: Mapping[str, tuple[str, ...] | str] = {
    "universe": "`universe.name`",
    "topic": "name of a topic",
    "partition": "its number",
    "estimator": ("ewma", "dcc"),
    "pair": "as in `metrics.pairs`: the two symbols with ` ~ ` between",
    "version": "of stream_calib",
    "python": "version",
    "numba": "version",
    "format": "a tick format, or `silent`: without a price by its nature",
    "stage": ("decode", "advance", "publish"),
    "role": ROLES,
    "state": ("ready", "pending"),
    "type": "of the event, as on the topic of events",
    "alternative": ALTERNATIVES,
    "exchange": "as `--exchange` names it",
    "ticks_total.outcome": OUTCOMES,
    "commits_total.outcome": COMMITS,
    "snapshots_total.outcome": SNAPSHOTS,
    "ownership_changes_total.outcome": OWNERSHIP,
    "refits_total.outcome": FITS,
    "view_frames_total.outcome": ("sent", "passed_over"),
    "http_refused_total.reason": REFUSALS,
    "band_pairs_total.outcome": ("covered", "missed"),
    "rejects_total.reason": "why, as in the header `reason` on the topic of rejects",
    "set_aside_total.reason": (
        "closed",
        "outlier",
        "spread",
        "confirmed_late",
        "crossed_quote",
        "no_price",
    ),
    "restarts_total.reason": "kind of the error",
    "feed_ticks_total.outcome": FEED_OUTCOMES,
    "feed_reconnects_total.reason": BREAKS,
}
