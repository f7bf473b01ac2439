"""Runs inputs through targets, and says with what seed and which input one was found wanting.

python -m tests.fuzz.campaign [TARGET ...] [--inputs N] [--seed N] [--only NUMBER]
"""

import argparse
import resource
import secrets
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple

from tests.fuzz import files, messages, ticks
from tests.fuzz.mutation import Spoiler
from tests.fuzz.target import Target

TARGETS: Mapping[str, Callable[[], Target]] = {**ticks.TARGETS, **messages.TARGETS, **files.TARGETS}

# A call reads up to a few hundred kB. On the slowest machine that the tests run on it takes less
# than a tenth of a second; what blows up takes minutes.
CALL_S_MAX = 5.0
GROWTH_MB_MAX = 600


class Report(NamedTuple):
    """How many inputs there were, what the slowest call took, how much memory was added."""

    name: str
    inputs: int
    seconds: float
    slowest_s: float
    slowest_bytes: int
    growth_mb: float

    def __str__(self) -> str:
        return (
            f"{self.name:12} {self.inputs:>9,} inputs in {self.seconds:6.1f} s, slowest call "
            f"{self.slowest_s * 1e3:7.2f} ms ({self.slowest_bytes:,} bytes), memory "
            f"+{self.growth_mb:.0f} MB"
        )


def run(name: str, seed: int, inputs: int, only: int | None = None) -> Report:
    """Run inputs of one target.

    Raises
    ------
    AssertionError
        One made it raise what is not documented, or took too long; the message says which.
    """
    target = TARGETS[name]()
    for value in target.corpus:
        target.read(value)
    spoiler = Spoiler(target.corpus, seed)
    before_mb, begin = _peak_mb(), time.perf_counter()
    slowest, slowest_bytes = 0.0, 0
    numbers = range(-(-inputs // target.per_input)) if only is None else range(only, only + 1)
    for number in numbers:
        value = target.make(spoiler, number)
        start = time.thread_time()
        try:
            target.read(value)
        except BaseException as error:
            error.add_note(_where(name, seed, number, value))
            raise
        taken = time.thread_time() - start
        if taken > slowest:
            slowest, slowest_bytes = taken, len(value)
        assert taken < CALL_S_MAX, f"{taken:.1f} s; " + _where(name, seed, number, value)
    growth_mb = _peak_mb() - before_mb
    assert growth_mb < GROWTH_MB_MAX, f"{name} with seed {seed} took {growth_mb:.0f} MB"
    seconds = time.perf_counter() - begin
    done = len(numbers) * target.per_input
    return Report(name, done, seconds, slowest, slowest_bytes, growth_mb)


def _where(name: str, seed: int, number: int, value: bytes) -> str:
    shown = value if len(value) < 4000 else value[:4000] + b"..."
    again = f"python -m tests.fuzz.campaign {name} --seed {seed} --only {number}"
    return f"{again}\ninput of {len(value)} bytes: {shown!r}"


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    """Run what the command line names; return the exit code."""
    parser = argparse.ArgumentParser(description="Inputs that nobody sends in good faith.")
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], default=[])
    parser.add_argument("--inputs", type=int, default=100_000, help="of each target")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", type=int, default=None, help="one input, by its number")
    words = parser.parse_args()
    seed = secrets.randbits(24) if words.seed is None else words.seed
    print(f"seed {seed}", flush=True)
    warnings.simplefilter("error")
    for name in words.targets or TARGETS:
        print(run(name, seed, words.inputs, words.only), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
