"""The quote table as two dictionaries of sides per symbol: what was quoted, what is believed."""

import math
import statistics
from collections.abc import Iterable, Iterator
from typing import NamedTuple

WARM_SPREADS = 10


class Row(NamedTuple):
    """A tick as it is read; NaN for what it does not carry."""

    asset: int
    price: float
    bid: float
    ask: float
    bid_size: float
    ask_size: float


class Side(NamedTuple):
    """One side of a quote; the size is None when it is not known."""

    price: float
    size: float | None


class Quote(NamedTuple):
    """Both sides, None for one that is not there or not known."""

    bid: Side | None = None
    ask: Side | None = None

    @property
    def spread(self) -> float | None:
        if self.bid is None or self.ask is None:
            return None
        return self.ask.price - self.bid.price

    def after(self, row: Row, *, positive: bool) -> "Quote":
        return Quote(
            _side(self.bid, row.bid, row.bid_size, positive=positive),
            _side(self.ask, row.ask, row.ask_size, positive=positive),
        )

    def price(self, policy: str) -> float:
        assert self.bid is not None
        assert self.ask is not None
        sizes = [side.size for side in (self.bid, self.ask)]
        if policy == "mid" or any(size is None or size <= 0.0 for size in sizes):
            return (self.bid.price + self.ask.price) * 0.5
        share = sizes[0] / (sizes[0] + sizes[1])  # type: ignore[operator]
        return self.bid.price + (self.ask.price - self.bid.price) * share


def price(
    rows: Iterable[Row], policy: str, spread_max: float, k: int, *, positive: bool
) -> Iterator[tuple[str, float | None]]:
    """Yield what becomes of each row, and its price."""
    quoted: dict[int, Quote] = {}
    believed: dict[int, Quote] = {}
    spreads: dict[int, list[float]] = {}
    for row in rows:
        if policy == "last":
            yield ("unused", None) if math.isnan(row.price) else ("priced", row.price)
            continue
        if all(math.isnan(x) for x in row[2:]):
            yield "unused", None
            continue
        known = spreads.setdefault(row.asset, [])
        limit = math.inf
        if len(known) >= WARM_SPREADS:
            limit = spread_max * statistics.median_high(known[-k:])
        now = quoted.get(row.asset, Quote()).after(row, positive=positive)
        quoted[row.asset] = now
        if now.spread is not None and now.spread > 0.0:
            known.append(now.spread)
        if now.spread is None or not 0.0 <= now.spread <= limit:
            now = believed.get(row.asset, Quote()).after(row, positive=positive)
        if now.spread is not None and now.spread > limit:
            yield "spread", None
            continue
        believed[row.asset] = now
        if now.spread is None:
            yield "unused", None
        elif now.spread < 0.0:
            yield "crossed", None
        else:
            yield "priced", now.price(policy)


def _side(side: Side | None, price: float, size: float, *, positive: bool) -> Side | None:
    if not math.isnan(price):
        if (price <= 0.0) if positive else (price == 0.0 and size == 0.0):
            return None
        side = Side(price, side.size if side is not None else None)
    if side is not None and not math.isnan(size):
        side = side._replace(size=size)
    return side
