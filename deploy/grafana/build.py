"""The dashboard as code.

    python deploy/grafana/build.py

writes ``dashboards/stream_calib.json``; a test holds that file equal to what this makes. It is the
classic model, schema version 42, which newer versions of Grafana migrate when they load it.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

PATH = Path(__file__).with_name("dashboards") / "stream_calib.json"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24
HEIGHT = {"stat": 4, "timeseries": 8, "heatmap": 8}

UNIVERSE = 'job=~"$job", universe=~"$universe"'
JOB = 'job=~"$job"'
Steps = tuple[tuple[str, float], ...]


class Query(NamedTuple):
    """An expression and how its series are named."""

    expr: str
    legend: str = ""


class Panel(NamedTuple):
    """One panel; ``steps`` are thresholds (colour, from value), ``labels`` name values."""

    title: str
    unit: str
    description: str
    queries: tuple[Query, ...]
    kind: Literal["stat", "timeseries", "heatmap"] = "timeseries"
    width: int = 8
    steps: Steps = ()
    low: float | None = 0
    high: float | None = None
    labels: Mapping[str, str] = MappingProxyType({})
    text: Literal["auto", "name"] = "auto"


def per_second(metric: str, *by: str, more: str = "", where: str = UNIVERSE) -> Query:
    """Rate of a counter, summed over all labels but ``by``."""
    expr = f"rate(stream_calib_{metric}{{{where}{more}}}[$__rate_interval])"
    return Query(f"sum by ({', '.join(by)}) ({expr})" if by else f"sum({expr})", _legend(by))


def latest(metric: str, *by: str, how: str = "max") -> Query:
    """Value of a gauge."""
    return Query(f"{how} by ({', '.join(by)}) (stream_calib_{metric}{{{UNIVERSE}}})", _legend(by))


def quantile(q: float, metric: str, *by: str, where: str = UNIVERSE) -> Query:
    """Quantile of a histogram."""
    rate = per_second(f"{metric}_bucket", *by, "le", where=where).expr
    return Query(f"histogram_quantile({q}, {rate})", f"p{q * 100:g} {_legend(by)}")


def share(outcome: str, among: str) -> Query:
    """Part of the ticks with this outcome."""
    part = per_second("ticks_total", "universe", more=f', outcome="{outcome}"').expr
    whole = per_second("ticks_total", "universe", more=f', outcome=~"{among}"').expr
    return Query(f"{part} / ({whole} > 0)", "{{universe}}")


def _legend(by: tuple[str, ...]) -> str:
    return " ".join(f"{{{{{label}}}}}" for label in by)


UE = ("universe", "estimator")
LAST = "last_matrix_timestamp_seconds"
FIRING = 'count(ALERTS{alertname=~"StreamCalib.*", alertstate="firing"}) or vector(0)'
READY = (
    f'sum(stream_calib_universe_symbols{{{UNIVERSE}, state="ready"}})'
    f" / sum(stream_calib_universe_symbols{{{UNIVERSE}}})"
)
EVENTS = f"stream_calib_events_total{{{UNIVERSE}}}"
COVERED = (
    "sum by (universe, estimator)"
    f'(increase(stream_calib_band_pairs_total{{{UNIVERSE}, outcome="covered"}}[$__rate_interval]))'
    " / (sum by (universe, estimator)"
    f"(increase(stream_calib_band_pairs_total{{{UNIVERSE}}}[$__rate_interval])) > 0)"
)
BUCKETS = "stream_calib_bar_close_to_publish_seconds_bucket"

ROWS: dict[str, tuple[Panel, ...]] = {
    "At a glance": (
        Panel("Up", "none", "Whether Prometheus reaches the service.",
              (Query(f"min(up{{{JOB}}})"),), "stat", 3,
              steps=(("red", 0), ("green", 1)), labels={"0": "down", "1": "up"}),
        Panel("Alerts firing", "none", "Alerts of deploy/prometheus/rules that fire now.",
              (Query(FIRING),), "stat", 3, steps=(("green", 0), ("red", 1))),
        Panel("Since last matrix", "s", "Since a matrix was published: the oldest of those shown.",
              (Query(f"max(time() - {latest(LAST, *UE).expr})"),), "stat", 4,
              steps=(("green", 0), ("yellow", 60), ("red", 600))),
        Panel("Records behind", "short", "Records in the input log that have not been read yet.",
              (Query(f"sum(stream_calib_consumer_lag_records{{{UNIVERSE}}})"),), "stat", 4,
              steps=(("green", 0), ("yellow", 10_000), ("red", 1_000_000))),
        Panel("Ticks", "cps", "Ticks per second, whatever became of them.",
              (per_second("ticks_total"),), "stat", 3, steps=(("blue", 0),)),
        Panel("Symbols ready", "percentunit", "Part of the symbols that have seen enough.",
              (Query(READY),), "stat", 4, high=1,
              steps=(("red", 0), ("yellow", 0.5), ("green", 0.95))),
        Panel("Version", "none", "Software version; the name of the value, which is always 1.",
              (Query(f"max by (version) (stream_calib_build_info{{{JOB}}})", "{{version}}"),),
              "stat", 3, steps=(("blue", 0),), text="name"),
    ),
    "Throughput and lag": (
        Panel("Records in", "cps", "Records read per second, by input topic.",
              (per_second("records_total", "universe", "topic"),)),
        Panel("Bytes in", "Bps", "Bytes of their values per second.",
              (per_second("record_bytes_total", "universe", "topic"),)),
        Panel("Message formats", "cps", "Decoded per second, by message format.",
              (per_second("decoded_total", "universe", "format"),)),
        Panel("Records behind, by partition", "short", "Not read yet. It should not keep growing.",
              (latest("consumer_lag_records", "universe", "topic", "partition"),),
              steps=(("green", 0), ("red", 10_000))),
        Panel("Position and end", "short",
              "Summed over partitions. Parallel lines: the reader keeps up.",
              (Query(f"sum by (universe) (stream_calib_consumer_position{{{UNIVERSE}}})",
                     "{{universe}} position"),
               Query(f"sum by (universe) (stream_calib_consumer_end{{{UNIVERSE}}})",
                     "{{universe}} end")), low=None),
        Panel("Watermark behind newest", "s",
              "Event time from the time up to which bars are closed to the newest tick: the "
              "allowed lateness, plus how far the slowest partition is behind.",
              (latest("watermark_lag_seconds", "universe"),)),
        Panel("Bars and matrices", "cps", "Bars closed and matrices made per second.",
              (per_second("bars_total", "universe")._replace(legend="{{universe}} bars"),
               per_second("matrices_total", *UE))),
        Panel("Records out", "cps", "Records written per second, by output topic.",
              (per_second("published_records_total", "topic", where=JOB),)),
        Panel("Bytes out", "Bps", "Bytes of their keys and values per second.",
              (per_second("published_bytes_total", "topic", where=JOB),)),
    ),
    "Latency": (
        Panel("Bar close to publication", "s",
              "From the poll that closed a bar until its matrix was durable.",
              (quantile(0.5, "bar_close_to_publish_seconds", "universe"),
               quantile(0.99, "bar_close_to_publish_seconds", "universe")), width=12),
        Panel("Time per batch, by stage", "s",
              "99 % of the batches take no longer. The stage on top is what to make faster.",
              (quantile(0.99, "step_seconds", "universe", "stage"),), width=12),
        Panel("Bar close to publication, distribution", "s", "Colour: publications per interval.",
              (Query(f"sum by (le) (increase({BUCKETS}{{{UNIVERSE}}}[$__rate_interval]))",
                     "{{le}}"),), "heatmap", 12),
        Panel("Age of the newest tick", "s",
              "Wall time minus newest event time. Large when the market is closed or replayed.",
              (Query(f"time() - {latest('newest_event_timestamp_seconds', 'universe').expr}",
                     "{{universe}}"),), width=12, low=None),
    ),
    "Matrix quality and market regime": (
        Panel("Average correlation", "none",
              "Mean over all pairs. It rises when everything moves together.",
              (latest("average_correlation", *UE),), low=-1, high=1),
        Panel("Share of the first factor", "percentunit",
              "Part of the variance in the largest eigenvalue.",
              (latest("top_eigenvalue_share", *UE),), high=1),
        Panel("Symbols", "none", "Ready symbols are in the matrix, pending ones not yet.",
              (latest("universe_symbols", "universe", "state"),)),
        Panel("Smallest eigenvalue", "none", "Of the published matrix: always above 0.",
              (latest("min_eigenvalue", *UE, how="min"),), low=None,
              steps=(("red", -1), ("green", 1e-12))),
        Panel("Repair", "percentunit",
              "How much the matrix was shrunk towards identity to be positive definite.",
              (latest("repair_ratio", *UE),), steps=(("green", 0), ("red", 0.1))),
        Panel("Effective observations", "none",
              "Median over pairs. The sampling error of a correlation is about 1/sqrt of it.",
              (latest("effective_observations", *UE),), steps=(("red", 0), ("green", 20))),
        Panel("Capped pairs", "none", "Pairs that had to be held inside (-1, 1).",
              (latest("capped_pairs", *UE),)),
        Panel("Doubtful variances", "none",
              "Variances that keep their noise, or are held at their floor.",
              (latest("doubtful_variances", *UE),)),
        Panel("Audit", "none",
              "Root mean square difference to the correlations by Hayashi and Yoshida, which need "
              "no clock; the noise of single ticks makes them smaller.",
              (latest("audit_difference", *UE),)),
        Panel("Sequence", "none", "Number of the last matrix; goes on after a restart.",
              (latest("sequence", *UE),), low=None),
        Panel("Events", "none", "Events per interval: symbols ready or pending, gaps.",
              (Query(f"sum by (type) (increase({EVENTS}[$__rate_interval]))", "{{type}}"),),
              width=16),
    ),
    "Regime and refits": (
        Panel("Drift level", "percentunit",
              "How near the next alarm is. At 1 the correlations are said to have shifted.",
              (latest("drift_level_ratio", "universe"),), steps=(("green", 0), ("red", 1))),
        Panel("Alarms", "none", "Per interval, by what the shift looks like, and those refuted.",
              (Query(f"sum by (alternative) (increase(stream_calib_drift_alarms_total{{{UNIVERSE}}}"
                     "[$__rate_interval]))", "{{alternative}}"),
               Query(f"sum(increase(stream_calib_drift_refuted_total{{{UNIVERSE}}}"
                     "[$__rate_interval]))", "refuted"))),
        Panel("Bars between false alarms", "none",
              "As asked for, and bars watched per alarm: true ones are among these.",
              (latest("drift_arl0_target_bars", "universe")._replace(legend="{{universe}} target"),
               latest("drift_bars_per_alarm", "universe")._replace(
                   legend="{{universe}} per alarm"))),
        Panel("Expected delay", "none",
              "Bars until an alarm when correlations fuse by 35 %. None while there is too little "
              "to compare with.", (latest("drift_power_bars", "universe"),)),
        Panel("False alarms", "percentunit", "Chance of at least one on a day without a break.",
              (latest("drift_false_alarms_per_day", "universe"),), high=1),
        Panel("Watched", "none", "Bars watched since the beginning, and those compared with.",
              (latest("drift_watched_bars", "universe")._replace(legend="{{universe}} watched"),
               latest("drift_reference_bars", "universe")._replace(
                   legend="{{universe}} reference"))),
        Panel("Refits", "none", "Fits that came back per interval, or why none did.",
              (Query(f"sum by (outcome) (increase(stream_calib_refits_total{{{UNIVERSE}}}"
                     "[$__rate_interval]))", "{{outcome}}"),)),
        Panel("Time of a refit", "s", "Off the event loop, in a process of its own.",
              (quantile(0.99, "refit_seconds", "universe"),)),
        Panel("Model version", "none", "One more with each model that comes into force.",
              (latest("model_version", "universe"),), low=None),
        Panel("Effective bets", "none",
              "Uncorrelated positions that the spectrum of the matrix is worth.",
              (latest("effective_bets", *UE),), width=12),
        Panel("Distance from a crisis", "none",
              "Root mean square distance of the pairs from moving as one.",
              (latest("crisis_distance", *UE),), width=12),
    ),
    "Calibration": (
        Panel("Gain in log score", "none",
              "Nats that the published correlations were worth in the next DCC bar, over none; "
              "mean, forgetting half in 250 bars. Below 0 they do harm.",
              (latest("log_score_gain_nats", *UE),), low=None, width=6),
        Panel("Surprise", "none",
              "Squares of the next returns over those predicted: 1 is right, above 1 the matrix "
              "promises too little risk.", (latest("surprise_ratio", *UE),), width=6),
        Panel("In the 95 % band", "percentunit",
              "Part of the pairs whose correlation over the next 60 DCC bars lay in the band of "
              "sampling error.", (Query(COVERED, "{{universe}} {{estimator}}"),), high=1, width=6),
        Panel("QLIKE", "none", "Loss of the covariance in the next DCC bar per symbol; mean.",
              (latest("qlike", *UE),), low=None, width=6),
    ),
    "Rejects": (
        Panel("Ticks by outcome", "cps",
              "Late, unknown and unused ones are only counted; rejected ones go to the topic of "
              "rejects.", (per_second("ticks_total", "outcome"),), width=6),
        Panel("Rejects by reason", "cps", "Why ticks and records were not usable.",
              (per_second("rejects_total", "universe", "reason"),), width=6),
        Panel("Rejected and late", "percentunit",
              "Rejected: part of all ticks. Late: part of those that would have been used.",
              (share("rejected", ".*")._replace(legend="{{universe}} rejected"),
               share("late", "applied|late")._replace(legend="{{universe}} late")),
              width=12, steps=(("green", 0), ("red", 0.01))),
        Panel("Set aside", "cps",
              "Applied ticks that no bar used: refuted by the next tick, out of session, crossed.",
              (per_second("set_aside_total", "universe", "reason"),), width=12),
        Panel("Duplicates", "cps", "Applied ticks that repeat the one before.",
              (per_second("duplicates_total", "universe"),), width=12),
    ),
    "Resources": (
        Panel("Processor", "none", "Cores in use.",
              (Query(f"rate(process_cpu_seconds_total{{{JOB}}}[$__rate_interval])",
                     "{{instance}}"),), width=6),
        Panel("Memory", "bytes", "Resident set.",
              (Query(f"process_resident_memory_bytes{{{JOB}}}", "{{instance}}"),), width=6),
        Panel("Event loop lag", "s", "99 % of the wake-ups are no later. Heartbeats need < 1 s.",
              (quantile(0.99, "event_loop_lag_seconds", "instance", where=JOB),), width=6,
              steps=(("green", 0), ("red", 0.5))),
        Panel("Garbage collections", "cps", "By generation; 2 is the one that takes long.",
              (Query(f"sum by (instance, generation) (rate(python_gc_collections_total{{{JOB}}}"
                     "[$__rate_interval]))", "{{instance}} {{generation}}"),), width=6),
        Panel("Running since", "dateTimeFromNow", "Start of the process.",
              (Query(f"max by (instance) (process_start_time_seconds{{{JOB}}} * 1000)",
                     "{{instance}}"),), "stat", width=6, low=None, steps=(("blue", 0),)),
        Panel("Compile time", "s", "To compile the kernels at start, or load them from the cache.",
              (Query(f"max by (instance) (stream_calib_compile_seconds{{{JOB}}})",
                     "{{instance}}"),), "stat", width=6, steps=(("blue", 0), ("yellow", 90))),
        Panel("Open files", "none", "File descriptors in use, connections among them.",
              (Query(f"max by (instance) (process_open_fds{{{JOB}}})", "{{instance}}"),), "stat",
              width=6, steps=(("blue", 0),)),
        Panel("Viewers", "none", "Who looks at the live view.",
              (Query(f"max by (instance) (stream_calib_view_clients{{{JOB}}})",
                     "{{instance}}"),), "stat", width=6, steps=(("blue", 0),)),
        Panel("Matrices to viewers", "cps",
              "Sent to browsers, and passed over because a newer one was there.",
              (Query(f"sum by (instance, outcome) (rate(stream_calib_view_frames_total{{{JOB}}}"
                     "[$__rate_interval]))", "{{instance}} {{outcome}}"),), width=12),
        Panel("Bytes to viewers", "Bps", "What the matrices sent to browsers weigh.",
              (Query(f"sum by (instance) (rate(stream_calib_view_bytes_total{{{JOB}}}"
                     "[$__rate_interval]))", "{{instance}}"),), width=12),
    ),
}  # fmt: skip


def dashboard() -> dict[str, Any]:
    """Return the dashboard in the classic model."""
    return {
        "uid": "stream-calib",
        "title": "stream_calib",
        "description": "Live correlation matrices: input, latency, quality, resources.",
        "tags": ["stream_calib", "kafka"],
        "schemaVersion": 42,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "links": [],
        "annotations": {"list": [_annotation()]},
        "templating": {"list": list(_variables())},
        "panels": list(_panels()),
    }


def _annotation() -> dict[str, Any]:
    expr = f"sum by (universe, type) (increase({EVENTS}[$__interval])) > 0"
    return {
        "name": "Events of the service",
        "datasource": DATASOURCE,
        "enable": False,
        "expr": expr,
        "iconColor": "purple",
        "step": "10s",
        "textFormat": "{{universe}}",
        "titleFormat": "{{type}}",
    }


def _variables() -> Iterator[dict[str, Any]]:
    yield {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
    }
    queries = {
        "job": "label_values(stream_calib_build_info, job)",
        "universe": f"label_values(stream_calib_bars_total{{{JOB}}}, universe)",
    }
    for name, query in queries.items():
        yield {
            "name": name,
            "label": name.capitalize(),
            "type": "query",
            "datasource": DATASOURCE,
            "definition": query,
            "query": {"query": query, "refId": name},
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        }


def _panels() -> Iterator[dict[str, Any]]:
    number, y = 0, 0
    for title, panels in ROWS.items():
        number += 1
        place = {"h": 1, "w": COLUMNS, "x": 0, "y": y}
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place,
               "panels": []}  # fmt: skip
        x, y = 0, y + 1
        for panel in panels:
            number += 1
            height = HEIGHT[panel.kind]
            place = {"h": height, "w": panel.width, "x": x, "y": y}
            yield {"id": number, "gridPos": place, **_panel(panel)}
            x += panel.width
            if x >= COLUMNS:
                x, y = 0, y + height
        assert x == 0, f"the last line of {title} is not full"


def _panel(panel: Panel) -> dict[str, Any]:
    steps = [{"color": color, "value": value} for color, value in panel.steps]
    if steps:
        steps[0]["value"] = None  # the first colour goes down without end
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "thresholds": {"mode": "absolute", "steps": steps or [{"color": "green", "value": None}]},
        "mappings": [
            {"type": "value", "options": {value: {"index": index, "text": text}}}
            for index, (value, text) in enumerate(panel.labels.items())
        ],
    }
    bounds = {"min": panel.low, "max": panel.high}
    defaults |= {name: bound for name, bound in bounds.items() if bound is not None}
    if panel.kind == "timeseries":
        defaults |= {"color": {"mode": "palette-classic"}, "custom": _lines(dashed=len(steps) > 1)}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": OPTIONS[panel.kind] | ({"textMode": panel.text} if panel.kind == "stat" else {}),
        "targets": [
            _target(letter, query, panel)
            for letter, query in zip("ABCDEF", panel.queries, strict=False)
        ],
    }


def _target(letter: str, query: Query, panel: Panel) -> dict[str, Any]:
    once = panel.kind == "stat"
    return {
        "refId": letter,
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "format": "heatmap" if panel.kind == "heatmap" else "time_series",
        "instant": once,
        "range": not once,
    }


def _lines(*, dashed: bool) -> dict[str, Any]:
    return {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 8,
        "showPoints": "auto",
        "spanNulls": False,
        "thresholdsStyle": {"mode": "dashed" if dashed else "off"},
    }


OPTIONS: dict[str, dict[str, Any]] = {
    "stat": {
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "wideLayout": True,
    },
    "timeseries": {
        "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "heatmap": {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Blues", "steps": 32},
        "legend": {"show": True},
        "tooltip": {"mode": "single", "yHistogram": False},
        "yAxis": {"axisPlacement": "left", "unit": "s"},
    },
}  # fmt: skip


def text() -> str:
    """Return the file's content."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
