"""Dynamic conditional correlation, kept up to date one row of standardised returns at a time."""

import math
from collections.abc import Mapping
from typing import NamedTuple, Self

import numpy as np

from stream_calib.estimation.ewma import CORRELATION_CAP, KAPPA_MAX
from stream_calib.estimation.protocol import Layout
from stream_calib.kernels.dcc import fold_shocks, pool_kappa, read_correlation, unfold_triangles
from stream_calib.values import F64, I64, Correlation, DccParams, ReturnBlock

MODELS = ("dcc", "cdcc", "adcc")
FOURTH_HALF_LIFE_OBS = 500.0  # tails are a matter of months, not of the filter's memory
_ALL = np.empty(0)  # of Q - target is left over the bars before each row
TARGET_ERROR = 0.9  # a correlation of the target is off by about this over sqrt(rows)


class Packed(NamedTuple):
    """What a filter starts from, as triangles: row by row, diagonal included.

    ``target`` and ``asymmetry`` (m,), the latter empty without asymmetry; ``corr`` (m,) and
    ``diagonal`` (n,) are what Q = target has.
    """

    target: F64
    asymmetry: F64
    corr: F64
    diagonal: F64


class Dcc:
    """DCC(1,1) of n symbols: correlations that follow the news and return to a target.

        Q' = (1 - a - b) S + b Q + a x x' + g (n n' - N),   R = diag(Q)^-1/2 Q diag(Q)^-1/2

    with x = z (Engle), x = diag(Q)^(1/2) z (Aielli), and g > 0 with ``adcc`` alone. Q starts at
    S. Every z is a return over the deviation that was predicted for it beforehand.

    A pair takes part in the rows where both are observed, and is left alone otherwise: its R
    stands still, and so does Q_ii of a symbol that is not observed. With ``clock="time"`` they
    return to the target instead, by (a + b) a bar, as all of Q does over the bars without a row
    that ``elapsed_bars`` tells of.

    Parameters
    ----------
    params
        Its ``target`` may have any positive diagonal. NaN in it is what a new symbol has: the
        average correlation, and one on the diagonal.
    n
        Number of symbols.
    n_target : a number or (n,)
        Rows that the target was estimated from; 0 where unknown.
    clock
        What ages news: later observations of the pair (``observations``), or ``time``.

    Raises
    ------
    ValueError
        If ``params`` are not of n symbols, a, b or g are out of range (a, b, g >= 0,
        a + b < 1, g N_ii < (1 - a - b) S_ii), or the model or the clock is unknown.

    Notes
    -----
    R is positive definite where S is, in rows where nothing is missing; after rows with holes
    it may be indefinite, though never beyond one, and is for the cleaning to repair. The same
    holds of a new symbol, whose row of S is the average correlation. State is three triangles
    with asymmetry, else two, of n (n + 1) / 2.

    References
    ----------
    Engle (2002), Journal of Business & Economic Statistics 20, eq. 19; Aielli (2013), ibid. 31,
    eq. 6; Cappiello, Engle and Sheppard (2006), Journal of Financial Econometrics 4, eq. 4.

    Examples
    --------
    >>> import numpy as np
    >>> target = np.array([[1.0, 0.5], [0.5, 1.0]])
    >>> dcc = Dcc(DccParams(a=0.05, b=0.9, target=target), n=2)
    >>> dcc.update(np.array([[2.0, -2.0]]))
    >>> round(float(dcc.correlation().corr[0, 1]), 4)
    0.2391
    """

    LAYOUT = Layout(
        by_symbol={"diagonal": math.nan, "rows": 0.0, "news": 0.0, "fourth": 0.0},
        by_triangle=dict.fromkeys(("target", "asymmetry", "corr"), math.nan),
    )

    def __init__(
        self, params: DccParams, n: int, n_target: float | F64 = 0.0, clock: str = "observations"
    ) -> None:
        if clock not in {"observations", "time"}:
            message = f"clock must be 'observations' or 'time', not {clock!r}"
            raise ValueError(message)
        rows: F64 = np.broadcast_to(np.asarray(n_target, np.float64), (n,))
        if not (np.isfinite(rows).all() and rows.min() >= 0.0):
            message = f"n_target must be at least 0, not {n_target}"
            raise ValueError(message)
        packed = packed_start(params, n)
        self.params = params
        self.n = n
        self.clock = clock
        self._target, self._asymmetry, self._corr, self._diagonal = packed
        rows = rows / TARGET_ERROR**2
        self._rows = np.where(np.isnan(np.diagonal(params.target)), 0.0, rows)
        self._news = np.zeros(n)
        self._fourth = np.zeros((2, n))
        a, b = params.a, params.b
        unseen, fade = a + b if clock == "time" else 1.0, math.exp2(-1.0 / FOURTH_HALF_LIFE_OBS)
        self._arguments = (  # of the kernel: put together once, it is called for every row
            *(params.model == "cdcc", a, b, params.g, unseen, fade),
            *(*packed, self._news, self._fourth, np.empty((0, packed.corr.size))),
        )

    def update(self, block: ReturnBlock | F64) -> None:
        """Fold k rows in.

        Parameters
        ----------
        block : (k, n)
            Standardised returns, each over its own predicted deviation, whatever time it
            spans; NaN where not observed. A bare array is one bar per row.

        Raises
        ------
        ValueError
            If the block is of another width, or its time of several groups of symbols.
        """
        if isinstance(block, ReturnBlock):
            z, pull = block.returns, self._pull(block.elapsed_bars)
        else:
            # writable, or the kernel would not take what pandas hands out
            z, pull = np.require(np.atleast_2d(block), np.float64, ["C", "W"]), _ALL
        if z.ndim != 2 or z.shape[1] != self.n:
            message = f"a block is (k, {self.n}), not {z.shape}"
            raise ValueError(message)
        fold_shocks(z, pull, *self._arguments)

    # what is left of Q - target over the bars before each row
    def _pull(self, elapsed: F64) -> F64:
        if self.clock != "time":
            return _ALL
        if elapsed.size != len(elapsed):
            message = f"elapsed_bars is ({len(elapsed)},): one time for all, not {elapsed.shape}"
            raise ValueError(message)
        gap = np.maximum(elapsed.reshape(-1) - 1.0, 0.0)
        pull: F64 = np.power(self.params.a + self.params.b, gap)
        return pull

    def correlation(self) -> Correlation:
        """Return the forecast for the next row.

        Returns
        -------
        Correlation
            ``vol`` is one: returns were standardised. ``n_eff`` is what a pair rests on, the
            larger of two: the rows of its target over .81, a target of T rows being off by
            about .9 / sqrt(T), and the observations that the filter remembers,
            1 + (a + b) + (a + b)^2 + ... It is not grown by both at once, so a band made of it
            errs on the wide side; the error of a and b is not in it. It is 0 where nothing is
            known, and ``corr`` is then the target. ``kappa`` is that of the z.
        """
        corr, n_eff = np.empty((2, self.n, self.n))
        held = read_correlation(self._corr, self._rows, self._news, CORRELATION_CAP, corr, n_eff)
        return Correlation(corr, np.ones(self.n), n_eff, self.kappa(), held)

    def next_corr(self) -> F64:
        """Return the ``corr`` of ``correlation`` (n, n) without what it is worth."""
        square = np.empty((1, self.n, self.n))
        held = np.clip(self._corr, -CORRELATION_CAP, CORRELATION_CAP)
        held[_own(self.n)] = 1.0
        unfold_triangles(held[None], square)
        corr: F64 = square[0]
        return corr

    def next_triangle(self) -> F64:
        """Return the forecast for the next row as a triangle (m,), no correlation held back."""
        return self._corr.copy()

    def long_run(self) -> F64:
        """Return the correlation that everything returns to (n, n): the target's."""
        mean = np.empty((1, self.n, self.n))
        unfold_triangles(_scaled(self._target, self.n)[None], mean)
        target: F64 = mean[0]
        return target

    def forecast(self, steps: int) -> F64:
        """Return the forecasts for the next rows.

            R_k = Rbar + (a + b)^(k - 1) (R_1 - Rbar)

        Parameters
        ----------
        steps
            How many rows ahead.

        Returns
        -------
        (steps, n, n)
            R_1, which is that of ``correlation``, to R_steps.

        Raises
        ------
        ValueError
            If ``steps`` < 1.

        References
        ----------
        Engle and Sheppard (2001), NBER working paper 8554, section 5: one of two
        approximations, that of the correlations.
        """
        if steps < 1:
            message = f"steps must be at least 1, not {steps}"
            raise ValueError(message)
        mean = self.long_run()
        left = (self.params.a + self.params.b) ** np.arange(steps, dtype=np.float64)
        first = self.next_corr()
        path = mean + left[:, None, None] * (first - mean)
        path[0] = first  # to the last bit
        return path

    def kappa(self) -> float:
        """Return excess kurtosis / 3 of the z, pooled, within [0, 3]."""
        return min(KAPPA_MAX, max(0.0, pool_kappa(self._fourth)))

    def begin_near(self, old: Self, kept: float) -> None:
        """Begin with part of what another one has learned beside its own target.

            R = C + kept (R_old - C_old)

        Parameters
        ----------
        old
            Of the same symbols.
        kept
            In [0, 1]. R is positive definite if R_old is, and C - kept C_old not negative.
        """
        n = self.n
        if old.n != n or not 0.0 <= kept <= 1.0:
            message = f"old must be of {n} symbols and kept from 0 to 1, not {old.n} and {kept}"
            raise ValueError(message)
        self._corr[:] = _scaled(self._target, n) + kept * (old._corr - _scaled(old._target, n))
        grown = old._diagonal / old._target[_own(n)] - 1.0
        self._diagonal[:] = self._target[_own(n)] * (1.0 + kept * grown)

    def reset_to_target(self) -> None:
        """Forget the news: Q is the target again, as at the start."""
        self._corr[:] = _scaled(self._target, self.n)
        self._diagonal[:] = self._target[_own(self.n)]
        self._news[:] = 0.0

    def state(self) -> dict[str, F64]:
        """Return copies of all arrays that make up the state."""
        a, b, g = self.params.a, self.params.b, self.params.g
        kind = [MODELS.index(self.params.model), self.clock == "time"]
        return {
            "settings": np.array([self.n, a, b, g, *kind], np.float64),
            "target": self._target.copy(),
            "asymmetry": self._asymmetry.copy(),
            "corr": self._corr.copy(),
            "diagonal": self._diagonal.copy(),
            "rows": self._rows.copy(),
            "news": self._news.copy(),
            "fourth": self._fourth.copy(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, F64]) -> Self:
        """Continue from what ``state`` returned; NaN, of a new symbol, is filled in."""
        n_float, a, b, g, model, timed = (float(number) for number in state["settings"])
        n = int(n_float)
        if len(state["diagonal"]) != n:
            n = len(state["diagonal"])  # migrated to other symbols
        square = np.empty((2, n, n))
        # writable, or the kernel would not take what is mapped from a file
        unfold_triangles(np.require(state["target"][None], np.float64, ["C", "W"]), square[:1])
        asymmetry = None
        if state["asymmetry"].size:
            less = np.require(state["asymmetry"][None], np.float64, ["C", "W"])
            unfold_triangles(less, square[1:])
            asymmetry = square[1]
        name = MODELS[int(model)]
        params = DccParams(a, b, square[0], name, g, asymmetry)  # type: ignore[arg-type]
        dcc = cls(params, n, clock="time" if timed else "observations")
        for own, saved in ((dcc._corr, state["corr"]), (dcc._diagonal, state["diagonal"])):
            own[:] = np.where(np.isnan(saved), own, saved)
        dcc._rows[:] = state["rows"]
        dcc._news[:] = state["news"]
        dcc._fourth[:] = state["fourth"]
        return dcc


