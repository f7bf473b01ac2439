"""The matrix that is published, and what its reader computes from it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Self, overload

import numpy as np
import numpy.typing as npt

from stream_calib.errors import InputError
from stream_calib.values.durations import parse_duration
from stream_calib.values.models import PublishedFit
from stream_calib.values.summaries import Quality, Regime, summarise
from stream_calib.values.units import F64, I64

if TYPE_CHECKING:
    import pandas as pd

Horizon = str | int | None
NORMAL_95 = 1.959963984540054
ROUNDING = 1e-7  # of correlations near one, in float32


class Pair(NamedTuple):
    """What a matrix says of two symbols.

    ``lower`` and ``upper`` bound the correlation with 95 %, by ``band_total`` where it is known
    and ``band`` where not; ``staleness_ns`` is the age of the older of the two prices.
    """

    corr: float
    band: float
    band_total: float | None
    n_eff: float
    lower: float
    upper: float
    staleness_ns: int


@dataclass(frozen=True, eq=False)
class Matrix:
    """One published correlation matrix over the n symbols that are ready.

    ``corr``, ``n_eff`` and ``band`` (n, n); ``vol`` and ``staleness_ns`` (n,). ``vol`` is the
    standard deviation of the return over ``horizon_ns``; times ``annualisation`` it is per
    year. ``band`` is the standard error of sampling; ``band_total`` adds the tracking error
    when it is known. ``audit`` says how another estimate of the same correlations compares.
    Fields that a later estimator fills are None. ``base_currency`` is the one that returns were
    converted to; None: as prices are quoted.

    What the methods compute is as good as ``corr`` and ``vol`` are: weights and positions are in
    money, returns are taken to be small enough that those of a portfolio are the weighted sum of
    ``return_type`` returns. A symbol that is not ready is an InputError.

    Examples
    --------
    >>> import stream_calib as sc
    >>> for matrix in sc.read_matrices("matrices.jsonl"):  # doctest: +SKIP
    ...     matrix.to_pandas(), matrix.beta("A", "B"), matrix.portfolio_vol({"A": 0.6, "B": 0.4})
    """

    universe: str
    universe_id: str
    estimator: str
    sequence: int
    as_of_ns: int
    data_from_ns: int
    horizon_ns: int
    bar_ns: int
    symbols: tuple[str, ...]
    pending: tuple[str, ...]
    corr: F64
    vol: F64
    n_eff: F64
    band: F64
    staleness_ns: I64
    quality: Quality
    regime: Regime
    annualisation: float
    return_type: str
    price_policy: str
    config_fingerprint: str
    software_version: str
    kind: str = "filtered"
    vol_unit: str = "per_horizon"
    band_total: F64 | None = None
    drift_level: float | None = None
    audit: Mapping[str, object] | None = None
    model_version: int = 1
    schema_version: int = 1
    base_currency: str | None = None

    def index(self, symbol: str) -> int:
        """Return the row of a symbol.

        Raises
        ------
        InputError
            It is not among ``symbols``.
        """
        try:
            return self.symbols.index(symbol)
        except ValueError:
            why = "not ready yet" if symbol in self.pending else "not in the matrix"
            message = f"symbol {symbol!r} is {why} ({self.universe}|{self.estimator})"
            raise InputError(message) from None

    def to_pandas(self) -> "pd.DataFrame":
        """Return ``corr`` as a DataFrame of pandas, its rows and columns named by symbol.

        Raises
        ------
        InputError
            pandas is not installed.
        """
        try:
            import pandas as pd  # noqa: PLC0415
        except ImportError:
            message = "to_pandas needs pandas: pip install 'stream-calib[pandas]'"
            raise InputError(message) from None
        names = pd.Index(self.symbols, name="symbol")
        return pd.DataFrame(self.corr.copy(), index=names, columns=names)

    def vols(self, horizon: Horizon = None) -> F64:
        """Return standard deviations (n,) of returns over a horizon, as ``cov`` takes it."""
        stretched: F64 = self.vol * self._stretch(horizon)
        return stretched

    def cov(self, horizon: Horizon = None) -> F64:
        """Return the covariance (n, n) of returns over a horizon.

            S_ij = R_ij s_i s_j,   s = vol sqrt(horizon / horizon_ns)

        Parameters
        ----------
        horizon
            A duration ("1h"), nanoseconds, or "year"; None is ``horizon_ns``, which ``vol`` is
            of. It is trading time, as bars are: a day of a market that is open for 6.5 hours
            is "6.5h".

        Raises
        ------
        InputError
            It is not a duration.

        Notes
        -----
        The square root of time takes returns to be uncorrelated from one bar to the next and
        volatility and correlation to stay what they are now: the longer the horizon beside
        ``horizon_ns``, the more that leaves out.
        """
        scale = self.vols(horizon)
        covariance: F64 = self.corr * np.outer(scale, scale)
        return covariance

    def pair(self, a: str, b: str) -> Pair:
        """Return what is said of two symbols.

        The bounds are those of Fisher's z = atanh(r), whose standard error is that of r over
        1 - r^2.

        Raises
        ------
        InputError
            A symbol is not in the matrix, or both are one.
        """
        i, j = self._two(a, b)
        corr, band = float(self.corr[i, j]), float(self.band[i, j])
        total = None if self.band_total is None else float(self.band_total[i, j])
        width = NORMAL_95 * (band if total is None else total) / (1.0 - corr * corr)
        z = math.atanh(corr)
        return Pair(
            corr,
            band,
            total,
            float(self.n_eff[i, j]),
            math.tanh(z - width),
            math.tanh(z + width),
            int(max(self.staleness_ns[i], self.staleness_ns[j])),
        )

    def beta(self, a: str, b: str) -> float:
        """Return the slope of the return of ``a`` on that of ``b``: R_ab s_a / s_b.

        Raises
        ------
        InputError
            A symbol is not in the matrix, both are one, or ``b`` does not move.
        """
        i, j = self._two(a, b)
        self._check_moving([j])
        return float(self.corr[i, j] * self.vol[i] / self.vol[j])

    @overload
    def hedge_ratio(self, a: str, hedges: str) -> float: ...

    @overload
    def hedge_ratio(self, a: str, hedges: list[str] | tuple[str, ...]) -> dict[str, float]: ...

    def hedge_ratio(
        self, a: str, hedges: str | list[str] | tuple[str, ...]
    ) -> float | dict[str, float]:
        """Return the positions to take in the hedges for each unit of ``a`` that is held.

            h = -S_BB^-1 S_Ba,   which makes the variance of r_a + h'r_B least

        Parameters
        ----------
        a
            What is held, one unit of money long.
        hedges
            One symbol, or several.

        Returns
        -------
        float, or dict by symbol
            Units of money, negative where the hedge is sold: of a single one it is
            ``-beta(a, hedge)``.

        Raises
        ------
        InputError
            A symbol is not in the matrix or named twice, or a hedge does not move.
        """
        names = [hedges] if isinstance(hedges, str) else list(hedges)
        places = self._places([a, *names])
        own, others = places[0], places[1:]
        if not others:
            return {}
        self._check_moving(others)
        slopes = np.linalg.solve(self.corr[np.ix_(others, others)], self.corr[others, own])
        positions = -slopes * self.vol[own] / self.vol[others]
        if isinstance(hedges, str):
            return float(positions[0])
        return dict(zip(names, positions.tolist(), strict=True))

    def portfolio_vol(
        self, weights: Mapping[str, float] | npt.ArrayLike, horizon: Horizon = None
    ) -> float:
        """Return the standard deviation of a portfolio's return: sqrt(w'S w).

        Parameters
        ----------
        weights : by symbol, or (n,)
            Positions in money or as shares of wealth, in whose unit the result is; symbols that
            are not named have none.
        horizon
            As ``cov`` takes it.

        Raises
        ------
        InputError
            A symbol is not in the matrix, or the weights are not n finite numbers.
        """
        if isinstance(weights, Mapping):
            named = dict(zip(map(self.index, weights), weights.values(), strict=True))
            weights = [named.get(i, 0.0) for i in range(len(self.symbols))]
        try:
            vector = np.asarray(weights, dtype=np.float64)
        except (TypeError, ValueError):
            vector = np.empty(0)
        if vector.shape != (len(self.symbols),) or not np.isfinite(vector).all():
            message = f"weights have to be {len(self.symbols)} finite numbers, one per symbol"
            raise InputError(message)
        risk = vector * self.vols(horizon)
        return math.sqrt(max(0.0, float(risk @ self.corr @ risk)))

    def subset(self, symbols: Sequence[str]) -> Self:
        """Return the matrix of some symbols, in the order given.

        Rows are cut; ``quality.min_eigenvalue`` and the summaries in ``regime`` are computed
        anew from what is left. ``quality.repair`` stays, for the pairs were shrunk by it. What
        was found of all symbols together, ``audit`` and the counts of variances, is None.

        Raises
        ------
        InputError
            A symbol is not in the matrix or named twice, or there are less than two.
        """
        places = self._places(symbols)
        if len(places) < 2:
            raise InputError(f"a matrix has two symbols at least, not {len(places)}")
        cut = np.ix_(places, places)
        corr = self.corr[cut]
        values, vectors = np.linalg.eigh(corr)
        return replace(
            self,
            symbols=tuple(symbols),
            pending=(),
            corr=corr,
            vol=self.vol[places],
            n_eff=self.n_eff[cut],
            band=self.band[cut],
            band_total=None if self.band_total is None else self.band_total[cut],
            staleness_ns=self.staleness_ns[places],
            audit=None,
            quality=replace(
                self.quality,
                min_eigenvalue=float(values[0]),
                capped_pairs=self._capped_among(corr),
                raw_variances=None,
                floored_variances=None,
            ),
            regime=replace(
                summarise(corr, values, vectors[:, -1]),
                since_shift_ns=self.regime.since_shift_ns,
            ),
        )

    def forecast(self, k: int, fit: PublishedFit | None = None) -> F64:
        """Return the correlations (n, n) that are expected in the k-th bar from now.

        Those of an EWMA stay what they are. DCC returns to the target of its fit:

            R_k = Rbar + (a + b)^(k - 1) (R_1 - Rbar)

        Parameters
        ----------
        k
            Bars of ``bar_ns`` ahead, from 1.
        fit
            What ``sc.read_fit`` returned for this universe and ``model_version``; of an EWMA
            it is not looked at.

        Raises
        ------
        InputError
            ``k`` < 1, or the fit is missing, of another universe or version, or lacks a symbol;
            or the matrix was converted to a base currency, in which fits have no target.

        References
        ----------
        Engle and Sheppard (2001), NBER working paper 8554, section 5.
        """
        if k != int(k) or k < 1:
            raise InputError(f"k is a number of bars ahead, from 1, not {k}")
        if self.estimator != "dcc":
            return self.corr.copy()
        mine = f"{self.universe}, model version {self.model_version}"
        if self.base_currency is not None:
            message = (
                f"the fit of {mine} is of prices as quoted, the matrix in {self.base_currency}"
            )
            raise InputError(message)
        if fit is None:
            message = f"forecast needs the fit of {mine}: sc.read_fit gets it"
            raise InputError(message)
        if (fit.universe, fit.model_version) != (self.universe, self.model_version):
            other = f"{fit.universe}, model version {fit.model_version}"
            message = f"this matrix is of {mine}, the fit is of {other}"
            raise InputError(message)
        missing = [symbol for symbol in self.symbols if symbol not in fit.symbols]
        if missing:
            raise InputError(f"the fit of {mine} has no symbol {missing[0]!r}")
        places = [fit.symbols.index(symbol) for symbol in self.symbols]
        mean = fit.long_run[np.ix_(places, places)]
        left = (fit.params.a + fit.params.b) ** (k - 1)
        path: F64 = mean + left * (self.corr - mean) if k > 1 else self.corr.copy()
        return path

    def _stretch(self, horizon: Horizon) -> float:
        if horizon is None or horizon == "year":
            return 1.0 if horizon is None else self.annualisation
        try:
            horizon_ns = parse_duration(horizon)
        except ValueError as error:
            message = f"horizon: {error}, or 'year'"
            raise InputError(message) from None
        if horizon_ns <= 0:
            message = f"horizon: it has to be positive, not {horizon!r}"
            raise InputError(message)
        return math.sqrt(horizon_ns / self.horizon_ns)

    def _two(self, a: str, b: str) -> tuple[int, int]:
        i, j = self._places([a, b])
        return i, j

    def _places(self, symbols: Sequence[str]) -> list[int]:
        places = [self.index(symbol) for symbol in symbols]
        twice = [symbol for k, symbol in enumerate(symbols) if symbol in symbols[:k]]
        if twice:
            message = f"symbol {twice[0]!r} is named twice"
            raise InputError(message)
        return places

    def _check_moving(self, places: Sequence[int]) -> None:
        for i in places:
            if not self.vol[i] > 0.0:
                message = f"symbol {self.symbols[i]!r} has no volatility to hedge with"
                raise InputError(message)

    def _capped_among(self, corr: F64) -> int:
        # pairs that are held inside (-1, 1) are the largest of all
        if not self.quality.capped_pairs:
            return 0
        largest = np.abs(self.corr[np.triu_indices(len(self.corr), 1)]).max()
        among = np.abs(corr[np.triu_indices(len(corr), 1)])
        return min(self.quality.capped_pairs, int((among >= largest - ROUNDING).sum()))
