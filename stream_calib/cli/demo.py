"""``demo``: the main job on generated ticks whose true correlations are known."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stream_calib.cli.run import load_kernels, stopping_on_signals
from stream_calib.cli.screen import Screen, Tally, heat_map

if TYPE_CHECKING:
    from stream_calib.config import Config
    from stream_calib.service.wiring import Service
    from stream_calib.simulation import SimulatedTicks
    from stream_calib.values import F64, Effects, Event, Matrix

RECORDED = Path(__file__).parents[2] / "replay_data" / "demo_ticks.jsonl.zst"
SEED, RATE_HZ = 20250304, 2.0  # what they were drawn with
TURN_S = 0.05
REDRAW_S = 0.25
GIVE_UP_S = 30.0
TURNS = ("drift_alarm", "refit_installed", "refit_rolled_back")
DCC_BAR_NS = 20_000_000_000

UNIVERSE: dict[str, object] = {
    "name": "demo",
    "bar": "5s",
    "every": 4,
    # ticks without noise, two a second: windows need not be longer than ticks are apart
    "ewma": {"half_life": "12m", "window": "20s"},
    "dcc": {"bar": "20s", "first_fit_bars": 100, "refit_bars": 50, "window_bars": 300},
}


class Show:
    """Keeps what the demo shows: the newest matrices, and the last ones before the break."""

    def __init__(self, truth: "SimulatedTicks", console: Screen, *, stay: bool = False) -> None:
        self.truth = truth
        self.console = console
        self.stay = stay
        self.tally = Tally()
        self.newest: dict[str, Matrix] = {}  # by estimator
        self.before: dict[str, Matrix] = {}
        self.models = 0
        self.shifts: list[str] = []  # what was said of the break, a line each
        self.turns: list[str] = []  # those of them that a summary needs
        self.fed = 0
        self.complete = asyncio.Event()
        self.n_ticks = len(truth.time_ns)
        self.break_ns = int(truth.path_time_ns[1])

    def note(self, _universe: str, effects: "Effects") -> None:
        """Take in what became durable."""
        self.tally.add(effects)
        if self.tally.outcomes.get("applied", 0) >= self.n_ticks:
            self.complete.set()
        self.models += len(effects.calibrations)
        for event in effects.events:
            line = _shift_line(event, self.break_ns)
            if line:
                self.shifts.append(line)
                if event.type in TURNS:
                    self.turns.append(line)
        for matrix in effects.matrices:
            self.newest[matrix.estimator] = matrix
            if matrix.as_of_ns <= self.break_ns:
                self.before[matrix.estimator] = matrix

    def progress(self) -> Iterator[str]:
        """Describe how far the demo is, and how far off."""
        yield (
            f"{self.fed / self.n_ticks:>4.0%}  {self.fed:,} of {self.n_ticks:,} ticks, "
            f"{self.tally.matrices:,} matrices, {self.models} DCC models"
        )
        yield from self.shifts
        newest = self.newest.get("ewma")
        if newest is None:
            return
        as_of_ns = newest.as_of_ns
        minutes = abs(as_of_ns - self.break_ns) / 60e9
        true, found = _pairs(self.truth, newest)
        yield (
            f"{minutes:.0f} min {'after' if as_of_ns > self.break_ns else 'before'} the break: "
            f"average correlation {found.mean():+.3f}, true {true.mean():+.3f}; "
            f"RMS error {_rms(found - true):.3f}"
        )

    def draw(self) -> Group:
        """Draw the newest matrix as a heat map under the progress lines."""
        lines = [Text(line, no_wrap=True, overflow="ellipsis") for line in self.progress()]
        if "ewma" in self.newest:
            lines.append(heat_map(self.newest["ewma"], self.console.width))
        return Group(*lines)

    async def refresh(self, live: Live | None) -> None:
        """Redraw for ever: in place on a terminal, a line a second elsewhere."""
        told, before = 0, ""
        while True:
            if live is not None:
                live.update(self.draw())
            else:
                now = "; ".join(line for line in self.progress() if line not in self.shifts)
                if now != before:  # nothing moves while it stays
                    self.console.print(now, markup=False, soft_wrap=True)
                before = now
                for line in self.shifts[told:]:
                    self.console.print(line, markup=False, soft_wrap=True)
                told = len(self.shifts)
            await asyncio.sleep(REDRAW_S if live is not None else 1.0)

    def table(self) -> Table:
        """Compare estimates and truth, before and after the break."""
        title = "True and estimated correlations, before and after the break"
        table = Table(title=title, box=None, padding=(0, 2, 0, 0))
        table.add_column("", no_wrap=True)
        for name in ("before", "EWMA", "DCC", "after", "EWMA", "DCC"):
            table.add_column(name, justify="right", no_wrap=True)
        sides = [_compare(self.truth, matrices) for matrices in (self.before, self.newest)]
        for (name, *left), (_, *right) in zip(*sides, strict=True):
            table.add_row(name, *left, *right)
        return table


def demo(
    kafka: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Run through this Kafka, not the in-process log."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.0, help="How long to feed the ticks.")] = 15.0,
    http_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the live view; if in use, a free one.")
    ] = 9464,
    stay: Annotated[
        bool, typer.Option("--stay", help="Keep the live view up at the end, until Ctrl-C.")
    ] = False,
) -> None:
    """See correlations estimated, broken, and found again.

    Two hours of ticks from replay_data/ pass in a quarter of a minute. A browser shows it live at
    the address that is printed. It ends by itself with a table of estimated against true
    correlations.
    """
    console = Screen(highlight=False)
    compile_s = load_kernels(fits=True)
    console.print(f"kernels ready after {compile_s:.1f} s")
    from stream_calib.simulation import simulate

    show = Show(simulate(seed=SEED, rate_hz=RATE_HZ), console, stay=stay)
    if kafka is None:
        asyncio.run(_on_embedded(show, seconds, http_port, compile_s))
    else:
        asyncio.run(_on_kafka(show, seconds, http_port, kafka, compile_s))
    if show.fed < show.n_ticks or "ewma" not in show.before:
        console.print("interrupted")
        raise typer.Exit(130)
    console.print(show.table())
    for line in show.turns:
        console.print(line, soft_wrap=True)
    if not show.shifts:
        console.print("the watch for drift raised no alarm")
    outcomes = ", ".join(f"{n:,} {name}" for name, n in sorted(show.tally.outcomes.items()))
    console.print(f"{show.fed:,} ticks: {outcomes}; {show.tally.matrices:,} matrices")


async def _on_embedded(show: Show, seconds: float, port: int, compile_s: float) -> None:
    from stream_calib.adapters.embedded import EmbeddedLog
    from stream_calib.service.topics import output_topics
    from stream_calib.service.wiring import embedded_service

    config = _settings(show.truth, port)
    (ticks,) = config.topics_of(config.universe[0])
    log, fed_all = EmbeddedLog(), asyncio.Event()
    for name in (ticks, *(spec.name for spec in output_topics(config))):
        log.create_topic(name)
    service = embedded_service(config, log, fed_all.is_set, show.note, compile_s)

    async def feed(stop: asyncio.Event) -> None:
        async for values in _paced(show, seconds):
            for value in values:
                log.append(ticks, 0, None, value)
        await _stay(show, stop)
        fed_all.set()

    await _play(show, service, feed)


async def _on_kafka(show: Show, seconds: float, port: int, address: str, compile_s: float) -> None:
    from stream_calib.adapters.kafka import KafkaSink, ensure_topics
    from stream_calib.errors import TransportError
    from stream_calib.service.topics import input_topics, output_topics
    from stream_calib.service.wiring import kafka_service
    from stream_calib.values import Output

    config = _settings(show.truth, port, address)
    (ticks,) = config.topics_of(config.universe[0])
    await ensure_topics(config.kafka, [*input_topics(config, 1), *output_topics(config)])
    sink = KafkaSink(config.kafka)
    service = kafka_service(config, show.note, compile_s)
    matrices = f"{config.output.prefix}.correlations"
    show.console.print(
        "see the matrices from another terminal:\n"
        f"  stream-calib watch --bootstrap {address} --topic {matrices} --map\n"
        f"  kcat -b {address} -C -t {matrices} -X isolation.level=read_committed",
        markup=False,
        soft_wrap=True,
    )

    async def feed(stop: asyncio.Event) -> None:
        await sink.start()
        try:
            async for values in _paced(show, seconds):
                await sink.publish([Output(ticks, 0, b"", value, ()) for value in values])
        finally:
            await sink.close()
        try:
            await asyncio.wait_for(show.complete.wait(), GIVE_UP_S)
        except TimeoutError:
            message = f"Kafka at {address} has not carried all ticks after {GIVE_UP_S:g} s"
            raise TransportError(message) from None
        await _stay(show, stop)
        stop.set()

    await _play(show, service, feed)


async def _stay(show: Show, stop: asyncio.Event) -> None:
    if show.stay:
        await show.complete.wait()
        show.console.print("all ticks are in; Ctrl-C ends it", soft_wrap=True)
        await stop.wait()


async def _play(
    show: Show, service: "Service", feed: Callable[[asyncio.Event], Coroutine[None, None, None]]
) -> None:
    def started() -> None:
        url = service.http.url
        show.console.print(f"live view at {url}/  (metrics at {url}/metrics)", soft_wrap=True)

    live = Live(show.draw(), console=show.console) if show.console.is_terminal else None
    async with stopping_on_signals() as stop:
        try:
            with live or contextlib.nullcontext():
                async with asyncio.TaskGroup() as group:
                    helpers = [group.create_task(work) for work in (feed(stop), show.refresh(live))]
                    await service.run(stop, started)
                    for task in helpers:
                        task.cancel()
                if live is not None:
                    live.update(show.draw())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None  # whichever failed, the demo ends


def _lines(truth: "SimulatedTicks") -> Iterator[bytes]:
    # the recorded ticks of a checkout; without them the same ones, drawn again
    import orjson

    from stream_calib.adapters.files import FileSource

    if not RECORDED.exists():
        yield from map(orjson.dumps, truth.records())
        return
    source = FileSource([RECORDED])
    source.open()
    while not source.exhausted():
        for batch in source.take(1000):
            yield from (value for value in batch.values if value is not None)


async def _paced(show: Show, seconds: float) -> AsyncIterator[list[bytes]]:
    lines = _lines(show.truth)
    size = max(1, round(show.n_ticks * TURN_S / max(seconds, TURN_S)))
    started_s = time.monotonic()
    while batch := list(itertools.islice(lines, size)):
        yield batch
        show.fed += len(batch)
        due_s = started_s + seconds * show.fed / show.n_ticks
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))


def _settings(truth: "SimulatedTicks", port: int, address: str | None = None) -> "Config":
    from stream_calib.cli.options import overrides
    from stream_calib.config import parse_config

    run = f"demo-{time.time_ns() // 1_000_000_000:x}"  # topics of its own: a demo starts clean
    universe = UNIVERSE | {"symbols": list(truth.symbols)}
    flags = overrides(
        kafka__bootstrap_servers=address,
        input__topics=(f"{run}.ticks",),
        output__prefix=run,
        http__port=_free(port),
        refit__late="wait",
    )
    return parse_config({"universe": [universe]}, flags, origin="environment")


def _free(port: int) -> int:
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
        return port


def _shift_line(event: "Event", break_ns: int) -> str:
    # what an event says of a shift, with the bars of DCC since the true break
    details, bars = event.details, (event.time_ns - break_ns) // DCC_BAR_NS
    when = f"{bars} DCC bars after the break" if bars >= 0 else "before the break"
    if event.type == "drift_alarm":
        since = (int(str(details["since_ns"])) - break_ns) / 60e9
        alarm = f"{when}: ALARM {details['alternative']}, since {since:+.1f} min of the true break"
        before, after = details["average_before"], details["average_after"]
        if before is None:
            return alarm
        return f"{alarm}; average correlation {before:+.2f} to {after:+.2f}"
    if event.type == "drift_refuted":
        return f"{when}: nothing has confirmed the alarm"
    if "drift" not in {details.get("reason"), details.get("cause")}:
        return ""
    said = {
        "refit_requested": "a target is fitted to what came since",
        "refit_shadowed": "it runs in shadow",
        "refit_installed": "it predicts better and is installed",
        "refit_rejected": "it predicts no better and is dropped",
        "refit_rolled_back": "the old model is back",
    }
    return f"{when}: {said[event.type]}" if event.type in said else ""


def _pairs(truth: "SimulatedTicks", matrix: "Matrix") -> "tuple[F64, F64]":
    # True and estimated correlation of each pair, over the symbols that the matrix covers.
    import numpy as np

    chosen = [truth.symbols.index(symbol) for symbol in matrix.symbols]
    true = truth.corr_at(matrix.as_of_ns - 1)[np.ix_(chosen, chosen)]
    upper = np.triu_indices(len(chosen), 1)
    return true[upper], matrix.corr[upper]


def _rms(error: "F64") -> float:
    return float((error**2).mean() ** 0.5)


def _compare(
    truth: "SimulatedTicks", matrices: "Mapping[str, Matrix]"
) -> Iterator[tuple[str, str, str, str]]:
    import numpy as np

    ewma = matrices["ewma"]
    true, found = _pairs(truth, ewma)
    n = len(ewma.symbols)
    rows, columns = np.triu_indices(n, 1)
    other = matrices.get("dcc")
    same = other is not None and other.symbols == ewma.symbols
    cells = [(found, 1.96 * ewma.band[rows, columns])]
    if other is not None and same:
        cells.append((other.corr[rows, columns], 1.96 * other.band[rows, columns]))

    def row(name: str, first: str, texts: list[str]) -> tuple[str, str, str, str]:
        return name, first, texts[0], texts[1] if len(texts) > 1 else "-"

    names = [symbol.split(":")[-1] for symbol in ewma.symbols]
    yield row("average", f"{true.mean():+.2f}", [f"{own.mean():+.2f}" for own, _ in cells])
    for pair in sorted({0, n // 2 - 1, n - 2}):  # the first symbol with three others
        name = f"{names[rows[pair]]} ~ {names[columns[pair]]}"
        texts = [f"{own[pair]:+.2f} ±{band[pair]:.2f}".replace("±0", "±") for own, band in cells]
        yield row(name, f"{true[pair]:+.2f}", texts)
    yield row("RMS error", "", [f"{_rms(own - true):.3f}" for own, _ in cells])
    inside = [f"{100 * np.mean(np.abs(own - true) <= band):.0f} %" for own, band in cells]
    yield row("in 95 % band", "95 %", inside)
