"""Alerts, rules and dashboard: checked by promtool, and by a real Prometheus that scrapes us."""

import asyncio
import contextlib
import json
import re
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
import pytest_asyncio
import yaml
from pydantic import SecretStr

from deploy.grafana import build
from deploy.kafka.broker import free_port
from stream_calib.adapters.http import Health, HttpServer
from stream_calib.adapters.prometheus import PrometheusObserver
from stream_calib.config import HttpConfig
from tests.real_parts import ROOT
from tests.web.observations import tell

FOLDER = ROOT / "deploy" / "prometheus"
CONFIG = FOLDER / "prometheus.yml"
RULES = sorted((FOLDER / "rules").glob("*.yml"))
RULE_TESTS = sorted((FOLDER / "tests").glob("*.yml"))
DASHBOARD = json.loads(build.PATH.read_text())
# what Grafana would put in place of its variables
VARIABLES = {"$__rate_interval": "20s", "$__interval": "20s", "$job": ".+", "$universe": ".+"}
TOKEN, TOKEN_FILE = "a-long-token", "stream_calib.token"
START_S = 30.0
DATA_S = 60.0


def rules() -> list[dict[str, Any]]:
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = [rule for rule in rules() if "alert" in rule]
RECORDED = [rule for rule in rules() if "record" in rule]


def panel_queries(title: str | None = None) -> list[str]:
    """Return the expressions of one panel, or of all, with the variables put in."""
    expressions = [
        target["expr"]
        for panel in DASHBOARD["panels"]
        if title in {None, panel["title"]}
        for target in panel.get("targets", ())
    ]
    for variable, text in VARIABLES.items():
        expressions = [expression.replace(variable, text) for expression in expressions]
    return expressions


def exported_names() -> set[str]:
    observer = PrometheusObserver("0.1.0")
    observer.compiled(1.0)
    tell(observer)
    return {sample.name for family in observer.registry.collect() for sample in family.samples}


def run_promtool(require_binary: Callable[[str], Path], *words: str | Path) -> None:
    command = [str(require_binary("promtool")), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_configuration(require_binary: Callable[[str], Path]) -> None:
    run_promtool(require_binary, "check", "config", CONFIG)


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


def test_the_runbook_names_every_alert() -> None:
    for alert in ALERTS:
        file, anchor = alert["annotations"]["runbook"].split("#")
        _, _, runbook = (ROOT / file).read_text().partition(f"# {anchor.capitalize()}\n")
        assert alert["alert"] in runbook


def test_rules_and_dashboard_use_exported_names_only() -> None:
    annotations = [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]
    variables = [
        variable["definition"]
        for variable in DASHBOARD["templating"]["list"]
        if variable["type"] == "query"
    ]
    expressions = [rule["expr"] for rule in rules()] + panel_queries() + annotations + variables
    recorded = {rule["record"] for rule in RECORDED}
    metric = re.compile(r"[\w:]*stream_calib_\w+(?::\w+)*|\b(?:process|python)_\w+")
    names = {name for expression in expressions for name in metric.findall(expression)}
    assert len(names) > 30
    assert names <= exported_names() | recorded


def test_the_scrape_selects_the_job_of_the_alerts() -> None:
    (scrape,) = yaml.safe_load(CONFIG.read_text())["scrape_configs"]
    assert f'job="{scrape["job_name"]}"' in ALERTS[0]["expr"]
    default = HttpConfig()
    assert scrape["static_configs"][0]["targets"] == [f"{default.host}:{default.port}"]


class Watched(NamedTuple):
    """A Prometheus that scrapes a server which is told of ticks all the time."""

    url: str
    client: aiohttp.ClientSession

    async def get(self, path: str, **params: str) -> Any:
        async with self.client.get(f"{self.url}/api/v1/{path}", params=params) as response:
            answer = await response.json()
        assert answer["status"] == "success", (params, answer)
        return answer["data"]

    async def query(self, expression: str) -> list[Any]:
        result: list[Any] = (await self.get("query", query=expression))["result"]
        return result

    async def unanswered(self, expressions: list[str]) -> list[str]:
        """Ask until every expression has a number, or the time is up; return those without."""
        deadline = time.monotonic() + DATA_S
        while expressions and time.monotonic() < deadline:
            answers = {query: await self.query(query) for query in expressions}
            expressions = [
                query
                for query, series in answers.items()
                if all(one["value"][1] == "NaN" for one in series)
            ]
            if expressions:
                await asyncio.sleep(0.5)
        return expressions


@contextlib.asynccontextmanager
async def prometheus(binary: Path, config: Path, folder: Path) -> AsyncIterator[str]:
    """Run a Prometheus on the loopback address until the context ends."""
    port = free_port()
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(binary),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
            stdout=log,
            stderr=log,
        )
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 20)
            except TimeoutError:
                process.kill()
                await process.wait()


