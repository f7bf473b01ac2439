"""What dashboards are made of: queries over our metrics, panels, colours.

``$__interval`` and ``$__rate_interval`` are Grafana's: the distance of two points of a graph, and a
time in which a counter is scraped four times at least.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

COLUMNS = 24
SCRAPE_INTERVAL = "10s"
JOB = 'job=~"$job"'
UNIVERSE = f'{JOB}, universe=~"$universe"'
ESTIMATOR = f'{UNIVERSE}, estimator=~"$estimator"'
UE = ("universe", "estimator")

Steps = tuple[tuple[str, float], ...]

# colours that mean the same on every dashboard, by label and its value
COLOURS = {
    "estimator": {"ewma": "blue", "dcc": "orange"},
    "alternative": {
        "fusing": "red",
        "loosening": "light-blue",
        "rotation": "purple",
        "miscalibrated": "yellow",
    },
    "outcome": {
        **dict.fromkeys(("applied", "fitted", "committed", "saved", "written", "sent"), "green"),
        **dict.fromkeys(("late", "passed_over"), "yellow"),
        **dict.fromkeys(("rejected", "failed", "crashed", "overrun", "unwritten"), "red"),
        **dict.fromkeys(("unused", "repeated", "unpriced"), "text"),
        "unknown_symbol": "purple",
    },
    "state": {"ready": "green", "pending": "yellow"},
}


class Query(NamedTuple):
    """An expression and how its series are named."""

    expr: str
    legend: str = ""


class Panel(NamedTuple):
    """One panel; ``steps`` are thresholds (colour, from value), ``labels`` name values.

    ``leads_to`` is the uid of the dashboard that says more; ``right`` are units of their own, by
    the last word of the series that have them.
    """

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
    style: Literal["line", "bars"] = "line"
    leads_to: str = ""
    right: Mapping[str, str] = MappingProxyType({})


class Dashboard(NamedTuple):
    """One dashboard: rows of panels by their titles."""

    uid: str
    file: str
    title: str
    description: str
    rows: Mapping[str, tuple[Panel, ...]]


def place(metric: str) -> str:
    """Return a metric with the labels that the variables choose."""
    if metric.startswith("process_"):
        return f"{metric}{{{JOB}}}"
    return f"stream_calib_{metric}{{{_labels(metric)}}}"


def per_second(metric: str, *by: str, legend: str = "") -> Query:
    """Rate of a counter, summed over all labels but ``by``."""
    expr = f"sum by ({', '.join(by)}) (rate({place(metric)}[$__rate_interval]))"
    return Query(expr if by else expr.replace(" by ()", ""), legend or _legend(by))


def latest(metric: str, *by: str, how: str = "max", legend: str = "") -> Query:
    """Value of a gauge."""
    return Query(f"{how} by ({', '.join(by)}) ({place(metric)})", legend or _legend(by))


def since(metric: str, *by: str, legend: str = "") -> Query:
    """Seconds since a wall time."""
    return Query(f"time() - {latest(metric, *by).expr}", legend or _legend(by))


def over(query: Query, window: str) -> Query:
    """Take the rates of a query over a window, for what is counted less often than scraped."""
    return query._replace(expr=query.expr.replace("$__rate_interval", window))


def quantile(q: float, metric: str, *by: str) -> Query:
    """Quantile of a histogram."""
    rate = per_second(f"{metric}_bucket", *by, "le").expr
    return Query(f"histogram_quantile({q}, {rate})", f"p{q * 100:g} {_legend(by)}".rstrip())


def mean(metric: str, *by: str) -> Query:
    """Mean of what a histogram has seen since the start."""
    total, count = (f"sum by ({', '.join(by)}) ({place(metric + x)})" for x in ("_sum", "_count"))
    return Query(f"{total} / {count}", _legend(by))


def share(metric: str, label: str, value: str, among: str, *by: str, legend: str = "") -> Query:
    """Part of the counted that has this value of a label, of those with the values ``among``."""
    whole = per_second(metric, *by).expr
    labels = _labels(metric)
    part, whole = (
        whole.replace(labels, f'{labels}, {label}=~"{values}"') for values in (value, among)
    )
    return Query(f"{part} / ({whole} > 0)", legend or _legend(by))


def risen(metric: str, more: str = "") -> str:
    """How much a counter rose since the point before, exact, first values and restarts included.

    ``increase`` misses what a counter has when it first appears, what happens between the last
    scrape of one interval and the first of the next, and gives fractions. Here the value is
    compared with that of one interval ago; where that scrape failed, with the last one within an
    hour that is of the same process. Without either, or after a reset, all that the counter has
    is new.
    """
    now = place(metric).replace("}", f"{more}}}")
    before = f"{now} offset $__interval"
    known = f"last_over_time({now}[1h] offset $__interval)"
    when = f"last_over_time(timestamp({now})[1h:{SCRAPE_INTERVAL}] offset $__interval)"
    started = f"on (job, instance) group_left () {place('process_start_time_seconds')}"
    return f"({now} - ({before} or ({known} and {when} > {started})) >= 0 or {now})"


def each(metric: str, *by: str, legend: str = "") -> Query:
    """Count between two points of the graph."""
    return Query(f"sum by ({', '.join(by)}) ({risen(metric)})", legend or _legend(by))


def _labels(metric: str) -> str:
    if metric.startswith(FREE):
        return JOB
    return ESTIMATOR if metric.startswith(BY_ESTIMATOR) else UNIVERSE


def _legend(by: tuple[str, ...]) -> str:
    return " ".join(f"{{{{{label}}}}}" for label in by)


# metrics that know of no universe, and those that know of an estimator too
FREE = (
    "build_info",
    "compile_seconds",
    "log_lines_dropped_total",
    "event_loop_lag_seconds",
    "published_",
    "view_",
    "http_refused_total",
    "feed_",
)
BY_ESTIMATOR = (
    "matrices_total",
    "last_matrix_",
    "sequence",
    "log_score_gain_nats",
    "qlike",
    "surprise_ratio",
    "band_pairs_total",
    "average_correlation",
    "top_eigenvalue_share",
    "effective_bets",
    "crisis_distance",
    "min_eigenvalue",
    "repair_ratio",
    "effective_observations",
    "capped_pairs",
    "doubtful_variances",
    "audit_difference",
    "pair_",
)
