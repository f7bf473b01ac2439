"""Which trades of an exchange are new, which were read before, and how many were missed."""

from stream_calib.values import FeedCounts, LiveTick

REMEMBERED = 2000  # ids of a symbol; exchanges repeat some tens to a thousand


class Continuity:
    """Tells trades by symbol and id; what has no id is always new.

    Where ids count up by one for each symbol, a jump is a gap, and whatever is below all ids that
    are remembered had been read before, unless it is newer than the last trade: then counting
    began anew. Elsewhere an id that has been forgotten is new.

    Parameters
    ----------
    counts
        Where repeated and late trades, gaps and missed ids are counted.
    consecutive
        Whether ids count up by one.
    remembered
        How many ids of a symbol are.
    """

    def __init__(
        self, counts: FeedCounts, *, consecutive: bool, remembered: int = REMEMBERED
    ) -> None:
        self._counts = counts
        self._consecutive = consecutive
        self._remembered = remembered
        self._seen: dict[str, dict[str, None]] = {}
        self._first: dict[str, int] = {}
        self._last: dict[str, int] = {}
        self._time_ns: dict[str, int] = {}

    def is_new(self, tick: LiveTick) -> bool:
        """Tell whether a tick had not been read before, and remember it."""
        ident = tick.ident
        if not ident:
            return True
        seen = self._seen.setdefault(tick.symbol, {})
        if ident in seen or (self._consecutive and not self._follows(tick)):
            self._counts.repeated += 1
            return False
        seen[ident] = None
        if len(seen) > self._remembered:
            forgotten = next(iter(seen))
            del seen[forgotten]
            if self._consecutive and forgotten.isdecimal():
                self._first[tick.symbol] = max(self._first[tick.symbol], int(forgotten) + 1)
        return True

    def _follows(self, tick: LiveTick) -> bool:
        if not tick.ident.isdecimal():
            return True
        symbol, number = tick.symbol, int(tick.ident)
        last, time_ns = self._last.get(symbol), self._time_ns.get(symbol, 0)
        self._time_ns[symbol] = max(time_ns, tick.time_ns)
        if last is None or (number < self._first[symbol] and tick.time_ns > time_ns):
            self._first[symbol] = self._last[symbol] = number
        elif number > last:
            self._counts.gaps += number > last + 1
            self._counts.missed += number - last - 1
            self._last[symbol] = number
        elif number < self._first[symbol]:
            return False
        else:
            self._counts.late += 1
        return True
