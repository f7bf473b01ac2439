"""The example for Alertmanager: checked by amtool, and by one that runs."""

import asyncio
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from deploy.prometheus.reference import rules
from tests.deploy.running import ALERTMANAGER, alertmanager, answers

ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECEIVERS = {"critical": "pager", "warning": "team", "info": "notes"}
UNIVERSE = {"job": "stream_calib", "universe": "fx"}
FEED = {"job": "stream_calib_feed", "instance": "a:9465"}


def amtool(require_binary: Callable[[str], Path], *words: str | Path) -> str:
    command = [str(require_binary("amtool")), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_amtool_accepts_it(require_binary: Callable[[str], Path]) -> None:
    assert "SUCCESS" in amtool(require_binary, "check-config", ALERTMANAGER)


@pytest.mark.parametrize("severity", RECEIVERS)
def test_alerts_are_routed_by_severity(
    require_binary: Callable[[str], Path], severity: str
) -> None:
    where = f"--config.file={ALERTMANAGER}"
    said = amtool(require_binary, "config", "routes", "test", where, f"severity={severity}")
    assert said.split() == [RECEIVERS[severity]]


def test_it_names_no_alert_that_there_is_not() -> None:
    config = yaml.safe_load(ALERTMANAGER.read_text())
    named = [m for rule in config["inhibit_rules"] for m in rule["source_matchers"]]
    assert {name.split('"')[1] for name in named} <= ALERTS.keys()
    receivers = {receiver["name"] for receiver in config["receivers"]}
    assert receivers == {*RECEIVERS.values()}


def alert(name: str, **labels: str) -> dict[str, Any]:
    severity = ALERTS[name]["labels"]["severity"]
    labels |= {"alertname": name, "severity": severity}
    return {"labels": labels, "startsAt": datetime.now(UTC).isoformat()}


SAID = [
    alert("StreamCalibDown", job="stream_calib", instance="a:9464"),
    alert("StreamCalibRefitsFailing", **UNIVERSE, instance="a:9464"),
    alert("StreamCalibLateHigh", **UNIVERSE),
    alert("StreamCalibRegimeShift", **UNIVERSE, alternative="fusing"),
    alert("StreamCalibLateHigh", job="other", universe="fx"),  # of a job that answers
    alert("StreamCalibCommitsFailing", **UNIVERSE, instance="a:9464"),
    alert("StreamCalibMatrixStale", **UNIVERSE, estimator="ewma"),
    alert("StreamCalibMatrixStale", job="stream_calib", universe="rates", estimator="ewma"),
    alert("StreamCalibFeedDown", **FEED),
    alert("StreamCalibFeedSilent", **FEED, exchange="kraken"),
    alert("StreamCalibFeedSilent", job=FEED["job"], instance="b:9465", exchange="kraken"),
    alert("StreamCalibRefitsFailing", **UNIVERSE, instance="b:9464"),  # of another worker
    alert("StreamCalibDown", job="stream_calib"),  # no target is known
]
SILENCED = [1, 6, 9]  # not what is told of a universe, which another worker may own


async def test_what_follows_from_something_else_is_silenced(
    require_binary: Callable[[str], Path], tmp_path: Path
) -> None:
    binary = require_binary("prometheus-alertmanager")
    async with (
        aiohttp.ClientSession() as client,
        alertmanager(binary, ALERTMANAGER, tmp_path) as url,
    ):
        assert await answers(client, url), (tmp_path / "alertmanager.log").read_text()
        async with client.post(f"{url}/api/v2/alerts", json=SAID) as response:
            assert response.status == 200, await response.text()
        silenced: list[dict[str, str]] = []
        for _ in range(300):  # who is silenced is found out when a message is to be sent
            async with client.get(f"{url}/api/v2/alerts") as response:
                shown = await response.json()
            assert len(shown) == len(SAID)
            silenced = [one["labels"] for one in shown if one["status"]["inhibitedBy"]]
            if len(silenced) >= len(SILENCED):
                break
            await asyncio.sleep(0.2)
    expected = [SAID[i]["labels"] for i in SILENCED]
    assert {frozenset(labels.items()) for labels in silenced} == {
        frozenset(labels.items()) for labels in expected
    }
