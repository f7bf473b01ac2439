"""What Grafana is given, checked without running Grafana."""

import json
import re
import subprocess
from collections import Counter
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from deploy.grafana import build
from deploy.grafana.classic import MARKS, TAG
from tests.deploy.dashboards import DASHBOARDS, annotations, expressions, panels_of, variables
from tests.deploy.exported import exported_names
from tests.real_parts import ROOT

FOLDER = ROOT / "deploy" / "grafana"
INSTALLED = PurePosixPath("/etc/grafana")  # where deploy/grafana is copied or mounted to
PANELS = [(board["uid"], panel) for board in DASHBOARDS for panel in panels_of(board)]
BUILT_IN = {"__rate_interval", "__interval", "__all", "__url_time_range", "__all_variables"}
# counted for tests and programs, and of no use on a wall: the time of the newest is shown as lag
NOT_SHOWN = {
    "stream_calib_publishing_period_seconds",
    "stream_calib_watermark_timestamp_seconds",
}

each_board = pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: board["uid"])
each_panel = pytest.mark.parametrize(
    "panel", [panel for _, panel in PANELS], ids=[f"{uid}-{panel['id']}" for uid, panel in PANELS]
)


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


def test_the_dashboards_are_what_their_code_makes() -> None:
    made = {board.file: build.text(board) for board in build.DASHBOARDS}
    assert {path.name: path.read_text() for path in build.FOLDER.iterdir()} == made


def test_uids_stay_as_they_are_or_links_and_bookmarks_break() -> None:
    assert {board["uid"]: board["title"] for board in DASHBOARDS} == {
        "stream-calib": "stream_calib: overview",
        "stream-calib-market": "stream_calib: market regime",
        "stream-calib-calibration": "stream_calib: model calibration",
        "stream-calib-pipeline": "stream_calib: pipeline",
        "stream-calib-kafka": "stream_calib: Kafka",
    }


@each_board
def test_a_dashboard_is_classic_and_has_no_number(board: dict[str, Any]) -> None:
    assert board["schemaVersion"] == 42
    assert not {"id", "__inputs", "__requires", "apiVersion", "spec"} & set(board)
    numbers = Counter(panel["id"] for panel in board["panels"])
    assert max(numbers.values()) == 1


@each_board
def test_a_dashboard_can_be_taken_in(board: dict[str, Any]) -> None:
    assert len(panels_of(board)) <= 17
    assert board["description"].endswith(".")


@each_board
def test_every_dashboard_leads_to_the_others_with_time_and_choice(board: dict[str, Any]) -> None:
    (link,) = board["links"]
    assert (link["type"], link["tags"]) == ("dashboards", [TAG])
    assert link["keepTime"]
    assert link["includeVars"]
    assert all(TAG in other["tags"] for other in DASHBOARDS)
    # what is chosen on one has to be there on the next
    names = [variable["name"] for variable in board["templating"]["list"]]
    assert names == ["datasource", "job", "universe", "estimator"]


def test_the_overview_leads_to_all_others_from_its_panels() -> None:
    overview, *others = DASHBOARDS
    urls = [link["url"] for panel in panels_of(overview) for link in panel["links"]]
    places = {url.split("?")[0] for url in urls}
    assert places == {f"/d/{board['uid']}" for board in others}
    assert all("${__url_time_range}&${__all_variables}" in url for url in urls)


def test_only_the_overview_shows_what_another_dashboard_shows() -> None:
    _, *others = DASHBOARDS
    counts = Counter(query for board in others for query in expressions(board))
    assert [query for query, count in counts.items() if count > 1] == []


@each_panel
def test_a_panel_is_whole(panel: dict[str, Any]) -> None:
    assert panel["type"] in {"stat", "timeseries", "heatmap"}
    assert panel["title"]
    assert panel["description"].endswith(".")
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"]
    steps = defaults["thresholds"]["steps"]
    assert steps[0]["value"] is None
    values = [step["value"] for step in steps[1:]]
    assert values == sorted(values)
    if panel["type"] == "timeseries":
        drawn = defaults["custom"]["thresholdsStyle"]["mode"] != "off"
        assert drawn == (len(steps) > 1)
    targets = panel["targets"]
    assert [target["refId"] for target in targets] == list("ABCDE"[: len(targets)])
    assert targets
    assert all(target["instant"] != target["range"] for target in targets)


