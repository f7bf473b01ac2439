"""What happened in some bars that subscribers should know, in the order of the bars."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from stream_calib.engine.tick_layer import Folded
from stream_calib.values import F64, I64

SPLIT_NEAR = 0.02  # of a log price: what the market may have moved besides
SPLITS_NEW = (1, 2, 3, 4, 5, 6, 7, 8, 10, 15, 20, 25, 50, 100)


class Note(NamedTuple):
    """An event to be, without its number."""

    type: str
    time_ns: int
    details: Mapping[str, object]


def notes_of(
    bar_ns: int, symbols: Sequence[str], folded: Folded, gaps: Sequence[tuple[int, int]]
) -> list[Note]:
    """Return what is notable in the order of bars: gaps, then adjustments, then jumps.

    Parameters
    ----------
    gaps
        Number of the bar that ended a gap, and how many bars passed.
    """
    found = [
        ((bar, 0, ""), Note("gap", bar * bar_ns, _gap(bar, passed, bar_ns))) for bar, passed in gaps
    ]
    found += [
        ((time_ns // bar_ns, 1, ""), Note("adjusted", time_ns, {"symbol": symbols[i], **details}))
        for time_ns, i, details in folded.adjusted
    ]
    for time_ns, i, ratio in folded.jumps:
        jump = {"symbol": symbols[i], "ratio": ratio, "split": near_split(ratio)}
        found.append(((time_ns // bar_ns - 1, 2, symbols[i]), Note("price_jump", time_ns, jump)))
    return [note for _, note in sorted(found, key=lambda one: one[0])]


def gaps_of(bars: I64, passed: I64, elapsed: F64, gap_bars: int) -> list[tuple[int, int]]:
    """Return the bars after a gap; what passes while all markets are closed is none."""
    gone = (passed > gap_bars) & (elapsed.max(axis=(1, 2)) >= gap_bars)
    return list(zip(bars[gone].tolist(), passed[gone].tolist(), strict=True))


def near_split(ratio: float) -> str | None:
    """Name the split that a ratio of prices looks like, as "2:1" new for old; None for none."""
    if not 0.0 < ratio < math.inf:
        return None
    for old in range(1, 4):
        for new in SPLITS_NEW:
            for words, exact in ((f"{new}:{old}", old / new), (f"{old}:{new}", new / old)):
                plain = math.gcd(old, new) == 1 and new != old
                if plain and abs(math.log(ratio / exact)) < SPLIT_NEAR:
                    return words
    return None


def _gap(bar: int, passed: int, bar_ns: int) -> Mapping[str, object]:
    return {"from_ns": str((bar - passed + 1) * bar_ns), "bars": passed - 1}
