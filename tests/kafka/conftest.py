"""For tests that do to a broker what the shared one must be spared."""

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest

from deploy.kafka.broker import BRIEF, LocalBroker, UnavailableError
from tests.real_parts import missing


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
