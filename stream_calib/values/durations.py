"""Durations: text with a unit, "500ms", "5s", "2h", kept as nanoseconds."""

import re

UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "min": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
LONGEST_NS = 36_525 * UNITS_NS["d"]  # a hundred years: times stay inside 64 bits
_DURATION = re.compile(r"\s*(\d{1,20}(?:\.\d{1,20})?)\s*([a-z]+)\s*")


def parse_duration(text: object) -> int:
    """Turn "500ms", "5s", "1.5h", "1d" into nanoseconds; an int is nanoseconds already."""
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if found is None or found[2] not in UNITS_NS:
        message = f"{text!r} is not a duration; write a number with a unit, such as '500ms' or '2h'"
        raise ValueError(message)
    return round(float(found[1]) * UNITS_NS[found[2]])


def format_duration(time_ns: int) -> str:
    """Turn nanoseconds into the shortest text that ``parse_duration`` takes back exactly."""
    for unit in ("d", "h", "m", "s", "ms", "us"):
        if time_ns and time_ns % UNITS_NS[unit] == 0:
            return f"{time_ns // UNITS_NS[unit]}{unit}"
    return f"{time_ns}ns"
