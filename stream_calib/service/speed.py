"""At what pace recorded ticks are let out: so many times that of their event time."""

from collections.abc import Iterable, Iterator

from stream_calib.errors import InputError
from stream_calib.values import SECOND_NS, Output

Timed = tuple[int, Output]  # event time in ns, 0 where it is not known

GAP_NS = 3600 * SECOND_NS


class Speed:
    """When records are due that come at so many times the pace of their event time.

    A gap of more than an hour, of a night or of times that are wrong, passes at once, and so does
    the way back from one.

    Parameters
    ----------
    factor
        1 is the pace at which they were recorded.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self._begin: tuple[int, float] | None = None
        self._last_ns = 0

    def wait_s(self, time_ns: int, now_s: float) -> float:
        """Return how long to wait for this event time; the first one is due at once.

        Parameters
        ----------
        time_ns
            Event time.
        now_s
            A clock that never goes back.
        """
        if time_ns <= 0:  # not known
            return 0.0
        if self._begin is None or abs(time_ns - self._last_ns) > GAP_NS:
            self._begin = (time_ns, now_s)
        self._last_ns = time_ns
        begin_ns, begin_s = self._begin
        due_s = begin_s + (time_ns - begin_ns) / SECOND_NS / self.factor
        return max(0.0, due_s - now_s)


def parse_speed(text: str) -> Speed | None:
    """Read ``max`` (None) or how many times faster than recorded.

    Raises
    ------
    InputError
        It is neither.
    """
    if text == "max":
        return None
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 0.0 < factor < float("inf"):
        raise InputError(f"--speed {text}: give max, or how many times faster than recorded")
    return Speed(factor)


def batches(
    records: Iterable[Timed], size: int, within_ns: float
) -> Iterator[tuple[int, list[Output]]]:
    """Cut a stream into batches of at most ``size`` that are due together.

    Yields
    ------
    time_ns, outputs
        The time of the first; none of the others is more than ``within_ns`` after it.
    """
    batch: list[Output] = []
    begin_ns = 0
    for time_ns, output in records:
        if batch and (len(batch) >= size or time_ns - begin_ns > within_ns):
            yield begin_ns, batch
            batch = []
        begin_ns = begin_ns if batch else time_ns
        batch.append(output)
    if batch:
        yield begin_ns, batch
