"""A calibrated model at work: volatilities, and the correlations of what they leave."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stream_calib.estimation.calibrated import dcc_params, garch_params
from stream_calib.estimation.dcc import TARGET_ERROR, Dcc
from stream_calib.estimation.dcc_band import dcc_band
from stream_calib.estimation.garch import GarchVolatility
from stream_calib.estimation.protocol import Layout
from stream_calib.values import F64, Correlation, DccParams, Fit, ReturnBlock

FIT_LAYOUT = Layout(
    by_symbol={"garch": np.nan, "garch_se": np.nan, "counts": 0.0},
    by_triangle={"target": np.nan, "asymmetry": np.nan},
)
REMEMBERED = 500  # rows that tell where correlations stand: b = .99 leaves .7 % of where they began


class DccModel:
    """GARCH volatilities and DCC in step, as a fit says.

    Parameters
    ----------
    fit
        Parameters, which ``misfit`` has nothing against.
    volatility, dcc
        Where the two stand.

    Attributes
    ----------
    fit
        What it was made from.
    """

    LAYOUTS: Mapping[str, Layout] = {
        "volatility": GarchVolatility.LAYOUT,
        "dcc": Dcc.LAYOUT,
        "fit": FIT_LAYOUT,
    }

    def __init__(self, fit: Fit, volatility: GarchVolatility, dcc: Dcc) -> None:
        self.fit = fit
        self._volatility = volatility
        self._dcc = dcc

    @classmethod
    def begin(
        cls,
        fit: Fit,
        rows: ReturnBlock,
        since: int,
        *,
        half_life_obs: float,
        cap: float,
        old: Fit | None = None,
    ) -> Self:
        """Bring a fit up to date.

        Parameters
        ----------
        fit
            Parameters.
        rows : (k, n)
            Returns up to now, from which volatilities are found.
        since
            The row at which correlations begin: at their target, or, for as much of the ``old``
            fit as is in this one, where that had them by then.
        half_life_obs, cap
            As ``GarchVolatility``.
        old
            The fit that this one was moved from.

        Notes
        -----
        What the old filter had seen is no matter of its target. With the target alone to begin at,
        a model of 100 symbols forecasts worse than the old one until 50 rows after a break.
        """
        volatility = GarchVolatility(rows.returns.shape[1], half_life_obs, cap)
        volatility.install(garch_params(fit))
        z = volatility.standardise(rows)
        counts = fit.arrays["counts"]
        dcc = Dcc(dcc_params(fit), rows.returns.shape[1], counts, clock="time")
        if old is not None:
            before = Dcc(dcc_params(old), dcc.n, clock="time")
            before.update(z.rows(max(0, since - REMEMBERED), since))
            dcc.begin_near(before, float(fit.arrays.get("kept", np.zeros(1))[0]))
        dcc.update(z.rows(since, len(z.returns)))
        return cls(fit, volatility, dcc)

    def update(self, block: ReturnBlock) -> ReturnBlock:
        """Take in k bars; return what each return was over its predicted deviation."""
        z = self._volatility.standardise(block)
        self._dcc.update(z)
        return z

    def forecast(self) -> F64:
        """Return the correlation of the next bar (n, n)."""
        return self._dcc.next_corr()

    def correlation(self) -> Correlation:
        """Return what is known of the next bar, with ``vol`` per bar."""
        known = self._dcc.correlation()
        vol = np.where(self._volatility.ready, np.sqrt(self._volatility.variance()), 0.0)
        return Correlation(known.corr, vol, known.n_eff, known.kappa, known.capped)

    @property
    def params(self) -> DccParams:
        """Parameters of the fit; the target is NaN for symbols that it left out."""
        return dcc_params(self.fit)

    def volatility(self) -> GarchVolatility:
        """Return a copy of the volatilities as they stand."""
        return GarchVolatility.from_state(self._volatility.state())

    def long_run(self) -> F64:
        """Return the correlation that everything returns to (n, n)."""
        return self._dcc.long_run()

    def band(self, known: Correlation, corr: F64, cut: tuple[Any, ...]) -> F64:
        """Return the standard errors of ``corr``, which is ``known`` at ``cut``, repaired."""
        return dcc_band(
            corr,
            self._dcc.long_run()[cut],
            self._dcc.params,
            np.nan_to_num(self.fit.arrays["dcc_se"][:2]),
            TARGET_ERROR**2 * known.n_eff[cut],
        )

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return copies of all arrays that make up the state, by part."""
        parts: dict[str, Mapping[str, npt.NDArray[Any]]] = {
            "volatility": self._volatility.state(),
            "dcc": self._dcc.state(),
            "fit": {name: array.copy() for name, array in self.fit.arrays.items()},
        }
        return {f"{part}.{name}": a for part, own in parts.items() for name, a in own.items()}

    @classmethod
    def from_state(cls, model: str, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Continue from what ``state`` returned; ``model`` is the name of the fit's."""
        parts: dict[str, dict[str, npt.NDArray[Any]]] = {part: {} for part in cls.LAYOUTS}
        for name, array in state.items():
            part, _, own = name.partition(".")
            parts[part][own] = array
        fit = Fit(model, {name: array.copy() for name, array in parts["fit"].items()})
        return cls(
            fit, GarchVolatility.from_state(parts["volatility"]), Dcc.from_state(parts["dcc"])
        )
