"""Where a broker of a test listens, in which way of speaking, and what it tells its clients."""

from collections.abc import Mapping
from typing import NamedTuple

from deploy.kafka.broker import HOST, free_port


class Listener(NamedTuple):
    """One address of a broker."""

    port: int
    protocol: str = "PLAINTEXT"
    advertised: int = 0  # the port that clients are sent to, where it is another one


def settings_of(listeners: Mapping[str, Listener]) -> dict[str, str]:
    """Return the settings of a node alone with these listeners by name, and its controller's."""
    every = {**listeners, "CONTROLLER": Listener(free_port())}
    return {
        "controller.quorum.voters": f"1@{HOST}:{every['CONTROLLER'].port}",
        "listeners": ",".join(f"{name}://{HOST}:{one.port}" for name, one in every.items()),
        "advertised.listeners": ",".join(
            f"{name}://{HOST}:{one.advertised or one.port}" for name, one in listeners.items()
        ),
        "listener.security.protocol.map": ",".join(
            f"{name}:{one.protocol}" for name, one in every.items()
        ),
    }
