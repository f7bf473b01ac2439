"""The state of the engine: saved and restored, and free of how the input was cut."""

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from stream_calib.engine.engine import Engine
from stream_calib.engine.intake import Intake
from stream_calib.values import (
    RecordBatch,
    Source,
    Step,
    TickBatch,
    Watermark,
)
from stream_calib.wire.snapshots import digest_state
from tests.engine.driver import SECOND, START, settings, tick
from tests.engine.schedule import (
    VERSION,
    P,
    Q,
    Run,
    dense_run,
    events_of,
    last_matrix,
    price,
    read_dense,
    stormy_log,
    stormy_settings,
)

seeds = st.integers(0, 2**32 - 1)


# saving and restoring


@given(seed=seeds)
@hypothesis_settings(max_examples=15, deadline=None)
def test_restoring_between_any_steps_gives_the_same_bytes(seed: int) -> None:
    random = Random(seed)
    config, log = stormy_settings(random), stormy_log(random)
    live = Run(config, log).live(random)
    moves = live.recorder.cut()
    restored = Run(config, log)
    restored.restore_chance = random.choice((0.1, 1.0))
    restored.again(moves, random, random.choice((1, 10, 100)))
    assert restored.outputs == live.outputs
    assert restored.counts == live.counts
    assert restored.bits() == live.bits()


@given(seed=seeds)
@hypothesis_settings(max_examples=15, deadline=None)
def test_the_same_input_gives_the_same_state_after_every_decision(seed: int) -> None:
    random = Random(seed)
    config, log = stormy_settings(random), stormy_log(random)
    moves = Run(config, log).live(random).recorder.cut()
    one, other = Run(config, log), Run(config, log)
    for move in moves:
        one.again([move], random, 1)
        other.again([move], random, 1000)
        assert one.bits() == other.bits()


WATCHING = ("reference", "successor")


def test_the_storm_reaches_every_part_of_the_state() -> None:
    seen: dict[str, int] = {}
    for seed in range(150):
        random = Random(seed)
        run = Run(stormy_settings(random), stormy_log(random)).live(random, whole=False)
        for name, array in run.engine.state().items():
            seen[name] = max(seen.get(name, 0), array.size)
        for name, n in run.counts.items():
            seen[name] = seen.get(name, 0) + n
    no_asymmetry = "miscalibration.following.asymmetry"  # the plain model has none
    empty = [name for name, size in seen.items() if size == 0]
    assert empty == [f"dcc.cycle.watch.{which}.{no_asymmetry}" for which in WATCHING]
    assert set(seen) >= {
        "applied", "late", "time_jump", "crossed", "duplicate", "json", "rejects_suppressed",
        "unknown_symbol", "closed", "intake.held.asset", "intake.ticks.asset",
        "dcc.cycle.model.dcc.target",
    }  # fmt: skip


def test_a_restored_state_may_be_read_only_and_stays_what_it_was() -> None:
    run = dense_run("ABC", 100)
    arrays = run.engine.state()
    for array in arrays.values():
        array.flags.writeable = False
    before = digest_state(arrays)
    run.engine = Engine.from_state(run.config, run.universe, VERSION, arrays)
    read_dense(run, 100, 200)
    assert digest_state(arrays) == before


def test_the_version_of_the_software_is_no_state_and_may_be_set() -> None:
    run = dense_run("AB", 60)
    before = run.bits()
    run.engine.software_version = "9.9.9"
    assert run.bits() == before
    read_dense(run, 60, 70)
    assert last_matrix(run)["software_version"] == "9.9.9"


def test_sequences_go_on_from_where_they_are_set() -> None:
    run = dense_run("AB", 60)
    n_matrices = len(run.outputs["correlations"])
    assert run.engine.sequences() == {"ewma": n_matrices, "dcc": 0, "events": 1}
    run.engine.resume_sequences({"ewma": 1000})
    assert run.engine.sequences() == {"ewma": 1000, "dcc": 0, "events": 1}
    run.engine.resume_sequences({"events": 50, "another": 3})
    run.restore()
    read_dense(run, 60, 61)
    assert last_matrix(run)["sequence"] == 1001
    assert run.engine.sequences() == {"ewma": 1001, "dcc": 0, "events": 50}


def test_a_state_of_other_symbols_or_bars_is_not_taken() -> None:
    state = dense_run("AB", 10).engine.state()
    for config in (settings("BA"), settings("AB", universe__bar="2s")):
        with pytest.raises(AssertionError):
            Engine.from_state(config, config.universe[0], VERSION, state)


