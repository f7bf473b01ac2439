"""When an annotation shows, asked of Prometheus' own engine about series made by hand.

Grafana marks each point of the range, one ``$__interval`` after the other, at which an expression
is above 0. Each case is series as they were scraped every 10 s (``_`` for nothing, ``stale`` for
the sign that Prometheus leaves where a series ends), and where marks have to be.
"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from deploy.grafana.classic import MARKS
from tests.deploy.dashboards import filled

SCRAPE_S = 10
ALARM = "stream_calib_drift_alarms_total"
EVENT = "stream_calib_events_total"
MODEL = "stream_calib_model_version"
US = 'job="j", instance="i", universe="fx"'
OTHERS = 'job="j", instance="k", universe="fx"'
FUSING, ROTATION = (f'{US}, alternative="{name}"' for name in ("fusing", "rotation"))
FUSING_SHOWN = '{universe="fx", alternative="fusing"}'
STARTED, AGAIN = 'process_start_time_seconds{job="j", instance="i"}', "-5x5 45x20"


class Case(NamedTuple):
    """Series by name, and what is shown when; seconds are those of the points of the graph."""

    mark: str
    series: dict[str, str]
    shown: dict[int, dict[str, float]]
    step_s: int = 10
    first_s: int = 0


CASES = {
    "a counter that stands at 0 and rises": Case(
        "Drift alarms", {f"{ALARM}{{{FUSING}}}": "0 0 0 1 1 1 2 2"},
        {30: {FUSING_SHOWN: 1}, 60: {FUSING_SHOWN: 1}},
    ),
    "a counter that appears with 1": Case(
        "Drift alarms", {f"{ALARM}{{{FUSING}}}": "_ _ _ 1 1 1"}, {30: {FUSING_SHOWN: 1}},
    ),
    "two alternatives": Case(
        "Drift alarms",
        {f"{ALARM}{{{FUSING}}}": "0 0 1 1 1", f"{ALARM}{{{ROTATION}}}": "0 0 0 0 1"},
        {20: {FUSING_SHOWN: 1}, 40: {'{universe="fx", alternative="rotation"}': 1}},
    ),
    "points further apart than scrapes: what is between two is not lost": Case(
        "Drift alarms", {f"{ALARM}{{{FUSING}}}": "0 0 0 0 1 1 1 2 2 2 2 2 2"},
        {65: {FUSING_SHOWN: 1}, 95: {FUSING_SHOWN: 1}}, step_s=30, first_s=5,
    ),
    "a restart, after which the counter is at 0": Case(
        "Drift alarms",
        {f"{ALARM}{{{FUSING}}}": "0 2 2 2 stale _ 0 0 1 1", STARTED: AGAIN},
        {10: {FUSING_SHOWN: 2}, 80: {FUSING_SHOWN: 1}},
    ),
    "a restart, after which it comes back as it was": Case(
        "Drift alarms",
        {f"{ALARM}{{{FUSING}}}": "0 1 1 1 stale _ 1 1", STARTED: AGAIN},
        {10: {FUSING_SHOWN: 1}, 60: {FUSING_SHOWN: 1}},
    ),
    "a restart that no scrape saw": Case(
        "Drift alarms", {f"{ALARM}{{{FUSING}}}": "0 3 3 1 1", STARTED: AGAIN},
        {10: {FUSING_SHOWN: 3}, 30: {FUSING_SHOWN: 1}},
    ),
    "scrapes that failed, without a restart": Case(
        "Drift alarms",
        {f"{ALARM}{{{FUSING}}}": "0 1 1 stale _ _ 1 1 2", STARTED: "-5 -5 -5 stale _ _ -5x9"},
        {10: {FUSING_SHOWN: 1}, 80: {FUSING_SHOWN: 1}},
    ),
    "scrapes that failed soon after a restart": Case(
        "Drift alarms",
        {
            f"{ALARM}{{{FUSING}}}": "0 1 stale 0 2 2 stale _ 2 2 3",
            STARTED: "-5 -5 stale 25 25 25 stale _ 25 25 25",
        },
        {10: {FUSING_SHOWN: 1}, 40: {FUSING_SHOWN: 2}, 100: {FUSING_SHOWN: 1}},
    ),
    "an event that is of no interest": Case(
        "Refits", {f'{EVENT}{{{US}, type="symbol_ready"}}': "_ 1 2 3"}, {},
    ),
    "a fit that failed": Case(
        "Refits", {f'{EVENT}{{{US}, type="refit_failed"}}': "_ 1 1 2"},
        {10: {'{universe="fx", type="refit_failed"}': 1},
         30: {'{universe="fx", type="refit_failed"}': 1}},
    ),
    "a first model": Case(
        "Models installed", {f"{MODEL}{{{US}}}": "_ 2 2 3 3"},
        {10: {'{universe="fx", version="2"}': 1}, 30: {'{universe="fx", version="3"}': 1}},
    ),
    "no model yet": Case("Models installed", {f"{MODEL}{{{US}}}": "_ 1 1 1"}, {}),
    "a restart under the model that was in force": Case(
        "Models installed", {f"{MODEL}{{{US}}}": "2 3 3 stale _ _ 3 3 4", STARTED: AGAIN},
        {0: {'{universe="fx", version="2"}': 1}, 10: {'{universe="fx", version="3"}': 1},
         80: {'{universe="fx", version="4"}': 1}},
    ),
    "another process takes over": Case(
        "Models installed",
        {f"{MODEL}{{{US}}}": "2 2 2 stale", f"{MODEL}{{{OTHERS}}}": "_ _ _ _ 2 2"},
        {0: {'{universe="fx", version="2"}': 1}},
    ),
}  # fmt: skip


def as_rule_test(case: Case) -> dict[str, Any]:
    """Return what promtool has to ask, and what it has to be told."""
    expression = filled(MARKS[case.mark][1], step=f"{case.step_s}s")
    points = range(case.first_s, 130, case.step_s)
    assert set(case.shown) <= set(points)
    return {
        "interval": f"{SCRAPE_S}s",
        "input_series": [{"series": k, "values": v} for k, v in case.series.items()],
        "promql_expr_test": [
            {
                "expr": expression,
                "eval_time": f"{at_s}s",
                "exp_samples": [
                    {"labels": labels, "value": value}
                    for labels, value in case.shown.get(at_s, {}).items()
                ],
            }
            for at_s in points
        ],
    }


@pytest.mark.parametrize("name", CASES)
def test_what_happens_is_marked_once(
    name: str, require_binary: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "marks.yml"
    path.write_text(
        json.dumps({"evaluation_interval": "10s", "tests": [as_rule_test(CASES[name])]})
    )
    command = [str(require_binary("promtool")), "test", "rules", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
