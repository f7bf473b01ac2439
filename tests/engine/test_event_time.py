"""Event time: what is late, what is absurd, how long a silent source is awaited."""

from stream_calib.config import Config
from stream_calib.service.runner import Runner, unobserved
from stream_calib.values import Effects, Matrix, Source
from tests.engine.driver import SECOND, START, Driver, batch_of, settings, tick

P, Q = Source("p", 0), Source("q", 0)
NOW_MS = (START + 10 * SECOND) // 1_000_000


class Live:
    """A Runner fed record by record, with a log that stamps each one, and a clock of its own."""

    def __init__(self, config: Config, *sources: Source, stamped: bool = True) -> None:
        self.driver = Driver(config)
        self.sources = sources
        self.now_s = 0.0
        self.ends = dict.fromkeys(sources, 0)
        self.stamped = stamped
        self.driver.take(self.driver.runner.turn([], sources, self.ends, 0.0))

    def send(self, source: Source, symbol: str, seconds: float, price: float = 100.0) -> None:
        stamp_ms = (START + round(seconds * SECOND)) // 1_000_000 if self.stamped else -1
        value = tick(symbol, seconds, price)
        at = self.ends[source]
        self.ends[source] += 1
        batch = batch_of(source, [None] * at + [value], at, at + 1, stamp_ms)
        self.driver.take(self.driver.runner.turn([batch], (), self.ends, self.now_s))

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.driver.take(self.driver.runner.turn([], (), self.ends, self.now_s))

    @property
    def matrices(self) -> list[Matrix]:
        return self.driver.matrices

    @property
    def counts(self) -> dict[str, int]:
        return self.driver.counts

    def closed_s(self) -> float:
        """End of the last bar published, in seconds after START."""
        return (self.matrices[-1].as_of_ns - START) / SECOND


def seesaw(k: int) -> float:
    return 100.0 + (k % 3) + 0.1 * (k % 5)


def test_late_is_judged_against_the_records_own_partition_alone() -> None:
    live = Live(settings("AB", time__lateness="2s", time__idle_slack="1000s"), P, Q)
    live.send(P, "A", 100.0)
    live.send(Q, "B", 50.0)  # far behind P, but the first of Q
    live.send(Q, "B", 49.0)
    assert live.counts.get("late", 0) == 0
    live.send(Q, "B", 47.9)
    assert live.counts["late"] == 1
    live.send(P, "A", 98.0)
    assert live.counts["late"] == 1
    live.send(P, "A", 97.9)
    assert live.counts["late"] == 2


def test_a_late_tick_does_not_move_a_closed_bar() -> None:
    def run(*, with_late: bool) -> list[Matrix]:
        live = Live(settings("AB"), P)
        for k in range(60):
            live.send(P, "A", k + 0.1, seesaw(k))
            live.send(P, "B", k + 0.2, seesaw(k + 1))
            if with_late and k > 30:
                live.send(P, "A", k - 10.0, 5000.0)
        return live.matrices

    plain, disturbed = run(with_late=False), run(with_late=True)
    assert len(plain) > 30
    assert all((a.corr == b.corr).all() for a, b in zip(plain, disturbed, strict=True))


def test_a_slow_source_delays_the_others_by_no_more_than_lateness_and_idle_slack() -> None:
    live = Live(settings("ABC", time__lateness="2s", time__idle_slack="5s"), P, Q)
    live.send(Q, "C", 0.5)
    for k in range(120):
        live.send(P, "A", k + 0.5, seesaw(k))
        live.send(P, "B", k + 0.6, seesaw(k + 1))
        if k > 20:
            # the bar before this tick's ends at k; one more bar is the grid's own grain
            assert k - live.closed_s() <= 2 + 5 + 1
    assert live.matrices[-1].symbols == ("A", "B")
    assert live.matrices[-1].pending == ("C",)


def test_a_source_with_known_lag_holds_the_watermark_however_far_the_others_are() -> None:
    live = Live(settings("AB", time__idle_slack="1s"), P, Q)
    live.ends[Q] = 1  # one record of Q is known and not read yet
    for k in range(100):
        live.send(P, "A", float(k), seesaw(k))
        live.send(P, "B", float(k), seesaw(k + 1))
    live.wait(1000.0)
    assert live.matrices == []


