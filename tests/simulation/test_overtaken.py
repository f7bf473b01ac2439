"""Who stands still between the journal and the snapshots takes nothing from its heir."""

import asyncio
from collections.abc import Sequence
from random import Random

import pytest

from stream_calib.ports import JournalRecord, Ownership
from stream_calib.wire.snapshots import number_in
from tests.simulation import clock
from tests.simulation.broker import Faults, Process, SimulatedCommitLog
from tests.simulation.test_acceptance import again, ended
from tests.simulation.world import World, make_input


class Doomed(Process):
    """Dies when it has recovered, before it commits anything."""

    def at(self, point: str) -> None:
        self.dead |= point == "restore"
        super().at(point)


class StandingStill(SimulatedCommitLog):
    """Has read the journal, and does not go on before it is told to."""

    def __init__(self, world: "Overtaken", process: Process) -> None:
        super().__init__(world.broker, process)
        self._world = world

    async def own(self) -> Sequence[JournalRecord]:
        records = await super().own()
        self._world.has_read.set()
        await self._world.goes_on.wait()
        return records


class Overtaken(World):
    """A universe whose first owner stands still while a second one comes to the end."""

    async def overtake(self) -> bool:
        """Return whether the first one believes that all is done."""
        self.has_read, self.goes_on = asyncio.Event(), asyncio.Event()
        self.stale = self.new_process()
        first = asyncio.create_task(self.lived(self.stale, asyncio.Event()))
        await self.has_read.wait()
        assert await self.lived(self.new_process(), asyncio.Event())
        self.files = dict(self.disk.files)
        self.goes_on.set()
        return await first

    def new_log(self, process: Process, ownership: Ownership | None) -> SimulatedCommitLog:
        if process is self.stale:
            return StandingStill(self, process)
        return super().new_log(process, ownership)


def overtaken(seed: int, keep: int, world: World | None = None) -> Overtaken:
    random = Random(seed)
    new = Overtaken(random, Faults(), make_input(random, 2), 2)
    if world is not None:
        new.broker, new.disk, new.log = world.broker, world.disk, world.log
        new.config = world.config
    kept = new.config.snapshots.model_copy(update={"keep": keep})
    new.config = new.config.model_copy(update={"snapshots": kept})
    return new


@pytest.mark.parametrize("keep", [1, 2])
def test_the_snapshots_of_an_heir_are_not_dropped(keep: int) -> None:
    before = ended(20)
    newest = max(map(number_in, before.disk.files))
    for row in make_input(Random(21), 2):  # more to take in, and to save
        before.log.append("ticks", row[0], None, row[1], (), row[2] + 60_000)
    world = overtaken(20, keep, before)
    assert not clock.run(world.overtake())
    assert len([name for name in world.files if number_in(name) > newest]) >= keep
    assert world.disk.files == world.files
    again(world)
    assert clock.run(world.repeated()) == world.published()


def test_an_empty_journal_that_an_heir_has_filled_is_not_called_lost() -> None:
    world = overtaken(22, 3)
    assert not clock.run(world.overtake())
    assert world.disk.files == world.files != {}
    again(world)
    assert clock.run(world.repeated()) == world.published()


def test_refused_snapshots_are_dropped_by_who_has_committed_and_by_nobody_else() -> None:
    world = ended(23)
    newest = max(world.disk.files)
    orphan = f"{number_in(newest) + 5:020d}-{'0' * 32}.snap"
    world.disk.files[orphan] = world.disk.files[newest]
    process = Doomed(Random(0), Faults())
    assert not clock.run(world.lived(process, asyncio.Event()))
    assert process.dead
    assert orphan in world.disk.files
    again(world)
    assert orphan not in world.disk.files
    assert clock.run(world.repeated()) == world.published()
