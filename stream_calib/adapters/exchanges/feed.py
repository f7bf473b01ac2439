"""Live trades and quotes of exchanges, through ccxt (the extra feed)."""

import difflib
import importlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from stream_calib.adapters.exchanges.connection import Connection, Row, close_exchange, in_words
from stream_calib.adapters.exchanges.naming import symbol_name
from stream_calib.errors import InputError, TransportError
from stream_calib.values import FeedCounts, LiveTick

Channel = Literal["trades", "bbo"]
METHODS: Mapping[Channel, tuple[tuple[str, str, bool], ...]] = {
    # what `has` calls it, its name, whether it takes many symbols; the first that there is
    "trades": (
        ("watchTradesForSymbols", "watch_trades_for_symbols", True),
        ("watchTrades", "watch_trades", False),
    ),
    "bbo": (
        ("watchBidsAsks", "watch_bids_asks", True),
        ("watchTickers", "watch_tickers", True),
        ("watchTicker", "watch_ticker", False),
    ),
}
SYMBOLS_MAX = 100  # of one subscription; Binance takes 200, others fewer
TRADES_KEPT = 100  # of a symbol, by ccxt, where nobody looks at them
CONSECUTIVE = {"binance", "binanceus", "coinbase", "coinbaseexchange", "kraken"}


