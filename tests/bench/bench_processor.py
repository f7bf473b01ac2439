"""What kernels for every processor cost beside those for this one: a portable image's price."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.real_parts import ROOT

SIZES = ((50, 4000), (100, 2000), (500, 200), (1000, 60))
RATIO_MAX = 1.8  # it was 1.42 at most; without wider registers more than that would be a mishap
ROUNDS = 7
FOR_ALL = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}

CODE = """
import json, sys, time
import numpy as np
import stream_calib as sc

def best(work, rounds):
    spent = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        spent.append(time.process_time() - started)
    return min(spent)

rounds, *sizes = json.loads(sys.argv[1])
rng = np.random.default_rng(1)
found = {}
for n, bars in sizes:
    returns = rng.standard_normal((bars, n)) * 1e-3
    two, one = sc.TwoScale(n, half_life_obs=200.0, k=12), sc.Ewma(n, half_life_obs=200.0)
    for name, estimator in (("two scales", two), ("EWMA", one)):
        us = best(lambda: estimator.update(returns), rounds) / bars * 1e6
        found[f"{name} {n}"] = us
print(json.dumps(found))
"""


def bench_kernels_for_every_processor_beside_those_for_this_one(tmp_path: Path) -> None:
    own = measure(tmp_path / "own", {})
    every = measure(tmp_path / "every", FOR_ALL)
    print("\nus a bar, for this processor and for every one")
    for name, us in own.items():
        print(f"{name:>16} {us:8.2f} {every[name]:8.2f} {every[name] / us:6.2f}")
    assert max(every[name] / us for name, us in own.items()) < RATIO_MAX


def measure(cache: Path, processor: dict[str, str]) -> dict[str, float]:
    """Return microseconds of processor time per bar, by estimator and size."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_CPU")}
    env |= {"NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT)} | processor
    command = [sys.executable, "-c", CODE, json.dumps([ROUNDS, *SIZES])]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found
