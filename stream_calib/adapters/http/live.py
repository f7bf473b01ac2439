"""What the live view shows: the newest matrices, their recent past, and events."""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import structlog

from stream_calib import ports
from stream_calib.values import NO_TIME, Effects, Event, Matrix, Progress
from stream_calib.wire.events import encode_event
from stream_calib.wire.live import DIFFERENCE, LiveFrame, difference, encode_live

FRAMES_MAX = 300  # of the dense and of the sparse part of a history, each
FRAMES_BYTES = 16 * 2**20  # the same
SPARSE_EVERY = 8
SUMMARIES_MAX = 2000
EVENTS_MAX = 200
SYMBOLS_COME_AND_GO = {"symbol_ready", "symbol_pending"}  # matrices say it, and hundreds at a time
PENDING_CELLS = (
    250_000  # matrices that wait to be encoded: the newest of 500 symbols, more of fewer
)

Key = tuple[str, str]  # universe, estimator


class Summary(NamedTuple):
    """One point of the lines below the matrix."""

    as_of_ns: int
    average_correlation: float
    top_eigenvalue_share: float
    drift_level: float | None


class _Part:
    # Frames in order, of which the oldest fall out.

    def __init__(self) -> None:
        self.frames: deque[LiveFrame] = deque()
        self.n_bytes = 0

    def add(self, frame: LiveFrame) -> list[LiveFrame]:
        self.frames.append(frame)
        self.n_bytes += len(frame.value)
        fallen = []
        while len(self.frames) > FRAMES_MAX or (
            len(self.frames) > 1 and self.n_bytes > FRAMES_BYTES
        ):
            fallen.append(self.frames.popleft())
            self.n_bytes -= len(fallen[-1].value)
        return fallen


class _Past:
    # The newest frames, and every eighth of those before them.

    def __init__(self) -> None:
        self._dense, self._sparse = _Part(), _Part()
        self._n_fallen = 0

    def __iter__(self) -> Iterator[LiveFrame]:
        yield from self._sparse.frames
        yield from self._dense.frames

    @property
    def n_bytes(self) -> int:
        return self._sparse.n_bytes + self._dense.n_bytes

    def add(self, frame: LiveFrame) -> None:
        for fallen in self._dense.add(frame):
            if self._n_fallen % SPARSE_EVERY == 0:
                self._sparse.add(fallen)
            self._n_fallen += 1


class _Shown:
    # What is known of one estimator of one universe.

    def __init__(self) -> None:
        self.pending: deque[tuple[Matrix, Matrix | None]] = deque()  # the second to be taken off
        self.matrix: Matrix | None = None
        self.frame: LiveFrame | None = None
        self.generation = 0
        self.history = _Past()
        self.summaries: deque[Summary] = deque(maxlen=SUMMARIES_MAX)


class LiveView:
    """Keeps what became durable for those who look, and tells them of it.

    It is told on the event loop, where it only notes what there is; matrices become bytes in a
    thread, once each, and of those that come faster than that the newest.

    Parameters
    ----------
    universes
        Their names; nothing else is shown.
    observer
        Hears of frames and viewers.

    Notes
    -----
    Memory per universe and estimator: at most 2 x 16 MiB of frames (some 40 of 500 symbols, 600 of
    up to 90), 2000 summaries of four numbers, and the newest matrix.
    """

    def __init__(self, universes: Sequence[str], observer: ports.Observer) -> None:
        self.observer = observer
        self._shown: dict[str, dict[str, _Shown]] = {name: {} for name in universes}
        self._events: dict[str, deque[Event]] = {n: deque(maxlen=EVENTS_MAX) for n in universes}
        self._progress: dict[str, Progress] = {}
        self._last: dict[tuple[str, str], Matrix] = {}
        self._listeners: set[asyncio.Event] = set()
        self._work = asyncio.Event()

    def show(self, universe: str, effects: Effects) -> None:
        """Note what became durable."""
        if universe not in self._shown:
            return
        self._events[universe].extend(
            e for e in effects.events if e.type not in SYMBOLS_COME_AND_GO
        )
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

    def progressed(self, universe: str, progress: Progress) -> None:
        """Note how far event time has got."""
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
        pending = [*shown.pending]
        shown.pending.clear()
        try:
            encoded = await asyncio.to_thread(_encoded, pending)
        except Exception as error:  # a picture is no reason to end
            structlog.get_logger().warning("a matrix is not shown", reason=repr(error))
            return
        for matrix, frame in encoded:
            if shown.frame is not None and shown.frame.symbols == frame.symbols:
                frame = frame._replace(symbols=shown.frame.symbols)  # noqa: PLW2901 (one object)
            shown.matrix, shown.frame = matrix, frame
            shown.generation += 1
            shown.history.add(frame)
            regime = matrix.regime
            shown.summaries.append(
                Summary(
                    matrix.as_of_ns,
                    regime.average_correlation,
                    regime.top_eigenvalue_share,
                    matrix.drift_level,
                )
            )


def _encoded(
    pending: Sequence[tuple[Matrix, Matrix | None]],
) -> list[tuple[Matrix, LiveFrame]]:
    matrices = (m if minus is None else difference(m, minus) for m, minus in pending)
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
