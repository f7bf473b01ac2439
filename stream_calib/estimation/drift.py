"""Notices when correlations no longer follow a model, with false alarms as rare as is asked for."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Self

import numpy as np

from stream_calib.estimation.cleaning import in_order, one_blas_thread
from stream_calib.estimation.dcc import Dcc
from stream_calib.estimation.drift_dependence import dependence_of, inflation_of
from stream_calib.estimation.drift_power import Expected, delay_of, expected_scores
from stream_calib.estimation.drift_scores import (
    Draws,
    checked_order,
    counted,
    crisis_direction,
    dated_alarm,
    draw_normals,
    nested,
    root_of,
    score_row,
    seen_enough,
    tilt_towards,
)
from stream_calib.estimation.protocol import Layout
from stream_calib.kernels.drift import fold_bets, rank_scores
from stream_calib.values import F64, I64, Alarm, DccParams, ReturnBlock

ALTERNATIVES = ("fusing", "loosening", "rotation")
SEEDS = 2**53  # of which a float64 tells each from the next
TILT = 0.35  # of the target that fusing is scored against
DRAWS, DRAWS_LARGE = 64, 32
SMALL = 300  # symbols up to which fusing has a model, and a Cholesky factor, of its own
SLOPES = np.array([0.15, 0.4, 1.0])  # in standard deviations: from slow changes to jumps
REMEMBERED = 20_000  # scores that a new one is ranked among
RECENT = 4000  # rows in which the change is looked for, and dependence is measured
FIRST_SCORES = 20  # ranks among fewer say little
TRANSIENT_MAX = 50
BLIND_ROWS = 250
GROWTH = 1.3  # dependence is measured anew whenever the scores have grown by this factor
MEASURED_FROM = 60
POWER_FROM = 50  # scores at which the expected delay is computed, and at each doubling
UNIFORMS = 3  # stream of what breaks ties; 0 to 2 are draws of rows


class DriftDetector:
    """Alarms when rows no longer look like draws from a frozen DCC; about one in ``arl0`` is false.

        R_t    forecast of the frozen reference, before the row
        s      scores of the row's direction against R_t: fusing, loosening, rotation
        s'     their place among the scores of draws from R_t
        p      rank of s' among all since the start;   x = -Phi^-1(p)
        M      <- (M + 1) exp(l x - l^2 V / 2)   for each score and slope l
        alarm  when the mean of the M reaches A = arl0

    Where the s' are exchangeable the p are independent and uniform whatever the law of returns
    and whatever is wrong with R, and the time to an alarm is at least A on average (1.2 to 1.33 A).
    What a fitted R does not explain makes rows depend on each other, and alarms more frequent: V,
    the long-run variance of the past x where it is significant, makes up for that, the sooner if
    it was measured on the rows that R was fitted to. What is realised then is measured in tests,
    not proven.

    Parameters
    ----------
    params
        Of the reference, which nothing changes until a new detector is made.
    n
        Number of symbols.
    arl0
        Rows to a false alarm that are asked for, on average.
    n_target, clock
        As ``Dcc``.
    seed
        Of the draws and of what breaks ties; below 2^53, which a state can carry.
    order : (n,)
        A canonical order of the symbols: with it, permuted symbols give the permuted bits.
    inflation : (3,), optional
        V of each score, as ``dependence`` measured it on the rows that the model was fitted to.

    Raises
    ------
    ValueError
        As ``Dcc``; if ``arl0`` < 10, ``n`` < 2, ``seed`` is out of range, or ``order`` is not a
        permutation.

    Notes
    -----
    A row takes two Cholesky factors, O(n^3), or one and a weaker score of fusing above 300
    symbols. A row with fewer than half of the symbols, or
    fewer than 2, is folded in without being scored. For the first 1 / (1 - a - b) rows, at most
    50, nothing is scored either: R is still the target. A change in the first few hundred rows
    is found late, see ``blind``, and one that was there from the beginning never: the detector
    compares rows with earlier ones. ``Miscalibration`` watches for that.

    References
    ----------
    Shin, Ramdas and Rinaldo (2024), New England Journal of Statistics in Data Science 2
    (e-detectors); Vovk et al. (2003), ICML (testing exchangeability by ranks); Newey and West
    (1987), Econometrica 55. The scores, their standardisation and V are our own.

    Examples
    --------
    >>> import numpy as np
    >>> target = np.array([[1.0, 0.5], [0.5, 1.0]])
    >>> detector = DriftDetector(DccParams(a=0.05, b=0.9, target=target), n=2, arl0=1000.0)
    >>> detector.update(np.array([[2.0, -2.0]]))
    []
    """

    LAYOUT = Layout(by_symbol={"rank": 0.0})

    def __init__(
        self,
        params: DccParams,
        n: int,
        *,
        arl0: float = 5000.0,
        n_target: float | F64 = 0.0,
        clock: str = "observations",
        seed: int = 0,
        order: I64 | None = None,
        inflation: F64 | None = None,
    ) -> None:
        if not (n >= 2 and arl0 >= 10.0):
            message = f"n must be at least 2 and arl0 at least 10, not {n} and {arl0}"
            raise ValueError(message)
        if not 0 <= seed < SEEDS:
            message = f"seed must be from 0 to 2^53 - 1, not {seed}"
            raise ValueError(message)
        self._order = known = checked_order(order, n)
        rows: F64 = np.broadcast_to(np.asarray(n_target, np.float64), (n,))
        self.n, self.arl0, self.seed = n, float(arl0), int(seed)
        params = _ordered(params, known)
        self._reference = Dcc(params, n, rows[known], clock)
        target = self._reference.long_run()
        direction = crisis_direction(target)
        self._fusing: Dcc | None = None
        if n <= SMALL:
            filled = np.where(np.isnan(params.target), target, params.target)
            tilted = tilt_towards(filled, direction, TILT)
            self._fusing = Dcc(replace(params, target=tilted), n, clock=clock)
        draws = DRAWS if n <= SMALL else DRAWS_LARGE
        self._draws = Draws(draw_normals(n, draws, self.seed), target, direction)
        self._square = np.empty((1 if self._fusing is None else 2, n, n))
        kinds = len(ALTERNATIVES)
        left = max(1e-9, 1.0 - params.a - params.b)
        self._transient = int(min(TRANSIENT_MAX, math.ceil(1.0 / left)))
        self._rows = self._scored = self._since = self._measured = 0
        self._ordered_scores = np.empty((kinds, REMEMBERED))
        self._scores = np.empty((kinds, REMEMBERED))
        self._recent = np.zeros((kinds, RECENT))  # x, the one of score k at place k mod RECENT
        self._ago = np.zeros(RECENT, np.int64)  # and the row it belongs to
        self._normal = np.empty(kinds)
        self._before: F64 = np.full(kinds, np.nan) if inflation is None else inflation.copy()
        self._inflation = np.where(self._before > 1.0, self._before, 1.0)
        self._chains = np.zeros((kinds, len(SLOPES)))
        self._level, self._power = 0.0, math.inf
        self._expected: Expected | None = None

    @property
    def level(self) -> float:
        """Mean of the chains over what is an alarm, in [0, 1) but at an alarm."""
        return self._level

    @property
    def rows(self) -> int:
        """Rows taken."""
        return self._rows

    @property
    def blind(self) -> bool:
        """Whether so few rows were scored that a change is likely to be missed."""
        return self._scored < BLIND_ROWS

    @property
    def power(self) -> float:
        """Rows, on average, until a jump of .35 towards the crisis direction would be found.

        With as many scores as there were at 50, 100, 200, 400, ...; of a reference that is right,
        and at most 600. Infinite before.
        """
        return self._power

    @property
    def inflation(self) -> dict[str, float]:
        """How much the sums of each score vary beside those of independent rows; at least 1."""
        return dict(zip(ALTERNATIVES, self._inflation.tolist(), strict=True))

    def update(self, block: ReturnBlock | F64) -> list[Alarm]:
        """Take k rows.

        Parameters
        ----------
        block : (k, n)
            As ``Dcc.update``.

        Returns
        -------
        list of Alarm
            Of these rows. After each the chains begin anew; ranks and reference go on.

        Raises
        ------
        ValueError
            As ``Dcc.update``.
        """
        if isinstance(block, ReturnBlock):
            pieces = [block.rows(k, k + 1) for k in range(len(block.returns))]
            table = block.returns
        else:
            table, pieces = np.atleast_2d(np.asarray(block, np.float64)), []
        if table.ndim != 2 or table.shape[1] != self.n:
            message = f"a block is (k, {self.n}), not {table.shape}"
            raise ValueError(message)
        rows = np.ascontiguousarray(table[:, self._order])
        uniforms = self._uniforms(len(rows))
        alarms = []
        with one_blas_thread():
            for k, z in enumerate(rows):
                news: ReturnBlock | F64 = z
                if pieces:
                    one = pieces[k]
                    exposure = one.exposure[:, self._order]
                    news = ReturnBlock(one.time_ns, z[None], exposure, one.elapsed_bars)
                alarm = self._take(z, news, uniforms[k])
                if alarm is not None:
                    alarms.append(alarm)
        return alarms

    def _uniforms(self, k: int) -> F64:
        # one step of the counter for each row, whatever the block it comes in
        words = (
            counted(self.seed, UNIFORMS, self._rows)
            .random_raw(4 * k)
            .reshape(k, 4)[:, : len(ALTERNATIVES)]
        )
        uniforms: F64 = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
        return np.ascontiguousarray(uniforms)

    def _take(self, z: F64, news: ReturnBlock | F64, uniforms: F64) -> Alarm | None:
        self._rows += 1
        seen = np.flatnonzero(np.isfinite(z))
        scored = self._rows > self._transient and seen_enough(len(seen), self.n)
        scores = self._place(z, seen) if scored else None
        self._reference.update(news)
        if self._fusing is not None:
            self._fusing.update(news)
        if scores is None:
            return None
        rank_scores(
            scores, uniforms, self._scored, self._ordered_scores, self._scores, self._normal
        )
        place = self._scored % RECENT
        self._recent[:, place], self._ago[place] = self._normal, self._rows
        self._scored += 1
        self._since += 1
        if self._scored < FIRST_SCORES:
            self._since = 0
            return None
        mean = fold_bets(self._normal, self._inflation, SLOPES, self._chains)
        if self._scored >= max(MEASURED_FROM, GROWTH * self._measured):
            self._measure()
        doublings = self._scored / POWER_FROM
        due = self._scored % POWER_FROM == 0 and math.log2(doublings).is_integer()
        if due and math.isfinite(self.arl0):
            self._power = self._expected_delay()
        self._level = mean / self.arl0
        return self._alarm() if self._level >= 1.0 else None

    def _place(self, z: F64, seen: I64) -> F64:
        cut = None if len(seen) == self.n else seen
        root = root_of(self._reference.next_triangle(), cut, self._square[0])
        fused = None
        if self._fusing is not None:
            fused = root_of(self._fusing.next_triangle(), cut, self._square[1])
        # Drawn anew: the error of fixed draws moves as slowly as R does, and makes rows depend.
        size = self._draws.normals.shape[1]
        normals = draw_normals(self.n, size, self.seed, row=self._rows)
        draws = self._draws._replace(normals=normals)
        if cut is None:
            return score_row(z, root, fused, draws)
        return score_row(z[seen], root, fused, draws.of(seen))

    def _past(self, count: int) -> I64:
        # places of the last scores in the order of time
        return (np.arange(self._scored - count, self._scored) % RECENT).astype(np.int64)

    def _measure(self) -> None:
        self._measured = self._scored
        x = self._recent[:, self._past(min(self._scored, RECENT))]
        self._inflation[:] = inflation_of(x, self._before)

    def dependence(self) -> F64:
        """Return V of each score over all rows so far (3,), 1 where there are few.

        For ``inflation`` of another detector: rows that a model was fitted to score lower than
        later ones, and are nothing to rank these among, but depend on each other as much.
        """
        count = min(self._scored, REMEMBERED)
        places = np.arange(self._scored - count, self._scored) % REMEMBERED
        return dependence_of(self._scores[:, places])

    def _expected_delay(self) -> float:
        if self._expected is None:
            params = self._reference.params
            learning = (params.a, params.b)
            fused = None if self._fusing is None else self._fusing.long_run()
            self._expected = expected_scores(self._draws, fused, learning, self.seed)
        return delay_of(self._expected, self._scored, self.arl0, self._inflation, SLOPES)

    def _alarm(self) -> Alarm:
        # the chain that is ahead says what and since when: cumulative log bets of its slope
        kind, slope = np.unravel_index(np.argmax(self._chains), self._chains.shape)
        places = self._past(min(self._since, RECENT))
        move = SLOPES[slope]
        bets = move * (self._recent[kind, places] - 0.5 * move * self._inflation[kind])
        level = float(self._level)
        alarm = dated_alarm(ALTERNATIVES[kind], bets, self._ago[places], level)
        self._chains[:] = 0.0
        self._since = 0
        return alarm

    def state(self) -> dict[str, F64]:
        """Return copies of all arrays that make up the state; but ``rank`` in canonical order."""
        rank = np.empty(self.n, np.int64)
        rank[self._order] = np.arange(self.n)
        counts = [self._rows, self._scored, self._since, self._measured]
        scores = (np.arange(max(0, self._scored - REMEMBERED), self._scored)) % REMEMBERED
        recent = self._past(min(self._scored, RECENT))
        nested = {f"reference.{name}": own for name, own in self._reference.state().items()}
        if self._fusing is not None:
            nested |= {f"fusing.{name}": own for name, own in self._fusing.state().items()}
        return {
            "settings": np.array(
                [self.arl0, self.seed, *counts, self._level, self._power], np.float64
            ),
            "rank": rank.astype(np.float64),
            "scores": np.ascontiguousarray(self._scores[:, scores]),
            "recent": np.ascontiguousarray(self._recent[:, recent]),
            "recent_rows": self._ago[recent].astype(np.float64),
            "inflation": self._inflation.copy(),
            "before": self._before.copy(),
            "chains": self._chains.copy(),
            **nested,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, F64]) -> Self:
        """Continue from what ``state`` returned."""
        arl0, seed, *counts, level, power = state["settings"].tolist()
        reference = Dcc.from_state(nested(state, "reference"))
        order = np.argsort(state["rank"])
        params = _ordered(reference.params, np.argsort(order))
        detector = cls(
            params, reference.n, arl0=arl0, clock=reference.clock, seed=int(seed), order=order
        )
        detector._reference = reference
        if detector._fusing is not None:
            detector._fusing = Dcc.from_state(nested(state, "fusing"))
        detector._rows, scored, detector._since, detector._measured = (int(c) for c in counts)
        detector._scored, detector._level, detector._power = scored, level, power
        scores, recent = state["scores"], state["recent"]
        size = scores.shape[1]
        detector._scores[:, np.arange(scored - size, scored) % REMEMBERED] = scores
        detector._ordered_scores[:, :size] = np.sort(scores, axis=1)
        places = detector._past(recent.shape[1])
        detector._recent[:, places], detector._ago[places] = recent, state["recent_rows"]
        detector._inflation[:], detector._before[:] = state["inflation"], state["before"]
        detector._chains[:] = state["chains"]
        return detector


def _ordered(params: DccParams, order: I64) -> DccParams:
    less = None if params.asymmetry is None else in_order(np.asarray(params.asymmetry), order)
    target = in_order(np.asarray(params.target, np.float64), order)
    return replace(params, target=target, asymmetry=less)
