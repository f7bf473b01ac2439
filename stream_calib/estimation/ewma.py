"""EWMA correlation with exact warm-up, exposure for missing bars, and error bands."""

import math
from collections.abc import Mapping
from typing import Self

import numpy as np
import numpy.typing as npt

from stream_calib.estimation.protocol import Layout
from stream_calib.kernels.ewma import fold_returns, read_correlation
from stream_calib.kernels.ewma_complete import fold_complete, read_complete
from stream_calib.values import F64, I64, Correlation, ReturnBlock

CORRELATION_CAP = 1.0 - 1e-6  # a pair estimated at 1 has no band and no inverse
KAPPA_MAX = 3.0
ROUNDING = 1e-9  # differences of sums below this share of them say nothing
_APART = ("squares_i", "squares_j", "exposures", "exposures2")  # what complete bars share


class Ewma:
    """Exponentially weighted correlation of n symbols.

    Sums of products, squares and exposures decay together, so their ratios need no warm-up
    correction. A pair takes part in the bars where both returns are observed and span the same
    time, its correlation in the variances of those bars: it stays within one, and its error
    band holds whatever is missing. A NaN return is exposure that did not happen: with
    ``clock="observations"`` the pairs of that symbol stand still; with ``clock="time"`` they
    decay with the bar, as the engine wants it, which leaves their estimate as it is but makes
    room for news.

    Parameters
    ----------
    n
        Number of symbols.
    half_life_obs
        Age in bars at which an observation counts half.
    clock
        What ages an observation: later observations of the pair, or time.
    group : (n,), optional
        Group of each symbol, 0 to G - 1, where pairs of different markets age by different
        times: blocks then say how much passed for each two groups.

    Raises
    ------
    ValueError
        If ``n`` < 2, ``half_life_obs`` <= 0, the clock is unknown, or ``group`` is not one
        number from 0 on for each symbol.

    Notes
    -----
    The sums are five triangles of n (n + 1) / 2. Without groups, up to the first bar that is
    observed in part, one triangle says it all and is all that is kept; the bits are the same.

    References
    ----------
    RiskMetrics Technical Document, 4th ed. (1996), ch. 5.

    Examples
    --------
    >>> import numpy as np
    >>> ewma = Ewma(2, half_life_obs=60)
    >>> ewma.update(np.array([[0.01, 0.02], [-0.01, -0.02]]))
    >>> round(float(ewma.correlation().corr[0, 1]), 6)
    0.999999
    """

    LAYOUT = Layout(
        by_symbol={"fourth": 0.0, "group": 0.0},
        by_triangle=dict.fromkeys(("products", *_APART), 0.0),
        exchanged=(("squares_i", "squares_j"),),
    )

    def __init__(
        self, n: int, half_life_obs: float, clock: str = "observations", group: I64 | None = None
    ) -> None:
        if n < 2:
            message = f"n must be at least 2, not {n}"
            raise ValueError(message)
        if not half_life_obs > 0:
            message = f"half_life_obs must be positive, not {half_life_obs}"
            raise ValueError(message)
        if clock not in {"observations", "time"}:
            message = f"clock must be 'observations' or 'time', not {clock!r}"
            raise ValueError(message)
        self.n = n
        self.half_life_obs = float(half_life_obs)
        self.clock = clock
        self.group = None if group is None else checked_group(group, n)
        self._group = np.zeros(n, np.int64) if self.group is None else self.group
        size = n * (n + 1) // 2
        self._products = np.zeros(size)
        self._common = np.zeros(2)  # exposures of every pair, while all bars were complete
        # squares and exposures of each pair, once they differ; groups are open at other times
        self._apart = None if group is None else np.zeros((4, size))
        self._fourth = np.zeros((2, n))
        # bar by bar the same time mostly passes: its decays are kept, a third of a small update
        self._elapsed = math.nan
        self._seen = self._unseen = np.empty(0)

    def update(self, block: ReturnBlock | F64) -> None:
        """Fold k bars in.

        Parameters
        ----------
        block : (k, n)
            Returns in any unit, NaN where not observed; a bare array is one bar per row, each
            return spanning one bar.

        Raises
        ------
        ValueError
            If the block is of another width, or its time of other groups.
        """
        returns, exposure, elapsed = checked_rows(block, self.n)
        if elapsed.shape != (1,) or elapsed[0] != self._elapsed:
            passed = elapsed_by_group(elapsed, self.group)
            self._seen = np.exp2(-passed / self.half_life_obs)
            self._unseen = self._seen if self.clock == "time" else np.ones(passed.shape)
            self._elapsed = float(elapsed[0]) if elapsed.shape == (1,) else math.nan
        seen, unseen = self._seen, self._unseen
        if self._apart is None:
            rows = (returns, exposure, seen, unseen)
            done = fold_complete(*rows, self._products, self._common, self._fourth)
            if done == len(returns):
                return
            returns, exposure, seen, unseen = (column[done:] for column in rows)
            self._apart = self._pairs()
        squares_i, squares_j, exposures, exposures2 = self._apart
        fold_returns(
            returns,
            exposure,
            self._group,
            seen,
            unseen,
            self._products,
            squares_i,
            squares_j,
            exposures,
            exposures2,
            self._fourth,
        )

    def correlation(self) -> Correlation:
        """Return the correlation, equal to the forecast for the next bar.

        Returns
        -------
        Correlation
            Pairs never observed together are NaN.
        """
        corr = np.empty((self.n, self.n))
        n_eff = np.empty((self.n, self.n))
        vol = np.empty(self.n)
        if self._apart is None:
            capped = read_complete(self._products, self._common, CORRELATION_CAP, corr, n_eff, vol)
        else:
            squares_i, squares_j, exposures, exposures2 = self._apart
            capped = read_correlation(
                self._products,
                squares_i,
                squares_j,
                exposures,
                exposures2,
                CORRELATION_CAP,
                corr,
                n_eff,
                vol,
            )
        return Correlation(corr, vol, n_eff, self.kappa(), capped)

    def since(self, then: Mapping[str, F64], decay: float | F64) -> Correlation:
        """Return the correlation of what was folded in after a saved state.

            A(now) - D A(then) and likewise the other sums

        Parameters
        ----------
        then
            What ``state`` returned at that time.
        decay : a number or (n (n + 1) / 2,)
            D: the product of all decays of a pair since then.

        Raises
        ------
        ValueError
            If the clock is not ``time``: D would depend on what was observed.
        """
        if self.clock != "time":
            message = "since needs clock 'time'"
            raise ValueError(message)
        corr = np.empty((self.n, self.n))
        n_eff = np.empty((self.n, self.n))
        vol = np.empty(self.n)
        squares_i, squares_j, all_exposures, all_exposures2 = self._pairs()
        exposures = all_exposures - decay * then["exposures"]
        exposures2 = all_exposures2 - decay * decay * then["exposures2"]
        exposures2[exposures <= ROUNDING * all_exposures] = 0.0  # nothing observed since then
        capped = read_correlation(
            self._products - decay * then["products"],
            np.maximum(squares_i - decay * then["squares_i"], 0.0),
            np.maximum(squares_j - decay * then["squares_j"], 0.0),
            exposures,
            exposures2,
            CORRELATION_CAP,
            corr,
            n_eff,
            vol,
        )
        return Correlation(corr, vol, n_eff, self.kappa(), capped)

    def kappa(self) -> float:
        """Return excess kurtosis / 3 of the standardised returns, pooled, within [0, 3]."""
        # exact sums: the order of the symbols must not show in the last bit
        count = math.fsum(self._fourth[1])
        if count <= 0.0:
            return 0.0
        return min(KAPPA_MAX, max(0.0, math.fsum(self._fourth[0]) / count / 3.0 - 1.0))

    def state(self) -> dict[str, F64]:
        """Return copies of all arrays that make up the state."""
        return group_state(self.group) | {
            "settings": np.array([self.n, self.half_life_obs, self.clock == "time"], np.float64),
            "products": self._products.copy(),
            **{name: sums.copy() for name, sums in zip(_APART, self._pairs(), strict=True)},
            "fourth": self._fourth.copy(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, F64]) -> Self:
        """Continue from what ``state`` returned."""
        n, half_life_obs, timed = state["settings"]
        clock = "time" if timed else "observations"
        ewma = cls(int(n), float(half_life_obs), clock, saved_group(state))
        ewma._products[:] = state["products"]
        ewma._fourth[:] = state["fourth"]
        apart = np.stack([state[name] for name in _APART])
        common = apart[2:, 0].copy()
        if ewma.group is None and (apart == _spread_complete(int(n), ewma._products, common)).all():
            ewma._common = common
        else:
            ewma._apart = apart
        return ewma

    def _pairs(self) -> F64:
        if self._apart is None:
            return _spread_complete(self.n, self._products, self._common)
        return self._apart


