"""The exporter: each call changes the series it should, and no others without end."""

import math
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from stream_calib.adapters.prometheus import (
    LABEL_VALUES,
    METRICS,
    PREFIX,
    FeedMetrics,
    PrometheusObserver,
)
from stream_calib.adapters.prometheus import family as family_module
from stream_calib.adapters.prometheus import observer as observer_module
from stream_calib.adapters.prometheus import standing as standing_module
from stream_calib.ports import Observer
from stream_calib.values import (
    NO_TIME,
    DriftStatus,
    Effects,
    Event,
    FeedCounts,
    Output,
    Progress,
    Source,
)
from tests.web.observations import (
    AS_OF_NS,
    PAIRS,
    effects,
    matrix,
    output,
    progress,
    tell,
    tick_batch,
)

OPEN_METRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


@pytest.fixture
def observer() -> PrometheusObserver:
    return PrometheusObserver("0.1.0", clock=lambda: 1234.5, pairs=PAIRS)


def value(observer: PrometheusObserver, name: str, **labels: str) -> float | None:
    return observer.registry.get_sample_value(PREFIX + name, labels)


def series(observer: PrometheusObserver, name: str) -> list[dict[str, str]]:
    return [
        sample.labels
        for family in observer.registry.collect()
        for sample in family.samples
        if sample.name == PREFIX + name
    ]


def test_it_is_an_observer(observer: PrometheusObserver) -> None:
    told: Observer = observer
    tell(told)


def test_decoding_counts_records_bytes_and_formats(observer: PrometheusObserver) -> None:
    observer.decoded("fx", tick_batch(formats={"native": 2, "ccxt": 1}), 0.0002)
    observer.decoded("fx", tick_batch(), 0.0002)
    assert value(observer, "records_total", universe="fx", topic="ticks") == 8
    assert value(observer, "record_bytes_total", universe="fx", topic="ticks") == 18
    assert value(observer, "decoded_total", universe="fx", format="native") == 4
    assert value(observer, "decoded_total", universe="fx", format="ccxt") == 1
    assert value(observer, "step_seconds_count", universe="fx", stage="decode") == 2
    assert value(observer, "step_seconds_bucket", universe="fx", stage="decode", le="0.00025") == 2
    assert value(observer, "step_seconds_bucket", universe="fx", stage="decode", le="0.0001") == 0


def test_every_outcome_begins_at_zero(observer: PrometheusObserver) -> None:
    observer.decoded("fx", tick_batch(), 0.0)
    for outcome in ("applied", "late", "unknown_symbol", "unused", "rejected"):
        labels = {"universe": "fx", "topic": "ticks", "outcome": outcome}
        assert value(observer, "ticks_total", **labels) == 0


def test_ticks_are_counted_once_by_outcome(observer: PrometheusObserver) -> None:
    observer.advanced("fx", effects(), 0.003)
    expected = {"applied": 100, "late": 4, "unknown_symbol": 3, "unused": 2, "rejected": 6}
    for outcome, count in expected.items():
        labels = {"universe": "fx", "topic": "ticks", "outcome": outcome}
        assert value(observer, "ticks_total", **labels) == count
    assert len(series(observer, "ticks_total")) == len(expected)
    assert value(observer, "rejects_total", universe="fx", reason="crossed") == 5
    assert value(observer, "rejects_total", universe="fx", reason="not_json") == 1
    assert value(observer, "duplicates_total", universe="fx") == 6
    assert value(observer, "set_aside_total", universe="fx", reason="closed") == 9
    assert value(observer, "set_aside_total", universe="fx", reason="outlier") == 10
    assert value(observer, "rejects_total", universe="fx", reason="outlier") == 10
    assert value(observer, "doubtful_variances", universe="fx", estimator="ewma") == 3
    assert value(observer, "audit_difference", universe="fx", estimator="ewma") == 0.07
    assert value(observer, "step_seconds_sum", universe="fx", stage="advance") == 0.003


def test_bars_matrices_and_events_are_counted(observer: PrometheusObserver) -> None:
    observer.advanced("fx", effects(), 0.003)
    assert value(observer, "bars_total", universe="fx") == 2
    assert value(observer, "matrices_total", universe="fx", estimator="ewma") == 2
    assert value(observer, "events_total", universe="fx", type="symbol_ready") == 1


