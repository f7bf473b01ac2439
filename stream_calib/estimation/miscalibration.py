"""Notices when plain models predict correlations better than the one in force."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Self

import numpy as np

from stream_calib.estimation.cleaning import Root, in_order, one_blas_thread
from stream_calib.estimation.dcc import Dcc
from stream_calib.estimation.drift_scores import (
    checked_order,
    dated_alarm,
    nested,
    repaired_root,
    root_of,
    seen_enough,
)
from stream_calib.estimation.protocol import Layout
from stream_calib.kernels.drift import fold_wagers
from stream_calib.values import F64, I64, Alarm, DccParams

MISCALIBRATED = "miscalibrated"
ALTERNATIVES = ("constant", "following")
STAKES = np.array([0.02, 0.1, 0.5])  # of a bet: a likelihood ratio of one row has a heavy tail
MEMORY_ROWS = 50.0  # of the model that follows the news, at least
RECENT = 4000  # rows in which the beginning is looked for


class Miscalibration:
    """Bets on two plain models against the matrices in force; alarms once it has won much.

        L  = sqrt(|R| / |R1|) (z' R^-1 z / z' R1^-1 z)^(n / 2)
        M <- (M + 1) (1 - w + w L)     for each alternative R1 and stake w
        alarm when the mean of the M reaches A

    R1 is the long-run target, or a DCC of which half is the news of the last max(50, 2 n) rows
    and half the target. Where R is right, up to a scale of the row, L has mean one whatever the
    tails of an elliptical z, so the time to an alarm is at least A on average. Unlike
    ``DriftDetector`` this compares with no earlier rows: it sees a model that was wrong from the
    beginning, if one of the two does better.

    Parameters
    ----------
    params
        Their ``target`` is that of both alternatives.
    n
        Number of symbols.
    arl0
        Rows to a false alarm that are asked for, at least, on average.
    order : (n,)
        A canonical order of the symbols: with it, permuted symbols give the permuted bits.

    Raises
    ------
    ValueError
        As ``Dcc``; if ``arl0`` < 10, ``n`` < 2, or ``order`` is not a permutation.

    Notes
    -----
    O(n^3) for a row. Rows with fewer than half of the symbols are not scored.

    References
    ----------
    Tyler (1987), Biometrika 74, for the angular density; Shin, Ramdas and Rinaldo (2024) for sums
    of products of e-values; Waudby-Smith and Ramdas (2024), JRSS B 86, for stakes.
    """

    LAYOUT = Layout(by_symbol={"rank": 0.0})

    def __init__(
        self, params: DccParams, n: int, *, arl0: float = 5000.0, order: I64 | None = None
    ) -> None:
        if not (n >= 2 and arl0 >= 10.0):
            message = f"n must be at least 2 and arl0 at least 10, not {n} and {arl0}"
            raise ValueError(message)
        self._order = known = checked_order(order, n)
        self.n, self.arl0 = n, float(arl0)
        target = in_order(np.asarray(params.target, np.float64), known)
        b = 1.0 - 1.0 / max(MEMORY_ROWS, 2.0 * n)
        plain = DccParams(0.5 * (1.0 - b), b, target, "dcc")
        self._following = Dcc(plain, n)
        self._constant = Dcc(replace(plain, a=0.0, b=0.0), n).next_triangle()
        self._square = np.empty((n, n))
        self._rows = self._scored = self._since = 0
        self._recent = np.zeros((len(ALTERNATIVES), RECENT))
        self._ago = np.zeros(RECENT, np.int64)
        self._chains = np.zeros((len(ALTERNATIVES), len(STAKES)))
        self._level = 0.0

    @property
    def level(self) -> float:
        """Mean of the chains over what is an alarm."""
        return self._level

    def update(self, z: F64, corr: F64) -> list[Alarm]:
        """Take k rows and the correlations that were in force for them.

        Parameters
        ----------
        z : (k, n)
            Standardised returns; NaN where not observed.
        corr : (k, n, n) or (n, n)
            Made before the row; the latter for all of them. What is not positive definite is
            shrunk until it is.

        Returns
        -------
        list of Alarm
            After each the chains begin anew.

        Raises
        ------
        ValueError
            If the shapes do not fit.
        """
        table = np.atleast_2d(np.asarray(z, np.float64))
        k, n = len(table), self.n
        if table.shape != (k, n) or np.shape(corr) not in {(k, n, n), (n, n)}:
            message = f"rows {table.shape} and matrices {np.shape(corr)} are not of {n} symbols"
            raise ValueError(message)
        in_force = np.broadcast_to(corr, (k, n, n))
        with one_blas_thread():
            found = [
                self._take(np.ascontiguousarray(row[self._order]), in_order(own, self._order))
                for row, own in zip(table, in_force, strict=True)
            ]
        return [alarm for alarm in found if alarm is not None]

    def _take(self, z: F64, corr: F64) -> Alarm | None:
        self._rows += 1
        seen = np.flatnonzero(np.isfinite(z))
        logs = None
        if seen_enough(len(seen), self.n) and z[seen].any():
            logs = self._log_ratios(z, corr, seen)
        self._following.update(z)
        if logs is None:
            return None
        place = self._scored % RECENT
        self._recent[:, place], self._ago[place] = logs, self._rows
        self._scored += 1
        self._since += 1
        self._level = fold_wagers(logs, STAKES, self._chains) / self.arl0
        return self._alarm() if self._level >= 1.0 else None

    def _log_ratios(self, z: F64, corr: F64, seen: I64) -> F64:
        cut = None if len(seen) == self.n else seen
        inside = corr if cut is None else in_order(corr, cut)
        row = z[seen][:, None]
        force = _angular(_positive(inside), row)
        others = (self._constant, self._following.next_triangle())
        return np.array([_angular(root_of(own, cut, self._square), row) - force for own in others])

    def _alarm(self) -> Alarm:
        kind, stake = np.unravel_index(np.argmax(self._chains), self._chains.shape)
        count = min(self._since, RECENT)
        places = np.arange(self._scored - count, self._scored) % RECENT
        w = STAKES[stake]
        bets = np.log1p(w * np.expm1(np.minimum(self._recent[kind, places], 300.0)))
        alarm = dated_alarm(MISCALIBRATED, bets, self._ago[places], float(self._level))
        self._chains[:] = 0.0
        self._since = 0
        return alarm

    def state(self) -> dict[str, F64]:
        """Return copies of all arrays that make up the state; but ``rank`` in canonical order."""
        rank = np.empty(self.n, np.int64)
        rank[self._order] = np.arange(self.n)
        count = min(self._scored, RECENT)
        places = np.arange(self._scored - count, self._scored) % RECENT
        settings = [self.arl0, self._rows, self._scored, self._since, self._level]
        return {
            "settings": np.array(settings, np.float64),
            "rank": rank.astype(np.float64),
            "recent": np.ascontiguousarray(self._recent[:, places]),
            "recent_rows": self._ago[places].astype(np.float64),
            "chains": self._chains.copy(),
            **{f"following.{name}": own for name, own in self._following.state().items()},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, F64]) -> Self:
        """Continue from what ``state`` returned."""
        arl0, rows, scored, since, level = state["settings"].tolist()
        following = Dcc.from_state(nested(state, "following"))
        rank = state["rank"].astype(np.int64)
        target = in_order(following.params.target, rank)
        params = replace(following.params, target=target)
        watch = cls(params, following.n, arl0=arl0, order=np.argsort(rank))
        watch._following, watch._level = following, level
        watch._rows, watch._scored, watch._since = int(rows), int(scored), int(since)
        recent = state["recent"]
        places = np.arange(watch._scored - recent.shape[1], watch._scored) % RECENT
        watch._recent[:, places], watch._ago[places] = recent, state["recent_rows"]
        watch._chains[:] = state["chains"]
        return watch


def _positive(corr: F64) -> Root:
    try:
        return Root(np.array(corr, order="C"))
    except np.linalg.LinAlgError:
        return repaired_root(corr)


def _angular(root: Root, row: F64) -> float:
    # log density of the direction of a row, up to what all matrices share
    shocks = root.divide(row)
    return -root.log_determinant() - 0.5 * len(row) * math.log(float(np.sum(shocks * shocks)))
