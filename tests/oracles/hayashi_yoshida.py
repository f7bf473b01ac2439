"""Hayashi-Yoshida as it is defined: a double loop over intervals, products where they overlap."""

import itertools
import math
from typing import NamedTuple

import numpy as np

from stream_calib.values import F64, I64


class Interval(NamedTuple):
    """Return of one asset over (start, stop]."""

    start: int
    stop: int
    size: float


def covariance(
    time_ns: I64, asset: I64, log_price: F64, n: int, half_life_ns: float = math.inf
) -> F64:
    """Sum the products of all overlapping returns, weighted by the age of the later end."""
    cov = np.zeros((n, n))
    returns = [_returns(time_ns, asset, log_price, i) for i in range(n)]
    now_ns = int(time_ns[-1]) if len(time_ns) else 0
    for i in range(n):
        for j in range(n):
            for a in returns[i]:
                for b in returns[j]:
                    if max(a.start, b.start) < min(a.stop, b.stop):
                        weight = 2.0 ** (-(now_ns - max(a.stop, b.stop)) / half_life_ns)
                        cov[i, j] += weight * a.size * b.size
    return cov


def lagged(time_ns: I64, asset: I64, log_price: F64, n: int, half_life_ns: float = math.inf) -> F64:
    """Sum the products of each return and the next of the same asset, weighted by its age."""
    sums = np.zeros(n)
    now_ns = int(time_ns[-1]) if len(time_ns) else 0
    for i in range(n):
        returns = _returns(time_ns, asset, log_price, i)
        for a, b in itertools.pairwise(returns):
            sums[i] += 2.0 ** (-(now_ns - b.stop) / half_life_ns) * a.size * b.size
    return sums


def _returns(time_ns: I64, asset: I64, log_price: F64, i: int) -> list[Interval]:
    columns = zip(time_ns.tolist(), asset.tolist(), log_price.tolist(), strict=True)
    prices = {t: price for t, k, price in columns if k == i}  # of one instant the last
    ends = list(prices.items())
    return [Interval(s, u, q - p) for (s, p), (u, q) in itertools.pairwise(ends)]
