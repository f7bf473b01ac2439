"""The program: ``advance(step) -> Effects``, one universe, no clock."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stream_calib.config import Config, UniverseConfig
from stream_calib.engine.arrays import Arrays, read_text, text_array, under, within
from stream_calib.engine.dcc_layer import DccLayer
from stream_calib.engine.intake import Intake
from stream_calib.engine.membership import Membership
from stream_calib.engine.notable import gaps_of, notes_of
from stream_calib.engine.publisher import Chosen, Measures, Publisher
from stream_calib.engine.tick_layer import TickLayer
from stream_calib.estimation.calibrated import DCC_MODEL
from stream_calib.values import (
    F64,
    I64,
    NO_TIME,
    Calibration,
    Correlation,
    DriftStatus,
    Effects,
    Event,
    FitRequest,
    Matrix,
    Score,
    Source,
    Step,
)

BARS_PER_STEP_MAX = 256  # keeps one call of advance in milliseconds


@dataclass
class _Brought:
    """What a step has brought about so far."""

    matrices: list[Matrix] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    calibrations: list[Calibration] = field(default_factory=list)
    drift: DriftStatus | None = None
    scores: list[Score] = field(default_factory=list)


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
        self.intake = Intake(config, universe)
        self.membership = Membership(universe.symbols, universe.ready_n_eff)
        self._publisher = Publisher(config, universe, software_version)
        self._layer = TickLayer(config, universe)
        self._dcc = DccLayer(config, universe) if universe.dcc.enabled else None
        self._due = 0
        self._last_bar = -1
        self._data_from_ns = NO_TIME
        self._unpublished = False
        self._announcements: list[tuple[str, int, dict[str, object]]] = []

    @property
    def fingerprint(self) -> str:
        """Identity of the settings that can change what is published."""
        return self._publisher.fingerprint

    @property
    def software_version(self) -> str:
        """What every matrix says it was made by."""
        return self._publisher.software_version

    @software_version.setter
    def software_version(self, version: str) -> None:
        self._publisher.software_version = version

    def sequences(self) -> dict[str, int]:
        """Return the last number published, by estimator and for "events"."""
        return dict(self._publisher.sequences)

    def resume_sequences(self, last: Mapping[str, int]) -> None:
        """Go on after these numbers; what is not named stays."""
        self._publisher.resume(last)

    def pending_fit(self) -> FitRequest | None:
        """Return what was asked for and is not answered yet."""
        return None if self._dcc is None else self._dcc.pending

    def model(self) -> tuple[int, int]:
        """Return the number of the model in force, and the end of the bars it was fitted to."""
        fitted_ns = NO_TIME if self._dcc is None else self._dcc.fitted_ns
        return self._publisher.model_version, fitted_ns

    def window(self) -> FitRequest | None:
        """Return what a fit would be made from by now; None without DCC."""
        return None if self._dcc is None else self._dcc.window(0, "manual")

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

        Notes
        -----
        With ``refit.late = "wait"`` no bar is closed while ``pending_fit`` is not answered.
        """
        brought = _Brought([], [self._publisher.event(*what) for what in self._announcements])
        self._announcements = []
        self._answer(step, brought)
        for source in step.discovered:
            # a partition that appears later may hold what belonged into bars that are closed
            self.intake.discover(source, self._due * self.universe.bar if self._due else NO_TIME)
        for batch in step.batches:
            self.intake.admit(batch)
        for mark in step.watermarks:
            self.intake.decide(mark)
        n_bars, waiting = self._close_bars(brought)
        # rejects of bars that wait have to come in their order
        stopped = waiting or (self._dcc is not None and self._dcc.held)
        bound_ns = self._due * self.universe.bar if stopped else self.intake.watermark_ns()
        rejects = self.intake.take_rejects(bound_ns)
        counts = dict(self.intake.counts)
        self.intake.counts.clear()
        if duplicates := self._layer.take_duplicates():
            counts[("", "duplicate")] = duplicates
        return Effects(
            tuple(brought.matrices),
            tuple(brought.events),
            tuple(rejects),
            counts,
            n_bars,
            waiting,
            tuple(brought.calibrations),
            brought.drift,
            self._publisher.describe(brought.matrices),
            tuple(brought.scores),
        )

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
            **self._publisher.facts(),
            "announcements": self._announcements,
        }
        out = {"engine.facts": text_array(facts), **under("intake", self.intake.state())}
        out |= under("membership", self.membership.state())
        out |= under("layer", self._layer.state())
        if self._dcc is not None:
            out |= under("dcc", self._dcc.state())
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
        if engine._dcc is not None:
            engine._dcc = DccLayer.from_state(config, universe, within("dcc", state))
            engine._publisher.note_drift(engine._dcc.drift_level, engine._dcc.shift_ns)
        engine._due = facts["due"]
        engine._last_bar = facts["last_bar"]
        engine._data_from_ns = facts["data_from_ns"]
        engine._unpublished = facts["unpublished"]
        engine._publisher.restore(facts)
        engine._announcements = [(type_, at, what) for type_, at, what in facts["announcements"]]
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

    def _answer(self, step: Step, brought: _Brought) -> None:
        """Take in what came of requests for fits, and what people ask for."""
        dcc, at_ns = self._dcc, self._due * self.universe.bar
        for fit in step.installs:
            assert dcc is not None, "nobody asks for fits without a model"
            dcc.install(fit)
            self._tell_turns(dcc, at_ns, brought)
        for failure in step.failures:
            if dcc is not None and dcc.fail(failure):
                told = {"model": failure.model, "code": failure.code, "reason": failure.reason}
                brought.events.append(self._publisher.event("refit_failed", at_ns, told))
        if step.refit and dcc is not None:
            dcc.demand()

    def _tell_turns(self, dcc: DccLayer, at_ns: int, brought: _Brought) -> None:
        publisher = self._publisher
        for type_, told, report in dcc.take_turns():
            details = dict(told)
            if report is not None:
                publisher.model_version += 1
                details["model_version"] = version = publisher.model_version
                calibration = Calibration(self.universe.name, version, at_ns, DCC_MODEL, report)
                brought.calibrations.append(calibration)
            brought.events.append(publisher.event(type_, at_ns, details))
        publisher.note_drift(dcc.drift_level, dcc.shift_ns)

    def _close_bars(self, brought: _Brought) -> tuple[int, bool]:
        """Fold in the bars that are complete; return how many, and whether more are."""
        bar_ns = self.universe.bar
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
        elapsed = self._layer.elapsed(bars, self._last_bar)
        coarse = bars // (1 if self._dcc is None else self._dcc.k)
        cuts = [0, *(np.flatnonzero(np.diff(coarse)) + 1).tolist(), len(bars)]
        for start, stop in pairwise(cuts if len(bars) else [0]):
            if not self._publish_before(int(bars[start]), brought):
                return start, False  # the rest stays where it is
            end = int(bars[stop]) if stop < len(bars) else due
            self._fold(end, bars[start:stop], elapsed[start:stop], brought)
        if not self._publish_before(due, brought):
            return len(bars), False
        self._due = due
        return len(bars), waiting

    def _fold(self, end: int, bars: I64, elapsed: F64, brought: _Brought) -> None:
        """Take in bars of one DCC bar; ``end`` is the next bar, or the first that is not due."""
        bar_ns, every = self.universe.bar, self.universe.every
        passed = np.diff(bars, prepend=bars[:1] - 1 if self._last_bar < 0 else self._last_bar)
        ticks = self.intake.take(end * bar_ns)
        # one publishing period after the other: what is published must not know the next
        for period in np.unique(bars // every):
            inside = bars // every == period
            self._publish_before(int(bars[inside][0]), brought)
            gaps = gaps_of(bars[inside], passed[inside], elapsed[inside], self._layer.gap_bars)
            upto = int(np.searchsorted(ticks.time_ns, (period + 1) * every * bar_ns))
            folded = self._layer.fold(ticks.rows(0, upto), bars[inside], elapsed[inside])
            ticks = ticks.rows(upto, len(ticks.time_ns))
            if self._dcc is not None:
                self._dcc.fold(folded.block)
            notes = notes_of(bar_ns, self.universe.symbols, folded, gaps)
            brought.events += [self._publisher.event(*note) for note in notes]
            for source, offset, reason, value, time_ns in folded.refused:
                self.intake.refuse(source, time_ns, (offset, reason, value))
            self.intake.count_applied(folded.counts)
            if self._data_from_ns == NO_TIME and folded.first_ns != NO_TIME:
                self._data_from_ns = folded.first_ns // bar_ns * bar_ns
            self._unpublished |= bool(folded.block.exposure.any())
            self._last_bar = int(bars[inside][-1])

    def _publish_before(self, bar: int, brought: _Brought) -> bool:
        """Publish what ends at or before the start of ``bar``, in order of time.

        Returns
        -------
        bool
            False when a fit has to be awaited first.
        """
        start_ns = bar * self.universe.bar
        period_ns = self.universe.every * self.universe.bar
        while True:
            if self._dcc is not None and self._dcc.held:
                return False
            ends_ns = (self._last_bar * self.universe.bar // period_ns + 1) * period_ns
            ewma_ns = ends_ns if self._unpublished else start_ns + 1
            dcc_ns = NO_TIME if self._dcc is None else self._dcc.due_ns
            if dcc_ns == NO_TIME:
                dcc_ns = start_ns + 1
            if min(ewma_ns, dcc_ns) > start_ns:
                return True
            if ewma_ns <= dcc_ns:
                self._publish_ewma(ewma_ns, brought)
            else:
                self._close_dcc(dcc_ns, brought)

    def _publish_ewma(self, as_of_ns: int, brought: _Brought) -> None:
        self._unpublished = False
        layer, publisher = self._layer, self._publisher
        known, quoted_vol = layer.known(as_of_ns)
        brought.events += publisher.readiness(self.membership, known, as_of_ns)
        chosen = publisher.chosen(self.membership)
        if len(chosen.places) < 2:
            return
        two = layer.two_scales
        estimate = publisher.estimate(
            known,
            chosen,
            raw=known.raw_variances if two else None,
            floored=known.floored_variances if two else None,
        )
        band = layer.band(known, estimate.corr, chosen.cut)
        measures = Measures(
            "filtered",
            self._data_from_ns,
            known.vol[chosen.places],
            band,
            layer.band_total(estimate.corr, band, chosen.cut),
            layer.last_time_ns()[chosen.places],
            layer.audit(estimate.corr, chosen.places, chosen.order, quoted_vol),
        )
        bar_ns = self.universe.bar
        matrix = publisher.matrix("ewma", bar_ns, as_of_ns, chosen, estimate, measures)
        brought.matrices.append(matrix)

    def _close_dcc(self, as_of_ns: int, brought: _Brought) -> None:
        dcc, publisher = self._dcc, self._publisher
        assert dcc is not None
        observed = dcc.close()
        self._tell_turns(dcc, as_of_ns, brought)
        brought.drift = dcc.drift()
        pattern = self._layer.pattern(as_of_ns)
        if observed and publisher.scoreboard is not None:
            returns = dcc.realised(pattern)
            brought.scores += publisher.scoreboard.close(as_of_ns, returns, dcc.bar_ns)
        known = dcc.known(pattern) if observed else None
        if known is not None:
            brought.events += publisher.readiness(dcc.membership, known, as_of_ns, estimator="dcc")
            chosen = publisher.chosen(dcc.membership)
            if len(chosen.places) >= 2:
                brought.matrices.append(self._dcc_matrix(dcc, known, chosen, as_of_ns))
        request = dcc.request()
        if request is not None:
            details = {"model": request.model, "number": request.number, "reason": request.reason}
            brought.events.append(publisher.event("refit_requested", as_of_ns, details))
            if dcc.held:
                self._due = as_of_ns // self.universe.bar

    def _dcc_matrix(
        self, dcc: DccLayer, known: Correlation, chosen: Chosen, as_of_ns: int
    ) -> Matrix:
        estimate = self._publisher.estimate(known, chosen)
        measures = Measures(
            "forecast",
            self._data_from_ns,
            known.vol[chosen.places],
            dcc.band(known, estimate.corr, chosen.cut),
            None,
            self._layer.last_time_ns()[chosen.places],
        )
        return self._publisher.matrix("dcc", dcc.bar_ns, as_of_ns, chosen, estimate, measures)
