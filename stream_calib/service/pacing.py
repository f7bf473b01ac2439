"""Which sources to read, and how long to wait for silent ones: the outside decisions."""

from collections.abc import Mapping

from stream_calib.config import Config, UniverseConfig
from stream_calib.engine.engine import Engine
from stream_calib.values import NO_TIME, SECOND_NS, Source, Watermark


class Pacer:
    """Reads the source that is furthest behind first and moves silent ones along.

    Decisions depend on how far the log was read and, for a flush, on the clock; the journal
    keeps them. What is in a bar never depends on when it was closed.

    Parameters
    ----------
    config, universe
        Settings.
    """

    def __init__(self, config: Config, universe: UniverseConfig) -> None:
        self._idle_slack_ns = config.time.idle_slack
        self._flush_after_s = config.flush_after_ns(universe) / SECOND_NS
        self._bar_ns = universe.bar
        period_ns = universe.bar * universe.every
        self._read_ahead_ns = max(4 * period_ns, 2 * config.time.lateness, SECOND_NS)
        self._moved_at_s: float | None = None

    def moved(self, now_s: float) -> None:
        """Note that event time moved at ``now_s`` on a clock that never goes back."""
        self._moved_at_s = now_s

    def paused(self, engine: Engine, ends: Mapping[Source, int]) -> frozenset[Source]:
        """Return the sources to leave unread while one with known lag is far behind them."""
        intake = engine.intake
        newest = {source: intake.newest_ns(source) for source in intake.sources}
        behind = [newest[s] for s in intake.sources if not _caught_up(engine, s, ends)]
        if not behind:
            return frozenset()
        last = min(behind)
        limit = NO_TIME if last == NO_TIME else last + self._read_ahead_ns
        return frozenset(source for source, time_ns in newest.items() if time_ns > limit)

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
        if exhausted or (
            len(quiet) == len(intake.sources) and now_s - self._moved_at_s >= self._flush_after_s
        ):
            flush_ns = engine.flush_ns()
            return tuple(
                Watermark(source, intake.position(source), flush_ns, "flush")
                for source in intake.sources
                if intake.source_watermark_ns(source) < flush_ns
            )
        await_ns = newest_ns - self._idle_slack_ns
        return tuple(
            Watermark(source, intake.position(source), await_ns, "idle")
            for source in quiet
            # a decision is journaled, so only one that can close a bar is taken
            if intake.source_watermark_ns(source) // self._bar_ns < await_ns // self._bar_ns
        )


def _caught_up(engine: Engine, source: Source, ends: Mapping[Source, int]) -> bool:
    end = ends.get(source)
    return end is not None and engine.intake.position(source) >= end