def packed_start(params: DccParams, n: int) -> Packed:
    """Check parameters, pack them, and begin at the target.

    Raises
    ------
    ValueError
        As ``Dcc``.
    """
    a, b, g = params.a, params.b, params.g
    if params.model not in MODELS:
        message = f"model must be one of {MODELS}, not {params.model!r}"
        raise ValueError(message)
    if not (a >= 0.0 and b >= 0.0 and a + b < 1.0):
        message = f"a and b must be at least 0 and together below 1, not {a} and {b}"
        raise ValueError(message)
    if not (g >= 0.0 and math.isfinite(g)) or (g > 0.0 and params.model != "adcc"):
        message = f"g must be at least 0, and 0 unless the model is 'adcc', not {g}"
        raise ValueError(message)
    target = _filled_target(_checked("target", params.target, n))
    own = target[_own(n)]
    if not (own > 0.0).all():
        message = "the diagonal of the target must be positive"
        raise ValueError(message)
    asymmetry = np.empty(0)
    if params.model == "adcc":
        if params.asymmetry is None:
            message = "adcc needs its asymmetry, the mean of n n'"
            raise ValueError(message)
        asymmetry = _filled_asymmetry(_checked("asymmetry", params.asymmetry, n), target)
        if not (g * asymmetry[_own(n)] < (1.0 - a - b) * own).all():
            message = f"g = {g} is too much beside a + b = {a + b}: variances could vanish"
            raise ValueError(message)
    return Packed(target, asymmetry, _scaled(target, n), own.copy())


