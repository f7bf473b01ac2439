"""Which sources to read, and how long to wait for silent ones: the outside decisions."""

import math
from collections.abc import Mapping

from stream_calib.config import Config, UniverseConfig
from stream_calib.engine.engine import Engine
from stream_calib.values import NO_TIME, SECOND_NS, Source, Watermark

UNHEARD_S = 10.0  # a broker that is well tells of an end ten times a second


class Pacer:
    """Reads the source that is furthest behind first and moves silent ones along.

    Decisions depend on how far the log was read and, for a flush, on the clock; the journal
    keeps them. What is in a bar never depends on when it was closed.

    Of a source with nothing to read it is said only that it is silent, and only up to where event
    time was when its end was last told: while its leader is away it looks silent too, and what is
    written to it would be late when the leader is back. The watermark waits instead.

    Parameters
    ----------
    config, universe
        Settings.

    Attributes
    ----------
    unheard
        The sources whose end was not told for ``UNHEARD_S`` though all that is known was read.
    """

    def __init__(self, config: Config, universe: UniverseConfig) -> None:
        self._idle_slack_ns = config.time.idle_slack
        self._flush_after_s = config.flush_after_ns(universe) / SECOND_NS
        self._bar_ns = universe.bar
        period_ns = universe.bar * universe.every
        self._read_ahead_ns = max(4 * period_ns, 2 * config.time.lateness, SECOND_NS)
        self._moved_at_s: float | None = None
        self.unheard: tuple[Source, ...] = ()
        self._told_s: Mapping[Source, float] = {}
        self._turned_s = -math.inf
        self._reach_ns: dict[Source, int] = {}  # how far event time was when an end was told
        self._awaited_s: dict[Source, float] = {}  # since when one can expect to be told
        self._left_unread: frozenset[Source] = frozenset()

    def hear(
        self,
        engine: Engine,
        ends: Mapping[Source, int],
        told_s: Mapping[Source, float],
        now_s: float,
    ) -> None:
        """Note when the ends were told, before the records of a turn are taken.

        Parameters
        ----------
        engine
            As the turn before left it.
        ends, told_s
            As a source returns them.
        now_s
            The clock of ``told_s``.
        """
        reach_ns = engine.intake.reach_ns()
        for source in engine.intake.sources:
            # told after the records of the turn before were fetched
            if told_s.get(source, now_s) >= self._turned_s:
                self._reach_ns[source] = reach_ns
            self._awaited_s.setdefault(source, now_s)
            if source in self._left_unread:
                self._awaited_s[source] = now_s
        self._told_s, self._turned_s = dict(told_s), now_s
        self.unheard = tuple(
            source
            for source in engine.intake.sources
            if now_s - max(told_s.get(source, now_s), self._awaited_s[source]) > UNHEARD_S
            # of one that is behind something is known: its lag
            and (source not in ends or _caught_up(engine, source, ends))
        )

    def moved(self, now_s: float) -> None:
        """Note that event time moved at ``now_s`` on a clock that never goes back."""
        self._moved_at_s = now_s

    def paused(self, engine: Engine, ends: Mapping[Source, int]) -> frozenset[Source]:
        """Return the sources to leave unread while one is far behind them.

        One is where it has known lag, or was not heard of for long: what the others bring
        meanwhile has to be held.
        """
        intake = engine.intake
        newest = {source: intake.newest_ns(source) for source in intake.sources}
        behind = {s: newest[s] for s in intake.sources if not _caught_up(engine, s, ends)}
        for source in self.unheard:
            known_ns = (self._reach_ns.get(source, NO_TIME), intake.source_watermark_ns(source))
            behind.setdefault(source, max(newest[source], *known_ns))
        self._left_unread = frozenset()
        if behind:
            last = min(behind.values())
            limit = NO_TIME if last == NO_TIME else last + self._read_ahead_ns
            self._left_unread = frozenset(s for s, time_ns in newest.items() if time_ns > limit)
        return self._left_unread

    def decide(
        self, engine: Engine, ends: Mapping[Source, int], now_s: float, *, exhausted: bool
    ) -> tuple[Watermark, ...]:
        """Return the decisions that are due.

        Parameters
        ----------
        engine
            Where every source stands.
        ends
            Position after the last known record, of sources where it is known.
        now_s
            The clock of ``moved``.
        exhausted
            The input is finite and all of it was read: flush without waiting.
        """
        intake = engine.intake
        newest_ns = intake.reach_ns()
        if newest_ns == NO_TIME:
            return ()
        if self._moved_at_s is None:
            self._moved_at_s = now_s
        quiet = [s for s in intake.sources if _caught_up(engine, s, ends)]
        # all were silent until then: after it nobody knows
        told_s = min((self._told_s.get(s, now_s) for s in quiet), default=now_s)
        if exhausted or (
            len(quiet) == len(intake.sources) and told_s - self._moved_at_s >= self._flush_after_s
        ):
            flush_ns = engine.flush_ns()
            return tuple(
                Watermark(source, intake.position(source), flush_ns, "flush")
                for source in intake.sources
                if intake.source_watermark_ns(source) < flush_ns
            )
        marks = []
        for source in quiet:
            reach_ns = self._reach_ns.get(source, NO_TIME) if source in self._told_s else newest_ns
            await_ns = max(NO_TIME, reach_ns - self._idle_slack_ns)
            # a decision is journaled, so only one that can close a bar is taken
            if intake.source_watermark_ns(source) // self._bar_ns < await_ns // self._bar_ns:
                marks.append(Watermark(source, intake.position(source), await_ns, "idle"))
        return tuple(marks)


def _caught_up(engine: Engine, source: Source, ends: Mapping[Source, int]) -> bool:
    end = ends.get(source)
    return end is not None and engine.intake.position(source) >= end


def publishing_periods_s(config: Config) -> dict[tuple[str, str], float]:
    """Return the event time from one matrix to the next, by universe and estimator."""
    return {
        (universe.name, estimator): n_bars * universe.bar / SECOND_NS
        for universe in config.universe
        for estimator, n_bars in (
            ("ewma", universe.every),
            ("dcc", universe.dcc.bars_per_bar(universe.bar)),
        )
    }
