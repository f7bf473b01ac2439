"""Hayashi-Yoshida covariance of asynchronous ticks, without bars: the audit of what uses them."""

import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stream_calib.estimation.protocol import Layout
from stream_calib.kernels.hayashi_yoshida import fold_ticks, read_covariance
from stream_calib.values import F64, I64, NO_TIME

LOG_PRICE_MAX = 1e100  # what is larger is no price, and its square would end every sum


class HayashiYoshida:
    """Covariance of n assets from their ticks as they come, tick by tick.

    Every product of two returns whose intervals overlap counts once, whatever the times: there
    is no clock to choose, no price is carried forward, and the covariance is unbiased where
    previous-tick returns are not (the Epps effect). It holds under noise that is independent
    between assets, but not where one asset leads another.

    Ticks of one instant are simultaneous, in whatever order they come; of several ticks of one
    asset at one instant the last counts. With ``half_life_ns`` a product fades with the age of
    the later of its two returns.

    Parameters
    ----------
    n
        Number of assets.
    half_life_ns
        Age at which a product counts half; None keeps all.

    Raises
    ------
    ValueError
        If ``n`` < 1 or ``half_life_ns`` is not positive.

    Notes
    -----
    O(n) per tick, O(n^2) to read; two n x n arrays of state.

    References
    ----------
    Hayashi and Yoshida (2005), On covariance estimation of non-synchronously observed diffusion
    processes, Bernoulli 11(2), 359-379.

    Examples
    --------
    >>> import numpy as np
    >>> pair = HayashiYoshida(2)
    >>> pair.update(np.array([0, 1, 3]), np.array([0, 1, 0]), np.array([0.0, 0.0, 0.1]))
    >>> pair.update(4, 1, 0.2)
    >>> round(float(pair.covariance()[0, 1]), 6)
    0.02
    """

    LAYOUT = Layout(
        by_symbol={
            **dict.fromkeys(("price", "lagged", "last_return"), 0.0),
            "last_ns": NO_TIME,
            "pending": math.nan,
        },
        by_square={"price_then": 0.0, "products": 0.0},
    )

    def __init__(self, n: int, half_life_ns: float | None = None) -> None:
        if n < 1:
            message = f"n must be at least 1, not {n}"
            raise ValueError(message)
        if half_life_ns is not None and not half_life_ns > 0:
            message = f"half_life_ns must be positive, not {half_life_ns}"
            raise ValueError(message)
        self.n = n
        self.half_life_ns = math.inf if half_life_ns is None else float(half_life_ns)
        self._price = np.zeros(n)
        self._price_then = np.zeros((n, n))
        self._products = np.zeros((n, n))
        self._lagged = np.zeros(n)
        self._last_return = np.zeros(n)
        self._last_ns = np.full(n, NO_TIME, dtype=np.int64)
        self._pending = np.full(n, np.nan)
        self._now_ns = np.full(1, NO_TIME, dtype=np.int64)

    def update(
        self, time_ns: npt.ArrayLike, asset: npt.ArrayLike, log_price: npt.ArrayLike
    ) -> None:
        """Fold m ticks in; any cut of the ticks gives the same bits.

        Parameters
        ----------
        time_ns : (m,) or a number
            Integers, in time order.
        asset : (m,) or a number
            Integers in [0, n).
        log_price : (m,) or a number
            Logarithms of prices.

        Raises
        ------
        ValueError
            If a time is before the one before it, an asset is not in [0, n), a log price is not
            finite (or beyond 1e100), times or assets are no integers, or the lengths differ.
            Nothing has changed then.
        """
        times, assets = _integers("time_ns", time_ns), _integers("asset", asset)
        prices = np.require(np.atleast_1d(log_price), np.float64, ["C", "W"])
        self._check(times, assets, prices)
        fold_ticks(times, assets, prices, self.half_life_ns, *self._arrays())

    def forget(self, asset: int, time_ns: int) -> None:
        """Let the next tick of an asset be as its first: no return leads to it.

        What it has brought about stays, and ages to ``time_ns``, not before its last tick.
        """
        last_ns = int(self._last_ns[asset])
        if last_ns != NO_TIME:
            decay = 2.0 ** (-max(0, time_ns - last_ns) / self.half_life_ns)
            self._products[asset] *= decay
            self._lagged[asset] *= decay
            self._last_return[asset] = 0.0
            self._last_ns[asset] = NO_TIME
        self._pending[asset] = np.nan

    def covariance(self) -> F64:
        """Return the covariance of all ticks so far.

        Returns
        -------
        (n, n)
            Squared log return over the time observed, exponentially weighted if there is a
            half-life; 0 where no returns overlap. Variances are plain sums of squared returns,
            which noise inflates. Symmetric; not always positive semi-definite.
        """
        cov, _ = self._read()
        return cov

    def correlation(self) -> F64:
        """Return the correlation, by variances that independent noise does not inflate.

        Returns
        -------
        (n, n)
            cov_ij / sqrt(v_i v_j) with v_i = sum of r^2 + 2 sum of r times the r before it. NaN
            where a variance is not positive; 1 on the diagonal. An unbiased figure to hold
            others against, neither kept within [-1, 1] nor positive semi-definite.

        References
        ----------
        Zhou (1996), High-frequency data and volatility in foreign-exchange rates, Journal of
        Business & Economic Statistics 14(1), 45-52, for the variance.
        """
        cov, lagged = self._read()
        variance = np.diagonal(cov) + 2.0 * lagged
        scale = np.sqrt(np.where(variance > 0.0, variance, np.nan))
        corr = cov / np.multiply.outer(scale, scale)
        np.fill_diagonal(corr, 1.0)
        return corr

    def state(self) -> dict[str, F64 | I64]:
        """Return copies of all arrays that make up the state."""
        names = (
            "price",
            "price_then",
            "products",
            "lagged",
            "last_return",
            "last_ns",
            "pending",
            "now_ns",
        )
        copies = (array.copy() for array in self._arrays())
        return {
            "settings": np.array([self.n, self.half_life_ns]),
            **dict(zip(names, copies, strict=True)),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Continue from what ``state`` returned."""
        n, half_life_ns = state["settings"]
        estimator = cls(int(n), float(half_life_ns))
        estimator._price[:] = state["price"]
        estimator._price_then[:] = state["price_then"]
        estimator._products[:] = state["products"]
        estimator._lagged[:] = state["lagged"]
        estimator._last_return[:] = state["last_return"]
        estimator._last_ns[:] = state["last_ns"]
        estimator._pending[:] = state["pending"]
        estimator._now_ns[:] = state["now_ns"]
        return estimator

    def _arrays(self) -> tuple[F64, F64, F64, F64, F64, I64, F64, I64]:
        # In the order that the kernel takes them.
        return (
            self._price,
            self._price_then,
            self._products,
            self._lagged,
            self._last_return,
            self._last_ns,
            self._pending,
            self._now_ns,
        )

    def _read(self) -> tuple[F64, F64]:
        cov, lagged = np.empty((self.n, self.n)), np.empty(self.n)
        read_covariance(self.half_life_ns, *self._arrays(), cov, lagged)
        return cov, lagged

    def _check(self, times: I64, assets: I64, prices: F64) -> None:
        if not times.shape == assets.shape == prices.shape or times.ndim != 1:
            lengths = f"{times.shape}, {assets.shape} and {prices.shape}"
            message = f"time_ns, asset and log_price must be columns of one length, not {lengths}"
            raise ValueError(message)
        if not times.size:
            return
        if times[0] < self._now_ns[0] or (times[1:] < times[:-1]).any():
            message = "time_ns must be in time order, and it goes back"
            raise ValueError(message)
        if times[0] == NO_TIME:
            message = f"time_ns must be after {NO_TIME}, which stands for no time"
            raise ValueError(message)
        if assets.min() < 0 or assets.max() >= self.n:
            message = f"asset must be in [0, {self.n}), not {assets.min()} to {assets.max()}"
            raise ValueError(message)
        if not (np.abs(prices) <= LOG_PRICE_MAX).all():  # also refuses NaN
            message = "log_price must be finite and within 1e100"
            raise ValueError(message)


def hayashi_yoshida(
    time_ns: npt.ArrayLike, asset: npt.ArrayLike, log_price: npt.ArrayLike, n: int
) -> F64:
    """Return the Hayashi-Yoshida covariance of asynchronous ticks.

        cov_ij = sum of r_i(u) r_j(u') over all returns whose intervals (s, u], (s', u'] overlap

    Parameters
    ----------
    time_ns : (m,)
        Integers, in time order; equal times are simultaneous.
    asset : (m,)
        Which asset ticked: integers in [0, n).
    log_price : (m,)
        Logarithms of prices. Of several ticks of one asset at one time the last counts.
    n
        Number of assets.

    Returns
    -------
    (n, n)
        Covariance over the whole time (squared log return, not per unit of time), variances
        being plain sums of squared returns; 0 where no returns overlap. Symmetric.

    Raises
    ------
    ValueError
        If times are not in order, a log price is not finite (or beyond 1e100), an asset is not
        in [0, n), times or assets are no integers, the lengths differ, or ``n`` < 1.

    References
    ----------
    Hayashi and Yoshida (2005), On covariance estimation of non-synchronously observed diffusion
    processes, Bernoulli 11(2), 359-379.

    Examples
    --------
    >>> hayashi_yoshida([0, 1, 3, 4], [0, 1, 0, 1], [0.0, 0.0, 0.1, 0.2], n=2).round(6)
    array([[0.01, 0.02],
           [0.02, 0.04]])
    """
    estimator = HayashiYoshida(n)
    estimator.update(time_ns, asset, log_price)
    return estimator.covariance()


def _integers(name: str, numbers: npt.ArrayLike) -> I64:
    column = np.atleast_1d(numbers)
    if column.size and (column.dtype.kind not in "iu" or not np.can_cast(column.dtype, np.int64)):
        message = f"{name} must be integers that fit into 64 bits, not {column.dtype}"
        raise ValueError(message)
    return np.require(column, np.int64, ["C", "W"])
