"""``watch``: one line per matrix off the output topic, and a heat map."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from stream_calib.cli.screen import heat_map, matrix_line

if TYPE_CHECKING:
    from stream_calib.values import Matrix


def watch(
    bootstrap: Annotated[str, typer.Option(help="Kafka address.")] = "127.0.0.1:9092",
    topic: Annotated[str, typer.Option(help="The correlations topic.")] = "calib.correlations",
    universe: Annotated[str | None, typer.Option(help="Only this universe.")] = None,
    estimator: Annotated[str | None, typer.Option(help="Only this estimator.")] = None,
    from_start: Annotated[bool, typer.Option(help="From the first matrix still kept.")] = False,
    map_: Annotated[bool, typer.Option("--map/--no-map", help="Draw each as a heat map.")] = False,
    count: Annotated[int | None, typer.Option(help="Leave after so many matrices.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document per line.")] = False,
) -> None:
    """Watch matrices as they are published."""
    console = Console(soft_wrap=not map_, highlight=False)

    def show(matrix: "Matrix") -> None:
        if as_json:
            from stream_calib.wire.matrices import to_json

            print(to_json(matrix).decode(), flush=True)
            return
        console.print(matrix_line(matrix), markup=False)
        if map_:
            console.print(heat_map(matrix, console.width))

    start: Literal["earliest", "latest"] = "earliest" if from_start else "latest"
    options: dict[str, Any] = {"universe": universe, "estimator": estimator, "start": start}
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_watch(bootstrap, topic, options, count, show))


async def _watch(
    bootstrap: str,
    topic: str,
    options: dict[str, Any],
    count: int | None,
    show: Callable[["Matrix"], None],
) -> None:
    from stream_calib.client import subscribe

    n = 0
    async with contextlib.aclosing(subscribe(bootstrap, topic=topic, **options)) as matrices:
        async for matrix in matrices:
            show(matrix)
            n += 1
            if count is not None and n >= count:
                return
