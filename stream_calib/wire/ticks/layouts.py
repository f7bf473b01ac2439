"""Where the fields of a tick lie in a message: one row to one tick, or many rows to columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

    def read(self, row: Document) -> Tick:
        """Read one row.

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

    def read_bulk(self, rows: Sequence[Document], symbols: Mapping[str, int]) -> Columns:
        """Read rows column by column, with the same results.

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
        ids = [row.get(self.ident) for row in rows] if self.ident else [None]
        nothing = np.full(len(rows), np.nan)
        return Columns(
            self._times_ns(rows),
            self._assets(rows, symbols),
            nothing if price is None else price,
            nothing if bid is None else bid,
            nothing if ask is None else ask,
            np.zeros(len(rows), np.int64) if ids.count(None) == len(ids) else idents(ids),
            np.array([row[self.kind] for row in rows], np.int8) if self.kind else None,
            bid_size,
            ask_size,
        )

    def _numbers(self, rows: Sequence[Document], name: str) -> F64 | None:
        key = getattr(self, name)
        if not key:
            return None
        values = [row.get(key) for row in rows]
        return None if values.count(None) == len(values) else numbers(values)

    def _times_ns(self, rows: Sequence[Document]) -> I64:
        first, *others = self.time
        values = [row.get(first) for row in rows]
        for key in others:
            if None in values:
                values = [
                    row.get(key) if value is None else value
                    for row, value in zip(rows, values, strict=True)
                ]
        if self.at_log and values.count(None) == len(values):
            return np.full(len(values), AT_LOG_NS, dtype=np.int64)
        return times_ns(values)

    def _assets(self, rows: Sequence[Document], symbols: Mapping[str, int]) -> I64:
        names = [row.get(self.symbol) for row in rows]
        _check_texts(names)
        find = symbols.get
        if self.exchange:
            exchanges: list[Any] = [row.get(self.exchange) for row in rows]
            _check_texts(exchanges)
            pairs = zip(exchanges, names, strict=True)
            found = [find(f"{exchange.upper()}:{name}", -1) for exchange, name in pairs]
        elif self.venue:
            venue = self.venue
            found = [find(f"{venue}:{name}", -1) for name in names]
        else:
            found = [find(name, -1) for name in names]  # type: ignore[arg-type]
        return np.array(found, dtype=np.int64)


def _check_texts(values: Sequence[Any]) -> None:
    if set(map(type, values)) != {str} or "" in values:
        raise UnusualError
