"""Let the service run near the highest rate that holds, and draw what it needs: soak.svg, soak.md.

    .venv/bin/python -m replay_data.draw_soak [--seconds 3600] [--symbols 50] [--rate N]

A real Kafka, the service and a fast writer run beside each other. The rate is doubled while the
service keeps up, then halved in steps; a fifth less than the highest that held is what it gets
for the whole time.
"""

import argparse
import contextlib
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from deploy.kafka.broker import BRIEF, LocalBroker, free_port
from replay_data.drawing import GREY, INK, rule, text

FOLDER = Path(__file__).parent
COMMAND = Path(sys.executable).with_name("stream-calib")
SAMPLE_S = 10.0
TRIAL_S = 20.0
FIRST_RATE = 40_000
RATE_MOST = 640_000
STEPS = 2  # of halving between a rate that holds and one that does not
KEEPS_UP = 0.9  # of the rate asked for, or it is the writer that cannot
BEHIND_S = 2.0  # of records, more than which is not keeping up
SHARE = 0.8  # of the highest rate, to be soaked
SETTLED = 1 / 6  # of the time, after which nothing may grow
GROWTH = 1.1  # of the last tenth over the first, more than which is growing
# An hour of ticks is more than a disk need have room for, and nobody reads them again.
RETENTION = {
    "log.retention.bytes": f"{2 << 30}",
    "log.segment.bytes": f"{256 << 20}",
    "log.retention.check.interval.ms": "10000",
}
WIDTH, HEIGHT, LEFT, PANEL, GAP = 960, 640, 90, 120, 30
BLUE = "#1f5fa8"
SETTINGS = """
app = "soak"
[kafka]
bootstrap_servers = "{bootstrap}"
[input]
topics = ["soak-ticks"]
[output]
prefix = "soak"
[http]
port = {port}
[[universe]]
name = "soak"
symbols = [{symbols}]
bar = "1s"
ewma.half_life = "300s"
ewma.window = "5s"
"""


class Sample(NamedTuple):
    """What was seen at one time."""

    seconds: float
    memory_mb: float
    descriptors: float
    lag: float
    records: float
    snapshot_age_s: float
    processor_s: float


class Trial(NamedTuple):
    """What a rate needed, and whether the service kept up."""

    rate: float
    read: float
    lag: float
    memory_mb: float
    processor: float
    held: bool


class Soak:
    """The service at work, and what it says and needs."""

    def __init__(self, folder: Path, bootstrap: str, n_symbols: int) -> None:
        self.config = folder / "soak.toml"
        self.port, self._folder, self._n = free_port(), folder, n_symbols
        self._bootstrap = bootstrap
        names = ", ".join(f'"SIM:{k}"' for k in range(n_symbols))
        settings = SETTINGS.format(bootstrap=bootstrap, port=self.port, symbols=names)
        self.config.write_text(settings)
        self._process: subprocess.Popen[bytes] | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run the service, and stop it in good order."""
        run([COMMAND, "topics", "create", "--config", self.config])
        with (self._folder / "service.log").open("wb") as log:
            words: list[str | Path] = [COMMAND, "run", "--config", self.config]
            self._process = subprocess.Popen(words, stderr=log)
        try:
            while not self.answers():
                assert self._process.poll() is None, (self._folder / "service.log").read_text()
                time.sleep(0.5)
            yield
        finally:
            self._process.send_signal(signal.SIGTERM)
            assert self._process.wait(60) == 0

    @contextlib.contextmanager
    def fed(self, rate: float) -> Iterator[None]:
        """Write ticks at a rate, from now on."""
        words = [sys.executable, "-m", "replay_data.soak_feed", self._bootstrap]
        process = subprocess.Popen([*words, str(self._n), str(rate)])
        try:
            yield
            assert process.poll() is None, "the writer has ended"
        finally:
            process.kill()
            process.wait()

    def answers(self) -> bool:
        """Tell whether the service can be asked."""
        with contextlib.suppress(OSError):
            return bool(self._asked())
        return False

    def sample(self, began_s: float) -> Sample:
        """Look once."""
        assert self._process is not None
        said, pid = self._asked(), self._process.pid
        assert total(said, "restarts_total") == 0, (self._folder / "service.log").read_text()
        saved_s = total(said, "last_snapshot_timestamp_seconds")
        return Sample(
            time.monotonic() - began_s,
            sum(map(resident_mb, [pid, *children(pid)])),
            len(os.listdir(f"/proc/{pid}/fd")),  # noqa: PTH208
            total(said, "consumer_lag_records"),
            total(said, "records_total"),
            time.time() - saved_s if saved_s else math.nan,
            total(said, "process_cpu_seconds_total", ""),
        )

    def _asked(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            said: str = answer.read().decode()
        return said


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    return [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


def resident_mb(pid: int) -> float:
    """Return the memory of a process, MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return sum(map(int, re.findall(r"VmRSS:\s+(\d+)", status))) / 1024


