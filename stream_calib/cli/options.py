"""Options that several verbs share, and the settings they lead to."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from stream_calib.config import Config

ConfigFile = Annotated[
    Path, typer.Option("--config", "-c", metavar="FILE", help="The settings, a TOML file.")
]
ClientConfig = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", metavar="FILE", help="The settings, a TOML file; default: none."
    ),
]
Bootstrap = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Kafka address; wins over kafka.bootstrap_servers."),
]


def overrides(**flags: object) -> dict[str, object]:
    """Turn flags that were given (``kafka__bootstrap_servers=...``) into dotted overrides."""
    return {name.replace("__", "."): flag for name, flag in flags.items() if flag is not None}


def client_settings(config: Path | None, bootstrap: str | None) -> "Config":
    """Return the settings of a verb that runs no universe: the file is optional."""
    from stream_calib.config import load_config, parse_config

    flags = overrides(kafka__bootstrap_servers=bootstrap)
    if config is not None:
        return load_config(config, flags)
    nobody = {"name": "none", "symbols": ["A", "B"]}
    return parse_config({"universe": [nobody]}, flags, origin="environment")
