"""CSV of Tardis: trades, quotes, tops of books, tickers of derivatives.

    exchange,symbol,timestamp,local_timestamp,id,side,price,amount
    exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount
    exchange,symbol,timestamp,local_timestamp,asks[0].price,asks[0].amount,bids[0].price,...
    exchange,symbol,timestamp,local_timestamp,funding_timestamp,...,last_price,...

A row becomes a native tick of ``EXCHANGE:SYMBOL``, the exchange in capitals and with ``_`` for
``-`` (``BINANCE_FUTURES:BTCUSDT``), at ``timestamp``, in microseconds; ``local_timestamp`` is
when Tardis received it, and where the venue said no time the two are equal.
"""

from collections.abc import Sequence

import orjson

from stream_calib.adapters.files.tables import Column, Table, Texts, objects, pieces

KEYS = ("exchange", "symbol", "timestamp", "local_timestamp")
# native name: name of the column, of which the first that is there counts
FIELDS = {
    "time": ("timestamp",),
    "price": ("price", "last_price"),
    "bid": ("bid_price", "bids[0].price"),
    "ask": ("ask_price", "asks[0].price"),
    "bid_size": ("bid_amount", "bids[0].amount"),
    "ask_size": ("ask_amount", "asks[0].amount"),
    "size": ("amount",),
    "id": ("id",),
}


def table(names: Sequence[str]) -> Table | None:
    """Return what reads the rows under this header, None if it is not Tardis's."""
    if tuple(names[:4]) != KEYS:
        return None
    places = {
        field: next(names.index(column) for column in known if column in names)
        for field, known in FIELDS.items()
        if not set(known).isdisjoint(names)
    }
    if places.keys().isdisjoint({"price", "bid", "ask"}):
        return None

    def read(column: Column) -> list[bytes]:
        symbols = pieces("symbol", _symbols(column(0), column(1)))
        return objects(symbols, *(pieces(field, column(i)) for field, i in places.items()))

    return Table(frozenset({len(names)}), read)


def _symbols(exchanges: Texts, symbols: Texts) -> Texts:
    pairs = list(zip(exchanges, symbols, strict=True))
    known: dict[tuple[bytes | None, bytes | None], bytes | None] = dict.fromkeys(pairs)
    for pair in known:
        exchange, symbol = (orjson.loads(text or b'""') for text in pair)
        if exchange and symbol:
            known[pair] = orjson.dumps(f"{str(exchange).upper().replace('-', '_')}:{symbol}")
    return [known[pair] for pair in pairs]
