"""The watch for drift: what it is measured from, and what it will be measured from."""

from collections.abc import Mapping
from typing import Any, Self

import numpy.typing as npt

from stream_calib.engine.arrays import Arrays, under, within
from stream_calib.engine.reference import Reference
from stream_calib.estimation.dcc_model import DccModel
from stream_calib.estimation.protocol import Layout
from stream_calib.values import F64, I64, Alarm, ReturnBlock

GROWTH = 2.0  # so many times as many bars are worth beginning anew with


class Watch:
    """A reference, and beside it another one that rests on more bars, until that can see.

    How rare false alarms are depends on how much of the market's ordinary life the reference has
    seen: of a first fit to a few hours, whatever the rest of the day brings is a shift.

    Parameters
    ----------
    reference
        What alarms are raised from.
    successor
        What it will be, once it is not blind any more.
    """

    LAYOUTS: Mapping[str, Layout] = {
        f"{which}.{part}": layout
        for which in ("reference", "successor")
        for part, layout in Reference.LAYOUTS.items()
    }

    def __init__(self, reference: Reference, successor: Reference | None = None) -> None:
        self.reference = reference
        self._successor = successor

    def outgrown_by(self, model: DccModel) -> bool:
        """Tell whether a model rests on so much more that it is worth beginning anew with."""
        newest = self._successor or self.reference
        return newest.rests_on(model) >= GROWTH * newest.bars

    def prepare(self, successor: Reference) -> None:
        """Let another reference see what comes, and take over as soon as it can."""
        self._successor = successor

    def drop(self) -> None:
        """Give up what was to take over: what it is fitted to may be over."""
        self._successor = None

    def update(self, block: ReturnBlock, z: ReturnBlock, forecast: F64) -> tuple[list[Alarm], bool]:
        """Take in one bar: its returns, and z and correlations of the model in force.

        Returns
        -------
        list of Alarm, bool
            Alarms, and whether from now on there is sight, or that of another reference.
        """
        was_blind = self.reference.blind
        alarms = self.reference.update(block, z, forecast)
        sees = was_blind and not self.reference.blind
        if self._successor is not None:
            self._successor.update(block, z, forecast)
            if not self._successor.blind and not alarms:
                self.reference, self._successor, sees = self._successor, None, True
        return alarms, sees

    def state(self) -> Arrays:
        """Return copies of all arrays that make up the state."""
        out = under("reference", self.reference.state())
        if self._successor is not None:
            out |= under("successor", self._successor.state())
        return out

    @classmethod
    def from_state(cls, state: Mapping[str, npt.NDArray[Any]], order: I64) -> Self:
        """Continue from what ``state`` returned."""
        successor = within("successor", state)
        return cls(
            Reference.from_state(within("reference", state), order),
            Reference.from_state(successor, order) if successor else None,
        )
