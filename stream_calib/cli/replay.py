"""``replay``: the whole engine over recorded files, no Kafka."""

import asyncio
import itertools
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream_calib.cli.options import ConfigFile
from stream_calib.cli.screen import Tally, progress_bar

if TYPE_CHECKING:
    from stream_calib.adapters.files import FileSink
    from stream_calib.config import Config, UniverseConfig
    from stream_calib.service.speed import Speed
    from stream_calib.values import Effects

STDOUT = Path("-")


def replay(
    config: ConfigFile,
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE", help="Recorded ticks, in any order; each file is a topic."),
    ] = None,
    journal: Annotated[
        bool,
        typer.Option("--journal", help="Repeat the journal on Kafka and the input that it names."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write each output record as a JSON line to this file; - is stdout.",
        ),
    ] = None,
    speed: Annotated[
        str,
        typer.Option(
            metavar="N|max",
            help="Write matrices at so many times the pace of event time, universe after "
            "universe; the bytes are the same.",
        ),
    ] = "max",
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Run recorded ticks through the whole engine, no Kafka.

    The same files and settings give the same bytes. What became of the records is counted in
    the summary; a file of nothing but garbage is no error. With --journal the input is what the
    running service has read from Kafka, with its decisions: every byte that it published comes
    out again, or the first entry that differs is named.
    """
    from stream_calib.config import load_config
    from stream_calib.errors import InputError, TransportError
    from stream_calib.service.speed import parse_speed

    settings = load_config(config)
    if journal == bool(files):
        raise typer.BadParameter("give either FILE or --journal", param_hint="FILE")
    if files is None or journal:
        asyncio.run(_repeat(settings, out, as_json=as_json))
        return
    if out is not None and out.resolve() in {file.resolve() for file in files}:
        message = f"{out}: it is an input file, and would be overwritten"
        raise InputError(message)
    parse_speed(speed)
    started_s = time.perf_counter()
    try:
        n_records, tallies = asyncio.run(_replay(files, settings, out, speed))
    except TransportError as error:  # from the output file, there is no other transport here
        if isinstance(error.__cause__, BrokenPipeError):
            raise error.__cause__ from None
        raise InputError(str(error)) from None
    seconds = time.perf_counter() - started_s
    text = _json(n_records, tallies) if as_json else _table(n_records, tallies, seconds)
    typer.echo(text, err=out == STDOUT)
    for universe in settings.universe:
        tally = tallies[universe.name]
        if not tally.matrices:
            reason = _why_nothing(universe, n_records, tally)
            message = f"stream-calib: universe {universe.name!r} published nothing: {reason}"
            typer.echo(message, err=True)


async def _replay(
    files: list[Path], settings: "Config", out: Path | None, speed: str
) -> tuple[int, Mapping[str, Tally]]:
    from stream_calib.service.replay import replay_effects
    from stream_calib.service.speed import parse_speed

    tallies = {universe.name: Tally() for universe in settings.universe}
    bar = progress_bar()
    task = bar.add_task("read")
    paces = {universe.name: parse_speed(speed) for universe in settings.universe}
    steps = replay_effects(files, settings, lambda n: bar.advance(task, n))
    with bar:
        # what is wrong with the input is known before the output is touched
        first = next(steps)
        sink = await _open(out)
        try:
            for runner, effects in itertools.chain([first], steps):
                tallies[runner.universe.name].add(effects)
                async for part in _paced(effects, paces[runner.universe.name]):
                    fits, runner.fits = runner.fits, []
                    if sink is not None:
                        await sink.publish(fits + runner.outputs(part))
        finally:
            if sink is not None:
                await sink.close()
    # every universe reads all of the files
    return round(bar.tasks[0].completed) // len(tallies), tallies


async def _paced(effects: "Effects", pace: "Speed | None") -> AsyncIterator["Effects"]:
    # One matrix after the other, each when its time has come, between what comes before and
    # after all of them: the records and their order are those of the whole.
    if pace is None:
        yield effects
        return
    nothing = replace(effects, events=(), rejects=(), calibrations=(), descriptions=())
    yield replace(nothing, matrices=(), descriptions=effects.descriptions)
    for matrix in effects.matrices:
        await asyncio.sleep(pace.wait_s(matrix.as_of_ns, time.monotonic()))
        yield replace(nothing, matrices=(matrix,))
    yield replace(effects, matrices=(), descriptions=())


async def _repeat(settings: "Config", out: Path | None, *, as_json: bool) -> None:
    import orjson

    from stream_calib.service.replay import repeat_journal

    sink = await _open(out)
    summary: dict[str, dict[str, int | str]] = {}
    try:
        for universe in settings.universe:
            n_entries = n_outputs = first = 0
            async for entry, outputs in repeat_journal(settings, universe):
                first = first if n_entries else entry.number
                n_entries, n_outputs = n_entries + 1, n_outputs + len(outputs)
                chain = entry.chain
                if sink is not None:
                    await sink.publish(outputs)
            summary[universe.name] = {"first": first, "entries": n_entries, "outputs": n_outputs}
            if n_entries:
                summary[universe.name]["chain"] = chain
    finally:
        if sink is not None:
            await sink.close()
    if as_json:
        typer.echo(orjson.dumps(summary).decode(), err=out == STDOUT)
        return
    for name, found in summary.items():
        sentence = (
            f"{name}: {found['entries']:,} entries repeated from entry {found['first']} on, "
            f"{found['outputs']:,} records, every digest as in the journal"
        )
        typer.echo(sentence, err=out == STDOUT)


async def _open(out: Path | None) -> "FileSink | None":
    from stream_calib.adapters.files import FileSink

    if out is None:
        return None
    sink = FileSink(sys.stdout.buffer if out == STDOUT else out)
    await sink.start()
    return sink


def _table(n_records: int, tallies: Mapping[str, Tally], seconds: float) -> str:
    lines = [f"{n_records:,} records in {seconds:.1f} s"]
    for name, tally in tallies.items():
        lines.append(f"{name}: {tally.matrices:,} matrices")
        lines += [f"  {outcome:<16}{n:>12,}" for outcome, n in sorted(tally.outcomes.items())]
    return "\n".join(lines)


def _json(n_records: int, tallies: Mapping[str, Tally]) -> str:
    import orjson

    total = Tally()
    for tally in tallies.values():
        total.matrices += tally.matrices
        for outcome, n in tally.outcomes.items():
            total.outcomes[outcome] = total.outcomes.get(outcome, 0) + n
    summary = {
        "records": n_records,
        "matrices": total.matrices,
        "outcomes": total.outcomes,
        "universes": {
            name: {"matrices": tally.matrices, "outcomes": tally.outcomes}
            for name, tally in tallies.items()
        },
    }
    return orjson.dumps(summary, option=orjson.OPT_SORT_KEYS).decode()


def _why_nothing(universe: "UniverseConfig", n_records: int, tally: Tally) -> str:
    from stream_calib.config import format_duration

    if not n_records:
        return "the files hold no records"
    if tally.outcomes.get("applied"):
        return (
            f"the ticks do not last until two symbols have ready_n_eff {universe.ready_n_eff:g} "
            f"effective bars of {format_duration(universe.bar)}"
        )
    main = max(tally.outcomes, key=tally.outcomes.__getitem__, default="")
    if main == "unknown_symbol":
        return "no tick is of one of its symbols"
    return f"no tick was applied, most often because of: {main}"
