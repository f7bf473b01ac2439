"""How far the truth has moved since the data of an estimate: the rest of its error band."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, Self

import numpy as np

from stream_calib.estimation.ewma import CORRELATION_CAP
from stream_calib.estimation.protocol import Estimator, Layout
from stream_calib.estimation.two_scale import TwoScale, TwoScaleCorrelation
from stream_calib.values import F64, I64, Correlation, ReturnBlock

BLOCK_AGES = 0.25  # length of a block in mean ages of an observation
BLOCK_OBS = 8.0  # and at least so many observations, or a block is mostly noise
WARM_HALF_LIVES = 4.0  # before that an estimate is younger than it will be
BLOCKS_MIN = 20
N_EFF_MIN = 4.0  # of a pair, in the estimate and in a block
SHARE_MIN = 0.5  # of the observations in a block that the best pair has


class Trackable(Estimator, Protocol):
    """An estimator of which the part since a saved state can be read."""

    n: int
    half_life_obs: float
    clock: str
    group: I64 | None

    def since(self, then: Mapping[str, F64], decay: float | F64) -> Correlation:
        """Return the correlation of what was folded in after a saved state."""


class Tracking:
    """Tracking error of an estimator, from how its estimates compare with what came next.

    The band of an estimate is the error of a sample from a truth that stands still. The truth
    moves, and the estimate is of an average of the past. So at each end of a block of bars the
    block's own correlation, which shares no return with the estimate before it, is compared
    with that estimate and with the block before it:

        V = (r_block - r_before)^2 - (r_block - r_last)^2 / 2
        T^2 = mean of (V - band_before^2) / c^2,  c = 1 - r_before^2 n_eff / (n_eff + 1)
        band_total^2 = band^2 + (1 - corr^2)^2 max(T^2, 0)

    The first square holds the errors of the estimate and of the block, both against the truth
    between them; the second twice that of a block. Where the truth moves as a random walk, V
    is what the estimate is wrong by, whatever tails and noise do to sampling. Means are over
    blocks with a long memory and over all pairs, weighted by observations and c; a pair has as
    much of its own as the spread between pairs exceeds chance.

    Parameters
    ----------
    n
        Number of symbols.
    half_life_obs
        That of the estimator.
    block_bars
        Length of a block in bars of trading time; ``choose_block_bars`` says how long.
    half_life_blocks
        Age in blocks at which a comparison counts half.

    Raises
    ------
    ValueError
        If ``n`` < 2, or a half-life or ``block_bars`` is not positive and finite.

    Notes
    -----
    If correlations return to a mean, T^2 is too small by up to twice the block's length in
    units of the time of return. Few pairs that move among many that do not are drawn towards
    the others. A pair that could not be compared yet has the T of all.

    Keeps a copy of the estimator's state, and five triangles of n (n - 1) / 2. A block costs
    one copy and two readings; a bar costs nothing.
    """

    LAYOUT = Layout(by_pair={"last": math.nan, "sums": 0.0}, nested=("then", TwoScale.LAYOUT))

    def __init__(
        self, n: int, half_life_obs: float, block_bars: float, half_life_blocks: float = 200.0
    ) -> None:
        if n < 2:
            message = f"n must be at least 2, not {n}"
            raise ValueError(message)
        for name, number in (
            ("half_life_obs", half_life_obs),
            ("block_bars", block_bars),
            ("half_life_blocks", half_life_blocks),
        ):
            if not (number > 0.0 and math.isfinite(number)):
                message = f"{name} must be positive, not {number}"
                raise ValueError(message)
        self.n = n
        self.half_life_obs = float(half_life_obs)
        self.block_bars = float(block_bars)
        self.half_life_blocks = float(half_life_blocks)
        self._then: dict[str, F64] = {}
        self._bars = np.zeros(3)  # trading time in all, in this block; blocks compared
        self._last = np.full(n * (n - 1) // 2, np.nan)  # correlations of the block before
        self._sums = np.zeros((4, n * (n - 1) // 2))
        self._passed = np.zeros((1, 1))  # since the block began, for each two groups
        self._error: F64 | None = None  # follows from the sums; kept until they change

    def update(self, estimator: Trackable, block: ReturnBlock) -> None:
        """Fold k bars into the estimator, and compare at each end of a block.

        Parameters
        ----------
        estimator
            Always the same one, with ``clock="time"``, which nobody else updates.
        block : (k, n)
            Its next bars.

        Raises
        ------
        ValueError
            If the estimator is of another size, half-life or clock.
        """
        if (estimator.n, estimator.half_life_obs, estimator.clock) != (
            self.n,
            self.half_life_obs,
            "time",
        ):
            message = f"the estimator must have n {self.n}, half_life_obs {self.half_life_obs}"
            raise ValueError(message + " and clock 'time'")
        elapsed = block.elapsed_bars
        if elapsed.ndim == 1:
            elapsed = elapsed[:, None, None]
        for start, stop, ends in self._cut(elapsed):
            estimator.update(block.rows(start, stop))
            if ends:
                self._compare(estimator)

    def tracking_error(self) -> F64 | None:
        """Return T (n, n) as error of Fisher's z, 0 on the diagonal; None while not known."""
        if self._bars[2] < BLOCKS_MIN:
            return None
        if self._error is None:
            rows, columns = np.triu_indices(self.n, 1)
            error = np.zeros((self.n, self.n))
            error[rows, columns] = error[columns, rows] = np.sqrt(np.maximum(self._shrunk(), 0.0))
            self._error = error
        return self._error.copy()

    def band_total(self, corr: F64, band: F64, cut: tuple[Any, ...] = ()) -> F64 | None:
        """Return the standard error of sampling and tracking; None while not known.

        Parameters
        ----------
        corr, band : (n, n)
            An estimate and its standard error of sampling.
        cut
            Where they stand in (n, n), as ``np.ix_`` gives it; everywhere by default.
        """
        error = self.tracking_error()
        return None if error is None else band_total(corr, band, error[cut])

    def state(self) -> dict[str, F64]:
        """Return copies of all arrays that make up the state."""
        settings = [self.n, self.half_life_obs, self.block_bars, self.half_life_blocks]
        return {
            "settings": np.array(settings, np.float64),
            "bars": self._bars.copy(),
            "last": self._last.copy(),
            "sums": self._sums.copy(),
            "passed": self._passed.copy(),
        } | {f"then.{name}": array.copy() for name, array in self._then.items()}

    @classmethod
    def from_state(cls, state: Mapping[str, F64]) -> Self:
        """Continue from what ``state`` returned."""
        n, half_life_obs, block_bars, half_life_blocks = (float(x) for x in state["settings"])
        tracking = cls(int(n), half_life_obs, block_bars, half_life_blocks)
        tracking._bars[:] = state["bars"]
        tracking._last[:] = state["last"]
        tracking._sums[:] = state["sums"]
        tracking._passed = state["passed"].copy()
        tracking._then = {
            name.removeprefix("then."): array.copy()
            for name, array in state.items()
            if name.startswith("then.")
        }
        return tracking

    def _cut(self, elapsed_bars: F64) -> Iterator[tuple[int, int, bool]]:
        # rows [start, stop) up to the end of a block, or of the input
        start = 0
        if self._passed.shape != elapsed_bars.shape[1:]:
            self._passed = np.zeros(elapsed_bars.shape[1:])
        # a block is as long as the market that is open longest
        for t, elapsed in enumerate(elapsed_bars.max(axis=(1, 2)).tolist()):
            self._bars[:2] += elapsed
            self._passed += elapsed_bars[t]
            if self._then:
                ends = self._bars[1] >= self.block_bars
            else:
                ends = self._bars[0] >= WARM_HALF_LIVES * self.half_life_obs
            if ends:
                yield start, t + 1, True
                start = t + 1
        if start < len(elapsed_bars):
            yield start, len(elapsed_bars), False

    def _compare(self, estimator: Trackable) -> None:
        if self._then:
            group = estimator.group
            group = np.zeros(self.n, np.int64) if group is None else group
            rows, columns = np.triu_indices(self.n)
            # one by one: an array function rounds by where an entry stands
            ages = (self._passed / self.half_life_obs).tolist()
            decays = np.array([[2.0**-age for age in row] for row in ages])
            before = type(estimator).from_state(self._then).correlation()
            after = estimator.since(self._then, decays[group[rows], group[columns]])
            self._fold(before, after)
        self._then = estimator.state()
        self._bars[1] = 0.0
        self._passed[...] = 0.0

    def _fold(self, before: Correlation, after: Correlation) -> None:
        pairs = np.triu_indices(self.n, 1)
        n_before, n_after = before.n_eff[pairs], after.n_eff[pairs]
        least = max(N_EFF_MIN, SHARE_MIN * n_after.max(initial=0.0))
        known = (n_before >= N_EFF_MIN) & (n_after >= least)
        after_corr = np.where(known, after.corr[pairs], np.nan)
        last, self._last = self._last, after_corr
        known = known & ~np.isnan(last) & (np.abs(before.corr[pairs]) < CORRELATION_CAP)
        if not known.any():
            return
        before_corr = np.where(known, before.corr[pairs], 0.0)
        # of few observations no correlation is known to be next to 1
        slope = 1.0 - before_corr * before_corr * (n_before / (n_before + 1.0))
        apart = (after_corr - before_corr) ** 2 - 0.5 * (after_corr - last) ** 2
        band = sampling_band(before)[pairs]
        moved = np.where(known, (apart - band * band) / (slope * slope), 0.0)
        weight = np.zeros(known.shape)
        weight[known] = slope[known] / (1.0 / n_before[known] + 1.0 / n_after[known])
        kept = 2.0 ** (-1.0 / self.half_life_blocks)
        sums = self._sums
        sums[0] = kept * sums[0] + weight * moved
        sums[1] = kept * sums[1] + weight
        sums[2] = kept * kept * sums[2] + weight * weight
        sums[3] = kept * sums[3] + weight * moved * moved
        self._bars[2] += 1.0
        self._error = None

    def _shrunk(self) -> F64:
        # T^2 of each pair, drawn to that of all by how much of the spread is chance
        moved, weights, weights2, squares = self._sums
        # exact sums: the order of the symbols must not show in the last bit
        total = math.fsum(weights.tolist())
        pooled = math.fsum(moved.tolist()) / total
        seen = weights > 0.0
        weight = np.where(seen, weights, 1.0)
        own = np.where(seen, moved / weight, pooled)
        within = math.fsum((squares - weights * own * own).tolist()) / total
        chance = within * weights2 / (weight * weight)
        apart = weights * ((own - pooled) ** 2 - chance)
        spread = math.fsum(apart.tolist()) / total
        if not spread > 0.0:
            return np.full(moved.shape, pooled)
        shrunk: F64 = pooled + np.where(seen, spread / (spread + chance), 0.0) * (own - pooled)
        return shrunk


