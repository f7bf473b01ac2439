"""What Grafana is given, checked without running Grafana."""

import json
import re
from collections import Counter
from itertools import combinations
from pathlib import PurePosixPath
from typing import Any

import pytest
import yaml

from deploy.grafana import build
from tests.real_parts import ROOT

FOLDER = ROOT / "deploy" / "grafana"
INSTALLED = PurePosixPath("/etc/grafana")  # where deploy/grafana is copied or mounted to
DASHBOARD = json.loads(build.PATH.read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
BUILT_IN = {"__rate_interval", "__interval", "__all"}


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


def test_the_dashboard_is_what_its_code_makes() -> None:
    assert build.PATH.read_text() == build.text()


def test_the_dashboard_is_classic_with_a_uid_and_no_number() -> None:
    assert DASHBOARD["schemaVersion"] == 42
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", DASHBOARD["uid"])
    assert not {"id", "__inputs", "__requires", "apiVersion", "spec"} & set(DASHBOARD)
    assert DASHBOARD["title"]


def test_panel_numbers_are_unique() -> None:
    numbers = Counter(panel["id"] for panel in DASHBOARD["panels"])
    assert max(numbers.values()) == 1


def test_rows_are_those_promised() -> None:
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == [
        "At a glance",
        "Throughput and lag",
        "Latency",
        "Matrix quality and market regime",
        "Regime and refits",
        "Calibration",
        "Rejects",
        "Resources",
    ]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: f"{panel['id']}-{panel['title']}")
def test_each_panel_is_whole(panel: dict[str, Any]) -> None:
    assert panel["type"] in {"stat", "timeseries", "heatmap"}
    assert panel["title"]
    assert panel["description"].endswith(".")
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"]
    steps = defaults["thresholds"]["steps"]
    assert steps[0]["value"] is None
    values = [step["value"] for step in steps[1:]]
    assert values == sorted(values)
    assert panel["targets"]
    assert [target["refId"] for target in panel["targets"]] == list("ABC"[: len(panel["targets"])])
    assert all(target["instant"] != target["range"] for target in panel["targets"])
    assert all(
        target["expr"].count("(") == target["expr"].count(")") for target in panel["targets"]
    )


def test_panels_do_not_overlap_and_fill_the_width() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above
    lines: Counter[int] = Counter()
    for place in places:
        lines[place["y"]] += place["w"]
    assert set(lines.values()) == {24}


def test_every_query_goes_to_the_chosen_data_source() -> None:
    places = [*PANELS, *(target for panel in PANELS for target in panel["targets"])]
    places += DASHBOARD["annotations"]["list"]
    places += [v for v in DASHBOARD["templating"]["list"] if v["type"] == "query"]
    wanted = {"type": "prometheus", "uid": "${datasource}"}
    assert all(place["datasource"] == wanted for place in places)


def test_variables_used_are_declared_and_declared_ones_used() -> None:
    variables = DASHBOARD["templating"]["list"]
    declared = {variable["name"] for variable in variables}
    assert declared == {"datasource", "job", "universe"}
    used = {name for text in strings(DASHBOARD) for name in re.findall(r"\$\{?(\w+)", text)}
    assert used - BUILT_IN == declared


def test_no_label_is_a_symbol_or_a_pair() -> None:
    legends = " ".join(target["legendFormat"] for panel in PANELS for target in panel["targets"])
    labels = set(re.findall(r"{{(\w+)}}", legends))
    assert labels
    assert not labels & {"symbol", "pair", "asset"}


def test_the_data_source_is_provisioned() -> None:
    (path,) = (FOLDER / "provisioning" / "datasources").iterdir()
    provisioned = yaml.safe_load(path.read_text())
    assert provisioned["apiVersion"] == 1
    (source,) = provisioned["datasources"]
    assert source["type"] == "prometheus"
    assert source["uid"]
    assert re.fullmatch(r"http://[\w.]+:9090", source["url"])
    scraped = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == scraped["global"]["scrape_interval"]


def test_the_dashboard_lies_where_its_provider_looks() -> None:
    (path,) = (FOLDER / "provisioning" / "dashboards").iterdir()
    provisioned = yaml.safe_load(path.read_text())
    assert provisioned["apiVersion"] == 1
    (provider,) = provisioned["providers"]
    assert provider["type"] == "file"
    looked_in = FOLDER / PurePosixPath(provider["options"]["path"]).relative_to(INSTALLED)
    assert build.PATH.parent == looked_in
    assert [file.name for file in looked_in.iterdir()] == ["stream_calib.json"]
