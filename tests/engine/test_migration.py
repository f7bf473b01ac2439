"""The state of the engine carried over to other symbols and other settings."""

import json
from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from stream_calib.config import Config
from stream_calib.engine.arrays import read_text
from stream_calib.engine.engine import Engine
from stream_calib.engine.state import difference, migrate, reset
from stream_calib.kernels.ticks import CONFIRMATIONS
from stream_calib.values import (
    FACTOR,
    OFFSET,
    RESET,
    TICK,
    Correlation,
    Step,
)
from tests.engine.driver import SECOND, START, settings, tick
from tests.engine.fits import made_up
from tests.engine.schedule import (
    SYMBOLS,
    VERSION,
    P,
    Q,
    Run,
    bits_of,
    control,
    dense_log,
    dense_run,
    details,
    events_of,
    last_matrix,
    read_dense,
    stormy_log,
    stormy_settings,
)

SLOW = {"half_life": "10m", "window": "100ms", "winsor": 0.0}
seeds = st.integers(0, 2**32 - 1)


def facts(arrays: Any) -> dict[str, Any]:
    return read_text(arrays["engine.facts"])  # type: ignore[no-any-return]


# other symbols


def known(run: Run) -> Correlation:
    return run.engine._layer.correlation()


def carried(run: Run, symbols: str, **changes: object) -> Run:
    """The run gone on with under another list of symbols."""
    config = settings(symbols, time__lateness="0s", **changes)
    state = run.engine.state()
    before = bits_of(state)
    migrated = migrate(state, run.universe, config, config.universe[0])
    assert bits_of(state) == before  # a pure function
    own = Run(config, run.log)
    own.engine = Engine.from_state(config, config.universe[0], VERSION, migrated)
    return own


CASES = {
    "removed": "ACE",
    "reordered": "DBEAC",
    "added": "ABCDEX",
    "one removed, one added": "ABCDX",
    "all at once": "XEBYA",
    "only two stay": "CXYA",
}


@pytest.mark.parametrize("symbols", CASES.values(), ids=CASES)
@pytest.mark.parametrize("middle", [30, 80])
def test_what_is_carried_over_is_what_an_engine_of_those_symbols_knows(
    symbols: str, middle: int
) -> None:
    before = "ABCDE"
    own = carried(dense_run(before, middle), symbols)
    # the other never saw ticks of any but the common symbols, under the new list
    common = "".join(symbol for symbol in before if symbol in symbols)
    log = dense_log(before, 400)
    other = Run(settings(symbols, time__lateness="0s"), log)
    other.take(Step(discovered=(P,)))
    read_dense(other, 0, middle)
    for stop in (middle + 1, middle + 50):
        for run in (own, other):
            read_dense(run, middle, stop)
        one, two = known(own), known(other)
        assert one.corr.tobytes() == two.corr.tobytes()
        assert one.n_eff.tobytes() == two.n_eff.tobytes()
        assert one.vol.tobytes() == two.vol.tobytes()
        assert one.kappa == two.kappa
        assert last_matrix(own)["corr"] == last_matrix(other)["corr"]
        assert last_matrix(own)["symbols"] == [s for s in symbols if s in common]
        # and all the rest of the state too, but for the numbers of outputs and events
        apart = {"engine.facts"}
        one_bits, two_bits = own.bits(), other.bits()
        assert {k for k in one_bits if one_bits[k] != two_bits[k]} <= apart


@given(seed=seeds)
@hypothesis_settings(max_examples=20, deadline=None)
def test_migrating_in_a_storm_is_the_same_as_having_had_the_other_order(seed: int) -> None:
    random = Random(seed)
    config, log = stormy_settings(random), stormy_log(random)
    one = Run(config, log).live(random, whole=False)
    moves = one.recorder.cut()
    symbols = random.sample(SYMBOLS, 4)
    universe = config.universe[0].model_copy(update={"symbols": tuple(symbols)})
    turned = config.model_copy(update={"universe": (universe,)})
    other = Run(turned, log).again(moves, random)
    got = migrate(one.engine.state(), one.universe, turned, universe)
    expected = other.engine.state()
    got_bits, expected_bits = bits_of(got), bits_of(expected)
    assert got_bits.keys() == expected_bits.keys()
    # the change is announced
    assert {n for n in got_bits if got_bits[n] != expected_bits[n]} <= {"engine.facts"}


def test_a_symbol_that_comes_and_goes_begins_anew() -> None:
    run = dense_run("ABC", 60)
    own = carried(carried(run, "AB"), "ABC")
    state, n_eff = own.engine.state(), known(own).n_eff
    assert state["membership.ready"].tolist() == [True, True, False]
    assert np.isnan(state["layer.sampler.last_price"][2])
    assert n_eff[2].tolist() == [0.0, 0.0, 0.0]
    assert n_eff[0, 1] == known(run).n_eff[0, 1]


