"""Eigenvalues measured on returns that the eigenvectors have not seen."""

from collections.abc import Callable, Mapping
from typing import Self

import numpy as np

from stream_calib.estimation.cleaning import Spectrum, compose_correlation, decompose, in_order
from stream_calib.estimation.protocol import Layout
from stream_calib.estimation.shrinkage import EIGENVALUE_MIN, clip_eigenvalues
from stream_calib.kernels.eigenvalues import fit_ascending, fold_projections
from stream_calib.values import F64, I64


class EigenvalueCleaner:
    """Online cross-validated eigenvalues of an estimate of correlation.

        every M bars    U = eigenvectors of the estimate, in ascending order of eigenvalue
        every bar       V_i <- c V_i + (u_i' x)^2;   E_i <- c E_i + 1;   c = 1 - 1 / min(m, t)
        published       W diag(y) W' scaled to a unit diagonal, W those of the estimate then,
                        y the ascending sequence nearest to (B c_i + V_i) / (B + E_i)

    where x is not yet in the estimate, t counts bars from the start or the last ``reset``, and
    c_i are the clipped eigenvalues of the estimate (``clip_eigenvalues``).
    An eigenvector of an estimate has more variance in the sample that made it than in the next
    one (or less, for the small eigenvalues); the next one tells how much. V is kept from one U
    to the next, by rank. Clipping is what is published at first and after ``reset``, and counts
    as ``prior_bars`` of measurement from there. The memory grows with t, so that what was measured
    while the estimate itself was still new fades.

    Parameters
    ----------
    n
        Number of symbols.
    refresh_bars
        M: bars between two U.
    memory_bars
        m: how far back V looks.
    prior_bars
        B: bars of measurement that clipping is worth.
    order : (n,)
        A canonical order of the symbols: with it, permuted symbols give the permuted bits.

    Raises
    ------
    ValueError
        If ``n`` < 2, a number of bars is below 1, or ``order`` is not a permutation.

    Notes
    -----
    O(n^2) for a bar, O(n^3) for a refresh and for ``clean``, on one BLAS thread. V is by rank
    and not by symbol: a universe with other symbols begins with a new cleaner.

    Made for estimates with n_eff of up to a few n. At n_eff = 20 n there is next to nothing to
    clean, and where common factors are strong the noise of V costs more than it brings.

    References
    ----------
    Tan and Zohren (2020), arXiv 2012.05757; Oriol (2024), arXiv 2410.14420, for the theory of
    weighted samples. The prior and the fresh eigenvectors are our own.
    """

    LAYOUT = Layout(by_symbol={"rank": 0.0}, by_row={"vectors": 0.0})

    def __init__(
        self,
        n: int,
        refresh_bars: int = 20,
        memory_bars: float = 1000.0,
        prior_bars: float = 50.0,
        order: I64 | None = None,
    ) -> None:
        if n < 2:
            message = f"n must be at least 2, not {n}"
            raise ValueError(message)
        if not (refresh_bars >= 1 and memory_bars >= 1 and prior_bars >= 1):
            message = "refresh_bars, memory_bars and prior_bars must be at least 1"
            raise ValueError(message)
        known = np.arange(n) if order is None else np.asarray(order, np.int64)
        if known.shape != (n,) or (np.sort(known) != np.arange(n)).any():
            message = f"order must be a permutation of {n} symbols, not {order!r}"
            raise ValueError(message)
        self.n = n
        self.refresh_bars = int(refresh_bars)
        self.memory_bars = float(memory_bars)
        self.prior_bars = float(prior_bars)
        self._order = known.astype(np.int64)
        self._bars = 0
        # all in canonical order
        self._vectors = np.eye(n)
        self._fourth = np.ones(n)
        self._moments = np.zeros(n)
        self._exposures = np.zeros(n)

    def bars_left(self) -> int:
        """Return how many bars the next block may have: up to the next refresh."""
        return self.refresh_bars - self._bars % self.refresh_bars

    def update(self, z: F64, corr: F64 | Callable[[], F64]) -> None:
        """Fold k bars in that the estimate does not hold yet.

        Parameters
        ----------
        z : (k, n)
            Returns divided by their standard deviation, NaN where not observed; at most
            ``bars_left()`` bars.
        corr : (n, n), or what returns it
            The estimate from the bars before this block, looked at only when a refresh is due:
            at the first bar and every M bars from there. Unknown pairs (NaN) count as 0.

        Raises
        ------
        ValueError
            If the block is of another width, or reaches past a refresh.
        """
        rows = np.atleast_2d(z)
        if rows.ndim != 2 or rows.shape[1] != self.n:
            message = f"a block is (k, {self.n}), not {rows.shape}"
            raise ValueError(message)
        if len(rows) > self.bars_left():
            message = f"{len(rows)} bars reach past the refresh in {self.bars_left()}"
            raise ValueError(message)
        if not len(rows):
            return
        if self._bars % self.refresh_bars == 0:
            self._set_vectors(decompose(self._known(corr() if callable(corr) else corr)).vectors)
        age = np.arange(self._bars + 1, self._bars + len(rows) + 1, dtype=np.float64)
        fold_projections(
            np.ascontiguousarray(rows[:, self._order], np.float64),
            self._vectors,
            self._fourth,
            1.0 - 1.0 / np.minimum(self.memory_bars, age),
            self._moments,
            self._exposures,
        )
        self._bars += len(rows)

    def clean(self, corr: F64, n_eff: float) -> F64:
        """Return a cleaned matrix.

        Parameters
        ----------
        corr : (n, n)
            The estimate as it is now; unknown pairs (NaN) count as 0.
        n_eff
            Its effective observations, for the edge of clipping.

        Returns
        -------
        (n, n)
            Symmetric, unit diagonal; positive definite, though perhaps by less than the floor of
            what is published: ``repair_correlation`` comes after this.
        """
        eigenvalues, vectors = decompose(self._known(corr))
        clipped = clip_eigenvalues(eigenvalues, n_eff)
        weights = self.prior_bars + self._exposures
        fitted = np.empty(self.n)
        fit_ascending((self.prior_bars * clipped + self._moments) / weights, weights, fitted)
        fitted = np.maximum(fitted, EIGENVALUE_MIN)
        return compose_correlation(Spectrum(fitted, vectors), self._order)

    def reset(self) -> None:
        """Forget V, as after a break that made what it says untrue; U is taken anew."""
        self._bars = 0
        self._set_vectors(np.eye(self.n))
        self._moments[:] = 0.0
        self._exposures[:] = 0.0

    def state(self) -> dict[str, F64]:
        """Return copies of all arrays that make up the state."""
        rank = np.argsort(self._order)
        return {
            "settings": np.array(
                [self.n, self.refresh_bars, self.memory_bars, self.prior_bars, self._bars],
                np.float64,
            ),
            "rank": rank.astype(np.float64),
            "vectors": np.ascontiguousarray(self._vectors[rank]),
            "moments": self._moments.copy(),
            "exposures": self._exposures.copy(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, F64]) -> Self:
        """Continue from what ``state`` returned."""
        n, refresh_bars, memory_bars, prior_bars, bars = state["settings"].tolist()
        order = np.argsort(state["rank"])
        cleaner = cls(int(n), int(refresh_bars), memory_bars, prior_bars, order)
        cleaner._bars = int(bars)
        cleaner._set_vectors(np.ascontiguousarray(state["vectors"][order]))
        cleaner._moments[:] = state["moments"]
        cleaner._exposures[:] = state["exposures"]
        return cleaner

    def _set_vectors(self, vectors: F64) -> None:
        self._vectors = vectors
        self._fourth = np.sum(vectors**4, axis=0)

    def _known(self, corr: F64) -> F64:
        canonical = in_order(corr, self._order)
        return np.where(np.isnan(canonical), 0.0, canonical)
