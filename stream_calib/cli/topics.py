"""``topics create``."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from stream_calib.cli.options import Bootstrap, ConfigFile, overrides

if TYPE_CHECKING:
    from stream_calib.adapters.kafka import TopicSpec
    from stream_calib.config import KafkaConfig

app = typer.Typer(no_args_is_help=True)


@app.callback()
def topics() -> None:
    """Create the topics that a configuration names."""


@app.command()
def create(
    config: ConfigFile,
    bootstrap: Bootstrap = None,
    replication: Annotated[
        int, typer.Option(min=1, help="Replicas of each partition of a new topic.")
    ] = 1,
    inputs: Annotated[bool, typer.Option(help="Create the input topics too.")] = True,
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of a new input topic.")] = 1,
) -> None:
    """Create the topics that are missing.

    Output topics get the settings that readers rely on and a partition per universe; a topic
    that exists keeps its settings.
    """
    from stream_calib.config import load_config
    from stream_calib.service.topics import input_topics, output_topics

    settings = load_config(config, overrides(kafka__bootstrap_servers=bootstrap))
    outputs = output_topics(settings, replication)
    wanted = input_topics(settings, partitions, replication) if inputs else []
    created, counts = asyncio.run(_create(settings.kafka, outputs, wanted))
    for name, n in counts.items():
        word = "created" if name in created else "exists"
        print(f"{word:<8} {name} ({n} partition{'s' if n > 1 else ''})")


async def _create(
    kafka: "KafkaConfig", outputs: "list[TopicSpec]", inputs: "list[TopicSpec]"
) -> tuple[list[str], dict[str, int]]:
    from stream_calib.adapters.kafka import check_topics, ensure_topics

    created = await ensure_topics(kafka, outputs, grow=True)
    created += await ensure_topics(kafka, inputs)
    return created, await check_topics(kafka, [spec.name for spec in [*outputs, *inputs]])
