"""``topics create``."""

import asyncio
from typing import Annotated

import typer

from stream_calib.cli.options import Bootstrap, ConfigFile, overrides

app = typer.Typer(help="Create the topics of a configuration.", no_args_is_help=True)


@app.callback()
def topics() -> None:
    """Create the topics of a configuration."""


@app.command()
def create(
    config: ConfigFile,
    bootstrap: Bootstrap = None,
    replication: Annotated[int, typer.Option(help="Replicas of each partition.")] = 1,
    inputs: Annotated[bool, typer.Option(help="Create the input topics too.")] = True,
    partitions: Annotated[int, typer.Option(help="Partitions of a new input topic.")] = 1,
) -> None:
    """Create what is missing, with the settings that readers rely on; leave the rest alone."""
    from stream_calib.adapters.kafka import ensure_topics
    from stream_calib.config import load_config
    from stream_calib.service.wiring import input_topics, output_topics

    settings = load_config(config, overrides(kafka__bootstrap_servers=bootstrap))
    specs = output_topics(settings, replication)
    if inputs:
        specs += input_topics(settings, partitions, replication)
    created = asyncio.run(ensure_topics(settings.kafka, specs))
    for spec in specs:
        print(f"{'created' if spec.name in created else 'exists '}  {spec.name}")
