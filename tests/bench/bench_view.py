"""What twenty viewers of 500 symbols at five matrices a second cost the service's event loop.

The other side is the same loop in the same run, showing the same matrices to nobody. The view has
a thread of its own, as in the service: what is left are the moments in which it has the
interpreter, and the processor. Viewers are
in a process of their own and answer each frame at once. "own" is without the time in which
the thread was ready and the processor busy with others (schedstat of Linux), as in
``bench_workers.py``; the viewers share the two processors with the service.
"""

import asyncio
import multiprocessing
import multiprocessing.connection
import threading
import time
from pathlib import Path

import aiohttp
import numpy as np

from stream_calib.adapters.http import LiveView
from stream_calib.service.loop import calm_collector
from stream_calib.values import Matrix
from stream_calib.wire.live import encode_live
from tests.web.showing import effects_of, matrix_of, serving_aside

N, VIEWERS, PERIOD_S, SECONDS = 500, 20, 0.2, 12.0
PROBE_S = 0.001
SPAWN = multiprocessing.get_context("spawn")


def bench_viewers() -> None:
    with calm_collector():
        alone, watched, seen, shown, late_s = asyncio.run(_measure())
    size = len(encode_live(_matrix(1)).value)
    print(f"\n{VIEWERS} viewers, {N} symbols, {1 / PERIOD_S:g} matrices/s of {size:,} bytes")
    print(f"  {sum(seen):,} of {shown * VIEWERS:,} frames received", end="")
    print(f" ({sum(seen) * size / SECONDS / 1e6:.0f} MB/s), worst viewer {min(seen)} of {shown}")
    print(f"  from show() to received: p50 {np.median(late_s):.3f} s, max {max(late_s):.3f} s")
    print(f"  How late the loop wakes up, ms: {'own p50':>8}{'p99':>7}{'max':>7}{'raw p99':>9}")
    p99, raw_p99 = {}, {}
    for name, samples in (("nobody looks", alone), (f"{VIEWERS} look", watched)):
        own, raw = 1e3 * np.array(samples).T
        p99[name] = float(np.quantile(own, 0.99))
        print(f"    {name:<28}{np.median(own):>8.2f}{p99[name]:>7.2f}{own.max():>7.2f}", end="")
        raw_p99[name] = float(np.quantile(raw, 0.99))
        print(f"{raw_p99[name]:>9.2f}")
    own_ratio, raw_ratio = (x[f"{VIEWERS} look"] / x["nobody looks"] for x in (p99, raw_p99))
    print(f"  p99 to that of nobody: own {own_ratio:.2f} (at most 2), raw {raw_ratio:.2f}")
    assert min(seen) >= 0.8 * shown
    assert own_ratio <= 2.0


def _matrix(sequence: int) -> Matrix:
    # drawn once: what is measured is showing, not drawing
    corr = _CORR * 0.99 + 0.01 * np.eye(N) if sequence % 2 else _CORR
    return matrix_of(corr, sequence)


_CORR = np.asarray(np.corrcoef(np.random.default_rng(3).normal(size=(N, 2 * N))))


async def _measure() -> tuple[
    list[tuple[float, float]], list[tuple[float, float]], list[int], int, list[float]
]:
    async with serving_aside() as (server, view):
        alone, _ = await _show(view, 1)
        ours, theirs = SPAWN.Pipe()
        process = SPAWN.Process(target=_watch, args=(server.url, theirs))
        process.start()
        await asyncio.to_thread(ours.recv)  # all are connected
        watched, shown_s = await _show(view, 1000)
        ours.send(None)
        received: list[list[tuple[int, float]]] = await asyncio.to_thread(ours.recv)
        await asyncio.to_thread(process.join)
    seen = [sum(number >= 1000 for number, _ in one) for one in received]
    late_s = [at_s - shown_s[k] for one in received for k, at_s in one if k in shown_s]
    return alone, watched, seen, len(shown_s), late_s


async def _show(view: LiveView, first: int) -> tuple[list[tuple[float, float]], dict[int, float]]:
    late: list[tuple[float, float]] = []
    probe = asyncio.create_task(_probe(late))
    shown_s = {}
    begun_s = time.monotonic()
    for k in range(round(SECONDS / PERIOD_S)):
        matrix = await asyncio.to_thread(_matrix, first + k)
        shown_s[first + k] = time.monotonic()
        view.show("fx", effects_of(matrix))
        await asyncio.sleep(max(0.0, begun_s + (k + 1) * PERIOD_S - time.monotonic()))
    probe.cancel()
    return late, shown_s


async def _probe(late: list[tuple[float, float]]) -> None:
    # the loop's thread is the first one of the process
    schedstat = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
    while True:
        waited_ns = int(schedstat.read_text().split()[1])  # noqa: ASYNC240 (of memory)
        begun_s = time.perf_counter()
        await asyncio.sleep(PROBE_S)
        raw_s = time.perf_counter() - begun_s - PROBE_S
        queued_s = (int(schedstat.read_text().split()[1]) - waited_ns) / 1e9  # noqa: ASYNC240
        late.append((max(0.0, raw_s - queued_s), raw_s))


def _watch(url: str, pipe: "multiprocessing.connection.Connection") -> None:
    asyncio.run(_viewers(url, pipe))


async def _viewers(url: str, pipe: "multiprocessing.connection.Connection") -> None:
    received: list[list[tuple[int, float]]] = [[] for _ in range(VIEWERS)]

    async def look(own: list[tuple[int, float]], client: aiohttp.ClientSession) -> None:
        async with client.ws_connect(f"{url}/ws", max_msg_size=0) as socket:
            await socket.send_json({"watch": ["fx", "ewma"]})
            async for message in socket:
                at = message.data.find(b'"sequence":') + 11
                number = int(message.data[at : at + 10].split(b",")[0])
                own.append((number, time.monotonic()))
                await socket.send_json({"drawn": 1})

    async with aiohttp.ClientSession() as client:
        tasks = [asyncio.create_task(look(own, client)) for own in received]
        while not all(received):  # noqa: ASYNC110 (twenty of them)
            await asyncio.sleep(0.01)
        pipe.send("ready")
        await asyncio.to_thread(pipe.recv)
        await asyncio.sleep(1.0)  # what is still on its way
        pipe.send(received)
        for task in tasks:
            task.cancel()
