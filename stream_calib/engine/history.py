"""The newest bars of a universe, from which models are fitted."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stream_calib.estimation.protocol import Layout
from stream_calib.values import F64, I64, ReturnBlock


class History:
    """A window of rows that slides.

    Parameters
    ----------
    n
        Number of symbols.
    window
        Rows that are kept.
    """

    LAYOUT = Layout(by_symbol={"returns": np.nan, "exposure": 0.0})

    def __init__(self, n: int, window: int) -> None:
        self._window = window
        # twice the window, so that rows are moved once per window
        self._time_ns: I64 = np.zeros(2 * window, np.int64)
        self._returns: F64 = np.empty((2 * window, n))
        self._exposure: F64 = np.empty((2 * window, n))
        self._elapsed: F64 = np.empty(2 * window)
        self._start = self._stop = 0

    def __len__(self) -> int:
        return self._stop - self._start

    def append(self, time_ns: int, returns: F64, exposure: F64, elapsed_bars: float) -> None:
        """Take in one bar; the oldest beyond the window is forgotten."""
        if self._stop == len(self._time_ns):
            for array in (self._time_ns, self._returns, self._exposure, self._elapsed):
                array[: len(self)] = array[self._start : self._stop]
            self._start, self._stop = 0, len(self)
        at = self._stop
        self._time_ns[at], self._elapsed[at] = time_ns, elapsed_bars
        self._returns[at], self._exposure[at] = returns, exposure
        self._stop += 1
        self._start = max(self._start, self._stop - self._window)

    def newest(self) -> tuple[F64, F64]:
        """Return the returns and exposures (n,) of the last row, which must exist."""
        return self._returns[self._stop - 1].copy(), self._exposure[self._stop - 1].copy()

    def block(self) -> ReturnBlock:
        """Return copies of all rows, the oldest first."""
        rows = slice(self._start, self._stop)
        return ReturnBlock(
            self._time_ns[rows].copy(),
            self._returns[rows].copy(),
            self._exposure[rows].copy(),
            self._elapsed[rows].copy(),
        )

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return copies of all arrays that make up the state."""
        rows = self.block()
        return {
            "time_ns": rows.time_ns,
            "returns": rows.returns,
            "exposure": rows.exposure,
            "elapsed": rows.elapsed_bars,
        }

    @classmethod
    def from_state(cls, window: int, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Continue from what ``state`` returned."""
        history = cls(state["returns"].shape[1], window)
        k = len(state["time_ns"])
        history._time_ns[:k], history._elapsed[:k] = state["time_ns"], state["elapsed"]
        history._returns[:k], history._exposure[:k] = state["returns"], state["exposure"]
        history._stop = k
        return history
