"""Live feeds into a topic: read, told apart, written, and read again when they break off."""

import asyncio
import random
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import orjson

from stream_calib.errors import InputError, TransportError
from stream_calib.ports import LiveFeed, RecordSink
from stream_calib.service.backlog import Backlog
from stream_calib.service.continuity import Continuity
from stream_calib.values import FeedCounts, LiveTick, Output

READ_S = 0.25  # how long a reader waits before it looks at the clock again
BATCH = 2000  # ticks that are written at once


@dataclass(frozen=True, slots=True)
class FeedPace:
    """How long a feed waits for what, and how much it keeps meanwhile.

    Parameters
    ----------
    stale_s
        An exchange that is silent for this long is connected to anew.
    retry_s, retry_max_s, settled_s
        First and longest pause before that; it doubles until a connection has lasted for longer
        than ``settled_s``, and up to half of it is left out by chance, so that not all come back
        at once. Pauses of the log are the same.
    hold_s
        How long a connection is kept while no more ticks can be taken.
    flush_s
        How long the end waits for what is still to be written.
    backlog
        Ticks that may wait to be written.
    """

    stale_s: float = 60.0
    retry_s: float = 0.5
    retry_max_s: float = 30.0
    settled_s: float = 30.0
    hold_s: float = 1.0
    flush_s: float = 1.2
    backlog: int = 100_000


