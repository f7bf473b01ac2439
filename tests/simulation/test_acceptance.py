"""What recovery does not guess: it stops with one sentence, and goes on when told to."""

import errno
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any, ClassVar

import orjson
import pytest

from stream_calib.config import Config
from stream_calib.errors import ConfigError, LostInputError, RecoveryError
from stream_calib.service.numerics import Build
from stream_calib.service.repetition import Allowed
from stream_calib.values import JournalEntry, Output
from stream_calib.wire.journal import decode_entry, encode_entry, link
from tests.simulation import clock
from tests.simulation import world as world_module
from tests.simulation.broker import Faults
from tests.simulation.world import SYMBOLS, WitnessedSnapshots, World, make_input


def ended(seed: int) -> World:
    """A universe that came to the end of its input."""
    random = Random(seed)
    world = World(random, Faults(), make_input(random, 2), 2)
    clock.run(world.run())
    assert len(world.broker.topic("correlations")) > 3
    return world


def again(world: World, rows: int = 30, **accepted: bool) -> World:
    """Let it run once more, with more input and what the user accepts."""
    newest_ms = max(stamp for _, _, stamp in world.rows)
    for k in range(rows):
        stamp_ms = newest_ms + 500 * (k + 1)
        for i, symbol in enumerate(SYMBOLS):
            price = 100.0 + (k * 7 + i * 13) % 11
            tick = {"symbol": symbol, "time": (stamp_ms + i) * 1_000_000, "price": price}
            world.log.append("ticks", i % 2, None, orjson.dumps(tick), (), stamp_ms)
    world.rows.append((0, None, newest_ms + 500 * rows))
    world.allowed = Allowed(**accepted)
    clock.run(world.run())
    return world


def edit_journal(world: World, edit: Callable[[JournalEntry], JournalEntry]) -> None:
    """Change the last entry as if it had been written so."""
    at, last = next(
        (i, o)
        for i, o in reversed(list(enumerate(world.broker.committed)))
        if o.topic.endswith("journal")
    )
    entry = link(edit(decode_entry(last.value)))
    world.broker.committed[at] = encode_entry(entry, last.topic, last.partition)
    world.disk.files.clear()
    world.broker.trimmed = 0


def sequences(outputs: list[Output]) -> list[int]:
    return [int(dict(o.headers)["sequence"]) for o in outputs]


def events(world: World) -> list[dict[str, Any]]:
    return [orjson.loads(o.value) for o in world.broker.topic("events")]


def assert_contiguous(world: World) -> None:
    for role in ("correlations", "events"):
        outputs = world.broker.topic(role)
        for key in {o.key for o in outputs}:  # of each estimator
            found = sequences([o for o in outputs if o.key == key])
            assert found == list(range(1, len(found) + 1)), (role, key)


def under(config: Config, **changes: Any) -> Config:
    universe = config.universe[0]
    settings = config.settings(universe)
    return config.under(settings | {"universe": settings["universe"] | changes})


def test_an_entry_that_gives_other_bits_is_not_passed_over() -> None:
    world = ended(1)
    edit_journal(world, lambda entry: replace(entry, outputs_digest="0" * 32))
    with pytest.raises(RecoveryError, match="does not give the same bits; --accept-divergence"):
        again(world)
    world.build = Build("1.2.3", {"simulated": "2", "new": "x"})
    with pytest.raises(RecoveryError, match="and new, simulated changed since: stop the old"):
        again(world)
    again(world, divergence=True)
    assert_contiguous(world)
    assert [e["type"] for e in events(world)].count("divergence_accepted") == 1
    again(world)  # a snapshot was taken after it
    assert_contiguous(world)


def test_changed_libraries_that_give_the_same_bits_are_no_matter() -> None:
    world = ended(2)
    world.disk.files.clear()
    world.broker.trimmed = 0
    world.build = Build("9.9.9", {"simulated": "2"})
    before = len(world.broker.topic("correlations"))
    again(world)
    assert_contiguous(world)
    versions = [
        orjson.loads(o.value)["software_version"] for o in world.broker.topic("correlations")
    ]
    assert set(versions[:before]) == {"1.2.3"}
    assert set(versions[before:]) == {"9.9.9"}
    # entries of both versions, repeated under the version that wrote them
    assert clock.run(world.repeated()) == world.published()


def test_an_empty_journal_beside_outputs_is_no_beginning() -> None:
    world = ended(3)
    kept = [o for o in world.broker.committed if not o.topic.endswith("journal")]
    for files, what in ((dict(world.disk.files), "snapshots of it"), ({}, "records that it")):
        world.broker.committed[:], world.broker.trimmed = list(kept), 0  # a topic made anew
        world.disk.files = files
        with pytest.raises(RecoveryError, match=f"is empty, but there are {what}.*--genesis"):
            again(world)
    again(world, genesis=True)
    assert_contiguous(world)
    assert (
        clock.run(world.repeated())["correlations"]
        == world.broker.topic("correlations")[
            len([o for o in kept if o.topic.endswith("correlations")]) :
        ]
    )


@pytest.mark.parametrize("damage", [b"{", b"", b"null"])
def test_a_damaged_journal_is_no_beginning(damage: bytes) -> None:
    world = ended(4)
    world.broker.committed.append(replace(world.broker.topic("journal")[-1], value=damage))
    with pytest.raises(RecoveryError, match=r"^The journal of universe 'u' at position"):
        again(world)


