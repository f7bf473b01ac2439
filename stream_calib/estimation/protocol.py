"""The contract of every online estimator."""

from collections.abc import Mapping
from typing import Protocol, Self

from stream_calib.values import F64, Correlation, ReturnBlock


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
