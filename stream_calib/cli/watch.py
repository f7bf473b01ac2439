"""``watch``: one line per matrix off the output topic, and a heat map."""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream_calib.cli.options import Bootstrap, ClientConfig, client_settings
from stream_calib.cli.screen import Screen, heat_map, matrix_line

if TYPE_CHECKING:
    from stream_calib.config import KafkaConfig
    from stream_calib.values import Matrix

Show = Callable[["Matrix"], None]


def watch(
    config: ClientConfig = None,
    bootstrap: Bootstrap = None,
    topic: Annotated[
        str | None, typer.Option(help="Read this topic; default: <output.prefix>.correlations.")
    ] = None,
    universe: Annotated[str | None, typer.Option(help="Only matrices of this universe.")] = None,
    estimator: Annotated[str | None, typer.Option(help="Only those of this estimator.")] = None,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Begin with the first matrix still kept, not now.")
    ] = False,
    map_: Annotated[
        bool, typer.Option("--map", help="Also draw the newest as a heat map.")
    ] = False,
    count: Annotated[int | None, typer.Option(min=1, help="Leave after so many matrices.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document per matrix instead.")
    ] = False,
) -> None:
    """Watch matrices as they are published; Ctrl-C ends it."""
    settings = client_settings(config, bootstrap)
    topic = topic or f"{settings.output.prefix}.correlations"
    options: dict[str, Any] = {
        "topic": topic,
        "universe": universe,
        "estimator": estimator,
        "start": "earliest" if from_start else "latest",
        "on_problem": lambda problem: typer.echo(f"stream-calib: {problem}", err=True),
    }
    if sys.stderr is not None and sys.stderr.isatty():
        typer.echo(f"waiting for matrices on {topic}; Ctrl-C ends it", err=True)
    with contextlib.suppress(KeyboardInterrupt), _screen(as_json=as_json, with_map=map_) as show:
        asyncio.run(_watch(settings.kafka, options, count, show))


@contextlib.contextmanager
def _screen(*, as_json: bool, with_map: bool) -> Iterator[Show]:
    from stream_calib.wire.matrices import to_json

    if as_json:
        yield lambda matrix: print(to_json(matrix).decode(), flush=True)
    elif not with_map:
        yield lambda matrix: print(matrix_line(matrix), flush=True)
    else:
        with _maps() as show:
            yield show


@contextlib.contextmanager
def _maps() -> Iterator[Show]:
    # On a terminal the lines scroll over one map that stays, elsewhere each has its own.
    from rich.live import Live

    console = Screen(highlight=False, soft_wrap=True)
    live = Live(console=console, auto_refresh=False) if console.is_terminal else None
    with live or contextlib.nullcontext():

        def show(matrix: "Matrix") -> None:
            console.print(matrix_line(matrix), markup=False)
            picture = heat_map(matrix, console.width)
            if live is not None:
                live.update(picture, refresh=True)
            else:
                console.print(picture)

        yield show


async def _watch(
    kafka: "KafkaConfig", options: dict[str, Any], count: int | None, show: Show
) -> None:
    from stream_calib.adapters.kafka import check_topics, client_options
    from stream_calib.client import subscribe

    await check_topics(kafka, [options["topic"]])
    client = client_options(kafka)
    servers = client.pop("bootstrap_servers")
    address = servers if isinstance(servers, str) else ",".join(servers)
    n = 0
    async with contextlib.aclosing(subscribe(address, **options, **client)) as matrices:
        async for matrix in matrices:
            show(matrix)
            n += 1
            if n == count:
                return
