"""What a fit in a process of its own costs the event loop: how late the loop wakes up.

The other side is the same loop in the same run beside another process, with which it exchanges
small messages, as with a broker; p99 is at most twice that. A loop in which nothing happens is
shown as well, but is not it: epoll counts in milliseconds, so whatever wakes the loop for
another reason makes a sleep up to 1 ms longer. The 16 MB go through at the full rate of the
pipe, which is what a refit does twice in seconds to minutes of computing.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import structlog

from stream_calib.adapters.workers.process import ProcessFitter
from stream_calib.values import Fit, FitRequest

N_FLOATS = 2_000_000  # 16 MB: 2000 returns of 1000 symbols
COMPUTE_S = 0.3
ROUNDS = 20
PROBE_S = 0.001
ECHO = "import os\nwhile (b := os.read(0, 4096)): os.write(1, b)"

Ways = dict[str, Callable[[], Awaitable[object]]]


def bench_stalls() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    late, seconds = asyncio.run(_measure())
    print("\nHow late the event loop wakes up, milliseconds")
    print(f"  {'':<28}{'p50':>8}{'p99':>8}{'max':>8}{'samples':>9}")
    p99 = {}
    for name, samples in late.items():
        p50, p99[name], most = 1e3 * np.quantile(samples, [0.5, 0.99, 1.0])
        print(f"  {name:<28}{p50:>8.2f}{p99[name]:>8.2f}{most:>8.2f}{len(samples):>9}")
    rate = 2 * 8 * N_FLOATS * ROUNDS / seconds["16 MB out and back"] / 1e6
    print(f"  {rate:.0f} MB/s there and back; p99 beside small messages:", end="")
    for name in ("a fit computes", "16 MB out and back"):
        print(f" {p99[name] / p99['small messages']:.2f} ({name})", end="")
    print()
    assert p99["a fit computes"] <= 2.0 * p99["small messages"]
    assert p99["16 MB out and back"] <= 2.0 * p99["small messages"]


async def _measure() -> tuple[dict[str, list[float]], dict[str, float]]:
    arrays = {"returns": np.random.default_rng(1).standard_normal(N_FLOATS)}
    large = FitRequest("dcc", 1, "first", 0, {}, arrays)
    long = FitRequest("dcc", 1, "first", 0, {"seconds": COMPUTE_S}, {})
    fitter = ProcessFitter(60.0, 4 * 10**9, function="tests.contract.fits:compute")
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ECHO, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    ways: Ways = {
        "nothing": lambda: asyncio.sleep(COMPUTE_S),
        "small messages": lambda: _exchange(other),
        "a fit computes": lambda: fitter.fit(long),
        "16 MB out and back": lambda: fitter.fit(large),
    }
    late: dict[str, list[float]] = {name: [] for name in ways}
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
        await other.communicate(b"")
    return late, seconds


async def _exchange(other: asyncio.subprocess.Process) -> None:
    assert other.stdin is not None
    assert other.stdout is not None
    end_s = time.perf_counter() + COMPUTE_S
    while time.perf_counter() < end_s:
        other.stdin.write(bytes(1000))
        await other.stdin.drain()
        await other.stdout.readexactly(1000)


async def _lateness(task: "asyncio.Future[Any]") -> list[float]:
    late = []
    while not task.done():
        started_s = time.perf_counter()
        await asyncio.sleep(PROBE_S)
        late.append(max(0.0, time.perf_counter() - started_s - PROBE_S))
    task.result()
    return late
