"""How each symbol of a sample ticks: rate, repeats, spread, bounce, grid, suspected splits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stream_calib.engine.notable import near_split
from stream_calib.service.examination.sample import Sample
from stream_calib.values import F64, I64, SECOND_NS

CLOSED_NS = 600 * SECOND_NS  # longer without a tick: it is closed, unless it always ticks so seldom
CLOSED_GAPS = 30  # in usual gaps
RETURNS_MIN = 20  # fewer say nothing about bounces
SPLIT_LEAST = 0.25  # of a log price; less is no jump between sessions either
AROUND = 5  # prices on each side of a split that have to stay
SIGNED = 0.05  # the share of prices that are not above zero, of spreads and rates
BP = 1e4


@dataclass(frozen=True, slots=True)
class Prices:
    """One kind of price of a symbol, trades or mids: ``rate_hz`` is inside of its active time.

    ``bounce_bp`` is the deviation of the noise on each price, from the first autocovariance of
    returns (Roll 1984); NaN where there are too few;
    ``move_bp`` that of all returns from tick to tick. ``regular``: most are equally far apart.
    """

    n: int
    rate_hz: float
    gap_s: float
    unchanged: float
    bounce_bp: float
    move_bp: float
    regular: bool


@dataclass(frozen=True, slots=True)
class SymbolFinding:
    """What is known of one symbol; shares are of its ticks, NaN where nothing says it."""

    symbol: str
    kinds: Mapping[str, int]
    n: int
    first_ns: int
    last_ns: int
    active_s: float
    trades: Prices | None
    mids: Prices | None
    equal_stamps: float
    repeated: float
    low: float
    high: float
    spread_bp: float
    step: float
    step_bp: float
    crossed: float
    signed: bool
    splits: Sequence[tuple[int, float, str]]

    def prices(self, policy: str) -> Prices | None:
        """Return the prices that a policy uses."""
        return self.trades if policy == "last" else self.mids

    @property
    def rate_hz(self) -> float:
        """Ticks per second of its own active time, of the prices that tick most."""
        return max((own.rate_hz for own in (self.trades, self.mids) if own), default=0.0)


def find_symbols(sample: Sample) -> list[SymbolFinding]:
    """Look at each symbol of a sample, those that tick most first."""
    order = np.lexsort((sample.time_ns, sample.asset))
    asset = sample.asset[order]
    cuts = np.flatnonzero(np.diff(asset)) + 1
    parts = np.split(order, cuts) if len(order) else []
    found = [_find(sample, rows) for rows in parts]
    return sorted(found, key=lambda one: (-one.n, one.symbol))


def _find(sample: Sample, rows: I64) -> SymbolFinding:
    # rows of one symbol in the order of time
    ident = sample.ident[rows]
    fresh = _first_times(ident)
    kinds: dict[str, int] = {}
    for label, n in zip(*np.unique(sample.label[rows], return_counts=True), strict=True):
        kind = sample.labels[label].kind
        kinds[kind] = kinds.get(kind, 0) + int(n)
    kept = rows[fresh]
    time_ns, price = sample.time_ns[kept], sample.price[kept]
    bid, ask = _carried(sample.bid[kept]), _carried(sample.ask[kept])
    quoted = (~np.isnan(sample.bid[kept]) | ~np.isnan(sample.ask[kept])) & ~np.isnan(bid + ask)
    crossed = quoted & (bid > ask)
    good = quoted & ~crossed
    mid = (bid + ask) / 2.0
    signed = bool((price <= 0.0).sum() > SIGNED * len(price))
    traded = ~np.isnan(price) if signed else price > 0.0
    gaps = np.diff(time_ns)
    # the prices that say most: those of trades, unless there are hardly any
    usual, at = (price, traded) if traded.sum() * 10 >= good.sum() else (mid, good)
    level = usual[at]
    step = _step(level if usual is price else bid[good])
    middle = float(np.median(level)) if len(level) else np.nan
    return SymbolFinding(
        sample.symbols[sample.asset[rows[0]]],
        kinds,
        len(rows),
        int(time_ns[0]),
        int(time_ns[-1]),
        _active_ns(gaps) / SECOND_NS,
        _prices(time_ns[traded], price[traded], signed=signed),
        _prices(time_ns[good], mid[good], signed=False),
        float((gaps == 0).mean()) if len(gaps) else 0.0,
        float(1.0 - fresh.mean()),
        float(level.min()) if len(level) else np.nan,
        float(level.max()) if len(level) else np.nan,
        float(np.median((ask - bid)[good] / mid[good]) * BP) if good.any() else np.nan,
        step,
        np.nan if signed else step / middle * BP,
        float(crossed.sum() / max(1, quoted.sum())),
        signed,
        [] if signed else _splits(time_ns[at], level),
    )


def _first_times(ident: I64) -> "np.typing.NDArray[np.bool_]":
    fresh = np.ones(len(ident), dtype=np.bool_)
    known = np.flatnonzero(ident != 0)
    _, first = np.unique(ident[known], return_index=True)
    fresh[known] = False
    fresh[known[first]] = True
    return fresh


def _carried(values: F64) -> F64:
    """Put in the place of each NaN the last number before it."""
    at = np.maximum.accumulate(np.where(np.isnan(values), 0, np.arange(len(values))))
    return values[at]


def _open_gaps(gaps: I64) -> I64:
    """Return the gaps in which a symbol was open."""
    positive = gaps[gaps > 0]
    usual = float(np.median(positive)) if len(positive) else 0.0
    return gaps[gaps <= max(CLOSED_NS, CLOSED_GAPS * usual)]


def _active_ns(gaps: I64) -> int:
    return int(_open_gaps(gaps).sum())


def _prices(time_ns: I64, price: F64, *, signed: bool) -> Prices | None:
    if not len(price):
        return None
    gaps = np.diff(time_ns)
    opened = _open_gaps(gaps)
    seconds = float(opened.sum()) / SECOND_NS
    returns = np.diff(price if signed else np.log(price))
    bounce = move = np.nan
    if len(returns) >= RETURNS_MIN and not signed:
        # capped: single jumps would be all that is seen
        move = float(np.sqrt(np.mean(returns * returns))) * BP
        cap = 5.0 * move / BP
        capped = np.clip(returns, -cap, cap)
        bounce = float(np.sqrt(max(0.0, -np.mean(capped[1:] * capped[:-1])))) * BP
    return Prices(
        len(price),
        len(opened) / seconds if seconds > 0.0 else 0.0,
        float(np.median(opened)) / SECOND_NS if len(opened) else np.nan,
        float((returns == 0.0).mean()) if len(returns) else 0.0,
        bounce,
        move,
        len(opened) >= AROUND and bool(np.ptp(np.quantile(opened, [0.1, 0.7])) == 0.0),
    )


def _step(price: F64) -> float:
    """Return the least step between two prices, NaN where there are hardly two."""
    levels = np.unique(price)
    if len(levels) < 2:
        return np.nan
    steps = np.diff(levels)
    steps = steps[steps > levels[-1] * 1e-9]
    return float(f"{steps.min():.6g}") if len(steps) else np.nan


def _splits(time_ns: I64, price: F64) -> list[tuple[int, float, str]]:
    """Return time, ratio and name of the jumps that look like splits and last."""
    out = []
    with np.errstate(divide="ignore"):
        jumps = np.flatnonzero(np.abs(np.diff(np.log(price))) > SPLIT_LEAST) + 1
    for i in jumps.tolist():
        before, after = price[max(0, i - AROUND) : i], price[i : i + AROUND]
        if min(len(before), len(after)) < AROUND:
            continue
        ratio = float(price[i] / price[i - 1])
        stays = max(np.ptp(np.log(before)), np.ptp(np.log(after))) < SPLIT_LEAST / 2.0
        name = near_split(ratio)
        if stays and name is not None:
            out.append((int(time_ns[i]), ratio, name))
    return out
