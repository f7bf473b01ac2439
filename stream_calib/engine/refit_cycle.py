"""From an alarm to another model: stages, a challenger in shadow, a swap, and the way back."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from stream_calib.config import UniverseConfig
from stream_calib.engine.arrays import Arrays, read_text, text_array, under, within
from stream_calib.engine.reference import Reference
from stream_calib.engine.watch import Watch
from stream_calib.estimation.calendar import DAY_NS
from stream_calib.estimation.calibrated import DCC_MODEL
from stream_calib.estimation.contest import Contest
from stream_calib.estimation.dcc_model import FIT_LAYOUT, DccModel
from stream_calib.estimation.moved import moved
from stream_calib.estimation.protocol import Layout
from stream_calib.values import (
    I64,
    Alarm,
    DriftStatus,
    Fit,
    FitRequest,
    ReturnBlock,
)

FULL_MIN_BARS = 1000  # since a change: fewer say less of a, b and GARCH than the old model does
FULL_BARS_PER_SYMBOL = 2
STAGES = (30, 50, 75, 100, 150, 200, 300, 400, 600, 800)  # bars since a change: a target each
TARGET = "target"  # kind of a fit that moves the target alone
Rows = Callable[[], ReturnBlock]


class Turn(NamedTuple):
    """An event to be; with a ``report`` another model has come into force."""

    type: str
    details: Mapping[str, object]
    report: Mapping[str, object] | None = None


class Shadow(NamedTuple):
    """A model beside the one in force, until one of the two leads; ``report`` is said of it."""

    model: DccModel
    contest: Contest
    report: Mapping[str, object]


@dataclass
class _Facts:
    """What is no array: bars are counted, and ``change`` is the last one before a change."""

    alarm: dict[str, Any] | None = None  # that nothing has confirmed or refuted yet
    raised: int = 0  # the bar of that alarm
    change: int = 0
    change_ns: int = 0
    regime: int = 0  # the change that the model in force is fitted to
    regime_ns: int | None = None
    undo: dict[str, Any] = field(default_factory=dict)  # what comes back with the fallback
    stage: int = 0  # bars since the change at which the next target is due; 0: none is
    cooled: int = 0  # the bar up to which the model before may come back
    n_references: int = 0
    watched: int = 0
    refuted: int = 0
    alarms: dict[str, int] = field(default_factory=dict)


class RefitCycle:
    """The models of one universe: in force, in shadow, and the one that drift is measured from.

    Parameters
    ----------
    universe
        Settings.

    Attributes
    ----------
    model
        The one in force; None before the first fit.
    report
        What is said of the model in force.
    turns
        What happened, for whoever tells of it to take.
    """

    LAYOUTS: Mapping[str, Layout] = {
        **{
            f"{which}.{part}": layout
            for which in ("model", "challenger", "fallback")
            for part, layout in DccModel.LAYOUTS.items()
        },
        "prior.fit": FIT_LAYOUT,
        **{f"watch.{part}": layout for part, layout in Watch.LAYOUTS.items()},
    }

    def __init__(self, universe: UniverseConfig) -> None:
        self._universe, self._settings = universe, universe.drift
        self._order: I64 = np.argsort(np.array(universe.symbols))
        self.bar_ns = universe.dcc.bars_per_bar(universe.bar) * universe.bar
        self._full_bars = max(FULL_MIN_BARS, FULL_BARS_PER_SYMBOL * len(universe.symbols))
        self.model: DccModel | None = None
        self.turns: list[Turn] = []
        self._facts = _Facts()
        self.report: Mapping[str, object] = {}
        self._challenger: Shadow | None = None
        self._fallback: Shadow | None = None
        self._prior: Fit | None = None  # in force at the last alarm: what targets are moved from
        self._watch: Watch | None = None

    # bars

    def observe(self, block: ReturnBlock, n_closed: int, rows: Rows) -> None:
        """Take in a bar, the ``n_closed``-th; ``rows`` returns the newest ones up to it."""
        if self.model is None:
            return
        forecast = self.model.forecast()
        z = self.model.update(block)
        for shadow in (self._challenger, self._fallback):
            if shadow is not None:
                shadow.contest.update(z.returns[0], forecast, shadow.model.forecast())
                shadow.model.update(block)
        watch = self._watch
        self._judge(n_closed)
        # one that begins with this bar has seen it already, and knows nothing of the old forecast
        if watch is not None and self._watch is watch:
            alarms, sees = watch.update(block, z, forecast)
            self._facts.watched += 1
            if sees:
                sight = {"power_bars": watch.reference.power, "fitted_bars": watch.reference.bars}
                self.turns.append(Turn("drift_watched", sight))
            if alarms and self._facts.alarm is None:
                self._raise(alarms[0], n_closed, rows())
        facts = self._facts
        if facts.alarm and n_closed - facts.raised >= self._settings.give_up_bars:
            self.turns.append(Turn("drift_refuted", dict(facts.alarm)))
            self._challenger = self._prior = None
            facts.alarm, facts.stage, facts.refuted = None, 0, facts.refuted + 1

    def _judge(self, n_closed: int) -> None:
        challenger, fallback, facts = self._challenger, self._fallback, self._facts
        if fallback is not None and fallback.contest.verdict == "won":
            # targets go on to be fitted: with more bars one may do better
            self._challenger = self._fallback = None
            for name, value in facts.undo.items():
                setattr(facts, name, value)
            self._enter(fallback, "refit_rolled_back", cause="drift")
            self._refer()
        elif challenger is not None and challenger.contest.verdict == "won":
            self._promote(challenger, n_closed)
        elif challenger is not None and challenger.contest.verdict == "lost":
            self._challenger = None
            reason = {"reason": "it predicts worse than the model in force", "cause": "drift"}
            self.turns.append(Turn("refit_rejected", _about(challenger) | reason))
        fallback = self._fallback
        if fallback is not None and (n_closed >= facts.cooled or fallback.contest.verdict):
            self._fallback = None

    def _promote(self, challenger: Shadow, n_closed: int) -> None:
        assert self.model is not None
        facts, self._challenger = self._facts, None
        if self._fallback is None:
            facts.undo = {n: getattr(facts, n) for n in ("regime", "regime_ns", "alarm")}
            facts.cooled = n_closed + self._settings.cool_down_bars
            contest = Contest(self._settings.lead_back, self._order)
            self._fallback = Shadow(self.model, contest, self.report)
        else:
            # log ratios add up: what it led by, it now leads by less
            self._fallback.contest.yield_to(challenger.contest)
        first, last = facts.alarm is not None, facts.stage == 0
        facts.regime, facts.regime_ns, facts.alarm = facts.change, facts.change_ns, None
        self._enter(challenger, "refit_installed")
        if first or last:  # each time it is blind for a while
            self._refer()

    def _raise(self, alarm: Alarm, n_closed: int, rows: ReturnBlock) -> None:
        assert self._watch is not None
        self._watch.drop()
        facts, kept = self._facts, len(rows.returns)
        since = min(alarm.since, kept)
        began = [
            int(rows.time_ns[-min(ago, kept)]) - self.bar_ns
            for ago in (alarm.since, alarm.since_max, alarm.since_min)
        ]
        facts.alarms[alarm.alternative] = facts.alarms.get(alarm.alternative, 0) + 1
        number = sum(facts.alarms.values())
        facts.alarm = {"alternative": alarm.alternative, "number": number}
        facts.raised, facts.change, facts.change_ns = n_closed, n_closed - since, began[0]
        facts.stage = max(STAGES[0], since)
        assert self.model is not None
        self._challenger, self._fallback, self._prior = None, None, self.model.fit
        status = self.status()
        assert status is not None
        details: dict[str, object] = {
            **facts.alarm,
            "level": alarm.level,
            "since_ns": str(began[0]),
            "since_interval_ns": [str(time_ns) for time_ns in began[1:]],
            "bars_since": since,
            "arl0_bars": status.arl0_bars,
            "false_alarms_per_day": status.false_alarms_per_day,
            "bars_per_alarm": status.bars_per_alarm,
            "reference_bars": status.reference_bars,
        }
        z, expected = self._watch.reference.judged(rows)
        details |= moved(z[-since:], expected, self._universe.symbols, self._order)
        self.turns.append(Turn("drift_alarm", details))

    def _enter(self, shadow: Shadow, type_: str, **more: str) -> None:
        self.model, self.report = shadow.model, shadow.report
        self.turns.append(Turn(type_, _about(shadow) | more, shadow.report))

    def _refer(self) -> None:
        # ranks and chains begin anew, from the model that is in force now
        reference = self._reference()
        if reference is not None:
            self._watch = Watch(reference)
            self.turns.append(Turn("drift_blind", {"symbols": reference.n}))

    def _reference(self) -> Reference | None:
        if self._settings.detector == "none" or self.model is None:
            return None
        self._facts.n_references += 1
        name = f"{self._universe.name}|{self._facts.n_references}"
        digest = hashlib.blake2b(name.encode(), digest_size=6).digest()
        arl0, seed = self._settings.arl0_rows(self.bar_ns), int.from_bytes(digest, "big")
        return Reference.begin(self.model, self._order, arl0=arl0, seed=seed)

    # fits

    def stage_due(self, n_closed: int) -> bool:
        """Whether a target is to be fitted to what came since the change."""
        return self._prior is not None and 0 < self._facts.stage <= n_closed - self._facts.change

    def begin_stage(self, n_closed: int, time_ns: I64) -> tuple[dict[str, object], Arrays]:
        """Return what a target is fitted with besides rows, which end at ``time_ns``."""
        assert self._prior is not None
        facts = self._facts
        bars = n_closed - facts.change
        facts.stage = next((stage for stage in STAGES if stage > bars), 0)
        since = int(np.searchsorted(time_ns, facts.change_ns, side="right"))
        settings: dict[str, object] = {
            "kind": TARGET,
            "since_ns": str(facts.change_ns),
            "since": since,
            "from_ns": int(time_ns[since]),
        }
        return settings, under("old", self._prior.arrays)

    def full_allowed(self, n_closed: int) -> bool:
        """Whether a full fit is worth while: not as long as a change is young."""
        facts = self._facts
        young = facts.regime > 0 and n_closed - facts.regime < self._full_bars
        return facts.alarm is None and not young

    def regime_bars(self, n_closed: int) -> int:
        """Bars since the present regime began."""
        return n_closed - self._facts.regime

    def take(
        self, fit: Fit, request: FitRequest, rows: ReturnBlock, report: Mapping[str, object]
    ) -> str:
        """Go on with a fit that can be used; return why not, or nothing.

        A full fit comes into force at once, a target only has its bars in shadow.
        """
        facts, dcc = self._facts, self._universe.dcc
        targeted = request.settings.get("kind") == TARGET
        if request.reason == "schedule" and facts.alarm is not None:
            return "an alarm has been raised since it was asked for"
        start = 0
        if targeted:
            going_on = facts.alarm is not None or facts.regime == facts.change
            if not going_on or request.settings["since_ns"] != str(facts.change_ns):
                return "the change that it was for is over"
            start = int(np.searchsorted(rows.time_ns, facts.change_ns, side="right"))
        old = self._prior if targeted else None
        model = DccModel.begin(
            fit, rows, start, half_life_obs=dcc.vol_half_life_bars, cap=dcc.winsor, old=old
        )
        contest = Contest(self._settings.lead, self._order)
        if targeted:
            if self._challenger is not None:
                contest = self._challenger.contest  # what challenges may change, the lead is kept
            self._challenger = Shadow(model, contest, report)
            self.turns.append(Turn("refit_shadowed", _about(self._challenger)))
            return ""
        self._challenger = self._fallback = self._prior = None
        facts.stage = 0
        self._enter(Shadow(model, contest, report), "refit_installed")
        if facts.alarm is not None:
            self.turns.append(Turn("drift_dropped", dict(facts.alarm)))
        if facts.regime_ns is not None and int(str(request.settings["from_ns"])) < facts.regime_ns:
            facts.regime, facts.regime_ns = 0, None  # fitted to what was before as well
        watched = 0 if self._watch is None else self._watch.reference.n
        covers_more = int(np.isfinite(np.diagonal(model.params.target)).sum()) > watched
        if request.reason != "schedule" or covers_more:
            facts.alarm = None
            self._refer()
        elif self._watch is not None and self._watch.outgrown_by(model):
            successor = self._reference()
            if successor is not None:
                self._watch.prepare(successor)
        return ""

    # what is known

    @property
    def shift_ns(self) -> int | None:
        """When the regime began that the model in force is fitted to; None for the first."""
        return self._facts.regime_ns

    @property
    def level(self) -> float | None:
        """Statistic of the watch for drift over its threshold; None where there is none."""
        return None if self._watch is None else self._watch.reference.level

    def status(self) -> DriftStatus | None:
        """Return how far the watch for drift is; None where there is none."""
        if self._watch is None:
            return None
        facts, arl0 = self._facts, self._settings.arl0_rows(self.bar_ns)
        reference = self._watch.reference
        return DriftStatus(
            level=reference.level,
            arl0_bars=arl0,
            false_alarms_per_day=-math.expm1(-DAY_NS / self.bar_ns / arl0),
            power_bars=reference.power,
            reference_bars=reference.rows,
            watched_bars=facts.watched,
            alarms=dict(facts.alarms),
            refuted=facts.refuted,
        )

    # state

    def state(self) -> Arrays:
        """Return copies of all arrays that make up the state."""
        # reports as texts: the order of what they say is that of the bytes to be published
        told: dict[str, object] = {"facts": asdict(self._facts), "report": json.dumps(self.report)}
        out: Arrays = {}
        if self.model is not None:
            out |= under("model", self.model.state())
        for which, shadow in (("challenger", self._challenger), ("fallback", self._fallback)):
            if shadow is not None:
                out |= under(which, shadow.model.state())
                out |= under(f"{which}.contest", shadow.contest.state())
                told[which] = json.dumps(shadow.report)
        if self._prior is not None:
            out |= under("prior.fit", {k: a.copy() for k, a in self._prior.arrays.items()})
        if self._watch is not None:
            out |= under("watch", self._watch.state())
        return out | {"facts": text_array(told)}

    @classmethod
    def from_state(cls, universe: UniverseConfig, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Continue from what ``state`` returned under the same settings."""
        cycle = cls(universe)
        told = read_text(state["facts"])
        cycle._facts = _Facts(**told["facts"])
        cycle.report = json.loads(told["report"])
        if own := within("model", state):
            cycle.model = DccModel.from_state(DCC_MODEL, own)
        for which in ("challenger", "fallback"):
            if which in told:
                own = within(which, state)
                contest = Contest.from_state(within("contest", own), cycle._order)
                model = {k: a for k, a in own.items() if not k.startswith("contest.")}
                report = json.loads(told[which])
                shadow = Shadow(DccModel.from_state(DCC_MODEL, model), contest, report)
                setattr(cycle, f"_{which}", shadow)
        if own := within("prior.fit", state):
            cycle._prior = Fit(DCC_MODEL, {name: array.copy() for name, array in own.items()})
        if own := within("watch", state):
            cycle._watch = Watch.from_state(own, cycle._order)
        return cycle


def _about(shadow: Shadow) -> dict[str, object]:
    known = {"model": shadow.model.fit.model, "reason": shadow.report["reason"]}
    contest = shadow.contest
    return known | ({"bars": contest.rows, "lead": contest.log_ratio} if contest.rows else {})


def calmed(facts: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return the facts of a state without its shadows, its alarm and what drift is measured from.

    For other symbols, to which none of these belongs.
    """
    told = read_text(facts)
    kept = {name: told[name] for name in ("facts", "report")}
    kept["facts"] |= {"alarm": None, "undo": {}, "stage": 0, "cooled": 0}
    return text_array(kept)