def _checked(name: str, square: F64, n: int) -> F64:
    square = np.array(square, dtype=np.float64)
    if square.shape != (n, n):
        message = f"{name} is ({n}, {n}), not {square.shape}"
        raise ValueError(message)
    # a product of matrices may be symmetric to rounding alone
    if np.isinf(square).any() or not np.allclose(square, square.T, 0.0, 1e-9, equal_nan=True):
        message = f"{name} must be symmetric and not infinite"
        raise ValueError(message)
    # which of the two is packed must not show, as it would in another order of the symbols
    packed: F64 = (0.5 * (square + square.T))[np.triu_indices(n)]
    return packed


def _own(n: int) -> I64:
    # where the diagonal stands in a triangle
    rows = np.arange(n)
    return rows * n - rows * (rows - 1) // 2


def _scaled(target: F64, n: int) -> F64:
    rows, columns = np.triu_indices(n)
    scale = 1.0 / np.sqrt(target[_own(n)])
    corr = target * (scale[rows] * scale[columns])
    corr[_own(n)] = 1.0
    return corr


def _side(size: int) -> int:
    return (math.isqrt(8 * size + 1) - 1) // 2


def _filled_target(target: F64) -> F64:
    missing = np.isnan(target)
    if not missing.any():
        return target
    own = np.zeros(target.size, dtype=bool)
    own[_own(_side(target.size))] = True
    known = target[~missing & ~own]
    # exact sums: the order of the symbols must not show in the last bit
    mean = math.fsum(known) / len(known) if len(known) else 0.0
    return np.where(missing, np.where(own, 1.0, mean), target)


def _filled_asymmetry(asymmetry: F64, target: F64) -> F64:
    # what normal returns of that correlation have: the mean of min(x, 0) min(y, 0)
    out = asymmetry.copy()
    for p in np.flatnonzero(np.isnan(asymmetry)):
        r = min(1.0, max(-1.0, float(target[p])))
        out[p] = (math.sqrt(1.0 - r * r) + r * (math.pi / 2.0 + math.asin(r))) / (2.0 * math.pi)
    return out
