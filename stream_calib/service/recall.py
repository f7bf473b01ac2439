"""What a universe published before it was started anew, for those who look at it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import structlog

from stream_calib.client.assembly import Assembly
from stream_calib.errors import StreamCalibError
from stream_calib.ports import Viewer
from stream_calib.values import Event, Matrix, Published
from stream_calib.wire.events import decode_event

MATRICES, EVENTS = 1000, 400  # records that are read back at most, of a universe
RECALLED_BYTES = 16 * 2**20  # the same

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
    """Read records of both topics back; a matrix whose first chunks are missing is left out.

    Raises
    ------
    InputError
        A record is of something else.
    """
    assembly = Assembly(universe, on_problem=lambda _: None)
    found = (assembly.add(record) for record in matrices)
    return Recalled(
        [matrix for matrix in found if matrix is not None],
        [decode_event(record.value) for record in events if record.value is not None],
    )
