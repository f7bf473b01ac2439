"""From returns of the tick layer to a calibrated DCC: history, requests for fits, the model."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stream_calib.config import Config, UniverseConfig
from stream_calib.engine.arrays import Arrays, read_text, text_array, under, within
from stream_calib.engine.history import History
from stream_calib.engine.membership import Membership
from stream_calib.estimation.calibrated import (
    DCC_MODEL,
    dcc_params,
    garch_params,
    misfit,
)
from stream_calib.estimation.coarsening import Coarsener
from stream_calib.estimation.dcc import TARGET_ERROR, Dcc
from stream_calib.estimation.dcc_band import dcc_band
from stream_calib.estimation.garch import GarchVolatility
from stream_calib.estimation.protocol import Layout
from stream_calib.values import (
    F64,
    NO_TIME,
    Correlation,
    Fit,
    FitFailure,
    FitRequest,
    ReturnBlock,
)

RETRY_SHARE = 4  # of the bars between two fits: how soon one that failed is tried again
LAYOUTS: Mapping[str, Layout] = {
    "bars": Coarsener.LAYOUT,
    "history": History.LAYOUT,
    "volatility": GarchVolatility.LAYOUT,
    "dcc": Dcc.LAYOUT,
    "membership": Layout(by_symbol={"ready": 0.0}),
}
REQUEST = "request"  # what was asked for is of the symbols of then


class DccLayer:
    """The model half of one universe: until its first fit it only keeps history.

    Parameters
    ----------
    config, universe
        Settings; ``universe`` is one of ``config.universe``, with ``dcc.enabled``.
    """

    def __init__(self, config: Config, universe: UniverseConfig) -> None:
        self._settings = settings = universe.dcc
        self._waits = config.refit.late == "wait"
        n = len(universe.symbols)
        self.k = settings.bars_per_bar(universe.bar)
        self.bar_ns = self.k * universe.bar
        simple = [universe.return_of(symbol) == "simple" for symbol in universe.symbols]
        self._bars = Coarsener(n, self.k, np.array(simple))
        self._history = History(n, settings.window_bars)
        self._number = -1  # of the open bar
        self._n_closed = 0
        self._due = settings.first_fit_bars  # bars closed at which a fit is to be asked for
        self._reason = "first"
        self._n_requests = 0
        self._pending: FitRequest | None = None
        self._volatility: GarchVolatility | None = None
        self._dcc: Dcc | None = None
        self._errors = np.zeros(2)  # of a and b
        self.membership = Membership(universe.symbols, universe.ready_n_eff)

    # bars

    @property
    def due_ns(self) -> int:
        """End of the open bar, or NO_TIME when nothing is in it."""
        return NO_TIME if self._number < 0 else (self._number + 1) * self.bar_ns

    def fold(self, block: ReturnBlock) -> None:
        """Take in bars that lie in one DCC bar, after the earlier one was closed."""
        self._number = int(block.time_ns[0] - 1) // self.bar_ns
        self._bars.add(block)

    def close(self) -> bool:
        """Close the open bar; return whether anything was observed in it."""
        end_ns, self._number = self.due_ns, -1
        row = self._bars.close()
        if not row.observed:
            return False
        self._n_closed += 1
        self._history.append(end_ns, row.returns, row.exposure, row.elapsed_bars)
        if self._volatility is not None and self._dcc is not None:
            block = ReturnBlock(
                np.array([end_ns]),
                row.returns[None, :],
                row.exposure[None, :],
                np.array([row.elapsed_bars]),
            )
            self._dcc.update(self._volatility.standardise(block))
        return True

    # fits

    @property
    def pending(self) -> FitRequest | None:
        """What was asked for and is not answered."""
        return self._pending

    @property
    def held(self) -> bool:
        """Whether no further bar may be taken in before the fit that was asked for."""
        return self._waits and self._pending is not None

    def request(self) -> FitRequest | None:
        """Ask for a fit when one is due."""
        if self._pending is not None or not 0 < self._due <= self._n_closed:
            return None
        self._n_requests += 1
        refit_bars = self._settings.refit_bars
        self._due = self._n_closed + refit_bars if refit_bars else 0
        self._pending = self.window(self._n_requests, self._reason)
        self._reason = "schedule"
        return self._pending

    def window(self, number: int, reason: str) -> FitRequest:
        """Return what a fit would be made from by now."""
        rows, settings = self._history.block(), self._settings
        times_ns = rows.time_ns.tolist() or [NO_TIME]
        return FitRequest(
            DCC_MODEL,
            number,
            reason,
            times_ns[-1],
            {
                "model": settings.model,
                "likelihood": settings.likelihood,
                "leverage": settings.leverage,
                "target": settings.target,
                "winsor": settings.winsor,
                "vol_half_life_bars": settings.vol_half_life_bars,
                "first_fit_bars": settings.first_fit_bars,
                "pooled_below_bars": settings.pooled_below_bars,
                "from_ns": times_ns[0],
            },
            {"returns": rows.returns, "exposure": rows.exposure, "elapsed": rows.elapsed_bars},
        )

    def install(self, fit: Fit) -> str:
        """Go on with a fit, its state built from the history; return why not, or nothing.

        The model that was in force stays when the fit cannot be used.
        """
        pending = self._pending
        if pending is None or fit.arrays.get("request", np.zeros(1))[0] != pending.number:
            return "it was not asked for"
        self._pending = None
        if reason := misfit(fit, len(self.membership.ready)):
            self._retry(pending)
            return reason
        self._volatility, self._dcc = self._built(fit)
        self._errors = np.nan_to_num(fit.arrays["dcc_se"][:2])
        return ""

    def fail(self, failure: FitFailure) -> bool:
        """Give a request up; return whether it was the one that is awaited."""
        if self._pending is None or failure.number != self._pending.number:
            return False
        self._retry(self._pending)
        self._pending = None
        return True

    def _retry(self, pending: FitRequest) -> None:
        every = self._settings.refit_bars or self._settings.first_fit_bars
        self._due = self._n_closed + max(1, every // RETRY_SHARE)
        self._reason = pending.reason

    def _built(self, fit: Fit) -> tuple[GarchVolatility, Dcc]:
        rows, settings = self._history.block(), self._settings
        n = rows.returns.shape[1]
        volatility = GarchVolatility(n, settings.vol_half_life_bars, settings.winsor)
        volatility.install(garch_params(fit))
        dcc = Dcc(dcc_params(fit), n, fit.arrays["counts"], clock="time")
        dcc.update(volatility.standardise(rows))
        return volatility, dcc

    # what is known

    def correlation(self) -> Correlation | None:
        """Return the forecast for the next bar, with ``vol`` per DCC bar; None before a fit."""
        if self._dcc is None or self._volatility is None:
            return None
        known = self._dcc.correlation()
        vol = np.where(self._volatility.ready, np.sqrt(self._volatility.variance()), 0.0)
        return Correlation(known.corr, vol, known.n_eff, known.kappa, known.capped)

    def band(self, known: Correlation, corr: F64, cut: tuple[Any, ...]) -> F64:
        """Return the standard errors of ``corr``, which is ``known`` at ``cut``, repaired."""
        assert self._dcc is not None
        return dcc_band(
            corr,
            self._dcc.long_run()[cut],
            self._dcc.params,
            self._errors,
            TARGET_ERROR**2 * known.n_eff[cut],
        )

    # state

    def state(self) -> Arrays:
        """Return copies of all arrays that make up the state."""
        facts: dict[str, object] = {
            "number": self._number,
            "n_closed": self._n_closed,
            "due": self._due,
            "reason": self._reason,
            "n_requests": self._n_requests,
        }
        out = {**under("bars", self._bars.state()), **under("history", self._history.state())}
        out |= under("membership", self.membership.state())
        if self._volatility is not None and self._dcc is not None:
            out |= under("volatility", self._volatility.state())
            out |= under("dcc", self._dcc.state()) | {"errors": self._errors.copy()}
        if (pending := self._pending) is not None:
            facts["pending"] = [
                pending.number,
                pending.reason,
                pending.as_of_ns,
                dict(pending.settings),
            ]
            copies = {name: array.copy() for name, array in pending.arrays.items()}
            out |= under(REQUEST, copies)
        return out | {"facts": text_array(facts)}

    @classmethod
    def from_state(
        cls, config: Config, universe: UniverseConfig, state: Mapping[str, npt.NDArray[Any]]
    ) -> Self:
        """Continue from what ``state`` returned under the same settings."""
        layer = cls(config, universe)
        facts = read_text(state["facts"])
        layer._number, layer._n_closed = facts["number"], facts["n_closed"]
        layer._due, layer._reason = facts["due"], facts["reason"]
        layer._n_requests = facts["n_requests"]
        layer._bars = Coarsener.from_state(layer.k, layer._bars.simple, within("bars", state))
        layer._history = History.from_state(universe.dcc.window_bars, within("history", state))
        layer.membership = Membership.from_state(
            universe.symbols, universe.ready_n_eff, within("membership", state)
        )
        if volatility := within("volatility", state):
            layer._volatility = GarchVolatility.from_state(volatility)
            layer._dcc = Dcc.from_state(within("dcc", state))
            layer._errors = state["errors"].copy()
        if "pending" in facts:
            number, reason, as_of_ns, settings = facts["pending"]
            arrays = {name: array.copy() for name, array in within(REQUEST, state).items()}
            layer._pending = FitRequest(DCC_MODEL, number, reason, as_of_ns, settings, arrays)
        return layer
