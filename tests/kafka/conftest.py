"""For tests that do to a broker what the shared one must be spared."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.kafka.broker import LocalBroker, UnavailableError
from tests.real_parts import missing


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[LocalBroker]:
    """Give the test a running broker of its own, to kill and to start again."""
    broker = LocalBroker(tmp_path / "kafka")
    try:
        broker.start()
    except UnavailableError as error:
        missing("STREAM_CALIB_REQUIRE_BROKER", f"no Kafka of our own: {error}")
    yield broker
    broker.stop()
