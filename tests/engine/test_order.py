"""How partitions interleave and batches are cut cannot be seen in the output."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from stream_calib.values import Source
from tests.engine.driver import Driver, Log, repeat_run, settings, tick

SYMBOLS = ("A", "B", "C", "D")
GARBAGE = (
    b"",
    None,
    b"\xff\xfe",
    b'{"symbol":"A"',
    b"[1,2]",
    b'{"symbol":"A","time":1700000010.5,"price":NaN}',
    b'{"symbol":"A","time":1700000010.5,"price":1e400}',
    b'{"symbol":"A","time":1700000010.5,"price":-5}',
    b'{"symbol":"A","time":1000,"price":5}',
    b'{"symbol":"A","time":1700000010.5,"price":true}',
    b'{"symbol":["A"],"time":1700000010.5,"price":5}',
    b'{"symbol":"A","time":1700000010.5,"bid":7,"ask":5}',
)


def random_log(random: Random, partitions: int, n: int, garbage: float) -> Log:
    log: dict[Source, list[bytes | None]] = {}
    for p in range(partitions):
        values: list[bytes | None] = []
        seconds = random.random() * 5
        for _ in range(random.randint(0, n)):
            if random.random() < garbage:
                values.append(random.choice(GARBAGE))
                continue
            seconds += random.expovariate(3.0) if random.random() < 0.98 else random.random() * 90
            jitter = random.choice((0.0, 0.0, 0.0, 0.7, 1.9, 4.0, 30.0))  # some are too late
            symbol = random.choice((*SYMBOLS, "UNKNOWN"))
            more = {"id": random.randint(1, 5)} if random.random() < 0.5 else {}
            time_s = round(max(0.0, seconds - jitter), 1)  # many equal times
            values.append(tick(symbol, time_s, 100 + random.gauss(0, 1), **more))
        log[Source("t" if p % 2 else "s", p)] = values
    return log


@pytest.mark.parametrize("every", [1, 3])
@given(seed=st.integers(0, 2**32 - 1))
@hypothesis_settings(max_examples=20, deadline=None)
def test_any_interleaving_and_any_cut_give_the_same_bytes(every: int, seed: int) -> None:
    random = Random(seed)
    log = random_log(random, partitions=random.randint(1, 4), n=150, garbage=0.1)
    config = settings(SYMBOLS, universe__every=every)
    whole = Driver(config).run(log, random, largest_cut=10_000)
    cut = Driver(config).run(log, random, largest_cut=random.choice((1, 7, 60)))
    assert whole.outputs != [] or sum(map(len, log.values())) < 100
    for topic in ("correlations", "events", "rejects"):
        assert whole.published(topic) == cut.published(topic)
    assert whole.counts == cut.counts


@given(seed=st.integers(0, 2**32 - 1))
@hypothesis_settings(max_examples=20, deadline=None)
def test_a_run_under_its_own_journal_gives_the_same_bytes(seed: int) -> None:
    random = Random(seed)
    log = random_log(random, partitions=3, n=120, garbage=0.1)
    config = settings(SYMBOLS)
    first = Driver(config).run(log, random, largest_cut=30)
    again = repeat_run(config, log, first.runner.recorder.cut(), random)
    for topic in ("correlations", "events", "rejects"):
        assert again.published(topic) == first.published(topic)
    assert again.counts == first.counts


@given(seed=st.integers(0, 2**32 - 1))
@hypothesis_settings(max_examples=20, deadline=None)
def test_garbage_between_good_records_changes_no_matrix(seed: int) -> None:
    random = Random(seed)
    clean = random_log(random, partitions=2, n=200, garbage=0.0)
    dirty: dict[Source, list[bytes | None]] = {}
    n_garbage = 0
    for source, values in clean.items():
        dirty[source] = []
        for value in values:
            while random.random() < 0.3:
                absurd = tick("A", random.uniform(1e5, 2e9), 5.0)
                dirty[source].append(random.choice((*GARBAGE, absurd)))
                n_garbage += 1
            dirty[source].append(value)
    config = settings(SYMBOLS, input__rejects_per_second=10_000)
    good = Driver(config).run(clean, random)
    bad = Driver(config).run(dirty, random)
    for topic in ("correlations", "events"):
        assert good.published(topic) == bad.published(topic)
    # nothing is lost: every garbage record is in the rejects topic, once
    assert len(bad.published("rejects")) == n_garbage + len(good.published("rejects"))
    n_records = sum(map(len, dirty.values()))
    beside = {"duplicate", "rejects_suppressed"}
    assert sum(n for outcome, n in bad.counts.items() if outcome not in beside) == n_records
