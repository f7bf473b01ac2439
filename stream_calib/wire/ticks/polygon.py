"""The feeds of Polygon (Massive): arrays of events; symbols become ``POLYGON:AAPL``.

    [{"ev": "T", "sym": "MSFT", "x": 4, "i": "12345", "z": 3, "p": 114.125, "s": 100, "c": [0, 12],
      "t": 1536036818784, "q": 3681328}]
    [{"ev": "Q", "sym": "MSFT", "bx": 4, "bp": 114.125, "bs": 100, "ax": 7, "ap": 114.128,
      "as": 160, "t": 1536036818784, "q": 50385480}]

Trades ``T`` and ``XT``, quotes ``Q``, ``XQ`` and ``C``, and bars ``AM``, ``A``, ``XA``, ``CA`` of
stocks, crypto and currencies. Times are milliseconds on the sockets. Trades of any condition are
read: what is off is left to the filter of the universe.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from stream_calib.wire.ticks.fields import MalformedError, SilentError, inside
from stream_calib.wire.ticks.formats import Document, Format
from stream_calib.wire.ticks.layouts import Layout

VENUE = "POLYGON"
TRADES = Layout("sym", ("t",), "p", ident="i", venue=VENUE)
QUOTES = Layout("sym", ("t",), bid="bp", ask="ap", bid_size="bs", ask_size="as", venue=VENUE)
COIN_TRADES = Layout("pair", ("t",), "p", ident="i", venue=VENUE)
COIN_QUOTES = Layout("pair", ("t",), bid="bp", ask="ap", bid_size="bs", ask_size="as", venue=VENUE)
CURRENCY_QUOTES = Layout("p", ("t",), bid="b", ask="a", venue=VENUE)
BARS = Layout("sym", ("at",), "c", venue=VENUE, end_of="e")
PAIR_BARS = Layout("pair", ("at",), "c", venue=VENUE, end_of="e")
_LAYOUTS = {
    "T": TRADES,
    "Q": QUOTES,
    "XT": COIN_TRADES,
    "XQ": COIN_QUOTES,
    "C": CURRENCY_QUOTES,
}
_BARS = {"A": BARS, "AM": BARS, "XA": PAIR_BARS, "CA": PAIR_BARS}


def matches(keys: AbstractSet[str]) -> bool:
    """Tell whether this looks like an event of Polygon."""
    return "ev" in keys


def rows(document: Document) -> tuple[Layout, Sequence[Document]]:
    """Read one event."""
    event = document["ev"]
    kind = event if isinstance(event, str) else ""
    if kind in _LAYOUTS:
        return _LAYOUTS[kind], (document,)
    if kind in _BARS:
        return _BARS[kind], ({**document, "at": inside(document.get("e"))},)
    if kind == "status":
        reason = "control"
        raise SilentError(reason)
    reason = "unsupported"
    raise MalformedError(reason)


FORMAT = Format("polygon", matches, rows, venue=VENUE)
