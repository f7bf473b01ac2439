"""The values behind the golden bytes: every field set, numbers that any machine rounds alike."""

import numpy as np

from stream_calib.values import (
    Event,
    JournalEntry,
    Matrix,
    Quality,
    Range,
    Regime,
    Reject,
    Source,
    Watermark,
)

AS_OF_NS = 1_700_000_000_123_456_789


def matrix(n: int) -> Matrix:
    """A positive definite matrix of n symbols."""
    apart = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    corr = 1.0 / (1.0 + apart)
    return Matrix(
        universe="fx",
        universe_id="0123456789abcdef",
        estimator="ewma",
        sequence=7,
        as_of_ns=AS_OF_NS,
        data_from_ns=AS_OF_NS - 3_600_000_000_000,
        horizon_ns=1_000_000_000,
        bar_ns=1_000_000_000,
        symbols=tuple(f"SIM:{i}" for i in range(n)),
        pending=("SIM:Ü",),
        corr=corr,
        vol=np.arange(1, n + 1, dtype=np.float64) / 30_000.0,
        n_eff=66.0 - apart / 3.0,
        band=(1.0 - corr * corr) / 8.0,
        staleness_ns=np.arange(n, dtype=np.int64) * 250_000_001,
        quality=Quality(
            min_eigenvalue=1e-4,
            repair=0.001,
            capped_pairs=2,
            cleaned=False,
            degraded=("repaired",),
        ),
        regime=Regime(average_correlation=4.0 / 9.0, top_eigenvalue_share=2.0 / 3.0),
        annualisation=5_615.692_299_037_5,
        return_type="log",
        price_policy="last",
        config_fingerprint="fedcba9876543210",
        software_version="0.1.0",
    )


EVENT = Event(
    universe="fx",
    sequence=3,
    type="gap",
    time_ns=AS_OF_NS,
    details={"from_ns": str(AS_OF_NS - 60_000_000_000), "bars": 60},
)

REJECT = Reject(
    universe="fx", source=Source("ticks", 2), offset=41, reason="json", value=b'{"symbol": \xff'
)

TOMBSTONE = Reject("fx", Source("ticks", 2), offset=42, reason="tombstone", value=None)

ENTRY = JournalEntry(
    number=12,
    ranges=(
        Range(Source("quotes", 0), 5, 9, 4, 0x0123_4567_89AB_CDEF),
        Range(Source("ticks", 2), 40, 43, 2, 0xFEDC_BA98_7654_3210),
    ),
    watermarks=(
        Watermark(Source("quotes", 0), 9, AS_OF_NS, "idle"),
        Watermark(Source("ticks", 2), 43, AS_OF_NS + 1, "flush"),
    ),
    discovered=(Source("quotes", 0), Source("ticks", 2)),
    sequences={"ewma": (7, 8)},
    config_fingerprint="fedcba9876543210",
)
