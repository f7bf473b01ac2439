"""A thread that ends the process when a universe stands still though there is something to do."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from stream_calib.adapters.log_pipe import say_last

LOOK_S = 1.0
EXIT_CODE = 10


@dataclass
class _Seen:
    at_s: float
    moved_at_s: float
    progress: int = -1
    lag: int = 0


class Watchdog:
    """Ends the process when nothing is heard of a universe, or it lags without getting on.

    The client library can get stuck without an error, and a stuck event loop cannot tell: so
    this is a thread, and a supervisor starts the process anew.

    Parameters
    ----------
    limit_s
        How long a universe may stand still.
    end
        Called with a sentence when it has; ends the process unless a test says otherwise.
    clock
        Seconds, never going back.

    Attributes
    ----------
    alive
        Called about once a second from the thread as long as nothing stands still; set before
        ``start`` by whoever wants to be told.
    """

    def __init__(
        self,
        limit_s: float,
        end: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit_s = limit_s
        self._period_s = min(LOOK_S, limit_s)
        self._end = _end_process if end is None else end
        self._clock = clock
        self.alive: Callable[[], None] = lambda: None
        self._seen: dict[str, _Seen] = {}
        self._looks_alone = -1  # since the event loop came round; not counted before the first time
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        self._stopped.set()

    def progressed(self, universe: str, progress: int, lag: int) -> None:
        """Hear from a universe: a number that changes when it gets on, and its known lag."""
        now_s = self._clock()
        with self._lock:
            seen = self._seen.setdefault(universe, _Seen(now_s, now_s))
            if progress != seen.progress or lag <= 0:
                seen.moved_at_s = now_s
            seen.at_s, seen.progress, seen.lag = now_s, progress, lag

    def turned(self) -> None:
        """Hear from the event loop that it comes round, whatever the universes do."""
        self._looks_alone = 0

    def excused(self, universe: str) -> None:
        """Do not wait for this universe: it recovers, or knows that the broker is away."""
        with self._lock:
            self._seen.pop(universe, None)

    def look(self) -> None:
        """Judge once; called at regular times."""
        if self._looks_alone >= 0:
            self._looks_alone += 1
        for sentence in self._standing(self._limit_s):
            self._end(sentence)

    def standing(self) -> list[str]:
        """Say who has stood still for half of the limit."""
        return self._standing(self._limit_s / 2)

    def _standing(self, limit_s: float) -> list[str]:
        now_s, said = self._clock(), []
        with self._lock:
            seen = dict(self._seen)
        for universe, last in seen.items():
            if now_s - last.at_s > limit_s:
                said.append(f"nothing was heard of universe {universe!r} for {limit_s:g} s")
            elif now_s - last.moved_at_s > limit_s:
                said.append(
                    f"universe {universe!r} has {last.lag} records to read and made no progress "
                    f"for {limit_s:g} s"
                )
        # in looks: where all of the process stood still nobody looked either
        if self._looks_alone * self._period_s > limit_s:
            said.append(f"the event loop has not come round for {limit_s:g} s")
        return said

    def _watch(self) -> None:
        while not self._stopped.wait(self._period_s):
            self.look()
            self.alive()


def _end_process(sentence: str) -> None:
    say_last(f"stream-calib: {sentence}; ending, to be started anew\n")
    os._exit(EXIT_CODE)
