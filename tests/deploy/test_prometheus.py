"""Alerts and rules: checked by promtool, and by a real Prometheus that scrapes us."""

import asyncio
import contextlib
import re
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml
from pydantic import SecretStr

from deploy.prometheus.reference import RULES, rules
from stream_calib.adapters.http import Health, HttpServer
from stream_calib.adapters.prometheus import FeedMetrics, PrometheusObserver
from stream_calib.config import HttpConfig
from stream_calib.values import FeedCounts
from tests.deploy.dashboards import DASHBOARDS, expressions, filled
from tests.deploy.exported import exported_names
from tests.deploy.running import CONFIG, FOLDER, answers, prometheus, whole_config
from tests.deploy.scraping import DATA_S, TOKEN_FILE, Watched, fast_config
from tests.real_parts import ROOT
from tests.web.observations import PAIRS, tell

RULE_TESTS = sorted((FOLDER / "tests").glob("*.yml"))
TOKEN = "a-token-that-is-long"


ALERTS = [rule for rule in rules() if "alert" in rule]
RECORDED = [rule for rule in rules() if "record" in rule]


def panel_queries(title: str) -> list[str]:
    """Return the expressions of the first panel of this title, with the variables put in."""
    found = (expressions(board, title) for board in DASHBOARDS)
    return [filled(query, rate_interval="20s") for query in next(filter(None, found))]


def run_promtool(require_binary: Callable[[str], Path], *words: str | Path) -> None:
    command = [str(require_binary("promtool")), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_configuration(
    require_binary: Callable[[str], Path], tmp_path: Path
) -> None:
    run_promtool(require_binary, "check", "config", CONFIG)
    whole = tmp_path / "prometheus.yml"  # with what is commented out
    whole.write_text(yaml.safe_dump(whole_config()))
    (tmp_path / TOKEN_FILE).write_text(TOKEN)
    run_promtool(require_binary, "check", "config", whole)


def test_promtool_accepts_the_rules(require_binary: Callable[[str], Path]) -> None:
    run_promtool(require_binary, "check", "rules", "--lint=all", "--lint-fatal", *RULES)


def test_alerts_fire_when_they_should(require_binary: Callable[[str], Path]) -> None:
    run_promtool(require_binary, "test", "rules", *RULE_TESTS)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda rule: rule["alert"])
def test_each_alert_is_tested_to_fire_and_not_to_fire(alert: dict[str, Any]) -> None:
    cases = [
        case["exp_alerts"]
        for path in RULE_TESTS
        for group in yaml.safe_load(path.read_text())["tests"]
        for case in group.get("alert_rule_test", ())
        if case["alertname"] == alert["alert"]
    ]
    assert any(cases)
    assert not all(cases)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda rule: rule["alert"])
def test_each_alert_says_what_it_is_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["alert"].startswith("StreamCalib")
    assert "for" in alert
    assert alert["labels"]["severity"] in {"info", "warning", "critical"}
    assert set(alert["annotations"]) == {"summary", "description", "runbook"}


LEVELS = ("instance", "universe", "exchange", "universe_stage", "universe_estimator")
# none of these takes values without end; what an alert keeps of a gauge is listed there already
LABELS = {"job", "instance", "universe", "estimator", "stage", "alternative", "exchange", "le"}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_rules_keep_few_series_and_are_named_by_them(rule: dict[str, Any]) -> None:
    kept = [
        {word.strip() for word in words.split(",")}
        for words in re.findall(r"\b(?:by|on) \(([^)]*)\)", rule["expr"])
    ]
    assert all("job" in labels and labels <= LABELS for labels in kept)
    if "record" in rule:
        level, metric, operation = rule["record"].split(":")
        assert level in LEVELS
        assert metric.startswith("stream_calib_")
        assert re.fullmatch(r"sum|p99_5m|(?:ratio_)?(?:rate|increase)\d+[mhd]", operation)
        assert all(set(level.split("_")) <= labels for labels in kept)


def test_the_runbook_names_every_alert() -> None:
    for alert in ALERTS:
        file, anchor = alert["annotations"]["runbook"].split("#")
        _, _, runbook = (ROOT / file).read_text().partition(f"# {anchor.capitalize()}\n")
        assert alert["alert"] in runbook


def test_rules_use_exported_names_only() -> None:
    recorded = {rule["record"] for rule in RECORDED}
    metric = re.compile(r"[\w:]*stream_calib_\w+(?::\w+)*|\b(?:process|python)_\w+")
    bare = [
        re.sub(r'"[^"]*"', "", expression) for expression in (rule["expr"] for rule in rules())
    ]  # a job has a name too
    names = {name for expression in bare for name in metric.findall(expression)}
    assert len(names) > 15
    assert names <= exported_names() | recorded


