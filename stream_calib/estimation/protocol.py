"""The contract of every online estimator."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol, Self, TypeAlias

from stream_calib.values import F64, Alarm, Correlation, ReturnBlock

Fill: TypeAlias = float | F64  # what a symbol has that was never seen
_NONE: Mapping[str, Fill] = MappingProxyType({})


class Layout(NamedTuple):
    """Which arrays of a state are by symbol, and what a symbol has that was never seen.

    ``by_symbol``: along the last axis. ``by_row``: along the last but one. ``by_square``: along
    the last two. ``by_triangle``: along the last, packed row by row with the diagonal.
    ``by_pair``: the same without the diagonal. ``exchanged`` are pairs of triangles that stand
    for each other where a pair is turned around. ``nested`` is a prefix of names that have
    another layout. What is not named is not by symbol.
    """

    by_symbol: Mapping[str, Fill] = _NONE
    by_row: Mapping[str, Fill] = _NONE
    by_square: Mapping[str, Fill] = _NONE
    by_triangle: Mapping[str, Fill] = _NONE
    by_pair: Mapping[str, Fill] = _NONE
    exchanged: tuple[tuple[str, str], ...] = ()
    nested: "tuple[str, Layout] | None" = None


class Estimator(Protocol):
    """Correlation kept up to date one block at a time, in place.

    Feeding a block in any cut gives the same state; a pair of which one return is missing is
    left alone; ``from_state(state())`` continues as if nothing had happened.
    """

    def update(self, block: ReturnBlock | F64) -> None:
        """Fold k bars in."""

    def correlation(self) -> Correlation:
        """Return the forecast for the next bar."""

    def state(self) -> dict[str, F64]:
        """Return copies of all arrays that make up the state."""

    @classmethod
    def from_state(cls, state: Mapping[str, F64]) -> Self:
        """Continue from a saved state."""


class Detector(Protocol):
    """Says when returns no longer follow the model that it was made from.

    Rows in any cut give the same alarms, levels and bytes of state. After an alarm it starts
    over by itself on the next row.
    """

    @property
    def level(self) -> float:
        """The statistic over its threshold: 1 is an alarm."""

    def update(self, block: ReturnBlock | F64) -> list[Alarm]:
        """Take k rows of standardised returns (k, n) and return the alarms raised in them."""

    def state(self) -> dict[str, F64]:
        """Return copies of all arrays that make up the state."""

    @classmethod
    def from_state(cls, state: Mapping[str, F64]) -> Self:
        """Continue from a saved state."""