def test_a_feed_that_stops_still_gets_its_last_bar() -> None:
    live = Live(settings("AB", time__flush_after="3s"), P)
    for k in range(40):
        live.send(P, "A", k + 0.1, seesaw(k))
        live.send(P, "B", k + 0.2, seesaw(k + 1))
    assert live.closed_s() < 39
    live.wait(2.9)
    assert live.closed_s() < 39
    live.wait(0.2)
    assert live.closed_s() == 40
    n = len(live.matrices)
    live.wait(100.0)
    assert len(live.matrices) == n  # and it is published once


def test_a_feed_that_resumes_after_a_flush_goes_on() -> None:
    live = Live(settings("AB", time__flush_after="3s"), P)
    for start in (0, 100):
        for k in range(start, start + 40):
            live.send(P, "A", k + 0.1, seesaw(k))
            live.send(P, "B", k + 0.2, seesaw(k + 1))
        live.wait(4.0)
        assert live.closed_s() == start + 40


def test_a_time_ahead_of_the_logs_own_is_rejected_and_moves_nothing() -> None:
    live = Live(settings("AB", time__max_ahead="60s"), P)
    live.send(P, "A", 1.0)
    value = tick("A", 3600.0, 100.0)
    batch = batch_of(P, [b"", value], 1, 2, (START + SECOND) // 1_000_000)
    live.ends[P] = 2
    live.driver.take(live.driver.runner.turn([batch], (), live.ends, 0.0))
    assert live.counts == {"applied": 1, "time_ahead": 1}
    assert live.driver.runner.engine.intake.newest_ns() == START + SECOND


def test_a_jump_without_a_log_time_needs_confirmation() -> None:
    live = Live(settings("AB", time__max_jump="1h"), P, stamped=False)
    for k in range(3):
        live.send(P, "A", float(k))
    live.send(P, "A", 7200.0)
    assert live.counts == {"applied": 3}  # the jump is held
    live.send(P, "A", 3.0)  # and refuted
    assert live.counts == {"applied": 4, "time_jump": 1}
    for k in range(3):
        live.send(P, "A", 9000.0 + k)  # three that agree are believed
    assert live.counts == {"applied": 7, "time_jump": 1}


def test_one_or_two_first_ticks_of_a_slow_source_are_not_lost() -> None:
    live = Live(settings("ABC", time__flush_after="3s"), P, Q, stamped=False)
    live.send(Q, "C", 5.0)
    live.send(Q, "C", 6.0)
    for k in range(20):
        live.send(P, "A", float(k), seesaw(k))
    live.wait(4.0)
    assert live.counts == {"applied": 22}


def test_a_gap_is_one_event_and_costs_no_bars() -> None:
    live = Live(settings("AB", time__max_gap="60s"), P)
    for start in (0, 500_000):
        for k in range(start, start + 30):
            live.send(P, "A", k + 0.1, seesaw(k))
            live.send(P, "B", k + 0.2, seesaw(k + 1))
    gaps = [e for effects in live.driver.effects for e in effects.events if e.type == "gap"]
    assert len(gaps) == 1
    assert gaps[0].details["bars"] == 500_000 - 30
    assert sum(effects.bars_closed for effects in live.driver.effects) < 60


def test_many_bars_are_closed_in_bounded_steps_with_the_same_result() -> None:
    config, n = settings("AB"), 1300  # two steps of 256 bars and some
    values = [tick("AB"[k % 2], k / 2, seesaw(k)) for k in range(n)]
    driver = Driver(config)
    driver.take(driver.runner.turn([], (P,), {}, 0.0))
    taken = driver.runner.turn([batch_of(P, values, 0, n)], (), {P: n}, 0.0, exhausted=True)
    driver.take(taken)
    assert max(effects.bars_closed for effects in taken) == 256
    live = Live(config, P, stamped=False)
    for k in range(n):
        live.send(P, "AB"[k % 2], k / 2, seesaw(k))
    live.wait(1000.0)
    assert [m.sequence for m in driver.matrices] == list(range(1, len(driver.matrices) + 1))
    assert all(
        (a.corr == b.corr).all() for a, b in zip(driver.matrices, live.matrices, strict=True)
    )


def test_sources_ahead_are_paused_while_one_with_lag_is_behind() -> None:
    config = settings("AB", time__lateness="2s")
    runner = Runner(config, config.universe[0], "1", unobserved())
    ends = {P: 100, Q: 100}
    runner.turn([], (P, Q), ends, 0.0)
    values = [tick("A", float(k), 100.0) for k in range(100)]
    runner.turn([batch_of(P, values, 0, 100)], (), ends, 0.0)
    assert runner.paused(ends) == {P}
    runner.turn([batch_of(Q, values, 0, 99)], (), ends, 0.0)
    assert runner.paused(ends) == frozenset()


def test_records_of_one_turn_keep_their_order_within_equal_times() -> None:
    def final(values: list[bytes]) -> list[Effects]:
        driver = Driver(settings("AB"))
        driver.take(driver.runner.turn([], (P,), {}, 0.0))
        batch = batch_of(P, values, 0, len(values))
        driver.take(driver.runner.turn([batch], (), {P: len(values)}, 0.0, exhausted=True))
        return driver.effects

    rows = [tick("AB"[k % 2], k // 2, seesaw(k)) for k in range(60)]
    first_then_last = [*rows, tick("A", 29.5, 101.0), tick("A", 29.5, 109.0)]
    last_then_first = [*rows, tick("A", 29.5, 109.0), tick("A", 29.5, 101.0)]
    one, other = (final(v)[-1].matrices[-1] for v in (first_then_last, last_then_first))
    assert (one.corr != other.corr).any()  # the later record at equal time is the bar's price


def test_ticks_of_other_symbols_are_no_silence() -> None:
    live = Live(settings("AB", universe__bar="5s", time__flush_after="5s"), P)
    for k in range(600):
        live.now_s = k / 10
        live.send(P, "OTHER", k / 10)
        if k % 10 == 5:
            live.send(P, "A", k / 10 + 0.01, seesaw(k))
            live.send(P, "B", k / 10 + 0.02, seesaw(k + 1))
    assert live.counts == {"unknown_symbol": 600, "applied": 120}


def test_a_source_found_later_does_not_reopen_closed_bars() -> None:
    live = Live(settings("AB"), P)
    for k in range(60):
        live.send(P, "A", k + 0.1, seesaw(k))
        live.send(P, "B", k + 0.2, seesaw(k + 1))
    live.ends[Q] = 0
    live.driver.take(live.driver.runner.turn([], (Q,), live.ends, 0.0))
    for k in range(30):
        live.send(Q, "A", float(k), 500.0)
    for k in range(60, 70):
        live.send(P, "A", k + 0.1, seesaw(k))
        live.send(P, "B", k + 0.2, seesaw(k + 1))
    assert live.counts["late"] == 30
    times = [matrix.as_of_ns for matrix in live.matrices]
    assert times == sorted(set(times))


def test_an_illiquid_source_is_believed_where_the_others_event_time_gets_to() -> None:
    config = settings(
        "AB",
        universe__ewma={"half_life": "1h", "window": "60s", "winsor": 0.0},
        universe__bar="60s",
    )
    live = Live(config, P, Q, stamped=False)
    for k in range(20):
        live.send(Q, "B", k * 5000.0, seesaw(k))  # nothing in its own source vouches for it
    for k in range(1000):
        live.send(P, "A", k * 100.0, seesaw(k))
    live.wait(1000.0)
    assert live.counts == {"applied": 1020}


def test_capped_pairs_are_those_of_the_matrix() -> None:
    live = Live(settings("ABCD"), P)
    for k in range(60):
        live.send(P, "A", k + 0.1, seesaw(k))
        live.send(P, "B", k + 0.2, seesaw(k + 1))
        if k < 2:  # C and D have one return each: a pair of theirs is at one, and pending
            live.send(P, "C", k + 0.3, 100.0 + k)
            live.send(P, "D", k + 0.4, 100.0 + k)
    assert {matrix.quality.capped_pairs for matrix in live.matrices} == {0}
