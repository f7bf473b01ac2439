"""Other ways of noticing a break, behind the protocol of the detector they are compared with.

river's detectors look at one number a row. Two are offered: the angular log score of the row under
the fitted model (what its correlations leave unexplained), and the average product of two symbols.
``KnownChange`` is told what nobody knows, the truth before and after: what it needs is the floor.
``FittedRatio`` is the likelihood ratio that a textbook would build on the fitted model.
"""

import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from scipy.linalg.lapack import dpotrf, dtrtrs

from stream_calib.estimation.dcc import Dcc
from stream_calib.values import F64, Alarm, DccParams, ReturnBlock
from tests.estimation.truths import MEMORY, NEWS, Change, Kind, tilted

FEEDS = ("score", "product")
SIZES = (("fusing", 0.15), ("fusing", 0.35), ("loosening", 0.2), ("loosening", 0.45))


def log_det_and_square(corr: F64, z: F64) -> tuple[float, float]:
    """Return ln |R| and z' R^-1 z."""
    root, info = dpotrf(corr, lower=1)
    assert info == 0, "the matrix is not positive definite"
    scaled, _ = dtrtrs(root, z, lower=1)
    return 2.0 * float(np.log(root.diagonal()).sum()), float(scaled @ scaled)


def angular(corr: F64, z: F64) -> float:
    """Return .5 ln |R| + n/2 ln(z' R^-1 z / z'z): the less likely z's direction, the more."""
    log_det, square = log_det_and_square(corr, z)
    return 0.5 * log_det + 0.5 * len(z) * float(np.log(square / (z @ z)))


def feeds(model: Dcc, z: F64) -> F64:
    """Return what river's detectors look at, (t, 2), as ``FEEDS``; the model takes the rows in."""
    n = z.shape[1]
    out = np.empty((len(z), 2))
    for t, row in enumerate(z):
        out[t, 0] = angular(model.correlation().corr, row)
        model.update(row[None])
    out[:, 1] = (z.sum(axis=1) ** 2 - (z**2).sum(axis=1)) / (n * (n - 1))
    return out


class Saved:
    """State by pickle: good enough for a test."""

    level: float

    def update(self, block: ReturnBlock | F64) -> list[Alarm]:
        """Take rows in, one after the other."""
        rows = block.returns if isinstance(block, ReturnBlock) else block
        return [alarm for row in rows for alarm in self.take(row)]

    def take(self, z: F64) -> list[Alarm]:
        """Take one row in."""
        raise NotImplementedError

    def state(self) -> dict[str, F64]:
        """Return everything as bytes, one to a number."""
        held = np.frombuffer(pickle.dumps(self.__dict__), np.uint8)
        return {"pickled": held.astype(np.float64)}

    @classmethod
    def from_state(cls, state: Mapping[str, F64]) -> Self:
        """Continue from what ``state`` returned."""
        made = cls.__new__(cls)
        made.__dict__ = pickle.loads(state["pickled"].astype(np.uint8).tobytes())
        return made


class River(Saved):
    """A detector of river's, fed with one of ``FEEDS``, standardised over the rows of the fit.

    It says yes or no, so ``level`` is 1 or 0, and it does not tell what happened nor since when.
    """

    def __init__(self, detector: Any, params: DccParams, fitted_rows: F64, feed: str) -> None:
        self._detector = detector
        self._column = FEEDS.index(feed)
        self._model = Dcc(params, fitted_rows.shape[1])
        past = feeds(self._model, fitted_rows)[:, self._column]
        self._mean, self._spread = float(past.mean()), float(past.std())
        self.row, self.level = 0, 0.0

    def take(self, z: F64) -> list[Alarm]:
        """Show the detector one number."""
        number = feeds(self._model, z[None])[0, self._column]
        self._detector.update(float(number - self._mean) / self._spread)
        self.row += 1
        self.level = float(self._detector.drift_detected)
        return [Alarm("fusing", self.row, 1, 1, self.row, 1.0)] if self.level else []


