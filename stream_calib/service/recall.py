"""What a universe published before it was started anew, for those who look at it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar

import structlog

from stream_calib.client.assembly import Assembly
from stream_calib.errors import InputError, StreamCalibError
from stream_calib.ports import Viewer
from stream_calib.values import Event, Matrix, Published
from stream_calib.wire.events import decode_event

MATRICES = 1000  # records that are read back at most, of a universe
EVENTS = 20_000  # most may be of symbols that come and go, a thousand a day of 500
RECALLED_BYTES = 16 * 2**20  # the same

T = TypeVar("T")
ReadBack = Callable[[str, str, int, int], Awaitable[Sequence[Published]]]


class Recalled(NamedTuple):
    """The newest of what is in the topics of a universe, oldest first."""

    matrices: Sequence[Matrix]
    events: Sequence[Event]


class Turns:
    """Which universes other processes own, and which were taken over from them.

    Attributes
    ----------
    others
        Names of those that are not this process's.
    taken_over
        Names of those that have become this process's, to be waited for.
    """

    def __init__(self) -> None:
        self.others: set[str] = set()
        self.taken_over: asyncio.Queue[str] = asyncio.Queue()

    def take(self, universe: str, role: str) -> bool:
        """Note the role; tell whether the universe was another's and is this process's now."""
        if role != "owner":
            self.others.add(universe)
            return False
        if universe not in self.others:
            return False
        self.others.discard(universe)
        self.taken_over.put_nowait(universe)
        return True


async def recall(
    universes: Sequence[str],
    read_back: ReadBack,
    viewer: Viewer,
    taken_over: "asyncio.Queue[str] | None" = None,
) -> None:
    """Tell the viewer of what there is already; what cannot be read is not shown.

    Parameters
    ----------
    universes
        Their names.
    read_back
        Takes the name of a universe, what to read ("correlations" or "events"), and how many
        records of how many bytes at most; returns the newest that are committed.
    viewer
        Is told.
    taken_over
        Universes of which there is more after a time in which another process owned them: those
        are read again as they come, until cancelled.
    """
    await _recall_all(universes, read_back, viewer)
    while taken_over is not None:
        await _recall_all([await taken_over.get()], read_back, viewer)


async def _recall_all(universes: Sequence[str], read_back: ReadBack, viewer: Viewer) -> None:
    for universe in universes:
        try:
            matrices = await read_back(universe, "correlations", MATRICES, RECALLED_BYTES)
            events = await read_back(universe, "events", EVENTS, RECALLED_BYTES)
            found = await asyncio.to_thread(recalled, universe, matrices, events)
        except StreamCalibError as error:
            structlog.get_logger().warning(
                "what was published before is not shown", universe=universe, reason=str(error)
            )
            continue
        viewer.recall(universe, found.matrices, found.events)


def recalled(universe: str, matrices: Sequence[Published], events: Sequence[Published]) -> Recalled:
    """Read records of both topics back.

    A matrix whose first chunks are missing is left out, and so is what is something else.
    """
    assembly = Assembly(universe, on_problem=lambda _: None)
    found = _read(_event, events)
    return Recalled(
        _read(assembly.add, matrices), [event for event in found if event.universe == universe]
    )


def _read(one: Callable[[Published], T | None], records: Sequence[Published]) -> list[T]:
    found = []
    for record in records:
        with contextlib.suppress(InputError):
            made = one(record)
            if made is not None:
                found.append(made)
    return found


def _event(record: Published) -> Event | None:
    return None if record.value is None else decode_event(record.value)