def test_a_step_without_bars_shows_them_at_zero(observer: PrometheusObserver) -> None:
    observer.advanced("fx", Effects(), 0.0)
    assert value(observer, "bars_total", universe="fx") == 0
    assert value(observer, "duplicates_total", universe="fx") == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sequence", 7),
        ("last_matrix_event_timestamp_seconds", AS_OF_NS / 1e9),
        ("average_correlation", 1 / 3),
        ("top_eigenvalue_share", 0.56),
        ("min_eigenvalue", 0.48),
        ("repair_ratio", 0.03),
        ("effective_observations", 50),
        ("capped_pairs", 2),
    ],
)
def test_the_last_matrix_is_described(
    observer: PrometheusObserver, name: str, expected: float
) -> None:
    observer.advanced("fx", effects(), 0.003)
    assert value(observer, name, universe="fx", estimator="ewma") == expected


def test_publication_is_dated_when_it_is_durable(observer: PrometheusObserver) -> None:
    labels = {"universe": "fx", "estimator": "ewma"}
    observer.advanced("fx", effects(), 0.003)
    assert value(observer, "last_matrix_timestamp_seconds", **labels) is None
    observer.published("other", (output(),), 0.02, 0.04)
    assert value(observer, "last_matrix_timestamp_seconds", **labels) is None
    observer.published("fx", (output(),), 0.02, 0.04)
    assert value(observer, "last_matrix_timestamp_seconds", **labels) == 1234.5


def test_a_publication_without_a_matrix_does_not_date_one() -> None:
    times = iter((1.0, 2.0))
    observer = PrometheusObserver("0.1.0", clock=lambda: next(times))
    observer.advanced("fx", effects(), 0.003)
    observer.published("fx", (output(),), 0.02, 0.04)
    observer.advanced("fx", Effects(), 0.003)
    observer.published("fx", (output("calib.events"),), 0.02, math.nan)
    labels = {"universe": "fx", "estimator": "ewma"}
    assert value(observer, "last_matrix_timestamp_seconds", **labels) == 1.0
    assert value(observer, "bar_close_to_publish_seconds_count", universe="fx") == 1
    assert value(observer, "bar_close_to_publish_seconds_sum", universe="fx") == 0.04


def test_outputs_are_counted_by_topic(observer: PrometheusObserver) -> None:
    observer.published("fx", (output(), output(), output("calib.events")), 0.02, 0.04)
    assert value(observer, "published_records_total", topic="calib.correlations") == 2
    assert value(observer, "published_bytes_total", topic="calib.correlations") == 2 * 107
    assert value(observer, "published_records_total", topic="calib.events") == 1
    assert value(observer, "step_seconds_sum", universe="fx", stage="publish") == 0.02
    assert value(observer, "bar_close_to_publish_seconds_bucket", universe="fx", le="0.05") == 1
    assert value(observer, "bar_close_to_publish_seconds_bucket", universe="fx", le="0.025") == 0


def test_positions_and_lag_are_those_of_the_last_progress(observer: PrometheusObserver) -> None:
    observer.progressed("fx", progress())
    for partition, position, end, lag in ((0, 14, 20, 6), (1, 90, 80, 0), (2, 5, None, None)):
        labels = {"universe": "fx", "topic": "ticks", "partition": str(partition)}
        assert value(observer, "consumer_position", **labels) == position
        assert value(observer, "consumer_end", **labels) == end
        assert value(observer, "consumer_lag_records", **labels) == lag
    assert value(observer, "universe_symbols", universe="fx", state="ready") == 3
    assert value(observer, "universe_symbols", universe="fx", state="pending") == 1


def test_a_partition_no_longer_read_leaves_no_series(observer: PrometheusObserver) -> None:
    observer.progressed("fx", progress())
    observer.progressed("fx", replace(progress(), positions={Source("ticks", 0): 15}))
    assert len(series(observer, "consumer_position")) == 1


