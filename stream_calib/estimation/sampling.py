"""Ticks in total order to bars of returns."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from stream_calib.estimation.protocol import Layout
from stream_calib.estimation.two_scale import StampedBlock
from stream_calib.kernels.sampling import DIFF, LOG, SIMPLE, sample_bars
from stream_calib.values import F64, I8, I64, NO_TIME, TICK

RETURN_TYPES = {"log": LOG, "simple": SIMPLE, "diff": DIFF}


class Ticks(NamedTuple):
    """Prices in total order, columns of length m; ``kind`` as in a TickBatch, None: ticks alone."""

    time_ns: I64
    asset: I64
    price: F64
    ident: I64
    kind: I8 | None = None


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
        ``log``, ``simple`` or ``diff``, of all symbols or one for each.
    """

    LAYOUT = Layout(
        by_symbol={
            "last_price": math.nan,
            "last_bar": -1,
            "last_time_ns": NO_TIME,
            "last_ident": 0,
            "return_types": 0,
        }
    )

    def __init__(
        self, n: int, bar_ns: int, stale_bars: int, return_type: str | Sequence[str]
    ) -> None:
        self.bar_ns = bar_ns
        self.stale_bars = stale_bars
        types = [return_type] * n if isinstance(return_type, str) else return_type
        self.return_types = np.array([RETURN_TYPES[type_] for type_ in types], dtype=np.int64)
        self.last_price = np.full(n, np.nan)
        self.last_bar = np.full(n, -1, dtype=np.int64)
        self.last_time_ns = np.full(n, NO_TIME, dtype=np.int64)
        self.last_ident = np.zeros(n, dtype=np.int64)
        self.duplicates = 0

    def sample(self, ticks: Ticks, bars: I64, elapsed_bars: F64) -> StampedBlock:
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
        k, n = len(bars), len(self.last_price)
        returns, exposure, age = np.empty((3, k, n))
        self.duplicates += sample_bars(
            ticks.time_ns,
            ticks.asset,
            ticks.price,
            ticks.ident,
            np.full(len(ticks.price), TICK, np.int8) if ticks.kind is None else ticks.kind,
            bars,
            self.bar_ns,
            self.stale_bars,
            self.return_types,
            self.last_price,
            self.last_bar,
            self.last_time_ns,
            self.last_ident,
            returns,
            exposure,
            age,
        )
        return StampedBlock((bars + 1) * self.bar_ns, returns, exposure, elapsed_bars, age)

    def state(self) -> dict[str, F64 | I64]:
        """Return copies of all arrays that make up the state; duplicates were handed on."""
        return {
            "settings": np.array([self.bar_ns, self.stale_bars], np.int64),
            "return_types": self.return_types.copy(),
            "last_price": self.last_price.copy(),
            "last_bar": self.last_bar.copy(),
            "last_time_ns": self.last_time_ns.copy(),
            "last_ident": self.last_ident.copy(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Continue from what ``state`` returned."""
        bar_ns, stale_bars = (int(number) for number in state["settings"])
        sampler = cls(len(state["last_price"]), bar_ns, stale_bars, "log")
        sampler.return_types[:] = state["return_types"]
        sampler.last_price[:] = state["last_price"]
        sampler.last_bar[:] = state["last_bar"]
        sampler.last_time_ns[:] = state["last_time_ns"]
        sampler.last_ident[:] = state["last_ident"]
        return sampler
