"""Ticks on their way from the readers to the one that writes them."""

import asyncio
import itertools
from collections import deque
from collections.abc import Iterable, Sequence

from stream_calib.values import Output


class Backlog:
    """Records in order, each with the name of who brought it; they stay until they are written.

    Parameters
    ----------
    limit
        How many there may be before ``put`` waits; one ``force`` may go beyond it.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: deque[tuple[str, Output]] = deque()
        self._more = asyncio.Event()
        self._less = asyncio.Event()

    def __len__(self) -> int:
        return len(self._held)

    def names(self) -> list[str]:
        """Return who brought each record that is still here."""
        return [name for name, _ in self._held]

    async def put(self, name: str, outputs: Sequence[Output]) -> None:
        """Add records, all at once, when there is room for them or nothing else is here."""
        while self._held and len(self._held) + len(outputs) > self._limit:
            await self._shrinks()
        self.force(name, outputs)

    def force(self, name: str, outputs: Iterable[Output]) -> None:
        """Add records whether there is room or not."""
        self._held.extend((name, output) for output in outputs)
        if self._held:
            self._more.set()

    async def first(self, n: int) -> list[tuple[str, Output]]:
        """Return the oldest records, at most ``n``, as soon as there are any; they stay here."""
        while not self._held:
            self._more.clear()
            await self._more.wait()
        return list(itertools.islice(self._held, n))

    def written(self, n: int) -> None:
        """Let the oldest ``n`` records go."""
        for _ in range(n):
            self._held.popleft()
        self._less.set()

    async def falls_to(self, n: int) -> None:
        """Wait until there are no more than ``n`` records."""
        while len(self._held) > n:
            await self._shrinks()

    async def _shrinks(self) -> None:
        self._less.clear()
        await self._less.wait()
