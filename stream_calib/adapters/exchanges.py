"""Live trades and quotes of exchanges, through ccxt (the extra feed)."""

import asyncio
import contextlib
import difflib
import importlib
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from stream_calib.errors import InputError, TransportError
from stream_calib.values import FeedCounts, LiveTick

Channel = Literal["trades", "bbo"]
Row = Mapping[str, Any]  # a trade or a ticker in the form of ccxt
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
TRADES_KEPT = 10_000  # of a symbol, between two reads
QUOTES_KEPT = 100_000  # of all symbols, between two reads
CLOSE_S = 0.5
PUMPED = 100  # messages, before others get their turn
CONSECUTIVE = {"binance", "binanceus", "coinbase", "coinbaseexchange", "kraken"}
VENUES = {
    "binanceusdm": "BINANCE_FUTURES",
    "binancecoinm": "BINANCE_DELIVERY",
    "binanceus": "BINANCE_US",
    "coinbaseadvanced": "COINBASE",
    "coinbaseexchange": "COINBASE",
    "krakenfutures": "KRAKEN_FUTURES",
    "myokx": "OKX",
    "okxus": "OKX",
}


def symbol_name(exchange: str, market: Mapping[str, Any]) -> str:
    """Return the symbol that the decoders make of this exchange's own messages.

    Contracts of ``binance`` are those of BINANCE_FUTURES or BINANCE_DELIVERY, whose own names
    are those of the spot market too.

    Parameters
    ----------
    exchange
        The id that ccxt has for it.
    market
        As ccxt describes it.
    """
    venue = VENUES.get(exchange, exchange.upper())
    if exchange == "binance" and market.get("contract"):
        venue = "BINANCE_DELIVERY" if market.get("inverse") else "BINANCE_FUTURES"
    # the messages of version 2 of Kraken's socket have the names of ccxt
    name = market["symbol"] if exchange == "kraken" else market["id"]
    return f"{venue}:{name}"


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
        self._connection: _Connection | None = None
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
            message = f"{self.name} cannot be reached or does not say what it trades: {_say(error)}"
            raise TransportError(message) from None
        finally:
            await _close(catalogue)
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
            self._connection = _Connection(
                exchange, watch, wanted, self._counts, self._ccxt.NetworkError
            )
        try:
            trades, quotes = await self._connection.read(timeout_s)
        except TransportError:
            raise
        except self._ccxt.NetworkError as error:
            raise TransportError(_say(error)) from None
        except self._ccxt.BaseError as error:
            message = f"{self.name} refuses: {_say(error)}"
            raise InputError(message) from None
        except Exception as error:
            # of the library's own making: a message that it did not expect
            message = f"ccxt failed: {type(error).__name__}: {_say(error)}"
            raise TransportError(message) from None
        return self._ticks(trades, quotes)

    async def drop(self) -> Sequence[LiveTick]:
        """Let go of the connection, and return what had not been read."""
        connection, self._connection = self._connection, None
        if connection is None:
            return ()
        await connection.close()
        return self._ticks(*connection.news())

    def _ticks(self, trades: Sequence[Row], quotes: Sequence[Row]) -> list[LiveTick]:
        ticks = [self._trade(row) for row in trades if self._channel == "trades"]
        ticks += [self._quote(row) for row in quotes if self._channel == "bbo"]
        told = [tick for tick in ticks if tick is not None]
        self._counts.unpriced += len(ticks) - len(told)
        return told

    def _make(self) -> Any:  # noqa: ANN401
        own: Any = {"options": {"tradesLimit": TRADES_KEPT}, "timeout_on_exit": 0}
        options = {**own["options"], **self._settings.get("options", {})}
        try:
            return getattr(self._ccxt, self.name)({**own, **self._settings, "options": options})
        except Exception as error:
            message = f"--exchange-settings: {self.name} cannot be set up ({_say(error)})"
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


