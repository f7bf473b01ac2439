"""Written ahead, an owner dies between its journal entry and the outputs; another one goes on."""

import asyncio
from collections.abc import Sequence
from random import Random

import pytest

from stream_calib.ports import Ownership
from stream_calib.values import Output
from stream_calib.wire.journal import decode_entry
from tests.simulation import clock
from tests.simulation.broker import Crash, Faults, Process, WriteAheadCommitLog
from tests.simulation.group import Group, SimulatedOwnership
from tests.simulation.test_crashes import without_repeats
from tests.simulation.world import World, make_input

SEED, FATAL = 11, 4  # the entry that is fatal comes after this one
SESSION_S = 3.0


class FatalLog(WriteAheadCommitLog):
    """Ends the process, once, behind an entry that has outputs."""

    def __init__(self, world: "FatalWorld", process: Process, ownership: Ownership | None) -> None:
        super().__init__(world.broker, process, ownership)
        self._world = world

    async def _write(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            await super()._write([output])
            is_entry = output.topic.endswith(".journal") and len(outputs) > 1
            if is_entry and not self._world.unwritten and decode_entry(output.value).number > FATAL:
                self._world.unwritten = [o for o in outputs if o is not output]
                self._process.dead = True
                raise Crash


class FatalWorld(World):
    """Two processes share a universe; what the first one dies before is in ``unwritten``."""

    unwritten: Sequence[Output] = ()

    def new_log(self, process: Process, ownership: Ownership | None) -> WriteAheadCommitLog:
        return FatalLog(self, process, ownership)

    async def shared(self, standby: str) -> None:
        own = self.config.ownership.model_copy(update={"standby": standby})
        self.config = self.config.model_copy(update={"ownership": own})
        group, stop = Group(self.random), asyncio.Event()
        self.group = group
        processes = [self.new_process(), self.new_process()]
        members = [group.join(process) for process in processes]
        await asyncio.gather(
            *(self._membership(*who, stop) for who in zip(processes, members, strict=True))
        )

    async def _membership(
        self, process: Process, member: SimulatedOwnership, stop: asyncio.Event
    ) -> None:
        try:
            await self.lived(process, stop, member)
        finally:
            await asyncio.sleep(SESSION_S if process.dead else 0.0)
            self.group.leave(member)


@pytest.mark.parametrize("standby", ["spare", "never"])
def test_what_was_not_written_is_published_by_the_next_owner(standby: str) -> None:
    rows = make_input(Random(SEED), 1)
    good = World(Random(SEED), Faults(), rows, 1, write_ahead=True)
    expected = clock.run(good.run()).published()
    world = FatalWorld(Random(SEED), Faults(), rows, 1, write_ahead=True)
    clock.run(world.shared(standby))
    assert world.unwritten
    assert world.roles["standby"] > 0 or standby == "never"
    published = {role: without_repeats(found) for role, found in world.published().items()}
    assert published == expected
