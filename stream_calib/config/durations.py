"""Durations as settings: text with a unit, kept as nanoseconds."""

from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer

from stream_calib.values.durations import LONGEST_NS, UNITS_NS, format_duration, parse_duration

__all__ = [
    "LONGEST_NS",
    "UNITS_NS",
    "DurationNs",
    "Ns",
    "PositiveNs",
    "format_duration",
    "parse_duration",
]

Ns = Annotated[
    int, BeforeValidator(parse_duration), PlainSerializer(format_duration), Field(le=LONGEST_NS)
]
DurationNs = Annotated[Ns, Field(ge=0)]
PositiveNs = Annotated[Ns, Field(gt=0)]
