"""Where the tests get the real things from, and what happens when one cannot be had.

A missing thing skips its tests with one clear line. Where a switch says that nothing may be
missing (``STREAM_CALIB_REQUIRE_BROKER=1``, ``STREAM_CALIB_REQUIRE_TOOLS=1``) it fails them.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

import pytest

from deploy.kafka.broker import (
    HOST,
    SINGLE_NODE,
    START_DEADLINE_S,
    BrokerError,
    LocalBroker,
    answers,
    free_port,
)

ROOT = Path(__file__).resolve().parent.parent
IMAGE = "apache/kafka:4.1.0"


@dataclass(frozen=True)
class Kafka:
    """A broker that answers, and in words which one it is."""

    bootstrap: str
    description: str


class TopicMaker(Protocol):
    """Create a topic that nobody else uses and return its name."""

    async def __call__(
        self, prefix: str = "test", partitions: int = 1, configs: Mapping[str, str] | None = None
    ) -> str: ...


def missing(switch: str, reason: str) -> NoReturn:
    """Skip the test for this reason, or fail it when the environment variable ``switch`` is 1."""
    if os.environ.get(switch) == "1":
        pytest.fail(f"{reason} ({switch} is set)", pytrace=False)
    pytest.skip(reason)


@contextlib.contextmanager
def running_kafka(folder: Path) -> Iterator[Kafka]:
    """Yield the first broker of: a given address, a given release, Docker, Java with Maven.

    Raises
    ------
    UnavailableError
        None of them is there.
    BrokerError
        One is there and does not work.
    """
    given = os.environ.get("STREAM_CALIB_TEST_BOOTSTRAP")
    release = os.environ.get("STREAM_CALIB_KAFKA_HOME")
    if given:
        if not any(answers(address) for address in given.split(",")):
            raise BrokerError(f"STREAM_CALIB_TEST_BOOTSTRAP is {given}, where no Kafka answers.")
        yield Kafka(given, f"{given}, from STREAM_CALIB_TEST_BOOTSTRAP")
    elif not release and _docker_has_image():
        with _kafka_in_docker() as bootstrap:
            yield Kafka(bootstrap, f"{IMAGE} in Docker, at {bootstrap}")
    else:
        with LocalBroker(folder) as broker:
            origin = "STREAM_CALIB_KAFKA_HOME" if release else "Java and Maven"
            yield Kafka(broker.bootstrap, f"local node from {origin}, at {broker.bootstrap}")


def _docker_has_image() -> bool:
    # The client alone proves nothing: there may be no engine behind it, or no way to the image.
    if shutil.which("docker") is None:
        return False
    with contextlib.suppress(subprocess.SubprocessError):
        _docker("info")
        try:
            _docker("image", "inspect", IMAGE)
        except subprocess.CalledProcessError:
            _docker("pull", "--quiet", IMAGE, timeout_s=300.0)
        return True
    return False


@contextlib.contextmanager
def _kafka_in_docker() -> Iterator[str]:
    port = free_port()
    bootstrap = f"{HOST}:{port}"
    settings = SINGLE_NODE | {
        "controller.quorum.voters": "1@localhost:9093",
        "listeners": f"PLAINTEXT://:{port},CONTROLLER://:9093",
        "advertised.listeners": f"PLAINTEXT://{bootstrap}",
    }
    words = ["run", "--detach", "--rm", "--publish", f"{bootstrap}:{port}"]
    for key, value in settings.items():
        words += ["--env", f"KAFKA_{key.upper().replace('.', '_')}={value}"]
    try:
        container = _docker(*words, IMAGE)
    except subprocess.SubprocessError as error:
        raise BrokerError(f"Docker is there and could not run {IMAGE}.") from error
    try:
        deadline_s = time.monotonic() + START_DEADLINE_S
        while not answers(bootstrap):
            if time.monotonic() > deadline_s:
                raise BrokerError(f"{IMAGE} runs in Docker and does not answer.")
            time.sleep(0.2)
        yield bootstrap
    finally:
        _docker("kill", container)


def _docker(*words: str, timeout_s: float = 30.0) -> str:
    done = subprocess.run(
        ["docker", *words], capture_output=True, text=True, check=True, timeout=timeout_s
    )
    return done.stdout.strip()
