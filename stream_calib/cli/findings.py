"""What ``doctor`` shows of a look at ticks: tables, sentences, and settings to paste."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from stream_calib.cli.screen import Screen

if TYPE_CHECKING:
    from stream_calib.service.examination import Findings
    from stream_calib.service.examination.findings import TopicFinding
    from stream_calib.service.examination.symbols import Prices, SymbolFinding

SYMBOLS_SHOWN, TOPICS_SHOWN, LEFT_SHOWN, UNKNOWN_SHOWN = 40, 6, 10, 3
PLAIN_WIDTH = 150
BEGIN, END = "# >>> stream_calib.toml", "# <<< stream_calib.toml"
COLUMNS = ("symbol", "kinds", "ticks", "ticks/s", "same time", "again", "price", "spread bp",
           "bounce bp", "grid bp", "unchanged")  # fmt: skip


def show(found: "Findings", settings: str | None) -> None:
    """Print findings, and the settings between two lines that may be pasted too."""
    console = Screen()
    if not console.is_terminal:
        console = Screen(width=PLAIN_WIDTH)

    def say(text: str) -> None:
        # as it is: no colours, no markup, no wrapping
        console.print(_printable(text), highlight=False, markup=False, soft_wrap=True)

    topics = found.topics
    if len(topics) > TOPICS_SHOWN:
        topics = [found.total(f"{len(topics)} topics")]
    for topic in topics:
        say(_topic(topic))
    if found.symbols:
        console.print(_symbols(found.symbols[:SYMBOLS_SHOWN]))
        if (more := len(found.symbols) - SYMBOLS_SHOWN) > 0:
            say(f"and {more:,} more symbols")
    for sentence in _sentences(found):
        say(sentence)
    if settings is None:
        say("No settings are recommended: fewer than two symbols tick enough.")
        return
    say(f"\n{BEGIN}\n{settings}{END}")


def _printable(text: str) -> str:
    # names come from messages: no sequences that a terminal obeys
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def _topic(topic: "TopicFinding") -> str:
    from datetime import UTC, datetime

    partitions = f" in {topic.partitions} partitions" if topic.partitions > 1 else ""
    lines = [f"{topic.topic}: {topic.records:,} records{partitions}, {topic.ticks:,} ticks"]
    if topic.ticks:
        times = (
            f"{datetime.fromtimestamp(ns / 1e9, UTC):%Y-%m-%d %H:%M:%S}"
            for ns in (topic.first_ns, topic.last_ns)
        )
        lines[0] += f" from {' to '.join(times)} UTC"
    for label, n in topic.written.items():
        share = n / topic.ticks
        lines.append(f"  {label.format:<12} {label.kind:<8} times in {label.unit:<10} {share:7.1%}")
    for name, counts in (
        ("refused", topic.refused),
        ("without a price", topic.silent),
        ("under default times", topic.outcomes),
    ):
        if counts:
            lines.append(f"  {name}: {_counted(counts)}")
    return "\n".join(lines)


def _counted(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return ", ".join(f"{name} {n:,}" for name, n in ordered)


def _symbols(symbols: "Iterable[SymbolFinding]") -> Table:
    table = Table(*COLUMNS, box=None)
    for column in table.columns[2:]:
        column.justify = "right"
    for one in symbols:
        shown = [(one.trades, "T"), (one.mids, "Q")]
        known: list[tuple[Prices, str]] = [(own, name) for own, name in shown if own is not None]
        mark = len(known) > 1

        def each(values: Iterable[str], known: object = known, *, mark: bool = mark) -> str:
            names = [name for _, name in known]  # type: ignore[attr-defined]
            return " ".join(
                f"{name}{value}" if mark else value
                for name, value in zip(names, values, strict=True)
            )

        table.add_row(
            Text(_printable(one.symbol.replace("\n", "?"))),
            " ".join(f"{kind} {n:,}" for kind, n in sorted(one.kinds.items())),
            f"{one.n:,}",
            each(_number(own.rate_hz) for own, _ in known),
            f"{one.equal_stamps:.1%}",
            f"{one.repeated:.1%}",
            f"{_number(one.low, 6)} to {_number(one.high, 6)}",
            _number(one.spread_bp),
            each(_number(own.bounce_bp) for own, _ in known),
            _number(one.step_bp),
            each(f"{own.unchanged:.0%}" for own, _ in known),
        )
    return table


def _number(value: float, digits: int = 3) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}g}"


def _sentences(found: "Findings") -> Iterator[str]:
    from stream_calib.service.examination.clocks import seconds

    if any(one.trades and one.mids for one in found.symbols):
        yield "T: of trades, Q: of quotes."
    if found.envelopes:
        yield f"Envelopes: {_counted(found.envelopes)}."
    unknown = sorted(found.unknown.items(), key=lambda one: -one[1])
    for keys, n in unknown[:UNKNOWN_SHOWN]:
        yield f"No format knows {n:,} messages with: {', '.join(keys) or 'no JSON object'}."
    for skew in found.skews:
        where = f"{skew.format} {skew.venue}".strip()
        remark = f"; {skew.remark}" if skew.remark else ""
        yield (
            f"Event times of {where} less times of {skew.against}: {seconds(skew.median_s)} "
            f"(5 to 95 %: {seconds(skew.low_s)} to {seconds(skew.high_s)}){remark}."
        )
    for shift in found.shifts:
        yield (
            f"Clocks of {shift.symbol} and {shift.reference} are {abs(shift.hours)} h apart: put "
            f"{shift.hours:+d} h the former moves with the latter (correlation "
            f"{shift.correlation:.2f}), as it stands it does not ({shift.unshifted:.2f}). One of "
            "them is local time written as UTC."
        )
    for lead in found.leads:
        yield (
            f"{lead.leader} leads {lead.follower} by about {lead.lead_s:.0f} s "
            f"(correlation {lead.correlation:.2f})."
        )
    order = found.order
    if order.late:
        yield (
            f"Order: 99.9 % of ticks are at most {seconds(order.lateness_s)} behind their "
            f"partition's newest; {order.late:,} are late by default."
        )
    if found.sessions.remark:
        only = "; figures of symbols are of these hours" if found.sessions.name else ""
        yield f"Sessions: {found.sessions.remark}{only}."
    for one in found.symbols:
        for time_ns, ratio, name in one.splits[:LEFT_SHOWN]:
            yield f"{one.symbol}: looks like a split of {name} (x {ratio:.4g}) at {_utc(time_ns)}."
        if one.crossed > 0.01:
            yield f"{one.symbol}: {one.crossed:.1%} of quotes are crossed."
        if one.signed:
            yield f'{one.symbol}: prices of both signs; its returns have to be "diff".'
    yield from _recommended(found)


def _recommended(found: "Findings") -> Iterator[str]:
    advice = found.advice
    for symbol, why in advice.left_out[:LEFT_SHOWN]:
        yield f"Left out {symbol}: {why}."
    if (more := len(advice.left_out) - LEFT_SHOWN) > 0:
        yield f"Left out {more:,} more."
    if len(advice.symbols) > 1:
        if advice.trial:
            yield f"Too short a sample: {advice.proper}."
        yield f"Recommended, for {len(advice.symbols)} symbols:"
        for reason in advice.reasons:
            yield f"  {reason.key} = {reason.value}: {reason.why}"


def _utc(time_ns: int) -> str:
    from datetime import UTC, datetime

    return f"{datetime.fromtimestamp(time_ns / 1e9, UTC):%Y-%m-%d %H:%M:%S}Z"
