"""Which symbols a published matrix covers."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stream_calib.values import F64, Correlation

STAY = 0.5  # a symbol that is ready stays so down to this share of the threshold
PAIR = 0.5  # a pair needs this share of what its symbols need


class Membership:
    """Ready or pending, per symbol, with hysteresis.

    A symbol is ready when its own variance and every correlation with the other ready symbols
    rest on enough effective observations; of two symbols that do not overlap, the one in more
    such pairs (then the one observed less, then the later name) stays pending.

    Parameters
    ----------
    symbols
        Names, in the order of the universe.
    threshold
        Effective observations needed to become ready.
    """

    def __init__(self, symbols: tuple[str, ...], threshold: float) -> None:
        self.ready = np.zeros(len(symbols), dtype=bool)
        self._threshold = threshold
        self._name_rank = np.argsort(np.argsort(np.array(symbols)))

    def update(self, known: Correlation) -> bool:
        """Judge all symbols anew; return whether any changed."""
        n_eff = known.n_eff
        need = np.where(self.ready, STAY, 1.0) * self._threshold
        own = np.diagonal(n_eff)
        chosen = (own >= need) & (known.vol > 0.0)
        pair_need = PAIR * np.maximum(need[:, None], need[None, :])
        poor = (n_eff < pair_need) | np.isnan(known.corr)
        np.fill_diagonal(poor, val=False)
        self._drop_poor(chosen, poor, own)
        changed = bool((chosen != self.ready).any())
        self.ready = chosen
        return changed

    def state(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Return copies of all arrays that make up the state."""
        return {"ready": self.ready.copy()}

    @classmethod
    def from_state(
        cls, symbols: tuple[str, ...], threshold: float, state: Mapping[str, npt.NDArray[Any]]
    ) -> Self:
        """Continue from what ``state`` returned."""
        membership = cls(symbols, threshold)
        membership.ready[:] = state["ready"]
        return membership

    def _drop_poor(self, chosen: np.ndarray, poor: np.ndarray, own: F64) -> None:
        poor &= chosen[:, None] & chosen[None, :]
        degree = poor.sum(axis=1)
        while degree.any():
            worst = np.lexsort((-self._name_rank, own, -degree))[0]
            chosen[worst] = False
            degree -= poor[worst]
            degree[worst] = 0
            poor[worst, :] = False
            poor[:, worst] = False
