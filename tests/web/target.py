"""A server in a process of its own, for tests that would like to know what it costs to be attacked.

It prints its port, publishes a matrix of 200 symbols every 0.1 s, and ends with its input.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.real_parts import ROOT
from tests.web.showing import blocks, effects_of, matrix_of, serving_aside

N, PERIOD_S = 200, 0.1
PAGE = os.sysconf("SC_PAGE_SIZE")


class Target:
    """The port of a server, and what it holds."""

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._process = process

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    def memory(self) -> int:
        """Return the bytes of its resident memory."""
        return int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]) * PAGE

    def files(self) -> int:
        """Return how many files and sockets it has open."""
        return len(list(Path(f"/proc/{self._process.pid}/fd").iterdir()))


@contextlib.contextmanager
def target() -> Iterator[Target]:
    """Start a server and end it."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.web.target"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield Target(process, int(process.stdout.readline()))
        finally:
            process.communicate()


async def _serve() -> None:
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    async with serving_aside() as (server, view):
        print(server.port, flush=True)  # noqa: T201 (to who started it)
        sequence = 0
        while not ended.done():
            sequence += 1
            view.show("fx", effects_of(matrix_of(blocks(N, 5), sequence)))
            await asyncio.sleep(PERIOD_S)


if __name__ == "__main__":
    asyncio.run(_serve())
