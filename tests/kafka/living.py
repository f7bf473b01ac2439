"""Processes at work in a test, what they say, and how they end."""

import asyncio
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import aiohttp
import orjson

from tests.cli.forking import Forked
from tests.kafka.killing import DEADLINE_S, Victim

STOPPED = "stopped"  # the last word of one that was asked to
ASKED_S = 180.0
GAVE_UP = "stopped without waiting any longer"


class Ended(NamedTuple):
    """How a process ended: its code, its one sentence ("" for none), what it logged."""

    code: int
    sentence: str
    log: list[dict[str, Any]]

    def said(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self.log if entry["event"] == event]


class Live:
    """A process at work; what it says is read as it comes."""

    def __init__(self, process: "subprocess.Popen[str] | Forked") -> None:
        self.process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        STARTED.append(self)

    def until_said(self, event: str) -> None:
        deadline_s = time.monotonic() + DEADLINE_S
        while not any(f'"event": "{event}"' in line for line in list(self.lines)):
            assert self.process.poll() is None, self.lines
            assert time.monotonic() < deadline_s, self.lines
            time.sleep(0.02)

    def ended(self, ask: signal.Signals | None = None, *, may_give_up: bool = False) -> Ended:
        """Wait for its end; nothing but log lines and one sentence is said.

        One that is asked to stop, and ends with 0, has come to the end of what it had to do: it
        neither hung until it left all the same nor gave up waiting, which it may where brokers are
        down or universes still come to it.
        """
        if ask is not None:
            self.process.send_signal(ask)
        try:
            code = self.process.wait(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end: {self.lines[-5:]}") from None
        finally:
            self.close()
        log = [orjson.loads(line) for line in self.lines if line.startswith("{")]
        rest = [line for line in self.lines if not line.startswith("{")]
        assert len(rest) <= 1, self.lines
        assert all(line.startswith("stream-calib: ") for line in rest), self.lines
        done = Ended(code, rest[0].strip() if rest else "", log)
        if ask is not None and code == 0:
            assert [entry["event"] for entry in log[-1:]] == [STOPPED], self.lines[-5:]
            assert may_give_up or not done.said(GAVE_UP), self.lines[-5:]
        return done

    def killed(self) -> None:
        """Kill -9 what is at work; it said nothing of an error before."""
        assert self.process.poll() is None, self.lines[-5:]
        self.process.kill()
        code = self.process.wait(timeout=DEADLINE_S)
        self.close()
        assert code == -signal.SIGKILL, self.lines[-5:]
        assert not any("Traceback" in line for line in self.lines), self.lines[-5:]

    def close(self) -> None:
        """Kill it where it still runs."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)


STARTED: list[Live] = []


async def start(victim: Victim, *flags: str, crash: str = "") -> Live:
    return Live(await asyncio.to_thread(victim.start, *flags, crash=crash))


def end_all() -> None:
    """End what a test that failed has left at work."""
    for live in STARTED:
        live.close()
    STARTED.clear()


async def asked(url: str, path: str, pattern: str) -> re.Match[str]:
    """Ask a service by HTTP until its answer matches."""
    async with aiohttp.ClientSession() as client, asyncio.timeout(ASKED_S):
        while True:
            async with client.get(url + path) as answer:
                if found := re.search(pattern, text := await answer.text()):
                    return found
            assert text
            await asyncio.sleep(0.1)


async def ended(
    live: Live, ask: signal.Signals | None = None, *, may_give_up: bool = False
) -> Ended:
    return await asyncio.to_thread(live.ended, ask, may_give_up=may_give_up)


def said_at(entry: Mapping[str, Any]) -> float:
    """When it was logged, in seconds since 1970: before Python clears up, which may take long."""
    return datetime.fromisoformat(entry["timestamp"]).timestamp()