def test_positions_are_those_of_the_sources_that_were_read() -> None:
    run = Run(settings("AB"), {P: [b"", b""], Q: [b""]})
    run.take(Step(discovered=(Q, P)))
    assert run.engine.intake.positions() == {}
    run.take(Step(batches=(run.ticks(P, 0, 0),)))
    assert run.engine.intake.positions() == {P: 0}
    run.take(Step(batches=(run.ticks(P, 0, 2),)))
    run.restore()
    assert run.engine.intake.positions() == {P: 2}
    assert run.engine.intake.position(Q) == 0


def test_a_source_that_is_known_is_not_discovered_again() -> None:
    run = dense_run("AB", 20)
    before = run.bits()
    run.take(Step(discovered=(P,)))
    assert run.bits() == before


# what the input's cut must not show in


def test_a_gap_takes_its_place_among_the_events_however_it_is_read() -> None:
    config = settings("AB", time__max_gap="60s")
    values = [
        tick(symbol, start + k + 0.1, price(k, symbol))
        for start in (0, 300, 700)
        for k in range(40)
        for symbol in "AB"
    ]
    whole, cut = Run(config, {P: values}), Run(config, {P: values})
    for run, size in ((whole, 240), (cut, 1)):
        run.take(Step(discovered=(P,)))
        for at in range(0, 240, size):
            run.take(Step(batches=(run.ticks(P, at, at + size),)))
    assert [event["type"] for event in events_of(cut)] == ["symbol_ready", "gap", "gap"]
    assert whole.outputs == cut.outputs
    assert whole.bits() == cut.bits()


def rows(*ticks: tuple[int, float, float], stamp_ms: int = -1) -> TickBatch:
    """Ticks (row, seconds, price) of symbol 0; a record may hold several."""
    n = max(row for row, _, _ in ticks) + 1
    first = ticks[0][0]
    records = RecordBatch(
        P, first, n, range(first, n), [stamp_ms] * (n - first), [b"x"] * (n - first)
    )
    price = np.array([p for _, _, p in ticks])
    return TickBatch(
        records,
        {},
        np.array([row - first for row, _, _ in ticks], np.int64),
        np.array([START + round(s * SECOND) for _, s, _ in ticks], np.int64),
        np.zeros(len(ticks), np.int64),
        price,
        np.full(len(ticks), np.nan),
        np.full(len(ticks), np.nan),
        np.zeros(len(ticks), np.int64),
    )


def test_rejects_of_one_record_have_one_order_however_it_is_cut() -> None:
    config = settings("AB")
    config_universe = config.universe[0]
    # record 1 holds a tick that is doubted and one that is refused at once; record 2 refutes
    first = ((0, 0.0, 100.0),)
    second = ((1, 1e5, 100.0), (1, 1.0, -5.0))
    third = ((2, 2.0, 100.0), (2, 30.0, 100.0))
    out = []
    for batches in ((first, second, third), (first + second + third,), (first, second + third)):
        intake = Intake(config, config_universe)
        intake.discover(P)
        for batch in batches:
            intake.admit(rows(*batch))
        out.append([(r.offset, r.reason) for r in intake.take_rejects(START + 20 * SECOND)])
    assert out[0] == out[1] == out[2] == [(1, "price"), (1, "time_jump")]


def test_rejects_of_idle_partitions_do_not_leave_in_the_order_of_polling() -> None:
    config = settings("AB")
    log = {
        P: [tick("A", 1.0, 100.0), b"bad of p"],
        Q: [tick("B", 2.0, 100.0), b"bad of q"],
        Source("r", 0): [tick("A", 50.0, 100.0), tick("A", 90.0, 100.0)],
    }
    out = []
    for order in ((P, Q), (Q, P)):
        run = Run(config, log)
        run.take(Step(discovered=tuple(log)))
        for source in log:
            run.take(Step(batches=(run.ticks(source, 0, 1),)))
        idle_ns = START + 45 * SECOND
        run.take(Step(watermarks=tuple(Watermark(s, 1, idle_ns, "idle") for s in (P, Q))))
        for source in order:
            run.take(Step(batches=(run.ticks(source, 1, 2),)))
        run.take(Step(batches=(run.ticks(Source("r", 0), 1, 2),)))
        run.flush()
        out.append([output.key for output in run.outputs["rejects"]])
    assert out[0] == out[1] == [b"p-0-1", b"q-0-1"]
