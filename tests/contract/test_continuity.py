"""Which trades are new: each once, in any order they may come, with few ids remembered."""

import asyncio
import random

import pytest

from stream_calib.service.backlog import Backlog
from stream_calib.service.continuity import Continuity
from stream_calib.values import FeedCounts, LiveTick, Output


def tick(ident: int | str, symbol: str = "A", time_ns: int | None = None) -> LiveTick:
    time_ns = time_ns if time_ns is not None else ident if isinstance(ident, int) else 0
    return LiveTick(symbol, time_ns, str(ident), 1.0)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("consecutive", [True, False])
def test_each_trade_is_new_once_whatever_is_repeated_shuffled_or_left_out(
    seed: int, consecutive: bool
) -> None:
    draw = random.Random(seed)
    sent = [(draw.choice("AB"), ident) for ident in range(1000, 1300) if draw.random() > 0.1]
    sent.sort(key=lambda pair: pair[1] + draw.uniform(0.0, 5.0))
    sent = [pair for pair in sent for _ in range(draw.choice([1, 1, 2, 3]))]
    for start in range(0, len(sent), 50):  # as after a reconnection
        sent[start:start] = sent[max(0, start - 20) : start]
    counts = FeedCounts()
    continuity = Continuity(counts, consecutive=consecutive, remembered=100)
    new = [pair for pair in sent if continuity.is_new(tick(pair[1], pair[0]))]
    first = {s: next(ident for symbol, ident in sent if symbol == s) for s in "AB"}
    # what comes before the first of all is taken for a repetition where ids count up by one
    expected = {(s, ident) for s, ident in sent if not consecutive or ident >= first[s]}
    assert sorted(new) == sorted(expected)
    assert counts.repeated == len(sent) - len(new)
    if consecutive:
        ids = {s: {ident for symbol, ident in new if symbol == s} for s in "AB"}
        missing = sum(max(ids[s]) - min(ids[s]) + 1 - len(ids[s]) for s in "AB")
        assert counts.missed - counts.late == missing


def test_gaps_are_counted_where_ids_count_up_by_one_alone() -> None:
    counts, other = FeedCounts(), FeedCounts()
    strict, loose = Continuity(counts, consecutive=True), Continuity(other, consecutive=False)
    for ident in (5, 6, 9, 10, 20):
        assert strict.is_new(tick(ident))
        assert loose.is_new(tick(ident))
    assert (counts.gaps, counts.missed) == (2, 11)
    assert (other.gaps, other.missed) == (0, 0)


def test_ids_that_begin_anew_with_newer_trades_are_new() -> None:
    continuity = Continuity(FeedCounts(), consecutive=True, remembered=3)
    for ident in range(1000, 1010):
        assert continuity.is_new(tick(ident, time_ns=ident))
    assert not continuity.is_new(tick(1002, time_ns=1002))  # forgotten, and old
    assert continuity.is_new(tick(1, time_ns=2000))
    assert continuity.is_new(tick(2, time_ns=2001))
    assert not continuity.is_new(tick(1, time_ns=2000))


def test_what_has_no_id_is_always_new() -> None:
    continuity = Continuity(FeedCounts(), consecutive=True)
    assert all(continuity.is_new(LiveTick("A", 1, price=1.0)) for _ in range(3))


def test_ids_of_other_kinds_are_told_apart_as_text() -> None:
    continuity = Continuity(FeedCounts(), consecutive=True)
    assert [continuity.is_new(tick(i)) for i in ("a-1", "a-2", "a-1", 7, "a-3")] == [
        True,
        True,
        False,
        True,
        True,
    ]


async def test_a_full_backlog_makes_who_brings_more_wait_and_keeps_the_order() -> None:
    def output(k: int) -> Output:
        return Output("t", 0, b"", str(k).encode(), ())

    backlog, taken = Backlog(5), list[bytes]()
    await backlog.put("x", [output(k) for k in range(7)])  # nothing else was there
    waiting = asyncio.create_task(backlog.put("y", [output(7)]))
    await asyncio.sleep(0)
    assert not waiting.done()
    while not waiting.done() or len(backlog):
        rows = await backlog.first(2)
        taken += [row.value for _, row in rows]
        backlog.written(len(rows))
        await asyncio.sleep(0)
    assert taken == [str(k).encode() for k in range(8)]
