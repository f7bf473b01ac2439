"""The gate of a source equals its tick-by-tick story and does not see where batches end."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_calib.kernels.ticks import (
    AHEAD,
    APPLY,
    CONFIRMATIONS,
    HELD,
    HELD_MAX,
    JUMP,
    LATE,
    UNUSABLE,
    admit_ticks,
)
from stream_calib.values import NO_TIME
from tests.oracles import ticks as oracle
from tests.oracles.ticks import Gate, Limits

NAMES = {
    APPLY: "apply",
    LATE: "late",
    AHEAD: "ahead",
    JUMP: "jump",
    HELD: "held",
    UNUSABLE: "unusable",
}
NO_STAMP = -1
COMPILED = hasattr(admit_ticks, "signatures")
LIMITS = Limits(lateness_ns=10, max_ahead_ns=20, max_jump_ns=100)


class Arrival(NamedTuple):
    """One tick as the gate sees it."""

    time_ns: int
    stamp_ns: int = NO_STAMP
    usable: bool = True


class Judged(NamedTuple):
    """Codes and newest times by tick, and the newest time at the end."""

    codes: list[int]
    newest_at_ns: list[int]
    newest_ns: int

    @property
    def names(self) -> list[str]:
        return [NAMES[code] for code in self.codes]


def judge(
    arrivals: Sequence[Arrival],
    newest_ns: int = NO_TIME,
    decided_ns: int = NO_TIME,
    limits: Limits = LIMITS,
) -> Judged:
    m = len(arrivals)
    codes, newest_at_ns = np.full(m, 99, dtype=np.int8), np.full(m, 99, dtype=np.int64)
    newest_ns = admit_ticks(
        np.array([a.time_ns for a in arrivals], dtype=np.int64),
        np.array([a.stamp_ns for a in arrivals], dtype=np.int64),
        np.array([a.usable for a in arrivals], dtype=np.bool_),
        newest_ns,
        decided_ns,
        *limits,
        codes,
        newest_at_ns,
    )
    return Judged(codes.tolist(), newest_at_ns.tolist(), int(newest_ns))


# times, stamps and limits from a small range, so that every boundary is met
arrivals_ = st.lists(
    st.builds(
        Arrival,
        st.integers(0, 60),
        st.just(NO_STAMP) | st.integers(0, 60),
        st.sampled_from([True, True, True, False]),
    ),
    max_size=30,
)
limits_ = st.builds(Limits, st.integers(0, 10), st.integers(1, 10), st.integers(1, 15))
times_ = st.just(NO_TIME) | st.integers(0, 60)


def known(time_ns: int) -> int | None:
    return None if time_ns == NO_TIME else time_ns


def test_constants_agree_across_floors() -> None:
    assert NO_TIME == NO_TIME
    assert (CONFIRMATIONS, HELD_MAX) == (oracle.CONFIRMATIONS, oracle.HELD_MAX)


@given(arrivals_, limits_, times_, times_)
def test_the_gate_equals_its_oracle(
    arrivals: list[Arrival], limits: Limits, newest_ns: int, decided_ns: int
) -> None:
    gate = Gate(limits, known(newest_ns), known(decided_ns))
    for time_ns, stamp_ns, usable in arrivals:
        gate.judge(time_ns, None if stamp_ns == NO_STAMP else stamp_ns, usable=usable)
    got = judge(arrivals, newest_ns, decided_ns, limits)
    assert got.names == gate.verdicts
    assert [known(time_ns) for time_ns in got.newest_at_ns] == gate.newest_at_ns
    assert known(got.newest_ns) == gate.newest_ns


@given(arrivals_, limits_, times_, times_, st.data())
def test_verdicts_do_not_depend_on_where_batches_end(
    arrivals: list[Arrival],
    limits: Limits,
    newest_ns: int,
    decided_ns: int,
    data: st.DataObject,
) -> None:
    assert_cuts_do_not_show(arrivals, limits, newest_ns, decided_ns, data)


def assert_cuts_do_not_show(
    arrivals: list[Arrival],
    limits: Limits,
    newest_ns: int,
    decided_ns: int,
    data: st.DataObject,
) -> None:
    uncut = judge(arrivals, newest_ns, decided_ns, limits)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(arrivals)), max_size=5)))
    codes: dict[int, int] = {}
    held: list[int] = []
    for start, stop in zip([0, *cuts], [*cuts, len(arrivals)], strict=True):
        batch = [*held, *range(start, stop)]  # what was held is judged again with what follows
        judged = judge([arrivals[i] for i in batch], newest_ns, decided_ns, limits)
        newest_ns = judged.newest_ns
        codes |= dict(zip(batch, judged.codes, strict=True))
        held = [i for i in batch if codes[i] == HELD]
    assert [codes[i] for i in range(len(arrivals))] == uncut.codes
    assert newest_ns == uncut.newest_ns


def test_a_tick_is_late_only_beyond_the_lateness() -> None:
    assert judge([Arrival(40), Arrival(39)], newest_ns=50).names == ["apply", "late"]


def test_lateness_is_judged_against_the_newest_tick_before() -> None:
    judged = judge([Arrival(60), Arrival(49), Arrival(50)], newest_ns=50)
    assert judged.names == ["apply", "late", "apply"]
    assert judged.newest_ns == 60


def test_what_an_outside_decision_has_passed_is_late() -> None:
    assert judge([Arrival(47), Arrival(48)], newest_ns=50, decided_ns=48).names == ["late", "apply"]


def test_a_decision_holds_before_the_first_tick() -> None:
    stamped = [Arrival(47, stamp_ns=50), Arrival(48, stamp_ns=50)]
    assert judge(stamped, decided_ns=48).names == ["late", "apply"]


def test_a_late_first_tick_still_opens_the_source() -> None:
    judged = judge([Arrival(47, stamp_ns=50)], decided_ns=48)
    assert judged.newest_ns == 47


def test_a_tick_ahead_of_its_stamp_is_refused_and_moves_nothing() -> None:
    judged = judge([Arrival(70, stamp_ns=50), Arrival(71, stamp_ns=50)], newest_ns=50)
    assert judged.names == ["apply", "ahead"]
    assert judged.newest_ns == 70


def test_a_jump_without_a_stamp_is_held_until_three_agree() -> None:
    assert judge([Arrival(151)], newest_ns=50).names == ["held"]
    assert judge([Arrival(151), Arrival(160)], newest_ns=50) == ([HELD, HELD], [50, 50], 50)
    confirmed = judge([Arrival(151), Arrival(160), Arrival(155)], newest_ns=50)
    assert confirmed == ([APPLY, APPLY, APPLY], [50, 50, 160], 160)


def test_a_step_of_exactly_the_largest_jump_needs_no_confirmation() -> None:
    assert judge([Arrival(150)], newest_ns=50).names == ["apply"]


def test_a_plausible_tick_refutes_the_jump_before_it() -> None:
    judged = judge([Arrival(1000), Arrival(1001), Arrival(51), Arrival(52)], newest_ns=50)
    assert judged.names == ["jump", "jump", "apply", "apply"]
    assert judged.newest_ns == 52


def test_a_plausible_tick_that_comes_close_enough_confirms_the_jump_before_it() -> None:
    judged = judge([Arrival(180), Arrival(100)], newest_ns=50)
    assert judged.names == ["apply", "apply"]
    assert judged.newest_ns == 180


def test_three_claims_that_agree_refute_the_others_between_them() -> None:
    claims = [Arrival(t) for t in (1000, 5000, 1001, 5001, 5002)]
    assert judge(claims, newest_ns=50).names == ["jump", "apply", "jump", "apply", "apply"]


def test_claims_have_to_agree_with_the_newest_of_them() -> None:
    drifting = [Arrival(1000), Arrival(1100), Arrival(1101)]
    assert judge(drifting, newest_ns=50).names == ["held", "held", "held"]
    assert judge([*drifting, Arrival(1200)], newest_ns=50).names == ["jump", *["apply"] * 3]


def test_of_too_many_claims_the_oldest_is_refused() -> None:
    scattered = [Arrival(1000 * (i + 1)) for i in range(HELD_MAX + 2)]
    judged = judge(scattered, newest_ns=50)
    assert judged.names == ["jump", "jump", *["held"] * HELD_MAX]
    assert judged.newest_ns == 50


@given(st.lists(st.integers(0, 10_000), min_size=HELD_MAX, max_size=3 * HELD_MAX), st.data())
def test_a_flood_of_claims_is_judged_alike_in_any_cut(
    times: list[int], data: st.DataObject
) -> None:
    limits = Limits(0, 1, data.draw(st.integers(1, 60)))
    arrivals = [Arrival(time_ns) for time_ns in times]
    gate = Gate(limits, None, None)
    for time_ns in times:
        gate.judge(time_ns, None, usable=True)
    assert judge(arrivals, limits=limits).names == gate.verdicts
    assert_cuts_do_not_show(arrivals, limits, NO_TIME, NO_TIME, data)


def test_ticks_refused_elsewhere_neither_confirm_nor_refute() -> None:
    unusable, ahead = Arrival(1000, usable=False), Arrival(1000, stamp_ns=900)
    judged = judge([Arrival(1000), unusable, ahead, Arrival(1001)], newest_ns=50)
    assert judged.names == ["held", "unusable", "ahead", "held"]


def test_confirmed_ticks_are_judged_for_lateness_among_themselves() -> None:
    judged = judge([Arrival(1050), Arrival(1030), Arrival(1045)], newest_ns=50)
    assert judged.names == ["apply", "late", "apply"]


def test_the_first_tick_of_a_source_needs_confirmation() -> None:
    assert judge([Arrival(50), Arrival(51)]).names == ["held", "held"]
    assert judge([Arrival(50), Arrival(51)]).newest_ns == NO_TIME
    assert judge([Arrival(50), Arrival(51), Arrival(52)]).newest_ns == 52


def test_a_stamp_vouches_for_the_first_tick() -> None:
    assert judge([Arrival(50, stamp_ns=150)]).names == ["apply"]


def test_a_stamp_vouches_for_a_jump() -> None:
    assert judge([Arrival(1000, stamp_ns=1100)], newest_ns=50).names == ["apply"]


def test_the_stamp_of_a_backfilled_log_vouches_for_nothing() -> None:
    assert judge([Arrival(1000, stamp_ns=1101)], newest_ns=50).names == ["held"]


def test_a_tick_vouched_for_ends_a_claim() -> None:
    judged = judge([Arrival(5000), Arrival(1000, stamp_ns=1000)], newest_ns=50)
    assert judged.names == ["jump", "apply"]


def test_no_ticks_change_nothing() -> None:
    assert judge([], newest_ns=50) == ([], [], 50)


@pytest.mark.skipif(not COMPILED, reason="types are checked by the compiled code")
@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize("fault", ["type", "stride"])
def test_arrays_of_another_kind_are_refused(index: int, fault: str) -> None:
    kinds = (np.int64, np.int64, np.bool_, np.int8, np.int64)
    columns: list[Any] = [np.ones(4, dtype=kind) for kind in kinds]
    wrong = columns[index]
    columns[index] = wrong.astype(np.float32) if fault == "type" else np.repeat(wrong, 2)[::2]
    columns[3:3] = [0, 0, 1, 1, 1]
    with pytest.raises(TypeError, match="No matching definition"):
        admit_ticks(*columns)
