"""``export``: matrices out of files or Kafka into Parquet, csv or npz."""

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream_calib.cli.options import Bootstrap, ClientConfig, client_settings
from stream_calib.cli.selection import (
    START_HELP,
    Estimator,
    Files,
    Narrowing,
    Pairs,
    Symbols,
    Topic,
    Universe,
    each_matrix,
    pairs_of,
    start_of,
    symbols_of,
    tell,
    time_of,
)

if TYPE_CHECKING:
    from stream_calib.adapters.exports import Export
    from stream_calib.config import KafkaConfig


def export(
    out: Annotated[
        Path,
        typer.Option(metavar="FILE", help="The file to write: .parquet, .csv or .npz."),
    ],
    files: Files = None,
    config: ClientConfig = None,
    bootstrap: Bootstrap = None,
    topic: Topic = None,
    universe: Universe = None,
    estimator: Estimator = None,
    start: Annotated[str, typer.Option(metavar="WHERE", help=f"{START_HELP}.")] = "earliest",
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only matrices as of before this time.")
    ] = None,
    symbols: Symbols = None,
    pairs: Pairs = None,
) -> None:
    """Write matrices to a file: a row per pair (.parquet, .csv) or stacked arrays (.npz).

    From Kafka it ends where the log ended when it began. Rows go out as they come; arrays are
    kept in memory until the end.
    """
    from stream_calib.adapters.exports import open_export
    from stream_calib.client.start import time_ns_of
    from stream_calib.errors import InputError

    settings = client_settings(config, bootstrap)
    if files and out.resolve() in {file.resolve() for file in files}:
        raise InputError(f"{out}: it is an input file, and would be overwritten")
    options: dict[str, Any] = {
        "topic": topic or f"{settings.output.prefix}.correlations",
        "universe": universe,
        "estimator": estimator,
        "start": start_of(start),
        "follow": False,
        "on_problem": tell,
    }
    until_ns = None if until is None else time_ns_of(time_of(until))
    narrow, wanted = Narrowing(symbols_of(symbols)), pairs_of(pairs)
    with open_export(out, wanted) as target:
        work = _export(files, settings.kafka, options, until_ns, narrow, wanted, target)
        n_matrices, n_rows = asyncio.run(work)
        if not n_rows:
            raise InputError(f"{out}: not written, for there is no such matrix")
    typer.echo(f"{out}: {n_matrices:,} matrices, {n_rows:,} pairs")


async def _export(
    files: list[Path] | None,
    kafka: "KafkaConfig",
    options: dict[str, Any],
    until_ns: int | None,
    narrow: Narrowing,
    pairs: list[tuple[str, str]] | None,
    target: "Export",
) -> tuple[int, int]:
    n_matrices = n_rows = 0
    async with contextlib.aclosing(each_matrix(files, kafka, options)) as matrices:
        async for matrix in matrices:
            if until_ns is not None and matrix.as_of_ns >= until_ns:
                continue
            if pairs is not None:
                narrow.check(matrix, [symbol for pair in pairs for symbol in pair])
            left = narrow(matrix)
            if left is not None:
                n_matrices += 1
                n_rows += target.add(left)
    return n_matrices, n_rows
