"""Bars as dictionaries: the close of each symbol per bar, then returns between closes."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import NamedTuple


class Tick(NamedTuple):
    """One price."""

    time_ns: int
    asset: int
    price: float
    ident: int


class Bars(NamedTuple):
    """Return and span by (bar, asset); last close by asset as (bar, price); repeated ticks."""

    returns: dict[tuple[int, int], float]
    spans: dict[tuple[int, int], int]
    last: dict[int, tuple[int, float]]
    duplicates: int


RETURNS: Mapping[str, Callable[[float, float], float]] = {
    "log": lambda new, old: math.log(new / old),
    "simple": lambda new, old: new / old - 1.0,
    "diff": lambda new, old: new - old,
}


def sample_bars(ticks: Iterable[Tick], bar_ns: int, stale_bars: int, return_type: str) -> Bars:
    """Sample the whole history at once."""
    closes: dict[int, dict[int, float]] = defaultdict(dict)  # asset -> bar -> price
    previous: dict[int, Tick] = {}
    duplicates = 0
    for tick in ticks:
        duplicates += previous.get(tick.asset) == tick
        previous[tick.asset] = tick
        closes[tick.asset][tick.time_ns // bar_ns] = tick.price
    returns, spans = {}, {}
    for asset, close in closes.items():
        bars = sorted(close)
        for before, bar in pairwise(bars):
            if bar - before <= stale_bars:
                returns[bar, asset] = RETURNS[return_type](close[bar], close[before])
                spans[bar, asset] = bar - before
    last = {asset: (max(close), close[max(close)]) for asset, close in closes.items()}
    return Bars(returns, spans, last, duplicates)