def test_a_journal_of_two_writers_is_refused() -> None:
    world = ended(5)
    world.broker.committed.append(world.broker.topic("journal")[-1])
    with pytest.raises(RecoveryError, match="does not follow"):
        again(world)


def test_a_changed_setting_is_refused_by_name_and_reset_goes_on() -> None:
    world = ended(6)
    world.config = under(world.config, ewma={"half_life": "40s", "window": "3s"})
    with pytest.raises(
        ConfigError, match=r"universe.ewma.half_life was 10s and is 40s.*reset-state"
    ):
        again(world)
    again(world, reset_state=True)
    assert_contiguous(world)
    assert [e["type"] for e in events(world)].count("state_reset") == 1
    fingerprints = [
        orjson.loads(o.value)["config_fingerprint"] for o in world.broker.topic("correlations")
    ]
    assert len(set(fingerprints)) == 2
    assert clock.run(world.repeated()) == world.published()  # across the change of settings


def test_changed_symbols_are_migrated_and_the_journal_repeats_across_it() -> None:
    world = ended(7)
    world.config = under(world.config, symbols=["D", "X", "A", "C"])
    again(world)
    assert_contiguous(world)
    (changed,) = [e for e in events(world) if e["type"] == "universe_changed"]
    assert changed["details"] == {"added": ["X"], "removed": ["B"]}
    matrices = [orjson.loads(o.value) for o in world.broker.topic("correlations")]
    last = [matrix for matrix in matrices if matrix["estimator"] == "ewma"][-1]
    assert last["symbols"] == ["D", "A", "C"]
    assert last["pending"] == ["X"]
    assert clock.run(world.repeated()) == world.published()


def with_topics(config: Config, *topics: str) -> Config:
    return config.model_copy(update={"input": config.input.model_copy(update={"topics": topics})})


def test_a_topic_that_is_taken_out_holds_nobody_up() -> None:
    world = ended(8)
    world.log.create_topic("more")
    newest_ms = max(stamp for _, _, stamp in world.rows)
    tick = {"symbol": "A", "time": newest_ms * 1_000_000, "price": 100.0}
    world.log.append("more", 0, None, orjson.dumps(tick), (), newest_ms)
    world.config = with_topics(world.config, "ticks", "more")
    again(world)
    before = len(world.broker.topic("correlations"))
    world.config = with_topics(world.config, "ticks")
    again(world)
    assert len(world.broker.topic("correlations")) > before + 5
    (retired,) = [e for e in events(world) if e["type"] == "sources_retired"]
    assert retired["details"] == {"sources": [["more", 0]]}
    world.config = with_topics(world.config, "ticks", "more")  # and back
    again(world)
    assert_contiguous(world)
    assert clock.run(world.repeated()) == world.published()


def test_a_reset_that_is_asked_for_takes_place_though_nothing_changed() -> None:
    world = ended(9)
    again(world, reset_state=True)
    assert [e["type"] for e in events(world)].count("state_reset") == 1
    again(world)
    assert_contiguous(world)
    assert clock.run(world.repeated()) == world.published()


def test_input_that_was_not_read_and_is_gone_is_passed_over_on_record() -> None:
    world = ended(10)
    for _ in range(2):
        for i in range(2):
            world.log.append("ticks", i, None, b"lost", (), 0)
            world.log.trim("ticks", i, world.log.bounds("ticks", i)[1])
        world.broker.trimmed = len(world.broker.topic("journal")) - 1
        with pytest.raises(LostInputError, match=r"was not read yet.*--accept-gap"):
            again(world, rows=0)
        again(world, gap=True)
        again(world)
    assert_contiguous(world)
    assert [e["type"] for e in events(world)].count("gap_accepted") == 2


def test_a_topic_that_was_made_anew_is_noticed_though_nothing_is_repeated() -> None:
    world = ended(13)  # which keeps entries that read something
    for i in range(2):
        part = world.log._topics["ticks"][i]
        part.records[:] = [r._replace(value=b"another") for r in part.records]
    with pytest.raises(LostInputError, match="does not hold the records any more that were read"):
        again(world)
    again(world, gap=True)
    again(world)
    assert_contiguous(world)


class Slow(WitnessedSnapshots):
    """A store that a few times does not answer, or cannot be listed."""

    refusals: ClassVar[Counter[str]] = Counter()

    def names(self) -> list[str]:
        self._refuse("names")
        return super().names()

    def load(self, name: str) -> bytes:
        self._refuse("load")
        return super().load(name)

    def _refuse(self, what: str) -> None:
        if self.refusals[what]:
            self.refusals[what] -= 1
            raise OSError(errno.ETIMEDOUT, "no answer within 20 s")


@pytest.mark.parametrize("what", ["names", "load"])
def test_a_store_that_does_not_answer_is_asked_again_and_no_reason_to_begin_anew(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(world_module, "WitnessedSnapshots", Slow)
    world = ended(20)
    for _ in range(4):
        again(world)
    assert world.broker.trimmed > 0
    monkeypatch.setattr(Slow, "refusals", Counter({what: 5}))
    again(world)
    assert Slow.refusals[what] == 0
