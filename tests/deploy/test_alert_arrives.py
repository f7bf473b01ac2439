"""End to end: the demo's break raises an alert, which arrives with what it is about.

Nothing is made up: the service as its users start it, the shipped rules in a real Prometheus, the
shipped example in a real Alertmanager. Only intervals are shorter, and a web server of the test's
own takes the place of the receivers.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from deploy.kafka.broker import free_port
from tests.cli.command import spawn
from tests.deploy.running import ALERTMANAGER, alertmanager, answers, prometheus, whole_config

FEED_S = 8  # in which the demo's hour goes by: a scrape sees every alternative at 0 before
ARRIVE_S = 300.0  # for a machine ten times as slow
ALTERNATIVES = ("fusing", "loosening", "rotation", "miscalibrated")


@contextlib.asynccontextmanager
async def receiver() -> AsyncIterator[tuple[str, "asyncio.Queue[tuple[str, dict[str, Any]]]"]]:
    """Listen for what Alertmanager posts: by which of the receivers, and what."""
    said: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()

    async def take(request: web.Request) -> web.Response:
        said.put_nowait((request.path, await request.json()))
        return web.Response()

    app = web.Application()
    app.router.add_post("/{receiver}", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", said
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def demo(port: int) -> AsyncIterator[None]:
    """Run the demo on this port; it stays after its last tick."""
    words = ("demo", "--seconds", FEED_S, "--http-port", port, "--stay")
    with spawn(*words) as process:
        told = asyncio.create_task(asyncio.to_thread(process.communicate))  # or its pipes fill
        try:
            yield
        finally:
            process.terminate()
            try:
                await asyncio.wait_for(asyncio.shield(told), 30)
            finally:
                process.kill()


def quick_prometheus(service: str, alerts: str) -> str:
    config = whole_config()
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    scrape, _ = config["scrape_configs"]
    del scrape["authorization"]
    scrape["static_configs"] = [{"targets": [service]}]
    config["scrape_configs"] = [scrape]
    (manager,) = config["alerting"]["alertmanagers"]
    manager["static_configs"] = [{"targets": [alerts.removeprefix("http://")]}]
    return yaml.safe_dump(config)


def quick_alertmanager(url: str) -> str:
    config = yaml.safe_load(ALERTMANAGER.read_text())
    for one in config["receivers"]:
        (hook,) = one["webhook_configs"]
        hook["url"] = f"{url}/{hook['url'].rpartition('/')[2]}"
    return yaml.safe_dump(config)


@pytest.fixture
def binaries(require_binary: Callable[[str], Path]) -> tuple[Path, Path]:
    return require_binary("prometheus"), require_binary("prometheus-alertmanager")


async def test_the_alert_of_a_break_arrives_with_its_universe_and_what_it_looks_like(
    binaries: tuple[Path, Path], tmp_path: Path
) -> None:
    service = f"127.0.0.1:{free_port()}"
    (folder := tmp_path / "prometheus").mkdir()
    async with contextlib.AsyncExitStack() as stack:
        url, said = await stack.enter_async_context(receiver())
        client = await stack.enter_async_context(aiohttp.ClientSession())
        (config := tmp_path / "alertmanager.yml").write_text(quick_alertmanager(url))
        alerts = await stack.enter_async_context(alertmanager(binaries[1], config, tmp_path))
        (config := folder / "prometheus.yml").write_text(quick_prometheus(service, alerts))
        watching = await stack.enter_async_context(prometheus(binaries[0], config, folder))
        assert await answers(client, alerts), (tmp_path / "alertmanager.log").read_text()
        assert await answers(client, watching), (folder / "prometheus.log").read_text()
        await stack.enter_async_context(demo(int(service.rpartition(":")[2])))
        try:
            async with asyncio.timeout(ARRIVE_S):
                alert, path = await shift(said)
        except TimeoutError:
            async with client.get(f"{watching}/api/v1/alerts") as response:
                pytest.fail(f"nothing arrived; Prometheus knows of {await response.text()}")
        async with client.get(f"http://{service}/api/events/demo") as response:
            events = await response.json()
    alternative = alert["labels"]["alternative"]
    assert path == "/notes"
    assert alternative in ALTERNATIVES
    summary = f"The correlations of demo have shifted: {alternative}"
    assert alert["annotations"]["summary"] == summary
    # it is what the service has said on its topic of events
    raised = [e["details"]["alternative"] for e in events if e["type"] == "drift_alarm"]
    assert alternative in raised


async def shift(said: "asyncio.Queue[tuple[str, dict[str, Any]]]") -> tuple[dict[str, Any], str]:
    """Return the alert of a shift, and where it was sent; a slow start may bring others first."""
    while True:
        path, message = await said.get()
        for alert in message["alerts"]:
            name = alert["labels"]["alertname"]
            if (name, alert["status"]) == ("StreamCalibRegimeShift", "firing"):
                return alert, path
