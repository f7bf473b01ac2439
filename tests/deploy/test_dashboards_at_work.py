"""Every query of every dashboard, asked of a Prometheus that scrapes what really runs."""

import math
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

pytest.importorskip("ccxt", reason="live feeds need the extra feed")

from deploy.grafana.classic import MARKS, VARIABLES
from tests.deploy.at_work import Run, run_through
from tests.deploy.dashboards import DASHBOARDS, filled, panels_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

PANELS = [
    (board["uid"], panel["title"], target)
    for board in DASHBOARDS
    for panel in panels_of(board)
    for target in panel["targets"]
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def run(
    kafka_bootstrap: str,
    require_binary: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Run]:
    folder = tmp_path_factory.mktemp("boards")
    async with run_through(folder, kafka_bootstrap, require_binary("prometheus")) as run:
        yield run


async def over_time(run: Run, expression: str) -> list[dict[str, Any]]:
    """Ask as a graph does; return the series that have a number somewhere."""
    span = {"start": str(run.began_s), "end": str(run.ended_s), "step": "1"}
    found = (await run.watched.get("query_range", query=filled(expression), **span))["result"]
    return [one for one in found if not all(math.isnan(float(value)) for _, value in one["values"])]


async def test_every_panel_shows_data(run: Run) -> None:
    silent = set()
    for uid, title, target in PANELS:
        ask = run.watched.query if target["instant"] else None
        found = await ask(filled(target["expr"])) if ask else await over_time(run, target["expr"])
        if not found:
            silent.add((uid, title, target["refId"], filled(target["expr"])))
    assert silent == set()


async def test_each_series_is_named_by_labels_that_it_has(run: Run) -> None:
    for _, title, target in PANELS:
        wanted = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        for series in await over_time(run, target["expr"]):
            nothing = "vector(0)" in target["expr"] and not series["metric"]
            assert nothing or wanted <= set(series["metric"]), title


async def test_every_variable_has_values(run: Run) -> None:
    found = {}
    for name, query in VARIABLES.items():
        asked = re.fullmatch(r"label_values\((.+), (\w+)\)", query)
        assert asked is not None
        selector = {"match[]": filled(asked[1])}
        found[name] = await run.watched.get(f"label/{asked[2]}/values", **selector)
    assert found == {
        "job": ["stream_calib", "stream_calib_feed"],
        "universe": ["demo"],
        "estimator": ["dcc", "ewma"],
    }


def rendered(form: str, labels: dict[str, str]) -> str:
    """Put labels into a text as Grafana does."""
    return re.sub(r"{{(\w+)}}", lambda label: labels[label[1]], form)


async def marks(run: Run, name: str) -> dict[tuple[str, str], list[float]]:
    """Return when each text of an annotation shows, as Grafana makes it of the answer."""
    _, expression, title, text = MARKS[name]
    return {
        (rendered(title, one["metric"]), rendered(text, one["metric"])): [
            at for at, value in one["values"] if float(value) > 0
        ]
        for one in await over_time(run, expression)
    }


async def test_each_drift_alarm_is_marked_once(run: Run) -> None:
    shown = await marks(run, "Drift alarms")
    counted = await run.watched.query("stream_calib_drift_alarms_total > 0")
    assert counted
    # two of a kind within a second would be one mark
    assert {text: len(times) for (_, text), times in shown.items()} == {
        f"demo: {one['metric']['alternative']}": float(one["value"][1]) for one in counted
    }


async def test_each_installed_model_is_marked_once_with_its_number(run: Run) -> None:
    shown = await marks(run, "Models installed")
    (last,) = await run.watched.query("max(stream_calib_model_version)")
    numbers = {text.removeprefix("demo: version ") for _, text in shown}
    assert str(last["value"][1]) in numbers
    assert numbers <= {str(n) for n in range(2, 1 + int(last["value"][1]))} | {last["value"][1]}
    assert {len(times) for times in shown.values()} == {1}


async def test_refits_are_marked(run: Run) -> None:
    shown = await marks(run, "Refits")
    assert ("refit_requested", "demo") in shown


async def test_the_alert_of_a_shift_fires_and_the_overview_counts_it(run: Run) -> None:
    firing = await run.watched.query('ALERTS{alertname="StreamCalibRegimeShift"}')
    assert {one["metric"]["alertstate"] for one in firing} == {"firing"}
    count = next(target["expr"] for _, title, target in PANELS if title == "Alerts firing")
    (shown,) = await run.watched.query(filled(count))
    assert float(shown["value"][1]) >= len(firing) > 0
