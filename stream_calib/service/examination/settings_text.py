"""The recommended settings as a TOML file, ready to paste."""

import re
from collections.abc import Sequence

from stream_calib.config import format_duration
from stream_calib.service.examination.advice import Advice

TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
LINE = 92


def settings_text(
    advice: Advice,
    bootstrap: str | Sequence[str] | None = None,
    name: str = "main",
    *,
    secured: bool = False,
) -> str:
    """Return a complete configuration of one universe.

    Parameters
    ----------
    advice
        With two symbols at least; of its topics names that no topic can have are left out.
    bootstrap
        Address of the broker, None: the default.
    name
        Of the universe.
    secured
        Whether the broker wants more than its address; what that is is not told here.
    """
    why = {reason.key: reason.why for reason in advice.reasons}
    real = [topic for topic in advice.topics if TOPIC.fullmatch(topic)] or ["ticks"]
    lines = []
    if bootstrap is not None:
        own = _text(bootstrap) if isinstance(bootstrap, str) else _list(bootstrap)
        lines += ["[kafka]", f"bootstrap_servers = {own}"]
        lines += ["# and what else your [kafka] has: protocol, certificates"] if secured else []
        lines.append("")
    lines += ["[input]", f"topics = {_list(real)}"]
    for key, names in (("exchanges", advice.exchanges), ("aliases", advice.aliases)):
        if names:
            pairs = ", ".join(f"{_text(old)} = {_text(new)}" for old, new in names.items())
            lines.append(f"{key} = {{ {pairs} }}")
    lines += ["", "[time]"]
    times = (
        ("lateness", advice.lateness_ns),
        ("idle_slack", advice.idle_slack_ns),
        ("max_ahead", advice.max_ahead_ns),
    )
    for key, value in times:
        if key != "max_ahead" or f"time.{key}" in why:
            lines += _setting(key, format_duration(value), why.get(f"time.{key}", ""))
    sessions = advice.sessions
    if sessions.name:
        lines += ["", f"[calendar.{sessions.name}]  # {sessions.remark}"]
        lines += [f"zone = {_text(sessions.zone)}", f"sessions = {_list([sessions.hours])}"]
        if sessions.days:
            lines.append(f"days = {_list(sessions.days)}")
        lines.append("holidays = []  # yours to fill in")
    lines += ["", "[[universe]]", f"name = {_text(name)}", f"symbols = {_list(advice.symbols)}"]
    if advice.trial:
        lines += _remark(f"too short a sample: {advice.proper}")
    lines += _setting("bar", format_duration(advice.bar_ns), why.get("bar", ""))
    lines += _setting("price", advice.policy, why.get("price", ""))
    if advice.ready_n_eff != 20.0:  # the default
        lines.append(f"ready_n_eff = {advice.ready_n_eff:g}")
    if advice.stale_after_ns is not None:
        what = "longer without a tick, and a last price is no basis for a return"
        lines += _setting("stale_after", format_duration(advice.stale_after_ns), what)
    if sessions.name:
        lines.append(f"calendar = {_text(sessions.name)}")
    if advice.diffs:
        pairs = ", ".join(f'{_text(symbol)} = "diff"' for symbol in advice.diffs)
        lines.append(f"returns = {{ {pairs} }}  # of both signs")
    lines += ["", "[universe.ewma]"]
    lines += _setting("half_life", format_duration(advice.half_life_ns), why["ewma.half_life"])
    lines += _setting("window", format_duration(advice.window_ns), why["ewma.window"])
    lines += ["", "[universe.dcc]"]
    lines += _setting("bar", format_duration(advice.dcc_bar_ns), why["dcc.bar"])
    return "\n".join(lines) + "\n"


def _setting(key: str, value: str, why: str) -> list[str]:
    line, why = f"{key} = {_text(value)}", _comment(why)
    if not why:
        return [line]
    whole = f"{line}  # {why}"
    return [whole] if len(whole) <= LINE else [*_remark(why), line]


def _comment(text: str) -> str:
    # names of symbols are in it, and whoever sent them shall write no settings
    return "".join(c if c.isprintable() else "?" for c in text)


def _remark(text: str) -> list[str]:
    lines, line = [], "#"
    for word in _comment(text).split():
        if len(line) + 1 + len(word) > LINE:
            lines.append(line)
            line = "#"
        line += f" {word}"
    return [*lines, line]


def _list(values: Sequence[str]) -> str:
    inline = ", ".join(map(_text, values))
    if len(inline) <= LINE:
        return f"[{inline}]"
    return "[\n" + "".join(f"    {_text(value)},\n" for value in values) + "]"


def _text(value: str) -> str:
    """Write a basic string of TOML, with what cannot be seen as escapes."""
    return f'"{"".join(map(_character, value))}"'


def _character(c: str) -> str:
    if c in {'"', "\\"}:
        return f"\\{c}"
    return c if c.isprintable() else f"\\U{ord(c):08x}"
