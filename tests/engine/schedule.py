"""Random schedules for a bare engine: what is read when, what is decided, and the same again."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import orjson

from stream_calib.config import Config, UniverseConfig
from stream_calib.engine.engine import Engine
from stream_calib.engine.journal import Recorder
from stream_calib.values import (
    NO_TIME,
    SECOND_NS,
    Fit,
    Move,
    Output,
    Snapshot,
    Source,
    Step,
    TickBatch,
    Watermark,
)
from stream_calib.wire import events, matrices
from stream_calib.wire.calibrations import encode_calibration
from stream_calib.wire.journal import OutputDigest, RecordDigest
from stream_calib.wire.snapshots import decode_snapshot, encode_snapshot
from stream_calib.wire.ticks import decode
from stream_calib.wire.universes import encode_description
from tests.engine.driver import START, Log, batch_of, settings, tick
from tests.engine.fits import answer, name_of, named

VERSION = "1.2.3"
SYMBOLS = ("A", "B", "C", "D")
STAMP_MS = START // 1_000_000
GARBAGE = (b"", None, b"\xff", b"[1,2]", b'{"symbol":"A","time":1700000010.5,"price":true}')

P, Q = Source("p", 0), Source("q", 0)

Bits = dict[str, tuple[str, tuple[int, ...], bytes]]


def stormy_settings(random: Random, symbols: Sequence[str] = SYMBOLS) -> Config:
    """Settings under which everything happens within a few hundred ticks."""
    sessions = ["00:00-22:14", "22:14-23:00"] if random.random() < 0.5 else ["00:00-22:14"]
    calendars = {symbol: "x" for symbol in symbols if random.random() < 0.3}
    returns = {symbol: "diff" for symbol in symbols if random.random() < 0.2}
    currency = {"base": "USD", "symbols": {"A": "EUR"}, "rates": {"EUR": "1/B"}}
    # drawn beside the others, so that all else stays what it was
    is_converted = Random(str(random.getstate())).random() < 0.2 and {"A", "B"} <= set(symbols)
    return settings(
        symbols,
        universe__currency=currency if is_converted and not {"A", "B"} & returns.keys() else None,
        calendar__x={"sessions": sessions, "days": ["mon", "tue", "wed"]},
        universe__calendars=calendars,
        universe__returns=returns,
        universe__filter={"enabled": random.random() < 0.6},
        universe__audit=random.random() < 0.5,
        universe__ewma={
            "half_life": "20s",
            "window": random.choice(("1s", "1s", "4s")),
            "winsor": random.choice((0.0, 2.5)),
        },
        universe__diurnal={"enabled": random.random() < 0.3, "bin": "1h"},
        universe__every=random.choice((1, 3)),
        universe__dcc={
            "enabled": random.random() < 0.7,
            "bar": random.choice(("1s", "3s", "7s")),
            "window_bars": random.choice((20, 40)),
            "first_fit_bars": 20,
            "refit_bars": random.choice((0, 1, 10)),
            "winsor": random.choice((0.0, 3.0)),
        },
        refit__late=random.choice(("when_ready", "wait")),
        universe__price=random.choice(("last", "last", "mid", "microprice")),
        time__lateness=random.choice(("0s", "2s")),
        time__max_jump=random.choice(("10s", "1h")),  # never less than ten bars
        time__max_gap=random.choice(("12s", "1h")),
        input__rejects_per_second=random.choice((0, 1, 3, 100)),
    )


def control(symbol: str, seconds: float, **how: object) -> bytes:
    """One record that adjusts earlier prices, ``seconds`` after START."""
    time_ns = START + round(seconds * SECOND_NS)
    return orjson.dumps({"symbol": symbol, "time": time_ns, "adjust": how})


def stormy_log(
    random: Random, n: int = 120, partitions: int | None = None, symbols: Sequence[str] = SYMBOLS
) -> dict[Source, list[bytes | None]]:
    """Partitions with late, absurd, doubtful, repeated, unreadable and crossed ticks."""
    log: dict[Source, list[bytes | None]] = {}
    for p in range(partitions or random.randint(1, 4)):
        values: list[bytes | None] = []
        seconds = random.random() * 5
        while len(values) < n:
            chance = random.random()
            if chance < 0.08:
                values += [random.choice(GARBAGE)] * random.choice((1, 1, 5))
                continue
            if chance < 0.085:
                seconds += random.random() * 30  # a gap, and doubtful
            elif chance > 0.98:
                values.append(tick("A", seconds + random.choice((5e3, 5e3, 1e7)), 5.0))
                continue
            elif chance > 0.97:
                how = random.choice(({"factor": 0.5}, {"offset": 1.5}, {"reset": True}))
                values.append(control(random.choice(symbols), seconds, **how))
                continue
            seconds += random.expovariate(3.0)
            jitter = random.choice((0.0, 0.0, 0.0, 0.0, 0.0, 0.7, 1.9, 4.0, 30.0))
            price = 100 + random.gauss(0, 1)
            spread = 0.1 if random.random() < 0.95 else -0.1
            more: dict[str, object] = {"bid": price - spread, "ask": price + spread}
            more |= {"id": random.randint(1, 3)} if random.random() < 0.5 else {}
            symbol = random.choice((*symbols, "UNKNOWN"))
            value = tick(symbol, round(max(0.0, seconds - jitter), 1), price, **more)
            values += [value] * random.choice((1, 1, 1, 1, 2))
        log[Source("t" if p % 2 else "s", p)] = values[:n]
    return log


def bits_of(arrays: Mapping[str, np.ndarray[Any, Any]]) -> Bits:
    """All that a reader of the arrays could tell apart."""
    return {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in arrays.items()}


class Run:
    """A bare engine and all that it brought about."""

    def __init__(self, config: Config, log: Log, stamp_ms: int = -1) -> None:
        self.config = config
        self.log = log
        self.engine = Engine(config, self.universe, VERSION)
        self.recorder = Recorder(RecordDigest)
        topics = ("correlations", "events", "rejects", "calibrations", "universes")
        self.outputs: dict[str, list[Output]] = {topic: [] for topic in topics}
        self.digest = OutputDigest()
        self.counts: Counter[str] = Counter()
        self.restore_chance = 0.0
        self._random = Random(1)
        self._stamp_ms = stamp_ms

    @property
    def universe(self) -> UniverseConfig:
        return self.config.universe[0]

    def bits(self) -> Bits:
        return bits_of(self.engine.state())

    def restore(self, *, on_the_wire: bool = False) -> None:
        """Go on with a copy of the engine that was saved and restored."""
        arrays: Mapping[str, np.ndarray[Any, Any]] = self.engine.state()
        if on_the_wire:
            arrays = over_the_wire(arrays)
        self.engine = Engine.from_state(self.config, self.universe, VERSION, arrays)

    def ticks(self, source: Source, start: int, stop: int) -> TickBatch:
        symbols = {symbol: i for i, symbol in enumerate(self.universe.symbols)}
        records = batch_of(source, self.log[source], start, stop, self._stamp_ms)
        return decode(records, "auto", symbols)

    def take(self, step: Step) -> None:
        """Take a step and all that are due after it; note it."""
        self.recorder.note(step, tuple(name_of(fit) for fit in step.installs))
        while True:
            if self._random.random() < self.restore_chance:
                self.restore(on_the_wire=self._random.random() < 0.1)
            effects = self.engine.advance(step)
            by_topic = {
                "correlations": [
                    o for m in effects.matrices for o in matrices.encode(m, "correlations", 0)
                ],
                "events": [events.encode_event(e, "events", 0) for e in effects.events],
                "rejects": [events.encode_reject(r, "rejects", 0) for r in effects.rejects],
                "calibrations": [
                    encode_calibration(c, "calibrations", 0) for c in effects.calibrations
                ],
                "universes": [encode_description(d, "universes", 0) for d in effects.descriptions],
            }
            for topic, records in by_topic.items():
                self.outputs[topic] += records
                self.digest.update(records)
            for (_, outcome), n in effects.counts.items():
                self.counts[outcome] += n
            if not effects.bars_waiting:
                return
            step = Step()

    def answered(self, random: Random, chance: float = 1.0) -> None:
        """Answer what the engine asks for, perhaps; what is asked for then, too."""
        while (request := self.engine.pending_fit()) is not None and random.random() < chance:
            found = answer(request, self.universe.symbols, random)
            step = Step(installs=(found,)) if isinstance(found, Fit) else Step(failures=(found,))
            self.take(step)

    def flush(self) -> None:
        """Close everything that has arrived."""
        while True:
            intake = self.engine.intake  # another one after a restart
            flush_ns = self.engine.flush_ns()
            marks = tuple(
                Watermark(source, intake.position(source), flush_ns, "flush")
                for source in intake.sources
                if intake.source_watermark_ns(source) < flush_ns
            )
            if not marks:
                return
            self.take(Step(watermarks=marks))

    def live(self, random: Random, largest_cut: int = 40, *, whole: bool = True) -> "Run":
        """Read the log as chance has it, with partitions found late and decisions in between."""
        at: dict[Source, int] = {}
        unknown = sorted(self.log)
        random.shuffle(unknown)
        while unknown or any(at[source] < len(self.log[source]) for source in at):
            if not whole and random.random() < 0.02:
                return self
            found: tuple[Source, ...] = ()
            if unknown and (not at or random.random() < 0.15):
                few = random.random() < 0.3
                n_found = random.randint(1, len(unknown)) if few else len(unknown)
                found = tuple(unknown.pop() for _ in range(n_found))
                at |= dict.fromkeys(found, 0)
            unread = [source for source in at if at[source] < len(self.log[source])]
            batches = []
            some = random.sample(unread, random.randint(0, len(unread)))
            if unread and random.random() < 0.8:  # mostly the one that is behind, as in life
                some = [min(unread, key=self.engine.intake.newest_ns)] if not found else []
            for source in some:
                start, size = at[source], random.randint(1, largest_cut)
                at[source] = stop = min(len(self.log[source]), start + size)
                batches.append(self.ticks(source, start, stop))
            marks = self._idle(random) if random.random() < 0.3 else ()
            self.take(Step(tuple(batches), (), found, refit=random.random() < 0.05))
            self.take(Step(watermarks=marks))
            self.answered(random, 0.5)
            if random.random() < 0.01:
                self.flush()
        self.flush()
        self.answered(random)
        return self

    def again(self, moves: Sequence[Move], random: Random, largest_cut: int = 40) -> "Run":
        """Take the same choices, in other cuts and another interleaving."""
        for move in moves:
            symbols = self.universe.symbols
            installs = tuple(named(name, symbols) for name in move.installs)
            begin = Step((), (), move.discovered, installs, move.failures, move.refit)
            batches = list(self._cut(move, random, largest_cut))
            joined = random.random() < 0.5
            if joined:
                begin = replace(begin, batches=tuple(batches[:3]))
            self.take(begin)
            for batch in batches[3 if joined else 0 :]:
                self.take(Step(batches=(batch,)))
            if move.watermarks:
                self.take(Step(watermarks=move.watermarks))
        return self

    def _cut(self, move: Move, random: Random, largest_cut: int) -> Iterator[TickBatch]:
        at = {wanted.source: wanted.position_before for wanted in move.ranges}
        stop = {wanted.source: wanted.position_after for wanted in move.ranges}
        while unread := [source for source in sorted(at) if at[source] < stop[source]]:
            source = random.choice(unread)
            start = at[source]
            at[source] = min(stop[source], start + random.randint(1, largest_cut))
            yield self.ticks(source, start, at[source])

    def _idle(self, random: Random) -> tuple[Watermark, ...]:
        intake = self.engine.intake
        reach_ns = intake.reach_ns()
        if reach_ns == NO_TIME:
            return ()
        time_ns = reach_ns + random.randint(-8, 3) * SECOND_NS + random.choice((0, 0, 1, -1))
        wild = random.random() < 0.1
        return tuple(
            Watermark(s, intake.position(s), time_ns, "idle")
            for s in intake.sources
            # mostly one that is read to its end, as in life
            if wild or intake.position(s) >= len(self.log[s])
        )


def over_the_wire(
    arrays: Mapping[str, np.ndarray[Any, Any]],
) -> Mapping[str, np.ndarray[Any, Any]]:
    """Write a state down and read it back."""
    return decode_snapshot(encode_snapshot(Snapshot("u", 1, "c", {}, {}, VERSION, arrays))).arrays


def price(k: int, symbol: str) -> float:
    return 100.0 + Random(f"{k} {symbol}").gauss(0.0, 1.0)


def dense_log(symbols: str, n: int, present: str = "") -> Log:
    """One tick of each symbol in each bar, but for those not ``present``."""
    return {
        P: [
            tick(symbol, k + 0.1, price(k, symbol)) if symbol in (present or symbols) else b" "
            for k in range(n)
            for symbol in symbols
        ]
    }


def dense_run(symbols: str, n: int, present: str = "", **changes: object) -> Run:
    """A run over ``n`` bars of ticks at once; the last stays open."""
    changes = {"time__lateness": "0s", **changes}
    run = Run(settings(symbols, **changes), dense_log(symbols, 400, present))
    run.take(Step(discovered=(P,)))
    read_dense(run, 0, n)
    return run


def read_dense(run: Run, start: int, stop: int, width: int = 0) -> None:
    """Read the bars [start, stop), and the first tick after them so that they close."""
    width = width or len(run.log[P]) // 400
    at = run.engine.intake.positions().get(P, 0)
    run.take(Step(batches=(run.ticks(P, at, stop * width + 1),)))


def last_matrix(run: Run) -> dict[str, Any]:
    return orjson.loads(run.outputs["correlations"][-1].value)  # type: ignore[no-any-return]


def events_of(run: Run) -> list[dict[str, Any]]:
    return [orjson.loads(output.value) for output in run.outputs["events"]]


def details(run: Run, type_: str) -> list[dict[str, Any]]:
    return [event["details"] for event in events_of(run) if event["type"] == type_]
