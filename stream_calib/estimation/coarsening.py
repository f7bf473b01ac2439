"""From returns of fine bars to those of coarser ones."""

from collections.abc import Mapping
from typing import NamedTuple, Self

import numpy as np

from stream_calib.estimation.protocol import Layout
from stream_calib.values import F64, ReturnBlock


class CoarseRow(NamedTuple):
    """One coarse bar: ``returns`` (n,) NaN where not observed, ``exposure`` (n,) in coarse bars."""

    returns: F64
    exposure: F64
    elapsed_bars: float

    @property
    def observed(self) -> bool:
        """Whether there is any return."""
        return bool(self.exposure.any())


class Coarsener:
    """Adds the returns of fine bars up to one coarse bar.

    A fine return begins where the one before it ended, so the sum is the return between the
    last prices of two coarse bars, and the exposure is the time between them.

    Parameters
    ----------
    n
        Number of symbols.
    k
        Fine bars in a coarse one.
    simple : (n,)
        Symbols whose returns are shares of the price before: they compound.
    """

    LAYOUT = Layout(by_symbol={"returns": 0.0, "exposure": 0.0})

    def __init__(self, n: int, k: int, simple: np.ndarray) -> None:
        self._k = float(k)
        self.simple = simple
        self._returns = np.zeros(n)
        self._exposure = np.zeros(n)
        self._elapsed = 0.0

    def add(self, block: ReturnBlock) -> None:
        """Add fine bars that lie in one coarse bar, one row after the other."""
        elapsed = block.elapsed_bars
        longest = elapsed if elapsed.ndim == 1 else elapsed.max(axis=(1, 2))
        observed = block.exposure > 0.0
        returns = np.where(observed, block.returns, 0.0)
        for i in range(len(returns)):  # sums in this order do not depend on how bars are cut
            r = self._returns
            self._returns = np.where(self.simple, r + returns[i] + r * returns[i], r + returns[i])
            self._exposure += np.where(observed[i], block.exposure[i], 0.0)
            self._elapsed += float(longest[i])

    def close(self) -> CoarseRow:
        """Return the coarse bar and begin the next; one without returns only lets time pass."""
        observed = self._exposure > 0.0
        row = CoarseRow(
            np.where(observed, self._returns, np.nan),
            self._exposure / self._k,
            self._elapsed / self._k,
        )
        if row.observed:
            self._returns = np.zeros_like(self._returns)
            self._exposure = np.zeros_like(self._exposure)
            self._elapsed = 0.0
        return row

    def state(self) -> dict[str, F64]:
        """Return copies of all arrays that make up the state."""
        return {
            "returns": self._returns.copy(),
            "exposure": self._exposure.copy(),
            "elapsed": np.array([self._elapsed]),
        }

    @classmethod
    def from_state(cls, k: int, simple: np.ndarray, state: Mapping[str, F64]) -> Self:
        """Continue from what ``state`` returned."""
        coarsener = cls(len(state["returns"]), k, simple)
        coarsener._returns = state["returns"].copy()
        coarsener._exposure = state["exposure"].copy()
        coarsener._elapsed = float(state["elapsed"][0])
        return coarsener