def test_the_scrape_selects_the_job_of_the_alerts() -> None:
    default = HttpConfig()
    expressions = " ".join(alert["expr"] for alert in ALERTS)
    for scrape, port in zip(whole_config()["scrape_configs"], (default.port, 9465), strict=True):
        assert f'up{{job="{scrape["job_name"]}"}}' in expressions
        assert scrape["static_configs"][0]["targets"] == [f"{default.host}:{port}"]


async def keep_telling(observer: PrometheusObserver, counts: FeedCounts) -> None:
    sequence = 0
    while True:
        sequence += 1
        counts.messages += 10
        counts.written += 10
        tell(observer, "fx", sequence)
        await asyncio.sleep(0.1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched(
    require_binary: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Watched]:
    binary = require_binary("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    observer = PrometheusObserver("0.1.0", pairs=PAIRS)
    observer.compiled(1.5)
    counts = FeedCounts(lag_s=0.1)
    feed = FeedMetrics({"binance": counts}, lambda: 0)
    settings = HttpConfig(port=0, token=SecretStr(TOKEN))
    ready = Health(ready=True)
    servers = [
        HttpServer(own, render, lambda: ready, "0.1.0", lambda _: None)
        for own, render in ((settings, observer.render), (HttpConfig(port=0), feed.render))
    ]
    for server in servers:
        await server.start()
    (folder / TOKEN_FILE).write_text(TOKEN)
    config = folder / "prometheus.yml"
    config.write_text(fast_config(*(f"127.0.0.1:{server.port}" for server in servers)))
    telling = asyncio.create_task(keep_telling(observer, counts))
    async with aiohttp.ClientSession() as client, prometheus(binary, config, folder) as url:
        assert await answers(client, url), (folder / "prometheus.log").read_text()
        yield Watched(url, client)
    telling.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await telling
    for server in servers:
        await server.close()


@pytest.mark.asyncio(loop_scope="module")
async def test_every_recording_rule_has_data(watched: Watched) -> None:
    assert await watched.unanswered([rule["record"] for rule in RECORDED]) == []


@pytest.mark.asyncio(loop_scope="module")
async def test_a_healthy_service_raises_no_alert(watched: Watched) -> None:
    assert await watched.unanswered(['up{job="stream_calib"} == 1']) == []
    assert await watched.unanswered([rule["record"] for rule in RECORDED]) == []
    groups = (await watched.get("rules"))["groups"]
    loaded = {rule["name"]: rule for group in groups for rule in group["rules"]}
    names = {rule.get("alert") or rule["record"] for rule in rules()}
    assert {name for name, rule in loaded.items() if rule["health"] == "ok"} == names
    # what is made up has rejects and restarts at a rate no healthy service has
    pending = {alert["labels"]["alertname"] for alert in (await watched.get("alerts"))["alerts"]}
    assert pending <= {"StreamCalibRejectsHigh", "StreamCalibStartingOver", "StreamCalibDown"}
    jobs = {target["labels"]["job"] for target in (await watched.get("targets"))["activeTargets"]}
    assert jobs == {"stream_calib", "stream_calib_feed"}


TOLD: dict[str, list[float]] = {  # by observations.tell
    "Up": [1],
    "Alerts firing": [0],
    "Records behind": [6],
    "Symbols ready": [3 / 4],
    "Watermark and matrix behind newest": [3],
    "Repair": [0.03],
    "Smallest eigenvalue": [0.48],
    "Effective observations": [50],
    "Rejected and late": [16 / 115, 4 / 104],
}


@pytest.mark.parametrize("title", TOLD)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_panel_shows_what_was_told(watched: Watched, title: str) -> None:
    queries = panel_queries(title)[: len(TOLD[title])]
    assert await watched.unanswered(queries) == []
    # a scrape may fall between two counters of one turn; early on that is a few per cent
    expected, deadline = pytest.approx(TOLD[title], rel=0.1), time.monotonic() + DATA_S
    shown: list[float] = []
    while shown != expected and time.monotonic() < deadline:  # one that came too late shows 0
        answers = [await watched.query(query) for query in queries]
        shown = [float(answer[0]["value"][1]) for answer in answers if answer]
        await asyncio.sleep(0.1)
    assert shown == expected


@pytest.mark.asyncio(loop_scope="module")
async def test_prometheus_takes_open_metrics_without_complaint(watched: Watched) -> None:
    assert await watched.unanswered(['up{job="stream_calib"} == 1']) == []
    assert await watched.unanswered(['up{job="stream_calib_feed"} == 1']) == []
    targets = (await watched.get("targets"))["activeTargets"]
    assert [(target["health"], target["lastError"]) for target in targets] == 2 * [("up", "")]
    name = "stream_calib_ticks"  # with _total in the plain text format
    metadata = await watched.get("metadata", metric=name)
    assert metadata[name][0]["type"] == "counter"
