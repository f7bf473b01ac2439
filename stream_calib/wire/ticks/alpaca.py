"""Version 2 of Alpaca's market data: arrays of messages; symbols become ``ALPACA:AAPL``.

    [{"T": "t", "i": 96921, "S": "AAPL", "x": "D", "p": 126.55, "s": 1, "c": ["@", "I"], "z": "C",
      "t": "2021-02-22T15:51:44.208Z"}]
    [{"T": "q", "S": "AMD", "bx": "U", "bp": 87.66, "bs": 1, "ax": "Q", "ap": 87.68, "as": 4,
      "c": ["R"], "z": "C", "t": "2021-02-22T15:51:45.335689322Z"}]

Trades, quotes and minute bars, whose ``t`` is their begin. Bars of days and bars that are written
anew say nothing more; corrections and cancellations of trades are refused as ``unsupported``.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from stream_calib.wire.ticks.fields import MalformedError, SilentError, inside
from stream_calib.wire.ticks.formats import Document, Format
from stream_calib.wire.ticks.layouts import Layout

VENUE = "ALPACA"
MINUTE_NS = 60_000_000_000
TRADES = Layout("S", ("t",), "p", ident="i", venue=VENUE)
QUOTES = Layout("S", ("t",), bid="bp", ask="ap", bid_size="bs", ask_size="as", venue=VENUE)
BARS = Layout("S", ("at",), "c", venue=VENUE, end_of="t")
_SILENT = {
    **dict.fromkeys(("success", "error", "subscription", "s", "l"), "control"),
    **dict.fromkeys(("d", "u"), "repeated"),
}


def matches(keys: AbstractSet[str]) -> bool:
    """Tell whether this looks like a message of Alpaca."""
    if "T" not in keys or not keys.isdisjoint({"e", "ev"}):
        return False
    return {"S", "t"} <= keys or not keys.isdisjoint({"msg", "trades", "quotes", "bars"})


def rows(document: Document) -> tuple[Layout, Sequence[Document]]:
    """Read one message."""
    kind = document["T"]
    if kind == "t":
        return TRADES, (document,)
    if kind == "q":
        return QUOTES, (document,)
    if kind == "b":
        return BARS, ({**document, "at": inside(document.get("t"), MINUTE_NS)},)
    silent = _SILENT.get(kind) if isinstance(kind, str) else None
    if silent is not None:
        raise SilentError(silent)
    reason = "unsupported"
    raise MalformedError(reason)


FORMAT = Format("alpaca", matches, rows, venue=VENUE)
