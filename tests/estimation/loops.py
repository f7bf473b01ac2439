"""The loop after an alarm over a matrix of standardised returns, and what it is measured by.

Alarm, targets moved by the rows since the change at growing numbers of rows, each challenger
in shadow, installed when it leads on rows that it was not made from, and the old model in shadow
through the cool-down. The engine does the same from ticks; here is nothing but the rows.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np

from stream_calib.config.dcc import DriftConfig
from stream_calib.engine.refit_cycle import STAGES
from stream_calib.estimation.calibration import tilting
from stream_calib.estimation.calibration.tilting import move_target
from stream_calib.estimation.contest import Contest
from stream_calib.estimation.dcc import Dcc
from stream_calib.estimation.dcc_model import REMEMBERED
from stream_calib.estimation.drift import DriftDetector
from stream_calib.estimation.shrinkage import shrink_target
from stream_calib.values import F64, Alarm, DccParams
from tests.estimation.truths import Change, shocks, target_of, tilted

COOL_DOWN = 250  # rows for which the old model goes on beside the new one
DROP_SHARE = 0.1
ARL0 = 5000.0
DYNAMICS = (0.02, 0.97)  # a and b of simulated markets
Alarms = Callable[[int, F64], int]  # row and z to how many rows ago a change began; 0: no alarm


class LoopSettings(NamedTuple):
    """What the loop may be told; frozen before it sees real data."""

    stages: Sequence[int] = STAGES
    margin: float = DriftConfig().lead
    back: float = DriftConfig().lead_back  # by which the old model has to lead to come back
    cool_down: int = COOL_DOWN
    drop_share: float = DROP_SHARE


class Happened(NamedTuple):
    """What the loop did at a row, and on how many rows since the change it rests."""

    row: int
    what: str  # alarm, fitted, installed, rejected, rolled_back
    n_post: int


@dataclass
class Loop:
    """The model in force and what goes on beside it; one row at a time.

    ``params`` are those in force; ``alarm`` opens an episode, or opens it anew.
    """

    params: DccParams
    settings: LoopSettings = field(default_factory=LoopSettings)
    happened: list[Happened] = field(default_factory=list)
    clock: str = "observations"

    def __post_init__(self) -> None:
        self.n = len(self.params.target)
        self.serving = Dcc(self.params, self.n, clock=self.clock)
        self.row = 0
        self._rows: list[F64] = []
        self._change = -1  # first row since the change; none: no episode
        self._prior = self.params  # in force at the alarm
        self._stage = 0  # rows at which the target is to be moved next
        self._challenger: Dcc | None = None
        self._contest = Contest(self.settings.margin)
        self._shadow: Dcc | None = None
        self._back = Contest(self.settings.back)
        self._cool = 0
        self._installed = False  # since the alarm

    def corr(self) -> F64:
        """Return the forecast for the next row."""
        return self.serving.correlation().corr

    def update(self, z: F64, since: int = 0) -> None:
        """Take one row in, and the alarm that was raised in it, if any: rows since the change."""
        self._rows.append(z)
        known = self.corr()
        if self._challenger is not None:
            self._contest.update(z, known, self._challenger.correlation().corr)
        if self._shadow is not None:
            self._back.update(z, known, self._shadow.correlation().corr)
        for model in (self.serving, self._challenger, self._shadow):
            if model is not None:
                model.update(z[None, :])
        self.row += 1
        self._judge()
        if since > 0:
            self._open(since)
        self._fit()

    def _judge(self) -> None:
        if self._shadow is not None:
            self._cool -= 1
            if self._back.verdict == "won":
                # the rows since the change go on to be fitted: more of them may do better
                self.serving, self._shadow, self._challenger = self._shadow, None, None
                self._tell("rolled_back")
                return
            if self._back.verdict == "lost" or self._cool <= 0:
                self._shadow = None
        if self._challenger is None or not self._contest.verdict:
            return
        if self._contest.verdict == "won":
            if self._shadow is None:
                self._shadow = self.serving
            self.serving = self._challenger
            self._back = Contest(self.settings.back)
            self._cool = self.settings.cool_down
            self._installed = True
            self._tell("installed")
        else:
            self._tell("rejected")
        self._challenger = None

    def _open(self, since: int) -> None:
        waiting = self._change >= 0 and not self._installed
        if waiting and self.row - self._change < self.settings.cool_down:
            return  # the reference is still the old one, and what it finds is the same change
        self._change = max(0, self.row - since)
        self._prior = self.serving.params
        self._challenger = None
        self._installed = False
        self._stage = self.settings.stages[0]
        self._tell("alarm")

    def _fit(self) -> None:
        n_post = self.row - self._change
        if self._change < 0 or self._stage == 0 or n_post < self._stage:
            return
        later = [stage for stage in self.settings.stages if stage > n_post]
        self._stage = later[0] if later else 0
        post = np.array(self._rows[self._change :])
        moved = move_target(self._prior, post, math.ceil(self.settings.drop_share * n_post))
        if self._challenger is None:
            self._contest = Contest(self.settings.margin)
        # else the lead is kept: what challenges may change, if by the past alone
        own = replace(self._prior, target=moved.target)
        before = Dcc(self._prior, self.n, clock=self.clock)
        for row in self._rows[max(0, self._change - REMEMBERED) : self._change]:
            before.update(row[None, :])
        self._challenger = Dcc(own, self.n, clock=self.clock)
        self._challenger.begin_near(before, moved.kept)
        self._challenger.update(post)
        self._tell("fitted")

    def _tell(self, what: str) -> None:
        n_post = self.row - self._change if self._change >= 0 else 0
        self.happened.append(Happened(self.row, what, n_post))


class Watch:
    """Alarms of a detector whose reference is what the loop last installed.

    ``inflation`` is the dependence of the rows that the first model was fitted to.
    """

    def __init__(self, loop: Loop, arl0: float = ARL0, inflation: F64 | None = None) -> None:
        self._loop, self._arl0, self._seen = loop, arl0, 0
        self._inflation = inflation
        self.alarms: list[tuple[int, Alarm]] = []
        self._detector = self._fresh()

    def _fresh(self) -> DriftDetector:
        loop = self._loop
        params = loop.serving.params
        return DriftDetector(
            params, loop.n, arl0=self._arl0, clock=loop.clock, inflation=self._inflation
        )

    def __call__(self, t: int, row: F64) -> int:
        """Return how many rows ago a change began, or 0."""
        news = self._loop.happened[self._seen :]
        self._seen = len(self._loop.happened)
        if any(event.what in {"installed", "rolled_back"} for event in news):
            self._detector = self._fresh()
        found = self._detector.update(row[None, :])
        self.alarms += [(t, alarm) for alarm in found]
        return found[-1].since if found else 0


class Market(NamedTuple):
    """Rows (t, n) under R (t, n, n), which break after ``before`` of them."""

    z: F64
    corr: F64
    before: int


def dcc_market(
    normals: F64,
    target: F64,
    before: int,
    change: Callable[[F64], F64] | None = None,
    *,
    jump: bool = True,
    dynamics: tuple[float, float] = DYNAMICS,
) -> Market:
    """Run Engle's DCC whose target, and with ``jump`` its Q too, changes after some rows."""
    a, b = dynamics
    q, z = target.copy(), np.empty(normals.shape)
    path = np.empty((*normals.shape, normals.shape[1]))
    for t, shock in enumerate(normals):
        if t == before and change is not None:
            target = change(target)
            q = change(q) if jump else q
        scale = 1.0 / np.sqrt(q.diagonal())
        path[t] = q * np.multiply.outer(scale, scale)
        z[t] = np.linalg.cholesky(path[t]) @ shock
        q = (1.0 - a - b) * target + a * np.multiply.outer(z[t], z[t]) + b * q
    return Market(z, path, before)


