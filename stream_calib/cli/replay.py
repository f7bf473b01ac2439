"""``replay``: the whole engine over recorded files, no Kafka."""

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from stream_calib.cli.options import ConfigFile
from stream_calib.cli.screen import Tally

if TYPE_CHECKING:
    from stream_calib.config import Config


def replay(
    files: Annotated[list[Path], typer.Argument(help="Recorded ticks; each file is a topic.")],
    config: ConfigFile,
    out: Annotated[Path | None, typer.Option(help="Write one JSON line per output record.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Replay recorded ticks; the same files and settings give the same bytes."""
    import orjson

    from stream_calib.config import load_config

    settings = load_config(config)
    started_s = time.perf_counter()
    tally = asyncio.run(_replay(files, settings, out))
    seconds = time.perf_counter() - started_s
    if as_json:
        summary = {
            "records": tally.records,
            "matrices": tally.matrices,
            "outcomes": tally.outcomes,
        }
        print(orjson.dumps(summary, option=orjson.OPT_SORT_KEYS).decode())
        return
    print(f"{tally.records:,} records, {tally.matrices:,} matrices in {seconds:.1f} s")
    for outcome, n in sorted(tally.outcomes.items()):
        print(f"  {outcome:<16}{n:>12,}")


async def _replay(files: list[Path], settings: "Config", out: Path | None) -> Tally:
    from stream_calib.adapters.files import FileSink
    from stream_calib.service.replay import replay_effects

    tally = Tally()
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.fields[records]:>12,} records"),
        TextColumn("{task.fields[matrices]:>8,} matrices"),
        TimeElapsedColumn(),
    )
    sink = FileSink(out) if out is not None else None
    if sink is not None:
        await sink.start()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("replay", total=None, records=0, matrices=0)
        for runner, effects in replay_effects(files, settings, tally.read):
            tally.add(effects)
            if sink is not None:
                await sink.publish(runner.outputs(effects))
            progress.update(task, records=tally.records, matrices=tally.matrices)
    if sink is not None:
        await sink.close()
    return tally
