"""Which pairs of symbols a composite likelihood sums over."""

from typing import Literal

import numpy as np

from stream_calib.values import I64

PairRule = Literal["auto", "all", "contiguous", "drawn"]

ALL_MAX = 30  # symbols up to which "auto" takes every pair
DRAWN_MAX = 300  # and up to which it draws five pairs per symbol
CYCLES = 5


def choose_pairs(n: int, rule: PairRule = "auto") -> I64:
    """List the pairs of n symbols.

    Parameters
    ----------
    n
        Number of symbols, at least 2.
    rule
        ``all``: n (n - 1) / 2. ``contiguous``: (0, 1), (1, 2), ... ``drawn``: five cycles through
        all symbols in pseudo-random order, so that each symbol is in up to ten pairs. ``auto``:
        all up to 30 symbols, drawn up to 300, contiguous above.

    Returns
    -------
    (p, 2)
        Rows (i, j) with i < j, ascending, none twice.

    Raises
    ------
    ValueError
        If the rule is none of these.

    Notes
    -----
    Cycle c goes through the symbols in the order of splitmix64(c 2^32 + i), the finaliser of
    Steele, Lea and Flood (2014); the pairs depend on n alone.

    Standard deviation of a against all pairs and contiguous ones, truth (.05, .93), 1000 bars:
    five pairs per symbol .0022 to .0028 (50 symbols), .0015 to .0021 (100), .0010 to .0011 (300).
    """
    if rule not in ("auto", "all", "contiguous", "drawn"):
        message = f"pairs must be 'auto', 'all', 'contiguous' or 'drawn', not {rule!r}"
        raise ValueError(message)
    if rule == "auto":
        rule = "all" if n <= ALL_MAX else "drawn" if n <= DRAWN_MAX else "contiguous"
    if rule == "all":
        return np.stack(np.triu_indices(n, 1), axis=1).astype(np.int64)
    if rule == "contiguous":
        first = np.arange(n - 1, dtype=np.int64)
        return np.stack([first, first + 1], axis=1)
    symbols = np.arange(n, dtype=np.uint64)
    cycles = []
    for cycle in range(CYCLES):
        order = np.argsort(_hash(symbols + np.uint64(cycle << 32)), kind="stable")
        cycles.append(np.stack([order, np.roll(order, -1)], axis=1))
    pairs = np.sort(np.concatenate(cycles), axis=1)
    return np.unique(pairs, axis=0).astype(np.int64)


def _hash(counter: np.ndarray) -> np.ndarray:
    h = (counter + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))
