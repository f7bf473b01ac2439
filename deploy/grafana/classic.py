"""Dashboards in the classic model, schema version 42, which newer versions of Grafana migrate."""

from collections.abc import Iterable, Iterator
from typing import Any

from deploy.grafana.blocks import (
    COLOURS,
    COLUMNS,
    JOB,
    SCRAPE_INTERVAL,
    UNIVERSE,
    Dashboard,
    Panel,
    Query,
    place,
    risen,
)

SCHEMA_VERSION = 42
TAG = "stream-calib"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
HEIGHT = {"stat": 4, "timeseries": 8, "heatmap": 8}
# the metrics that a process has from the start: services, and feeds
KNOWN = '{__name__=~"stream_calib_build_info|stream_calib_feed_waiting_ticks"}'
VARIABLES = {
    "job": f"label_values({KNOWN}, job)",
    "universe": f"label_values(stream_calib_bars_total{{{JOB}}}, universe)",
    "estimator": f"label_values(stream_calib_matrices_total{{{UNIVERSE}}}, estimator)",
}

TURNS = ', type=~"refit_requested|refit_failed|refit_rejected|refit_rolled_back|drift_refuted"'
VERSION = f"max by (job, universe) ({place('model_version')})"
VERSION_BEFORE = (
    f"max by (job, universe) (last_over_time({place('model_version')}[1h] offset $__interval))"
)
# name: (colour, expression, title, text); each is above 0 at the one point after which it happened
MARKS = {
    "Drift alarms": (
        "red",
        f"sum by (universe, alternative) ({risen('drift_alarms_total')}) > 0",
        "Drift alarm",
        "{{universe}}: {{alternative}}",
    ),
    "Models installed": (
        "green",
        'count_values by (universe) ("version", '
        f"{VERSION} > 1 unless {VERSION} == {VERSION_BEFORE})",
        "Model installed",
        "{{universe}}: version {{version}}",
    ),
    "Refits": (
        "blue",
        f"sum by (universe, type) ({risen('events_total', TURNS)}) > 0",
        "{{type}}",
        "{{universe}}",
    ),
}


def classic(board: Dashboard) -> dict[str, Any]:
    """Return a dashboard as Grafana reads it."""
    return {
        "uid": board.uid,
        "title": board.title,
        "description": board.description,
        "tags": [TAG],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,  # one cross hair for all panels
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "links": [_link_to_all()],
        "annotations": {"list": [_annotation(name) for name in MARKS]},
        "templating": {"list": list(_variables())},
        "panels": list(_panels(board)),
    }


def _link_to_all() -> dict[str, Any]:
    return {
        "type": "dashboards",
        "tags": [TAG],
        "title": "stream_calib",
        "tooltip": "The other dashboards, with the same time and choice",
        "icon": "external link",
        "asDropdown": False,
        "keepTime": True,
        "includeVars": True,
        "targetBlank": False,
    }


def _link(uid: str) -> dict[str, Any]:
    return {
        "type": "link",
        "title": "More",
        "tooltip": "",
        "icon": "dashboard",
        "tags": [],
        "url": f"/d/{uid}?${{__url_time_range}}&${{__all_variables}}",
        "asDropdown": False,
        "keepTime": False,  # the address has it
        "includeVars": False,
        "targetBlank": False,
    }


def _annotation(name: str) -> dict[str, Any]:
    colour, expr, title, text = MARKS[name]
    return {
        "name": name,
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": colour,
        "titleFormat": title,
        "textFormat": text,
        "tagKeys": "universe",
        "useValueForTime": False,
        "target": {
            "refId": "Anno",
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": expr,
            "interval": SCRAPE_INTERVAL,
            "instant": False,
            "range": True,
        },
    }


def _variables() -> Iterator[dict[str, Any]]:
    yield {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
    }
    for name, query in VARIABLES.items():
        yield {
            "name": name,
            "label": name.capitalize(),
            "type": "query",
            "datasource": DATASOURCE,
            "definition": query,
            "query": {"query": query, "refId": name},
            "refresh": 2,  # when the time range changes
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        }


def _panels(board: Dashboard) -> Iterator[dict[str, Any]]:
    number, y = 0, 0
    for title, panels in board.rows.items():
        number += 1
        at = {"h": 1, "w": COLUMNS, "x": 0, "y": y}
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": at,
               "panels": []}  # fmt: skip
        y += 1
        for line in _lines_of(panels):
            x, height = 0, max(HEIGHT[panel.kind] for panel in line)
            for panel in line:
                number += 1
                at = {"h": height, "w": panel.width, "x": x, "y": y}
                yield {"id": number, "gridPos": at, **_panel(panel)}
                x += panel.width
            assert x == COLUMNS, f"a line of {title} is not full"
            y += height


def _lines_of(panels: Iterable[Panel]) -> Iterator[list[Panel]]:
    line: list[Panel] = []
    for panel in panels:
        line.append(panel)
        if sum(panel.width for panel in line) >= COLUMNS:
            yield line
            line = []
    assert not line


def _panel(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "thresholds": {"mode": "absolute", "steps": _steps(panel)},
        "mappings": [
            {"type": "value", "options": {value: {"index": index, "text": text}}}
            for index, (value, text) in enumerate(panel.labels.items())
        ],
    }
    bounds = {"min": panel.low, "max": panel.high}
    defaults |= {name: bound for name, bound in bounds.items() if bound is not None}
    if panel.kind == "timeseries":
        defaults |= {"color": {"mode": "palette-classic"}, "custom": _drawing(panel)}
    options = OPTIONS[panel.kind] | ({"textMode": panel.text} if panel.kind == "stat" else {})
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "links": [_link(panel.leads_to)] if panel.leads_to else [],
        "fieldConfig": {"defaults": defaults, "overrides": list(_overrides(panel))},
        "options": options,
        "targets": [
            _target(letter, query, panel)
            for letter, query in zip("ABCDEF", panel.queries, strict=False)
        ],
    }


def _steps(panel: Panel) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = [{"color": color, "value": value} for color, value in panel.steps]
    steps = steps or [{"color": "green", "value": 0}]
    steps[0]["value"] = None  # the first colour goes down without end
    return steps


def _overrides(panel: Panel) -> Iterator[dict[str, Any]]:
    legends = [query.legend for query in panel.queries]
    last = {legend.split(" ")[-1] for legend in legends if "{{pair}}" not in legend}
    for label, colours in COLOURS.items():
        if f"{{{{{label}}}}}" in last:
            for value, colour in colours.items():
                shades = {"mode": "shades", "fixedColor": colour}
                yield _override(f"/(^| ){value}$/", {"color": shades})
    for word, unit in panel.right.items():
        axis = {"custom.axisPlacement": "right"} if panel.kind == "timeseries" else {}
        yield _override(f"/ {word}$/", {"unit": unit, **axis})
    if any(legend.startswith(("low ", "high ")) for legend in legends):
        dashed = {"custom.lineStyle": {"fill": "dash", "dash": [4, 4]}, "custom.fillOpacity": 0}
        yield _override("/^(low|high) /", dashed)


def _override(series: str, properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "matcher": {"id": "byRegexp", "options": series},
        "properties": [{"id": name, "value": value} for name, value in properties.items()],
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


def _drawing(panel: Panel) -> dict[str, Any]:
    bars = panel.style == "bars"
    return {
        "drawStyle": panel.style,
        "lineWidth": 1,
        "fillOpacity": 60 if bars else 8,
        "showPoints": "never" if bars else "auto",
        "spanNulls": False,
        "thresholdsStyle": {"mode": "dashed" if len(panel.steps) > 1 else "off"},
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
}
