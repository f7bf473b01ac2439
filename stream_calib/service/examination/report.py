"""Findings as a JSON document."""

import math
from dataclasses import asdict
from typing import Any

from stream_calib.config import format_duration
from stream_calib.service.examination.findings import Findings, TopicFinding
from stream_calib.service.examination.symbols import SymbolFinding


def as_document(findings: Findings) -> dict[str, Any]:
    """Return findings as JSON values; what nothing says is null, times are text in ns."""
    advice = findings.advice
    document: dict[str, Any] = _plain(
        {
            "topics": [_topic(topic) for topic in findings.topics],
            "envelopes": dict(findings.envelopes),
            "unknown": [{"keys": keys, "records": n} for keys, n in findings.unknown.items()],
            "symbols": {one.symbol: _symbol(one) for one in findings.symbols},
            "clock_skew": [skew._asdict() for skew in findings.skews],
            "shifted_clocks": [shift._asdict() for shift in findings.shifts],
            "leads": [lead._asdict() for lead in findings.leads],
            "order": findings.order._asdict(),
            "sessions": findings.sessions._asdict(),
            "recommended": {
                "symbols": list(advice.symbols),
                "left_out": dict(advice.left_out),
                "price": advice.policy,
                "bar": format_duration(advice.bar_ns),
                "window": format_duration(advice.window_ns),
                "k": -(-advice.window_ns // advice.bar_ns),
                "half_life": format_duration(advice.half_life_ns),
                "ready_n_eff": advice.ready_n_eff,
                "dcc_bar": format_duration(advice.dcc_bar_ns),
                "lateness": format_duration(advice.lateness_ns),
                "idle_slack": format_duration(advice.idle_slack_ns),
                "aliases": dict(advice.aliases),
                "exchanges": dict(advice.exchanges),
                "sample_too_short": advice.trial,
                "reasons": [reason._asdict() for reason in advice.reasons],
            },
        }
    )
    return document


def _topic(topic: TopicFinding) -> dict[str, Any]:
    written = [{**label._asdict(), "ticks": n} for label, n in topic.written.items()]
    times = {"first_ns": str(topic.first_ns), "last_ns": str(topic.last_ns)}
    return topic._asdict() | times | {"written": written}


def _symbol(one: SymbolFinding) -> dict[str, Any]:
    document = asdict(one) | {"first_ns": str(one.first_ns), "last_ns": str(one.last_ns)}
    document["splits"] = [
        {"time_ns": str(time_ns), "ratio": ratio, "looks_like": name}
        for time_ns, ratio, name in one.splits
    ]
    return document


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return {key: _plain(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(own) for own in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