def test_a_universe_change_is_announced_once_and_sequences_go_on() -> None:
    run = dense_run("ABC", 60)
    sequences = run.engine.sequences()
    own = carried(run, "CXA")
    assert own.engine.sequences() == sequences
    own.restore(on_the_wire=True)  # it is not lost before it is said
    own.take(Step())
    read_dense(own, 60, 61)
    assert details(own, "universe_changed") == [{"added": ["X"], "removed": ["B"]}]
    assert events_of(own)[0]["sequence"] == sequences["events"] + 1
    assert int(events_of(own)[0]["time_ns"]) == START + 60 * SECOND
    assert last_matrix(own)["sequence"] == sequences["ewma"] + 1


DCC = {"bar": "1s", "window_bars": 40, "first_fit_bars": 20, "refit_bars": 100}


def fitted_run() -> Run:
    run = dense_run("ABC", 60, universe__dcc=DCC)
    run.take(Step(installs=(made_up(1, "ABC"),)))
    return run


def test_a_model_goes_on_among_the_symbols_that_stay_and_another_is_asked_for() -> None:
    run = fitted_run()
    before = run.engine.state()
    own = carried(run, "CXA", universe__dcc=DCC)
    after = own.engine.state()
    corr = "dcc.cycle.model.dcc.corr"
    corner = {name: unpacked(a[corr], 3) for name, a in (("abc", before), ("cxa", after))}
    assert corner["cxa"][0, 2] == corner["abc"][2, 0]
    target = unpacked(after["dcc.cycle.model.dcc.target"], 3)
    assert target[1, 0] == target[1, 2] == target[0, 2]  # the average of the one pair there was
    read_dense(own, 60, 61)
    assert last_matrix(own)["model_version"] == 2
    read_dense(own, 61, 63)
    request = own.engine.pending_fit()
    assert request is not None
    assert (request.number, request.reason) == (2, "universe")
    assert request.arrays["returns"].shape[1] == 3


@pytest.mark.parametrize("symbols", ["ABCX", "XCA", "AB", "BXYZ"])
def test_a_model_goes_on_whatever_the_number_of_symbols(symbols: str) -> None:
    run = fitted_run()
    own = carried(run, symbols, universe__dcc=DCC)
    own.restore(on_the_wire=True)
    read_dense(own, 60, 63)
    request = own.engine.pending_fit()
    assert request is not None
    assert request.arrays["returns"].shape[1] == len(symbols)
    own.take(Step(installs=(made_up(request.number, symbols),)))
    assert details(own, "refit_installed") or details(own, "refit_rejected")


def test_numbers_of_a_model_go_on_though_it_was_out_of_use() -> None:
    run = fitted_run()
    read_dense(run, 60, 70)
    last = run.engine.sequences()["dcc"]
    assert last > 0
    without = begun_anew(run, settings("ABC", universe__dcc={"enabled": False}))
    again = begun_anew(without, settings("ABC", universe__dcc=DCC))
    assert again.engine.sequences()["dcc"] == last


def test_a_fit_that_was_asked_for_by_the_old_list_is_refused() -> None:
    run = dense_run("ABC", 60, universe__dcc=DCC)
    own = carried(run, "AB", universe__dcc=DCC)
    assert own.engine.pending_fit() is None
    own.take(Step(installs=(made_up(1, "ABC"),)))
    assert details(own, "refit_rejected") == [{"model": "dcc", "reason": "it was not asked for"}]


def unpacked(packed: np.ndarray, n: int) -> np.ndarray:
    square = np.empty((n, n))
    square[np.triu_indices(n)] = packed
    square.T[np.triu_indices(n)] = packed
    return square


def test_ticks_that_wait_keep_their_symbols() -> None:
    log = {
        P: [
            *(tick("ABC"[k % 3], k / 10, 100.0 + k) for k in range(9)),
            *(tick(symbol, 1e5, 7.0) for symbol in ("A", "B", "Z")[: CONFIRMATIONS - 1]),
        ]
    }
    run = Run(settings("ABC"), log)
    run.take(Step(discovered=(P,)))
    run.take(Step(batches=(run.ticks(P, 0, 11),)))
    state = run.engine.state()
    assert state["intake.ticks.asset"].tolist() == [0, 1, 2] * 3
    assert state["intake.held.asset"].tolist() == [0, 1]
    config = settings("XCA", time__lateness="2s")
    migrated = migrate(state, run.universe, config, config.universe[0])
    assert migrated["intake.ticks.asset"].tolist() == [2, 1] * 3
    assert migrated["intake.ticks.price"].tolist() == [100.0, 102.0, 103.0, 105.0, 106.0, 108.0]
    assert migrated["intake.ticks.count"].tolist() == [6]
    assert migrated["intake.held.asset"].tolist() == [2, -1]
    again = migrate(migrated, config.universe[0], run.config, run.universe)
    assert again["intake.held.asset"].tolist() == [0, -1]


