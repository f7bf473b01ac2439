"""Where the fields of a tick lie in a message: one row to one tick, or many rows to columns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from stream_calib.values import F64, I64, TICK
from stream_calib.wire.ticks.fields import (
    AT_LOG_NS,
    MalformedError,
    Tick,
    UnusualError,
    ident,
    idents,
    number,
    numbers,
    text,
    time_ns,
    times_ns,
)
from stream_calib.wire.ticks.formats import Columns, Document

Row = tuple[Any, ...]
_PRICES = ("price", "bid", "ask")
_SIZES = ("bid_size", "ask_size")


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Names of the fields of a row, "" for what rows of this kind do not carry.

    A row has a symbol, a time, and at least one price; anything else may be null or missing.

    Parameters
    ----------
    symbol, price, bid, ask, bid_size, ask_size, ident
        Names of fields.
    time
        Names of fields, the first that is not null counts.
    at_log
        Whether a row without a time has that of the log; else it is refused.
    exchange
        Name of the field that says the exchange.
    venue
        The exchange where no field says it; "": symbols are as they stand.
    kind
        Name of the field with the kind of a TickBatch.
    end_of
        Of bars: name of the field that their time was worked out from.
    """

    symbol: str
    time: tuple[str, ...]
    price: str = ""
    bid: str = ""
    ask: str = ""
    bid_size: str = ""
    ask_size: str = ""
    ident: str = ""
    at_log: bool = False
    exchange: str = ""
    venue: str = ""
    kind: str = ""
    end_of: str = ""

    def picker(self, shape: Sequence[str]) -> tuple[tuple[str, ...], Callable[[Document], Row]]:
        """Return which fields rows with these keys carry, and what takes them out of a row.

        That is all that is kept of a row until thousands are read at once.
        """
        names = (*_PRICES, *_SIZES, "symbol", "ident", "exchange", "kind", "end_of")
        own = dict.fromkeys([*(getattr(self, name) for name in names), *self.time])
        keys = tuple(key for key in own if key in shape)
        return keys, itemgetter(*keys) if len(keys) > 1 else lambda row: tuple(map(row.get, keys))

    def read(self, row: Document) -> Tick:
        """Read one row, or what was picked of it.

        Raises
        ------
        MalformedError
            With the reason, if it is no tick.
        """
        carried: dict[str, Any] = {
            name: number(value)
            for name in (*_PRICES, *_SIZES)
            if (key := getattr(self, name)) and (value := row.get(key)) is not None
        }
        if carried.keys().isdisjoint(_PRICES):
            reason = "field"
            raise MalformedError(reason)
        if any(carried.get(name, 0.0) < 0.0 for name in _SIZES):
            reason = "number"
            raise MalformedError(reason)
        symbol = text(row.get(self.symbol))
        exchange = text(row.get(self.exchange)).upper() if self.exchange else self.venue
        if exchange:
            symbol = f"{exchange}:{symbol}"
        when = next((value for key in self.time if (value := row.get(key)) is not None), None)
        time = AT_LOG_NS if self.at_log and when is None else time_ns(when)
        own = ident(row.get(self.ident)) if self.ident else 0
        kind = row[self.kind] if self.kind else TICK
        return Tick(symbol, time, ident=own, kind=kind)._replace(**carried)

    def read_bulk(self, rows: Mapping[str, Row], symbols: Mapping[str, int]) -> Columns:
        """Read rows, given as columns of raw values by field, with the same results.

        Raises
        ------
        UnusualError
            If one of them may be malformed, or says something in a way of its own.
        """
        price, bid, ask = (self._numbers(rows, name) for name in _PRICES)
        bid_size, ask_size = sizes = [self._numbers(rows, name) for name in _SIZES]
        given = [column for column in (price, bid, ask) if column is not None]
        if not given or np.logical_and.reduce([np.isnan(column) for column in given]).any():
            raise UnusualError
        if any(size is not None and (size < 0.0).any() for size in sizes):
            raise UnusualError
        time_ns, ids = self._times_ns(rows), rows.get(self.ident, (None,))
        nothing = np.full(len(time_ns), np.nan)
        return Columns(
            time_ns,
            self._assets(rows, symbols),
            nothing if price is None else price,
            nothing if bid is None else bid,
            nothing if ask is None else ask,
            np.zeros(len(time_ns), np.int64) if ids.count(None) == len(ids) else idents(ids),
            np.array(rows[self.kind], np.int8) if self.kind else None,
            bid_size,
            ask_size,
        )

    def _numbers(self, rows: Mapping[str, Row], name: str) -> F64 | None:
        values = rows.get(getattr(self, name))
        if values is None or values.count(None) == len(values):
            return None
        return numbers(values)

    def _times_ns(self, rows: Mapping[str, Row]) -> I64:
        known = [rows[key] for key in self.time if key in rows]
        values: Sequence[Any] = known[0] if known else [None] * len(next(iter(rows.values())))
        for others in known[1:]:
            if None in values:
                pairs = zip(values, others, strict=True)
                values = [other if value is None else value for value, other in pairs]
        if self.at_log and values.count(None) == len(values):
            return np.full(len(values), AT_LOG_NS, dtype=np.int64)
        return times_ns(values)

    def _assets(self, rows: Mapping[str, Row], symbols: Mapping[str, int]) -> I64:
        names = rows.get(self.symbol, ())
        _check_texts(names)
        find = symbols.get
        if self.exchange:
            exchanges = rows.get(self.exchange, ())
            _check_texts(exchanges)
            prefix = {exchange: f"{exchange.upper()}:" for exchange in set(exchanges)}
            pairs = zip(exchanges, names, strict=True)
            found = [find(prefix[exchange] + name, -1) for exchange, name in pairs]
        elif self.venue:
            venue = self.venue
            found = [find(f"{venue}:{name}", -1) for name in names]
        else:
            found = [find(name, -1) for name in names]
        return np.array(found, dtype=np.int64)


def _check_texts(values: Sequence[Any]) -> None:
    if set(map(type, values)) != {str} or "" in values:
        raise UnusualError