@pytest.mark.parametrize(
    ("watermark_ns", "newest_ns", "expected"),
    [
        (AS_OF_NS - 3_000_000_000, AS_OF_NS, 3.0),
        (AS_OF_NS + 1, AS_OF_NS, 0.0),  # a silent log was given up on
        (NO_TIME, AS_OF_NS, None),
        (NO_TIME, NO_TIME, None),
    ],
)
def test_event_time_is_shown_when_known(
    observer: PrometheusObserver, watermark_ns: int, newest_ns: int, expected: float | None
) -> None:
    observer.progressed("fx", replace(progress(), watermark_ns=watermark_ns, newest_ns=newest_ns))
    shown = value(observer, "watermark_timestamp_seconds", universe="fx")
    assert shown == (None if watermark_ns == NO_TIME else watermark_ns / 1e9)
    shown = value(observer, "newest_event_timestamp_seconds", universe="fx")
    assert shown == (None if newest_ns == NO_TIME else newest_ns / 1e9)
    assert value(observer, "watermark_lag_seconds", universe="fx") == expected


@pytest.mark.parametrize(
    ("now_s", "expected"),
    [
        (AS_OF_NS / 1e9 - 60, 0.0),  # a clock that is behind the log
        (AS_OF_NS / 1e9 + 60, 63.0),
        (AS_OF_NS / 1e9 + 1e9, 86_400.0),  # recordings of long ago
    ],
)
def test_the_age_of_the_watermark_stays_within_a_day(now_s: float, expected: float) -> None:
    observer = PrometheusObserver("0.1.0", clock=lambda: now_s)
    observer.progressed("fx", progress())
    assert value(observer, "watermark_age_seconds", universe="fx") == expected


def test_the_model_and_the_journal_are_as_old_as_was_told(observer: PrometheusObserver) -> None:
    observer.progressed("fx", progress())
    assert value(observer, "model_version", universe="fx") == 2
    assert value(observer, "model_age_seconds", universe="fx") == 600
    assert value(observer, "snapshot_distance_seconds", universe="fx") == 1.5
    fresh = replace(progress(), model_version=1, fitted_ns=NO_TIME, replay_s=math.nan)
    observer.progressed("fx", fresh)
    assert value(observer, "model_version", universe="fx") == 1
    assert value(observer, "model_age_seconds", universe="fx") is None
    assert value(observer, "snapshot_distance_seconds", universe="fx") is None


def test_pairs_are_shown_where_the_settings_name_them(observer: PrometheusObserver) -> None:
    observer.advanced("fx", effects(), 0.003)
    labels = {"universe": "fx", "estimator": "ewma"}
    assert value(observer, "pair_correlation", **labels, pair="A ~ B") == 0.5
    assert value(observer, "pair_standard_error", **labels, pair="A ~ B") == 0.1
    assert math.isnan(value(observer, "pair_correlation", **labels, pair="A ~ D") or 0.0)
    observer.advanced("rates", Effects(matrices=(matrix("rates"),)), 0.003)
    assert len(series(observer, "pair_correlation")) == 2


def test_a_pair_whose_symbol_leaves_the_matrix_is_not_shown_as_it_was() -> None:
    observer = PrometheusObserver("0.1.0", pairs=PAIRS)
    observer.advanced("fx", effects(), 0.003)
    gone = replace(matrix(), symbols=("A", "C", "E"))
    observer.advanced("fx", Effects(matrices=(gone,)), 0.003)
    labels = {"universe": "fx", "estimator": "ewma", "pair": "A ~ B"}
    for name in ("pair_correlation", "pair_standard_error"):
        assert math.isnan(value(observer, name, **labels) or 0.0)


def test_time_in_the_kernels_is_by_bar(observer: PrometheusObserver) -> None:
    observer.advanced("fx", effects(), 0.003)  # two bars
    observer.advanced("fx", Effects(), 0.5)
    assert value(observer, "bar_seconds_count", universe="fx") == 1
    assert value(observer, "bar_seconds_sum", universe="fx") == 0.0015


def test_a_commit_that_failed_has_no_time(observer: PrometheusObserver) -> None:
    observer.committed("fx", 15.0, "failed")
    observer.committed("fx", 0.004, "committed")
    assert value(observer, "commits_total", universe="fx", outcome="failed") == 1
    assert value(observer, "commit_seconds_count", universe="fx") == 1
    assert value(observer, "commit_seconds_sum", universe="fx") == 0.004


