"""Volatility of each asset bar by bar, by GARCH(1,1) where there is a fit, and what it leaves."""

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from stream_calib.estimation.protocol import Layout
from stream_calib.estimation.winsor import (
    LIMIT_MAX,
    LIMIT_MIN,
    POOL_HALF_LIVES,
    check_memory,
    tail_tables,
)
from stream_calib.kernels.garch import WARM_N_EFF, advance_variances
from stream_calib.kernels.winsor import read_rescale
from stream_calib.values import F64, GarchParams, ReturnBlock

RECURSION = ("mu", "omega", "alpha", "beta", "gamma")
Block = TypeVar("Block", bound=ReturnBlock)


class GarchVolatility:
    """Predictive variance of n assets, and returns standardised by it.

    Until parameters are installed, and for assets without them, the variance is a weighted mean
    of squared returns per bar; then it follows h' = omega + (alpha + gamma 1{e < 0}) e^2 +
    beta h. What standardises a return never contains it. A return over m bars counts as r^2 / m;
    a bar without one moves h to its forecast.

    With a cap, standardised returns are winsorised at ``cap``, and so are the shocks that the
    variances take in: after one bad tick every number is that of a run in which it was a return
    at the cap. What capping takes off E[z^2] = 1 is given back by a factor, read as ``Winsor``
    reads it off the frequencies of returns beyond the cap and beyond two thirds of it. Caps in
    short order widen what a variance may take in, so that a real change is followed.

    Parameters
    ----------
    n
        Number of assets.
    half_life_obs
        Age in observations of the asset at which a square counts half, without a fit.
    cap
        Standard deviations, 2 to 10; 0 for none.

    Raises
    ------
    ValueError
        If ``n`` < 1, ``half_life_obs`` < 10 or the cap is neither 0 nor in [2, 10].

    References
    ----------
    Equations at ``advance_variances`` in ``kernels/garch``.

    Examples
    --------
    >>> import numpy as np
    >>> volatility = GarchVolatility(1, half_life_obs=20)
    >>> returns = np.resize([0.5, -0.5], (60, 1))
    >>> block = ReturnBlock(np.arange(60), returns, np.ones((60, 1)), np.ones(60))
    >>> z = volatility.standardise(block).returns
    >>> float(z[-1, 0]), volatility.variance()
    (-1.0, array([0.25]))
    """

    LAYOUT = Layout(by_symbol={"params": math.nan, "variance": math.nan, "sums": 0.0, "score": 0.0})

    def __init__(self, n: int, half_life_obs: float, cap: float = 0.0) -> None:
        check_memory(n, half_life_obs)
        if cap != 0.0 and not LIMIT_MIN <= cap <= LIMIT_MAX:
            message = f"cap must be 0 or from {LIMIT_MIN:g} to {LIMIT_MAX:g}, not {cap}"
            raise ValueError(message)
        self.n = n
        self.half_life_obs = float(half_life_obs)
        self.cap = float(cap)
        self._prior, self._tails = tail_tables(self.cap or LIMIT_MIN)
        self._params = np.full((len(RECURSION), n), np.nan)
        self._variance = np.full(n, np.nan)  # of the next bar, where there is a fit
        self._sums = np.zeros((3, n))
        self._score = np.zeros(n)
        self._pool = np.zeros(3)

    def install(self, params: GarchParams, variance: F64 | None = None) -> None:
        """Go on with other parameters.

        Parameters
        ----------
        params : (n,) each
            Assets with a NaN among them (but in ``nu``) go back to the mean of squares.
        variance : (n,) or None
            Forecast of the next bar under the new parameters, as a fit leaves it; where it is
            None or not positive, the present one, or the long-run one if there is none.

        Raises
        ------
        ValueError
            If the parameters are of another number of assets.
        """
        rows = np.array([getattr(params, field.name) for field in fields(params)][:5], np.float64)
        if rows.shape != self._params.shape or (variance is not None and len(variance) != self.n):
            message = f"parameters are of {self.n} assets each"
            raise ValueError(message)
        _, omega, alpha, beta, gamma = rows
        forecast = np.full(self.n, np.nan) if variance is None else variance.astype(np.float64)
        long_run = omega / np.maximum(1.0 - alpha - 0.5 * gamma - beta, 1e-4)
        for other in (self.variance(), long_run):
            forecast = np.where(np.isfinite(forecast) & (forecast > 0.0), forecast, other)
        fitted = np.isfinite(rows).all(axis=0) & (forecast > 0.0)
        self._params = np.where(fitted, rows, np.nan)
        self._variance = np.where(fitted, forecast, np.nan)

    def standardise(self, block: Block) -> Block:
        """Divide the returns of k bars by what each was expected to be, and take them in.

            z = (r - w mu) / sqrt(w h),   w bars spanned, h the forecast before the bar

        Parameters
        ----------
        block : (k, n)
            Returns in any unit, NaN where not observed.

        Returns
        -------
        ReturnBlock
            z; NaN, with no exposure, where not observed or before a variance is known.

        Raises
        ------
        ValueError
            If the block is of another width.
        """
        if block.returns.ndim != 2 or block.returns.shape[1] != self.n:
            message = f"a block is (k, {self.n}), not {block.returns.shape}"
            raise ValueError(message)
        z = np.empty(block.returns.shape)
        counts = np.empty(3)
        decay = 2.0 ** (-1.0 / self.half_life_obs)
        decay_pool = 2.0 ** (-1.0 / (POOL_HALF_LIVES * self.half_life_obs))
        for returns, exposure, out in zip(block.returns, block.exposure, z, strict=True):
            advance_variances(
                returns,
                exposure,
                self._params,
                decay,
                self.cap,
                self._rescale(),
                self._variance,
                self._sums,
                self._score,
                out,
                counts,
            )
            self._pool = decay_pool * self._pool + counts
        exposure = np.where(np.isnan(z), 0.0, block.exposure)
        return replace(block, returns=z, exposure=exposure)

    def restarted(self) -> Self:
        """Return one of the same parameters that has seen nothing."""
        fresh = type(self)(self.n, self.half_life_obs, self.cap)
        mu, omega, alpha, beta, gamma = self._params
        fresh.install(GarchParams(mu, omega, alpha, beta, gamma, np.full(self.n, np.nan)))
        return fresh

    @property
    def ready(self) -> npt.NDArray[np.bool_]:
        """(n,): whether there is a variance to standardise by."""
        known: npt.NDArray[np.bool_] = self.variance() > 0.0
        return known

    def variance(self) -> F64:
        """Return the forecast for the next bar (n,); NaN where not ready."""
        squares, weight, weight2 = self._sums
        warm = (weight > 0.0) & (weight * weight >= WARM_N_EFF * weight2) & (squares > 0.0)
        mean = np.divide(squares, weight, out=np.full(self.n, np.nan), where=warm)
        return np.where(np.isnan(self._variance), mean, self._variance)

    def _rescale(self) -> float:
        return float(read_rescale(self._pool, self._prior, self._tails)) if self.cap else 1.0

    def state(self) -> dict[str, F64]:
        """Return copies of all arrays that make up the state."""
        return {
            "settings": np.array([self.n, self.half_life_obs, self.cap], np.float64),
            "params": self._params.copy(),
            "variance": self._variance.copy(),
            "sums": self._sums.copy(),
            "score": self._score.copy(),
            "pool": self._pool.copy(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Continue from what ``state`` returned."""
        _, half_life_obs, cap = state["settings"]
        # as many as there are now: the state may have been migrated to other symbols
        volatility = cls(len(state["variance"]), float(half_life_obs), float(cap))
        volatility._params[:] = state["params"]
        volatility._variance[:] = state["variance"]
        volatility._sums[:] = state["sums"]
        volatility._score[:] = state["score"]
        volatility._pool[:] = state["pool"]
        return volatility
