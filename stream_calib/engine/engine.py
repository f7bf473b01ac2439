"""The program: ``advance(step) -> Effects``, one universe, no clock."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stream_calib.config import Config, UniverseConfig
from stream_calib.engine.arrays import Arrays, read_text, text_array, under, within
from stream_calib.engine.intake import Intake
from stream_calib.engine.membership import Membership
from stream_calib.engine.notable import gaps_of, notes_of
from stream_calib.engine.tick_layer import TickLayer
from stream_calib.estimation.audit import compare_correlations
from stream_calib.estimation.cleaning import repair_correlation
from stream_calib.estimation.ewma import CORRELATION_CAP
from stream_calib.estimation.two_scale import TwoScaleCorrelation
from stream_calib.values import (
    F64,
    I64,
    NO_TIME,
    YEAR_NS,
    Effects,
    Event,
    Fit,
    Matrix,
    Quality,
    Regime,
    Source,
    Step,
    eigenvalue_floor,
)

BARS_PER_STEP_MAX = 256  # keeps one call of advance in milliseconds


class Engine:
    """One universe: every bar that the watermark has passed is sampled, folded in, published.

    State is a function of the steps alone, and of how their input was cut or interleaved it
    keeps no trace. Bars are numbered ``time // bar``; bars without any tick take part only
    through the time they let pass.

    Parameters
    ----------
    config, universe
        Settings; ``universe`` is one of ``config.universe``.
    software_version
        Goes into every matrix; an attribute that may be set, and no part of the state.
    """

    def __init__(self, config: Config, universe: UniverseConfig, software_version: str) -> None:
        self.universe = universe
        self.fingerprint = config.fingerprint(universe)
        self.intake = Intake(config, universe)
        self.membership = Membership(universe.symbols, universe.ready_n_eff)
        self.software_version = software_version
        self._layer = TickLayer(config, universe)
        self._canonical = np.argsort(np.array(universe.symbols))
        self._due = 0
        self._last_bar = -1
        self._data_from_ns = NO_TIME
        self._unpublished = False
        self._sequence = 0
        self._event_sequence = 0
        self._model_version = 1
        self._fits: dict[str, Fit] = {}
        self._announcements: list[tuple[str, int, dict[str, object]]] = []

    def sequences(self) -> dict[str, int]:
        """Return the last number published, by estimator and for "events"."""
        return {"ewma": self._sequence, "events": self._event_sequence}

    def resume_sequences(self, last: Mapping[str, int]) -> None:
        """Go on after these numbers; what is not named stays."""
        self._sequence = last.get("ewma", self._sequence)
        self._event_sequence = last.get("events", self._event_sequence)

    def flush_ns(self) -> int:
        """Event time that closes everything which has arrived."""
        newest_ns = self.intake.reach_ns()
        period_ns = self.universe.bar * self.universe.every
        return 1 if newest_ns == NO_TIME else (newest_ns // period_ns + 1) * period_ns

    def advance(self, step: Step) -> Effects:
        """Take one step.

        Parameters
        ----------
        step
            Batches must continue their sources where the last step left them.

        Returns
        -------
        Effects
            ``bars_waiting`` asks for another (empty) step: more bars are due than one call takes.
        """
        matrices: list[Matrix] = []
        events = [self._event(*what) for what in self._announcements]
        self._announcements = []
        events += [self._install(fit) for fit in step.installs]
        for source in step.discovered:
            # a partition that appears later may hold what belonged into bars that are closed
            self.intake.discover(source, self._due * self.universe.bar if self._due else NO_TIME)
        for batch in step.batches:
            self.intake.admit(batch)
        for mark in step.watermarks:
            self.intake.decide(mark)
        n_bars, waiting = self._close_bars(matrices, events)
        # rejects of bars that wait have to come in their order
        bound_ns = self._due * self.universe.bar if waiting else self.intake.watermark_ns()
        rejects = self.intake.take_rejects(bound_ns)
        counts = dict(self.intake.counts)
        self.intake.counts.clear()
        if duplicates := self._layer.take_duplicates():
            counts[("", "duplicate")] = duplicates
        return Effects(tuple(matrices), tuple(events), tuple(rejects), counts, n_bars, waiting)

    def state(self) -> Arrays:
        """Return copies of all that makes up the state, as arrays by dotted name.

        ``engine.facts`` is JSON: what is a number or a name, and what the arrays mean. The
        same input and decisions give the same bytes as soon as no bars wait.
        """
        facts = {
            "symbols": self.universe.symbols,
            "bar_ns": self.universe.bar,
            "price": self.universe.price,
            "due": self._due,
            "last_bar": self._last_bar,
            "data_from_ns": self._data_from_ns,
            "unpublished": self._unpublished,
            "sequences": self.sequences(),
            "model_version": self._model_version,
            "fits": {model: sorted(fit.arrays) for model, fit in self._fits.items()},
            "announcements": self._announcements,
        }
        out = {"engine.facts": text_array(facts), **under("intake", self.intake.state())}
        out |= under("membership", self.membership.state())
        out |= under("layer", self._layer.state())
        for model, fit in self._fits.items():
            copies = {name: array.copy() for name, array in fit.arrays.items()}
            out |= under("fit", under(model, copies))
        return {name: out[name] for name in sorted(out)}

    @classmethod
    def from_state(
        cls,
        config: Config,
        universe: UniverseConfig,
        software_version: str,
        state: Mapping[str, npt.NDArray[Any]],
    ) -> Self:
        """Continue from what ``state`` returned under the same settings."""
        facts = read_text(state["engine.facts"])
        assert facts["symbols"] == list(universe.symbols), "symbols change by migrate alone"
        assert facts["bar_ns"] == universe.bar, "settings change by reset alone"
        engine = cls(config, universe, software_version)
        engine.intake = Intake.from_state(config, universe, within("intake", state))
        engine.membership = Membership.from_state(
            universe.symbols, universe.ready_n_eff, within("membership", state)
        )
        engine._layer = TickLayer.from_state(config, universe, within("layer", state))
        engine._due = facts["due"]
        engine._last_bar = facts["last_bar"]
        engine._data_from_ns = facts["data_from_ns"]
        engine._unpublished = facts["unpublished"]
        engine.resume_sequences(facts["sequences"])
        engine._model_version = facts["model_version"]
        engine._announcements = [(type_, at, what) for type_, at, what in facts["announcements"]]
        for model, names in facts["fits"].items():
            arrays = {name: state[f"fit.{model}.{name}"].copy() for name in names}
            engine._fits[model] = Fit(model, arrays)
        return engine

    def announce(self, type_: str, details: Mapping[str, object]) -> None:
        """Let the next step begin with an event."""
        self._announcements.append((type_, self._due * self.universe.bar, dict(details)))

    def retire(self, sources: Iterable[Source]) -> None:
        """Go on without these sources, and let the next step say so."""
        gone = sorted(sources)
        for source in gone:
            self.intake.retire(source)
        self.announce("sources_retired", {"sources": [[*source] for source in gone]})

    def _install(self, fit: Fit) -> Event:
        self._model_version += 1
        self._fits[fit.model] = fit
        details: dict[str, object] = {"model": fit.model, "model_version": self._model_version}
        return self._event("refit_installed", self._due * self.universe.bar, details)

    def _close_bars(self, matrices: list[Matrix], events: list[Event]) -> tuple[int, bool]:
        bar_ns, every = self.universe.bar, self.universe.every
        watermark_ns = self.intake.watermark_ns()
        if watermark_ns == NO_TIME:
            return 0, False
        due = watermark_ns // bar_ns  # bars before this number are complete
        if due <= self._due:
            return 0, False
        bars = self.intake.bars_before(due * bar_ns, bar_ns)
        assert not len(bars) or bars[0] >= self._due
        waiting = len(bars) > BARS_PER_STEP_MAX
        if waiting:
            due = int(bars[BARS_PER_STEP_MAX])
            bars = bars[:BARS_PER_STEP_MAX]
        passed = np.diff(bars, prepend=bars[:1] - 1 if self._last_bar < 0 else self._last_bar)
        elapsed = self._layer.elapsed(bars, self._last_bar)
        ticks = self.intake.take(due * bar_ns)
        # one publishing period after the other: what is published must not know the next
        for period in np.unique(bars // every):
            self._publish_before(int(period), matrices, events)
            inside = bars // every == period
            gaps = gaps_of(bars[inside], passed[inside], elapsed[inside], self._layer.gap_bars)
            upto = int(np.searchsorted(ticks.time_ns, (period + 1) * every * bar_ns))
            folded = self._layer.fold(ticks.rows(0, upto), bars[inside], elapsed[inside])
            ticks = ticks.rows(upto, len(ticks.time_ns))
            notes = notes_of(bar_ns, self.universe.symbols, folded, gaps)
            events += [self._event(*note) for note in notes]
            for source, offset, reason, value, time_ns in folded.refused:
                self.intake.refuse(source, time_ns, (offset, reason, value))
            self.intake.count_applied(folded.counts)
            if self._data_from_ns == NO_TIME and folded.first_ns != NO_TIME:
                self._data_from_ns = folded.first_ns // bar_ns * bar_ns
            self._unpublished |= folded.observed
            self._last_bar = int(bars[inside][-1])
        self._publish_before(due // every, matrices, events)
        self._due = due
        return len(bars), waiting

    def _publish_before(self, period: int, matrices: list[Matrix], events: list[Event]) -> None:
        """Publish the period of the last bar if it ends at or before the start of ``period``."""
        own = self._last_bar // self.universe.every
        if not self._unpublished or own >= period:
            return
        self._unpublished = False
        as_of_ns = (own + 1) * self.universe.every * self.universe.bar
        known = self._layer.correlation()
        was_ready = self.membership.ready
        if self.membership.update(known):
            self._announce(was_ready, as_of_ns, events)
        if self.membership.ready.sum() >= 2:
            matrices.append(self._matrix(known, as_of_ns))

    def _announce(self, was_ready: np.ndarray, as_of_ns: int, events: list[Event]) -> None:
        now = self.membership.ready
        changes = {"symbol_ready": now & ~was_ready, "symbol_pending": was_ready & ~now}
        for type_, mask in changes.items():
            if mask.any():
                symbols = [s for s, m in zip(self.universe.symbols, mask, strict=True) if m]
                events.append(self._event(type_, as_of_ns, {"symbols": symbols}))

    def _matrix(self, known: TwoScaleCorrelation, as_of_ns: int) -> Matrix:
        universe, ready = self.universe, self.membership.ready
        chosen = np.flatnonzero(ready)
        n = len(chosen)
        cut = np.ix_(chosen, chosen)
        by_name = self._canonical[ready[self._canonical]]
        estimate = known.corr[cut]
        repaired = repair_correlation(
            estimate, eigenvalue_floor(n), np.searchsorted(chosen, by_name)
        )
        corr, n_eff = repaired.corr, known.n_eff[cut]
        band = self._layer.band(known, corr, cut)
        upper = np.triu_indices(n, 1)
        self._sequence += 1
        return Matrix(
            universe=universe.name,
            universe_id=universe.universe_id,
            estimator="ewma",
            sequence=self._sequence,
            as_of_ns=as_of_ns,
            data_from_ns=self._data_from_ns,
            horizon_ns=universe.bar,
            bar_ns=universe.bar,
            symbols=tuple(universe.symbols[i] for i in chosen),
            pending=tuple(s for s, r in zip(universe.symbols, ready, strict=True) if not r),
            corr=corr,
            vol=self._layer.vol(known, as_of_ns)[chosen],
            n_eff=n_eff,
            band=band,
            band_total=self._layer.band_total(corr, band, cut),
            staleness_ns=as_of_ns - self._layer.last_time_ns()[chosen],
            quality=Quality(
                min_eigenvalue=repaired.min_eigenvalue,
                repair=repaired.repair,
                capped_pairs=(int((np.abs(estimate) >= CORRELATION_CAP).sum()) - n) // 2,
                degraded=("repaired",) if repaired.repair > 0.0 else (),
                raw_variances=known.raw_variances if self._layer.two_scales else None,
                floored_variances=known.floored_variances if self._layer.two_scales else None,
            ),
            regime=Regime(
                # an exact sum: the order of the symbols must not show in the last bit
                average_correlation=math.fsum(corr[upper]) / len(upper[0]),
                top_eigenvalue_share=repaired.max_eigenvalue / n,
            ),
            annualisation=math.sqrt(YEAR_NS / universe.bar),
            return_type=universe.return_type,
            price_policy=universe.price,
            config_fingerprint=self.fingerprint,
            software_version=self.software_version,
            model_version=self._model_version,
            audit=self._audit(corr, chosen, by_name),
        )

    def _audit(self, corr: F64, chosen: I64, by_name: I64) -> Mapping[str, object] | None:
        other = self._layer.audit()
        if other is None:
            return None
        cut, order = np.ix_(chosen, chosen), np.searchsorted(chosen, by_name)
        symbols = tuple(self.universe.symbols[i] for i in chosen)
        found = compare_correlations(corr, other[cut], symbols, order)
        return None if found is None else {"estimator": "hayashi_yoshida", **found}

    def _event(self, type_: str, time_ns: int, details: Mapping[str, object]) -> Event:
        self._event_sequence += 1
        return Event(self.universe.name, self._event_sequence, type_, time_ns, details)
