"""A service that ends by an error ends, also where a thread of it hangs."""

import sys
from pathlib import Path

from tests.cli.command import DEADLINE_S, spawn

HANGS = """
import asyncio, time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from stream_calib.cli import main
from stream_calib.errors import LostInputError
from stream_calib.service import wiring

class Hung:
    observer = SimpleNamespace(unlogged=lambda n: None)
    watchdog = SimpleNamespace()

    async def run(self, stop, started):
        ThreadPoolExecutor(1).submit(time.sleep, 600.0)
        await asyncio.sleep(0.1)
        raise LostInputError("What it was at is gone")

wiring.kafka_service = lambda *given: Hung()
main()
"""
SETTINGS = """
[input]
topics = ["ticks"]
[[universe]]
name = "u"
symbols = ["A", "B"]
"""


def test_a_thread_that_hangs_in_a_save_does_not_hold_up_the_end(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(SETTINGS)
    words = ("run", "-c", "settings.toml")
    with spawn(*words, program=[sys.executable, "-c", HANGS], cwd=tmp_path) as process:
        _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 8
    assert err.splitlines()[-1] == "stream-calib: What it was at is gone"
