"""Matrices whose numbers are known, shown by a real server."""

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from stream_calib.adapters.http import Health, HttpServer, HttpThread, LiveView
from stream_calib.adapters.http.live import Key
from stream_calib.adapters.prometheus import PrometheusObserver
from stream_calib.config import HttpConfig
from stream_calib.values import F64, SECOND_NS, Effects, Event, Matrix, Quality, Regime

T0_NS = 1_700_000_000 * SECOND_NS


def blocks(n: int, n_blocks: int, inside: float = 0.8, between: float = 0.1) -> F64:
    """Return correlations (n, n) of blocks whose members are not next to each other."""
    group = np.arange(n) % n_blocks
    corr = np.where(group[:, None] == group, inside, between)
    np.fill_diagonal(corr, 1.0)
    return corr


def matrix_of(
    corr: F64,
    sequence: int = 1,
    estimator: str = "ewma",
    symbols: Sequence[str] | None = None,
    **more: Any,
) -> Matrix:
    """Return a matrix of these correlations, one second after the one before it."""
    n = len(corr)
    off = corr[np.triu_indices(n, 1)]
    matrix = Matrix(
        universe="fx",
        universe_id="0123456789abcdef",
        estimator=estimator,
        sequence=sequence,
        as_of_ns=T0_NS + sequence * SECOND_NS,
        data_from_ns=T0_NS - 3600 * SECOND_NS,
        horizon_ns=60 * SECOND_NS,
        bar_ns=SECOND_NS,
        symbols=tuple(symbols or (f"X:S{i:03d}" for i in range(n))),
        pending=(),
        corr=corr,
        vol=np.full(n, 1e-4),
        n_eff=np.full((n, n), 100.0),
        band=0.1 * (1.0 - corr**2),
        staleness_ns=np.full(n, SECOND_NS),
        quality=Quality(0.1, 0.0, 0),
        regime=Regime(float(off.mean()), 0.4),
        annualisation=5615.7,
        return_type="log",
        price_policy="last",
        config_fingerprint="fedcba9876543210",
        software_version="0.1.0",
        drift_level=0.2,
    )
    return replace(matrix, **more)


def effects_of(*matrices: Matrix, events: Sequence[Event] = ()) -> Effects:
    """Return effects of these."""
    return Effects(matrices=matrices, events=tuple(events))


@contextlib.asynccontextmanager
async def serving_aside() -> AsyncIterator[tuple[HttpThread, LiveView]]:
    """Serve a view in a thread of its own, as the service does."""
    observer = PrometheusObserver(version="1.2.3")
    view = LiveView(("fx",), observer)
    config = HttpConfig(port=0)
    ready = Health(ready=True)
    thread = HttpThread(
        lambda ask: HttpServer(
            config,
            observer.render,
            lambda: ready,
            "1.2.3",
            lambda _: None,
            view,
            ask,
            observer.refused,
        )
    )
    await thread.start()
    try:
        yield thread, view
    finally:
        await thread.close()


@contextlib.asynccontextmanager
async def serving(
    config: HttpConfig | None = None,
    universes: Sequence[str] = ("fx",),
    *,
    ready: bool = True,
    standing_by: Sequence[str] = (),
    clock: Callable[[], float] = time.monotonic,
    periods_s: Mapping[Key, float] = MappingProxyType({}),
) -> AsyncIterator[tuple[HttpServer, LiveView, PrometheusObserver]]:
    """Serve a view of these universes on a free port."""
    observer = PrometheusObserver(version="1.2.3")
    view = LiveView(universes, observer, periods_s, clock)
    server = HttpServer(
        config or HttpConfig(port=0),
        observer.render,
        lambda: Health(
            ready,
            () if ready else ("universe fx: no matrix yet",),
            standing_by=tuple(standing_by),
        ),
        "1.2.3",
        lambda _: None,
        view,
        refused=observer.refused,
    )
    await server.start()
    try:
        yield server, view, observer
    finally:
        await server.close()
