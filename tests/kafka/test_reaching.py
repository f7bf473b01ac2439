"""One address of several that is frozen, or gone, keeps no client from starting."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from deploy.kafka.broker import free_port
from stream_calib.adapters.kafka.connection import reachable
from stream_calib.adapters.kafka.producing import abandon, start_producer
from stream_calib.adapters.kafka.reading import start_consumer, stop_consumer
from stream_calib.adapters.kafka.topics import list_partitions
from stream_calib.config import KafkaConfig
from stream_calib.errors import TransportError

TRIES = 4  # the library tries the addresses in an order that it draws
# Less than the half of connect_timeout that one address may take: nobody waited for the frozen one.
SOON_S = 4.0


@pytest.fixture
def frozen() -> Iterator[str]:
    """Address that takes connections, as the system does for a process that is stopped."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


async def start_everything(config: KafkaConfig) -> None:
    await list_partitions(config)
    await stop_consumer(await start_consumer(config))
    await abandon(await start_producer(config))


async def test_frozen_address_is_passed_over_by_every_client(
    kafka_bootstrap: str, frozen: str
) -> None:
    for order in ((frozen, kafka_bootstrap), (kafka_bootstrap, frozen)) * TRIES:
        config = KafkaConfig(bootstrap_servers=order)
        async with asyncio.timeout(SOON_S):
            options = await reachable(config)
        assert options["bootstrap_servers"] == kafka_bootstrap
    await start_everything(config)


async def test_address_where_nobody_listens_is_passed_over(kafka_bootstrap: str) -> None:
    gone = f"127.0.0.1:{free_port()}"
    config = KafkaConfig(bootstrap_servers=f"{gone},{kafka_bootstrap}")
    assert (await reachable(config))["bootstrap_servers"] == kafka_bootstrap
    await start_everything(config)


async def test_when_no_address_answers_all_are_named(frozen: str) -> None:
    gone = f"127.0.0.1:{free_port()}"
    config = KafkaConfig(bootstrap_servers=(frozen, gone), connect_timeout=1_000_000_000)
    with pytest.raises(TransportError, match=rf"{frozen},{gone} cannot be reached"):
        await reachable(config)
