"""Which matrices, and what of them: options that `watch` and `export` share."""

import re
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from datetime import datetime

    from stream_calib.client import Problem
    from stream_calib.config import KafkaConfig
    from stream_calib.values import Matrix

Files = Annotated[
    list[Path] | None,
    typer.Argument(metavar="FILE", help="Output files of replay --out; default: Kafka."),
]
Topic = Annotated[
    str | None, typer.Option(help="Read this topic; default: <output.prefix>.correlations.")
]
Universe = Annotated[str | None, typer.Option(help="Only matrices of this universe.")]
Estimator = Annotated[str | None, typer.Option(help="Only those of this estimator.")]
Symbols = Annotated[
    str | None, typer.Option(metavar="A,B,...", help="Only these symbols of each matrix.")
]
Pairs = Annotated[
    str | None, typer.Option(metavar="A~B,C~D,...", help="Only these pairs of each matrix.")
]
START_HELP = "A sequence (with --universe), a time with a zone, earliest or latest"


def start_of(text: str) -> "int | str | datetime":
    """Understand ``--start``."""
    if text in {"earliest", "latest"}:
        return text
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else time_of(text)


def time_of(text: str) -> "datetime":
    """Understand a time with a zone, such as 2024-05-01T14:00:00Z."""
    from datetime import datetime

    from stream_calib.errors import InputError

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"{text!r} is not a time such as 2024-05-01T14:00:00Z") from None
    if moment.tzinfo is None:
        raise InputError(f"the time {text!r} has no zone: end it with Z for UTC")
    return moment


def symbols_of(text: str | None) -> list[str] | None:
    """Understand ``--symbols``."""
    from stream_calib.errors import InputError

    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if len(names) < 2 or not all(names) or len({*names}) < len(names):
        raise InputError(f"--symbols: {text!r} is not two different symbols or more, as A,B,C")
    return names


def pairs_of(text: str | None) -> list[tuple[str, str]] | None:
    """Understand ``--pairs``."""
    from stream_calib.errors import InputError

    if text is None:
        return None
    pairs = []
    for part in text.split(","):
        a, _, b = (word.strip() for word in part.partition("~"))
        if not a or not b or a == b or "~" in b:
            raise InputError(f"--pairs: {part.strip()!r} is not a pair such as A~B")
        pairs.append((a, b))
    return pairs


def tell(problem: "Problem") -> None:
    """Say on standard error what is wrong with the matrices."""
    typer.echo(f"stream-calib: {problem}", err=True)


class Narrowing:
    """Cuts matrices down to some symbols; what none of them ever has is said once.

    Parameters
    ----------
    symbols
        Which, in their order; None is all.
    """

    def __init__(self, symbols: Sequence[str] | None) -> None:
        self._symbols = symbols
        self._told: set[tuple[str, str]] = set()

    def __call__(self, matrix: "Matrix") -> "Matrix | None":
        """Return what is left of a matrix, None where that is less than a pair."""
        if self._symbols is None:
            return matrix
        self.check(matrix, self._symbols)
        ready = [symbol for symbol in self._symbols if symbol in matrix.symbols]
        return matrix.subset(ready) if len(ready) > 1 else None

    def check(self, matrix: "Matrix", symbols: Sequence[str]) -> None:
        """Say which symbols are not even pending."""
        for symbol in symbols:
            if symbol in matrix.symbols or symbol in matrix.pending:
                continue
            if (matrix.universe, symbol) not in self._told:
                self._told.add((matrix.universe, symbol))
                text = f"stream-calib: universe {matrix.universe!r} has no symbol {symbol!r}"
                typer.echo(text, err=True)


async def each_matrix(
    files: Sequence[Path] | None, kafka: "KafkaConfig", options: dict[str, Any]
) -> AsyncGenerator["Matrix", None]:
    """Yield the matrices of files, or of Kafka, as ``subscribe`` takes the options."""
    import asyncio
    import contextlib

    if files:
        from stream_calib.client import read_matrices

        names = ("universe", "estimator", "start", "on_problem")
        for matrix in read_matrices(files, **{name: options[name] for name in names}):
            yield matrix
            await asyncio.sleep(0)  # Ctrl-C comes through here
        return
    from stream_calib.adapters.kafka import check_topics, client_options
    from stream_calib.client import subscribe

    await check_topics(kafka, [options["topic"]])
    client = client_options(kafka)
    servers = client.pop("bootstrap_servers")
    address = servers if isinstance(servers, str) else ",".join(servers)
    async with contextlib.aclosing(subscribe(address, **options, **client)) as matrices:
        async for matrix in matrices:
            yield matrix