@pytest.mark.parametrize("name", ["commits", "snapshots", "refits", "drift_alarms"])
def test_what_may_happen_is_at_zero_from_the_start(observer: PrometheusObserver, name: str) -> None:
    observer.recovered("fx", 0, 0.1)
    shown = series(observer, f"{name}_total")
    (label,) = shown[0].keys() - {"universe"}
    listed = LABEL_VALUES.get(f"{name}_total.{label}", LABEL_VALUES.get(label))
    assert tuple(labels[label] for labels in shown) == listed
    assert {value(observer, f"{name}_total", **labels) for labels in shown} == {0.0}


def test_compile_time_stalls_and_build(observer: PrometheusObserver) -> None:
    observer.compiled(12.5)
    observer.stalled(0.2)
    assert value(observer, "compile_seconds") == 12.5
    assert value(observer, "event_loop_lag_seconds_count") == 1
    assert value(observer, "event_loop_lag_seconds_sum") == 0.2
    (build,) = series(observer, "build_info")
    assert build["version"] == "0.1.0"
    assert all(build[label] for label in ("python", "numba"))


def test_children_are_bound_once(observer: PrometheusObserver) -> None:
    tell(observer)
    family = observer._counter["ticks_total"]
    assert family("fx", "ticks", "late") is family("fx", "ticks", "late")


