"""The compose file's own commands, as processes of this machine instead of containers.

Names of its network become ports of the loopback address, places in containers become folders;
Kafka has its settings, the service its environment; what is waited for is the image's health check.
"""

import contextlib
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.kafka.broker import BRIEF, LocalBroker, UnavailableError, free_port
from tests.deploy.compose import files, program, services, variables_of, words
from tests.real_parts import ROOT, missing

TOKEN = "a-secret-that-is-long"
READY_S = 300.0  # on a machine ten times as slow as one that compiles nothing
FEED_BREAK_S = 180.0  # half of --duration-s
BREAK_SEEN_S = 900.0  # after the start of the feed; it took 218 s
SINCE_S = 30.0  # by which a change may be dated wrongly, in bars of a second
INTERNAL = ("KAFKA_LOG_DIRS", "KAFKA_HEAP_OPTS")  # of the container

pytestmark = pytest.mark.kafka


@dataclass
class Stack:
    """What runs, and where it can be asked."""

    page: str
    prometheus: str
    fed_at_s: float
    check: Callable[[], int]
    processes: dict[str, "subprocess.Popen[bytes]"]

    def query(self, expression: str) -> list[Any]:
        """Ask Prometheus."""
        asked = urllib.parse.urlencode({"query": expression})
        answer = get(f"{self.prometheus}/api/v1/query?{asked}")
        result: list[Any] = answer["data"]["result"]
        return result

    def events(self) -> list[dict[str, Any]]:
        """Return the newest events of the universe."""
        found: list[dict[str, Any]] = get(f"{self.page}/api/events/simulated")
        return found

    def until(self, condition: Callable[[], object], deadline_s: float) -> float:
        """Wait for a condition while everything runs; return when it held."""
        while not condition():
            ended = {name: p.poll() for name, p in self.processes.items() if p.poll() is not None}
            assert not ended
            assert time.time() < deadline_s, "in vain"
            time.sleep(1.0)
        return time.time()


def get(url: str) -> Any:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def broker_settings(environment: dict[str, Any], ports: dict[str, str]) -> dict[str, str]:
    """Return the lines of server.properties that the image makes of its environment."""
    settings = {}
    for name, value in environment.items():
        if name.startswith("KAFKA_") and name not in INTERNAL:
            text = str(value)
            for inside, here in ports.items():
                text = text.replace(inside, here)
            settings[name.removeprefix("KAFKA_").lower().replace("_", ".")] = text
    return settings