def excess(corr: F64, truth: F64) -> float:
    """Return the expected log loss of a forecast over that of the truth, in nats.

    KL = .5 (ln |R| - ln |T| + tr R^-1 T - n)
    """
    log_dets = [float(np.linalg.slogdet(matrix)[1]) for matrix in (corr, truth)]
    trace = float(np.trace(np.linalg.solve(corr, truth)))
    return 0.5 * (log_dets[0] - log_dets[1] + trace - len(corr))


def oracle_losses(
    params: DccParams, market: Market, marks: Sequence[int], never: F64
) -> dict[str, F64]:
    """Return the excess loss of models that know when the break was, at rows after it.

    ``best``: refitted at every stage with the n0, of .25 to 64 n, and with or without a tilt,
    under which the rows up to the next stage are forecast best by the truth: what nobody can
    know. ``same``: as the loop refits, but at once. Before the first stage: ``never``.
    """
    n = len(params.target)
    post, truth = market.z[market.before :], market.corr[market.before :]
    young = [k for k, mark in enumerate(marks) if mark < STAGES[0]]
    out = {"best": np.full(len(marks), np.nan), "same": np.full(len(marks), np.nan)}
    for losses in out.values():
        losses[young] = never[young]
    ends = [*STAGES[1:], len(post)]
    for stage, end in zip(STAGES, ends, strict=True):
        here = [k for k, mark in enumerate(marks) if stage <= mark < end]
        if not here:
            continue
        dropped = math.ceil(DROP_SHARE * stage)
        rows = tilting._filled(params.target, tilting.scaled_news(post[:stage], params)[dropped:])
        tilts = tilting._tilts(params.target, rows, tilting.FOLDS)
        priors = (params.target, tilts.at(*tilts.likely()))
        targets = [
            tilting._blend(prior, rows, tilting.FOLDS, share * n)
            for prior in priors
            for share in (0.25, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
        ]
        found = [_losses(replace(params, target=t), post, truth, marks, here) for t in targets]
        out["best"][here] = found[int(np.argmin([losses.mean() for losses in found]))]
        moved = move_target(params, post[:stage], dropped)
        same = replace(params, target=moved.target)
        out["same"][here] = _losses(same, post, truth, marks, here)
    return out


def _losses(
    params: DccParams, post: F64, truth: F64, marks: Sequence[int], here: Sequence[int]
) -> F64:
    dcc, out, at = Dcc(params, post.shape[1]), [], 0
    for k in here:
        dcc.update(post[at : marks[k]])
        at = marks[k]
        out.append(excess(dcc.correlation().corr, truth[at]))
    return np.array(out)


class Recovery(NamedTuple):
    """Excess losses at ``marks`` rows after a break: without refits, by the loop, by oracles."""

    marks: Sequence[int]
    never: F64
    loop: F64
    oracle: Mapping[str, F64]
    happened: Sequence[Happened]

    def share(self, start: int, stop: int, oracle: str = "best") -> float:
        """Share of the oracle's gain that the loop had, over marks in [start, stop)."""
        cut = [k for k, mark in enumerate(self.marks) if start <= mark < stop]
        gain = float(self.never[cut].sum() - self.oracle[oracle][cut].sum())
        return float(self.never[cut].sum() - self.loop[cut].sum()) / gain


def recovery(
    params: DccParams,
    market: Market,
    marks: Sequence[int],
    settings: LoopSettings | None = None,
    alarms: Alarms | None = None,
) -> Recovery:
    """Run the loop through a break, beside the model that it began with.

    ``alarms`` are those of a ``DriftDetector`` if none are given.
    """
    loop = Loop(params, settings or LoopSettings())
    watch = Watch(loop) if alarms is None else alarms
    never = Dcc(params, len(params.target))
    never_loss, loop_loss = [], []
    for t, row in enumerate(market.z):
        if t - market.before in marks:
            never_loss.append(excess(never.correlation().corr, market.corr[t]))
            loop_loss.append(excess(loop.corr(), market.corr[t]))
        since = watch(t, row)
        never.update(row[None, :])
        loop.update(row, since)
    return Recovery(
        marks,
        np.array(never_loss),
        np.array(loop_loss),
        oracle_losses(params, market, marks, np.array(never_loss)),
        loop.happened,
    )


class Forced(NamedTuple):
    """Mean excess losses without refits and by the loop under forced alarms, and the log loss.

    ``log_loss`` is that of the truth itself: what it cannot do better than.
    """

    never: float
    loop: float
    log_loss: float
    happened: Sequence[Happened]

    @property
    def cost(self) -> float:
        """Share by which the alarms raised the average log loss."""
        return (self.loop - self.never) / (self.log_loss + self.never)


def false_alarms(
    params: DccParams, market: Market, every: int, settings: LoopSettings | None = None
) -> Forced:
    """Force an alarm every so many rows of a market that does not break.

    An alarm says that the change began ``every`` / 10 rows ago. Losses are looked at in each
    10th row.
    """
    loop, never = Loop(params, settings or LoopSettings()), Dcc(params, len(params.target))
    n, losses = loop.n, []
    for t, row in enumerate(market.z):
        if t % 10 == 0:
            truth = market.corr[t]
            entropy = 0.5 * (
                n * (math.log(2.0 * math.pi) + 1.0) + float(np.linalg.slogdet(truth)[1])
            )
            known = (never.correlation().corr, loop.corr())
            losses.append([*(excess(corr, truth) for corr in known), entropy])
        never.update(row[None, :])
        loop.update(row, every // 10 if (t + 1) % every == 0 else 0)
    means = np.mean(losses, axis=0)
    return Forced(float(means[0]), float(means[1]), float(means[2]), loop.happened)


def begun(
    n: int,
    seed: int,
    change: Change | None,
    g: float,
    rows: tuple[int, int, int],
    *,
    jump: bool = True,
    perfect: bool = False,
    name: str = "three_factors",
) -> tuple[DccParams, Market]:
    """Draw a DCC market around a target of ``truths``, and fit it before it is shown.

    ``rows``: those that the target is estimated from, as the service estimates it; those that
    the model in force then sees before the break; and those after it. a and b are the true ones,
    and so is the target if ``perfect``.
    """
    fitted, before, after = rows
    rng = np.random.default_rng([n, seed])
    target = target_of(rng, name, n)
    normals = shocks(rng, fitted + before + after, n, np.inf)
    move = None if change is None else partial(tilted, change=change, g=g)
    market = dcc_market(normals, target, fitted + before, move, jump=jump)
    a, b = DYNAMICS
    params = DccParams(a, b, target)
    if not perfect:
        news = tilting.scaled_news(market.z[:fitted], params)
        params = replace(params, target=shrink_target(news, "qis"))
    return params, Market(market.z[fitted:], market.corr[fitted:], before)