class _Connection:
    # One object of ccxt with its sockets. What it returns from a watch is the news of one symbol,
    # by a rule that repeats old trades and puts others off (ccxt issue 29667): it is asked only to
    # keep the subscription, and what came is taken from where it keeps trades and quotes.

    def __init__(
        self,
        exchange: Any,  # noqa: ANN401
        watch: Callable[[Any], Any],
        wanted: Sequence[Any],
        counts: FeedCounts,
        network_error: Callable[[str], Exception],
    ) -> None:
        self._network_error = network_error
        self._exchange = exchange
        self._watch = watch
        self._counts = counts
        self._wanted = wanted
        self._watching: dict[int, asyncio.Future[Any]] = {}
        self._news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lost = ""
        self._pumps: list[asyncio.Future[None]] = []
        self._last: dict[str, Any] = {}
        self._quotes: deque[Row] = deque()
        exchange.bidsasks, exchange.tickers = _Noted(self._note), _Noted(self._note)
        self._make_client = exchange.client
        exchange.client = self._client

    async def read(self, timeout_s: float) -> tuple[Sequence[Row], Sequence[Row]]:
        """Return new trades and quotes; raise what ended a subscription once there are none."""
        for k, wanted in enumerate(self._wanted):
            if k not in self._watching:
                self._watching[k] = asyncio.ensure_future(self._watch(wanted))
        await asyncio.wait(
            [*self._watching.values(), self._news],
            timeout=timeout_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if self._news.done():
            self._news = self._news.get_loop().create_future()
        trades, quotes = self.news()
        if self._lost and not trades and not quotes:
            raise TransportError(self._lost)
        for k, watching in list(self._watching.items()):
            if watching.done():
                if not watching.cancelled() and watching.exception() is None:
                    del self._watching[k]
                elif not trades and not quotes:
                    watching.result()
        return trades, quotes

    def news(self) -> tuple[Sequence[Row], Sequence[Row]]:
        """Return trades and quotes that were not returned before."""
        quotes = list(self._quotes)
        self._quotes.clear()
        return self._new_trades(), quotes

    async def close(self) -> None:
        """Close the sockets within a few seconds."""
        tasks = [*self._watching.values(), *self._pumps]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await _close(self._exchange)

    def _new_trades(self) -> list[Row]:
        out: list[Row] = []
        for symbol, kept in self._exchange.trades.items():
            last, new = self._last.get(symbol), []
            for trade in reversed(kept):
                if trade is last:
                    break
                new.append(trade)
            else:
                self._counts.overrun += last is not None
            if new:
                self._last[symbol] = new[0]
                out += reversed(new)
        return out

    def _note(self, quote: Row) -> None:
        if len(self._quotes) == QUOTES_KEPT:
            self._quotes.popleft()
            self._counts.overrun += 1
        self._quotes.append(quote)

    def _client(self, url: str) -> Any:  # noqa: ANN401
        known = url in (self._exchange.clients or {})
        client = self._make_client(url)
        if not known:
            client.handle_text_or_binary_message = self._guarded(
                client.handle_text_or_binary_message
            )
            client.future = _heard(client.future)
            client.receive_loop = lambda: self._pumps.append(
                asyncio.ensure_future(self._pump(client))
            )
            for name in ("on_error_callback", "on_close_callback"):
                setattr(client, name, self._noticing(getattr(client, name)))
        return client

    async def _pump(self, client: Any) -> None:  # noqa: ANN401
        # In the place of ccxt's own loop, which takes messages out of aiohttp's queue behind its
        # back: the queue then believes itself full, and some thousand messages later none comes.
        try:
            n = 0
            while not client.closed():
                client.handle_message(await client.receive())
                n += 1
                if n % PUMPED == 0:
                    await asyncio.sleep(0)  # a queue that is never empty would not let others run
            if not self._lost:
                client.on_close(1006)
        except Exception as error:
            client.on_error(self._network_error(_say(error)))

    def _guarded(self, read: Callable[[Any], None]) -> Callable[[Any], None]:
        # A message that cannot be read would end ccxt's loop in silence: it is counted instead.
        def guarded(data: str | bytes) -> None:
            self._counts.messages += 1
            try:
                read(data)
            except Exception:
                self._counts.garbled += 1
            self._wake()

        return guarded

    def _noticing(self, callback: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
        # Told of a loss while nobody waits ccxt connects anew by itself, and nothing would be
        # known of what was missed.
        def noticing(client: Any, what: object) -> None:  # noqa: ANN401
            callback(client, what)
            word = f"closed with code {what}" if isinstance(what, int) else _say(what)
            self._lost = self._lost or word
            self._wake()

        return noticing

    def _wake(self) -> None:
        if not self._news.done():
            self._news.set_result(None)


def _heard(make: Callable[[str], Any]) -> Callable[[str], Any]:
    # Futures of ccxt are rejected when a connection ends, whether somebody waits for them or not.
    def heard(name: str) -> Any:  # noqa: ANN401
        future = make(name)
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        return future

    return heard


class _Noted(dict[str, Any]):
    # ccxt keeps the last quote of a symbol alone; here each is noted as it comes.
    def __init__(self, note: Callable[[Row], None]) -> None:
        super().__init__()
        self._note = note

    def __setitem__(self, key: str, value: Any) -> None:  # noqa: ANN401
        super().__setitem__(key, value)
        self._note(value)


def _library() -> Any:  # noqa: ANN401
    try:
        return importlib.import_module("ccxt.pro")
    except ImportError:
        message = "live feeds need ccxt: pip install 'stream-calib[feed]'"
        raise InputError(message) from None


async def _close(exchange: Any) -> None:  # noqa: ANN401
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CLOSE_S):
            await exchange.close()
    if exchange.session is not None:  # the other end has not said goodbye
        with contextlib.suppress(Exception):
            await exchange.session.close()
        exchange.session = exchange.tcp_connector = None


def _say(error: object) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 200 else words[:197] + "..."


def _time_ns(row: Row) -> int:
    time_ms = row.get("timestamp")
    return 0 if time_ms is None else int(time_ms) * 1_000_000


def _number(value: Any) -> float | None:  # noqa: ANN401
    if value is None:
        return None
    number = float(value)
    return number if math.isfinite(number) else None
