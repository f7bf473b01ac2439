"""Ticks in total order to bars of returns."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from stream_calib.kernels.sampling import DIFF, LOG, SIMPLE, sample_bars
from stream_calib.values import F64, I64, NO_TIME, ReturnBlock

RETURN_TYPES = {"log": LOG, "simple": SIMPLE, "diff": DIFF}


class Ticks(NamedTuple):
    """Prices in total order, columns of length m."""

    time_ns: I64
    asset: I64
    price: F64
    ident: I64

    def chosen(self, which: npt.NDArray[np.bool_] | I64 | slice) -> "Ticks":
        """Pick ticks by a mask, by indices or by a slice."""
        return Ticks(self.time_ns[which], self.asset[which], self.price[which], self.ident[which])

    @classmethod
    def join(cls, parts: list["Ticks"]) -> "Ticks":
        """Put ticks one after the other."""
        if not parts:
            nothing = np.empty(0, dtype=np.int64)
            return cls(nothing, nothing, np.empty(0), nothing)
        return cls(
            np.concatenate([part.time_ns for part in parts]),
            np.concatenate([part.asset for part in parts]),
            np.concatenate([part.price for part in parts]),
            np.concatenate([part.ident for part in parts]),
        )


class Sampler:
    """Last price per bar; a return is taken from the last observed bar to this one.

    Bar b covers the times [b bar_ns, (b + 1) bar_ns). A bar without a tick is not observed:
    its return is NaN, and the next one spans more bars, which ``exposure`` says.

    Parameters
    ----------
    n
        Number of symbols.
    bar_ns
        Length of a bar.
    stale_bars
        Age in bars after which a last price is no basis for a return any more.
    return_type
        ``log``, ``simple`` or ``diff``.
    """

    def __init__(self, n: int, bar_ns: int, stale_bars: int, return_type: str) -> None:
        self.bar_ns = bar_ns
        self.stale_bars = stale_bars
        self.return_type = RETURN_TYPES[return_type]
        self.last_price = np.full(n, np.nan)
        self.last_bar = np.full(n, -1, dtype=np.int64)
        self.last_time_ns = np.full(n, NO_TIME, dtype=np.int64)
        self.last_ident = np.zeros(n, dtype=np.int64)
        self.duplicates = 0

    def sample(self, ticks: Ticks, bars: I64, elapsed_bars: F64) -> ReturnBlock:
        """Close the bars numbered ``bars``; every tick lies in one of them.

        Parameters
        ----------
        ticks
            In total order.
        bars : (k,)
            Ascending.
        elapsed_bars : (k,)
            Trading time since the row before, in bars.
        """
        shape = (len(bars), len(self.last_price))
        returns, exposure = np.empty(shape), np.empty(shape)
        self.duplicates += sample_bars(
            ticks.time_ns,
            ticks.asset,
            ticks.price,
            ticks.ident,
            bars,
            self.bar_ns,
            self.stale_bars,
            self.return_type,
            self.last_price,
            self.last_bar,
            self.last_time_ns,
            self.last_ident,
            returns,
            exposure,
        )
        return ReturnBlock((bars + 1) * self.bar_ns, returns, exposure, elapsed_bars)

    def state(self) -> dict[str, F64 | I64]:
        """Return copies of all arrays that make up the state; duplicates were handed on."""
        return {
            "settings": np.array([self.bar_ns, self.stale_bars, self.return_type], np.int64),
            "last_price": self.last_price.copy(),
            "last_bar": self.last_bar.copy(),
            "last_time_ns": self.last_time_ns.copy(),
            "last_ident": self.last_ident.copy(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Continue from what ``state`` returned."""
        bar_ns, stale_bars, code = (int(number) for number in state["settings"])
        (return_type,) = (name for name, known in RETURN_TYPES.items() if known == code)
        sampler = cls(len(state["last_price"]), bar_ns, stale_bars, return_type)
        sampler.last_price[:] = state["last_price"]
        sampler.last_bar[:] = state["last_bar"]
        sampler.last_time_ns[:] = state["last_time_ns"]
        sampler.last_ident[:] = state["last_ident"]
        return sampler
