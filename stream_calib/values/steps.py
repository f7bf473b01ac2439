"""What the engine takes in and brings about, and what is written down of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from stream_calib.values.drift import DriftStatus
from stream_calib.values.matrix import Matrix
from stream_calib.values.models import Calibration, Fit, FitFailure
from stream_calib.values.records import Reject, Source, TickBatch, Watermark
from stream_calib.values.summaries import Score
from stream_calib.values.units import NO_TIME


@dataclass(frozen=True, slots=True)
class Step:
    """One input of the engine: everything that the outside world decides is in it.

    Taken in the order fits, failures, the wish for a full ``refit``, new sources, batches,
    watermarks.
    """

    batches: tuple[TickBatch, ...] = ()
    watermarks: tuple[Watermark, ...] = ()
    discovered: tuple[Source, ...] = ()
    installs: tuple[Fit, ...] = ()
    failures: tuple[FitFailure, ...] = ()
    refit: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """Something a subscriber should know: ``details`` are JSON values."""

    universe: str
    sequence: int
    type: str
    time_ns: int
    details: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Description:
    """What a universe is: the ordered symbols and the settings behind its numbers.

    ``time_ns`` is that of the first matrix under these settings; ``estimators`` says of each
    what kind of matrix it publishes, of which horizon, and how often; JSON values.
    """

    universe: str
    universe_id: str
    time_ns: int
    symbols: tuple[str, ...]
    config_fingerprint: str
    bar_ns: int
    price_policy: str
    return_type: str
    returns: Mapping[str, str]
    estimators: Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Effects:
    """What one step of the engine brought about, in order.

    ``counts`` is by (topic, outcome): ``applied``, ``late``, ``unknown_symbol``, ``unused``
    (not a price under the policy) and one per reject reason count each tick once. Beside
    them, under topic "": ``duplicate`` applied ticks repeat their predecessor, and
    ``rejects_suppressed`` rejects were over the cap and are not published. At the close of their
    bar applied ticks may be set aside: ``closed`` out of session, ``outlier`` refuted by the next
    one, ``spread`` too wide a quote (both rejected), ``confirmed_late`` confirmed after their
    bar, ``crossed_quote`` and ``no_price`` without a price.
    """

    matrices: tuple[Matrix, ...] = ()
    events: tuple[Event, ...] = ()
    rejects: tuple[Reject, ...] = ()
    counts: Mapping[tuple[str, str], int] = field(default_factory=dict)
    bars_closed: int = 0
    bars_waiting: bool = False
    calibrations: tuple[Calibration, ...] = ()
    drift: DriftStatus | None = None
    descriptions: tuple[Description, ...] = ()
    scores: tuple[Score, ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a universe stands: read positions, known ends, event time, and its model.

    ``fitted_ns`` is the end of the bars that the model in force was fitted to, NO_TIME before the
    first. ``replay_s`` is about how long it would take to repeat what no snapshot holds; NaN
    where none are kept. ``withheld`` counts what lies beyond an end, behind open transactions.
    """

    positions: Mapping[Source, int]
    ends: Mapping[Source, int]
    watermark_ns: int
    newest_ns: int
    symbols_ready: int
    symbols_pending: int
    model_version: int = 1
    fitted_ns: int = NO_TIME
    replay_s: float = math.nan
    withheld: Mapping[Source, int] = field(default_factory=dict)


class Range(NamedTuple):
    """What was read of one source: [position before, position after), count and digest."""

    source: Source
    position_before: int
    position_after: int
    n_records: int
    digest: int


class Move(NamedTuple):
    """The choices of consecutive steps, enough to repeat them from the input log.

    Steps whose order cannot be seen in what they bring about are one move. ``installs`` are
    the hashes of the fits.
    """

    installs: tuple[str, ...] = ()
    discovered: tuple[Source, ...] = ()
    ranges: tuple[Range, ...] = ()
    watermarks: tuple[Watermark, ...] = ()
    failures: tuple[FitFailure, ...] = ()
    refit: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What was decided about a universe between two commits; ``details`` are JSON values.

    ``genesis``: it begins, with these settings. ``owner``: a process took it over.
    ``migrate``: other symbols; ``reset``: other settings and a fresh state, both with the
    sequences going on. ``retire``: sources are not read any more. ``gap``: input that is gone was
    passed over. ``divergence``: the state
    is accepted though it does not reproduce what was published.
    """

    kind: Literal["genesis", "owner", "migrate", "reset", "retire", "gap", "divergence"]
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """What one commit did: its choices, then what they brought about.

    ``sequences`` is by estimator (and "events"): first and last number published.
    ``outputs_digest`` is of every record published with it; ``state_digest``, where not empty,
    of the state after it. Outputs up to entry ``emitted`` are known to be durable. ``chain``
    identifies this entry and all before it, ``previous`` those before it.
    """

    universe: str
    number: int
    changes: tuple[Change, ...] = ()
    moves: tuple[Move, ...] = ()
    sequences: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    n_outputs: int = 0
    outputs_digest: str = ""
    state_digest: str = ""
    emitted: int = -1
    config_fingerprint: str = ""
    previous: str = ""
    chain: str = ""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """State of one universe after a journal entry, which ``number`` and ``chain`` identify.

    ``settings`` are those it was made under (``Config.settings``), ``numerics`` the libraries
    and the processor.
    """

    universe: str
    number: int
    chain: str
    settings: Mapping[str, object]
    numerics: Mapping[str, str]
    software_version: str
    arrays: Mapping[str, npt.NDArray[np.generic]]