@pytest.fixture(scope="module")
def stack(
    require_binary: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    found = services({"STREAM_CALIB_TOKEN": TOKEN})
    host, network, controller, page, scraper = (free_port() for _ in range(5))
    listeners = {
        "HOST://127.0.0.1:9092": f"HOST://127.0.0.1:{host}",
        "HOST://:9092": f"HOST://127.0.0.1:{host}",
        "NETWORK://:19092": f"NETWORK://127.0.0.1:{network}",
        "CONTROLLER://:29093": f"CONTROLLER://127.0.0.1:{controller}",
        "kafka:19092": f"127.0.0.1:{network}",
        "localhost:29093": f"127.0.0.1:{controller}",
    }
    settings = broker_settings(found["kafka"]["environment"], listeners)
    broker = LocalBroker(folder / "kafka", host, settings, BRIEF)
    (source,) = set(files(found["feed"]).values())
    config = folder / "stream_calib.toml"
    config.write_text(source.read_text().replace("kafka:19092", f"127.0.0.1:{network}"))
    places = {"/etc/stream-calib/stream_calib.toml": str(config)}
    own = found["stream-calib"]
    own["environment"] |= {"STREAM_CALIB__HTTP__PORT": page}
    environment = variables_of(own) | {"STREAM_CALIB__SNAPSHOTS__FOLDER": str(folder / "snapshots")}
    with contextlib.ExitStack() as running:
        try:
            running.enter_context(broker)
        except UnavailableError as error:
            missing("STREAM_CALIB_REQUIRE_BROKER", f"no Kafka: {error}")
        made = subprocess.run(
            program(found["topics"], places),
            env=variables_of(found["topics"]),
            capture_output=True,
            text=True,
            check=False,
            timeout=READY_S,
        )
        assert made.returncode == 0, made.stderr
        assert "ticks (2 partitions)" in made.stdout

        processes: dict[str, subprocess.Popen[bytes]] = {}

        def start(name: str, command: list[str], variables: dict[str, str]) -> None:
            log = running.enter_context((folder / f"{name}.log").open("wb"))
            processes[name] = subprocess.Popen(command, env=variables, stdout=log, stderr=log)
            running.callback(end, processes[name])

        start("stream-calib", program(own, places), environment)
        fed_at_s = time.time()
        start("feed", program(found["feed"], places), variables_of(found["feed"]))
        shell = prometheus_command(found["prometheus"], folder, page, scraper)
        require_binary("prometheus")
        start("prometheus", shell, variables_of(found["prometheus"]))

        def check() -> int:
            healthcheck = [sys.executable, str(ROOT / "deploy" / "healthcheck.py")]
            return subprocess.run(healthcheck, env=environment, check=False, timeout=60).returncode

        url, scraper_url = (f"http://127.0.0.1:{port}" for port in (page, scraper))
        yield Stack(url, scraper_url, fed_at_s, check, processes)
        processes["stream-calib"].terminate()
        assert processes["stream-calib"].wait(60) == 0, (folder / "stream-calib.log").read_text()


def prometheus_command(service: dict[str, Any], folder: Path, page: int, port: int) -> list[str]:
    """Return the command of Prometheus with what it reads laid into ``folder``."""
    seen = files(service)
    etc, tmp = folder / "etc", folder / "tmp"
    etc.mkdir()
    tmp.mkdir()
    config = seen["/etc/prometheus/prometheus.yml"].read_text()
    config = config.replace("stream-calib:9464", f"127.0.0.1:{page}")
    config = config.replace("alertmanager:9093", "127.0.0.1:9").replace("/tmp/", f"{tmp}/")
    (etc / "prometheus.yml").write_text(config)
    (etc / "rules").symlink_to(seen["/etc/prometheus/rules"])
    places = {
        "/etc/prometheus": str(etc),
        "=/prometheus": f"={folder / 'tsdb'}",
        "> /tmp": f"> {tmp}",
    }
    *shell, script = words(service, places)
    return [*shell, f"{script} --web.listen-address=127.0.0.1:{port}"]


def end(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def test_the_service_becomes_healthy_and_is_scraped_with_its_token(stack: Stack) -> None:
    stack.until(lambda: stack.check() == 0, time.time() + READY_S)
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{stack.page}/metrics", timeout=60)

    def scraped() -> bool:
        with contextlib.suppress(OSError):
            return [s["value"][1] for s in stack.query('up{job="stream_calib"}')] == ["1"]
        return False

    stack.until(scraped, time.time() + READY_S)


@pytest.mark.full
def test_a_break_an_alert_and_a_refit_are_seen_within_minutes(stack: Stack) -> None:
    deadline_s = stack.fed_at_s + BREAK_SEEN_S

    def event(kind: str, **details: str) -> list[dict[str, Any]]:
        return [
            e
            for e in stack.events()
            if e["type"] == kind and details.items() <= e["details"].items()
        ]

    stack.until(lambda: stack.check() == 0, deadline_s)
    break_s = stack.fed_at_s + FEED_BREAK_S

    def seen() -> bool:
        since = [int(e["details"]["since_ns"]) / 1e9 for e in event("drift_alarm")]
        return any(abs(since_s - break_s) < SINCE_S for since_s in since)

    alarmed_s = stack.until(seen, deadline_s)
    firing = 'ALERTS{alertname="StreamCalibRegimeShift",alertstate="firing"}'
    told_s = stack.until(lambda: stack.query(firing), deadline_s)
    refit_s = stack.until(lambda: event("refit_installed", reason="drift"), deadline_s)
    moments = [f"{moment - stack.fed_at_s:.0f} s" for moment in (alarmed_s, told_s, refit_s)]
    said = "after the start of the feed: alarm {}, alert {}, refit {}"
    print(said.format(*moments))  # noqa: T201 (what README says is read here)
