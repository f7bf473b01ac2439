"""What stands in for the calibration in tests of fitters: each does one thing, good or bad."""

import contextlib
import os
import stat
import sys
import time
from pathlib import Path
from typing import Any, cast

import numpy as np

from stream_calib.values import Fit, FitFailure, FitRequest

print("a library greets at import")  # noqa: T201


def echo(request: FitRequest) -> Fit:
    return Fit(request.model, request.arrays)


def settings(request: FitRequest) -> FitFailure:
    """Say what arrived besides the arrays."""
    return FitFailure(
        request.model,
        request.number,
        "not_converged",
        f"{request.reason} {request.as_of_ns} {dict(request.settings)!r}",
    )


def change_the_request(request: FitRequest) -> Fit:
    for array in request.arrays.values():
        np.add(array, 1.0, out=array)
    return Fit(request.model, request.arrays)


def give_nan(request: FitRequest) -> Fit:
    return Fit(request.model, {"x": np.array([np.nan, np.inf, -0.0])})


def fail(request: FitRequest) -> Fit:
    message = "the matrix is singular\nand more that nobody wants to read"
    raise ArithmeticError(message)


def run_out_of_memory(request: FitRequest) -> Fit:
    raise MemoryError


def leave(request: FitRequest) -> Fit:
    sys.exit("enough")


def give_nothing(request: FitRequest) -> Fit:
    return cast("Fit", None)


def give_float32(request: FitRequest) -> Fit:
    return Fit(request.model, {"x": cast("Any", np.zeros(3, np.float32))})


def sleep(request: FitRequest) -> Fit:
    """Sleep for as long as the settings say, having left a file behind."""
    Path(cast("str", request.settings["started"])).write_text(str(os.getpid()))
    time.sleep(cast("float", request.settings["seconds"]))
    return echo(request)


def compute(request: FitRequest) -> Fit:
    """Compute for as long as the settings say, if they do."""
    end_s = time.monotonic() + cast("float", request.settings.get("seconds", 0.0))
    square = np.random.default_rng(1).standard_normal((400, 400))
    while time.monotonic() < end_s:
        np.linalg.eigvalsh(square @ square.T)
    return echo(request)


def sleep_or_echo(request: FitRequest) -> Fit:
    return sleep(request) if "seconds" in request.settings else echo(request)


def allocate(request: FitRequest) -> Fit:
    """Take memory in steps, without an end."""
    taken: list[np.ndarray] = []
    while len(taken) < 200:
        taken.append(np.ones(1_000_000))
        time.sleep(0.01)
    return Fit(request.model, {"x": taken[0]})


def die(request: FitRequest) -> Fit:
    """End at once, leaving one line for each death and a last word."""
    with Path(cast("str", request.settings["deaths"])).open("a") as file:
        file.write(f"{os.getpid()}\n")
    os.write(2, b"a stack of lines\n  indented\nfatal: the end is near\n")
    os._exit(3)


def die_once(request: FitRequest) -> Fit:
    deaths = Path(cast("str", request.settings["deaths"]))
    return echo(request) if deaths.exists() else die(request)


def be_killed(request: FitRequest) -> Fit:
    os.kill(os.getpid(), 9)
    return echo(request)


def say_much(request: FitRequest) -> Fit:
    """Write to every place a library may write to, more than a pipe holds."""
    print("x" * 200_000, flush=True)  # noqa: T201
    os.write(1, b"SCW1" * 50_000)
    sys.stderr.write("y" * 200_000)
    assert sys.stdin.read() == ""  # nothing of the next request
    return echo(request)


def write_garbage(request: FitRequest) -> Fit:
    """Write where answers go."""
    for file in range(3, 20):
        with contextlib.suppress(OSError):
            if stat.S_ISFIFO(os.fstat(file).st_mode):
                os.write(file, b"no frame at all, but long enough for one to begin")
    return echo(request)


def count_threads(request: FitRequest) -> Fit:
    """Return the threads of each BLAS, the niceness and this process."""
    from threadpoolctl import threadpool_info

    np.linalg.eigvalsh(np.eye(3))
    threads = [float(pool["num_threads"]) for pool in threadpool_info()]
    return Fit(
        request.model,
        {
            "threads": np.array(threads),
            "nice": np.array([float(os.nice(0))]),
            "pid": np.array([float(os.getpid())]),
        },
    )
