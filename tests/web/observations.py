"""What a service would tell its observer, small and made by hand."""

import numpy as np

from stream_calib.ports import Observer
from stream_calib.values import (
    SECOND_NS,
    Calibration,
    DriftStatus,
    Effects,
    Event,
    Malformed,
    Matrix,
    Output,
    Progress,
    Quality,
    RecordBatch,
    Regime,
    Score,
    Source,
    TickBatch,
)

AS_OF_NS = 1_700_000_000 * SECOND_NS
PAIRS = {"fx": [("A", "B"), ("A", "D")]}  # what an observer should be made with; D is pending


def tick_batch(topic: str = "ticks", formats: dict[str, int] | None = None) -> TickBatch:
    """Return two ticks of 4 bytes, one record without a value and one that cannot be read."""
    values = (b"1234", b"5678", None, b"?")
    records = RecordBatch(Source(topic, 0), 10, 14, range(10, 14), (-1,) * 4, values)
    return TickBatch(
        records=records,
        formats={"native": 2} if formats is None else formats,
        row=np.array([0, 1]),
        time_ns=np.array([AS_OF_NS, AS_OF_NS + 1]),
        asset=np.array([0, 1], np.int64),
        price=np.array([1.0, 2.0]),
        bid=np.full(2, np.nan),
        ask=np.full(2, np.nan),
        ident=np.zeros(2, np.int64),
        malformed=(Malformed(3, "not_json"),),
    )


def matrix(universe: str = "fx", sequence: int = 7, estimator: str = "ewma") -> Matrix:
    """Return the matrix of three symbols; its off-diagonal n_eff are 40, 50 and 60."""
    corr = np.array([[1.0, 0.5, 0.2], [0.5, 1.0, 0.3], [0.2, 0.3, 1.0]])
    n_eff = np.array([[99.0, 40.0, 50.0], [40.0, 99.0, 60.0], [50.0, 60.0, 99.0]])
    return Matrix(
        universe=universe,
        universe_id="0123456789abcdef",
        estimator=estimator,
        sequence=sequence,
        as_of_ns=AS_OF_NS,
        data_from_ns=AS_OF_NS - 3600 * SECOND_NS,
        horizon_ns=SECOND_NS,
        bar_ns=SECOND_NS,
        symbols=("A", "B", "C"),
        pending=("D",),
        corr=corr,
        vol=np.full(3, 1e-4),
        n_eff=n_eff,
        band=np.full((3, 3), 0.1),
        staleness_ns=np.zeros(3, np.int64),
        quality=Quality(
            min_eigenvalue=0.48,
            repair=0.03,
            capped_pairs=2,
            raw_variances=1,
            floored_variances=2,
        ),
        audit={"estimator": "hayashi_yoshida", "rms_difference": 0.07},
        regime=Regime(
            average_correlation=1 / 3,
            top_eigenvalue_share=0.56,
            effective_bets=2.6,
            crisis_distance=0.68,
        ),
        annualisation=5615.7,
        return_type="log",
        price_policy="last",
        config_fingerprint="fedcba9876543210",
        software_version="0.1.0",
    )


def effects(universe: str = "fx", sequence: int = 7) -> Effects:
    """Return a step that closed two bars and has every outcome in it; the first has an alarm."""
    shift = ("drift_alarm", "drift_refuted") if sequence == 7 else ()
    return Effects(
        matrices=(matrix(universe, sequence - 1), matrix(universe, sequence)),
        events=(
            Event(universe, 3, "symbol_ready", AS_OF_NS, {"symbol": "A"}),
            *(Event(universe, 4, type_, AS_OF_NS, {"alternative": "fusing"}) for type_ in shift),
        ),
        counts={
            ("ticks", "applied"): 100,
            ("ticks", "late"): 4,
            ("ticks", "unknown_symbol"): 3,
            ("ticks", "unused"): 2,
            ("ticks", "crossed"): 5,
            ("ticks", "not_json"): 1,
            ("", "duplicate"): 6,
            ("", "rejects_suppressed"): 8,
            ("", "closed"): 9,
            ("", "outlier"): 10,
        },
        bars_closed=2,
        calibrations=(Calibration(universe, 2, AS_OF_NS, "dcc", {}),),
        drift=DriftStatus(0.3, 5000.0, 0.25, 40.0, 800, 9000, {"fusing": 2}, 1),
        scores=(Score("ewma", 0.4, -9.5, 1.1, 90, 100),),
    )


def output(topic: str = "calib.correlations") -> Output:
    """Return a record with a key of 7 and a value of 100 bytes."""
    return Output(topic, 0, b"fx|ewma", b"x" * 100, (("ce_id", b"fx|ewma|7"),))


def progress(newest_ns: int = AS_OF_NS) -> Progress:
    """Return where a universe stands that has not heard of the end of one of its partitions."""
    first, second, third = (Source("ticks", partition) for partition in range(3))
    return Progress(
        positions={first: 14, second: 90, third: 5},
        ends={first: 20, second: 80},  # an end that was asked for before the position moved on
        watermark_ns=newest_ns - 3 * SECOND_NS,
        newest_ns=newest_ns,
        symbols_ready=3,
        symbols_pending=1,
        model_version=2,
        fitted_ns=newest_ns - 600 * SECOND_NS,
        replay_s=1.5,
    )


def tell(observer: Observer, universe: str = "fx", sequence: int = 7) -> None:
    """Tell the observer of one whole turn of the service's loop."""
    observer.owned(universe, "owner")
    observer.decoded(universe, tick_batch(), 0.0002)
    observer.advanced(universe, effects(universe, sequence), 0.003)
    observer.published(universe, (output(), output("calib.events")), 0.02, 0.04)
    observer.progressed(universe, progress(AS_OF_NS + sequence * SECOND_NS))
    observer.recovered(universe, 12, 0.3)
    observer.committed(universe, 0.004, "committed")
    observer.snapshotted(universe, 40_000, 0.02, "saved")
    observer.restarted(universe, "TransportError")
    observer.refitted(universe, 0.8, "fitted")
    observer.stalled(0.001)
    observer.viewers(2)
    observer.viewed(5_000, 1)
    observer.refused("token")
