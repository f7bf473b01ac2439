"""``watch``: one line per matrix off the output topic, and a heat map."""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream_calib.cli.options import Bootstrap, ClientConfig, client_settings
from stream_calib.cli.screen import Screen, heat_map, matrix_line, pairs_line
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
)

if TYPE_CHECKING:
    from stream_calib.config import KafkaConfig
    from stream_calib.values import Matrix

Show = Callable[["Matrix"], None]
PairList = Sequence[tuple[str, str]]


def watch(
    files: Files = None,
    config: ClientConfig = None,
    bootstrap: Bootstrap = None,
    topic: Topic = None,
    universe: Universe = None,
    estimator: Estimator = None,
    symbols: Symbols = None,
    pairs: Pairs = None,
    change: Annotated[
        float | None,
        typer.Option(
            min=0.0, metavar="X", help="Only matrices with a correlation X off the last one shown."
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(metavar="WHERE", help=f"{START_HELP}; default: now, of files all."),
    ] = None,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Begin with the first matrix still kept, not now.")
    ] = False,
    latest: Annotated[
        bool, typer.Option("--latest", help="Show the newest only where more wait to be shown.")
    ] = False,
    map_: Annotated[
        bool, typer.Option("--map", help="Also draw the newest as a heat map.")
    ] = False,
    count: Annotated[int | None, typer.Option(min=1, help="Leave after so many matrices.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document per matrix instead.")
    ] = False,
) -> None:
    """Watch matrices as they are published, or those of a file; Ctrl-C ends it."""
    from stream_calib.errors import InputError

    if files and latest:
        message = "--latest is for a topic: nothing waits in a file"
        raise InputError(message)
    settings = client_settings(config, bootstrap)
    topic = topic or f"{settings.output.prefix}.correlations"
    begin = start or ("earliest" if files or from_start else "latest")
    options: dict[str, Any] = {
        "topic": topic,
        "universe": universe,
        "estimator": estimator,
        "start": start_of(begin),
        "only": "latest" if latest else "all",
        "on_problem": tell,
    }
    wanted = Wanted(symbols_of(symbols), pairs_of(pairs), change)
    if not files and sys.stderr is not None and sys.stderr.isatty():
        typer.echo(f"waiting for matrices on {topic}; Ctrl-C ends it", err=True)
    screen = _screen(wanted.pairs, as_json=as_json, with_map=map_)
    with contextlib.suppress(KeyboardInterrupt), screen as show:
        asyncio.run(_watch(files, settings.kafka, options, wanted, count, show))


class Wanted:
    """What of the matrices is to be shown.

    Parameters
    ----------
    symbols, pairs
        Only these; None is all.
    change
        The least difference of a correlation to the last matrix shown; None shows all.
    """

    def __init__(
        self, symbols: Sequence[str] | None, pairs: PairList | None, change: float | None
    ) -> None:
        from stream_calib.errors import InputError

        named = () if symbols is None or pairs is None else (s for pair in pairs for s in pair)
        for symbol in named:
            if symbol not in (symbols or ()):
                raise InputError(f"--pairs has {symbol!r}, which --symbols leaves out")
        self.pairs = pairs
        self._narrow, self._change = Narrowing(symbols), change
        self._shown: dict[tuple[str, str], Matrix] = {}

    def part_of(self, matrix: "Matrix") -> "Matrix | None":
        """Return what is to be shown of a matrix; None is nothing."""
        if self.pairs is not None:
            self._narrow.check(matrix, [symbol for pair in self.pairs for symbol in pair])
            ready = {*matrix.symbols}
            if not any(a in ready and b in ready for a, b in self.pairs):
                return None
        left = self._narrow(matrix)
        return left if left is not None and self._has_changed(left) else None

    def _has_changed(self, matrix: "Matrix") -> bool:
        if self._change is None:
            return True
        symbols, name = matrix.symbols, (matrix.universe, matrix.estimator)
        before = self._shown.get(name)
        if before is not None and before.symbols == symbols:
            apart = abs(matrix.corr - before.corr)
            moved = [
                apart[symbols.index(a), symbols.index(b)]
                for a, b in self.pairs or ()
                if a in symbols and b in symbols
            ]
            if not (apart.max() if self.pairs is None else max(moved)) >= self._change:
                return False
        self._shown[name] = matrix
        return True


@contextlib.contextmanager
def _screen(pairs: PairList | None, *, as_json: bool, with_map: bool) -> Iterator[Show]:
    from stream_calib.wire.matrices import to_json

    def line(matrix: "Matrix") -> str:
        return matrix_line(matrix) if pairs is None else pairs_line(matrix, pairs)

    if as_json and pairs is not None:
        yield lambda matrix: print(_pairs_json(matrix, pairs), flush=True)
    elif as_json:
        yield lambda matrix: print(to_json(matrix).decode(), flush=True)
    elif not with_map:
        yield lambda matrix: print(line(matrix), flush=True)
    else:
        with _maps(line) as show:
            yield show


@contextlib.contextmanager
def _maps(line: Callable[["Matrix"], str]) -> Iterator[Show]:
    # On a terminal the lines scroll over one map that stays, elsewhere each has its own.
    from rich.live import Live

    console = Screen(highlight=False, soft_wrap=True)
    live = Live(console=console, auto_refresh=False) if console.is_terminal else None
    with live or contextlib.nullcontext():

        def show(matrix: "Matrix") -> None:
            console.print(line(matrix), markup=False)
            picture = heat_map(matrix, console.width)
            if live is not None:
                live.update(picture, refresh=True)
            else:
                console.print(picture)

        yield show


def _pairs_json(matrix: "Matrix", pairs: PairList) -> str:
    import orjson

    ready = [(a, b) for a, b in pairs if a in matrix.symbols and b in matrix.symbols]
    document = {
        "universe": matrix.universe,
        "estimator": matrix.estimator,
        "sequence": matrix.sequence,
        "as_of_ns": str(matrix.as_of_ns),
        "pairs": [
            {"a": a, "b": b, **found._asdict(), "staleness_ns": str(found.staleness_ns)}
            for a, b in ready
            for found in [matrix.pair(a, b)]
        ],
    }
    return orjson.dumps(document).decode()


async def _watch(
    files: list[Path] | None,
    kafka: "KafkaConfig",
    options: dict[str, Any],
    wanted: Wanted,
    count: int | None,
    show: Show,
) -> None:
    n = 0
    async with contextlib.aclosing(each_matrix(files, kafka, options)) as matrices:
        async for matrix in matrices:
            part = wanted.part_of(matrix)
            if part is None:
                continue
            show(part)
            n += 1
            if n == count:
                return
