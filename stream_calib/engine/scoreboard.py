"""Scores of what was published by the DCC bars that came next."""

from dataclasses import dataclass, field

import numpy as np

from stream_calib.estimation.scoring import Judged, count_covered, judge
from stream_calib.values import F64, Matrix, Score

BLOCK_BARS = 60  # over which correlations are realised, to be held against bands
KEPT = 0.5 ** (1.0 / 250.0)  # means forget half in 250 bars


@dataclass
class _Tally:
    # Of one estimator: means of its scores, and the block that its bands wait for.
    matrix: Matrix | None = None
    blocks: F64 = field(default_factory=lambda: np.empty((3, 0, 0)))  # products, squares, rows
    bars: int = 0
    sums: F64 = field(default_factory=lambda: np.zeros(3))
    weight: float = 0.0

    def mean(self, found: Judged) -> tuple[float, float, float]:
        self.sums = KEPT * self.sums + np.array(found)
        self.weight = KEPT * self.weight + 1.0
        gain, qlike, surprise = (self.sums / self.weight).tolist()
        return gain, qlike, surprise

    def cover(self, matrix: Matrix, z: F64) -> tuple[int, int]:
        """Take a bar in; return pairs covered and pairs in all, at the end of a block."""
        if self.matrix is None or self.matrix.symbols != matrix.symbols:
            n = len(matrix.symbols)
            self.matrix, self.bars = matrix, 0
            self.blocks = np.zeros((3, n, n))
        seen = np.isfinite(z)
        filled = np.where(seen, z, 0.0)
        products, squares, rows = self.blocks
        products += np.multiply.outer(filled, filled)
        squares += np.multiply.outer(filled * filled, seen)
        rows += np.multiply.outer(seen, seen)
        self.bars += 1
        if self.bars < BLOCK_BARS:
            return 0, 0
        said, self.matrix = self.matrix, None
        # the bounds that a subscriber is given
        band = said.band if said.band_total is None else said.band_total
        return count_covered(said.corr, band, products, squares, rows)


class Scoreboard:
    """Holds each DCC bar against what every estimator had published when it began.

    All are judged by the same returns. It is for whoever watches: nothing that is published
    depends on it, it is no state, and begins anew with each start.

    Parameters
    ----------
    symbols
        The universe's.
    """

    def __init__(self, symbols: tuple[str, ...]) -> None:
        self._places = {symbol: i for i, symbol in enumerate(symbols)}
        self._rank = np.argsort(np.argsort(np.array(symbols)))  # of each name among all
        self._closed_ns = 0  # end of the last bar
        self._begun: dict[str, Matrix] = {}  # known when the open bar began
        self._newest: dict[str, Matrix] = {}
        self._tallies: dict[str, _Tally] = {}

    def publish(self, matrix: Matrix) -> None:
        """Let a matrix be judged by the bars that begin from its time on."""
        which = self._begun if matrix.as_of_ns <= self._closed_ns else self._newest
        which[matrix.estimator] = matrix

    def close(self, end_ns: int, returns: F64, bar_ns: int) -> list[Score]:
        """Judge what was known when a bar of length ``bar_ns`` began.

        ``returns`` (n,) are in the currency of the matrices, NaN where not observed, or where
        they are of more than that bar.
        """
        scores = []
        for name, matrix in self._begun.items():
            places = [self._places[symbol] for symbol in matrix.symbols]
            own = returns[places]
            vol = matrix.vol * np.sqrt(bar_ns / matrix.horizon_ns)
            found = judge(matrix.corr, vol, own, np.argsort(self._rank[places]))
            if found is not None:
                tally = self._tallies.setdefault(name, _Tally())
                scores.append(Score(name, *tally.mean(found), *tally.cover(matrix, own / vol)))
        self._closed_ns = end_ns
        self._begun |= self._newest
        self._newest = {}
        return scores
