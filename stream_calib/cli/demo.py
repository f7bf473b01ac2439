"""``demo``: the main job on generated ticks whose true correlations are known."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stream_calib.cli.run import stop_on_signals
from stream_calib.cli.screen import Tally, heat_map, matrix_line

if TYPE_CHECKING:
    from stream_calib.config import Config
    from stream_calib.service.wiring import Service
    from stream_calib.values import F64, Effects, Matrix

DATA = Path(__file__).parents[2] / "replay_data"
TICKS, METADATA = "demo_ticks.jsonl.zst", "demo_metadata.json"
TURN_S = 0.05
REDRAW_S = 0.25
GIVE_UP_S = 60.0


@dataclass(frozen=True)
class Truth:
    """The correlation path that the ticks were drawn from."""

    symbols: tuple[str, ...]
    break_ns: int
    before: "F64"
    after: "F64"
    n_ticks: int


class Show:
    """Keeps what the demo shows: the newest matrix, and the last one before the break."""

    def __init__(self, truth: Truth, console: Console) -> None:
        self.truth = truth
        self.console = console
        self.tally = Tally()
        self.newest: Matrix | None = None
        self.before: Matrix | None = None
        self.fed = 0
        self.complete = asyncio.Event()
        self._drawn_s = 0.0

    def note(self, _universe: str, effects: "Effects") -> None:
        """Take in what became durable."""
        self.tally.add(effects)
        if self.tally.outcomes.get("applied", 0) >= self.truth.n_ticks:
            self.complete.set()
        for matrix in effects.matrices:
            self.newest = matrix
            if matrix.as_of_ns <= self.truth.break_ns:
                self.before = matrix

    def progress(self) -> str:
        """Describe how far the demo is."""
        line = f"{self.fed:,} of {self.truth.n_ticks:,} ticks  {self.tally.matrices:,} matrices"
        return f"{line}  {matrix_line(self.newest)}" if self.newest else line

    def draw(self) -> Group:
        """Draw the newest matrix as a heat map under the progress line."""
        parts: list[Text] = [Text(self.progress())]
        if self.newest is not None:
            parts.append(heat_map(self.newest, self.console.width))
        return Group(*parts)

    async def refresh(self, live: Live | None) -> None:
        """Redraw for ever: in place on a terminal, a line a second elsewhere."""
        while True:
            if live is not None:
                live.update(self.draw())
            else:
                self.console.print(self.progress(), markup=False, soft_wrap=True)
            await asyncio.sleep(REDRAW_S if live is not None else 1.0)

    def table(self) -> Table:
        """Compare estimates and truth, before and after the break."""
        table = Table(title="True and estimated correlations, before and after the break")
        table.add_column("", no_wrap=True)
        for name in ("before: true", "estimated", "after: true", "estimated"):
            table.add_column(name, justify="right", no_wrap=True)
        sides = [(self.truth.before, self.before), (self.truth.after, self.newest)]
        for row in zip(*(_compare(true, found) for true, found in sides), strict=True):
            (name, *left), (_, *right) = row
            table.add_row(name, *left, *right)
        return table


def demo(
    kafka: Annotated[
        str | None, typer.Option(help="Run it through this Kafka, not the in-process log.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long feeding shall take.")] = 15.0,
    data: Annotated[Path, typer.Option(help="Folder of the ticks and their truth.")] = DATA,
    http_port: Annotated[int, typer.Option(help="Of /metrics; another is taken if in use.")] = 9464,
) -> None:
    """Watch correlations being estimated, break, and be found again; ends by itself."""
    console = Console(highlight=False)
    truth = _truth(data)
    started_s = time.perf_counter()
    import stream_calib.engine.engine  # noqa: F401  compiles the kernels

    console.print(f"kernels ready after {time.perf_counter() - started_s:.1f} s")
    show = Show(truth, console)
    job = _on_embedded if kafka is None else _on_kafka
    asyncio.run(job(show, data / TICKS, seconds, http_port, kafka or ""))
    if show.newest is None or show.newest.as_of_ns <= truth.break_ns:
        console.print("interrupted")
        raise typer.Exit(130)
    console.print(show.table())
    outcomes = ", ".join(f"{n:,} {name}" for name, n in sorted(show.tally.outcomes.items()))
    console.print(f"{show.fed:,} ticks: {outcomes}; {show.tally.matrices:,} matrices")


async def _on_embedded(show: Show, ticks: Path, seconds: float, port: int, _: str) -> None:
    from stream_calib.adapters.embedded import EmbeddedLog
    from stream_calib.service.wiring import embedded_service, output_topics

    config = _settings(show.truth, port, "ticks", "calib", "127.0.0.1:0")
    log, fed_all = EmbeddedLog(), asyncio.Event()
    for name in ("ticks", *(spec.name for spec in output_topics(config))):
        log.create_topic(name)
    service = embedded_service(config, log, fed_all.is_set, show.note)

    async def feed() -> None:
        async for values in _paced(show, ticks, seconds):
            for value in values:
                log.append("ticks", 0, None, value)
        fed_all.set()

    await _play(show, service, feed, asyncio.Event())


async def _on_kafka(show: Show, ticks: Path, seconds: float, port: int, address: str) -> None:
    from stream_calib.adapters.kafka import KafkaSink, ensure_topics
    from stream_calib.service.wiring import input_topics, kafka_service, output_topics
    from stream_calib.values import Output

    run = f"demo-{time.time_ns() // 1_000_000_000:x}"  # topics of its own: a demo starts clean
    config = _settings(show.truth, port, f"{run}.ticks", run, address)
    await ensure_topics(config.kafka, [*input_topics(config, 1), *output_topics(config)])
    stop = asyncio.Event()
    sink = KafkaSink(config.kafka)
    service = kafka_service(config, show.note)
    show.console.print(
        "read the matrices from another terminal:\n"
        f"  kcat -b {address} -C -t {run}.correlations -X isolation.level=read_committed "
        "-f '%k %h\\n%s\\n'",
        markup=False,
        soft_wrap=True,
    )

    async def feed() -> None:
        await sink.start()
        try:
            async for values in _paced(show, ticks, seconds):
                outputs = [Output(f"{run}.ticks", 0, b"", value, ()) for value in values]
                await sink.publish(outputs)
        finally:
            await sink.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GIVE_UP_S):
                await show.complete.wait()
        stop.set()

    await _play(show, service, feed, stop)


async def _play(
    show: Show,
    service: "Service",
    feed: Callable[[], Coroutine[None, None, None]],
    stop: asyncio.Event,
) -> None:
    stop_on_signals(stop)

    def started() -> None:
        show.console.print(f"metrics at {service.http.url}/metrics")

    helpers = [asyncio.create_task(feed())]
    try:
        if show.console.is_terminal:
            with Live(show.draw(), console=show.console, auto_refresh=True) as live:
                helpers.append(asyncio.create_task(show.refresh(live)))
                await service.run(stop, started)
                live.update(show.draw())
        else:
            helpers.append(asyncio.create_task(show.refresh(None)))
            await service.run(stop, started)
    finally:
        for task in helpers:
            task.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)


async def _paced(show: Show, ticks: Path, seconds: float) -> AsyncIterator[list[bytes]]:
    from stream_calib.adapters.files import FileSource

    source = FileSource([ticks])
    source.open()
    size = max(1, round(show.truth.n_ticks * TURN_S / max(seconds, TURN_S)))
    started_s = time.monotonic()
    while not source.exhausted():
        for batch in source.read(size):
            yield [value for value in batch.values if value is not None]
            show.fed += len(batch.values)
        due_s = started_s + seconds * show.fed / show.truth.n_ticks
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))


def _settings(truth: Truth, port: int, topic: str, prefix: str, address: str) -> "Config":
    from stream_calib.config import parse_config

    universe = {
        "name": "demo",
        "symbols": list(truth.symbols),
        "bar": "20s",
        "ewma": {"half_life": "12m"},
    }
    return parse_config(
        {
            "kafka": {"bootstrap_servers": address},
            "input": {"topics": [topic]},
            "output": {"prefix": prefix},
            "http": {"port": _free(port)},
            "universe": [universe],
        }
    )


def _free(port: int) -> int:
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
        return port


def _truth(data: Path) -> Truth:
    import numpy as np
    import orjson

    from stream_calib.errors import InputError

    try:
        document = orjson.loads((data / METADATA).read_bytes())
        return Truth(
            symbols=tuple(document["symbols"]),
            break_ns=int(document["break_time_ns"]),
            before=np.array(document["corr_before"]),
            after=np.array(document["corr_after"]),
            n_ticks=int(document["ticks"]),
        )
    except (OSError, KeyError, ValueError) as error:
        message = f"{data / METADATA}: cannot be read as the truth of the demo ({error})"
        raise InputError(message) from None


def _compare(true: "F64", matrix: "Matrix | None") -> Iterator[tuple[str, str, str]]:
    import numpy as np

    if matrix is None:
        return
    upper = np.triu_indices(len(true), 1)
    t, e, band = true[upper], matrix.corr[upper], matrix.band[upper]
    names = [symbol.split(":")[-1] for symbol in matrix.symbols]
    yield "average", f"{t.mean():+.3f}", f"{e.mean():+.3f}"
    pairs = {(0, 1), (0, len(true) // 2), (0, len(true) - 1)}
    for i, j in sorted(pairs):
        error = f"{matrix.corr[i, j]:+.3f} ±{1.96 * matrix.band[i, j]:.3f}"
        yield f"{names[i]} ~ {names[j]}", f"{true[i, j]:+.3f}", error
    yield "RMS error", "", f"{np.sqrt(np.mean((e - t) ** 2)):.3f}"
    yield "in 95 % band", "95 %", f"{np.mean(np.abs(e - t) <= 1.96 * band):.0%}"