def choose_block_bars(half_life_obs: float, k: int = 1) -> float:
    """Choose the length of a block of ``Tracking``, in bars.

        max(half_life_obs / (4 ln 2), 8 (2 k^2 + 1) / (3 k))

    A quarter of the mean age of an observation, short against the time in which correlations
    return to their mean; and at least eight observations.

    Parameters
    ----------
    half_life_obs
        That of the estimator.
    k
        Bars per window of ``TwoScale``; 1 for ``Ewma``.
    """
    bars_per_obs = (2.0 * k * k + 1.0) / (3.0 * k)
    return max(BLOCK_AGES * half_life_obs / math.log(2.0), BLOCK_OBS * bars_per_obs)


def sampling_band(known: Correlation) -> F64:
    """Return the standard error (n, n) of an estimate by sampling alone, NaN where unknown."""
    if isinstance(known, TwoScaleCorrelation):
        return known.band
    n_eff = np.where(known.n_eff > 0.0, known.n_eff, np.nan)
    band: F64 = (1.0 - known.corr * known.corr) * np.sqrt((1.0 + known.kappa) / n_eff)
    return band


def band_total(corr: F64, band: F64, error: F64) -> F64:
    """Return the standard error of sampling and tracking, (n, n) as the arguments.

    ``error`` is what ``Tracking.tracking_error`` returns.
    """
    total: F64 = np.sqrt(band * band + ((1.0 - corr * corr) * error) ** 2)
    return total
