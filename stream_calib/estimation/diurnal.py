"""The intraday pattern of volatility: what part of the day's variance belongs to which time."""

import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stream_calib.estimation.calendar import ALWAYS_OPEN, Calendar
from stream_calib.estimation.protocol import Layout
from stream_calib.kernels.diurnal import fold_days
from stream_calib.values import F64, I64, ReturnBlock

DAYS_MIN, DAYS_FULL = 2.0, 10.0  # before: flat; from then on: all that was found


class Diurnal:
    """Variance of returns by time of the trading day, as a multiple of the day's mean.

    Of each symbol and each bin of the trading day, squared returns per exposure in units of the
    day's own level are averaged over days with exponential weights, smoothed over neighbouring
    bins by a local parabola, and divided by their mean. A day counts from the next one on, so a
    factor never knows the day that it is for.

    Parameters
    ----------
    n
        Number of symbols, all on one calendar; one object per calendar.
    bin_ns
        Length of a bin; five minutes are usual.
    bar_ns
        Length of a bar of the blocks, at most ``bin_ns``.
    half_life_days
        Age in trading days at which a day counts half.
    calendar
        Says when the trading day begins and how long it is; without one it is that of UTC.
    smooth_bins
        Bins, an odd number, that a parabola is laid through; 1 for none.

    Raises
    ------
    ValueError
        If a length is not positive, ``bar_ns`` > ``bin_ns``, or ``smooth_bins`` is even, between
        1 and 5, or more than there are bins.

    Notes
    -----
    Factors are 1 until two days are known and are blended in until ten are; a day with fewer
    returns than bins counts by its share. State is five times n bins.

    References
    ----------
    Engle and Sokalska (2012) for daily x diurnal x intraday variance; Savitzky and Golay (1964).
    Equations at ``fold_days`` in ``kernels/diurnal``.
    """

    LAYOUT = Layout(by_symbol={"days": 0.0}, by_row={"sums": 0.0, "factor": 1.0})

    def __init__(
        self,
        n: int,
        bin_ns: int,
        bar_ns: int,
        half_life_days: float = 20.0,
        calendar: Calendar = ALWAYS_OPEN,
        smooth_bins: int = 7,
    ) -> None:
        if n < 1 or not 0 < bar_ns <= bin_ns or not half_life_days > 0:
            message = (
                "n and half_life_days must be positive and 0 < bar_ns <= bin_ns,"
                f" not {n}, {half_life_days}, {bar_ns}, {bin_ns}"
            )
            raise ValueError(message)
        length_ns = calendar.day_length_ns()
        n_bins = -(-length_ns // bin_ns)
        odd = smooth_bins % 2 == 1 and smooth_bins <= n_bins
        if not odd or not (smooth_bins == 1 or smooth_bins >= 5):
            message = f"smooth_bins must be 1 or odd, 5 to {n_bins}, not {smooth_bins}"
            raise ValueError(message)
        self.n = n
        self.bin_ns = bin_ns
        self.bar_ns = bar_ns
        self.half_life_days = float(half_life_days)
        self.calendar = calendar
        self.smooth_bins = smooth_bins
        begins_ns = bin_ns * np.arange(n_bins, dtype=np.int64)
        self._share = np.minimum(bin_ns, length_ns - begins_ns) / length_ns
        self._smoother, self._first = parabolas(n_bins, smooth_bins, around=calendar.is_round())
        self._last_day = np.full(1, -1, np.int64)
        self._days = np.zeros((2, n))
        self._sums = np.zeros((4, n, n_bins))
        self._factor = np.ones((n, n_bins))

    def update(self, block: ReturnBlock) -> F64:
        """Fold k bars in.

        Parameters
        ----------
        block : (k, n)
            In order of time.

        Returns
        -------
        (k, n)
            Factor of each return, from the days before its own: dividing the return by the root
            takes the pattern out. It is the same however the input is cut into blocks.

        Raises
        ------
        ValueError
            If the block is of another width.
        """
        if block.returns.shape[1:] != (self.n,):
            message = f"a block is (k, {self.n}), not {block.returns.shape}"
            raise ValueError(message)
        return self._fold(block.returns, block.exposure, block.time_ns)

    def factor(self, time_ns: I64) -> F64:
        """Return the factor (k, n) of bars that end at these times, and change nothing.

        Parameters
        ----------
        time_ns : (k,)
            Ascending, and of no earlier day than the last bar; a day that is over by then counts.
        """
        nothing = np.full((len(time_ns), self.n), np.nan)
        copy = self.from_state(self.state(), self.calendar)
        return copy.update(ReturnBlock(time_ns, nothing, np.zeros_like(nothing), nothing[:, 0]))

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return copies of all arrays that make up the state; the calendar is a setting."""
        settings = [self.n, self.bin_ns, self.bar_ns, self.half_life_days, self.smooth_bins]
        return {
            "settings": np.array(settings, np.float64),
            "last_day": self._last_day.copy(),
            "days": self._days.copy(),
            "sums": self._sums.copy(),
            "factor": self._factor.copy(),
        }

    @classmethod
    def from_state(
        cls, state: Mapping[str, npt.NDArray[Any]], calendar: Calendar = ALWAYS_OPEN
    ) -> Self:
        """Continue from what ``state`` returned, under the same calendar."""
        n, bin_ns, bar_ns, half_life_days, smooth_bins = (float(x) for x in state["settings"])
        own = cls(int(n), int(bin_ns), int(bar_ns), half_life_days, calendar, int(smooth_bins))
        own._last_day[:] = state["last_day"]
        own._days[:] = state["days"]
        own._sums[:] = state["sums"]
        own._factor[:] = state["factor"]
        return own

    def _fold(self, returns: F64, exposure: F64, time_ns: I64) -> F64:
        day, place_ns = self.calendar.place(time_ns - 1)  # a bar ends where the next begins
        out = np.empty(returns.shape)
        fold_days(
            returns,
            exposure,
            day,
            place_ns + 1,
            float(self.bar_ns),
            self.bin_ns,
            math.exp2(-1.0 / self.half_life_days),
            DAYS_MIN,
            DAYS_FULL,
            self._smoother,
            self._first,
            self._share,
            self._last_day,
            self._days,
            self._sums,
            self._factor,
            out,
        )
        return out


def parabolas(n_bins: int, width: int, *, around: bool) -> tuple[F64, I64]:
    """Return weights (n_bins, width) that lay a parabola through each bin's neighbours.

        w_u(v) = 1 / m + u v / sum u^2 + (u^2 - a)(v^2 - a) / sum (u^2 - a)^2,  a = sum u^2 / m

    for m bins at u = -(m - 1) / 2 .. (m - 1) / 2, read at v: in the middle, or where the bin is
    in the first or the last m; ``around`` lets the last bin be the first's neighbour.

    Returns
    -------
    weights, first
        Row b weighs the bins first[b], first[b] + 1, ...
    """
    half = width // 2
    bins = np.arange(n_bins, dtype=np.int64)
    first = bins - half
    if not around:
        first = np.clip(first, 0, n_bins - width)
    u = np.arange(-half, half + 1, dtype=np.float64)
    v = (bins - first - half).astype(np.float64)[:, None]
    weights = np.full((n_bins, width), 1.0 / width)
    if width > 1:
        a = float((u * u).sum()) / width
        bent = u * u - a
        weights += u * v / (u * u).sum() + bent * (v * v - a) / (bent * bent).sum()
    return weights, first % n_bins
