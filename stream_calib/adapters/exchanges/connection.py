"""A connection to one exchange: what ccxt receives, taken from it message by message."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stream_calib.errors import TransportError
from stream_calib.values import FeedCounts

Row = Mapping[str, Any]  # a trade or a ticker in the form of ccxt
KEPT = 100_000  # trades or quotes, between two reads
PUMPED = 100  # messages, before others get their turn
CLOSE_S = 0.5


class Connection:
    """One object of ccxt with its sockets.

    What it returns from a watch is the news of one symbol, by a rule that repeats old trades and
    puts others off (ccxt issues 29667, 30220): it is asked only to keep the subscription, and
    what came is taken from where it keeps trades and quotes.

    Parameters
    ----------
    exchange
        The object, which knows what is traded.
    watch, wanted
        Its method, and what to call it with, each in a call of its own.
    counts
        Where messages are counted, and what was thrown away.
    network_error
        What ccxt calls a loss.
    """

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
        self._rows: deque[Row] = deque()
        self._followed: dict[int, Any] = {}
        exchange.bidsasks, exchange.tickers = _Noted(self._note), _Noted(self._note)
        exchange.trades = _Noted(self._follow)
        self._make_client = exchange.client
        exchange.client = self._client

    async def read(self, timeout_s: float) -> Sequence[Row]:
        """Return what is new; raise what ended a subscription once nothing is."""
        if self._lost:
            return self._told()
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
        news = self._told()
        for k, watching in list(self._watching.items()):
            if watching.done():
                if not watching.cancelled() and watching.exception() is None:
                    del self._watching[k]
                elif not news:
                    watching.result()
        return news

    def news(self) -> Sequence[Row]:
        """Return trades or quotes that were not returned before, in the order of their coming."""
        rows = list(self._rows)
        self._rows.clear()
        return rows

    async def close(self) -> None:
        """Close the sockets within a few seconds."""
        tasks = [*self._watching.values(), *self._pumps]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await close_exchange(self._exchange)

    def _told(self) -> Sequence[Row]:
        news = self.news()
        if self._lost and not news:
            raise TransportError(self._lost)
        return news

    def _note(self, row: Row) -> None:
        if len(self._rows) == KEPT:
            self._rows.popleft()
            self._counts.overrun += 1
        self._rows.append(row)

    def _follow(self, trades: Any) -> None:  # noqa: ANN401
        # One of the lists in which ccxt keeps trades, some of several symbols: it forgets the
        # oldest, and puts what is repeated at the end.
        if id(trades) in self._followed:
            return
        self._followed[id(trades)] = trades
        for trade in trades:
            self._note(trade)
        append = trades.append

        def noted(trade: Row) -> None:
            append(trade)
            self._note(trade)

        trades.append = noted

    def _client(self, url: str) -> Any:  # noqa: ANN401
        if self._lost:  # ccxt would connect anew by itself
            raise self._network_error(self._lost)
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
            client.on_error(self._network_error(in_words(error)))

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
            word = f"closed with code {what}" if isinstance(what, int) else in_words(what)
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
    def __init__(self, note: Callable[[Any], None]) -> None:
        super().__init__()
        self._note = note

    def __setitem__(self, key: str, value: Any) -> None:  # noqa: ANN401
        super().__setitem__(key, value)
        self._note(value)


async def close_exchange(exchange: Any) -> None:  # noqa: ANN401
    """Close all sockets of an object of ccxt within a second; never raises."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CLOSE_S):
            await exchange.close()
    if exchange.session is not None:  # the other end has not said goodbye
        with contextlib.suppress(Exception):
            await exchange.session.close()
        exchange.session = exchange.tcp_connector = None


def in_words(error: object) -> str:
    """Return what an error says on one line of moderate length."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 200 else words[:197] + "..."
