"""A look at the records of topics or files: everything that is said of them."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np

from stream_calib.config import Config, UniverseConfig, format_duration
from stream_calib.config.sections import TimeConfig
from stream_calib.config.tick_layer import EwmaConfig
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
    judge_filter,
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
from stream_calib.service.examination.sample import Look, Sample, look_at, name_symbols
from stream_calib.service.examination.sessions import Sessions, guess_sessions
from stream_calib.service.examination.symbols import SymbolFinding, find_symbols
from stream_calib.values import I64, SECOND_NS, RecordBatch
from stream_calib.wire.ticks.survey import Label

T = TypeVar("T")
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
    unknown: Mapping[tuple[str, ...], int]
    symbols: Sequence[SymbolFinding]
    skews: Sequence[Skew]
    shifts: Sequence[Shift]
    leads: Sequence[Lead]
    order: Order
    sessions: Sessions
    advice: Advice

    def total(self, name: str) -> TopicFinding:
        """Return all topics as one."""
        times = [(t.first_ns, t.last_ns) for t in self.topics if t.ticks] or [(0, 0)]
        return TopicFinding(
            name,
            sum(topic.partitions for topic in self.topics),
            sum(topic.records for topic in self.topics),
            sum(topic.ticks for topic in self.topics),
            _summed(topic.written for topic in self.topics),
            _summed(topic.refused for topic in self.topics),
            _summed(topic.silent for topic in self.topics),
            _summed(topic.outcomes for topic in self.topics),
            min(first for first, _ in times),
            max(last for _, last in times),
        )


def _summed(counts: Iterable[Mapping[T, int]]) -> Counter[T]:
    out: Counter[T] = Counter()
    for own in counts:
        out.update(own)
    return out


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
    sessions = guess_sessions(sample.time_ns[sample.own_time])
    # rates are those of an open market
    symbols = find_symbols(sample.chosen(sessions.inside(sample.time_ns)))
    order = find_order(sample, TimeConfig().lateness)
    skews, shifts = find_skews(sample), find_shifts(sample)
    policy, why = choose_policy(symbols)
    chosen, left_out = choose_symbols(symbols, policy)
    if len(chosen) < 2:
        other: Policy = "last" if policy == "mid" else "mid"
        again, left = choose_symbols(symbols, other)
        if len(again) > len(chosen):
            policy, why = other, f"{len(again)} symbols have enough of them"
            chosen, left_out = again, left
    leads = find_leads(sample, [one.symbol for one in chosen])
    advice = Advice(
        sorted(one.symbol for one in chosen),
        left_out,
        policy,
        topics=_topics_of(sample, chosen, policy),
        sessions=sessions,
        diffs=[one.symbol for one in chosen if one.signed],
        exchanges=naming.exchanges,
        aliases={
            old: new for old, new in naming.aliases.items() if new in {one.symbol for one in chosen}
        },
        reasons=(Reason("price", policy, why),),
    )
    if len(chosen) > 1:
        advice = _clocked(advice, chosen, sample, name_symbols(look_at(head).sample).sample, leads)
        (lateness, slack, ahead), reasons = choose_time(order, skews)
        advice = replace(
            advice,
            lateness_ns=lateness,
            idle_slack_ns=slack,
            max_ahead_ns=ahead,
            reasons=(*advice.reasons, *reasons),
        )
    topics = _topics(look, advice)
    return Findings(
        topics, look.envelopes, look.unknown, symbols, skews, shifts, leads, order, sessions, advice
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
    stale_ns = 10 * round(slowest_s * SECOND_NS)
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
            judge_filter(chosen, advice.policy),
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


def _used(sample: Sample, policy: Policy) -> "np.typing.NDArray[np.bool_]":
    """Tell which ticks carry a price that a policy uses."""
    return ~np.isnan(sample.price if policy == "last" else np.fmax(sample.bid, sample.ask))


def _times_of(sample: Sample, chosen: Sequence[SymbolFinding], policy: Policy) -> list[I64]:
    index = {symbol: i for i, symbol in enumerate(sample.symbols)}
    used = _used(sample, policy)
    return [sample.time_ns[used & (sample.asset == index[one.symbol])] for one in chosen]


def _topics_of(sample: Sample, chosen: Sequence[SymbolFinding], policy: Policy) -> list[str]:
    """Return the topics that bring prices of the chosen symbols."""
    names = {one.symbol for one in chosen}
    own = np.array([symbol in names for symbol in sample.symbols] or [False])
    rows = _used(sample, policy) & own[sample.asset]
    return sorted({sample.sources[i].topic for i in np.unique(sample.source[rows]).tolist()})


def _span(time_ns: I64) -> tuple[int, int]:
    # first and last, single absurd times aside
    if not len(time_ns):
        return 0, 0
    first = int(np.quantile(time_ns, 0.0005, method="lower"))
    last = int(np.quantile(time_ns, 0.9995, method="higher"))
    return first, last


def _topics(look: Look, advice: Advice) -> list[TopicFinding]:
    sample = look.sample
    outcomes = _outcomes(look, advice)
    found = []
    for topic, records in look.records.items():
        of_topic = np.array([source.topic == topic for source in sample.sources], np.bool_)
        rows = np.flatnonzero(of_topic[sample.source]) if len(sample.source) else sample.source
        labels = Counter(sample.label[rows].tolist())
        times = _span(sample.time_ns[rows])
        found.append(
            TopicFinding(
                topic,
                len(
                    {
                        found.ticks.records.source
                        for found in look.batches
                        if found.ticks.records.source.topic == topic
                    }
                ),
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


def _outcomes(look: Look, advice: Advice) -> Mapping[str, Mapping[str, int]]:
    """Give the ticks to the engine's own intake under default times, and see what it says."""
    known = [*look.sample.symbols[:JUDGED_MAX], *NOBODY]
    universe = UniverseConfig(
        name="all",
        symbols=tuple(known),
        price=advice.policy,
        bar=advice.bar_ns,
        ewma=EwmaConfig(window=advice.bar_ns, half_life=1000 * advice.bar_ns),
        returns=dict.fromkeys(set(advice.diffs) & {*known}, "diff"),
    )
    intake = Intake(Config(universe=(universe,)), universe)
    for found in look.batches:
        intake.discover(found.ticks.records.source)
        asset = found.ticks.asset
        intake.admit(replace(found.ticks, asset=np.where(asset < JUDGED_MAX, asset, -1)))
    out: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for (topic, outcome), n in (intake.counts - Counter(look.refused)).items():
        if topic:
            out[topic][outcome] += n
    for topic, n in _counts(look).items():
        if waiting := n - sum(out[topic].values()):
            out[topic]["unconfirmed"] = waiting  # at the end, for others to bear its time out
    for topic, n in _repeats(look).items():
        out[topic]["repeated"] = n
    return out


def _counts(look: Look) -> Counter[str]:
    out: Counter[str] = Counter()
    for found in look.batches:
        out[found.ticks.records.source.topic] += len(found.ticks.time_ns)
    return out


def _repeats(look: Look) -> Counter[str]:
    """Count ticks whose id their symbol has had before."""
    sample = look.sample
    known = np.flatnonzero(sample.ident != 0)
    pairs = np.stack([sample.asset[known], sample.ident[known]], axis=1)
    _, first = np.unique(pairs, axis=0, return_index=True)
    again = np.ones(len(known), dtype=np.bool_)
    again[first] = False
    out: Counter[str] = Counter()
    for source, n in Counter(sample.source[known[again]].tolist()).items():
        out[sample.sources[source].topic] += n
    return out
