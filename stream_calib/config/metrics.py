"""Settings of what is measured beside the summaries."""

from collections.abc import Collection, Mapping
from typing import Annotated

from pydantic import Field

from stream_calib.config.tick_layer import Section

PAIRS_MAX = 20  # of a universe: each is two series for each estimator
BETWEEN = " ~ "  # the symbols of a pair, where both stand in one text
PairName = Annotated[str, Field(min_length=1)]


class MetricsConfig(Section):
    """What is measured beside the summaries.

    ``pairs`` are lists of two symbols, [["BTC/USDT", "ETH/USDT"]], whose correlation and standard
    error are metrics of their own, in every universe that has both: at most 20 of a universe.
    """

    pairs: tuple[tuple[PairName, PairName], ...] = ()


def check_pairs(
    pairs: Collection[tuple[str, str]], universes: Mapping[str, Collection[str]]
) -> None:
    """Refuse pairs that cannot be watched.

    Parameters
    ----------
    pairs
        Two symbols each.
    universes
        Symbols by the name of the universe.

    Raises
    ------
    ValueError
        A pair is of one symbol, named twice, of no universe, or one too many.
    """
    seen: set[frozenset[str]] = set()
    counts = dict.fromkeys(universes, 0)
    for first, second in pairs:
        pair = frozenset((first, second))
        where = [name for name, symbols in universes.items() if pair <= set(symbols)]
        message = ""
        if first == second:
            message = f"names {first!r} as a pair with itself"
        elif pair in seen:
            message = f"names {first!r} with {second!r} twice"
        elif not where:
            message = f"names {first!r} with {second!r}, and no universe has both"
        elif BETWEEN in first or BETWEEN in second:
            message = f"cannot name a symbol with {BETWEEN!r} in it, as {first!r} with {second!r}"
        for name in where:
            counts[name] += 1
            if counts[name] > PAIRS_MAX:
                message = f"names more than {PAIRS_MAX} pairs of universe {name!r}"
        if message:
            raise ValueError(f"metrics.pairs {message}")
        seen.add(pair)


def pair_text(first: str, second: str) -> str:
    """Return a pair as one text, which no other pair has."""
    return f"{first}{BETWEEN}{second}"