class ExchangeFeed:
    """Trades or best quotes of some symbols of one exchange.

    After ``drop`` a connection begins with nothing kept of the one before.

    Parameters
    ----------
    exchange
        The id that ccxt has for it, such as ``binance``.
    symbols
        In the names of ccxt, such as ``BTC/USDT``, or ``BTC/USDT:USDT`` for a perpetual.
    channel
        ``trades``, or ``bbo`` for best bids and offers.
    counts
        Where messages are counted, and what was thrown away.
    settings
        Arguments of ccxt's constructor: a proxy, a rate limit, other addresses.

    Raises
    ------
    InputError
        ccxt is missing or does not know the exchange, or it does not offer the channel.
    """

    def __init__(
        self,
        exchange: str,
        symbols: Sequence[str],
        channel: Channel,
        counts: FeedCounts,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = exchange
        self.consecutive = exchange in CONSECUTIVE
        self._ccxt = _library()
        self._symbols = tuple(dict.fromkeys(symbols))
        self._channel: Channel = channel
        self._counts = counts
        self._settings = dict(settings or {})
        self._names: dict[str, str] = {}
        self._catalogue: Any = None  # the object of ccxt that has read what is traded
        self._connection: Connection | None = None
        if exchange not in self._ccxt.exchanges:
            near = difflib.get_close_matches(exchange.lower(), self._ccxt.exchanges, 3)
            hint = f"; did you mean {' or '.join(near)}" if near else ""
            message = f"--exchange: ccxt streams nothing of {exchange!r}{hint}"
            raise InputError(message)
        has = self._make().has
        offered = [how for how in METHODS[channel] if has.get(how[0])]
        if not offered:
            message = f"--channel: {exchange} does not stream {channel} through ccxt"
            raise InputError(message)
        _, self._method, self._many = offered[0]

    async def start(self) -> None:
        """Read what is traded, and find the symbols there."""
        catalogue = self._make()
        try:
            markets = await catalogue.load_markets()
        except self._ccxt.BaseError as error:
            message = (
                f"{self.name} cannot be reached or does not say what it trades: {in_words(error)}"
            )
            raise TransportError(message) from None
        finally:
            await close_exchange(catalogue)
        for symbol in self._symbols:
            if symbol not in markets:
                near = difflib.get_close_matches(symbol.upper(), markets, 3)
                hint = f"; did you mean {' or '.join(near)}" if near else ""
                message = f"--symbols: {self.name} has no {symbol}{hint}"
                raise InputError(message)
            name = symbol_name(self.name, markets[symbol])
            same = next((own for own, other in self._names.items() if other == name), None)
            if same is not None:
                message = (
                    f"--symbols: {same} and {symbol} are both {name}; feed one into a topic "
                    "of its own and name its exchange in input.exchanges"
                )
                raise InputError(message)
            self._names[symbol] = name
        self._catalogue = catalogue

    async def read(self, timeout_s: float) -> Sequence[LiveTick]:
        """Return what came since the last call, connecting if need be."""
        if self._connection is None:
            exchange = self._make()
            exchange.set_markets_from_exchange(self._catalogue)
            watch = getattr(exchange, self._method)
            wanted: list[Any] = list(self._symbols)
            if self._many:
                wanted = [wanted[i : i + SYMBOLS_MAX] for i in range(0, len(wanted), SYMBOLS_MAX)]
            self._connection = Connection(
                exchange, watch, wanted, self._counts, self._ccxt.NetworkError
            )
        try:
            rows = await self._connection.read(timeout_s)
        except TransportError:
            raise
        except self._ccxt.NetworkError as error:
            raise TransportError(in_words(error)) from None
        except self._ccxt.BaseError as error:
            message = f"{self.name} refuses: {in_words(error)}"
            raise InputError(message) from None
        except Exception as error:
            # of the library's own making: a message that it did not expect
            message = f"ccxt failed: {type(error).__name__}: {in_words(error)}"
            raise TransportError(message) from None
        return self._ticks(rows)

    async def drop(self) -> Sequence[LiveTick]:
        """Let go of the connection, and return what had not been read."""
        connection, self._connection = self._connection, None
        if connection is None:
            return ()
        await connection.close()
        return self._ticks(connection.news())

    def _ticks(self, rows: Sequence[Row]) -> list[LiveTick]:
        if self.consecutive and self._channel == "trades":
            rows = sorted(rows, key=_place)  # Coinbase tells the newest of a message first
        read = self._trade if self._channel == "trades" else self._quote
        ticks = [read(row) for row in rows]
        told = [tick for tick in ticks if tick is not None]
        self._counts.unpriced += len(ticks) - len(told)
        return told

    def _make(self) -> Any:  # noqa: ANN401
        own: Any = {"options": {"tradesLimit": TRADES_KEPT}, "timeout_on_exit": 0}
        options = {**own["options"], **self._settings.get("options", {})}
        try:
            return getattr(self._ccxt, self.name)({**own, **self._settings, "options": options})
        except Exception as error:
            message = f"--exchange-settings: {self.name} cannot be set up ({in_words(error)})"
            raise InputError(message) from None

    def _trade(self, row: Row) -> LiveTick | None:
        name, price = self._names.get(row["symbol"]), _number(row.get("price"))
        if name is None or price is None:
            return None
        ident, size = row.get("id"), _number(row.get("amount"))
        return LiveTick(name, _time_ns(row), "" if ident is None else str(ident), price, size)

    def _quote(self, row: Row) -> LiveTick | None:
        name, bid, ask = (
            self._names.get(row["symbol"]),
            _number(row.get("bid")),
            _number(row.get("ask")),
        )
        if name is None or (bid is None and ask is None):
            return None
        return LiveTick(
            name,
            _time_ns(row),
            bid=bid,
            ask=ask,
            bid_size=_number(row.get("bidVolume")),
            ask_size=_number(row.get("askVolume")),
        )


def _library() -> Any:  # noqa: ANN401
    try:
        return importlib.import_module("ccxt.pro")
    except ImportError:
        message = "live feeds need ccxt: pip install 'stream-calib[feed]'"
        raise InputError(message) from None


def _place(trade: Row) -> tuple[str, int]:
    ident = str(trade.get("id"))
    return trade["symbol"], int(ident) if ident.isdecimal() else 0


def _time_ns(row: Row) -> int:
    time_ms = row.get("timestamp")
    return 0 if time_ms is None else int(time_ms) * 1_000_000


def _number(value: Any) -> float | None:  # noqa: ANN401
    if value is None:
        return None
    number = float(value)
    return number if math.isfinite(number) else None
