"""What the live view shows: the newest matrices, their recent past, and events."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import structlog

from stream_calib import ports
from stream_calib.adapters.http.past import Past, Summary
from stream_calib.values import NO_TIME, Effects, Event, Matrix, Progress
from stream_calib.wire.events import encode_event
from stream_calib.wire.live import DIFFERENCE, LiveFrame, difference, encode_live

SUMMARIES_MAX = 2000
EVENTS_MAX = 200
SYMBOLS_COME_AND_GO = {"symbol_ready", "symbol_pending"}  # matrices say it, and hundreds at a time
PENDING_CELLS = (
    250_000  # matrices that wait to be encoded: the newest of 500 symbols, more of fewer
)

Key = tuple[str, str]  # universe, estimator


class _Shown:
    # What is known of one estimator of one universe.

    def __init__(self) -> None:
        self.pending: deque[tuple[Matrix, Matrix | None]] = deque()  # the second to be taken off
        self.recalled: list[tuple[Matrix, Matrix | None]] = []  # from before the start
        self.matrix: Matrix | None = None
        self.frame: LiveFrame | None = None
        self.generation = 0
        self.shown_s = 0.0  # by the clock of the view, when the newest came
        self.first_ns: int | None = None  # of those since the start or the last takeover
        self.history = Past()
        self.summaries: deque[Summary] = deque(maxlen=SUMMARIES_MAX)

    def add(self, matrix: Matrix, frame: LiveFrame) -> None:
        if self.frame is not None:
            if self.frame.symbols == frame.symbols:
                frame = frame._replace(symbols=self.frame.symbols)  # one object
            if frame.as_of_ns < self.frame.as_of_ns:  # the input was begun anew
                self.history = Past()
                self.summaries.clear()
                self.first_ns = None
        if self.first_ns is None:
            self.first_ns = frame.as_of_ns
        self.matrix, self.frame = matrix, frame
        self.generation += 1
        self.history.add(frame)
        self.summaries.append(Summary.of(matrix))

    def put_before(self, older: Sequence[tuple[Matrix, LiveFrame]]) -> None:
        first_ns = self.first_ns
        kept = [(m, f) for m, f in older if first_ns is None or m.as_of_ns < first_ns]
        if not kept:
            return
        newer = [f for f in self.history if first_ns is not None and f.as_of_ns >= first_ns]
        points = [p for p in self.summaries if first_ns is not None and p.as_of_ns >= first_ns]
        if first_ns is None:
            self.matrix, self.frame = kept[-1]
            self.generation += 1
        self.history = Past()
        for frame in (*(f for _, f in kept), *newer):
            self.history.add(frame)
        self.summaries.clear()
        self.summaries.extend((*(Summary.of(m) for m, _ in kept), *points))


class LiveView:
    """Keeps what became durable for those who look, and tells them of it.

    On the event loop it only notes what there is; matrices become bytes in a thread, once each,
    and of those that come faster than that the newest.

    Parameters
    ----------
    universes
        Their names; nothing else is shown.
    observer
        Hears of frames and viewers.
    periods_s
        Publishing periods by universe and estimator, for who asks when the next is due.
    clock
        Seconds that only go forward, to tell how long ago a matrix came.

    Notes
    -----
    Memory per universe and estimator: at most 2 x 16 MiB of frames (some 40 of 500 symbols, 600 of
    up to 90), 2000 summaries of four numbers, and the newest matrix.
    """

    def __init__(
        self,
        universes: Sequence[str],
        observer: ports.Observer,
        periods_s: Mapping[Key, float] = MappingProxyType({}),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.observer = observer
        self._periods_s, self._clock = periods_s, clock
        self._n_events = dict.fromkeys(universes, 0)  # since the start or the last takeover
        self._shown: dict[str, dict[str, _Shown]] = {name: {} for name in universes}
        self._events: dict[str, deque[Event]] = {n: deque(maxlen=EVENTS_MAX) for n in universes}
        self._progress: dict[str, Progress] = {}
        self._last: dict[tuple[str, str], Matrix] = {}
        self._listeners: set[asyncio.Event] = set()
        self._work = asyncio.Event()
        self._home: asyncio.AbstractEventLoop | None = None

    def at_home(self) -> None:
        """Take the running event loop as the one on which this is read."""
        self._home = asyncio.get_running_loop()

    def show(self, universe: str, effects: Effects) -> None:
        """Note what became durable; may be told from any thread."""
        self._do(self._note, universe, effects)

    def _do(self, change: Callable[..., None], *given: object) -> None:
        home = self._home
        if home is None or _running() is home:
            change(*given)
            return
        with contextlib.suppress(RuntimeError):  # closed: nobody looks any more
            home.call_soon_threadsafe(change, *given)

    def _note(self, universe: str, effects: Effects) -> None:
        if universe not in self._shown:
            return
        events = [e for e in effects.events if e.type not in SYMBOLS_COME_AND_GO]
        self._events[universe].extend(events)
        self._n_events[universe] += len(events)
        at_time = {
            (m.estimator, m.as_of_ns): m for (name, _), m in self._last.items() if name == universe
        }
        for matrix in effects.matrices:
            self._wait(universe, matrix.estimator, matrix)
            self._last[universe, matrix.estimator] = matrix
            at_time[matrix.estimator, matrix.as_of_ns] = matrix
            model, plain = (at_time.get((name, matrix.as_of_ns)) for name in ("dcc", "ewma"))
            if model is not None and plain is not None:
                self._wait(universe, DIFFERENCE, model, plain)
        if effects.matrices:
            self._work.set()

    def gained(self, universe: str) -> None:
        """Note that what is shown from now on is newer than all that will be recalled.

        What was shown before has holes, those of the time in which another process was the owner;
        the next recall takes its place. May be told from any thread.
        """
        self._do(self._note_gained, universe)

    def _note_gained(self, universe: str) -> None:
        self._n_events[universe] = 0
        for shown in self._shown[universe].values():
            shown.first_ns = None

    def recall(self, universe: str, matrices: Sequence[Matrix], events: Sequence[Event]) -> None:
        """Note what was durable before the start, oldest first; may be told late, by any thread.

        What has been shown since, or since the last takeover, stays the newer; of the same time or
        older than that there is no point.
        """
        self._do(self._note_recalled, universe, matrices, events)

    def _note_recalled(
        self, universe: str, matrices: Sequence[Matrix], events: Sequence[Event]
    ) -> None:
        there = self._events[universe]
        newer = [*there][max(0, len(there) - self._n_events[universe]) :]
        first = newer[0].sequence if newer else None
        older = (e for e in events if first is None or e.sequence < first)
        kept = [e for e in older if e.type not in SYMBOLS_COME_AND_GO]
        if kept:
            there.clear()
            there.extend((*kept, *newer))
        at_time: dict[tuple[str, int], Matrix] = {}
        for matrix in matrices:
            self._recalled(universe, matrix.estimator, matrix)
            self._last.setdefault((universe, matrix.estimator), matrix)
            at_time[matrix.estimator, matrix.as_of_ns] = matrix
            model, plain = (at_time.get((name, matrix.as_of_ns)) for name in ("dcc", "ewma"))
            if model is not None and plain is not None:
                self._recalled(universe, DIFFERENCE, model, plain)
        if matrices:
            self._work.set()

    def _recalled(
        self, universe: str, estimator: str, matrix: Matrix, minus: Matrix | None = None
    ) -> None:
        shown = self._shown[universe].setdefault(estimator, _Shown())
        shown.recalled.append((matrix, minus))

    def progressed(self, universe: str, progress: Progress) -> None:
        """Note how far event time has got; may be told from any thread."""
        self._progress[universe] = progress

    async def run(self) -> None:
        """Turn matrices into frames until cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            for by_estimator in self._shown.values():
                for shown in [*by_estimator.values()]:
                    await self._encode(shown)
            for listener in self._listeners:
                listener.set()

    def listen(self) -> asyncio.Event:
        """Return an event that is set when there are new frames; the listener clears it."""
        listener = asyncio.Event()
        self._listeners.add(listener)
        self.observer.viewers(len(self._listeners))
        return listener

    def leave(self, listener: asyncio.Event) -> None:
        """Tell this listener of nothing any more."""
        self._listeners.discard(listener)
        self.observer.viewers(len(self._listeners))

    def frame(self, key: Key) -> tuple[int, LiveFrame] | None:
        """Return the newest frame, and how many there have been up to it."""
        shown = self._find(key)
        return None if shown is None or shown.frame is None else (shown.generation, shown.frame)

    def matrix(self, key: Key) -> Matrix | None:
        """Return the newest matrix."""
        shown = self._find(key)
        return None if shown is None else shown.matrix

    def universes(self) -> list[dict[str, Any]]:
        """Describe all universes: their estimators and where they stand."""
        return [
            {
                "name": name,
                "estimators": {
                    estimator: {
                        "sequence": shown.frame.sequence,
                        "as_of_ns": str(shown.frame.as_of_ns),
                        "symbols": len(shown.frame.symbols),
                        "shown_for_s": round(self._clock() - shown.shown_s, 3),
                        "period_s": self._period_s(name, estimator),
                    }
                    for estimator, shown in by_estimator.items()
                    if shown.frame is not None
                },
                "progress": _standing(self._progress.get(name)),
            }
            for name, by_estimator in self._shown.items()
        ]

    def history(self, key: Key, a: str, b: str) -> dict[str, list[Any]] | None:
        """Return the recent past of a pair: times, correlations, standard errors; None: no such.

        Where one of both was not ready there is no point.
        """
        shown = self._find(key)
        if shown is None:
            return None
        lines: dict[str, list[Any]] = {"time_ns": [], "corr": [], "band": []}
        symbols: tuple[str, ...] = ()
        i = j = -1
        for frame in shown.history:
            if frame.symbols is not symbols:
                symbols = frame.symbols
                known = a in symbols and b in symbols
                i, j = (symbols.index(a), symbols.index(b)) if known else (-1, -1)
            if i < 0 or i == j:
                continue
            corr, band = frame.pair(i, j)
            for name, x in (("time_ns", str(frame.as_of_ns)), ("corr", corr), ("band", band)):
                lines[name].append(x)
        return lines

    def summaries(self, key: Key) -> dict[str, list[Any]] | None:
        """Return the recent past of what is said of the matrix in one number each."""
        shown = self._find(key)
        if shown is None:
            return None
        points = [*shown.summaries]
        return {"time_ns": [str(p.as_of_ns) for p in points]} | {
            name: [getattr(p, name) for p in points] for name in Summary._fields[1:]
        }

    def since(self, key: Key, since_ns: int) -> tuple[LiveFrame, LiveFrame] | None:
        """Return the first frame that is kept from then on, and the newest; None: no such."""
        shown = self._find(key)
        if shown is None or shown.frame is None:
            return None
        newest = shown.frame
        return next((f for f in shown.history if f.as_of_ns >= since_ns), newest), newest

    def events(self, universe: str, after: int) -> list[bytes] | None:
        """Return recent events, oldest first, those numbered up to ``after`` left out."""
        events = self._events.get(universe)
        if events is None:
            return None
        return [encode_event(e, "", 0).value for e in events if e.sequence > after]

    @property
    def history_bytes(self) -> int:
        """What all histories hold."""
        every = (shown for by in self._shown.values() for shown in by.values())
        return sum(shown.history.n_bytes for shown in every)

    def _period_s(self, universe: str, estimator: str) -> float | None:
        # a difference comes as often as the slower of both
        both = ("ewma", "dcc") if estimator == DIFFERENCE else (estimator,)
        return max(self._periods_s.get((universe, one), 0.0) for one in both) or None

    def _find(self, key: Key) -> _Shown | None:
        universe, estimator = key
        return self._shown.get(universe, {}).get(estimator)

    def _wait(
        self, universe: str, estimator: str, matrix: Matrix, minus: Matrix | None = None
    ) -> None:
        shown = self._shown[universe].setdefault(estimator, _Shown())
        shown.pending.append((matrix, minus))
        n_max = max(1, PENDING_CELLS // max(1, len(matrix.symbols)) ** 2)
        while len(shown.pending) > n_max:
            shown.pending.popleft()

    async def _encode(self, shown: _Shown) -> None:
        recalled, shown.recalled = shown.recalled, []
        if recalled:
            before = shown.frame
            shown.put_before(await _encoded(recalled))
            if shown.frame is not before:
                shown.shown_s = self._clock()
        pending = [*shown.pending]
        shown.pending.clear()
        for matrix, frame in await _encoded(pending):
            shown.add(matrix, frame)
            shown.shown_s = self._clock()


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def _encoded(given: Sequence[tuple[Matrix, Matrix | None]]) -> list[tuple[Matrix, LiveFrame]]:
    try:
        return await asyncio.to_thread(_frames, given) if given else []
    except Exception as error:  # a picture is no reason to end
        structlog.get_logger().warning("a matrix is not shown", reason=repr(error))
        return []


def _frames(given: Sequence[tuple[Matrix, Matrix | None]]) -> list[tuple[Matrix, LiveFrame]]:
    matrices = (m if minus is None else difference(m, minus) for m, minus in given)
    return [(matrix, encode_live(matrix)) for matrix in matrices if matrix is not None]


def _standing(progress: Progress | None) -> dict[str, Any] | None:
    if progress is None:
        return None
    lag = sum(max(0, end - progress.positions.get(s, end)) for s, end in progress.ends.items())
    return {
        "newest_ns": None if progress.newest_ns == NO_TIME else str(progress.newest_ns),
        "watermark_ns": None if progress.watermark_ns == NO_TIME else str(progress.watermark_ns),
        "lag_records": lag,
        "symbols_ready": progress.symbols_ready,
        "symbols_pending": progress.symbols_pending,
    }
