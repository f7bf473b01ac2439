"""Two-scale EWMA: correlation of ticks that come at different times and carry noise."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from stream_calib.estimation.ewma import (
    CORRELATION_CAP,
    KAPPA_MAX,
    ROUNDING,
    Ewma,
    checked_group,
    checked_rows,
    elapsed_by_group,
    group_state,
    saved_group,
)
from stream_calib.estimation.protocol import Layout
from stream_calib.kernels.two_scale import fold_windows, read_own
from stream_calib.kernels.two_scale_reading import read_windows
from stream_calib.values import F64, I64, Correlation, ReturnBlock

WINDOW_S_MIN = 60.0
TICKS_PER_WINDOW = 3.0
LAGS_PER_WINDOW = 20.0


@dataclass(frozen=True, slots=True)
class StampedBlock(ReturnBlock):
    """Sampled returns of k bars, and when within its bar each price was made.

    ``age`` (k, n) is the time from a symbol's last tick in the bar to the end of the bar, in
    bars, in [0, 1). It is NaN without a tick; a tick without a return (the first, or the first
    after a break) has an age too.
    """

    age: F64

    def rows(self, start: int, stop: int) -> "StampedBlock":
        """Cut the rows [start, stop) out."""
        return StampedBlock(
            self.time_ns[start:stop],
            self.returns[start:stop],
            self.exposure[start:stop],
            self.elapsed_bars[start:stop],
            self.age[start:stop],
        )


@dataclass(frozen=True, slots=True)
class TwoScaleCorrelation(Correlation):
    """A correlation with what it rests on.

    ``band`` (n, n) is the standard error of ``corr``, which asynchrony and noise widen beyond
    what ``n_eff`` says: ``n_eff`` counts windows by the time they share, and is the right
    measure for readiness. Of the n variances, ``raw_variances`` keep their noise, because too
    little would be left without it, and ``floored_variances`` are held at their floor.
    """

    band: F64
    raw_variances: int
    floored_variances: int


class TwoScale:
    """Exponentially weighted correlation from overlapping windows of k bars.

    A window's return runs from the last tick before it to the last tick in it. The product of
    two symbols' returns is set against the time that their windows have in common, so
    asynchrony (the Epps effect) does not bias the covariance; variances are compared between
    windows and single bars, which takes out noise that is independent from tick to tick. It is
    unbiased under these two; lead-lag of L seconds asks for windows of 20 L. With one bar per
    window there is one scale: exactly ``Ewma``.

    A symbol without a tick keeps its price; after k bars its windows are empty and its pairs
    stand still (``clock="observations"``) or only age (``clock="time"``, as the engine wants
    it). A first return, or one that does not follow on the one before, begins a new window.
    With groups, the windows of a market slide, and pairs age, in the time that it is open: the
    estimates within one do not depend on whether another is in the universe.

    Parameters
    ----------
    n
        Number of symbols.
    half_life_obs
        Age in bars at which a window counts half.
    k
        Bars per window; ``choose_k`` says how many.
    clock
        What ages a pair: bars in which its windows overlap, or time.
    group : (n,), optional
        Group of each symbol, 0 to G - 1, where markets differ: blocks then say how much time
        passed for each two groups.

    Raises
    ------
    ValueError
        If ``n`` < 2, ``half_life_obs`` <= 0, ``k`` < 1, the clock is unknown, or ``group`` is not
        one number from 0 on for each symbol.

    Notes
    -----
    Correlations may miss positive definiteness: variances and covariances are of two scales.
    State is three triangles of n (n + 1) / 2, and 2 k n for the windows.

    References
    ----------
    Zhang, Mykland and Ait-Sahalia (2005) for two scales; Hayashi and Yoshida (2005) for common
    time. Equations at ``fold_windows`` and ``read_windows`` in ``kernels/two_scale``.

    Examples
    --------
    >>> import numpy as np
    >>> two_scale = TwoScale(2, half_life_obs=600, k=12)
    >>> common, own = np.random.default_rng(1).normal(size=(2, 4000, 2))
    >>> two_scale.update(common[:, :1] + own)
    >>> known = two_scale.correlation()
    >>> bool(abs(known.corr[0, 1] - 0.5) < 2 * known.band[0, 1])
    True
    """

    LAYOUT = Layout(
        by_symbol={**Ewma.LAYOUT.by_symbol, **dict.fromkeys(("windows", "marks", "own"), 0.0)},
        by_triangle={**Ewma.LAYOUT.by_triangle, "sums": 0.0},
        exchanged=Ewma.LAYOUT.exchanged,
    )

    def __init__(
        self,
        n: int,
        half_life_obs: float,
        k: int = 12,
        clock: str = "observations",
        group: I64 | None = None,
    ) -> None:
        if n < 2:
            message = f"n must be at least 2, not {n}"
            raise ValueError(message)
        if not half_life_obs > 0:
            message = f"half_life_obs must be positive, not {half_life_obs}"
            raise ValueError(message)
        if k < 1:
            message = f"k must be at least 1, not {k}"
            raise ValueError(message)
        if clock not in {"observations", "time"}:
            message = f"clock must be 'observations' or 'time', not {clock!r}"
            raise ValueError(message)
        self.n = n
        self.half_life_obs = float(half_life_obs)
        self.k = int(k)
        self.clock = clock
        self.group = None if group is None else checked_group(group, n)
        self._group = np.zeros(n, np.int64) if self.group is None else self.group
        self._single = Ewma(n, half_life_obs, clock, group) if k == 1 else None
        size = n * (n + 1) // 2 if k > 1 else 0
        self._sums = np.zeros((3, size))
        self._windows = np.zeros((2, self.k, n))
        self._marks = np.zeros((2, n))
        self._own = np.zeros((4, n))
        self._fourth = np.zeros((2, n))
        self._position = np.zeros(int(self._group.max()) + 2)
        self._decay_empty = self._decays(np.ones(1))
        # bar by bar the same time mostly passes; what follows from it is half of a small update
        self._elapsed, self._timing = 1.0, self._timed(np.ones(1))

    def update(self, block: ReturnBlock | F64) -> None:
        """Fold k bars in.

        Parameters
        ----------
        block : (k, n)
            Returns in any unit, NaN where not observed. In a bare array each return spans one
            bar. Unless the block is stamped, prices count as made at the end of their bars,
            which is nearly right for symbols that tick in most bars.

        Raises
        ------
        ValueError
            If the block is of another width, or its time of other groups.
        """
        if self._single is not None:
            self._single.update(block)
            return
        returns, exposure, elapsed = checked_rows(block, self.n)
        if isinstance(block, StampedBlock):
            age = block.age
        else:
            age = np.where(np.isnan(returns) | ~(exposure > 0.0), np.nan, 0.0)
        if elapsed.shape != (1,) or elapsed[0] != self._elapsed:
            self._timing = self._timed(elapsed)
            self._elapsed = float(elapsed[0]) if elapsed.shape == (1,) else math.nan
        empty, passed, decay = self._timing
        fold_windows(
            returns,
            exposure,
            age,
            self._group,
            empty,
            passed,
            decay,
            self._decay_empty,
            self._position,
            self._windows,
            self._marks,
            self._sums,
            self._own,
            self._fourth,
        )

    def correlation(self) -> TwoScaleCorrelation:
        """Return the correlation, equal to the forecast for the next bar.

        Returns
        -------
        TwoScaleCorrelation
            Pairs whose windows never overlapped are NaN.
        """
        if self._single is not None:
            return _banded(self._single.correlation())
        return self._read(self._sums, self._own)

    def since(self, then: Mapping[str, F64], decay: float | F64) -> TwoScaleCorrelation:
        """Return the correlation of the windows that ended after a saved state.

        The first k - 1 of them began before it.

        Parameters
        ----------
        then
            What ``state`` returned at that time.
        decay : a number or (n (n + 1) / 2,)
            The product of all decays of a pair since then, that of a symbol on the diagonal.

        Raises
        ------
        ValueError
            If the clock is not ``time``: the decay would depend on what was observed.
        """
        if self._single is not None:
            return _banded(self._single.since(then, decay))
        if self.clock != "time":
            message = "since needs clock 'time'"
            raise ValueError(message)
        decays = np.broadcast_to(decay, self._sums.shape[1:])
        rows = np.arange(self.n)
        sums = self._sums - np.stack([decays, decays, decays * decays]) * then["sums"]
        sums[1:, sums[1] <= ROUNDING * self._sums[1]] = 0.0  # nothing observed since then
        own = self._own - decays[rows * self.n - rows * (rows - 1) // 2] * then["own"]
        return self._read(sums, own)

    def _read(self, sums: F64, own: F64) -> TwoScaleCorrelation:
        corr, n_eff, band = np.empty((3, self.n, self.n))
        vol, facts = np.empty(self.n), np.empty((7, self.n))
        kappa = self.kappa()
        raw, floored = read_own(sums, own, float(self.k), facts)
        capped = read_windows(sums, facts, self.k, kappa, CORRELATION_CAP, corr, n_eff, band, vol)
        return TwoScaleCorrelation(corr, vol, n_eff, kappa, capped, band, raw, floored)

    def kappa(self) -> float:
        """Return excess kurtosis / 3 of the standardised windows, pooled, within [0, 3]."""
        if self._single is not None:
            return self._single.kappa()
        # exact sums: the order of the symbols must not show in the last bit
        count = math.fsum(self._fourth[1])
        if count <= 0.0:
            return 0.0
        return min(KAPPA_MAX, max(0.0, math.fsum(self._fourth[0]) / count / 3.0 - 1.0))

    def state(self) -> dict[str, F64]:
        """Return copies of all arrays that make up the state."""
        settings = [self.n, self.half_life_obs, self.clock == "time", self.k]
        known = {"settings": np.array(settings, np.float64)} | group_state(self.group)
        if self._single is not None:
            return self._single.state() | known
        return known | {name: array.copy() for name, array in self._arrays().items()}

    @classmethod
    def from_state(cls, state: Mapping[str, F64]) -> Self:
        """Continue from what ``state`` returned."""
        n, half_life_obs, timed, k = state["settings"]
        clock = "time" if timed else "observations"
        two_scale = cls(int(n), float(half_life_obs), int(k), clock, saved_group(state))
        if two_scale._single is not None:
            two_scale._single = Ewma.from_state({**state, "settings": state["settings"][:3]})
        else:
            for name, array in two_scale._arrays().items():
                array[...] = state[name]
        return two_scale

    def _arrays(self) -> dict[str, F64]:
        return {
            "sums": self._sums,
            "windows": self._windows,
            "marks": self._marks,
            "own": self._own,
            "fourth": self._fourth,
            "position": self._position,
        }

    # empty bars before each row, time that passed, and weights on the past without empty bars
    def _timed(self, elapsed: F64) -> tuple[I64, F64, F64]:
        n_groups = len(self._position) - 1
        elapsed = elapsed_by_group(elapsed, self.group)[:, :n_groups, :n_groups]
        # an empty bar slides the windows on; after k of them there is nothing left to slide
        empty = np.clip(np.rint(elapsed) - 1.0, 0.0, self.k)
        left_out = np.where(elapsed > 0.0, empty, -1.0).astype(np.int64)
        return left_out, elapsed.max(axis=(1, 2)), self._decays(elapsed - empty)

    # weights on the past over so many bars, for pairs whose windows overlap and for the others
    def _decays(self, bars: F64) -> F64:
        seen = np.exp2(-bars / self.half_life_obs)
        unseen = seen if self.clock == "time" else np.ones_like(seen)
        return np.stack([seen, unseen], axis=1)


def _banded(known: Correlation) -> TwoScaleCorrelation:
    n_eff = np.where(known.n_eff > 0.0, known.n_eff, np.nan)
    band = (1.0 - known.corr * known.corr) * np.sqrt((1.0 + known.kappa) / n_eff)
    np.fill_diagonal(band, 0.0)
    return TwoScaleCorrelation(
        known.corr, known.vol, known.n_eff, known.kappa, known.capped, band, 0, 0
    )


def choose_k(rates_hz: npt.ArrayLike, bar_s: float, lead_lag_s: float = 0.0) -> int:
    """Choose how many bars a window of ``TwoScale`` has.

        k = ceil(max(60 s, 3 / least rate, 20 lead_lag_s) / bar_s)

    Windows of a minute leave the noise of single ticks small beside the signal; three ticks per
    window are what the slowest symbol needs to have windows in common with others; what one
    symbol leads another by is lost from the window. Longer windows are fewer: bands grow with
    the square root of k. So the clock should be fine, a bar of 1 to 5 s, about as long as the
    faster symbols take to tick: shorter bars cost time and hold nothing, longer ones lose
    overlap. Bars of a minute and more on symbols that tick in most of them give k = 1, which is
    ``Ewma``. For a live engine ``clock="time"``: a symbol that stopped ticking should make room
    for news.

    Parameters
    ----------
    rates_hz : (n,)
        Mean ticks per second of each symbol, while its market is open.
    bar_s
        Length of a bar.
    lead_lag_s
        Largest time by which one symbol is known to lead another.

    Raises
    ------
    ValueError
        If a rate or ``bar_s`` is not positive, or ``lead_lag_s`` is negative.

    Examples
    --------
    >>> choose_k([2.0, 0.5, 0.1], bar_s=5.0)
    12
    >>> choose_k([2.0, 0.5, 0.01], bar_s=5.0)
    60
    """
    rates = np.asarray(rates_hz, dtype=np.float64)
    if not (rates.size and (rates > 0.0).all() and np.isfinite(rates).all()):
        message = f"rates_hz must be positive, not {rates_hz!r}"
        raise ValueError(message)
    if not (bar_s > 0.0 and math.isfinite(bar_s)):
        message = f"bar_s must be positive, not {bar_s}"
        raise ValueError(message)
    if not (lead_lag_s >= 0.0 and math.isfinite(lead_lag_s)):
        message = f"lead_lag_s must be at least 0, not {lead_lag_s}"
        raise ValueError(message)
    slowest_s = TICKS_PER_WINDOW / float(rates.min())
    window_s = max(WINDOW_S_MIN, slowest_s, LAGS_PER_WINDOW * lead_lag_s)
    return math.ceil(window_s / bar_s * (1.0 - 1e-12))  # 60 / 0.1 is not exactly 600


def find_too_slow(rates_hz: npt.ArrayLike, bar_s: float, k: int) -> I64:
    """Return the indices of symbols with fewer than three ticks per window of k bars.

    Their pairs are still unbiased, but scatter, and a variance may keep its noise.

    Parameters
    ----------
    rates_hz : (n,)
        Mean ticks per second of each symbol; 0 for one that never ticked.
    bar_s
        Length of a bar.
    k
        Bars per window.
    """
    rates = np.asarray(rates_hz, dtype=np.float64)
    return np.flatnonzero(rates * (k * bar_s) < TICKS_PER_WINDOW * (1.0 - 1e-12))
