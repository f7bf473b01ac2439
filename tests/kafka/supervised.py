"""A service that is started again whenever it ends, and the ends that it may have."""

import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import orjson

from tests.kafka.killing import Victim
from tests.kafka.living import Live

AGAIN_S = 0.5  # between an end and the next start
SETTLED_S = 180.0  # until all is published once nothing breaks any more, on a busy machine


class Supervised:
    """Starts the service again whenever it ends, until told to stop.

    Parameters
    ----------
    victim
        The service.

    Attributes
    ----------
    codes, at_work
        How often it ended with which code before it was told to stop; and how often of these
        after it had recovered.
    killed
        How many processes were at work when ``send`` sent them SIGKILL.
    sentences, log
        What all processes said.
    descriptors
        How many were open each time they were counted.
    """

    def __init__(self, victim: Victim) -> None:
        self.codes: Counter[int] = Counter()
        self.at_work: Counter[int] = Counter()
        self.killed = 0
        self.sentences: list[str] = []
        self.log: list[dict[str, object]] = []
        self.descriptors: list[int] = []
        self._victim = victim
        self._stop = threading.Event()
        self._live: Live | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        live = self._live
        return live.process.pid if live is not None and live.process.poll() is None else None

    def send(self, number: signal.Signals) -> int | None:
        """Send a signal to the process at work; return its id, None where there is none."""
        live = self._live
        if live is None or live.process.poll() is not None:
            return None
        live.process.send_signal(number)
        self.killed += number == signal.SIGKILL
        return live.process.pid

    def count_descriptors(self) -> None:
        """Note how many the process has open."""
        pid = self.pid
        if pid is not None:
            self.descriptors.append(len([*Path(f"/proc/{pid}/fd").iterdir()]))

    def until_running(self) -> None:
        """Wait until some process says that it is at work."""
        deadline_s = time.monotonic() + SETTLED_S
        while not (
            self._live and any('"event": "running"' in line for line in list(self._live.lines))
        ):
            assert time.monotonic() < deadline_s, self.sentences
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it in good order."""
        self._stop.set()
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        self._thread.join(SETTLED_S)
        assert not self._thread.is_alive()

    def judge(self, may_end: Mapping[int, int]) -> None:
        """Hold its ends against how often it may have ended with which code.

        These are ends of starts: one that is at work ends by SIGKILL alone, and as often as that
        was sent, for a process whose memory ran out is killed too.
        """
        told = (self.codes, self.at_work, self.sentences)
        kills = self.codes[-signal.SIGKILL]
        assert kills <= self.killed, told
        assert set(+self.at_work) <= {-signal.SIGKILL}, told
        for code, n in self.codes.items():
            assert code == -signal.SIGKILL or n <= may_end.get(code, 0), told

    def _run(self) -> None:
        while not self._stop.is_set():
            self._live = live = Live(self._victim.start())
            while True:
                try:
                    live.process.wait(timeout=1.0)
                    break
                except subprocess.TimeoutExpired:
                    continue
            live.close()
            self._victim._note("".join(live.lines))
            self.log += [orjson.loads(line) for line in live.lines if line.startswith("{")]
            self.sentences += [line for line in live.lines if not line.startswith("{")]
            if self._stop.is_set():
                assert live.process.returncode == 0, live.lines[-3:]
                return
            code = int(live.process.returncode or 0)
            self.codes[code] += 1
            self.at_work[code] += any('"event": "recovered"' in line for line in live.lines)
            self._stop.wait(AGAIN_S)