def test_only_symbols_are_migrated() -> None:
    run = dense_run("AB", 10)
    other = settings("AC", universe__bar="2s")
    with pytest.raises(ValueError, match="only symbols"):
        migrate(run.engine.state(), run.universe, other, other.universe[0])
    third = settings("ABC", time__lateness="0s")
    with pytest.raises(ValueError, match="another universe"):
        migrate(run.engine.state(), third.universe[0], third, third.universe[0])


# other settings


def begun_anew(run: Run, config: Config) -> Run:
    state = run.engine.state()
    before = bits_of(state)
    out = reset(state, config, config.universe[0])
    assert bits_of(state) == before
    own = Run(config, run.log)
    own.engine = Engine.from_state(config, config.universe[0], VERSION, out)
    return own


@pytest.mark.parametrize("bar", ["500ms", "1s", "2s", "7s", "60s"])
@pytest.mark.parametrize("every", [1, 3])
def test_no_bar_is_closed_twice_after_a_reset(bar: str, every: int) -> None:
    run = dense_run("AB", 101)
    last_ns = int(last_matrix(run)["as_of_ns"])
    sequences = run.engine.sequences()
    changes = {"universe__bar": bar, "universe__every": every, "time__lateness": "30s"}
    own = begun_anew(run, settings("AB", **changes, universe__ewma=SLOW))
    assert own.engine.intake.positions() == run.engine.intake.positions()
    assert own.engine.sequences() == sequences
    for stop in range(102, 400):
        read_dense(own, 0, stop, width=2)
    own.flush()
    assert own.counts["late"] == 0
    times = [int(event["time_ns"]) for event in events_of(own)]
    as_of = [int(orjson.loads(o.value)["as_of_ns"]) for o in own.outputs["correlations"]]
    assert times == sorted(times)
    assert details(own, "state_reset") == [
        {"config_fingerprint": own.config.fingerprint(own.universe)}
    ]
    if bar != "60s":  # whose bars are too few
        assert as_of[0] > last_ns
        assert as_of == sorted(set(as_of))
        first = orjson.loads(own.outputs["correlations"][0].value)
        assert first["sequence"] == sequences["ewma"] + 1
        assert int(first["data_from_ns"]) >= last_ns - int(first["bar_ns"])


def test_more_lateness_after_a_reset_reopens_no_bar() -> None:
    run = dense_run("AB", 100)
    own = begun_anew(run, settings("AB", time__lateness="60s"))
    log = dict(run.log)
    at = own.engine.intake.position(P)
    log[P] = [b" "] * at + [tick("A", 70.0, 5.0), tick("A", 99.0, 5.0), tick("A", 100.5, 5.0)]
    own.log = log
    own.take(Step(batches=(own.ticks(P, at, at + 3),)))
    assert (own.counts["late"], own.counts["applied"]) == (2, 1)


def test_a_source_found_after_a_reset_reopens_no_bar() -> None:
    run = dense_run("AB", 100)
    own = begun_anew(run, settings("AB", universe__bar="2s"))
    own.log = {**run.log, Q: [tick("A", 50.0 + 49 * k, 5.0) for k in range(3)]}
    own.take(Step(discovered=(Q,)))
    own.take(Step(batches=(own.ticks(Q, 0, 3),)))
    own.flush()
    assert own.counts["late"] == 2  # those of 50 s and 99 s; 148 s is in time
    assert own.counts["applied"] == 1


def test_control_records_that_wait_are_not_lost_in_a_reset() -> None:
    how = ({"factor": 0.5}, {"offset": -3.0}, {"reset": True})
    for policy in ("last", "mid"):
        run = dense_run("AB", 100, time__lateness="3s")
        end_s = (run.engine.intake.newest_ns() - START) / SECOND
        log = dict(run.log)
        at = run.engine.intake.position(P)
        log[P] = [b" "] * at + [control("A", end_s, **change) for change in how]
        run.log = log
        run.take(Step(batches=(run.ticks(P, at, at + 3),)))
        own = begun_anew(run, settings("AB", universe__ready_n_eff=3.0, universe__price=policy))
        kinds = own.engine.state()["intake.ticks.kind"]
        assert kinds[kinds != TICK].tolist() == [FACTOR, OFFSET, RESET]


