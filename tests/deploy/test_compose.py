"""The compose file is whole and careful, as far as that shows without an engine."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.kafka.jars import POM
from stream_calib.config import HttpConfig, load_config
from tests.cli.command import run_process
from tests.deploy.compose import PATH, Service, files, mounts, services
from tests.deploy.settings import unknown_variables
from tests.deploy.test_dockerfile import RUNTIME
from tests.real_parts import IMAGE, ROOT

TOKEN = {"STREAM_CALIB_TOKEN": "a-secret-of-many"}
SERVICES = services(TOKEN)
OURS = [name for name, service in SERVICES.items() if "build" in service]
HARDENED = [name for name in SERVICES if name != "kafka"]
CONFIG = load_config(ROOT / "deploy" / "compose" / "stream_calib.toml")
HEAD = yaml.safe_load(PATH.read_text())


def each(names: list[str] | None = None) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", names or list(SERVICES))


def published(service: Service) -> list[tuple[str, str, str]]:
    ports = [tuple(port.split(":")) for port in service.get("ports", ())]
    return [(address, outer, inner) for address, outer, inner in ports]


def test_compose_itself_accepts_it(tmp_path: Path) -> None:
    docker = shutil.which("docker")
    command = [str(docker), "compose", "version"]
    if docker is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("docker has no compose here")
    variables = tmp_path / "env"
    variables.write_text("STREAM_CALIB_TOKEN=a-secret-of-many\n")
    command = [docker, "compose", "--env-file", str(variables), "--file", str(PATH)]
    done = subprocess.run([*command, "config", "--quiet"], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_it_does_not_start_without_a_token() -> None:
    with pytest.raises(KeyError, match="STREAM_CALIB_TOKEN"):
        services({})


@each()
def test_images_are_pinned(name: str) -> None:
    assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+", SERVICES[name]["image"])


def test_kafka_is_the_one_of_the_tests() -> None:
    assert SERVICES["kafka"]["image"] == IMAGE
    assert f"<version>{IMAGE.partition(':')[2]}</version>" in POM.read_text()


def test_our_image_is_of_this_version() -> None:
    for name in OURS:
        version = SERVICES[name]["image"].partition(":")[2]
        assert run_process("--version").out == f"stream-calib {version}\n"
        build = SERVICES[name]["build"]
        assert (PATH.parent / build["context"]).resolve() == ROOT
        assert (ROOT / build["dockerfile"]).exists()


@each()
def test_what_it_mounts_is_there_and_cannot_be_changed(name: str) -> None:
    service = SERVICES[name]
    for path in files(service).values():
        assert path.exists(), path
        assert path.is_relative_to(ROOT / "deploy")
    for entry in service.get("volumes", ()):
        source = entry.split(":")[0]
        if source.startswith("."):
            assert entry.endswith(":ro"), entry
        else:
            assert source in HEAD["volumes"], entry


@each()
def test_a_container_can_do_little_harm(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert "privileged" not in service
    assert "network_mode" not in service
    assert not any("docker.sock" in source for source in mounts(service).values())


@each(HARDENED)
def test_its_root_is_read_only_and_it_is_not_root(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["tmpfs"]
    user = service.get("user") or dict(RUNTIME)["USER"]
    assert user.partition(":")[0] not in {"0", "root"}


@each()
def test_ports_are_published_on_loopback_alone(name: str) -> None:
    for address, outer, inner in published(SERVICES[name]):
        assert address == "127.0.0.1"
        assert outer == inner


@each()
def test_it_waits_for_what_can_be_waited_for(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        condition = how["condition"]
        if condition == "service_healthy":
            assert SERVICES[other]["healthcheck"]["test"][0] == "CMD"
        else:
            assert condition == "service_completed_successfully"
            assert SERVICES[other]["restart"].startswith("on-failure")


@each(OURS)
def test_our_commands_exist_with_their_options(name: str) -> None:
    words = [str(word) for word in SERVICES[name]["command"]]
    verbs = words[: next(i for i, word in enumerate(words) if word.startswith("-"))]
    done = run_process(*verbs, "--help")
    assert done.code == 0
    offered = set(re.findall(r"--[a-z-]+", done.out))
    assert {word for word in words if word.startswith("--")} <= offered


@each(OURS)
def test_our_variables_are_ones_that_are_read(name: str) -> None:
    named = {k: str(v) for k, v in SERVICES[name].get("environment", {}).items()}
    assert unknown_variables(named) == []


def test_kafka_s_settings_are_ones_that_it_knows() -> None:
    # those that a broker of one node needs, as the local one of the tests has them
    from deploy.kafka.broker import SINGLE_NODE

    named = {
        key.removeprefix("KAFKA_").lower().replace("_", ".")
        for key in SERVICES["kafka"]["environment"]
        if key.startswith("KAFKA_") and key != "KAFKA_HEAP_OPTS"
    }
    needed = {key for key in SINGLE_NODE if "replication" in key or "min.isr" in key}
    assert needed <= named
    environment = SERVICES["kafka"]["environment"]
    listeners = set(re.findall(r"(\w+)://", environment["KAFKA_LISTENERS"]))
    mapped = dict(re.findall(r"(\w+):(\w+)", environment["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"]))
    assert listeners == set(mapped)
    assert environment["KAFKA_INTER_BROKER_LISTENER_NAME"] in listeners
    assert environment["KAFKA_CONTROLLER_LISTENER_NAMES"] in listeners


def test_addresses_of_kafka_agree() -> None:
    advertised = SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    addresses = dict(re.findall(r"(\w+)://([\w.:]+)", advertised))
    assert CONFIG.kafka.bootstrap_servers == addresses["NETWORK"]
    ((host, outer, _),) = published(SERVICES["kafka"])
    assert f"{host}:{outer}" == addresses["HOST"]
    (port,) = re.findall(r"HOST://:(\d+)", SERVICES["kafka"]["environment"]["KAFKA_LISTENERS"])
    assert port == outer


def test_the_port_of_the_page_is_the_service_s_own() -> None:
    environment = SERVICES["stream-calib"]["environment"]
    assert environment["STREAM_CALIB__HTTP__PORT"] == HttpConfig().port
    ((_, _, inner),) = published(SERVICES["stream-calib"])
    assert int(inner) == HttpConfig().port


def test_the_feed_spreads_over_the_partitions_that_there_are() -> None:
    def option(name: str, word: str) -> str:
        command = SERVICES[name]["command"]
        found: str = command[command.index(word) + 1]
        return found

    assert option("feed", "--partitions") == option("topics", "--partitions")
    assert int(option("feed", "--simulated")) == len(CONFIG.universe[0].symbols)


def test_prometheus_scrapes_the_service_with_its_token_and_has_all_rules() -> None:
    service = SERVICES["prometheus"]
    own = yaml.safe_load((ROOT / "deploy" / "compose" / "prometheus.yml").read_text())
    alone = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    (scrape,), (other, *_) = own["scrape_configs"], alone["scrape_configs"]
    assert scrape["job_name"] == other["job_name"]
    assert scrape["static_configs"][0]["targets"] == [f"stream-calib:{HttpConfig().port}"]
    token_file = scrape["authorization"]["credentials_file"]
    assert f"> {token_file}" in service["command"][0]
    assert token_file.startswith(tuple(f"{place}/" for place in service["tmpfs"]))
    assert own["rule_files"] == ["rules/*.yml"]
    assert files(service)["/etc/prometheus/rules"] == ROOT / "deploy" / "prometheus" / "rules"
    (manager,) = own["alerting"]["alertmanagers"]
    name, _, port = manager["static_configs"][0]["targets"][0].partition(":")
    assert [inner for _, _, inner in published(SERVICES[name])] == [port]


def test_grafana_has_the_data_source_of_its_dashboards() -> None:
    seen = files(SERVICES["grafana"])
    own = yaml.safe_load(seen["/etc/grafana/provisioning/datasources/prometheus.yml"].read_text())
    folder = ROOT / "deploy" / "grafana" / "provisioning" / "datasources"
    (alone,) = [yaml.safe_load(path.read_text()) for path in folder.glob("*.yml")]
    (source,), (other,) = own["datasources"], alone["datasources"]
    assert {**source, "url": "", "jsonData": {}} == {**other, "url": "", "jsonData": {}}
    name, port = re.fullmatch(r"http://([\w-]+):(\d+)", source["url"]).groups()  # type: ignore[union-attr]
    assert [inner for _, _, inner in published(SERVICES[name])] == [port]


def test_grafana_reads_its_dashboards_where_they_are_mounted() -> None:
    seen = files(SERVICES["grafana"])
    (provider,) = [
        entry
        for path in seen["/etc/grafana/provisioning/dashboards"].glob("*.yml")
        for entry in yaml.safe_load(path.read_text())["providers"]
    ]
    place = provider["options"]["path"]
    assert place in seen
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.startswith(f"{place}/")
    dashboard: dict[str, Any] = json.loads((seen[place] / Path(home).name).read_text())
    assert dashboard["uid"]


def test_grafana_is_looked_at_and_not_administered() -> None:
    environment = SERVICES["grafana"]["environment"]
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert not any("PASSWORD" in name for name in environment)
