"""A model of a consumer group over one partition: who was given it, and who believes what."""

import asyncio
from collections.abc import Coroutine
from random import Random
from typing import Any

from tests.simulation.broker import Crash, Process

HEARS_S = 2.0  # at most, until one that lost the universe knows
GETS_S = 0.5  # at most, until one that was given it knows


class SimulatedOwnership:
    """One member: what it believes comes late, what it asks for is answered truly."""

    def __init__(self, group: "Group", process: Process) -> None:
        self.group, self.process = group, process
        self.believes = self.joined = False
        self._change = asyncio.Event()

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def holds(self, partition: int) -> bool:
        return partition == 0 and self.believes

    @property
    def spare(self) -> bool:
        return self.joined and not self.believes

    def changed(self) -> Coroutine[Any, Any, None]:
        change = self._change

        async def wait() -> None:
            await change.wait()
            if self.process.dead:
                raise Crash

        return wait()

    async def confirm(self, partition: int) -> bool:
        await self.process.step()
        return self.believes and self.group.owner is self

    def hear(self, *, is_owner: bool) -> None:
        self.believes, self.joined = is_owner, True
        self._change.set()
        self._change = asyncio.Event()


class Group:
    """Gives the universe to one member or another, at any time."""

    def __init__(self, random: Random) -> None:
        self.owner: SimulatedOwnership | None = None
        self.moves = self.frozen = 0
        self._random = random
        self._members: list[SimulatedOwnership] = []

    def join(self, process: Process) -> SimulatedOwnership:
        member = SimulatedOwnership(self, process)
        self._members.append(member)
        if self.owner is None:
            self.give(member)
        else:
            self._tell(member, 0.0)
        return member

    def leave(self, member: SimulatedOwnership) -> None:
        self._members.remove(member)
        if self.owner is member:
            self.owner = None
            if self._members:
                self.give(self._random.choice(self._members))

    def give(self, member: SimulatedOwnership) -> None:
        before, self.owner = self.owner, member
        self.moves += before is not member
        if before is not None:
            self._tell(before, HEARS_S)
        self._tell(member, GETS_S)

    async def shuffle(self) -> None:
        """Move the universe around, and freeze who has it now and then, for ever."""
        random = self._random
        while True:
            await asyncio.sleep(random.expovariate(1.0))
            if random.random() < 0.3 and self.owner is not None:
                self.owner.process.freeze(2.0 * random.random())
                self.frozen += 1
            if self._members:
                self.give(random.choice(self._members))

    def _tell(self, member: SimulatedOwnership, within_s: float) -> None:
        def tell() -> None:
            member.hear(is_owner=self.owner is member)

        loop = asyncio.get_running_loop()
        thawed_s = max(0.0, member.process.frozen_until_s - loop.time())
        loop.call_later(thawed_s + within_s * self._random.random(), tell)
