"""Input behind a transaction that does not end is told apart from silence."""

import pytest
import structlog

from stream_calib.service.withholding import HELD_S, Withholding
from stream_calib.values import Source

HERE, THERE = Source("ticks", 0), Source("ticks", 1)


@pytest.fixture
def watch() -> Withholding:
    return Withholding("fx")


def test_transaction_that_stays_open_is_told_once_and_so_is_its_end(watch: Withholding) -> None:
    with structlog.testing.capture_logs() as told:
        watch.look({HERE: 100}, {HERE: 5}, 0.0)
        watch.look({HERE: 100}, {HERE: 9}, HELD_S - 1.0)
        assert not told
        watch.look({HERE: 100}, {HERE: 12}, HELD_S + 1.0)
        assert "topic 'ticks' partition 0" in watch.reason
        assert "position 100" in watch.reason
        watch.look({HERE: 100}, {HERE: 15}, HELD_S + 2.0)
        watch.look({HERE: 115}, {}, HELD_S + 3.0)
        assert watch.reason == ""
    assert [line["event"] for line in told] == ["input is held up", "input goes on"]
    assert {line["universe"] for line in told} == {"fx"}


def test_transactions_that_end_are_not_told_however_many_follow_each_other(
    watch: Withholding,
) -> None:
    for k in range(60):
        watch.look({HERE: 100 + k, THERE: 7}, {HERE: 3}, float(k))
        assert watch.reason == ""


def test_transaction_that_opens_where_an_earlier_one_ended_has_its_own_time(
    watch: Withholding,
) -> None:
    watch.look({HERE: 100}, {HERE: 5}, 0.0)
    watch.look({HERE: 105}, {}, 5.0)
    watch.look({HERE: 105}, {HERE: 4}, HELD_S + 1.0)
    watch.look({HERE: 105}, {HERE: 4}, HELD_S + 5.0)
    assert watch.reason == ""
    watch.look({HERE: 105}, {HERE: 4}, 2.0 * HELD_S + 2.0)
    assert watch.reason


def test_transaction_that_opens_where_the_last_one_opened_has_its_own_time(
    watch: Withholding,
) -> None:
    watch.look({HERE: 100}, {HERE: 5}, 0.0)
    watch.look({HERE: 100}, {}, 5.0)  # cut away with all that was in it
    watch.look({HERE: 100}, {HERE: 5}, HELD_S + 1.0)
    assert watch.reason == ""


def test_each_source_is_judged_by_itself(watch: Withholding) -> None:
    watch.look({HERE: 100, THERE: 7}, {HERE: 5}, 0.0)
    watch.look({HERE: 100, THERE: 8}, {HERE: 5, THERE: 2}, HELD_S + 1.0)
    assert "partition 0" in watch.reason
    assert "partition 1" not in watch.reason