def test_ticks_that_wait_are_used_after_a_reset_unless_priced_otherwise() -> None:
    run = dense_run("AB", 100, time__lateness="3s")
    n = len(run.engine.state()["intake.ticks.asset"])
    assert n > 4
    same = begun_anew(run, settings("AB", universe__ready_n_eff=3.0)).engine.state()
    assert len(same["intake.ticks.asset"]) == n
    turned = begun_anew(run, settings("BCA")).engine.state()
    assert turned["intake.ticks.asset"].tolist() == [
        [2, 0][asset] for asset in same["intake.ticks.asset"]
    ]
    mid = begun_anew(run, settings("AB", universe__price="mid")).engine.state()
    assert len(mid["intake.ticks.asset"]) == 0


def test_negative_prices_do_not_outlive_the_return_type_that_allows_them() -> None:
    config = settings("AB", universe__return="diff")
    run = Run(config, {P: [tick("A", 1.0 + k / 10, p) for k, p in enumerate((-5.0, 0.0, 5.0))]})
    run.take(Step(discovered=(P,)))
    run.take(Step(batches=(run.ticks(P, 0, 3),)))
    assert run.engine.state()["intake.ticks.price"].tolist() == [-5.0, 0.0, 5.0]
    assert begun_anew(run, settings("AB")).engine.state()["intake.ticks.price"].tolist() == [5.0]


@given(seed=seeds)
@hypothesis_settings(max_examples=15, deadline=None)
def test_a_reset_in_a_storm_goes_on_and_keeps_its_promises(seed: int) -> None:
    random = Random(seed)
    log = stormy_log(random)
    run = Run(stormy_settings(random), log).live(random, whole=False)
    published = [orjson.loads(o.value) for o in run.outputs["correlations"]]
    last_ns = int(published[-1]["as_of_ns"]) if published else 0
    symbols = random.sample((*SYMBOLS, "X"), 4)
    config = stormy_settings(random, symbols)
    update = {"bar": random.choice((SECOND // 2, SECOND, 3 * SECOND))}
    universe = config.universe[0].model_copy(update=update)
    own = begun_anew(run, config.model_copy(update={"universe": (universe,)}))
    own.restore(on_the_wire=True)
    for source, at in run.engine.intake.positions().items():
        own.take(Step(batches=(own.ticks(source, at, len(log[source])),)))
    own.flush()
    as_of = [int(orjson.loads(o.value)["as_of_ns"]) for o in own.outputs["correlations"]]
    assert [last_ns, *as_of] == sorted({last_ns, *as_of})


def test_numbers_of_the_model_go_on_after_a_reset() -> None:
    run = fitted_run()
    own = begun_anew(run, settings("AB", universe__ready_n_eff=4.0))
    assert facts(own.engine.state())["model_version"] == 2
    assert not [name for name in own.engine.state() if name.startswith("dcc.cycle.model.dcc.")]


# what differs


def difference_of(symbols: Sequence[str] = "AB", **changes: object) -> str | None:
    one, other = settings("AB"), settings(symbols, **changes)
    return difference(one.settings(one.universe[0]), other.settings(other.universe[0]))


def test_the_first_setting_that_differs_is_named_with_both_values() -> None:
    assert difference_of() is None
    assert difference_of("BCA") is None
    assert (
        difference_of(universe__ewma={"half_life": "30s", "window": "1s", "winsor": 0.0})
        == "universe.ewma.half_life was 20s and is 30s"
    )
    assert difference_of(universe__ready_n_eff=6.0) == "universe.ready_n_eff was 5.0 and is 6.0"
    assert difference_of(time__lateness="0s") == "time.lateness was 2s and is 0ns"
    assert difference_of(universe__stale_after="5s") == "universe.stale_after was not set and is 5s"
    assert difference_of(universe__return="diff") == "universe.return was log and is diff"
    assert difference_of(input__rejects_per_second=7) == (
        "input.rejects_per_second was 100 and is 7"
    )


def test_a_setting_that_only_one_version_knows_differs() -> None:
    assert difference({"a": {}}, {"a": {"b": 1}}) == "a.b was not set and is 1"
    assert difference({"a": {"b": True}}, {"a": {}}) == "a.b was true and is not set"


def test_settings_that_went_through_json_are_the_same() -> None:
    config = settings("AB", universe__ewma={"half_life": "30s", "window": "1s", "winsor": 0.0})
    document = config.settings(config.universe[0])
    assert difference(json.loads(json.dumps(document)), document) is None
