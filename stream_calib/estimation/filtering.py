"""Bad ticks are taken out before bars are sampled, one symbol at a time."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from stream_calib.estimation.protocol import Layout
from stream_calib.estimation.sampling import RETURN_TYPES
from stream_calib.kernels.filtering import ABSOLUTE, RELATIVE, WARM_MOVES, judge_ticks
from stream_calib.kernels.sampling import DIFF
from stream_calib.values import F64, I64

I8 = npt.NDArray[np.int8]


class Judged(NamedTuple):
    """What became of m ticks of n symbols; the values are those of ``kernels.filtering``.

    ``code`` (m,): KEEP is sampled; OUTLIER was refuted; CONFIRMED_LATE was confirmed, in a later
    bar, whose tick carries the level; HELD waits for its symbol's next tick. ``resolved`` (n,):
    what the first tick of a symbol says of all those that were HELD when the call before ended:
    CONFIRMED, REFUTED, or NONE while there were none or no tick has come.
    """

    code: I8
    resolved: I8


def adjusted(prices: F64, factor: float, offset: float, *, positive: bool) -> F64:
    """Return factor p + offset for remembered prices p, NaN for NaN.

    Raises
    ------
    ValueError
        If ``factor`` is not positive, or a price would not be finite, or not ``positive``.
    """
    if not 0.0 < factor < math.inf:
        message = f"factor must be positive and finite, not {factor}"
        raise ValueError(message)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        out: F64 = factor * prices + offset
    known = out[~np.isnan(prices)]
    if not ((np.abs(known) < np.inf) & ((known > 0.0) | (not positive))).all():
        message = f"factor {factor} and offset {offset} leave no price"
        raise ValueError(message)
    return out


class TickFilter:
    """Hold a tick that is far off until its symbol's next tick, which confirms or refutes it.

    Far is more than ``sigmas`` robust standard deviations of a tick-to-tick move and ``grains``
    moves of usual size, from the last accepted price. The usual size is the upper quartile of
    the last k moves that were none of zero, and counts towards the deviation by the share of
    ticks that move: a price on a grid may always take a step, one that stood still too.

    A held tick is dropped if the next one takes back more than ``reversal`` of its move, and
    accepted otherwise, so that a jump is followed one tick late at most. A report in several
    lines of one time and price, or one delivered twice, is one tick and does not confirm itself.
    When two or more bad ticks agree they are believed; for eight ticks after such a jump the
    level before it may then come back at once. Moves to refuted ticks count as moves: where
    every other tick is "bad", that is how the symbol moves.

    A new symbol: its first tick waits for a second one within ``rough`` of it (of two that
    disagree the first is dropped, and the second waits); until ten moves are known, what is
    within ``rough`` is near. With ``diff`` there is no such yardstick: by default every tick is
    kept until then.

    Only what is confirmed within its own bar is kept in its place. So the bars that come out do
    not depend on how many of them a call holds, as long as no bar is cut.

    Parameters
    ----------
    n
        Number of symbols.
    bar_ns
        Length of a bar; bar b covers the times [b bar_ns, (b + 1) bar_ns).
    return_type
        ``log`` and ``simple`` judge moves relative to the price, ``diff`` in units of the price.
    k
        Moves that the usual size is the upper quartile of.
    sigmas, grains
        How far is far.
    reversal
        Part of its move that the next tick has to take back for a held one to be dropped.
    rough
        Tolerance while little is known, relative or in units of the price; by default .1, and
        infinite for ``diff``.

    Raises
    ------
    ValueError
        If a parameter is not positive, ``k`` is less than ten, or ``return_type`` is not known.

    Notes
    -----
    O(k) per tick. It is the one-sided form of the filter of Brownlees and Gallo, which looks
    ahead, with a tick to wait for instead. Figures are in ``tests/estimation/test_filtering.py``.

    References
    ----------
    Brownlees and Gallo (2006), Financial econometric analysis at ultra-high frequency: data
    handling concerns, Computational Statistics & Data Analysis 51, 2232-2245, section 3.
    """

    LAYOUT = Layout(
        by_symbol={
            "moves": math.inf,
            "counts": 0,
            "level": np.array([[np.nan], [0.0], [np.nan]]),
            "held": math.nan,
            "held_mark": 0,
        }
    )

    def __init__(
        self,
        n: int,
        bar_ns: int,
        return_type: str = "log",
        k: int = 60,
        sigmas: float = 8.0,
        grains: float = 2.0,
        reversal: float = 0.8,
        rough: float | None = None,
    ) -> None:
        if return_type not in RETURN_TYPES:
            message = f"return_type must be one of {', '.join(RETURN_TYPES)}, not {return_type!r}"
            raise ValueError(message)
        self.bar_ns = bar_ns
        self.return_type = RETURN_TYPES[return_type]
        self._deviation = ABSOLUTE if self.return_type == DIFF else RELATIVE
        if rough is None:
            rough = 0.1 if self._deviation == RELATIVE else math.inf
        if k < WARM_MOVES:
            message = f"k must be at least {WARM_MOVES}, not {k}"
            raise ValueError(message)
        positive = {"n": n, "bar_ns": bar_ns, "sigmas": sigmas, "grains": grains}
        for name, value in (positive | {"reversal": reversal, "rough": rough}).items():
            if not value > 0:
                message = f"{name} must be positive, not {value}"
                raise ValueError(message)
        self._limits = np.array([sigmas, grains, reversal, rough])
        self._windows = np.full((2, n, k + 1), np.inf)
        self._counts = np.zeros((4, n), dtype=np.int64)
        self._level = np.full((3, n), np.nan)
        self._level[1] = 0.0
        self._held = np.full(n, np.nan)
        self._held_mark = np.zeros((2, n), dtype=np.int64)

    def judge(self, time_ns: I64, asset: I64, price: F64) -> Judged:
        """Judge ticks in total order; their bars are whole.

        Parameters
        ----------
        time_ns, asset, price : (m,)
            What is not finite, or not positive with relative moves, is an OUTLIER.
        """
        code = np.empty(len(time_ns), dtype=np.int8)
        resolved = np.empty(len(self._held), dtype=np.int8)
        sigmas, grains, reversal, rough = self._limits
        judge_ticks(
            time_ns,
            asset,
            price,
            self.bar_ns,
            self._deviation,
            sigmas,
            grains,
            reversal,
            rough,
            self._windows,
            self._counts,
            self._level,
            self._held,
            self._held_mark,
            code,
            resolved,
        )
        return Judged(code, resolved)

    def adjust(self, asset: int, factor: float = 1.0, offset: float = 0.0) -> None:
        """Turn every remembered price p of a symbol into factor p + offset: a split, a roll.

        Relative moves stay what they were.

        Raises
        ------
        ValueError
            If ``factor`` is not positive, or a price would not be finite, or not positive with
            relative moves. Nothing has changed then.
        """
        remembered = np.array([*self._level[[0, 2], asset], self._held[asset]])
        prices = adjusted(remembered, factor, offset, positive=self._deviation == RELATIVE) + 0.0
        with np.errstate(over="ignore"):
            windows = self._windows[:, asset] * factor
        self._level[0, asset], self._level[2, asset], self._held[asset] = prices
        if self._deviation == ABSOLUTE:
            self._windows[:, asset] = windows

    def reset(self, asset: int) -> int:
        """Forget a symbol; return how many HELD ticks of it will never be resolved."""
        given_up = int(self._held_mark[1, asset])
        self._windows[:, asset] = np.inf
        self._counts[:, asset] = 0
        self._level[:, asset] = np.nan
        self._level[1, asset] = 0.0
        self._held[asset] = np.nan
        self._held_mark[:, asset] = 0
        return given_up

    def state(self) -> dict[str, F64 | I64]:
        """Return copies of all arrays that make up the state, symbols on the last axis."""
        k = self._windows.shape[2] - 1
        return {
            "settings": np.array([self.bar_ns, self.return_type], dtype=np.int64),
            "limits": self._limits.copy(),
            "moves": self._windows[0, :, :k].T.copy(),
            "counts": self._counts.copy(),
            "level": self._level.copy(),
            "held": self._held.copy(),
            "held_mark": self._held_mark.copy(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Continue from what ``state`` returned."""
        bar_ns, code = (int(number) for number in state["settings"])
        (return_type,) = (name for name, known in RETURN_TYPES.items() if known == code)
        k, n = state["moves"].shape
        sigmas, grains, reversal, rough = (float(number) for number in state["limits"])
        own = cls(n, bar_ns, return_type, k, sigmas, grains, reversal, rough)
        own._windows[0, :, :k] = state["moves"].T
        own._windows[1] = np.sort(own._windows[0], axis=1)
        own._counts[:] = state["counts"]
        own._level[:] = state["level"]
        own._held[:] = state["held"]
        own._held_mark[:] = state["held_mark"]
        return own
