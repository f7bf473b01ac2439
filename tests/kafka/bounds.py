"""What a service takes while it is under load, and how it is put there."""

import asyncio
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import orjson
from aiokafka import AIOKafkaProducer

from deploy.kafka.broker import free_port
from tests.cli.forking import Forked
from tests.kafka.killing import DEADLINE_S, Victim
from tests.kafka.living import Live, start
from tests.kafka.test_faults_process import names, scene, settings, tick_rows

BATCH_BYTES = 400_000
# connections that are made later than a service says that it runs: with the first commit, to note
# positions and to trim the journal, and to the snapshot that is being written
LATER_DESCRIPTORS = 8


def mib(pid: int, name: str = "VmRSS") -> float:
    """Memory of a process, or with VmHWM the most it ever had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def descriptors(pid: int) -> int:
    """Return how many descriptors a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def address_bytes(pid: int) -> int:
    """Return the size of a process's address space."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


class Watched:
    """A service at work with its HTTP face."""

    def __init__(self, process: "Forked | subprocess.Popen[str]", port: int) -> None:
        self.process, self.port = process, port
        self.pid = process.pid
        self.idle_mib = mib(self.pid, "VmHWM")
        self.idle_descriptors = descriptors(self.pid)

    @property
    def growth_mib(self) -> float:
        """How much more memory it had at any time than when it began."""
        return mib(self.pid, "VmHWM") - self.idle_mib

    def get(self, path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as page:
                return str(page.read().decode())
        except urllib.error.HTTPError as error:  # 503 has a page too
            return error.read().decode()

    def number(self, name: str, *labels: str) -> float:
        """Sum of the samples of a metric that have these labels, such as 'outcome="late"'."""
        return sum(
            float(line.rpartition(" ")[2])
            for line in self.get("/metrics").splitlines()
            if line.split("{")[0].split(" ")[0] == f"stream_calib_{name}"
            and all(label in line for label in labels)
        )

    def snapshots(self, outcome: str) -> float:
        return self.number("snapshots_total", f'outcome="{outcome}"')

    def reasons(self) -> list[str]:
        return list(orjson.loads(self.get("/readyz"))["reasons"])

    async def has_let_go(self) -> None:
        """Wait until it has about as many descriptors open as when it began."""
        most = self.idle_descriptors + LATER_DESCRIPTORS
        await self.until(lambda: descriptors(self.pid) <= most)

    async def until(self, condition: Callable[[], bool], within_s: float = DEADLINE_S) -> None:
        deadline_s = time.monotonic() + within_s
        while not await asyncio.to_thread(condition):
            assert self.process.poll() is None, self.process.returncode
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.05)


def with_face(victim: Victim) -> int:
    """Let the service have an HTTP face, and return its port."""
    port = free_port()
    settings(victim, "enabled = false", f"enabled = true\nport = {port}")
    return port


async def watched(victim: Victim, *flags: str) -> tuple[Live, Watched]:
    """Start a service with an HTTP face and wait until it runs."""
    port = with_face(victim)
    live = await start(victim, *flags)
    await asyncio.to_thread(live.until_said, "running")
    return live, Watched(live.process, port)


async def unhurried(bootstrap: str, folder: Path, seed: int, **changes: Any) -> "Parted":
    """Return a service that no silence makes close a bar, so that input may come in parts."""
    rows = tick_rows("", names(6), seed)
    victim = await scene(bootstrap, folder, lambda t: [(t, 0, b"{}")], **changes)
    settings(victim, 'flush_after = "1500ms"', 'flush_after = "1h"')
    return Parted(victim, [value for _, _, value in rows])


class Parted:
    """A service whose input comes in parts."""

    def __init__(self, victim: Victim, values: list[bytes]) -> None:
        self.victim = victim
        self._values = values

    async def feed(self, share: float) -> None:
        """Write this share of what is left."""
        n = round(share * len(self._values))
        part, self._values = self._values[:n], self._values[n:]
        await written(self.victim.bootstrap, self.victim.topics[0], part)


async def written(bootstrap: str, topic: str, values: Iterable[bytes], partition: int = 0) -> int:
    """Write records in large batches; return how many."""
    n = 0
    async with AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        max_request_size=2**21,
        max_batch_size=BATCH_BYTES,
        compression_type=None,
    ) as producer:
        acks, batch = [], producer.create_batch()
        for value in values:
            while batch.append(key=None, value=value, timestamp=None) is None:
                acks.append(await producer.send_batch(batch, topic, partition=partition))
                batch = producer.create_batch()
                if len(acks) >= 16:
                    await acks.pop(0)
            n += 1
        if batch.record_count():
            acks.append(await producer.send_batch(batch, topic, partition=partition))
        await asyncio.gather(*acks)
    return n


def tell(fault: str, done: str, growth_mib: float, lost: int, seconds: float) -> None:
    """Print a row of the table in the README."""
    print(  # noqa: T201
        f"\n| {fault} | {done} | {growth_mib:.0f} MiB | {lost} | {seconds:.1f} s |"
    )
