"""One universe, synchronous: records in, effects out."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from stream_calib import ports
from stream_calib.config import Config, UniverseConfig
from stream_calib.engine.engine import Engine
from stream_calib.engine.journal import Recorder
from stream_calib.service.pacing import Pacer
from stream_calib.values import (
    Effects,
    Fit,
    FitFailure,
    FitRequest,
    Output,
    Progress,
    RecordBatch,
    Source,
    Step,
    TickBatch,
)
from stream_calib.wire import events, matrices
from stream_calib.wire.calibrations import encode_calibration
from stream_calib.wire.fits import encode_fit
from stream_calib.wire.journal import RecordDigest
from stream_calib.wire.ticks import decode, symbol_tables
from stream_calib.wire.universes import encode_description

Ask = Callable[[FitRequest], Fit | FitFailure | None]


class _Unobserved:
    def compiled(self, seconds: float) -> None: ...

    def recovered(self, universe: str, entries: int, seconds: float) -> None: ...

    def committed(self, universe: str, seconds: float, outcome: str) -> None: ...

    def snapshotted(self, universe: str, n_bytes: int, seconds: float, outcome: str) -> None: ...

    def restarted(self, universe: str, reason: str) -> None: ...

    def refitted(self, universe: str, seconds: float, outcome: str) -> None: ...

    def decoded(self, universe: str, ticks: TickBatch, seconds: float) -> None: ...

    def advanced(self, universe: str, effects: Effects, seconds: float) -> None: ...

    def published(
        self, universe: str, outputs: Sequence[Output], seconds: float, close_to_publish_s: float
    ) -> None: ...

    def progressed(self, universe: str, progress: Progress) -> None: ...

    def stalled(self, seconds: float) -> None: ...

    def owned(self, universe: str, role: str) -> None: ...

    def fenced(self, universe: str) -> None: ...

    def viewers(self, count: int) -> None: ...

    def viewed(self, n_bytes: int, passed_over: int) -> None: ...

    def refused(self, reason: str) -> None: ...


def unobserved() -> ports.Observer:
    """Return an observer that looks away."""
    return _Unobserved()


class Runner:
    """Decodes, advances and encodes for one universe, and takes the pacing decisions.

    Parameters
    ----------
    config, universe
        Settings; ``universe`` is one of ``config.universe``.
    software_version
        Goes into every matrix.
    observer
        Told what happens.
    engine
        A state to go on from; None begins afresh.
    partition
        Where outputs go; None is the place of ``universe`` in ``config``.
    ask
        Called once with every fit that the engine asks for; what it does not answer at once has
        to come through ``answer``. May be exchanged.

    Attributes
    ----------
    fits
        The records of fits that were installed, for whoever writes them to take.
    recorder
        Takes down every step of a ``turn``.
    observer
        May be exchanged: a repetition is nothing new.
    """

    def __init__(
        self,
        config: Config,
        universe: UniverseConfig,
        software_version: str,
        observer: ports.Observer,
        engine: Engine | None = None,
        *,
        partition: int | None = None,
        ask: Ask | None = None,
    ) -> None:
        self.universe = universe
        self.engine = Engine(config, universe, software_version) if engine is None else engine
        self.recorder = Recorder(RecordDigest)
        self.fits: list[Output] = []
        self.ask = ask
        self._asked = 0
        self._pacer = Pacer(config, universe)
        self.observer = observer
        self._format = config.input.format
        self._framed = config.input.schema_registry is not None
        self._symbols = symbol_tables(config.input, universe.symbols)
        self._partition = config.universe.index(universe) if partition is None else partition
        prefix = config.output.prefix
        names = ("correlations", "events", "rejects", "calibrations", "universes", "fits")
        self._topics = {name: f"{prefix}.{name}" for name in names}

    def turn(
        self,
        batches: Sequence[RecordBatch],
        discovered: tuple[Source, ...],
        ends: Mapping[Source, int],
        now_s: float,
        *,
        exhausted: bool = False,
        refit: bool = False,
        told_s: Mapping[Source, float] | None = None,
    ) -> list[Effects]:
        """Take in what was polled, then whatever decisions that makes due.

        ``refit``: somebody wants a full fit, due or not. ``told_s``: when the source was told of
        its ends, on the clock of ``now_s``; at this moment by default.
        """
        self._pacer.hear(self.engine, ends, told_s or {}, now_s)
        decoded = tuple(self.decode(batch) for batch in batches)
        before_ns = self.engine.intake.newest_ns()
        out = self._take(Step(decoded, (), discovered, refit=refit)) + self._fitted()
        if self.engine.intake.newest_ns() > before_ns:
            self._pacer.moved(now_s)
        # a decision can bring held ticks in, which can make the next one due
        while marks := self._pacer.decide(self.engine, ends, now_s, exhausted=exhausted):
            out += self._take(Step(watermarks=marks)) + self._fitted()
        return out

    def answer(self, answers: Sequence[Fit | FitFailure]) -> list[Effects]:
        """Let the engine go on with what came of its requests."""
        fits = tuple(answer for answer in answers if isinstance(answer, Fit))
        failures = tuple(answer for answer in answers if isinstance(answer, FitFailure))
        topic, hashes = self._topics["fits"], []
        for fit in fits:
            name, records = encode_fit(fit, topic, self._partition, self.universe.name)
            hashes.append(name)
            self.fits += records
        return self._take(Step(installs=fits, failures=failures), tuple(hashes))

    def _fitted(self) -> list[Effects]:
        out: list[Effects] = []
        while self.ask is not None:
            pending = self.engine.pending_fit()
            if pending is None or pending.number == self._asked:
                break
            self._asked = pending.number
            answer = self.ask(pending)
            if answer is not None:
                out += self.answer([answer])
        return out

    def decode(self, batch: RecordBatch) -> TickBatch:
        """Turn records into ticks."""
        started_s = time.perf_counter()
        if batch.schemas and not self._framed:
            batch = replace(batch, schemas={})  # the entry is from before there was a registry
        ticks = decode(batch, self._format, self._symbols)
        self.observer.decoded(self.universe.name, ticks, time.perf_counter() - started_s)
        return ticks

    def apply(self, steps: Iterable[Step]) -> list[Effects]:
        """Repeat steps of the journal: no decision is taken and nothing is taken down."""
        return [effects for step in steps for effects in self._advance(step)]

    def paused(self, ends: Mapping[Source, int]) -> frozenset[Source]:
        """Return the sources to leave unread for now."""
        return self._pacer.paused(self.engine, ends)

    @property
    def unheard(self) -> tuple[Source, ...]:
        """The sources whose end was not told for long."""
        return self._pacer.unheard

    def outputs(self, effects: Effects) -> list[Output]:
        """Encode what a step brought about."""
        topics, partition = self._topics, self._partition
        out = [
            encode_description(description, topics["universes"], partition)
            for description in effects.descriptions
        ]
        out += [
            record
            for matrix in effects.matrices
            for record in matrices.encode(matrix, topics["correlations"], partition)
        ]
        out += [events.encode_event(e, topics["events"], partition) for e in effects.events]
        out += [events.encode_reject(r, topics["rejects"], partition) for r in effects.rejects]
        out += [
            encode_calibration(calibration, topics["calibrations"], partition)
            for calibration in effects.calibrations
        ]
        return out

    def progress(
        self,
        ends: Mapping[Source, int],
        replay_s: float = math.nan,
        withheld: Mapping[Source, int] | None = None,
    ) -> Progress:
        """Return where the universe stands; ``replay_s`` and ``withheld`` as in ``Progress``."""
        intake, ready = self.engine.intake, self.engine.membership.ready
        model_version, fitted_ns = self.engine.model()
        return Progress(
            positions=intake.positions(),
            ends=dict(ends),
            watermark_ns=intake.watermark_ns(),
            newest_ns=intake.newest_ns(),
            symbols_ready=int(ready.sum()),
            symbols_pending=int((~ready).sum()),
            model_version=model_version,
            fitted_ns=fitted_ns,
            replay_s=replay_s,
            withheld=dict(withheld or {}),
        )

    def _take(self, step: Step, installs: tuple[str, ...] = ()) -> list[Effects]:
        self.recorder.note(step, installs)
        return self._advance(step)

    def _advance(self, step: Step) -> list[Effects]:
        out = []
        while True:
            started_s = time.perf_counter()
            effects = self.engine.advance(step)
            self.observer.advanced(self.universe.name, effects, time.perf_counter() - started_s)
            out.append(effects)
            if not effects.bars_waiting:
                return out
            step = Step()
