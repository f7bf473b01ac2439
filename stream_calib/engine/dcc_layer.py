"""From returns of the tick layer to a calibrated DCC: history, requests for fits, the model."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stream_calib.config import Config, UniverseConfig
from stream_calib.engine.arrays import Arrays, read_text, text_array, under, within
from stream_calib.engine.history import History
from stream_calib.engine.membership import Membership
from stream_calib.engine.refit_cycle import RefitCycle, Turn
from stream_calib.engine.reordering import turned
from stream_calib.estimation.calibrated import BY_NAME, DCC_MODEL, dcc_report, misfit
from stream_calib.estimation.cleaning import repaired_band
from stream_calib.estimation.coarsening import Coarsener
from stream_calib.estimation.currency import currencies_of
from stream_calib.estimation.dcc_model import FIT_LAYOUT
from stream_calib.estimation.protocol import Layout
from stream_calib.values import (
    F64,
    I64,
    NO_TIME,
    Correlation,
    DriftStatus,
    Fit,
    FitFailure,
    FitRequest,
    ReturnBlock,
)

RETRY_SHARE = 4  # of the bars between two fits: how soon one that failed is tried again
LAYOUTS: Mapping[str, Layout] = {
    "bars": Coarsener.LAYOUT,
    "history": History.LAYOUT,
    **{f"cycle.{part}": layout for part, layout in RefitCycle.LAYOUTS.items()},
    "membership": Layout(by_symbol={"ready": 0.0}),
}
SPAN_MAX = 0.5  # by which a return may be of more or less than its bar, to be scored
DOUBLINGS_MAX = 8  # of the time between two tries
REQUEST = "request"  # what was asked for is of the symbols of then, in any order of them
REQUEST_LAYOUTS: Mapping[str, Layout] = {REQUEST: History.LAYOUT, f"{REQUEST}.old": FIT_LAYOUT}


class DccLayer:
    """The model half of one universe: until its first fit it only keeps history.

    Parameters
    ----------
    config, universe
        Settings; ``universe`` is one of ``config.universe``, with ``dcc.enabled``.
    """

    def __init__(self, config: Config, universe: UniverseConfig) -> None:
        self._universe, self._settings = universe, universe.dcc
        settings = universe.dcc
        self._waits = config.refit.late == "wait"
        n = len(universe.symbols)
        self._order: I64 = np.argsort(np.array(universe.symbols))
        self.k = settings.bars_per_bar(universe.bar)
        self.bar_ns = self.k * universe.bar
        simple = [universe.return_of(symbol) == "simple" for symbol in universe.symbols]
        self._bars = Coarsener(n, self.k, np.array(simple))
        self._history = History(n, settings.window_bars)
        self._number = -1  # of the open bar
        self._n_closed = 0
        self._due = settings.first_fit_bars  # bars closed at which a fit is to be asked for
        self._reason = "first"
        self._n_requests = self._failures = 0
        self._pending: FitRequest | None = None
        self._cycle = RefitCycle(universe)
        self._currencies = currencies_of(universe)
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
        block = ReturnBlock(
            np.array([end_ns]),
            row.returns[None, :],
            row.exposure[None, :],
            np.array([row.elapsed_bars]),
        )
        self._cycle.observe(block, self._n_closed, self._history.block)
        return True

    def realised(self, pattern: F64) -> F64:
        """Return the returns (n,) of the bar closed last, in the base currency if there is one.

        NaN where a return is not of about one bar. ``pattern`` (n,) is the volatility at this
        time of day in units of the day's.
        """
        returns, exposure = self._history.newest()
        # a return over a gap is none of one bar, and its volatility another
        returns = np.where(np.abs(exposure - 1.0) < SPAN_MAX, returns * pattern, np.nan)
        return returns if self._currencies is None else self._currencies.returns(returns)

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
        if self._pending is not None:
            return None
        n_closed = self._n_closed
        if self._cycle.stage_due(n_closed):
            self._n_requests += 1
            rows = self._history.block()
            settings, arrays = self._cycle.begin_stage(n_closed, rows.time_ns)
            self._pending = self._asked(self._n_requests, "drift", rows, settings, arrays)
            return self._pending
        ripe = self._reason != "schedule" or self._cycle.full_allowed(n_closed)
        if not (ripe and 0 < self._due <= n_closed):
            return None
        self._n_requests += 1
        refit_bars = self._settings.refit_bars
        self._due = n_closed + refit_bars if refit_bars else 0
        self._pending = self.window(self._n_requests, self._reason)
        self._reason = "schedule"
        return self._pending

    def demand(self) -> None:
        """Have a full fit asked for at the next bar, because somebody wants one."""
        self._due, self._reason = max(1, self._n_closed), "manual"

    def window(self, number: int, reason: str) -> FitRequest:
        """Return what a full fit would be made from by now."""
        rows = self._history.block()
        bars = self._cycle.regime_bars(self._n_closed)
        if bars >= self._settings.first_fit_bars:
            rows = rows.rows(max(0, len(rows.returns) - bars), len(rows.returns))
        return self._asked(number, reason, rows, {}, {})

    def _asked(
        self,
        number: int,
        reason: str,
        rows: ReturnBlock,
        more: Mapping[str, object],
        arrays: Mapping[str, F64],
    ) -> FitRequest:
        settings = self._settings
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
                "watched": self._universe.drift.detector != "none",
                BY_NAME: True,
                **more,
            },
            self._by_name(
                {
                    "returns": rows.returns,
                    "exposure": rows.exposure,
                    "elapsed": rows.elapsed_bars,
                    **arrays,
                }
            ),
        )

    def _by_name(self, arrays: Mapping[str, F64]) -> Arrays:
        """Put the symbols of a request in the order of their names: theirs then does not show."""
        order, out = self._order, dict(arrays)
        for prefix, layout in (("", History.LAYOUT), ("old.", FIT_LAYOUT)):
            own = {name[len(prefix) :]: a for name, a in arrays.items() if name.startswith(prefix)}
            out |= {prefix + name: a for name, a in turned(own, layout, order, len(order)).items()}
        return {name: np.ascontiguousarray(array) for name, array in out.items()}

    def _as_listed(self, fit: Fit) -> Fit:
        """Put the symbols of a fit back in the order that they have here."""
        if BY_NAME not in fit.arrays:
            return fit  # of a version that left them as they were
        places, rest = np.argsort(self._order), dict(fit.arrays)
        del rest[BY_NAME]
        rest = turned(rest, FIT_LAYOUT, places, len(places))
        return Fit(fit.model, {n: np.ascontiguousarray(a) for n, a in rest.items()})

    def install(self, fit: Fit) -> None:
        """Go on with a fit, its state built from the history; what came of it is a turn.

        The model that was in force stays when the fit cannot be used.
        """
        pending = self._pending
        if pending is None or fit.arrays.get("request", np.zeros(1))[0] != pending.number:
            return self._refuse(fit, "it was not asked for")
        self._pending = None
        if reason := misfit(fit, len(self.membership.ready)):
            self._retry(pending)
            return self._refuse(fit, reason)
        fit = self._as_listed(fit)
        report = dcc_report(fit, pending, self._universe.symbols)
        rows = self._history.block()
        self._failures = 0
        if reason := self._cycle.take(fit, pending, rows, report):
            self._refuse(fit, reason)
        return None

    def _refuse(self, fit: Fit, reason: str) -> None:
        details = {"model": fit.model, "reason": reason}
        self._cycle.turns.append(Turn("refit_rejected", details))

    def take_turns(self) -> list[Turn]:
        """Return what became of the models since the last call."""
        turns, self._cycle.turns = self._cycle.turns, []
        return turns

    def fail(self, failure: FitFailure) -> bool:
        """Give a request up; return whether it was the one that is awaited."""
        if self._pending is None or failure.number != self._pending.number:
            return False
        self._retry(self._pending)
        self._pending = None
        return True

    def _retry(self, pending: FitRequest) -> None:
        if pending.reason == "drift":
            return  # the next stage is another try
        if self._reason != "schedule" and 0 < self._due <= self._n_closed:
            return  # somebody wants one anyway
        every = self._settings.refit_bars or self._settings.first_fit_bars
        # what fails again and again is asked for ever less often
        wait = max(1, every // RETRY_SHARE) << min(self._failures, DOUBLINGS_MAX)
        self._failures += 1
        self._due = self._n_closed + wait
        self._reason = pending.reason

    # what is known

    def correlation(self) -> Correlation | None:
        """Return the forecast of prices as quoted, ``vol`` per DCC bar; None before a fit."""
        model = self._cycle.model
        return None if model is None else model.correlation()

    def known(self, pattern: F64) -> Correlation | None:
        """Return the forecast in the base currency, if there is one.

        ``pattern`` (n,) is the volatility at this time of day in units of the day's.
        """
        quoted = self.correlation()
        if quoted is None:
            return None
        vol = quoted.vol * pattern
        if self._currencies is None:
            return replace(quoted, vol=vol)
        return self._currencies.convert(quoted, vol)

    def band(self, known: Correlation, corr: F64, cut: tuple[Any, ...]) -> F64:
        """Return the standard errors of ``corr``, which is ``known`` at ``cut``, repaired."""
        model = self._cycle.model
        assert model is not None
        if self._currencies is None:
            return model.band(known, corr, cut)
        quoted = model.correlation()
        whole = np.ix_(*2 * (np.arange(len(quoted.vol)),))
        band = self._currencies.band(quoted, model.band(quoted, quoted.corr, whole), known.corr)
        return repaired_band(band[cut], known.corr[cut], corr)

    @property
    def fitted_ns(self) -> int:
        """End of the bars that the model in force was fitted to; NO_TIME before the first."""
        window = self._cycle.report.get("window")
        if self._cycle.model is None or not isinstance(window, Mapping):
            return NO_TIME
        return int(window["to_ns"])

    @property
    def shift_ns(self) -> int | None:
        """When the regime began that the model in force is fitted to; None for the first."""
        return self._cycle.shift_ns

    @property
    def drift_level(self) -> float | None:
        """Statistic of the watch for drift over its threshold; None where there is no watch."""
        return self._cycle.level

    def drift(self) -> DriftStatus | None:
        """Return how far the watch for drift is; None where there is none."""
        return self._cycle.status()

    # state

    def state(self) -> Arrays:
        """Return copies of all arrays that make up the state."""
        facts: dict[str, object] = {
            "number": self._number,
            "n_closed": self._n_closed,
            "due": self._due,
            "reason": self._reason,
            "n_requests": self._n_requests,
            "failures": self._failures,
        }
        out = {**under("bars", self._bars.state()), **under("history", self._history.state())}
        out |= under("membership", self.membership.state())
        out |= under("cycle", self._cycle.state())
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
        layer._n_requests, layer._failures = facts["n_requests"], facts["failures"]
        layer._bars = Coarsener.from_state(layer.k, layer._bars.simple, within("bars", state))
        layer._history = History.from_state(universe.dcc.window_bars, within("history", state))
        layer.membership = Membership.from_state(
            universe.symbols, universe.ready_n_eff, within("membership", state)
        )
        layer._cycle = RefitCycle.from_state(universe, within("cycle", state))
        if "pending" in facts:
            number, reason, as_of_ns, settings = facts["pending"]
            arrays = {name: array.copy() for name, array in within(REQUEST, state).items()}
            layer._pending = FitRequest(DCC_MODEL, number, reason, as_of_ns, settings, arrays)
        return layer