async def answers(client: aiohttp.ClientSession, url: str) -> bool:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(aiohttp.ClientConnectorError):
            async with client.get(f"{url}/-/ready") as response:
                if response.status == 200:
                    return True
        await asyncio.sleep(0.1)
    return False


async def keep_telling(observer: PrometheusObserver) -> None:
    sequence = 0
    while True:
        sequence += 1
        tell(observer, "fx", sequence)
        await asyncio.sleep(0.1)


def fast_config(target: str) -> str:
    """Return the shipped configuration, quick, for this one target, with its token put to use."""
    commented = re.compile(r"^    # (authorization:|  type:|  credentials_file:)", re.MULTILINE)
    config = yaml.safe_load(commented.sub(r"    \1", CONFIG.read_text()))
    for name in ("scrape_interval", "evaluation_interval"):
        config["global"][name] = "1s"
    config["rule_files"] = [str(CONFIG.parent / pattern) for pattern in config["rule_files"]]
    (scrape,) = config["scrape_configs"]
    scrape["static_configs"] = [{"targets": [target]}]
    assert scrape["authorization"]["credentials_file"] == TOKEN_FILE
    return yaml.safe_dump(config)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched(
    require_binary: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Watched]:
    binary = require_binary("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    observer = PrometheusObserver("0.1.0")
    observer.compiled(1.5)
    settings = HttpConfig(port=0, token=SecretStr(TOKEN))
    ready = Health(ready=True)
    server = HttpServer(settings, observer.render, lambda: ready, "0.1.0", lambda _: None)
    await server.start()
    (folder / TOKEN_FILE).write_text(TOKEN)
    config = folder / "prometheus.yml"
    config.write_text(fast_config(f"127.0.0.1:{server.port}"))
    telling = asyncio.create_task(keep_telling(observer))
    async with aiohttp.ClientSession() as client, prometheus(binary, config, folder) as url:
        assert await answers(client, url), (folder / "prometheus.log").read_text()
        yield Watched(url, client)
    telling.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await telling
    await server.close()


@pytest.mark.asyncio(loop_scope="module")
async def test_every_panel_shows_data(watched: Watched) -> None:
    queries = panel_queries()
    assert len(queries) >= 40
    assert await watched.unanswered(queries) == []


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


TOLD = {  # by observations.tell
    "Up": [1],
    "Alerts firing": [0],
    "Records behind": [6],
    "Symbols ready": [3 / 4],
    "Compile time": [1.5],
    "Watermark behind newest": [3],
    "Repair": [0.03],
    "Smallest eigenvalue": [0.48],
    "Effective observations": [50],
    "Rejected and late": [6 / 115, 4 / 104],
}


@pytest.mark.parametrize("title", TOLD)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_panel_shows_what_was_told(watched: Watched, title: str) -> None:
    queries = panel_queries(title)
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
    (target,) = (await watched.get("targets"))["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    name = "stream_calib_ticks"  # with _total in the plain text format
    metadata = await watched.get("metadata", metric=name)
    assert metadata[name][0]["type"] == "counter"
