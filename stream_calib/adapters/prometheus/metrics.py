"""``METRICS`` is the reference: every exported name, its labels and its meaning.

Labels hold few values by design: never a symbol, never a pair.
"""

from typing import Literal, NamedTuple

PREFIX = "stream_calib_"

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
    Metric("watermark_timestamp_seconds", "standing", _U, "Event time: nothing older is awaited."),
    Metric("newest_event_timestamp_seconds", "standing", _U, "Newest event time seen."),
    Metric("watermark_lag_seconds", "standing", _U, "Newest event time minus the watermark."),
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
    Metric("recoveries_total", "counter", _U, "Times that the state was built again."),
    Metric("recovery_seconds", "histogram", _U, "From fencing to going on.", _SLOW_S),
    Metric("recovery_entries", "gauge", _U, "Journal entries that the last recovery repeated."),
    Metric(
        "restarts_total", "counter", ("universe", "reason"), "Times that memory was thrown away."
    ),
    # models
    Metric("refits_total", "counter", ("universe", "outcome"), "Full fits, and why they failed."),
    Metric("refit_seconds", "histogram", _U, "Time of one full fit, off the event loop.", _SLOW_S),
    Metric("model_version", "gauge", _U, "Number of the model in force; 1 before the first fit."),
    # who looks
    Metric("view_clients", "gauge", (), "Viewers of the live view."),
    Metric(
        "view_frames_total", "counter", ("outcome",), "Matrices for viewers: sent, passed_over."
    ),
    Metric("view_bytes_total", "counter", (), "Bytes of the matrices sent to viewers."),
    # the watch for drift
    Metric("drift_level_ratio", "gauge", _U, "Statistic over its threshold: an alarm at 1."),
    Metric("drift_alarms_total", "counter", ("universe", "alternative"), "Alarms, by their name."),
    Metric("drift_refuted_total", "counter", _U, "Alarms that no model confirmed."),
    Metric("drift_watched_bars", "gauge", _U, "Bars watched since the beginning."),
    Metric("drift_reference_bars", "gauge", _U, "Bars that the newest ones are compared with."),
    Metric("drift_arl0_target_bars", "gauge", _U, "Bars between false alarms, as asked for."),
    Metric("drift_bars_per_alarm", "gauge", _U, "Bars watched per alarm, true or false."),
    Metric("drift_false_alarms_per_day", "gauge", _U, "Chance of a false alarm on a quiet day."),
    Metric("drift_power_bars", "gauge", _U, "Expected delay when correlations fuse by 35 %."),
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
)
