"""The values behind the golden bytes: every field set, numbers that any machine rounds alike."""

import hashlib

import numpy as np

from stream_calib.values import (
    REJECT_BYTES_MAX,
    Calibration,
    Change,
    Description,
    Event,
    JournalEntry,
    Matrix,
    Move,
    Quality,
    Range,
    Regime,
    Reject,
    Snapshot,
    Source,
    Watermark,
)
from stream_calib.wire.journal import link

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


def reject(offset: int, reason: str, original: bytes | None) -> Reject:
    """A reject as the engine makes it of an original value."""
    whole = original or b""
    return Reject(
        universe="fx",
        source=Source("ticks", 2),
        offset=offset,
        reason=reason,
        value=None if original is None else whole[:REJECT_BYTES_MAX],
        length=len(whole),
        sha256=hashlib.sha256(whole).hexdigest(),
    )


REJECT = reject(41, "json", b'{"symbol": \xff')

TOMBSTONE = reject(42, "tombstone", None)

ENTRY = link(
    JournalEntry(
        universe="fx",
        number=12,
        changes=(
            Change("owner", {"instance": "0123", "software_version": "0.2.0"}),
            Change("migrate", {"settings": {"universe": {"symbols": ["SIM:0", "SIM:Ü"]}}}),
        ),
        moves=(
            Move(
                installs=("00112233445566778899aabbccddeeff",),
                discovered=(Source("quotes", 0), Source("ticks", 2)),
                ranges=(
                    Range(Source("quotes", 0), 5, 9, 4, 0x0123_4567_89AB_CDEF),
                    Range(Source("ticks", 2), 40, 43, 2, 0xFEDC_BA98_7654_3210),
                ),
                watermarks=(
                    Watermark(Source("quotes", 0), 9, AS_OF_NS, "idle"),
                    Watermark(Source("ticks", 2), 43, AS_OF_NS + 1, "flush"),
                ),
            ),
            Move(ranges=(Range(Source("ticks", 2), 43, 44, 1, 0),)),
        ),
        sequences={"ewma": (7, 8), "events": (3, 3)},
        n_outputs=3,
        outputs_digest="ffeeddccbbaa99887766554433221100",
        state_digest="0f1e2d3c4b5a69788796a5b4c3d2e1f0",
        emitted=11,
        config_fingerprint="fedcba9876543210",
        previous="000102030405060708090a0b0c0d0e0f",
    )
)
CALIBRATION = Calibration(
    universe="golden",
    model_version=3,
    time_ns=AS_OF_NS,
    model="dcc",
    details={
        "reason": "schedule",
        "window": {"from_ns": "1700000000000000000", "to_ns": str(AS_OF_NS), "bars": 1000},
        "correlation": {
            "model": "cdcc",
            "a": {"value": 0.05, "se": 0.004},
            "b": {"value": 0.93, "se": None},
            "loglik": -1234.5,
            "composite_loglik": -2345.25,
            "target_average": 0.3,
        },
        "garch": {"A": {"omega": {"value": 1e-6, "se": 2e-7}}},
        "left_out": ["C"],
        "diagnostics": {"signs.rejected": 0.05},
    },
)

DESCRIPTION = Description(
    universe="fx",
    universe_id="0123456789abcdef",
    time_ns=AS_OF_NS,
    symbols=("SIM:0", "SIM:Ü"),
    config_fingerprint="fedcba9876543210",
    bar_ns=1_000_000_000,
    price_policy="mid",
    return_type="log",
    returns={"SIM:Ü": "diff"},
    estimators={
        "ewma": {"kind": "filtered", "horizon_ns": "1000000000", "every_ns": "2000000000"},
        "dcc": {"kind": "forecast", "horizon_ns": "60000000000", "every_ns": "60000000000"},
    },
)

SNAPSHOT = Snapshot(
    universe="fx",
    number=12,
    chain=ENTRY.chain,
    settings={"universe": {"symbols": ["SIM:0", "SIM:Ü"], "bar": "1s", "ready_n_eff": 5.0}},
    numerics={"numpy": "2.1.0"},
    software_version="0.1.0",
    arrays={
        "a.flags": np.array([True, False]),
        "a.number": np.array(7, np.int64),
        "b.text": np.frombuffer(b'{"due":1}', np.uint8),
        "b.empty": np.empty((0, 32), np.uint8),
        "c.square": np.array([[1.0, np.nan], [-0.0, 5e-324]]),
    },
)
