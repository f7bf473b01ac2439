"""A broker to kill, processes that end with their test, and the seed of a run."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from deploy.kafka.broker import BRIEF, LocalBroker, UnavailableError, free_port
from stream_calib.config import KafkaConfig
from tests.kafka import chaos_figures
from tests.kafka.commit_log import Universe
from tests.kafka.living import end_all
from tests.kafka.proxy import KafkaProxy
from tests.kafka.three import Three
from tests.real_parts import missing

COMPILE_S = 60.0

# how tests of `make chaos` ended is written, those that failed too
pytest_runtest_setup = chaos_figures.pytest_runtest_setup
pytest_runtest_makereport = chaos_figures.pytest_runtest_makereport


@pytest.fixture(scope="session")
def _broker_to_kill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    broker = LocalBroker(tmp_path_factory.mktemp("kafka"), java_options=BRIEF)
    yield broker
    broker.stop()


@pytest.fixture
def own_broker(_broker_to_kill: LocalBroker) -> Iterator[LocalBroker]:
    """Give the test a running broker of its own, to kill and to start again.

    It is one broker, which tests have one after the other: their topics need names of their own.
    """
    broker = _broker_to_kill
    try:
        broker.start()
    except UnavailableError as error:
        missing("STREAM_CALIB_REQUIRE_BROKER", f"no Kafka of our own: {error}")
    yield broker
    if broker.pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(broker.pid, signal.SIGCONT)  # of a test that failed with it frozen


@pytest.fixture(scope="session")
def _proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalBroker, int]]:
    """Give a broker whose clients are sent to a port where the proxy of a test listens."""
    port = free_port()
    node = LocalBroker(
        tmp_path_factory.mktemp("kafka"),
        settings={"advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}"},
        java_options=BRIEF,
    )
    try:
        node.start()
    except UnavailableError as error:
        missing("STREAM_CALIB_REQUIRE_BROKER", f"no Kafka of our own: {error}")
    yield node, port
    node.stop()


@pytest.fixture
async def proxy(_proxied: tuple[LocalBroker, int]) -> AsyncIterator[KafkaProxy]:
    """Give the test a proxy in front of a broker of one node."""
    node, port = _proxied
    async with KafkaProxy(port, int(node.bootstrap.rpartition(":")[2])) as between:
        yield between


@pytest.fixture
async def universe(proxy: KafkaProxy) -> Universe:
    """Give the test topics of a universe behind the proxy."""
    return await Universe.create(KafkaConfig(bootstrap_servers=proxy.bootstrap))


@pytest.fixture(scope="session")
def _nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Three]:
    try:
        with Three.create(tmp_path_factory.mktemp("three")) as nodes:
            yield nodes
    except UnavailableError as error:
        missing("STREAM_CALIB_REQUIRE_BROKER", f"no Kafka of our own: {error}")


@pytest.fixture
def three(_nodes: Three) -> Iterator[Three]:
    """Give the test three running nodes, with proxies, to kill and to start again."""
    _nodes.heal()
    yield _nodes
    _nodes.heal()


STRANGE = Path(__file__).with_name("strange_host.c")


@pytest.fixture(scope="session")
def strange_host(
    tmp_path_factory: pytest.TempPathFactory, require_binary: Callable[[str], Path]
) -> Path:
    """Give a library that, loaded first, makes clock, names of hosts and disk strange."""
    if sys.platform != "linux":
        pytest.skip("what the C library does is changed on Linux alone")
    library = tmp_path_factory.mktemp("strange") / "strange_host.so"
    words = [str(require_binary("cc")), "-shared", "-fPIC", "-O1"]
    words += ["-o", str(library), str(STRANGE), "-ldl"]
    subprocess.run(words, check=True, timeout=COMPILE_S)
    return library


@pytest.fixture
def chaos_seed(request: pytest.FixtureRequest) -> int:
    """Return the seed of this test's schedule, from ``CHAOS_SEED`` to repeat another one's."""
    return chaos_figures.seed_of(request.config)


@pytest.fixture(autouse=True)
def _nothing_stays_at_work() -> Iterator[None]:
    yield
    end_all()


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Return the seed of this run, which pytest prints."""
    return int(request.config.getoption("randomly_seed", 0))
