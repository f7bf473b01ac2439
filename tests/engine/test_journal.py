"""A run under its own journal gives the same bytes and the same state."""

import random
from random import Random

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from stream_calib.engine import journal
from tests.engine.driver import START, reader
from tests.engine.fits import named
from tests.engine.schedule import Run, stormy_log, stormy_settings


def same(one: Run, other: Run) -> None:
    for topic, outputs in one.outputs.items():
        assert other.outputs[topic] == outputs, topic
    assert other.digest.value() == one.digest.value()
    assert other.counts == one.counts
    assert other.bits() == one.bits()


def repeated_as_live(seed: int) -> Run:
    chance = Random(seed)
    config, log = stormy_settings(chance), stormy_log(chance, n=chance.choice((20, 100, 250)))
    stamp_ms = chance.choice((-1, START // 1_000_000 + 60_000))
    live = Run(config, log, stamp_ms).live(chance, chance.choice((1, 5, 40)))
    moves = live.recorder.cut()
    again = Run(config, log, stamp_ms)
    read = reader(config, log, chance, chance.choice((1, 7, 1000)), stamp_ms)
    symbols = config.universe[0].symbols
    fits = {name: named(name, symbols) for move in moves for name in move.installs}
    for move in moves:
        for step in journal.repeat(move, read, fits):
            again.take(step)
    same(live, again)
    again = Run(config, log, stamp_ms).again(moves, chance, chance.choice((1, 7, 1000)))
    same(live, again)
    return live


@given(seed=st.integers(0, 2**32 - 1))
@hypothesis_settings(max_examples=20, deadline=None)  # make test-full runs thousands
def test_a_repetition_under_the_journal_gives_the_same_bytes_and_state(seed: int) -> None:
    repeated_as_live(seed)


@pytest.mark.full
def test_thousands_of_schedules_are_repeated_to_the_last_bit() -> None:
    first = random.randrange(2**32)  # of the seed at the top of the run
    for seed in range(first, first + 3000):
        try:
            repeated_as_live(seed)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
