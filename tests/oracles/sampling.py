"""Bars symbol by symbol: the close of each bar, and the return from the close before it."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple


class Tick(NamedTuple):
    """One price, or what adjusts the prices before it."""

    time_ns: int
    asset: int
    price: float
    ident: int
    kind: str = "tick"


class Bars(NamedTuple):
    """Return, span and age by (bar, asset); last close by asset as (bar, price); repeated ticks."""

    returns: dict[tuple[int, int], float]
    spans: dict[tuple[int, int], int]
    ages: dict[tuple[int, int], float]
    last: dict[int, tuple[int, float]]
    duplicates: int


def _ratio(new: float, old: float) -> float:
    return new / old if new > 0.0 and old > 0.0 else math.nan


RETURNS: Mapping[str, Callable[[float, float], float]] = {
    "log": lambda new, old: math.log(_ratio(new, old)),
    "simple": lambda new, old: _ratio(new, old) - 1.0,
    "diff": lambda new, old: new - old,
}
CHANGES: Mapping[str, Callable[[float, float], float]] = {
    "factor": lambda price, by: price * by,
    "offset": lambda price, by: price + by,
    "reset": lambda _price, _by: math.nan,
}


def sample_bars(
    ticks: Iterable[Tick], bar_ns: int, stale_bars: int, return_types: Sequence[str]
) -> Bars:
    """Sample the whole history at once."""
    out = Bars({}, {}, {}, {}, 0)
    every = list(ticks)
    duplicates = 0
    for asset in sorted({tick.asset for tick in every}):
        close: tuple[int, float] | None = None
        previous: Tick | None = None
        own = (tick for tick in every if tick.asset == asset)
        for bar, rows in groupby(own, lambda tick: tick.time_ns // bar_ns):
            newest: Tick | None = None
            for tick in rows:
                if tick.kind == "tick":
                    duplicates += tick == previous
                    newest = previous = tick
                    continue
                change = CHANGES[tick.kind]
                close = close and (close[0], change(close[1], tick.price))
                newest, previous = (
                    old and old._replace(price=change(old.price, tick.price))
                    for old in (newest, previous)
                )
                if tick.kind == "reset":
                    close = newest = None
            if newest is None:
                continue
            out.ages[bar, asset] = ((bar + 1) * bar_ns - newest.time_ns) / bar_ns
            if close is not None and bar - close[0] <= stale_bars:
                r = RETURNS[return_types[asset]](newest.price, close[1])
                if abs(r) <= 1e100:
                    out.returns[bar, asset] = r
                    out.spans[bar, asset] = bar - close[0]
            close = (bar, newest.price)
        if close is not None:
            out.last[asset] = close
    return out._replace(duplicates=duplicates)