@each_panel
def test_the_name_of_a_series_says_what_it_was_summed_by(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        kept = re.search(r"\bby \(([\w, ]+)\)", target["expr"])
        labels = set(kept[1].split(", ")) - {"le"} if kept else set()
        assert labels <= named or not named


@each_board
def test_panels_do_not_overlap_and_fill_the_width(board: dict[str, Any]) -> None:
    places = [panel["gridPos"] for panel in board["panels"]]
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above
    lines: Counter[int] = Counter()
    for place in places:
        lines[place["y"]] += place["w"]
    assert set(lines.values()) == {24}
    assert min(place["w"] for place in places) >= 3


@each_board
def test_every_query_goes_to_the_chosen_data_source(board: dict[str, Any]) -> None:
    panels = panels_of(board)
    places = [*panels, *(target for panel in panels for target in panel["targets"])]
    for annotation in board["annotations"]["list"]:
        places += [annotation, annotation["target"]]
    places += [v for v in board["templating"]["list"] if v["type"] == "query"]
    wanted = {"type": "prometheus", "uid": "${datasource}"}
    assert all(place["datasource"] == wanted for place in places)


@each_board
def test_variables_used_are_declared_and_declared_ones_used(board: dict[str, Any]) -> None:
    declared = {variable["name"] for variable in board["templating"]["list"]}
    used = {name for text in strings(board) for name in re.findall(r"\$\{?(\w+)", text)}
    assert used - BUILT_IN == declared


def test_a_pair_is_a_label_of_the_watch_list_alone() -> None:
    names = {
        re.sub(r"\W.*", "", target["expr"].split("stream_calib_")[1])
        for _, panel in PANELS
        for target in panel["targets"]
        if re.search(r"{{(symbol|pair|asset)}}", target["legendFormat"])
    }
    assert names == {"pair_correlation", "pair_standard_error"}


@each_board
def test_alarms_and_refits_are_marked(board: dict[str, Any]) -> None:
    marks = {mark["name"]: mark for mark in board["annotations"]["list"]}
    assert list(marks) == ["Drift alarms", "Models installed", "Refits"] == list(MARKS)
    assert all(mark["enable"] and not mark["hide"] for mark in marks.values())
    alarm = marks["Drift alarms"]
    assert (alarm["titleFormat"], alarm["textFormat"]) == (
        "Drift alarm",
        "{{universe}}: {{alternative}}",
    )


def metrics_in(texts: list[str]) -> set[str]:
    metric = re.compile(r"\bstream_calib_\w+|\b(?:process|python)_\w+")
    return {name for text in texts for name in metric.findall(text)}


def shown() -> list[str]:
    queries = [query for board in DASHBOARDS for query in expressions(board)]
    return queries + annotations() + variables()


def test_dashboards_use_exported_names_only() -> None:
    names = metrics_in(shown())
    assert len(names) > 60
    assert names <= exported_names()


def test_every_metric_of_ours_is_shown() -> None:
    families = {re.sub("_(bucket|sum|count)$", "", name) for name in metrics_in(shown())}
    exported = {re.sub("_(bucket|sum|count)$", "", name) for name in exported_names()}
    ours = {name for name in exported if name.startswith("stream_calib_")}
    assert ours - families == NOT_SHOWN


def test_the_data_source_is_provisioned() -> None:
    (path,) = (FOLDER / "provisioning" / "datasources").iterdir()
    provisioned = yaml.safe_load(path.read_text())
    assert provisioned["apiVersion"] == 1
    (source,) = provisioned["datasources"]
    assert source["type"] == "prometheus"
    assert source["isDefault"]  # the one that the variable of a dashboard begins with
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", source["uid"])
    assert re.fullmatch(r"http://[\w.]+:9090", source["url"])
    scraped = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    interval = scraped["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == interval
    steps = {mark["target"]["interval"] for b in DASHBOARDS for mark in b["annotations"]["list"]}
    assert steps == {interval}


def test_the_dashboards_lie_where_their_provider_looks() -> None:
    (path,) = (FOLDER / "provisioning" / "dashboards").iterdir()
    provisioned = yaml.safe_load(path.read_text())
    assert provisioned["apiVersion"] == 1
    (provider,) = provisioned["providers"]
    assert provider["type"] == "file"
    assert provider["folder"]
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", provider["folderUid"])
    assert provider["folderUid"] not in {board["uid"] for board in DASHBOARDS[1:]}
    looked_in = FOLDER / PurePosixPath(provider["options"]["path"]).relative_to(INSTALLED)
    assert looked_in == build.FOLDER
    assert all(json.loads(file.read_text())["uid"] for file in looked_in.iterdir())


def test_what_the_readme_says_puts_everything_where_grafana_looks(tmp_path: Path) -> None:
    (block,) = (
        part for part in (ROOT / "README.md").read_text().split("```") if "/etc/grafana" in part
    )
    (tmp_path / "provisioning").mkdir()  # as its package makes it
    for line in block.strip().splitlines():
        if "grafana-server" not in line:
            command = line.removeprefix("sudo ").replace(str(INSTALLED), str(tmp_path)).split()
            assert command[0] == "cp"
            subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    (path,) = (tmp_path / "provisioning" / "dashboards").iterdir()
    (provider,) = yaml.safe_load(path.read_text())["providers"]
    looked_in = tmp_path / PurePosixPath(provider["options"]["path"]).relative_to(INSTALLED)
    assert {file.name for file in looked_in.iterdir()} == {b.file for b in build.DASHBOARDS}
    assert (tmp_path / "provisioning" / "datasources" / "prometheus.yml").exists()
