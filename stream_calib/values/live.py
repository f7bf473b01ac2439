"""What a live feed hands on: ticks of an exchange, and how many there were of each kind."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

BREAKS = ("lost", "stale", "refused", "backlog")  # why a connection ends


class LiveTick(NamedTuple):
    """A trade or a best quote as an exchange told it.

    ``time_ns`` is 0 where the exchange gives no time, ``ident`` "" where it gives no id; prices
    and sizes are None where there are none.
    """

    symbol: str
    time_ns: int
    ident: str = ""
    price: float | None = None
    size: float | None = None
    bid: float | None = None
    ask: float | None = None
    bid_size: float | None = None
    ask_size: float | None = None


@dataclass(slots=True)
class FeedCounts:
    """What came of one exchange so far; whoever reads the exchange counts in it.

    Parameters
    ----------
    messages
        Messages of the websocket, ``garbled`` ones among them.
    garbled
        Messages that could not be read.
    written
        Ticks that the log has acknowledged.
    repeated
        Trades that had been read before, and were left out.
    late
        Trades that came after one with a higher id, and were written nevertheless.
    unpriced
        Trades and quotes without a usable price.
    overrun
        Trades and quotes that were thrown away unread, for too many came at once.
    unwritten
        Ticks that were read and could not be written before the end.
    gaps, missed
        Jumps in trade ids that count up by one, and ids that they left out; a late one is among
        those that were missed.
    reconnects
        Connections that ended, by reason: ``lost``, ``stale`` (silent for too long), ``refused``,
        ``backlog`` (ended here, for what was read could not be written).
    lag_s
        Age of the last tick when it came; NaN when none told its time.
    """

    messages: int = 0
    garbled: int = 0
    written: int = 0
    repeated: int = 0
    late: int = 0
    unpriced: int = 0
    overrun: int = 0
    unwritten: int = 0
    gaps: int = 0
    missed: int = 0
    reconnects: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(BREAKS, 0)))
    lag_s: float = float("nan")
