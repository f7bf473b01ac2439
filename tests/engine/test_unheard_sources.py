"""A source whose end is not told: it looks as silent as one that has nothing to say."""

import math

import pytest

from stream_calib.config import Config
from stream_calib.service.pacing import UNHEARD_S
from stream_calib.values import NO_TIME, Source
from tests.engine.driver import Driver, batch_of, settings, tick

P, Q = Source("p", 0), Source("q", 0)
TURN_S = 0.2


class Told:
    """A Runner, fed second by second from two sources whose leaders may be away."""

    def __init__(self, config: Config) -> None:
        self.driver = Driver(config)
        self.now_s = 100.0
        self.away: set[Source] = set()
        self.ends: dict[Source, int] = {P: 0, Q: 0}  # as told
        self.told_s: dict[Source, float] = {P: -math.inf, Q: -math.inf}
        self.written: dict[Source, list[bytes]] = {P: [], Q: []}
        self.read = {P: 0, Q: 0}
        self.turn(P, Q)

    def write(self, source: Source, symbol: str, seconds: float) -> None:
        price = 100.0 + (len(self.written[source]) * 7) % 5
        self.written[source].append(tick(symbol, seconds, price))

    def turn(self, *discovered: Source) -> None:
        """Read what is there and can be had, as a client does: fetched first, then taken in."""
        batches = []
        for source, values in self.written.items():
            if source in self.away:
                continue
            at, self.read[source] = self.read[source], len(values)
            self.ends[source], self.told_s[source] = len(values), self.now_s
            if at < len(values):
                batches.append(batch_of(source, values, at, len(values)))
        self.now_s += 0.01
        runner = self.driver.runner
        taken = runner.turn(batches, discovered, self.ends, self.now_s, told_s=self.told_s)
        self.driver.take(taken)
        self.now_s += TURN_S

    def seconds(self, first: int, last: int) -> None:
        """Have a tick of each source written and whatever can be had taken in, each second."""
        for k in range(first, last):
            for source, symbol in ((P, "A"), (Q, "B")):
                self.write(source, symbol, k + 0.1)
                self.write(source, symbol, k + 0.6)
            self.turn()

    @property
    def late(self) -> int:
        counts = self.driver.counts
        return sum(n for what, n in counts.items() if "late" in what or what == "closed")

    @property
    def decided_ns(self) -> int:
        return self.driver.runner.engine.intake.source_watermark_ns(Q)

    def unheard(self) -> tuple[Source, ...]:
        return self.driver.runner.unheard

    def paused(self) -> frozenset[Source]:
        return self.driver.runner.paused(self.ends)


def plain(**more: str) -> Config:
    return settings("AB", time__lateness="2s", time__idle_slack="5s", **more)


def test_what_is_written_while_a_leader_is_away_is_not_late_when_it_is_back() -> None:
    told = Told(plain())
    told.seconds(0, 30)
    told.away.add(Q)
    n = len(told.driver.matrices)
    told.seconds(30, 60)  # six times the slack
    assert len(told.driver.matrices) - n <= 2  # the watermark waits
    told.away.clear()
    told.seconds(60, 70)
    assert told.late == 0
    assert told.driver.counts["applied"] == 2 * 2 * 70

    whole = Told(plain())
    whole.seconds(0, 70)
    assert len(whole.driver.matrices) == len(told.driver.matrices) > 50
    pairs = zip(whole.driver.matrices, told.driver.matrices, strict=True)
    assert all((a.corr == b.corr).all() for a, b in pairs)


def test_a_silent_source_that_is_heard_of_holds_nobody_up() -> None:
    told = Told(plain())
    told.seconds(0, 10)
    for k in range(10, 60):
        told.write(P, "A", k + 0.1)
        told.turn()
        # what is said of it is of one turn before, and the grain is one bar
        assert told.decided_ns >= told.driver.runner.engine.intake.newest_ns() - 7_000_000_000
    assert told.late == 0


def test_silence_closes_nothing_while_one_end_is_not_told() -> None:
    told = Told(plain(time__flush_after="3s"))
    told.seconds(0, 30)
    told.away.add(Q)
    before = len(told.driver.matrices)
    for _ in range(100):
        told.turn()
    assert len(told.driver.matrices) == before
    told.away.clear()
    told.turn()  # told now, it has been silent for all of the time
    told.turn()
    assert len(told.driver.matrices) > before


def test_silence_is_as_long_as_it_was_heard_to_be() -> None:
    told = Told(plain(time__flush_after="3s"))
    told.seconds(0, 30)
    before = len(told.driver.matrices)
    for _ in range(10):
        told.turn()  # 2.1 s, all of which is heard
    told.away.add(Q)
    for _ in range(20):
        told.turn()
    assert len(told.driver.matrices) == before
    told.write(Q, "B", 30.1)  # what is written after that is not late
    told.away.clear()
    told.turn()
    assert told.late == 0


def test_others_are_left_unread_when_one_is_not_heard_of_for_long() -> None:
    told = Told(plain())
    told.seconds(0, 30)
    told.away.add(Q)
    told.seconds(30, 70)
    assert told.unheard() == ()
    assert told.paused() == frozenset()
    while told.now_s - told.told_s[Q] <= UNHEARD_S + 2 * TURN_S:
        told.turn()
    assert told.unheard() == (Q,)
    assert told.paused() == {P}  # or what it brings would be held without end
    told.away.clear()
    told.turn()
    assert told.unheard() == ()
    assert told.paused() == frozenset()
    assert told.late == 0


def test_a_source_that_is_left_unread_is_not_missed() -> None:
    told = Told(plain())
    told.seconds(0, 30)
    told.write(P, "A", 45.0)
    told.turn()
    told.ends[Q] += 1  # Q is behind, as far as is known
    told.away |= {P, Q}  # nothing is fetched of what is left unread
    assert told.paused() == {P}
    for _ in range(100):
        told.told_s[Q] = told.now_s
        told.turn()
        assert told.unheard() == ()
        assert told.paused() == {P}


@pytest.mark.parametrize("seconds", [1, 40])
def test_a_source_that_was_never_heard_of_is_awaited(seconds: int) -> None:
    told = Told(plain())
    told.told_s[Q] = -math.inf
    told.away.add(Q)
    runner = Driver(plain()).runner
    told.driver.runner = runner
    runner.turn([], (P, Q), told.ends, told.now_s, told_s=told.told_s)
    told.seconds(0, seconds)
    assert runner.engine.intake.source_watermark_ns(Q) == NO_TIME
    assert told.driver.matrices == []
