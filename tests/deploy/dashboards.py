"""The dashboards as Grafana reads them, and their queries as Grafana would ask them."""

import json
from typing import Any

from deploy.grafana import build
from deploy.grafana.blocks import SCRAPE_INTERVAL

DASHBOARDS: list[dict[str, Any]] = [
    json.loads((build.FOLDER / board.file).read_text()) for board in build.DASHBOARDS
]


def panels_of(board: dict[str, Any]) -> list[dict[str, Any]]:
    """Return its panels without the titles of rows."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def expressions(board: dict[str, Any], title: str | None = None) -> list[str]:
    """Return the expressions of one panel, or of all."""
    return [
        target["expr"]
        for panel in panels_of(board)
        if title in {None, panel["title"]}
        for target in panel["targets"]
    ]


def annotations() -> list[str]:
    """Return the expressions of the annotations, which all dashboards have."""
    (marks,) = {
        tuple(mark["target"]["expr"] for mark in board["annotations"]["list"])
        for board in DASHBOARDS
    }
    return list(marks)


def variables() -> list[str]:
    """Return the queries of the variables, which all dashboards have."""
    (queries,) = {
        tuple(v["definition"] for v in board["templating"]["list"] if v["type"] == "query")
        for board in DASHBOARDS
    }
    return list(queries)


def filled(expression: str, step: str = "1s", rate_interval: str = "10s") -> str:
    """Put in what Grafana would, with everything chosen."""
    given = {"$__rate_interval": rate_interval, "$__interval": step}
    if step == "1s":  # scraped every second too
        given[f":{SCRAPE_INTERVAL}]"] = ":1s]"
    given |= dict.fromkeys(("$job", "$universe", "$estimator"), ".+")
    for variable, text in given.items():
        expression = expression.replace(variable, text)
    return expression
