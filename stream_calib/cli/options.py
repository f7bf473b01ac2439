"""Options that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path, typer.Option("--config", "-c", help="The TOML file.", show_default=False)
]
Bootstrap = Annotated[
    str | None,
    typer.Option("--bootstrap", help="Kafka address, over kafka.bootstrap_servers."),
]


def overrides(**flags: object) -> dict[str, object]:
    """Turn flags that were given (``kafka__bootstrap_servers=...``) into dotted overrides."""
    return {name.replace("__", "."): flag for name, flag in flags.items() if flag is not None}
