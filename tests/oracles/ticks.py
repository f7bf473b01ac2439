"""The gate of one source, told tick by tick."""

from typing import Literal, NamedTuple

Verdict = Literal["apply", "late", "ahead", "jump", "held", "unusable"]
CONFIRMATIONS = 3
HELD_MAX = 256


class Limits(NamedTuple):
    """How late, how far ahead of the log's stamp and how sudden a tick may be."""

    lateness_ns: int
    max_ahead_ns: int
    max_jump_ns: int


class Gate:
    """Says of each tick whether it is applied; ``None`` stands for no time and no stamp."""

    def __init__(self, limits: Limits, newest_ns: int | None, decided_ns: int | None) -> None:
        self.limits = limits
        self.newest_ns = newest_ns
        self.decided_ns = decided_ns
        self.verdicts: list[Verdict] = []
        self.newest_at_ns: list[int | None] = []
        self._claims: list[tuple[int, int]] = []  # held ticks: index and the time they claim

    def judge(self, time_ns: int, stamp_ns: int | None, *, usable: bool) -> None:
        """Take the next tick of the source."""
        index = len(self.verdicts)
        self.verdicts.append("held")
        if not usable:
            self.verdicts[index] = "unusable"
        elif stamp_ns is not None and time_ns - stamp_ns > self.limits.max_ahead_ns:
            self.verdicts[index] = "ahead"
        elif self._is_plausible(time_ns, stamp_ns):
            self._pass(index, time_ns)
            self._settle()
        else:
            self._claim(index, time_ns)
        self.newest_at_ns.append(self.newest_ns)

    def _is_plausible(self, time_ns: int, stamp_ns: int | None) -> bool:
        if stamp_ns is not None and stamp_ns - time_ns <= self.limits.max_jump_ns:
            return True  # the log received it about when it says it happened
        return not self._is_jump(time_ns)

    def _is_jump(self, time_ns: int) -> bool:
        return self.newest_ns is None or time_ns - self.newest_ns > self.limits.max_jump_ns

    def _pass(self, index: int, time_ns: int) -> None:
        bounds = []
        if self.newest_ns is not None:
            bounds.append(self.newest_ns - self.limits.lateness_ns)
        if self.decided_ns is not None:
            bounds.append(self.decided_ns)
        late = any(time_ns < bound for bound in bounds)
        self.verdicts[index] = "late" if late else "apply"
        self.newest_ns = time_ns if self.newest_ns is None else max(self.newest_ns, time_ns)

    def _claim(self, index: int, time_ns: int) -> None:
        self._claims.append((index, time_ns))
        agreeing = [claim for claim in self._claims if self._agree(claim[1], time_ns)]
        if len(agreeing) >= CONFIRMATIONS:
            self._settle(agreeing)
        elif len(self._claims) > HELD_MAX:
            oldest, _ = self._claims.pop(0)
            self.verdicts[oldest] = "jump"

    def _agree(self, one_ns: int, other_ns: int) -> bool:
        return abs(one_ns - other_ns) <= self.limits.max_jump_ns

    def _settle(self, believed: list[tuple[int, int]] | None = None) -> None:
        # after a plausible tick a claim passes if it is no jump any more, or not one by then
        for index, time_ns in self._claims:
            if self._is_jump(time_ns) if believed is None else (index, time_ns) not in believed:
                self.verdicts[index] = "jump"
            else:
                self._pass(index, time_ns)
        self._claims = []
