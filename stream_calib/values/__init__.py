"""Immutable values that pass between the floors.

Times are int64 nanoseconds since the epoch, event time unless a name says otherwise.
"""

from stream_calib.values.drift import Alarm, DriftStatus
from stream_calib.values.estimates import Correlation, ReturnBlock
from stream_calib.values.live import FeedCounts, LiveTick
from stream_calib.values.matrix import Matrix, Pair
from stream_calib.values.models import (
    Calibration,
    DccParams,
    Fit,
    FitFailure,
    FitRequest,
    GarchParams,
    PublishedFit,
)
from stream_calib.values.records import (
    Malformed,
    Output,
    RecordBatch,
    Reject,
    Source,
    TickBatch,
    ValueSchema,
    Watermark,
)
from stream_calib.values.steps import (
    Change,
    Description,
    Effects,
    Event,
    JournalEntry,
    Move,
    Progress,
    Range,
    Snapshot,
    Step,
)
from stream_calib.values.summaries import Quality, Regime, Score
from stream_calib.values.units import (
    F64,
    FACTOR,
    I8,
    I64,
    JSON_MAX_SYMBOLS,
    NO_TIME,
    OFFSET,
    REJECT_BYTES_MAX,
    RESET,
    SECOND_NS,
    TICK,
    YEAR_NS,
    eigenvalue_floor,
)

__all__ = [
    "F64",
    "FACTOR",
    "I8",
    "I64",
    "JSON_MAX_SYMBOLS",
    "NO_TIME",
    "OFFSET",
    "REJECT_BYTES_MAX",
    "RESET",
    "SECOND_NS",
    "TICK",
    "YEAR_NS",
    "Alarm",
    "Calibration",
    "Change",
    "Correlation",
    "DccParams",
    "Description",
    "DriftStatus",
    "Effects",
    "Event",
    "FeedCounts",
    "Fit",
    "FitFailure",
    "FitRequest",
    "GarchParams",
    "JournalEntry",
    "LiveTick",
    "Malformed",
    "Matrix",
    "Move",
    "Output",
    "Pair",
    "Progress",
    "PublishedFit",
    "Quality",
    "Range",
    "RecordBatch",
    "Regime",
    "Reject",
    "ReturnBlock",
    "Score",
    "Snapshot",
    "Source",
    "Step",
    "TickBatch",
    "ValueSchema",
    "Watermark",
    "eigenvalue_floor",
]
