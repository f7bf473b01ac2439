"""Correlations of returns in another currency than the prices are quoted in."""

from dataclasses import replace
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from stream_calib.config import UniverseConfig
from stream_calib.estimation.ewma import CORRELATION_CAP
from stream_calib.estimation.two_scale import TwoScaleCorrelation
from stream_calib.values import F64, I64, Correlation

Known = TypeVar("Known", Correlation, TwoScaleCorrelation)
LEFT_MIN = 1.0 - CORRELATION_CAP**2


class Currencies(NamedTuple):
    """Which returns have the return of an exchange rate added to them.

        r_base = r + s f:  Sigma_base = L Sigma L',  L = I + s e_rate'

    Log returns add up, so what is known of prices as they are quoted and of rates, each at its
    own times, says all about prices in the base: nothing is sampled anew, and what holds for the
    covariance under asynchrony and noise holds for that of the base. It stays positive definite.

    ``rate`` (n,) is the place of each symbol's exchange rate, -1 where it needs none; ``sign``
    (n,) is -1 where the rate is quoted the other way round, 0 where there is none.
    """

    rate: I64
    sign: F64

    def convert(self, known: Known, vol: F64) -> Known:
        """Return what is known in the base currency.

        A pair rests on as few observations as the poorest of the pairs that it is made of.

        Parameters
        ----------
        known
            As prices are quoted; a ``band`` that it has is converted too.
        vol : (n,)
            Standard deviations of the same returns, in place of those in ``known``.
        """
        corr, deviations = self.correlation(known.corr, vol)
        n_eff = -self.worst(-known.n_eff)
        changed = replace(known, corr=corr, vol=deviations, n_eff=n_eff)
        if isinstance(changed, TwoScaleCorrelation):
            changed = replace(changed, band=self.band(known, changed.band, corr))
        return changed

    def returns(self, r: F64) -> F64:
        """Return returns (n,) in the base currency, NaN where a price or its rate is."""
        rates: F64 = np.where(self.rate >= 0, r[self.rate], 0.0)
        return r + self.sign * rates

    def correlation(self, corr: F64, vol: F64) -> tuple[F64, F64]:
        """Return the correlations (n, n) and standard deviations (n,) in the base currency.

        Estimates beyond one may leave a variance below zero, of which nothing is told: NaN.
        """
        cov = corr * np.multiply.outer(vol, vol)
        for _ in range(2):  # L from the left, then from the right
            cov = (cov + self.sign[:, None] * np.where(self._needs, cov[self.rate], 0.0)).T
        cov = 0.5 * (cov + cov.T)
        with np.errstate(invalid="ignore", divide="ignore"):
            deviations = np.sqrt(cov.diagonal())
            out = cov / np.multiply.outer(deviations, deviations)
        out = np.clip(out, -CORRELATION_CAP, CORRELATION_CAP)
        np.fill_diagonal(out, np.where(np.isnan(out.diagonal()), np.nan, 1.0))
        return out, deviations

    def band(self, known: Correlation, band: F64, corr: F64) -> F64:
        """Return the standard errors of ``corr``, which is ``known`` in the base currency.

        A standard error over 1 - r^2 is the inverse root of what a pair rests on: the largest of
        the pairs that it is made of is taken.
        """
        with np.errstate(divide="ignore"):
            alone = np.sqrt((1.0 + known.kappa) / known.n_eff.diagonal())
        weak = band / np.maximum(1.0 - known.corr**2, LEFT_MIN)
        np.fill_diagonal(weak, alone)
        out: F64 = np.minimum(self.worst(weak) * (1.0 - corr**2), 1.0)
        np.fill_diagonal(out, 0.0)
        return out

    def worst(self, of_pairs: F64) -> F64:
        """Return the largest of what is said of the pairs that each pair (n, n) is made of."""
        out = of_pairs
        for _ in range(2):
            out = np.where(self._needs, np.maximum(out, out[self.rate]), out).T
        worst: F64 = np.maximum(out, out.T)
        return worst

    @property
    def _needs(self) -> npt.NDArray[np.bool_]:
        return (self.rate >= 0)[:, None]


def currencies_of(universe: UniverseConfig) -> Currencies | None:
    """Return the exchange rates of a universe's symbols, None where all are in one currency."""
    settings = universe.currency
    if settings is None:
        return None
    n = len(universe.symbols)
    rate, sign = np.full(n, -1, np.int64), np.zeros(n)
    for symbol in settings.symbols:
        if symbol not in settings.hedged:
            name, sign_of = settings.rate_of(symbol)
            place = universe.symbols.index(symbol)
            rate[place], sign[place] = universe.symbols.index(name), sign_of
    return Currencies(rate, sign)