class KnownChange(Saved):
    """Page's CUSUM with the density before and after known: no detector is faster (Moustakides).

        W' = max(W, 0) + ln f1(z) - ln f0(z),   alarm at W >= threshold

    Both densities are normal under Engle's DCC with the true parameters. A new start of W, at
    W <= 0, is a change at that row: Q1 is then the changed Q0 (``jump``), or Q0 where only the
    target changes, so that W hardly leaves zero; without ``kind`` Q1 runs on beside Q0.
    """

    def __init__(
        self,
        target: F64,
        q: F64,
        change: Change,
        g: float,
        kind: Kind | None,
        threshold: float,
    ) -> None:
        self._targets = np.array([target, tilted(target, change, g)])
        self._q = np.array([q, q if kind == "target" else tilted(q, change, g)])
        self._change, self._g, self._kind = change, g, kind
        self.threshold, self.sum, self.row = threshold, 0.0, 0

    @property
    def level(self) -> float:  # type: ignore[override]
        """Return W over its threshold."""
        return max(self.sum, 0.0) / self.threshold

    def take(self, z: F64) -> list[Alarm]:
        """Compare the two densities of one row."""
        if self._kind == "jump" and self.sum <= 0.0:
            self._q[1] = tilted(self._q[0], self._change, self._g)
        elif self._kind == "target" and self.sum < 0.0:
            self._q[1] = self._q[0]
        log = [_log_density(q, z) for q in self._q]
        self.sum = max(self.sum, 0.0) + log[1] - log[0]
        self._q *= MEMORY
        self._q += (1.0 - NEWS - MEMORY) * self._targets
        self._q += NEWS * np.multiply.outer(z, z)
        self.row += 1
        if self.sum < self.threshold:
            return []
        self.sum = 0.0
        return [Alarm(self._change, self.row, 1, 1, self.row, 1.0)]


class FittedRatio(Saved):
    """Shiryaev-Roberts over angular likelihood ratios of tilted targets against the fitted one.

        M' = (M + 1) sqrt(|R0| / |Rk|) (z' R0^-1 z / z' Rk^-1 z)^(n/2),   alarm at mean of M >= A

    With true parameters E[M_t] = t, so that no alarm comes before A rows on average; a fitted
    model is not the truth, and the guarantee is gone.
    """

    def __init__(self, params: DccParams, n: int, arl0: float) -> None:
        targets = [params.target]
        targets += [tilted(params.target, kind, g) for kind, g in SIZES]  # type: ignore[arg-type]
        self._models = [Dcc(DccParams(params.a, params.b, c, params.model), n) for c in targets]
        self._sums, self._arl0, self.row = np.zeros(len(SIZES)), arl0, 0

    @property
    def level(self) -> float:  # type: ignore[override]
        """Return the average of the chains over A."""
        return float(self._sums.mean() / self._arl0)

    def take(self, z: F64) -> list[Alarm]:
        """Compare every tilt with the model as fitted."""
        scores = np.array([angular(model.correlation().corr, z) for model in self._models])
        self._sums = (self._sums + 1.0) * np.exp(np.minimum(scores[0] - scores[1:], 500.0))
        for model in self._models:
            model.update(z[None])
        self.row += 1
        level = self.level
        if level < 1.0:
            return []
        name = SIZES[int(self._sums.argmax())][0]
        self._sums[:] = 0.0
        return [Alarm(name, self.row, 1, 1, self.row, level)]


def first_alarm(make: Callable[[], Any], numbers: Sequence[float]) -> int:
    """Feed a new detector of river's until it says yes; return after how many, 0 for never."""
    detector = make()
    for k, number in enumerate(numbers, start=1):
        detector.update(number)
        if detector.drift_detected:
            return k
    return 0


def _log_density(q: F64, z: F64) -> float:
    scale = 1.0 / np.sqrt(q.diagonal())
    log_det, square = log_det_and_square(q * np.multiply.outer(scale, scale), z)
    return -0.5 * (log_det + square)