def total(said: str, name: str, prefix: str = "stream_calib_") -> float:
    """Return the sum of the series of a metric."""
    found = re.findall(rf"^{prefix}{name}(?:{{[^}}]*}})? (\S+)$", said, re.M)
    return sum(float(value) for value in found)


def run(words: Sequence[object]) -> str:
    """Run a command to its end; return what it says."""
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr or done.stdout
    return done.stdout


def trial(soak: Soak, rate: float) -> Trial:
    """Tell whether the service keeps up with a rate for a while, and what it needs."""
    with soak.fed(rate):
        time.sleep(TRIAL_S / 2)  # to begin, and to compile nothing
        began_s = time.monotonic()
        first = soak.sample(began_s)
        time.sleep(TRIAL_S)
        last = soak.sample(began_s)
    seconds = last.seconds - first.seconds
    read = (last.records - first.records) / seconds
    processor = (last.processor_s - first.processor_s) / seconds
    held = read > KEEPS_UP * rate and last.lag < BEHIND_S * rate
    found = Trial(rate, read, last.lag, last.memory_mb, processor, held)
    sys.stdout.write(f"{found}\n")
    while soak.sample(began_s).lag > rate:
        time.sleep(1.0)
    return found


def trials(soak: Soak) -> list[Trial]:
    """Try rates, to a quarter of the highest that holds; return all, ascending."""
    tried: list[Trial] = []
    low, high = 0.0, float(FIRST_RATE)
    while high <= RATE_MOST:
        tried.append(trial(soak, high))
        if not tried[-1].held:
            break
        low, high = high, 2.0 * high
    for _ in range(STEPS):
        middle = (low + high) / 2.0
        tried.append(trial(soak, middle))
        low, high = (middle, high) if tried[-1].held else (low, middle)
    return sorted(tried)


def main() -> None:
    """Find the rate, soak, look at the end, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--symbols", type=int, default=50)
    parser.add_argument("--rate", type=float, help="ticks per second, instead of finding it")
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        LocalBroker(Path(name) / "kafka", settings=RETENTION, java_options=BRIEF) as broker,
    ):
        soak = Soak(Path(name), broker.bootstrap, asked.symbols)
        with soak.running():
            tried = [] if asked.rate else trials(soak)
            rate = asked.rate or SHARE * max(t.rate for t in tried if t.held)
            samples = list(soaked(soak, rate, asked.seconds))
        verdict = run([COMMAND, "verify", "--config", soak.config]).strip().splitlines()[-1]
    (FOLDER / "soak.svg").write_text(picture(samples))
    (FOLDER / "soak.md").write_text(document(samples, tried, rate, asked.symbols, verdict))
    check(samples, rate)


def soaked(soak: Soak, rate: float, seconds: float) -> Iterator[Sample]:
    """Look at the service now and then while it is fed."""
    with soak.fed(rate):
        began_s = time.monotonic()
        while time.monotonic() - began_s < seconds:
            time.sleep(SAMPLE_S)
            yield soak.sample(began_s)


def grown(values: Sequence[float]) -> float:
    """Return the median of the last tenth of what was seen over that of the first."""
    n = max(1, len(values) // 10)
    first, last = statistics.median(values[:n]), statistics.median(values[-n:])
    return last / first if first else float(last != first)


def settled(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Leave out the beginning."""
    return samples[int(SETTLED * len(samples)) :]


def read_per_s(samples: Sequence[Sample]) -> float:
    """Return how many records a second were read."""
    return (samples[-1].records - samples[0].records) / (samples[-1].seconds - samples[0].seconds)


