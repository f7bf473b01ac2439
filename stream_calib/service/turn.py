"""Whose turn it is to own a universe, and what this process does until it is its own."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from stream_calib import ports
from stream_calib.config import Config, UniverseConfig
from stream_calib.errors import (
    NotOurTurnError,
    OwnershipError,
    StreamCalibError,
    TransportError,
)
from stream_calib.service.recovery import Parts
from stream_calib.service.repetition import InThread
from stream_calib.service.standby import Standby

RETRY_S = 5.0
FENCED_MOST, FENCED_WITHIN_S = 3, 60.0  # more often, somebody writes here who is not of the group


class Turn:
    """Waits until this process may own a universe; as a standby it follows the owner meanwhile.

    Parameters
    ----------
    config, universe
        Settings.
    ownership
        Who says so; None where there is nobody else.
    new_parts
        Makes what the universe is connected to, for one attempt.
    observer
        Told of every change.
    in_thread
        Runs a function in the thread that computes.

    Attributes
    ----------
    known
        Set once it is known who is to own: this process, or another one.
    has_waited
        Whether it was another one at some time.
    """

    def __init__(
        self,
        config: Config,
        universe: UniverseConfig,
        ownership: ports.Ownership | None,
        new_parts: Callable[[], Parts],
        observer: ports.Observer,
        in_thread: InThread[Any],
    ) -> None:
        self.known = asyncio.Event()
        self.has_waited = False
        self._name = universe.name
        self._partition = config.universe.index(universe)
        self._wanted = config.ownership.standby
        self._ownership = ownership
        self._new_parts = new_parts
        self._observer = observer
        self._in_thread = in_thread
        self._standby: Standby | None = None
        self._fenced_s: list[float] = []
        self._log = structlog.get_logger().bind(universe=self._name)

    @property
    def is_ours(self) -> bool:
        """Whether this process may own the universe, as far as it knows."""
        return self._ownership is None or self._ownership.holds(self._partition)

    async def come(self, stop: asyncio.Event) -> Standby | None:
        """Wait until it is this process's turn, or it has to stop.

        Returns
        -------
        Standby or None
            What has followed so far, for the owner to go on from.

        Raises
        ------
        StreamCalibError
            It cannot come any more.
        """
        before = ""
        while not (stop.is_set() or self.is_ours):
            role = self._role
            if self.knows:
                self._observer.owned(self._name, role)
                self.known.set()
                self.has_waited = True
                if role != before:
                    self._log.info("another worker owns it", role=role)
                before = role
            if role == "standby":
                await self._stand_by(stop)
            elif self._standby is not None:
                await self.drop()  # meanwhile it may have become ours
            else:
                await self._change(stop)
        if stop.is_set():
            return None
        self.known.set()
        standby, self._standby = self._standby, None
        return standby

    async def passes(self, stop: asyncio.Event) -> None:
        """Wait until it is over, or this process has to stop."""
        while not stop.is_set() and self.is_ours:
            await self._change(stop)

    async def note_fenced(self, error: OwnershipError) -> None:
        """Go on after another process has taken the universe over.

        Where the others say that it is this process's all the same, somebody writes who is not of
        them: that is raised when it keeps happening.
        """
        if self._ownership is None:
            raise error
        self._log.warning("no longer the owner", reason=str(error))
        if isinstance(error, NotOurTurnError):
            return
        self._observer.fenced(self._name)
        try:
            by_stranger = self.is_ours and await self._ownership.confirm(self._partition)
        except TransportError:
            by_stranger = False
        if by_stranger:
            now_s = asyncio.get_running_loop().time()
            self._fenced_s = [t for t in self._fenced_s if now_s - t < FENCED_WITHIN_S] + [now_s]
            if len(self._fenced_s) > FENCED_MOST:
                raise error

    async def drop(self) -> None:
        """Throw away what has followed so far."""
        standby, self._standby = self._standby, None
        if standby is not None:
            await standby.parts.log.close()
            await standby.parts.source.close()

    @property
    def knows(self) -> bool:
        """Whether it is known now who is to own."""
        return self._ownership is None or self._ownership.joined

    @property
    def _role(self) -> str:
        ownership = self._ownership
        spare = self._wanted == "spare" and ownership is not None and ownership.spare
        return "standby" if spare or (self._wanted == "always" and self.knows) else "none"

    async def _change(self, stop: asyncio.Event, *others: "asyncio.Task[None]") -> None:
        """Wait until something was given or taken, this process has to stop, or others end."""
        waits: list[Coroutine[Any, Any, object]] = [stop.wait()]
        if self._ownership is not None:
            waits.append(self._ownership.changed())
        waiting = [asyncio.create_task(wait) for wait in waits]
        try:
            done, _ = await asyncio.wait({*waiting, *others}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in waiting:
                task.cancel()

    async def _stand_by(self, stop: asyncio.Event) -> None:
        over = asyncio.Event()
        following = asyncio.create_task(self._follow(over))
        try:
            while not (stop.is_set() or self.is_ours) and self._role == "standby":
                await self._change(stop, following)
        finally:
            over.set()
            await asyncio.wait({following})  # an entry is repeated as a whole
        following.result()

    async def _follow(self, over: asyncio.Event) -> None:
        while not over.is_set():
            try:
                if self._standby is None:
                    self._standby = Standby(self._new_parts(), self._in_thread)
                    await self._standby.parts.source.start()
                await self._standby.follow(over)
            except StreamCalibError as error:
                await self.drop()
                self._log.warning("standing by without a state", reason=str(error))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), RETRY_S)
