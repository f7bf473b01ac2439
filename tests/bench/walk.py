"""What a newcomer does, from a clone to a dashboard's numbers, and how long each step takes.

    .venv/bin/python -m tests.bench.walk [REPOSITORY]

Everything happens in a temporary folder; the packages come from wherever pip gets them. Needs
port 9464 and, for the last step, Prometheus.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from deploy.kafka.broker import free_port

PAGE = "http://127.0.0.1:9464"
WAIT_S = 600.0
DASHBOARD = "max by (universe, estimator) (stream_calib_average_correlation)"


def answer(url: str) -> str:
    """Return what is at an address; nothing while nobody answers."""
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as found:
        return str(found.read().decode())
    return ""


def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.2)


def walk(repository: str, folder: Path) -> None:
    """Take the steps of the README and print what each took."""
    clone = folder / "stream_calib"
    began_s = time.monotonic()

    def step(what: str) -> None:
        nonlocal began_s
        now_s = time.monotonic()
        print(f"| {what} | {now_s - began_s:.0f} s |", flush=True)
        began_s = now_s

    print("| step | took |\n|---|---|")
    subprocess.run(["git", "clone", "--quiet", repository, clone], check=True)
    step("`git clone`")
    subprocess.run(["make", "setup"], cwd=clone, check=True, capture_output=True)
    step("`make setup`, which `make demo` begins with: an environment and its packages")
    words = [f"{clone}/.venv/bin/stream-calib", "demo", "--stay"]
    demo = subprocess.Popen(words, cwd=clone, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: bool(answer(f"{PAGE}/")))
        step("the demo's page answers; the first time kernels are compiled before")
        until(lambda: bool(answer(f"{PAGE}/api/matrix/demo/ewma")))
        step("the first matrix is on it")
        until(lambda: "drift_alarm" in answer(f"{PAGE}/api/events/demo"))
        step("the break has been noticed")
        if shutil.which("prometheus"):
            watch(clone, folder)
            step("Prometheus with `deploy/prometheus/prometheus.yml` has what a dashboard asks for")
    finally:
        demo.send_signal(signal.SIGTERM)
        demo.wait()


def watch(clone: Path, folder: Path) -> None:
    """Start Prometheus as the README says, and ask it what a panel asks."""
    port = free_port()
    words = ["prometheus", f"--config.file={clone}/deploy/prometheus/prometheus.yml"]
    words += [f"--storage.tsdb.path={folder}/tsdb", f"--web.listen-address=127.0.0.1:{port}"]
    query = urllib.parse.urlencode({"query": DASHBOARD})
    url = f"http://127.0.0.1:{port}/api/v1/query?{query}"
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: bool(json.loads(answer(url) or "{}").get("data", {}).get("result")))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def main() -> None:
    """Walk through an empty folder."""
    repository = sys.argv[1] if len(sys.argv) > 1 else os.fspath(Path(__file__).parents[2])
    with tempfile.TemporaryDirectory() as name:
        walk(repository, Path(name))


if __name__ == "__main__":
    main()
