"""A thread that ends the process when a universe stands still though there is something to do."""

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

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
    """

    def __init__(
        self,
        limit_s: float,
        end: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit_s = limit_s
        self._end = _end_process if end is None else end
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
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

    def excused(self, universe: str) -> None:
        """Do not wait for this universe: it recovers, or knows that the broker is away."""
        with self._lock:
            self._seen.pop(universe, None)

    def look(self) -> None:
        """Judge once."""
        now_s = self._clock()
        with self._lock:
            seen = dict(self._seen)
        for universe, last in seen.items():
            if now_s - last.at_s > self._limit_s:
                self._end(f"nothing was heard of universe {universe!r} for {self._limit_s:g} s")
            elif now_s - last.moved_at_s > self._limit_s:
                self._end(
                    f"universe {universe!r} has {last.lag} records to read and made no progress "
                    f"for {self._limit_s:g} s"
                )

    def _watch(self) -> None:
        while not self._stopped.wait(min(LOOK_S, self._limit_s)):
            self.look()


def _end_process(sentence: str) -> None:
    sys.stderr.write(f"stream-calib: {sentence}; ending, to be started anew\n")
    sys.stderr.flush()
    os._exit(EXIT_CODE)
