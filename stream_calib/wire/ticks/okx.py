"""Version 5 of OKX's public channels; symbols become ``OKX:BTC-USDT``.

    {"arg": {"channel": "trades", "instId": "BTC-USDT"}, "data": [
        {"instId": "BTC-USDT", "tradeId": "130639474", "px": "42219.9", "sz": "0.12060306",
         "side": "buy", "ts": "1630048897897", "count": "3"}]}

``trades``, ``trades-all``, ``tickers``, ``bbo-tbt`` and ``books5``. Times are milliseconds as
text. An empty text is no price.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from stream_calib.wire.ticks.fields import (
    MalformedError,
    SilentError,
    mapping,
    objects,
    top,
)
from stream_calib.wire.ticks.formats import Document, Format
from stream_calib.wire.ticks.layouts import Layout

VENUE = "OKX"
TRADES = Layout("instId", ("ts",), "px", ident="tradeId", venue=VENUE)
TICKERS = Layout("instId", ("ts",), "last", "bidPx", "askPx", "bidSz", "askSz", venue=VENUE)
_PRICES = ("last", "bidPx", "askPx")


def matches(keys: AbstractSet[str]) -> bool:
    """Tell whether this looks like a message of OKX."""
    return {"arg", "data"} <= keys or ("event" in keys and not keys.isdisjoint({"connId", "code"}))


def rows(document: Document) -> tuple[Layout, Sequence[Document]]:
    """Read the trades or quotes of one message."""
    if "event" in document:
        reason = "control"
        raise SilentError(reason)
    arg = mapping(document["arg"])
    channel, data = arg.get("channel"), document["data"]
    if channel in ("trades", "trades-all"):
        return TRADES, objects(data)
    if channel == "tickers":
        carried = [{k: v for k, v in row.items() if v != ""} for row in objects(data)]
        return TICKERS, [row for row in carried if not row.keys().isdisjoint(_PRICES)]
    if channel in ("bbo-tbt", "books5"):
        books = [(row, top(row.get("bids")), top(row.get("asks"))) for row in objects(data)]
        return TICKERS, [
            {
                "instId": arg.get("instId"),
                "ts": row.get("ts"),
                "bidPx": bid[0],
                "bidSz": bid[1],
                "askPx": ask[0],
                "askSz": ask[1],
            }
            for row, bid, ask in books
            if bid != ask
        ]
    reason = "unsupported"
    raise MalformedError(reason)


FORMAT = Format("okx", matches, rows, venue=VENUE)
