"""The filter of bad ticks as a story told symbol by symbol, over the whole history at once."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

NORMAL = 0.8693011158689337
WARM_MOVES = 10
RECALL = 8


class Tick(NamedTuple):
    """One price."""

    time_ns: int
    asset: int
    price: float


class Fate(NamedTuple):
    """Whether a tick was good, and the row whose tick said so (its own if it was not held).

    Of a tick that still waits both are None.
    """

    good: bool | None
    row: int | None


class Rules(NamedTuple):
    """How far is far."""

    relative: bool
    k: int
    sigmas: float
    grains: float
    reversal: float
    rough: float


def judge(ticks: Sequence[Tick], rules: Rules) -> list[Fate]:
    """Return the fate of every tick."""
    fates = {
        row: Fate(good=False, row=row) for row, t in enumerate(ticks) if not _is_price(t, rules)
    }
    for asset in {tick.asset for tick in ticks}:
        symbol = _Symbol(rules)
        rows = [row for row, tick in enumerate(ticks) if tick.asset == asset and row not in fates]
        # lines of one time and price, one after the other, are one tick
        for (_, price), group in itertools.groupby(rows, lambda r: ticks[r][::2]):
            fates |= symbol.take(list(group), price)
    return [fates[row] for row in range(len(ticks))]


def _is_price(tick: Tick, rules: Rules) -> bool:
    return math.isfinite(tick.price) and (tick.price > 0.0 or not rules.relative)


class _Symbol:
    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.price: float | None = None
        self.moves: list[float] = []  # all but zeros, those to outliers too
        self.steps = 0
        self.moving = 0.0
        self.held: tuple[list[int], float] | None = None
        self.before: tuple[float, int] | None = None  # a level, and for how many ticks it is good

    def take(self, rows: list[int], price: float) -> dict[int, Fate]:
        fates: dict[int, Fate] = {}
        if self.held is not None:
            waiting, claim = self.held
            self.held = None
            good = not self._refutes(price, claim)
            fates |= {row: Fate(good, rows[0]) for row in waiting}
            if good:
                old = self.price
                for _ in waiting:
                    self._accept(claim)
                self.before = None if old is None else (old, RECALL)
            elif self.price is not None:
                self._move(claim, self.price)
        for i, row in enumerate(rows):
            if self._is_far(price):
                self.held = rows[i:], price  # those after it join it
                fates |= dict.fromkeys(rows[i:], Fate(None, None))
                break
            self._accept(price)
            fates[row] = Fate(good=True, row=row)
        return fates

    def _refutes(self, price: float, claim: float) -> bool:
        if self.price is None:
            unit = min(price, claim) if self.rules.relative else 1.0
            return abs(price - claim) > self.rules.rough * unit
        return (claim - price) / (claim - self.price) > self.rules.reversal

    def _is_far(self, price: float) -> bool:
        if self.price is None:
            return self.rules.rough < math.inf
        if not self._is_beyond(price, self.price):
            return False
        return self.before is None or self._is_beyond(price, self.before[0])

    def _is_beyond(self, price: float, level: float) -> bool:
        known = sorted(self.moves[-self.rules.k :])
        usual = known[3 * len(known) // 4] if known else 0.0
        bound = (self.rules.sigmas * NORMAL * self.moving + self.rules.grains) * usual
        if len(self.moves) < WARM_MOVES:
            bound = max(bound, self.rules.rough)
        return abs(price - level) > (bound * level if self.rules.relative else bound)

    def _accept(self, price: float) -> None:
        if self.price is not None:
            self.steps += 1
            moved = float(price != self.price)
            self.moving += (moved - self.moving) / min(self.steps, self.rules.k)
            self._move(price, self.price)
            if self.before is not None:
                level, left = self.before
                self.before = (level, left - 1) if left > 1 else None
        self.price = price

    def _move(self, price: float, level: float) -> None:
        move = abs(price - level) / (level if self.rules.relative else 1.0)
        if 0.0 < move < math.inf:
            self.moves.append(move)
