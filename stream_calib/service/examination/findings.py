"""A look at the records of topics or files: everything that is said of them."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from stream_calib.config import Config, UniverseConfig, format_duration
from stream_calib.config.sections import TimeConfig
from stream_calib.engine.intake import Intake
from stream_calib.service.examination.advice import (
    WINDOWS_TILL_READY,
    Advice,
    Clock,
    Policy,
    Reason,
    choose_clock,
    choose_policy,
    choose_symbols,
    choose_time,
    longest_lead_s,
    trial_clock,
)
from stream_calib.service.examination.clocks import (
    Lead,
    Order,
    Shift,
    Skew,
    find_leads,
    find_order,
    find_shifts,
    find_skews,
)
from stream_calib.service.examination.sample import Look, Naming, Sample, look_at, name_symbols
from stream_calib.service.examination.sessions import Sessions, guess_sessions
from stream_calib.service.examination.symbols import SymbolFinding, find_symbols
from stream_calib.values import SECOND_NS, RecordBatch, Source
from stream_calib.wire.ticks.survey import Label

JUDGED_MAX = 2000  # symbols whose ticks the intake is given
NOBODY = ("no symbol", "no other symbol")


class TopicFinding(NamedTuple):
    """What is in a topic or file; ``outcomes`` are those of the engine's intake by default.

    ``written`` are ticks by what they were written as; ``refused`` and ``silent`` are records by
    reason; times are of the middle 99.9 % of ticks, 0 without any.
    """

    topic: str
    partitions: int
    records: int
    ticks: int
    written: Mapping[Label, int]
    refused: Mapping[str, int]
    silent: Mapping[str, int]
    outcomes: Mapping[str, int]
    first_ns: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that is said of a sample."""

    topics: Sequence[TopicFinding]
    envelopes: Mapping[str, int]
    symbols: Sequence[SymbolFinding]
    skews: Sequence[Skew]
    shifts: Sequence[Shift]
    leads: Sequence[Lead]
    order: Order
    sessions: Sessions
    advice: Advice


def examine(batches: Sequence[RecordBatch], head: Sequence[RecordBatch] = ()) -> Findings:
    """Say what records hold, and which settings would suit them.

    Parameters
    ----------
    batches
        Records, of each source one after the other; usually its newest.
    head
        The first ones of sources, to know how far back they go.
    """
    look = look_at(batches)
    naming = name_symbols(look.sample)
    sample = naming.sample
    symbols = find_symbols(sample)
    order = find_order(sample, TimeConfig().lateness)
    skews, shifts = find_skews(sample), find_shifts(sample)
    sessions = guess_sessions(sample.time_ns[sample.own_time])
    policy, why = choose_policy(symbols)
    chosen, left_out = choose_symbols(symbols, policy)
    leads = find_leads(sample, [one.symbol for one in chosen])
    advice = Advice(
        [one.symbol for one in chosen],
        left_out,
        policy,
        sessions=sessions,
        diffs=[one.symbol for one in chosen if one.signed],
        exchanges=naming.exchanges,
        aliases={old: new for old, new in naming.aliases.items()
                 if new in {one.symbol for one in chosen}},
        reasons=(Reason("price", policy, why),),
    )
    if len(chosen) > 1:
        advice = _clocked(advice, chosen, sample, look_at(head).sample, leads)
        (lateness, slack, ahead), reasons = choose_time(order, skews, 0.0)
        advice = replace(
            advice,
            lateness_ns=lateness,
            idle_slack_ns=slack,
            max_ahead_ns=ahead,
            reasons=(*advice.reasons, *reasons),
        )
    topics = _topics(look, policy)
    return Findings(
        topics, look.envelopes, symbols, skews, shifts, leads, order, sessions, advice
    )


