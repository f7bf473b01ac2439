"""What every test may ask for: a real broker, topics on it, programs, real market data."""

import contextlib
import logging
import os
import secrets
import shutil
import uuid
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import structlog

from deploy.kafka.broker import BrokerError, UnavailableError
from tests.real_parts import ROOT, TopicMaker, missing, running_kafka

hypothesis.settings.register_profile(
    "ci",
    derandomize=False,
    print_blob=True,
    deadline=None,  # machines are shared: neither a slow example nor slow drawing is a defect
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("ci")

KAFKA_LINES: pytest.StashKey[set[str]] = pytest.StashKey()
MARKED_FOLDERS = {"kafka", "web", "deploy", "bench"}
BROKER_FIXTURES = {"kafka_bootstrap", "own_broker", "proxy"}


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Let one printed number repeat a run: the property tests draw from the order's seed too."""
    if config.getoption("randomly_seed", None) == "default":
        config.option.randomly_seed = secrets.randbits(32)
    seed = config.getoption("randomly_seed", None)
    if isinstance(seed, int) and config.getoption("hypothesis_seed", None) is None:
        config.option.hypothesis_seed = str(seed)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by place and by need, so that no test has to remember to."""
    for item in items:
        for folder in MARKED_FOLDERS.intersection(item.path.relative_to(ROOT).parts):
            item.add_marker(folder)
        if BROKER_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("kafka")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a process of several found."""
    note_kafka(node.config, *getattr(node, "workeroutput", {}).get("kafka", ()))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say which Kafka was used, or why none was."""
    lines = config.stash.get(KAFKA_LINES, {"no selected test asked for the shared broker"})
    for line in sorted(lines):
        terminalreporter.write_line(f"Kafka: {line}")


def note_kafka(config: pytest.Config, *lines: str) -> None:
    """Remember what is to be said of the broker at the end of the run."""
    if lines:
        config.stash.setdefault(KAFKA_LINES, set()).update(lines)
    if hasattr(config, "workeroutput"):
        config.workeroutput["kafka"] = lines


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Undo a command's choice of log: its stream is closed with the test that ran it."""
    before, handlers = structlog.get_config(), logging.root.handlers[:]
    show = warnings.showwarning
    yield
    warnings.showwarning = show
    structlog.configure(**before)
    logging.root.handlers[:] = handlers


@pytest.fixture(scope="session")
def kafka_bootstrap(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[str]:
    """Address of a real broker that the whole run shares; topics on it come from `new_topic`."""
    with contextlib.ExitStack() as stack:
        try:
            kafka = stack.enter_context(running_kafka(tmp_path_factory.mktemp("kafka")))
        except UnavailableError as error:
            note_kafka(pytestconfig, f"none, its tests did not run: {error}")
            missing("STREAM_CALIB_REQUIRE_BROKER", f"no Kafka: {error}")
        except BrokerError as error:
            note_kafka(pytestconfig, f"failed: {error}")
            pytest.fail(str(error), pytrace=False)
        note_kafka(pytestconfig, kafka.description)
        yield kafka.bootstrap


@pytest.fixture
async def new_topic(kafka_bootstrap: str) -> AsyncIterator[TopicMaker]:
    """Maker of topics with a name of their own; they are deleted when the test ends."""
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic
    from aiokafka.errors import for_code

    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    names: list[str] = []

    async def create(
        prefix: str = "test", partitions: int = 1, configs: Mapping[str, str] | None = None
    ) -> str:
        name = f"{prefix}-{uuid.uuid4().hex[:12]}"
        wanted = NewTopic(name, partitions, 1, topic_configs=dict(configs or {}))
        response = await admin.create_topics([wanted])
        for _name, code, *message in response.topic_errors:
            if code:
                raise for_code(code)(*message)
        names.append(name)
        return name

    await admin.start()
    try:
        yield create
        if names:
            await admin.delete_topics(names)
    finally:
        await admin.close()


@pytest.fixture(scope="session")
def require_binary() -> Callable[[str], Path]:
    """Return the path of a program by name; the test is skipped, or fails, without it."""

    def find(name: str) -> Path:
        path = shutil.which(name)
        if path is None:
            missing("STREAM_CALIB_REQUIRE_TOOLS", f"the program {name} is not installed")
        return Path(path)

    return find


@pytest.fixture(scope="session")
def market_data() -> Path:
    """Folder of real market data, which is not part of the repository; skip without it."""
    named = os.environ.get("STREAM_CALIB_MARKET_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "market_data"
    if not folder.is_dir():
        pytest.skip("no real market data here; STREAM_CALIB_MARKET_DATA may name its folder")
    return folder