def check(samples: Sequence[Sample], rate: float) -> None:
    """Hold what was seen against what was asked for."""
    late = settled(samples)
    assert read_per_s(samples) > KEEPS_UP * rate, "not all was written or read"
    assert grown([s.memory_mb for s in late]) < GROWTH, "memory grows"
    assert grown([s.descriptors for s in late]) < GROWTH, "descriptors grow"
    assert statistics.median(s.lag for s in late) < rate, "more than a second behind"
    assert late[-1].lag < BEHIND_S * rate, "behind at the end"
    ages = [s.snapshot_age_s for s in late]
    assert not any(map(math.isnan, ages)), "no snapshot"
    n = len(ages) // 2
    assert max(ages[n:]) < 2.0 * max(ages[:n]), "the snapshot grows old"


def document(
    samples: Sequence[Sample],
    tried: Sequence[Trial],
    rate: float,
    n_symbols: int,
    verdict: str,
) -> str:
    """Write down what was seen."""
    late = settled(samples)
    read, seconds = read_per_s(samples), samples[-1].seconds - samples[0].seconds
    rows = [
        ("memory, MiB", [s.memory_mb for s in late], "{:.0f}"),
        ("descriptors", [s.descriptors for s in late], "{:.0f}"),
        ("records behind", [s.lag for s in late], "{:,.0f}"),
        ("age of the snapshot, s", [s.snapshot_age_s for s in late], "{:.0f}"),
    ]
    lines = [
        f"The service read {read:,.0f} ticks/s of {n_symbols} symbols for {seconds / 60:.0f} "
        f"minutes ({rate:,.0f}/s were written), with Kafka and the writer on the same "
        f"{os.cpu_count()} processors.",
        "",
        "| after the first sixth | least | median | most | last tenth to first |",
        "|---|---|---|---|---|",
    ]
    for what, values, form in rows:
        cells = [form.format(f(values)) for f in (min, statistics.median, max)]
        lines.append(f"| {what} | {' | '.join(cells)} | {grown(values):.2f} |")
    lines += ["", f"`stream-calib verify` at the end: {verdict}", ""]
    if tried:
        lines += [
            f"Before it, {TRIAL_S:.0f} s of each rate; a fifth less than the highest that held is "
            "what was soaked.",
            "",
            "| written/s | read/s | behind | memory, MiB | of one processor | held |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {t.rate:,.0f} | {t.read:,.0f} | {t.lag:,.0f} | {t.memory_mb:.0f} "
            f"| {t.processor:.0%} | {'yes' if t.held else 'no'} |"
            for t in tried
        ]
        lines.append("")
    lines += ["Drawn by `python -m replay_data.draw_soak`.", ""]
    return "\n".join(lines)


def picture(samples: Sequence[Sample]) -> str:
    """Draw one panel for each of the four."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"'
    parts = [f'{head} font-family="sans-serif"><rect width="100%" height="100%" fill="#fff"/>']
    panels = (
        ("memory, MiB", [s.memory_mb for s in samples]),
        ("descriptors", [s.descriptors for s in samples]),
        ("records behind", [s.lag for s in samples]),
        ("age of the snapshot, s", [s.snapshot_age_s for s in samples]),
    )
    seconds = [s.seconds for s in samples]
    for k, (title, values) in enumerate(panels):
        parts += panel(GAP + k * (PANEL + GAP), title, seconds, values)
    return "\n".join([*parts, "</svg>", ""])


def panel(top: float, title: str, seconds: Sequence[float], values: Sequence[float]) -> list[str]:
    """Draw values over time, from nothing to the largest."""
    seen = [(at_s, v) for at_s, v in zip(seconds, values, strict=True) if not math.isnan(v)]
    largest, end_s = max([1.0, *(v for _, v in seen)]), max(*seconds, 1.0)
    right = WIDTH - GAP

    def place(at_s: float, value: float) -> str:
        x = LEFT + (right - LEFT) * at_s / end_s
        return f"{x:.1f} {top + PANEL * (1.0 - value / largest):.1f}"

    line = " L".join(place(at_s, value) for at_s, value in seen)
    return [
        text(LEFT, top - 8, title, weight="bold"),
        rule(LEFT, top + PANEL, right, top + PANEL, GREY),
        text(LEFT - 8, top + 10, f"{largest:,.0f}", "end", fill=INK),
        text(LEFT - 8, top + PANEL, "0", "end", fill=INK),
        text(right, top + PANEL + 16, f"{end_s / 60:.0f} min", "end", fill=GREY),
        f'<path d="M{line}" fill="none" stroke="{BLUE}" stroke-width="1.5"/>',
    ]


if __name__ == "__main__":
    main()