def test_surplus_label_values_are_counted_as_other(
    observer: PrometheusObserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(family_module, "LABEL_VALUES_MAX", 3)
    for number in range(10):
        step = Effects(
            counts={("ticks", f"reason {number}"): 1},
            events=(Event("fx", 0, f"type {number}", 0, {}),),
        )
        observer.advanced("fx", step, 0.0)
        observer.decoded("fx", tick_batch(f"topic {number}", {f"format {number}": 1}), 0.0)
        observer.published("fx", (Output(f"topic {number}", 0, b"", b"", ()),), 0.0, math.nan)
    assert value(observer, "rejects_total", universe="fx", reason="other") == 7
    assert value(observer, "decoded_total", universe="fx", format="other") == 7
    assert value(observer, "published_records_total", topic="other") == 7
    assert value(observer, "events_total", universe="fx", type="other") == 7
    assert value(observer, "records_total", universe="fx", topic="other") == 7 * 4
    assert value(observer, "rejects_total", universe="fx", reason="reason 2") == 1
    assert len(series(observer, "rejects_total")) == 4
    assert len(observer._counter["rejects_total"]._children) == 3


def test_lag_of_surplus_partitions_is_summed(
    observer: PrometheusObserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing_module, "LABEL_VALUES_MAX", 2)
    positions = {Source("ticks", partition): 10 for partition in range(5)}
    ends = {source: 10 + source.partition for source in positions if source.partition != 3}
    observer.progressed("fx", replace(progress(), positions=positions, ends=ends))
    labels = {"universe": "fx", "topic": "other", "partition": "other"}
    assert value(observer, "consumer_lag_records", **labels) == 2 + 4
    assert len(series(observer, "consumer_position")) == 3


def test_the_watch_for_drift_is_shown_with_what_was_asked_for(
    observer: PrometheusObserver,
) -> None:
    tell(observer)
    assert value(observer, "drift_level_ratio", universe="fx") == 0.3
    assert value(observer, "drift_arl0_target_bars", universe="fx") == 5000.0
    assert value(observer, "drift_bars_per_alarm", universe="fx") == 4500.0
    assert value(observer, "drift_alarms_total", universe="fx", alternative="fusing") == 1
    assert value(observer, "drift_alarms_total", universe="fx", alternative="rotation") == 0
    assert value(observer, "drift_refuted_total", universe="fx") == 1
    unknown = DriftStatus(0.0, 5000.0, 0.25, None, 0, 0, {}, 0)
    observer.advanced("fx", replace(effects(), drift=unknown), 0.0)
    assert value(observer, "drift_power_bars", universe="fx") == math.inf
    assert math.isnan(value(observer, "drift_bars_per_alarm", universe="fx") or 0.0)


def test_whose_a_universe_is_and_how_often_that_changed(observer: PrometheusObserver) -> None:
    observer.owned("fx", "standby")
    observer.owned("fx", "owner")
    observer.owned("fx", "owner")
    observer.progressed("fx", progress())
    assert value(observer, "role", universe="fx", role="owner") == 1
    assert value(observer, "role", universe="fx", role="standby") == 0
    observer.fenced("fx")
    observer.owned("fx", "none")
    changes = {
        outcome: value(observer, "ownership_changes_total", universe="fx", outcome=outcome)
        for outcome in ("gained", "lost", "fenced")
    }
    assert changes == {"gained": 1, "lost": 1, "fenced": 1}
    assert value(observer, "watermark_timestamp_seconds", universe="fx") is None  # the heir's now


def test_a_universe_that_was_lost_leaves_no_gauge_but_the_role(
    observer: PrometheusObserver,
) -> None:
    tell(observer)
    tell(observer, "rates")
    gauges = {row.name for row in METRICS if row.kind in ("gauge", "standing")}
    shown = {
        name for name in gauges if any(s.get("universe") == "fx" for s in series(observer, name))
    }
    assert {"average_correlation", "drift_power_bars", "pair_correlation"} <= shown
    observer.owned("fx", "standby")
    left = {
        name for name in gauges if any(s.get("universe") == "fx" for s in series(observer, name))
    }
    assert left == {"role"}
    assert value(observer, "average_correlation", universe="rates", estimator="ewma") == 1 / 3
    assert value(observer, "bars_total", universe="fx") == 2  # what was counted stays
    tell(observer)
    assert value(observer, "average_correlation", universe="fx", estimator="ewma") == 1 / 3


def test_changes_of_owner_are_at_zero_before_the_first() -> None:
    observer = PrometheusObserver("0.1.0", pairs={"fx": []})
    observer.owned("rates", "standby")
    for universe in ("fx", "rates"):
        for outcome in ("gained", "lost", "fenced"):
            labels = {"universe": universe, "outcome": outcome}
            assert value(observer, "ownership_changes_total", **labels) == 0


def test_frames_and_refusals_are_at_zero_before_the_first(observer: PrometheusObserver) -> None:
    assert value(observer, "view_frames_total", outcome="sent") == 0
    assert value(observer, "http_refused_total", reason="token") == 0


def test_fits_that_fail_one_after_the_other_are_counted_until_one_succeeds(
    observer: PrometheusObserver,
) -> None:
    observer.recovered("fx", 0, 0.1)
    shown = [value(observer, "refits_failing", universe="fx")]
    for outcome in ("timeout", "cancelled", "invalid", "fitted", "memory"):
        observer.refitted("fx", 1.0, outcome)
        shown.append(value(observer, "refits_failing", universe="fx"))
    assert shown == [0, 1, 1, 2, 0, 1]


def test_the_publishing_period_is_that_of_the_estimator() -> None:
    observer = PrometheusObserver("0.1.0", periods_s={("fx", "ewma"): 60.0})
    matrices = (matrix(), matrix(estimator="dcc"))
    observer.advanced("fx", Effects(matrices=matrices), 0.0)
    for estimator, period_s in (("ewma", 60), ("dcc", 1)):
        labels = {"universe": "fx", "estimator": estimator}
        assert value(observer, "publishing_period_seconds", **labels) == period_s


def test_viewers_and_their_frames_are_counted(observer: PrometheusObserver) -> None:
    observer.viewers(3)
    assert value(observer, "view_frames_total", outcome="passed_over") == 0
    observer.viewed(5_000, 4)
    observer.viewed(5_000, 0)
    assert value(observer, "view_clients") == 3
    assert value(observer, "view_frames_total", outcome="sent") == 2
    assert value(observer, "view_frames_total", outcome="passed_over") == 4
    assert value(observer, "view_bytes_total") == 10_000


def test_scores_are_shown_by_estimator(observer: PrometheusObserver) -> None:
    for _ in range(2):
        observer.advanced("fx", effects(), 0.0)
    labels = {"universe": "fx", "estimator": "ewma"}
    assert value(observer, "log_score_gain_nats", **labels) == 0.4
    assert value(observer, "qlike", **labels) == -9.5
    assert value(observer, "surprise_ratio", **labels) == 1.1
    assert value(observer, "band_pairs_total", **labels, outcome="covered") == 180
    assert value(observer, "band_pairs_total", **labels, outcome="missed") == 20


def test_nothing_is_registered_for_the_whole_process() -> None:
    before = {family.name for family in REGISTRY.collect()}
    given = CollectorRegistry()
    first, second = PrometheusObserver("1", given), PrometheusObserver("2")
    tell(first)
    assert first.registry is given
    assert series(second, "bars_total") == []
    assert {family.name for family in REGISTRY.collect()} == before


def test_the_process_itself_is_watched(observer: PrometheusObserver) -> None:
    text = observer.render()[0].decode()
    for name in ("process_cpu_seconds_total", "python_info", "python_gc_collections_total"):
        assert re.search(rf"^{name}\b", text, re.MULTILINE)


def test_the_reference_lists_what_is_exported(observer: PrometheusObserver) -> None:
    observer.compiled(1.0)
    tell(observer)
    exported = {
        sample.name.removeprefix(PREFIX): tuple(sorted(sample.labels))
        for family in observer.registry.collect()
        for sample in family.samples
        if sample.name.startswith(PREFIX) and not sample.name.endswith(("_bucket", "_sum"))
    }
    suffix = {"histogram": "_count"}
    listed = {row.name + suffix.get(row.kind, ""): tuple(sorted(row.labels)) for row in METRICS}
    assert exported == listed


def test_no_series_tells_when_it_was_created(observer: PrometheusObserver) -> None:
    tell(observer)
    assert b"_created" not in observer.render()[0]
    assert b"_created" not in observer.render(OPEN_METRICS)[0]


def test_open_metrics_is_given_to_those_who_ask(observer: PrometheusObserver) -> None:
    tell(observer)
    body, content_type = observer.render(OPEN_METRICS)
    assert content_type.startswith("application/openmetrics-text")
    parsed = text_string_to_metric_families(body.decode())  # type: ignore[no-untyped-call]
    assert "stream_calib_ticks" in {family.name for family in parsed}
    assert observer.render("")[1].startswith("text/plain; version=0.0.4")
    assert observer.render("*/*")[1].startswith("text/plain; version=0.0.4")


@pytest.mark.parametrize("version", ["a.b", "1.x", "", "\xff", "1..0"])
def test_a_format_of_no_version_is_the_plain_one(
    observer: PrometheusObserver, version: str
) -> None:
    feed = FeedMetrics({"binance": FeedCounts()}, lambda: 0)
    for render in (observer.render, feed.render):
        body, content_type = render(f"application/openmetrics-text; version={version}")
        assert body.startswith(b"# HELP")
        assert content_type.startswith(("text/plain", "application/openmetrics-text"))


def test_promtool_has_no_objection(
    observer: PrometheusObserver, require_binary: Callable[[str], Path]
) -> None:
    tell(observer)
    promtool = require_binary("promtool")
    text = observer.render()[0]
    command = [str(promtool), "check", "metrics"]
    done = subprocess.run(command, input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


@pytest.mark.parametrize("n", [2, 3, 4, 50, 127])
def test_median_over_pairs_is_exact_for_small_universes(n: int) -> None:
    square = np.random.default_rng(n).uniform(1, 9, (n, n))
    square += square.T
    expected = np.median(square[np.triu_indices(n, 1)])
    assert observer_module.median_off_diagonal(square) == pytest.approx(expected, rel=1e-15)


def test_median_over_pairs_is_close_for_large_universes() -> None:
    # 64 rows of 500 hold 32,000 pairs; the median of as many uniform draws is off by 0.003 (1 sd)
    square = np.random.default_rng(5).uniform(0, 1, (500, 500))
    square = np.maximum(square, square.T)
    expected = np.median(square[np.triu_indices(500, 1)])
    assert observer_module.median_off_diagonal(square) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("n", [0, 1])
def test_median_of_no_pair_is_not_a_number(n: int) -> None:
    assert math.isnan(observer_module.median_off_diagonal(np.ones((n, n))))


def test_two_universes_do_not_mix(observer: PrometheusObserver) -> None:
    tell(observer, "fx", 7)
    tell(observer, "rates", 11)
    assert value(observer, "sequence", universe="fx", estimator="ewma") == 7
    assert value(observer, "sequence", universe="rates", estimator="ewma") == 11
    observer.progressed("fx", Progress({}, {}, NO_TIME, NO_TIME, 0, 3))
    assert {labels["universe"] for labels in series(observer, "consumer_position")} == {"rates"}
