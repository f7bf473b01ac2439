"""From what an estimator knows to the matrix that is published."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from stream_calib.config import Config, UniverseConfig
from stream_calib.engine.membership import Membership
from stream_calib.engine.scoreboard import Scoreboard
from stream_calib.estimation.cleaning import crisis_distance, repair_correlation
from stream_calib.estimation.ewma import CORRELATION_CAP
from stream_calib.values import (
    F64,
    I64,
    YEAR_NS,
    Correlation,
    Description,
    Event,
    Matrix,
    Quality,
    Regime,
    eigenvalue_floor,
)

NUMBERED = ("ewma", "dcc", "events")  # an estimator that is out of use keeps its number
REPAIRED_MIN = 0.01  # least eigenvalue of a matrix that was indefinite: what was noise is no hedge


class Chosen(NamedTuple):
    """The symbols of a matrix: their places, and these in the order of names."""

    places: I64
    by_name: I64

    @property
    def cut(self) -> tuple[I64, ...]:
        """Index that cuts an (n, n) array."""
        return np.ix_(self.places, self.places)

    @property
    def order(self) -> I64:
        """Order of names among the chosen."""
        return np.searchsorted(self.places, self.by_name)


class Estimate(NamedTuple):
    """A matrix to be: the correlations of the chosen symbols, made positive definite."""

    corr: F64
    n_eff: F64
    quality: Quality
    regime: Regime


class Measures(NamedTuple):
    """What else is said of a matrix; arrays are of the chosen symbols."""

    kind: str
    data_from_ns: int
    vol: F64
    band: F64
    band_total: F64 | None
    last_time_ns: I64
    audit: Mapping[str, object] | None = None


class Publisher:
    """Numbers what is published and gives it what is the same for all.

    Parameters
    ----------
    config, universe
        Settings; ``universe`` is one of ``config.universe``.
    software_version
        Goes into every matrix.
    """

    def __init__(self, config: Config, universe: UniverseConfig, software_version: str) -> None:
        self.fingerprint = config.fingerprint(universe)
        self.software_version = software_version
        self.model_version = 1
        self._drift_level: float | None = None
        self._shift_ns: int | None = None
        self._universe = universe
        self._canonical = np.argsort(np.array(universe.symbols))
        names = NUMBERED if universe.dcc.enabled else ("ewma", "events")
        self.sequences = dict.fromkeys(names, 0)
        self.scoreboard = Scoreboard(universe.symbols) if universe.dcc.enabled else None
        self._described = False  # whether subscribers know what this universe is

    def note_drift(self, level: float | None, shift_ns: int | None) -> None:
        """Let matrices say how near the next alarm is, and when the present regime began."""
        self._drift_level, self._shift_ns = level, shift_ns

    def resume(self, last: Mapping[str, int]) -> None:
        """Go on after these numbers; what is not named stays."""
        self.sequences |= {name: number for name, number in last.items() if name in NUMBERED}

    def facts(self) -> dict[str, object]:
        """Return what has to go on with the state, as JSON values."""
        return {
            "sequences": dict(self.sequences),
            "model_version": self.model_version,
            "described": self._described,
        }

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Go on from what ``facts`` returned."""
        self.resume(facts["sequences"])
        self.model_version = facts["model_version"]
        self._described = facts.get("described", False)  # unknown before version 5

    def describe(self, matrices: Sequence[Matrix]) -> tuple[Description, ...]:
        """Return what the universe is, before the first matrices under its settings."""
        if not matrices or self._described:
            return ()
        self._described = True
        universe = self._universe
        every_ns = universe.bar * universe.every
        told = {"ewma": ("filtered", universe.bar, every_ns)}
        if universe.dcc.enabled:
            bar_ns = universe.dcc.bars_per_bar(universe.bar) * universe.bar
            told["dcc"] = ("forecast", bar_ns, bar_ns)
        estimators = {
            name: {"kind": kind, "horizon_ns": str(horizon_ns), "every_ns": str(often_ns)}
            for name, (kind, horizon_ns, often_ns) in told.items()
        }
        description = Description(
            universe=universe.name,
            universe_id=universe.universe_id,
            time_ns=matrices[0].as_of_ns,
            symbols=universe.symbols,
            config_fingerprint=self.fingerprint,
            bar_ns=universe.bar,
            price_policy=universe.price,
            return_type=universe.return_type,
            returns=universe.returns,
            estimators=estimators,
        )
        return (description,)

    def event(self, type_: str, time_ns: int, details: Mapping[str, object]) -> Event:
        """Return the next event."""
        self.sequences["events"] += 1
        return Event(self._universe.name, self.sequences["events"], type_, time_ns, details)

    def readiness(
        self, membership: Membership, known: Correlation, as_of_ns: int, **whose: str
    ) -> list[Event]:
        """Judge which symbols are ready; return what changed."""
        was_ready = membership.ready
        if not membership.update(known):
            return []
        now = membership.ready
        changes = {"symbol_ready": now & ~was_ready, "symbol_pending": was_ready & ~now}
        names = self._universe.symbols
        return [
            self.event(
                type_,
                as_of_ns,
                {"symbols": [s for s, m in zip(names, mask, strict=True) if m], **whose},
            )
            for type_, mask in changes.items()
            if mask.any()
        ]

    def chosen(self, membership: Membership) -> Chosen:
        """Return the symbols that are ready."""
        ready = membership.ready
        return Chosen(np.flatnonzero(ready), self._canonical[ready[self._canonical]])

    def estimate(
        self,
        known: Correlation,
        chosen: Chosen,
        *,
        raw: int | None = None,
        floored: int | None = None,
    ) -> Estimate:
        """Make what is known of the chosen symbols positive definite.

        Parameters
        ----------
        raw, floored
            Variances by two scales that keep their noise, or are held at their floor.
        """
        n, cut = len(chosen.places), chosen.cut
        before = known.corr[cut]
        repaired = repair_correlation(before, eigenvalue_floor(n), chosen.order, REPAIRED_MIN)
        upper = np.triu_indices(n, 1)
        return Estimate(
            repaired.corr,
            known.n_eff[cut],
            Quality(
                min_eigenvalue=repaired.min_eigenvalue,
                repair=repaired.repair,
                capped_pairs=(int((np.abs(before) >= CORRELATION_CAP).sum()) - n) // 2,
                degraded=("repaired",) if repaired.repair > 0.0 else (),
                raw_variances=raw,
                floored_variances=floored,
            ),
            Regime(
                # an exact sum: the order of the symbols must not show in the last bit
                average_correlation=math.fsum(repaired.corr[upper]) / len(upper[0]),
                top_eigenvalue_share=repaired.max_eigenvalue / n,
                effective_bets=repaired.effective_bets,
                crisis_distance=crisis_distance(repaired.corr, chosen.order),
            ),
        )

    def matrix(
        self,
        estimator: str,
        bar_ns: int,
        as_of_ns: int,
        chosen: Chosen,
        estimate: Estimate,
        measures: Measures,
    ) -> Matrix:
        """Return the next matrix of an estimator."""
        universe = self._universe
        self.sequences[estimator] += 1
        ready = np.zeros(len(universe.symbols), dtype=bool)
        ready[chosen.places] = True
        matrix = Matrix(
            universe=universe.name,
            universe_id=universe.universe_id,
            estimator=estimator,
            sequence=self.sequences[estimator],
            as_of_ns=as_of_ns,
            data_from_ns=measures.data_from_ns,
            horizon_ns=bar_ns,
            bar_ns=bar_ns,
            symbols=tuple(universe.symbols[i] for i in chosen.places),
            pending=tuple(s for s, r in zip(universe.symbols, ready, strict=True) if not r),
            corr=estimate.corr,
            vol=measures.vol,
            n_eff=estimate.n_eff,
            band=measures.band,
            band_total=measures.band_total,
            staleness_ns=as_of_ns - measures.last_time_ns,
            quality=estimate.quality,
            regime=replace(
                estimate.regime,
                since_shift_ns=None if self._shift_ns is None else as_of_ns - self._shift_ns,
            ),
            annualisation=math.sqrt(YEAR_NS / bar_ns),
            return_type=universe.return_type,
            price_policy=universe.price,
            config_fingerprint=self.fingerprint,
            software_version=self.software_version,
            kind=measures.kind,
            drift_level=self._drift_level,
            model_version=self.model_version,
            audit=measures.audit,
            base_currency=None if universe.currency is None else universe.currency.base,
        )
        if self.scoreboard is not None:
            self.scoreboard.publish(matrix)
        return matrix
