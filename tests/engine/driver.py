"""Drives a Runner over partitions held in memory, in any interleaving and any cut."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random

import orjson

from stream_calib.config import Config, parse_config
from stream_calib.engine import journal
from stream_calib.service.runner import Runner, unobserved
from stream_calib.values import (
    Effects,
    Fit,
    Matrix,
    Move,
    Output,
    Range,
    RecordBatch,
    Source,
    TickBatch,
)
from stream_calib.wire.journal import RecordDigest
from stream_calib.wire.ticks import decode

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND  # a whole minute

Value = bytes | None
Log = Mapping[Source, Sequence[Value]]


def settings(symbols: Sequence[str], **changes: object) -> Config:
    """Small settings: 1 s bars, 20 s half-life; ``universe__key`` reaches into the universe."""
    universe: dict[str, object] = {
        "name": "u",
        "symbols": list(symbols),
        "bar": "1s",
        "ready_n_eff": 5.0,
        "ewma": {"half_life": "20s", "window": "1s", "winsor": 0.0},
        "filter": {"enabled": False},
    }
    tree: dict[str, object] = {"universe": [universe]}
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if section == "universe":
            universe[name] = value
        else:
            tree.setdefault(section, {})[name] = value  # type: ignore[index]
    return parse_config(tree)


def tick(symbol: str, seconds: float, price: float, **more: object) -> bytes:
    """One native tick ``seconds`` after START."""
    time_ns = START + round(seconds * SECOND)
    return orjson.dumps({"symbol": symbol, "time": time_ns, "price": price, **more})


def batch_of(
    source: Source, values: Sequence[Value], start: int, stop: int, stamp_ms: int = -1
) -> RecordBatch:
    """Cut [start, stop) out of a partition."""
    stamps = [stamp_ms] * (stop - start)
    return RecordBatch(source, start, stop, range(start, stop), stamps, values[start:stop])


class Driver:
    """A Runner with its input; keeps everything that it would have published."""

    def __init__(self, config: Config, stamp_ms: int = -1) -> None:
        self.runner = Runner(config, config.universe[0], "1.2.3", unobserved())
        self.outputs: list[Output] = []
        self.effects: list[Effects] = []
        self.counts: dict[str, int] = {}
        self._stamp_ms = stamp_ms

    def take(self, taken: Sequence[Effects]) -> None:
        for effects in taken:
            self.effects.append(effects)
            self.outputs += self.runner.outputs(effects)
            for (_, outcome), n in effects.counts.items():
                self.counts[outcome] = self.counts.get(outcome, 0) + n

    def run(self, log: Log, random: Random, largest_cut: int = 50) -> "Driver":
        """Read the whole log in a random interleaving and random cuts, then flush."""
        ends = {source: len(values) for source, values in log.items()}
        at = dict.fromkeys(sorted(log), 0)
        self.take(self.runner.turn([], tuple(sorted(log)), ends, 0.0))
        while unread := [source for source in at if at[source] < ends[source]]:
            some = random.sample(unread, random.randint(1, len(unread)))
            batches = []
            for source in some:
                stop = min(ends[source], at[source] + random.randint(1, largest_cut))
                batches.append(batch_of(source, log[source], at[source], stop, self._stamp_ms))
                at[source] = stop
            self.take(self.runner.turn(batches, (), ends, 0.0))
        self.take(self.runner.turn([], (), ends, 0.0, exhausted=True))
        return self

    def published(self, name: str = "correlations") -> list[Output]:
        """All records of one output topic, in order."""
        return [output for output in self.outputs if output.topic.endswith(name)]

    @property
    def matrices(self) -> list[Matrix]:
        return [matrix for effects in self.effects for matrix in effects.matrices]


def reader(
    config: Config, log: Log, random: Random, largest_cut: int = 50, stamp_ms: int = -1
) -> Callable[[Range], Iterator[TickBatch]]:
    """What reads the ticks of a range again, in random cuts, and checks its digest."""
    symbols = {symbol: i for i, symbol in enumerate(config.universe[0].symbols)}

    def read(wanted: Range) -> Iterator[TickBatch]:
        source, start, stop, n_records, expected = wanted
        assert n_records == stop - start
        digest = RecordDigest()
        while start < stop:
            cut = min(stop, start + random.randint(1, largest_cut))
            records = batch_of(source, log[source], start, cut, stamp_ms)
            start = cut
            digest.update(records)
            yield decode(records, config.input.format, symbols)
        assert digest.value() == expected

    return read


def repeat_run(
    config: Config,
    log: Log,
    moves: Sequence[Move],
    random: Random,
    fits: Mapping[str, Fit] | None = None,
) -> Driver:
    """Run again under a journal, reading exactly its ranges, in other cuts."""
    driver = Driver(config)
    read = reader(config, log, random)
    for move in moves:
        driver.take(driver.runner.apply(journal.repeat(move, read, fits or {})))
    return driver
