"""What a fit in a process of its own costs the event loop: how late the loop wakes up.

The other side is the same loop in the same run with nothing to do. While a fit computes, p99 is
at most twice that; while 16 MB go out and come back, 1 ms is allowed besides: epoll counts in
milliseconds, so whatever wakes the loop for another reason makes a sleep up to 1 ms longer.

"own" is without the time in which the thread was ready and the processor busy with others
(schedstat of Linux): what this program does to its loop, which is what the limits are on. "raw"
is all of it; on two processors that other programs use as well, any computing process costs a
loop a few milliseconds, and the scheduler alone decides when.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from stream_calib.adapters.workers.process import ProcessFitter
from stream_calib.service.loop import calm_collector
from stream_calib.values import Fit, FitRequest

N_FLOATS = 2_000_000  # 16 MB: 2000 returns of 1000 symbols
COMPUTE_S = 0.3
ROUNDS = 20
PROBE_S = 0.001
EPOLL_MS = 1.0

Ways = dict[str, Callable[[], Awaitable[object]]]


def bench_stalls() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    with calm_collector():  # as the service does
        late, seconds = asyncio.run(_measure())
    print("\nHow late the event loop wakes up, milliseconds")
    print(f"  {'':<22}{'own p50':>9}{'p99':>7}{'max':>7}{'raw p99':>9}{'max':>7}{'samples':>9}")
    own, raw = {}, {}
    for name, samples in late.items():
        (p50, _), (own[name], raw[name]), most = 1e3 * np.quantile(
            np.array(samples), [0.5, 0.99, 1.0], axis=0
        )
        print(f"  {name:<22}{p50:>9.2f}{own[name]:>7.2f}{most[0]:>7.2f}", end="")
        print(f"{raw[name]:>9.2f}{most[1]:>7.2f}{len(samples):>9}")
    rate = 2 * 8 * N_FLOATS * ROUNDS / seconds["16 MB out and back"] / 1e6
    print(f"  {rate:.0f} MB/s there and back; p99 to that of nothing:")
    for name in ("a fit computes", "16 MB out and back"):
        print(f"    {name}: own {own[name] / own['nothing']:.2f}", end="")
        print(f", raw {raw[name] / raw['nothing']:.2f}")
    assert own["a fit computes"] <= 2.0 * own["nothing"]
    assert own["16 MB out and back"] <= 2.0 * own["nothing"] + EPOLL_MS


async def _measure() -> tuple[dict[str, list[tuple[float, float]]], dict[str, float]]:
    arrays = {"returns": np.random.default_rng(1).standard_normal(N_FLOATS)}
    large = FitRequest("dcc", 1, "first", 0, {}, arrays)
    long = FitRequest("dcc", 1, "first", 0, {"seconds": COMPUTE_S}, {})
    fitter = ProcessFitter(60.0, 4 * 10**9, function="tests.contract.fits:compute")
    ways: Ways = {
        "nothing": lambda: asyncio.sleep(COMPUTE_S),
        "a fit computes": lambda: fitter.fit(long),
        "16 MB out and back": lambda: fitter.fit(large),
    }
    late: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    seconds = dict.fromkeys(ways, 0.0)
    try:
        fit = await fitter.fit(large)  # the process is there, its modules are loaded
        assert isinstance(fit, Fit)
        assert fit.arrays["returns"].tobytes() == arrays["returns"].tobytes()
        for _ in range(ROUNDS):
            for name, way in ways.items():
                started_s = time.perf_counter()
                late[name] += await _lateness(asyncio.ensure_future(way()))
                seconds[name] += time.perf_counter() - started_s
    finally:
        await fitter.close()
    return late, seconds


async def _lateness(task: "asyncio.Future[Any]") -> list[tuple[float, float]]:
    late = []
    while not task.done():
        started_s, waited_s = time.perf_counter(), _waited_s()
        await asyncio.sleep(PROBE_S)
        raw = max(0.0, time.perf_counter() - started_s - PROBE_S)
        late.append((max(0.0, raw - (_waited_s() - waited_s)), raw))
    task.result()
    return late


def _waited_s() -> float:
    # how long this thread was ready to run and something else was running
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0
