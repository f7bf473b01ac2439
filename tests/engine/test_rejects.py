"""The cap on rejects: the first of each second, whenever they come and whenever they leave."""

import hashlib
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from stream_calib.engine.rejects import Original, RejectQueue, Waiting
from stream_calib.values import REJECT_BYTES_MAX, SECOND_NS

Place = tuple[int, int, str]


def arrivals(random: Random) -> list[Place]:
    """Rejects as they come up: event time moves on, offsets of held records come later."""
    out, time_ns = [], 0
    for offset in range(random.randint(0, 60)):
        time_ns += random.choice((0, 0, 0, SECOND_NS // 3, 2 * SECOND_NS))
        late = max(0, offset - random.choice((0, 0, 0, 5)))
        out.append((time_ns, late, random.choice(("price", "json", "time_jump"))))
    return out


@given(seed=st.integers(0, 2**32 - 1), per_second=st.integers(0, 4))
def test_what_leaves_is_what_a_cap_at_the_end_would_let_through(seed: int, per_second: int) -> None:
    random = Random(seed)
    queue, came = RejectQueue(per_second), arrivals(random)
    left: list[Waiting] = []
    n_suppressed = 0
    for place in came:
        n_suppressed += queue.add(*place, b"x")
        if random.random() < 0.3:
            left += queue.take(place[0])  # what comes later is not before this
    left += queue.take(2**62)
    expected: list[Place] = []
    for place in sorted(came):
        second = place[0] // SECOND_NS
        if sum(other[0] // SECOND_NS == second for other in expected) < per_second:
            expected.append(place)
    assert [reject.place for reject in left] == expected
    assert n_suppressed == len(came) - len(expected)
    assert queue.waiting() == []


def test_an_original_is_cut_but_measured_whole() -> None:
    whole = bytes(range(250)) * 400
    original = Original.of(whole)
    assert original.value == whole[:REJECT_BYTES_MAX]
    assert (original.length, original.sha256) == (100_000, hashlib.sha256(whole).digest())
    assert Original.of(original) is original
    assert Original.of(None) == (None, 0, hashlib.sha256(b"").digest())
    assert Original.of(b"") == (b"", 0, hashlib.sha256(b"").digest())