def _clocked(
    advice: Advice,
    chosen: Sequence[SymbolFinding],
    sample: Sample,
    head: Sample,
    leads: Sequence[Lead],
) -> Advice:
    clock, reasons = choose_clock(chosen, advice.policy, longest_lead_s(leads))
    span_ns = _span_ns(chosen, head)
    prices = [own for one in chosen if (own := one.prices(advice.policy)) is not None]
    slowest_s = max(1.0 / own.rate_hz for own in prices)
    trial, proper = False, ""
    if span_ns < WINDOWS_TILL_READY * clock.window_ns:
        found = trial_clock(_times_of(sample, chosen, advice.policy))
        if found is not None and found.window_ns < clock.window_ns:
            trial, proper = True, _proper(clock, span_ns)
            clock = found
            short = "for this sample alone, which is too short: see above"
            reasons = [reason._replace(why=short) for reason in _as_reasons(clock, reasons)]
            reasons.append(Reason("ready_n_eff", f"{clock.ready_n_eff:g}", short))
    dcc_bar_ns = -(-max(60 * SECOND_NS, clock.window_ns) // clock.bar_ns) * clock.bar_ns
    stale_ns = max(10 * round(slowest_s * SECOND_NS), 2 * clock.window_ns)
    stale_bars = -(-stale_ns // clock.bar_ns)
    return replace(
        advice,
        bar_ns=clock.bar_ns,
        window_ns=clock.window_ns,
        half_life_ns=clock.half_life_ns,
        ready_n_eff=clock.ready_n_eff,
        dcc_bar_ns=dcc_bar_ns,
        stale_after_ns=stale_bars * clock.bar_ns if stale_bars > 60 else None,
        trial=trial,
        proper=proper,
        reasons=(
            *advice.reasons,
            *reasons,
            Reason("dcc.bar", format_duration(dcc_bar_ns), "a minute, or a window if longer"),
        ),
    )


def _as_reasons(clock: Clock, like: Sequence[Reason]) -> list[Reason]:
    values = (clock.bar_ns, clock.window_ns, clock.half_life_ns)
    return [
        reason._replace(value=format_duration(value))
        for reason, value in zip(like, values, strict=True)
    ]


def _proper(clock: Clock, span_ns: int) -> str:
    bar, window, half_life = (format_duration(value) for value in clock[:3])
    return (
        f'bar = "{bar}", ewma.window = "{window}", ewma.half_life = "{half_life}" and the default '
        f"ready_n_eff suit these ticks, but need {WINDOWS_TILL_READY} windows of them; here are "
        f"{span_ns / SECOND_NS:.3g} s"
    )


def _span_ns(chosen: Sequence[SymbolFinding], head: Sample) -> int:
    """Return how long the second of the chosen symbols is there, from its first record on."""
    index = {symbol: i for i, symbol in enumerate(head.symbols)}
    spans = []
    for one in chosen:
        first_ns = one.first_ns
        before = head.time_ns[head.asset == index.get(one.symbol, -1)]
        if len(before):
            first_ns = min(first_ns, int(np.quantile(before, 0.01)))
        spans.append(one.last_ns - first_ns)
    return sorted(spans)[-2]


def _times_of(
    sample: Sample, chosen: Sequence[SymbolFinding], policy: Policy
) -> "list[np.typing.NDArray[np.int64]]":
    index = {symbol: i for i, symbol in enumerate(sample.symbols)}
    carried = sample.price if policy == "last" else np.fmax(sample.bid, sample.ask)
    known = ~np.isnan(carried)
    return [sample.time_ns[known & (sample.asset == index[one.symbol])] for one in chosen]


def _topics(look: Look, policy: Policy) -> list[TopicFinding]:
    sample = look.sample
    outcomes = _outcomes(look, policy)
    found = []
    for topic, records in look.records.items():
        of_topic = np.array([source.topic == topic for source in sample.sources], np.bool_)
        rows = np.flatnonzero(of_topic[sample.source]) if len(sample.source) else sample.source
        labels = Counter(sample.label[rows].tolist())
        times = np.quantile(sample.time_ns[rows], [0.0005, 0.9995]) if len(rows) else (0, 0)
        found.append(
            TopicFinding(
                topic,
                len({found.ticks.records.source for found in look.batches
                     if found.ticks.records.source.topic == topic}),
                records,
                len(rows),
                {sample.labels[label]: n for label, n in labels.most_common()},
                {reason: n for (own, reason), n in look.refused.items() if own == topic},
                {reason: n for (own, reason), n in look.silent.items() if own == topic},
                outcomes[topic],
                round(float(times[0])),
                round(float(times[1])),
            )
        )
    return found


def _outcomes(look: Look, policy: Policy) -> Mapping[str, Mapping[str, int]]:
    """Give the ticks to the engine's own intake under default settings, and see what it says."""
    known = [*look.sample.symbols[:JUDGED_MAX], *NOBODY]
    universe = UniverseConfig(name="all", symbols=tuple(known), price=policy)
    intake = Intake(Config(universe=(universe,)), universe)
    for found in look.batches:
        intake.discover(found.ticks.records.source)
        asset = found.ticks.asset
        intake.admit(replace(found.ticks, asset=np.where(asset < JUDGED_MAX, asset, -1)))
    out: defaultdict[str, Counter[str]] = defaultdict(Counter)
    refused = {reason for _, reason in look.refused}
    for (topic, outcome), n in intake.counts.items():
        if outcome not in refused and topic:
            out[topic][outcome] += n
    for topic, n in _repeats(look).items():
        out[topic]["repeated"] = n
    return out


def _repeats(look: Look) -> Counter[str]:
    """Count ticks whose id their symbol has had before."""
    sample = look.sample
    known = np.flatnonzero(sample.ident != 0)
    pairs = np.stack([sample.asset[known], sample.ident[known]], axis=1)
    _, first = np.unique(pairs, axis=0, return_index=True)
    again = np.ones(len(known), dtype=np.bool_)
    again[first] = False
    topics: Sequence[Source] = sample.sources
    sources = Counter(sample.source[known[again]].tolist())
    out: Counter[str] = Counter()
    for source, n in sources.items():
        out[topics[source].topic] += n
    return out


__all__ = ["Findings", "Naming", "TopicFinding", "examine"]