def _spread_complete(n: int, products: F64, common: F64) -> F64:
    # squares and exposures (4, n (n + 1) / 2) of each pair after nothing but complete bars
    lengths = np.arange(n, 0, -1)
    diagonal = np.cumsum(lengths) - lengths
    column = np.arange(len(products)) - np.repeat(diagonal - np.arange(n), lengths)
    squares = products[diagonal]
    apart = np.empty((4, len(products)))
    apart[0], apart[1] = np.repeat(squares, lengths), squares[column]
    apart[2:] = common[:, None]
    return apart


def checked_rows(block: ReturnBlock | F64, n: int) -> tuple[F64, F64, F64]:
    """Return the returns (k, n), exposures and times of a block, or of one bar per row.

    Raises
    ------
    ValueError
        If the block is of another width.
    """
    if isinstance(block, ReturnBlock):
        returns, exposure, elapsed = block.returns, block.exposure, block.elapsed_bars
    else:
        returns = np.ascontiguousarray(block, np.float64)
        if returns.ndim == 1:
            returns = returns[None]
        if not returns.flags.writeable:  # as pandas hands it out, the kernel would not take it
            returns = returns.copy()
        exposure = (~np.isnan(returns)).astype(np.float64)
        elapsed = np.ones(len(returns))
    if returns.ndim != 2 or returns.shape[1] != n:
        message = f"a block is (k, {n}), not {returns.shape}"
        raise ValueError(message)
    return returns, exposure, elapsed


