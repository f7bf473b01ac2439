"""One universe, synchronous: records in, effects out."""

import time
from collections.abc import Mapping, Sequence

from stream_calib import ports
from stream_calib.config import Config, UniverseConfig
from stream_calib.engine.engine import Engine
from stream_calib.service.pacing import Pacer
from stream_calib.values import (
    Effects,
    Output,
    Progress,
    RecordBatch,
    Source,
    Step,
    TickBatch,
)
from stream_calib.wire import events, matrices
from stream_calib.wire.ticks import decode


class _Unobserved:
    def compiled(self, seconds: float) -> None: ...

    def decoded(self, universe: str, ticks: TickBatch, seconds: float) -> None: ...

    def advanced(self, universe: str, effects: Effects, seconds: float) -> None: ...

    def published(
        self, universe: str, outputs: Sequence[Output], seconds: float, close_to_publish_s: float
    ) -> None: ...

    def progressed(self, universe: str, progress: Progress) -> None: ...

    def stalled(self, seconds: float) -> None: ...


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
    """

    def __init__(
        self,
        config: Config,
        universe: UniverseConfig,
        software_version: str,
        observer: ports.Observer,
    ) -> None:
        self.universe = universe
        self.engine = Engine(config, universe, software_version)
        self._pacer = Pacer(config, universe)
        self._observer = observer
        self._format = config.input.format
        self._symbols = {symbol: i for i, symbol in enumerate(universe.symbols)}
        self._partition = config.universe.index(universe)
        prefix = config.output.prefix
        self._topics = {name: f"{prefix}.{name}" for name in ("correlations", "events", "rejects")}

    def turn(
        self,
        batches: Sequence[RecordBatch],
        discovered: tuple[Source, ...],
        ends: Mapping[Source, int],
        now_s: float,
        *,
        exhausted: bool = False,
    ) -> list[Effects]:
        """Take in what was polled, then whatever decisions that makes due."""
        decoded = []
        for batch in batches:
            started_s = time.perf_counter()
            ticks = decode(batch, self._format, self._symbols)
            decoded.append(ticks)
            self._observer.decoded(self.universe.name, ticks, time.perf_counter() - started_s)
        before_ns = self.engine.intake.newest_ns()
        out = self._advance(Step(tuple(decoded), (), discovered))
        if self.engine.intake.newest_ns() > before_ns:
            self._pacer.moved(now_s)
        # a decision can bring held ticks in, which can make the next one due
        while marks := self._pacer.decide(self.engine, ends, now_s, exhausted=exhausted):
            out += self._advance(Step(watermarks=marks))
        return out

    def paused(self, ends: Mapping[Source, int]) -> frozenset[Source]:
        """Return the sources to leave unread for now."""
        return self._pacer.paused(self.engine, ends)

    def outputs(self, effects: Effects) -> list[Output]:
        """Encode what a step brought about."""
        topics, partition = self._topics, self._partition
        out = [
            record
            for matrix in effects.matrices
            for record in matrices.encode(matrix, topics["correlations"], partition)
        ]
        out += [events.encode_event(e, topics["events"], partition) for e in effects.events]
        out += [events.encode_reject(r, topics["rejects"], partition) for r in effects.rejects]
        return out

    def progress(self, ends: Mapping[Source, int]) -> Progress:
        """Return where the universe stands."""
        intake, ready = self.engine.intake, self.engine.membership.ready
        return Progress(
            positions={source: intake.position(source) for source in intake.sources},
            ends=dict(ends),
            watermark_ns=intake.watermark_ns(),
            newest_ns=intake.newest_ns(),
            symbols_ready=int(ready.sum()),
            symbols_pending=int((~ready).sum()),
        )

    def _advance(self, step: Step) -> list[Effects]:
        out = []
        while True:
            started_s = time.perf_counter()
            effects = self.engine.advance(step)
            self._observer.advanced(self.universe.name, effects, time.perf_counter() - started_s)
            out.append(effects)
            if not effects.bars_waiting:
                return out
            step = Step()
