"""The reference of all metrics.

    python deploy/prometheus/reference.py

writes ``deploy/metrics.md`` from what the exporters list and from the rules that read it; a test
holds the file equal to what this makes.
"""

import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from stream_calib.adapters.prometheus import FEED_METRICS, LABEL_VALUES, METRICS, PREFIX, Metric

FOLDER = Path(__file__).parent
PATH = FOLDER.parent / "metrics.md"
RULES = sorted((FOLDER / "rules").glob("*.yml"))
KINDS = {"standing": "gauge"}
PARTS = re.compile(r"_(?:bucket|count|sum)$")
UNITS = ("seconds", "bytes", "bars", "nats", "ratio", "records", "entries", "ticks", "pairs")
COUNTED = {  # by the last word of a name that does not say what is counted
    "decoded": "records",
    "aside": "ticks",
    "suppressed": "rejects",
    "refuted": "alarms",
    "garbled": "messages",
    "late": "trades",
    "missed": "trades",
}

HEAD = f"""# Metrics

Written by `python deploy/prometheus/reference.py`; do not edit. All names begin with `{PREFIX}`.
Beside these the service exports those of every Python program (`process_*`, `python_*`).
Alerts and recording rules are in `deploy/prometheus/rules`.
A label with more than a thousand values shows the rest as `other`.
"""


@functools.cache
def rules() -> list[dict[str, Any]]:
    """Return all rules of the rule files, in order."""
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def readers(name: str) -> list[str]:
    """Return the alerts and recording rules whose expression reads a metric."""
    wanted = PREFIX + name
    found = []
    for rule in rules():
        # a name with colons is that of a recording rule
        read = re.findall(r"[\w:]+", rule["expr"])
        if any(word == wanted or PARTS.sub("", word) == wanted for word in read):
            found.append(rule.get("alert") or rule["record"])
    return list(dict.fromkeys(found))


def unit(row: Metric) -> str:
    """Return the unit of a metric, as its name has it; "" for a plain number."""
    words = row.name.removesuffix("_total").split("_")
    if words[-1] in UNITS:
        return words[-1]
    counted = COUNTED.get(words[-1], words[-1])
    return counted if row.name.endswith("_total") else ""


def values(row: Metric, label: str) -> str:
    """Say which values a label of a metric takes."""
    told = LABEL_VALUES.get(f"{row.name}.{label}", LABEL_VALUES.get(label))
    assert told is not None, f"nothing is said of {label} of {row.name}"
    if isinstance(told, str):
        return f"`{label}`: {told}"
    return f"`{label}`: " + ", ".join(f"`{value}`" for value in told)


def table(rows: Sequence[Metric]) -> Iterator[str]:
    """Yield the lines of a table, one metric each."""
    yield "| name | type | unit | labels | meaning | read by |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        cells = (
            f"`{row.name}`",
            KINDS.get(row.kind, row.kind),
            unit(row),
            "<br>".join(values(row, label) for label in row.labels),
            row.help,
            "<br>".join(f"`{name}`" for name in readers(row.name)),
        )
        yield f"| {' | '.join(cells)} |"


def render() -> str:
    """Return the whole page."""
    lines = [HEAD, "## The service", "", *table(METRICS)]
    lines += ["", "## `stream-calib feed --exchange`", "", *table(FEED_METRICS)]
    lines += ["", "## Recording rules", "", "| name | is |", "|---|---|"]
    for rule in rules():
        if "record" in rule:
            expr = " ".join(rule["expr"].split()).replace("|", "\\|")
            lines.append(f"| `{rule['record']}` | `{expr}` |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PATH.write_text(render())
