"""Immutable values that pass between the floors, and the array aliases.

Times are int64 nanoseconds since the epoch, event time unless a name says otherwise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

F64: TypeAlias = npt.NDArray[np.float64]
I64: TypeAlias = npt.NDArray[np.int64]
I8: TypeAlias = npt.NDArray[np.int8]

NO_TIME = -(2**63)  # a time that is not known; compares below every time
SECOND_NS = 1_000_000_000
YEAR_NS = 365 * 86_400 * SECOND_NS

JSON_MAX_SYMBOLS = 200  # larger matrices are packed as float32
REJECT_BYTES_MAX = 65_536  # what is kept of a record that was not used

# what a record is: a tick, or a control record that adjusts earlier prices
TICK, FACTOR, OFFSET, RESET = 0, 1, 2, 3


def eigenvalue_floor(n: int) -> float:
    """Least eigenvalue of a published matrix of n symbols, so that it survives its wire type.

    JSON carries every digit; rounding to float32 moves eigenvalues by up to 4 sqrt(n) 2^-24.
    """
    return 1e-8 if n <= JSON_MAX_SYMBOLS else 1e-4


class Source(NamedTuple):
    """One partition of an input topic; sources are ordered by (topic, partition)."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """Consecutive records of one source, as read.

    Positions are the reader's, before and after: offsets alone do not cover control
    markers and gaps. ``timestamps_ms`` are the log's own (-1 where it has none).
    """

    source: Source
    position_before: int
    position_after: int
    offsets: Sequence[int]
    timestamps_ms: Sequence[int]
    values: Sequence[bytes | None]


class Malformed(NamedTuple):
    """A record that no decoder could read: its row in the batch, and why."""

    row: int
    reason: str


@dataclass(frozen=True, slots=True)
class TickBatch:
    """The ticks of one RecordBatch, in record order, as columns of length m.

    A tick carries a trade ``price``, a ``bid``, an ``ask``, or several; what it does not carry
    is NaN. ``row`` points to the record it came from; ``asset`` is -1 for a symbol outside
    the universe; ``ident`` is a 64-bit form of the venue's trade id, 0 for none. ``kind`` is
    TICK, or FACTOR or OFFSET with that number for a price, or RESET; None: ticks alone.
    ``bid_size`` and ``ask_size`` are None where no record carries any.
    """

    records: RecordBatch
    formats: Mapping[str, int]
    row: I64
    time_ns: I64
    asset: I64
    price: F64
    bid: F64
    ask: F64
    ident: I64
    malformed: tuple[Malformed, ...] = ()
    kind: I8 | None = None
    bid_size: F64 | None = None
    ask_size: F64 | None = None


class Watermark(NamedTuple):
    """An outside decision: no tick before ``time_ns`` is awaited from ``source`` any more.

    ``idle``: the source is caught up and silent while others go on. ``flush``: every source
    has been silent so long that the open bar is closed.
    """

    source: Source
    position: int
    time_ns: int
    cause: Literal["idle", "flush"]


@dataclass(frozen=True, eq=False)
class GarchParams:
    """GARCH(1,1) of n assets: h' = omega + (alpha + gamma 1{e<0}) e^2 + beta h, e = r - mu.

    All (n,); ``gamma`` is 0 without leverage, ``nu`` NaN for normal errors. An asset without a
    fit has NaN throughout.
    """

    mu: F64
    omega: F64
    alpha: F64
    beta: F64
    gamma: F64
    nu: F64


@dataclass(frozen=True, eq=False)
class DccParams:
    """DCC(1,1) of n assets: news ``a``, memory ``b``, target (n, n) with a unit diagonal.

    ``model``: ``dcc`` (Engle 2002), ``cdcc`` (Aielli 2013), ``adcc`` (Cappiello, Engle and
    Sheppard 2006), which alone has ``g`` and ``asymmetry`` (n, n), the mean of n n' with
    n = min(z, 0).
    """

    a: float
    b: float
    target: F64
    model: Literal["dcc", "cdcc", "adcc"] = "cdcc"
    g: float = 0.0
    asymmetry: F64 | None = None


@dataclass(frozen=True, slots=True)
class Fit:
    """A calibrated model, to the last bit: named float64 arrays and what made them."""

    model: str
    arrays: Mapping[str, F64]


@dataclass(frozen=True, slots=True)
class Step:
    """One input of the engine: everything that the outside world decides is in it.

    Taken in the order fits, new sources, batches, watermarks.
    """

    batches: tuple[TickBatch, ...] = ()
    watermarks: tuple[Watermark, ...] = ()
    discovered: tuple[Source, ...] = ()
    installs: tuple[Fit, ...] = ()


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


@dataclass(frozen=True, slots=True)
class ReturnBlock:
    """Sampled returns of k bars.

    ``time_ns`` (k,) is the end of each bar; ``returns`` (k, n) is NaN where the symbol had no
    tick; ``exposure`` (k, n) is the number of bars that a return spans, 0 where NaN;
    ``elapsed_bars`` (k,) is the trading time since the row before, in bars, gaps capped; where
    markets differ it is (k, G, G), the joint trading time of each two groups of symbols.
    """

    time_ns: I64
    returns: F64
    exposure: F64
    elapsed_bars: F64

    def rows(self, start: int, stop: int) -> "ReturnBlock":
        """Cut the rows [start, stop) out."""
        return ReturnBlock(
            self.time_ns[start:stop],
            self.returns[start:stop],
            self.exposure[start:stop],
            self.elapsed_bars[start:stop],
        )


@dataclass(frozen=True, slots=True)
class Correlation:
    """What an estimator knows: correlations and how far they can be trusted.

    ``corr`` (n, n), ``vol`` (n,) per bar, ``n_eff`` (n, n) effective observations, ``kappa``
    excess kurtosis / 3, ``capped`` the number of pairs held inside (-1, 1). Pairs never
    observed are NaN with ``n_eff`` 0.
    """

    corr: F64
    vol: F64
    n_eff: F64
    kappa: float
    capped: int


@dataclass(frozen=True, slots=True)
class Quality:
    """How the published matrix came to be positive definite, and whether it is degraded.

    Of the variances of all symbols by two scales, ``raw_variances`` keep their noise, because
    too little would be left without it, and ``floored_variances`` are held at their floor; None
    with one scale.
    """

    min_eigenvalue: float
    repair: float
    capped_pairs: int
    cleaned: bool = False
    degraded: tuple[str, ...] = ()
    raw_variances: int | None = None
    floored_variances: int | None = None


@dataclass(frozen=True, slots=True)
class Regime:
    """One-number summaries of the matrix."""

    average_correlation: float
    top_eigenvalue_share: float


@dataclass(frozen=True, eq=False)
class Matrix:
    """One published correlation matrix over the n symbols that are ready.

    ``corr``, ``n_eff`` and ``band`` (n, n); ``vol`` and ``staleness_ns`` (n,). ``vol`` is the
    standard deviation of the return over ``horizon_ns``; times ``annualisation`` it is per
    year. ``band`` is the standard error of sampling; ``band_total`` adds the tracking error
    when it is known. ``audit`` says how another estimate of the same correlations compares.
    Fields that a later estimator fills are None.
    """

    universe: str
    universe_id: str
    estimator: str
    sequence: int
    as_of_ns: int
    data_from_ns: int
    horizon_ns: int
    bar_ns: int
    symbols: tuple[str, ...]
    pending: tuple[str, ...]
    corr: F64
    vol: F64
    n_eff: F64
    band: F64
    staleness_ns: I64
    quality: Quality
    regime: Regime
    annualisation: float
    return_type: str
    price_policy: str
    config_fingerprint: str
    software_version: str
    kind: str = "filtered"
    vol_unit: str = "per_horizon"
    band_total: F64 | None = None
    drift_level: float | None = None
    audit: Mapping[str, object] | None = None
    model_version: int = 1
    schema_version: int = 1


@dataclass(frozen=True, slots=True)
class Event:
    """Something a subscriber should know: ``details`` are JSON values."""

    universe: str
    sequence: int
    type: str
    time_ns: int
    details: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that was not used, with its original bytes.

    ``value`` is cut at REJECT_BYTES_MAX and None for a tombstone; ``length`` and ``sha256``
    (hex) are of the whole.
    """

    universe: str
    source: Source
    offset: int
    reason: str
    value: bytes | None
    length: int
    sha256: str


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


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a universe stands: read positions, known ends, and event time."""

    positions: Mapping[Source, int]
    ends: Mapping[Source, int]
    watermark_ns: int
    newest_ns: int
    symbols_ready: int
    symbols_pending: int


@dataclass(frozen=True, slots=True)
class Output:
    """A record to be written: where, and its exact bytes."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]
