"""Streams of Binance, spot and futures; symbols become ``BINANCE:BTCUSDT``.

    {"e": "aggTrade", "E": 1633998523963, "s": "NKNUSDT", "a": 15683430, "p": "0.35280000",
     "q": "58.00000000", "f": 19862790, "l": 19862790, "T": 1633998523963, "m": false}
    {"u": 499869768, "s": "NKNUSDT", "b": "0.3521", "B": "672", "a": "0.3526", "A": "3199"}

``trade``, ``aggTrade``, ``bookTicker``, ``24hrMiniTicker``, ``24hrTicker`` and closed ``kline``,
alone, in arrays, or in combined streams. Times are in milliseconds, or in microseconds where the
socket asked for them; the spot ``bookTicker`` has none, and the time of the log counts. The
messages of spot and futures look alike: ``input.exchanges`` names the exchange by topic.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from stream_calib.wire.ticks.fields import (
    MalformedError,
    SilentError,
    inside,
    mapping,
)
from stream_calib.wire.ticks.formats import Document, Format
from stream_calib.wire.ticks.layouts import Layout

VENUE = "BINANCE"
TRADES = Layout("s", ("T", "E"), "p", ident="t", venue=VENUE)
AGGREGATES = Layout("s", ("T", "E"), "p", ident="a", venue=VENUE)
QUOTES = Layout(
    "s", ("T", "E"), bid="b", ask="a", bid_size="B", ask_size="A", at_log=True, venue=VENUE
)
MINI_TICKERS = Layout("s", ("E",), "c", venue=VENUE)
TICKERS = Layout("s", ("E",), "c", "b", "a", "B", "A", venue=VENUE)
KLINES = Layout("s", ("end",), "c", venue=VENUE, end_of="T")
_LAYOUTS = {
    "trade": TRADES,
    "aggTrade": AGGREGATES,
    "bookTicker": QUOTES,
    "24hrMiniTicker": MINI_TICKERS,
    "24hrTicker": TICKERS,
}
_QUOTE_KEYS = {"u", "s", "b", "B", "a", "A"}


def matches(keys: AbstractSet[str]) -> bool:
    """Tell whether this looks like a message of Binance."""
    return {"e", "E"} <= keys or keys >= _QUOTE_KEYS or keys == {"result", "id"}


def flat(keys: AbstractSet[str]) -> Layout | None:
    """Tell a quote of the spot market, which does not say what it is."""
    return QUOTES if "e" not in keys and "s" in keys else None


def rows(document: Document) -> tuple[Layout, Sequence[Document]]:
    """Read one message."""
    event = document.get("e")
    if "e" not in document:
        reason = "control"
        raise SilentError(reason)
    layout = _LAYOUTS.get(event) if isinstance(event, str) else None
    if layout is not None:
        return layout, (document,)
    if event == "kline":
        bar = mapping(document.get("k"))
        if bar.get("x") is not True:
            reason = "open_bar"
            raise SilentError(reason)
        return KLINES, ({**bar, "end": inside(bar.get("T"))},)
    reason = "unsupported"
    raise MalformedError(reason)


FORMAT = Format("binance", matches, rows, venue=VENUE, flat=flat)
