"""Trading time of symbols with different calendars: what ages their pairs, what ends a return."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

import numpy as np

from stream_calib.estimation.calendar import DAY_NS, Calendar, Mask, joint_table, whole_years
from stream_calib.values import F64, I64, NO_TIME, ReturnBlock

Block = TypeVar("Block", bound=ReturnBlock)


class _Joint(NamedTuple):
    # what is open from each instant to the next, alone and in pairs; joint open time before it
    covers_ns: tuple[int, int]
    instants: I64
    is_open: Mask
    both: I64
    before_ns: I64


class TradingClock:
    """Trading time of n symbols, each on one of G calendars.

    Parameters
    ----------
    calendars
        G of them.
    group : (n,)
        Which calendar each symbol is on, 0 to G - 1.
    bar_ns
        Length of a bar. Sessions should begin and end between bars: what a bar holds of two
        states is counted by the part of it that is open.
    gap_max_bars
        Most that the open time between two bars counts.

    Raises
    ------
    ValueError
        If a symbol is on none of the calendars, or a length is not positive.

    Notes
    -----
    No state but tables, on which no answer depends.

    Examples
    --------
    >>> from stream_calib.estimation.calendar import ALWAYS_OPEN
    >>> clock = TradingClock([ALWAYS_OPEN], np.zeros(2, np.int64), 10**9, 60)
    >>> clock.elapsed(0, np.array([1, 3, 90]) * 10**9)[:, 0, 0].tolist()
    [1.0, 2.0, 60.0]
    """

    def __init__(
        self, calendars: Sequence[Calendar], group: I64, bar_ns: int, gap_max_bars: int
    ) -> None:
        self.calendars = tuple(calendars)
        self.group = np.array(group, np.int64)
        if not len(self.group) or not 0 <= self.group.min() <= self.group.max() < len(calendars):
            message = f"group must name one of {len(calendars)} calendars for each symbol"
            raise ValueError(message)
        if bar_ns <= 0 or gap_max_bars <= 0:
            message = f"bar_ns and gap_max_bars must be positive, not {bar_ns}, {gap_max_bars}"
            raise ValueError(message)
        self.bar_ns = bar_ns
        self.gap_max_bars = gap_max_bars
        self._never_closes = all(calendar.never_closes() for calendar in self.calendars)
        self._known: _Joint | None = None

    def elapsed(self, previous_end_ns: int, ends_ns: I64) -> F64:
        """Return the joint open time of each two calendars since the bar before, in bars.

        Parameters
        ----------
        previous_end_ns
            End of the bar before the first; NO_TIME if there was none, which counts as one bar
            before.
        ends_ns : (k,)
            Ends of bars, ascending.

        Returns
        -------
        (k, G, G)
            Symmetric; on the diagonal the open time of each calendar. For ``ReturnBlock``.
        """
        shape = len(ends_ns), len(self.calendars), len(self.calendars)
        if not len(ends_ns):
            return np.empty(shape)
        first_ns = int(ends_ns[0]) - self.bar_ns if previous_end_ns == NO_TIME else previous_end_ns
        times_ns = np.append(np.array([first_ns]), ends_ns)
        if self._never_closes:
            open_ns = np.broadcast_to(np.diff(times_ns)[:, None, None], shape)
        else:
            known = self._joint(times_ns)
            at = np.searchsorted(known.instants, times_ns, "right") - 1
            since_ns = (times_ns - known.instants[at])[:, None, None]
            open_ns = np.diff(known.before_ns[at] + known.both[at] * since_ns, axis=0)
        # whole bars stay whole numbers, however long
        bars, rest_ns = np.divmod(open_ns, self.bar_ns)
        return np.minimum(bars + rest_ns / self.bar_ns, float(self.gap_max_bars))

    def open_mask(self, time_ns: I64, asset: I64) -> Mask:
        """Tell which ticks (m,) are in a session of their symbol."""
        if self._never_closes or not len(time_ns):
            return np.ones(len(time_ns), np.bool_)
        known = self._joint(time_ns)
        at = np.searchsorted(known.instants, time_ns, "right") - 1
        return known.is_open[at, self.group[asset]]

    def breaks(self, ends_ns: I64, exposure: F64) -> Mask:
        """Tell which returns (k, n) begin in another session than they end in.

        Such a return holds what happened while the market was closed, which is none of the
        time that it would be counted for. Bars of a day or longer have no sessions: nothing
        breaks.

        Parameters
        ----------
        ends_ns : (k,)
            Ends of bars. A bar belongs to the session of its last instant.
        exposure : (k, n)
            Bars that each return spans, 0 where there is none.
        """
        out = np.zeros(exposure.shape, np.bool_)
        if self._never_closes or self.bar_ns >= DAY_NS:
            return out
        spans_ns = np.rint(exposure).astype(np.int64) * self.bar_ns
        for g, calendar in enumerate(self.calendars):
            members = np.flatnonzero(self.group == g)
            if len(members):
                last_ns = ends_ns - 1
                before_ns = (last_ns[:, None] - spans_ns[:, members]).ravel()
                session = calendar.session(before_ns).reshape(len(ends_ns), -1)
                out[:, members] = session != calendar.session(last_ns)[:, None]
        return out

    def cut(self, block: Block) -> Block:
        """Return the block without the returns that break: ticks that begin anew."""
        broken = self.breaks(block.time_ns, block.exposure)
        if not broken.any():
            return block
        returns = np.where(broken, np.nan, block.returns)
        return replace(block, returns=returns, exposure=np.where(broken, 0.0, block.exposure))

    def _joint(self, time_ns: I64) -> _Joint:
        first_ns, last_ns = int(time_ns.min()), int(time_ns.max())
        known = self._known
        if known is None or not known.covers_ns[0] <= first_ns <= last_ns <= known.covers_ns[1]:
            covered = whole_years(first_ns, last_ns)
            if known is not None:
                covered = min(covered[0], known.covers_ns[0]), max(covered[1], known.covers_ns[1])
            instants, is_open = joint_table(self.calendars, np.array(covered))
            both = (is_open[:, :, None] & is_open[:, None, :]).astype(np.int64)
            passed = np.diff(instants)[:, None, None] * both[:-1]
            before = np.concatenate([np.zeros((1, *both.shape[1:]), np.int64), passed.cumsum(0)])
            known = _Joint(covered, instants, is_open, both, before)
            self._known = known
        return known
