"""Settings that would suit what was seen, each with its reason."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from stream_calib.config import format_duration
from stream_calib.config.sections import TimeConfig
from stream_calib.estimation.two_scale import choose_k
from stream_calib.service.examination.clocks import Lead, Order, Skew
from stream_calib.service.examination.sessions import ALWAYS, Sessions
from stream_calib.service.examination.symbols import SymbolFinding
from stream_calib.values import I64, SECOND_NS

Policy = Literal["last", "mid"]
TICKS_MIN = 20
SLOWER = 10.0  # a symbol so many times slower than most would set the window of all
OVERLAP_MIN = 0.2
SYMBOLS_MAX = 200  # as many as fit in one JSON message
UNCHANGED_MAX = 0.999
BAR_S_LEAST, BAR_S_MOST = 1.0, 5.0  # of ticks: ``choose_k``
BARS_PER_WINDOW = 120  # more cost time and hold nothing
N_EFF = 50.0
WINDOWS_TILL_READY = 20  # windows until 20 effective ones are there, and half as many again
LATENESS_MOST_NS = 60 * SECOND_NS
COARSE = 3.0  # steps of the grid in usual moves: .90 of bad prints are found there, .24 at 5
MOSTLY = 0.5
TRIAL_PAIRS = 6  # symbols whose pairs are tried
NICE_S = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 20, 30),
    *(60 * m for m in (1, 2, 3, 5, 10, 15, 20, 30, 45)),
    *(3600 * h for h in (1, 2, 3, 4, 6, 8, 12)),
    *(86_400 * d for d in (1, 2, 3, 5, 7, 10, 20, 30, 40, 50, 100, 200, 500, 1000, 2000)),
)


class Reason(NamedTuple):
    """A setting by its key, its value in words, and why."""

    key: str
    value: str
    why: str


@dataclass(frozen=True, slots=True)
class Advice:
    """Recommended settings; ``symbols`` are fewer than two where nothing can be recommended.

    ``trial`` tells that the sample is too short for the windows that its ticks need:
    ``proper`` says those, and the settings are such that something is published at all.
    """

    symbols: Sequence[str]
    left_out: Sequence[tuple[str, str]]
    policy: Policy
    bar_ns: int = SECOND_NS
    window_ns: int = 60 * SECOND_NS
    half_life_ns: int = 1800 * SECOND_NS
    ready_n_eff: float = 20.0
    dcc_bar_ns: int = 60 * SECOND_NS
    stale_after_ns: int | None = None
    lateness_ns: int = 2 * SECOND_NS
    idle_slack_ns: int = 5 * SECOND_NS
    max_ahead_ns: int = 60 * SECOND_NS
    topics: Sequence[str] = ()
    sessions: Sessions = ALWAYS
    diffs: Sequence[str] = ()
    exchanges: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    trial: bool = False
    proper: str = ""
    reasons: Sequence[Reason] = ()


class Clock(NamedTuple):
    """Bar, window, half-life, and how many effective observations make a pair ready."""

    bar_ns: int
    window_ns: int
    half_life_ns: int
    ready_n_eff: float


def choose_symbols(
    symbols: Sequence[SymbolFinding], policy: Policy
) -> tuple[list[SymbolFinding], list[tuple[str, str]]]:
    """Return the symbols that belong into one universe, and why the others do not."""
    left: list[tuple[str, str]] = []
    able: list[SymbolFinding] = []
    for one in symbols:
        own = one.prices(policy)
        if own is None:
            left.append((one.symbol, "no trades" if policy == "last" else "no quotes"))
        elif own.n < TICKS_MIN:
            left.append((one.symbol, f"{own.n} ticks are too few"))
        elif own.unchanged > UNCHANGED_MAX:
            left.append((one.symbol, "its price does not move here"))
        elif not own.rate_hz > 0.0:
            left.append((one.symbol, "all of its ticks have one time"))
        else:
            able.append(one)
    able = _together(able, left)
    if len(able) > 2:
        spacing = [1.0 / own.rate_hz for one in able if (own := one.prices(policy))]
        limit_s = max(20.0, SLOWER * float(np.median(spacing)))
        slow = [one for one, s in zip(able, spacing, strict=True) if s > limit_s]
        if len(able) - len(slow) >= 2:
            for one in slow:
                own = one.prices(policy)
                apart_s = 1.0 / own.rate_hz if own else math.nan
                why = f"a tick every {apart_s:.3g} s: the windows of all would have to be as long"
                left.append((one.symbol, why))
            able = [one for one in able if one not in slow]
    left += [(one.symbol, f"beyond {SYMBOLS_MAX} symbols") for one in able[SYMBOLS_MAX:]]
    return able[:SYMBOLS_MAX], left


def _together(able: list[SymbolFinding], left: list[tuple[str, str]]) -> list[SymbolFinding]:
    """Keep those that tick at the same time as the one with which most do."""
    best: list[SymbolFinding] = []
    for reference in able[:20]:
        own = [one for one in able if _overlap(one, reference) >= OVERLAP_MIN]
        if len(own) > len(best):
            best = own
    left += [
        (one.symbol, "ticks at other times than the others") for one in able if one not in best
    ]
    return best


def _overlap(one: SymbolFinding, other: SymbolFinding) -> float:
    common = min(one.last_ns, other.last_ns) - max(one.first_ns, other.first_ns)
    least = min(one.last_ns - one.first_ns, other.last_ns - other.first_ns)
    return common / max(1, least)


def choose_policy(symbols: Sequence[SymbolFinding]) -> tuple[Policy, str]:
    """Return the price to use and why: quotes where they are there and less noisy than trades."""
    traded, quoted = (
        [s for s in symbols if (own := s.prices(policy)) is not None and own.n >= TICKS_MIN]
        for policy in ("last", "mid")
    )
    if len(traded) != len(quoted) and min(len(traded), len(quoted)) < 2:
        many = quoted if len(quoted) > len(traded) else traded
        what = "quotes" if many is quoted else "trades"
        return ("mid" if many is quoted else "last"), f"{len(many)} symbols have {what}"
    both = [(s.trades, s.mids) for s in quoted if s.trades is not None and s.mids is not None]
    pairs = [
        (t.bounce_bp, m.bounce_bp)
        for t, m in both
        if not math.isnan(t.bounce_bp) and not math.isnan(m.bounce_bp)
    ]
    if len(quoted) < len(traded):
        return "last", f"{len(traded)} symbols have trades, {len(quoted)} have quotes"
    if not pairs:
        return ("mid", "quotes have no bounce") if quoted else ("last", "there are no quotes")
    trades_bp, mids_bp = (float(np.median(own)) for own in zip(*pairs, strict=True))
    noise = f"noise on a mid {mids_bp:.3g} bp, on a trade {trades_bp:.3g} bp"
    return ("mid" if mids_bp <= trades_bp else "last"), noise


def choose_clock(
    chosen: Sequence[SymbolFinding], policy: Policy, lead_s: float
) -> tuple[Clock, list[Reason]]:
    """Choose the clock by the rates of the chosen symbols, at least two."""
    prices = [own for one in chosen if (own := one.prices(policy)) is not None]
    rates = np.array([own.rate_hz for own in prices])
    slowest = chosen[int(np.argmin(rates))].symbol
    gap_s = float(np.median([own.gap_s for own in prices]))
    if all(own.regular for own in prices) and gap_s >= BAR_S_MOST:
        bar_s = round(gap_s, 3)
        why = f"the ticks are bars themselves, {format_duration(_ns(bar_s))} apart"
        k = choose_k(rates * 1.001, bar_s, lead_s)
    else:
        fast_s = float(1.0 / np.quantile(rates, 0.75))
        bar_s = nice_s(min(BAR_S_MOST, max(BAR_S_LEAST, fast_s)))
        why = f"the faster symbols tick every {fast_s:.3g} s; within 1 to 5 s"
        k = choose_k(rates, bar_s, lead_s)
        if k > BARS_PER_WINDOW:
            bar_s = nice_s(k * bar_s / BARS_PER_WINDOW)
            k = choose_k(rates, bar_s, lead_s)
            why += f", and {BARS_PER_WINDOW} bars a window are enough"
    if bar_s in NICE_S:
        k = math.ceil(nice_s(k * bar_s * 0.999) / bar_s * (1 - 1e-12))
    window_s = k * bar_s
    half_life_s = nice_s(N_EFF * bar_s * (2 * k * k + 1) / (3 * k * 2.885))
    n_eff = 2.885 * half_life_s / bar_s * 3 * k / (2 * k * k + 1)
    least_s = 3.0 / float(rates.min())
    parts = {
        "60 s": 60.0,
        f"three ticks of {slowest}, {least_s:.3g} s": least_s,
        f"twenty leads, {20 * lead_s:.3g} s": 20 * lead_s,
    }
    rule = max(parts, key=parts.__getitem__)
    clock = Clock(_ns(bar_s), _ns(window_s), _ns(half_life_s), 20.0)
    why_half_life = (
        f"n_eff {n_eff:.0f}, so ±{1 / math.sqrt(n_eff):.2f} (one sigma) where there is no "
        "correlation; four times as long halves that and follows a change four times as late"
    )
    return clock, [
        Reason("bar", format_duration(clock.bar_ns), why),
        Reason("ewma.window", format_duration(clock.window_ns), f"{rule} (K = {k} bars)"),
        Reason("ewma.half_life", format_duration(clock.half_life_ns), why_half_life),
    ]


def trial_clock(times: Sequence[I64]) -> Clock | None:
    """Choose a clock under which a sample this short publishes something.

    Of the times of some symbols: the bar, equal to the window, by which most bars have a return of
    the same length in a pair of them.
    """
    best: tuple[int, float] | None = None
    for bar_s in (bar_s for bar_s in NICE_S if 0.05 <= bar_s <= 86_400):
        bar_ns = _ns(bar_s)
        bars = [np.unique(own // bar_ns) for own in times[:TRIAL_PAIRS]]
        joint = max((_joint(a, b) for i, a in enumerate(bars) for b in bars[i + 1 :]), default=0)
        if joint and (best is None or joint >= best[0]):
            best = joint, bar_s
    if best is None:
        return None
    joint, bar_s = best
    ready = float(min(20, max(2, joint // 2)))
    return Clock(_ns(bar_s), _ns(bar_s), 40 * _ns(bar_s), ready)


def _joint(one: I64, other: I64) -> int:
    both, i, j = np.intersect1d(one, other, assume_unique=True, return_indices=True)
    known = (i > 0) & (j > 0)
    return int((one[i[known] - 1] == other[j[known] - 1]).sum()) if len(both) else 0


def choose_time(order: Order, skews: Sequence[Skew]) -> tuple[tuple[int, int, int], list[Reason]]:
    """Return lateness, idle_slack and max_ahead in ns, with reasons."""
    defaults = TimeConfig()
    reasons = []
    lateness_ns = max(defaults.lateness, _ns(nice_s(order.lateness_s)))
    why = f"99.9 % of ticks are at most {order.lateness_s:.3g} s behind their partition's newest"
    if lateness_ns > LATENESS_MOST_NS:
        if order.beyond > MOSTLY:
            why += "; most of it is out of order (history, newest first?)"
            if any(skew.against == "log" for skew in skews):  # what comes live would wait as long
                why += f', and "{format_duration(lateness_ns)}" would hold every bar: the default'
                lateness_ns = defaults.lateness
            else:
                why += ": live, 2s would do"
        else:
            lateness_ns = LATENESS_MOST_NS
            why += "; beyond a minute it is history, or a clock, and counts as late"
    reasons.append(Reason("time.lateness", format_duration(lateness_ns), why))
    slack_ns = defaults.idle_slack
    if math.isnan(order.slack_s):
        why = "the default: one partition, or no times of the log to tell it from"
    else:
        slack_ns = min(LATENESS_MOST_NS, max(slack_ns, _ns(nice_s(order.slack_s))))
        why = f"99.9 % of ticks are at most {order.slack_s:.3g} s behind the newest of all"
        if slack_ns == LATENESS_MOST_NS:
            why += "; more than a minute no partition is awaited"
    reasons.append(Reason("time.idle_slack", format_duration(slack_ns), why))
    ahead_s = max((s.high_s for s in skews if s.against == "log"), default=0.0)
    ahead_ns = defaults.max_ahead
    if ahead_s * 2 * SECOND_NS > ahead_ns:
        ahead_ns = _ns(nice_s(2 * ahead_s))
        why = f"event times are up to {ahead_s:.3g} s ahead of the log: mend the producer's clock"
        reasons.append(Reason("time.max_ahead", format_duration(ahead_ns), why))
    return (lateness_ns, slack_ns, ahead_ns), reasons


def judge_filter(chosen: Sequence[SymbolFinding], policy: Policy) -> Reason:
    """Say what the filter can find, given how coarse the grids of prices are."""
    coarse = [
        one.symbol
        for one in chosen
        if (own := one.prices(policy)) is not None and one.step_bp > COARSE * own.move_bp
    ]
    why = "a print of more than 8 usual moves waits for the next one"
    if coarse:
        names = ", ".join(coarse[:3]) + (" ..." if len(coarse) > 3 else "")
        why += f"; few bad ones are found where a step of the grid is {COARSE:g} moves: {names}"
    return Reason("filter.enabled", "true", why)


def longest_lead_s(leads: Sequence[Lead]) -> float:
    """Return the longest time by which one symbol leads another."""
    return max((lead.lead_s for lead in leads), default=0.0)


def nice_s(least_s: float) -> float:
    """Return the shortest round time that is not shorter."""
    return next((s for s in NICE_S if s >= least_s * (1 - 1e-9)), float(NICE_S[-1]))


def _ns(value_s: float) -> int:
    return round(value_s * SECOND_NS)