class Feeding:
    """Reads exchanges and writes what they say as native ticks, keyed and spread by symbol.

    Nothing is lost in silence: what is left out, missed, or cannot be written is counted.

    Parameters
    ----------
    feeds
        The exchanges, started.
    counts
        By the name of the exchange, those that its feed counts in.
    sink
        Where ticks are written, started.
    topic, partitions
        The topic, and how many partitions it has.
    say
        Takes a sentence about what broke or came back.
    pace
        How long to wait, how much to keep.
    """

    def __init__(
        self,
        feeds: Sequence[LiveFeed],
        counts: Mapping[str, FeedCounts],
        sink: RecordSink,
        topic: str,
        partitions: int,
        say: Callable[[str], None],
        pace: FeedPace | None = None,
    ) -> None:
        self.pace = pace or FeedPace()
        self._feeds = feeds
        self._counts = counts
        self._sink = sink
        self._topic = topic
        self._partitions = partitions
        self._say = say
        self._backlog = Backlog(self.pace.backlog)
        self._partition: dict[str, int] = {}
        self._connected = dict.fromkeys(counts, False)
        self.writes = True

    @property
    def waiting(self) -> int:
        """Ticks that wait to be written."""
        return len(self._backlog)

    def troubles(self) -> tuple[str, ...]:
        """Say what does not work now."""
        silent = [f"{name} is not connected" for name, on in self._connected.items() if not on]
        return (*silent, *(() if self.writes else ("the log takes no ticks",)))

    async def run(self, stop: asyncio.Event) -> None:
        """Go on until told to stop, then write what is left.

        Raises
        ------
        InputError
            An exchange refused before it ever sent a tick.
        TransportError
            Ticks were left that could not be written.
        """
        writer = asyncio.create_task(self._write())
        readers = [asyncio.create_task(self._read(feed)) for feed in self._feeds]
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([*readers, writer, stopped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*readers, stopped):
                task.cancel()
            ended = await asyncio.gather(*readers, stopped, return_exceptions=True)
            ended += await self._flush(writer)
        for error in ended:
            if isinstance(error, Exception):
                raise error
        if not stop.is_set():
            message = "a feed ended by itself: what reads it was cancelled from within"
            raise TransportError(message)
        if unwritten := sum(counts.unwritten for counts in self._counts.values()):
            message = f"{unwritten:,} ticks could not be written to {self._topic!r} before the end"
            raise TransportError(message)

    async def _read(self, feed: LiveFeed) -> None:
        counts, pause_s = self._counts[feed.name], self.pace.retry_s
        continuity = Continuity(counts, consecutive=feed.consecutive)
        heard_at_all = False
        try:
            while True:
                began_s = time.monotonic()
                reason, heard, why = await self._listen(feed, continuity)
                heard_at_all |= heard
                if reason == "refused" and not heard_at_all:
                    raise InputError(why)
                self._connected[feed.name] = False
                counts.reconnects[reason] += 1
                await self._drop(feed, continuity)
                if reason == "backlog":
                    self._say(f"{feed.name}: reading stopped, {self.waiting:,} ticks wait")
                    await self._backlog.falls_to(self.pace.backlog // 2)
                    self._say(f"{feed.name}: reading again")
                    continue
                if time.monotonic() - began_s > self.pace.settled_s:
                    pause_s = self.pace.retry_s
                wait_s = pause_s * random.uniform(0.5, 1.0)  # noqa: S311 (a pause)
                pause_s = min(2.0 * pause_s, self.pace.retry_max_s)
                self._say(f"{feed.name}: {why}; connecting again in {wait_s:.1f} s")
                await asyncio.sleep(wait_s)
        finally:
            await self._drop(feed, continuity)

    async def _listen(self, feed: LiveFeed, continuity: Continuity) -> tuple[str, bool, str]:
        # Until the connection ends: why, whether it ever brought anything, and that in words.
        heard, heard_s = False, time.monotonic()
        while True:
            try:
                ticks = await feed.read(READ_S)
            except TransportError as error:
                return "lost", heard, str(error)
            except InputError as error:
                return "refused", heard, str(error)
            if ticks:
                heard, heard_s = True, time.monotonic()
                self._connected[feed.name] = True
                outputs = self._outputs(feed.name, ticks, continuity)
                if not await self._hold(feed.name, outputs):
                    return "backlog", heard, ""
            elif time.monotonic() - heard_s > self.pace.stale_s:
                return "stale", heard, f"nothing for {self.pace.stale_s:g} s"

    async def _hold(self, name: str, outputs: Sequence[Output]) -> bool:
        # Whether there was room for them; they are kept in any case.
        kept = False
        try:
            async with asyncio.timeout(self.pace.hold_s):
                await self._backlog.put(name, outputs)
                kept = True
        except TimeoutError:
            return False
        finally:
            if not kept:
                self._backlog.force(name, outputs)
        return True

    async def _drop(self, feed: LiveFeed, continuity: Continuity) -> None:
        rest = await feed.drop()
        self._backlog.force(feed.name, self._outputs(feed.name, rest, continuity))

    def _outputs(
        self, name: str, ticks: Sequence[LiveTick], continuity: Continuity
    ) -> list[Output]:
        now_ns, counts, out = time.time_ns(), self._counts[name], []
        for tick in ticks:
            if tick.time_ns:
                counts.lag_s = (now_ns - tick.time_ns) / 1e9
            if continuity.is_new(tick):
                key = tick.symbol.encode()
                partition = self._partition.get(tick.symbol)
                if partition is None:
                    partition = self._partition[tick.symbol] = zlib.crc32(key) % self._partitions
                out.append(Output(self._topic, partition, key, native_tick(tick, now_ns), ()))
        return out

    async def _write(self) -> None:
        pause_s = self.pace.retry_s
        while True:
            rows = await self._backlog.first(BATCH)
            try:
                await self._sink.publish([output for _, output in rows])
            except TransportError as error:
                # Perhaps they were written: they are written again, and readers tell them by id.
                self.writes = False
                self._say(f"{error}; {self.waiting:,} ticks wait")
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311
                pause_s = min(2.0 * pause_s, self.pace.retry_max_s)
                continue
            if not self.writes:
                self._say("ticks are written again")
            self.writes, pause_s = True, self.pace.retry_s
            for name, _ in rows:
                self._counts[name].written += 1
            self._backlog.written(len(rows))

    async def _flush(self, writer: "asyncio.Task[None]") -> list[BaseException | None]:
        empty = asyncio.create_task(self._backlog.falls_to(0))
        await asyncio.wait(
            [empty, writer], timeout=self.pace.flush_s, return_when=asyncio.FIRST_COMPLETED
        )
        for name in self._backlog.names():
            self._counts[name].unwritten += 1
        for task in (empty, writer):
            task.cancel()
        return [*await asyncio.gather(empty, writer, return_exceptions=True)]


def native_tick(tick: LiveTick, now_ns: int) -> bytes:
    """Write a tick as the native format has it.

    One without a time has that of its arrival, and says so in ``time_source``, which decoders
    pass over.
    """
    row: dict[str, object] = {"symbol": tick.symbol, "time": tick.time_ns or now_ns}
    told = ("price", "bid", "ask", "size", "bid_size", "ask_size")
    row |= {name: value for name in told if (value := getattr(tick, name)) is not None}
    if tick.ident:
        row["id"] = tick.ident
    if not tick.time_ns:
        row["time_source"] = "arrival"
    return orjson.dumps(row)