def checked_group(group: npt.ArrayLike, n: int) -> I64:
    """Return a copy of a group (n,) of symbols.

    Raises
    ------
    ValueError
        If it is not one number from 0 on for each symbol.
    """
    given = np.asarray(group)
    known = given.astype(np.int64)
    if known.shape != (n,) or (known != given).any() or known.min() < 0:
        message = f"group must be {n} numbers from 0 on, not {group!r}"
        raise ValueError(message)
    return known


def elapsed_by_group(elapsed: F64, group: I64 | None) -> F64:
    """Return the time that passed (k, G, G) for each two groups.

    Parameters
    ----------
    elapsed : (k,) or (k, G, G)
        As blocks have it; what is one number passed for all pairs.
    group : (n,), optional
        Without it all symbols are one group.

    Raises
    ------
    ValueError
        If there is time of other groups than the symbols'.
    """
    if group is None and elapsed.ndim == 1:
        return np.ascontiguousarray(elapsed).reshape(-1, 1, 1)
    n_groups = 1 if group is None else int(group.max()) + 1
    if elapsed.ndim == 1:
        spread = np.broadcast_to(elapsed[:, None, None], (len(elapsed), n_groups, n_groups))
        return np.ascontiguousarray(spread)
    beyond = elapsed.ndim == 3 and elapsed.shape[1] == elapsed.shape[2] >= n_groups
    if not beyond or (group is None and elapsed.shape[1] != 1):
        message = f"elapsed_bars is (k,) or (k, {n_groups}, {n_groups}), not {elapsed.shape}"
        raise ValueError(message)
    return np.ascontiguousarray(elapsed)


def saved_group(state: Mapping[str, F64]) -> I64 | None:
    """Return the group that a state names, if it names one."""
    return state["group"].astype(np.int64) if "group" in state else None


def group_state(group: I64 | None) -> dict[str, F64]:
    """Return the group as a part of a state, which has none for one without groups."""
    return {} if group is None else {"group": group.astype(np.float64)}
